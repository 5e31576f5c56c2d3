"""Redis, publish and subscribe over a broker: 50 messages per pipeline, or whatever there is when somebody waits."""

from typing import Any

from benchmarks.messages.rival import Channel, Info, Skipped
from benchmarks.messages.rivals.brokers import start_broker

__all__ = ["make"]

_PIPELINED = 50


class _Channels:
    def __init__(self, client: Any, messages: Any, to: str) -> None:
        self._pipeline = client.pipeline(transaction=False)
        self._messages = messages
        self._to = to
        self._queued = 0

    async def send(self, data: bytes) -> None:
        self._pipeline.publish(self._to, data)
        self._queued += 1
        if self._queued >= _PIPELINED:
            await self._flush()

    async def recv(self) -> bytes:
        if self._queued:
            await self._flush()
        while True:
            message = await self._messages.parse_response(block=True)
            if message[0] == b"message":
                return message[2]  # type: ignore[no-any-return]

    async def _flush(self) -> None:
        self._queued = 0
        await self._pipeline.execute()


class _Redis:
    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._far: Channel | None = None

    async def listen(self) -> Info:
        limits = "--client-output-buffer-limit pubsub 0 0 0 --save".split()
        port = await start_broker("redis-server", "--port", "PORT", "--bind", "127.0.0.1", *limits, "")
        self._far = await self._open(port, "to-far", "to-near")
        return {"port": port}

    async def accept(self) -> Channel:
        assert self._far is not None
        return self._far

    async def dial(self, info: Info) -> Channel:
        return await self._open(info["port"], "to-near", "to-far")

    async def _open(self, port: int, own: str, to: str) -> Channel:
        client = self._redis.Redis(host="127.0.0.1", port=port)
        messages = client.pubsub()
        await messages.subscribe(own)
        await messages.parse_response(block=True)
        return _Channels(client, messages, to)


def make() -> _Redis:
    try:
        import redis.asyncio
    except ImportError:
        raise Skipped("not installed: make bench-rivals") from None
    return _Redis(redis.asyncio)
