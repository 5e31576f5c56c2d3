"""Redis, publish and subscribe over a broker, pipelined: while one pipeline is under way, the next one is filled."""

import asyncio
from typing import Any

from benchmarks.messages.rival import Channel, Skipped
from benchmarks.messages.rivals.brokers import OverBroker

__all__ = ["make"]

_MANY = 1000  # messages that wait for a pipeline before the sender is held back


class _Channels:
    def __init__(self, client: Any, messages: Any, to: str) -> None:
        self._client = client
        self._messages = messages
        self._to = to
        self._waiting: list[bytes] = []
        self._flushing: asyncio.Task[None] | None = None

    async def send(self, data: bytes) -> None:
        self._waiting.append(data)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        if len(self._waiting) >= _MANY:
            await self._flushing

    async def recv(self) -> bytes:
        while True:
            message = await self._messages.parse_response(block=True)
            if message[0] == b"message":
                return message[2]  # type: ignore[no-any-return]

    async def _flush(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            pipeline = self._client.pipeline(transaction=False)
            for data in waiting:
                pipeline.publish(self._to, data)
            await pipeline.execute()


class _Redis(OverBroker):
    _LIMITS = ("--client-output-buffer-limit", "pubsub", "0", "0", "0", "--save", "")
    command = ("redis-server", "--port", "PORT", "--bind", "127.0.0.1", *_LIMITS)

    def __init__(self, redis: Any) -> None:
        super().__init__()
        self._redis = redis

    async def open(self, port: int, own: str, to: str) -> Channel:
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
