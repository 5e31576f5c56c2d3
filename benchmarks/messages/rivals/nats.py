"""NATS: two subjects over a broker, without TLS."""

import asyncio
from typing import Any

from benchmarks.messages.rival import Channel, Skipped
from benchmarks.messages.rivals.brokers import OverBroker

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


class _Nats(OverBroker):
    command = ("nats-server", "-a", "127.0.0.1", "-p", "PORT")

    def __init__(self, nats: Any) -> None:
        super().__init__()
        self._nats = nats

    async def open(self, port: int, own: str, to: str) -> Channel:
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
