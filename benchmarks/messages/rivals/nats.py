"""NATS: two subjects over a broker, without TLS."""

import asyncio
from typing import Any

from benchmarks.messages.rival import Channel, Info, Skipped
from benchmarks.messages.rivals.brokers import start_broker

__all__ = ["make"]

_NO_LIMIT = 0


class _Subjects:
    def __init__(self, client: Any, to: str) -> None:
        self._client = client
        self._to = to
        self._got: asyncio.Queue[bytes] = asyncio.Queue()

    async def on_message(self, message: Any) -> None:
        self._got.put_nowait(message.data)

    async def send(self, data: bytes) -> None:
        await self._client.publish(self._to, data)

    async def recv(self) -> bytes:
        return await self._got.get()


class _Nats:
    def __init__(self, nats: Any) -> None:
        self._nats = nats
        self._far: Channel | None = None

    async def listen(self) -> Info:
        port = await start_broker("nats-server", "-a", "127.0.0.1", "-p", "PORT")
        self._far = await self._open(port, "to-far", "to-near")
        return {"port": port}

    async def accept(self) -> Channel:
        assert self._far is not None
        return self._far

    async def dial(self, info: Info) -> Channel:
        return await self._open(info["port"], "to-near", "to-far")

    async def _open(self, port: int, own: str, to: str) -> Channel:
        client = await self._nats.connect(f"nats://127.0.0.1:{port}")
        subjects = _Subjects(client, to)
        await client.subscribe(own, cb=subjects.on_message, pending_msgs_limit=_NO_LIMIT, pending_bytes_limit=_NO_LIMIT)
        await client.flush()
        return subjects


def make() -> _Nats:
    try:
        import nats
    except ImportError:
        raise Skipped("not installed: make bench-rivals") from None
    return _Nats(nats)
