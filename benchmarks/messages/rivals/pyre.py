"""zeromq-pyre: ZRE with its own thread, whispers, no encryption. The two find each other by beacons on loopback."""

import asyncio
import uuid
from typing import Any

from benchmarks.messages.rival import Channel, Info, Skipped

__all__ = ["make"]

_FOUND_S = 8.0


class _Whispers:
    def __init__(self, node: Any, to: Any) -> None:
        self._node = node
        self._to = to

    async def send(self, data: bytes) -> None:
        self._node.whisper(self._to, data)

    async def recv(self) -> bytes:
        while True:
            event = self._node.recv()
            if event[0] == b"WHISPER":
                return event[3]  # type: ignore[no-any-return]


class _Pyre:
    def __init__(self, pyre: Any) -> None:
        self._pyre = pyre

    def _start(self) -> Any:
        node = self._pyre.Pyre()
        node.set_interface("lo")
        node.start()
        return node

    async def listen(self) -> Info:
        self._node = self._start()
        return {"uuid": self._node.uuid().hex}

    async def accept(self) -> Channel:
        return _Whispers(self._node, await self._met(None))

    async def dial(self, info: Info) -> Channel:
        self._node = self._start()
        return _Whispers(self._node, await self._met(uuid.UUID(info["uuid"])))

    async def _met(self, wanted: uuid.UUID | None) -> uuid.UUID:
        """Whoever enters. Raises `Skipped`."""
        socket = self._node.socket()
        for _ in range(int(_FOUND_S / 0.1)):
            if not socket.poll(0):
                await asyncio.sleep(0.1)
                continue
            event = self._node.recv()
            met = uuid.UUID(bytes=event[1])
            if (event[0] == b"ENTER" and met in (wanted, None)) or (event[0] == b"ENTER" and wanted is None):
                return met
        raise Skipped("its beacons do not arrive on this machine's loopback")


def make() -> _Pyre:
    try:
        import pyre
    except ImportError:
        raise Skipped("not installed: make bench-rivals") from None
    return _Pyre(pyre)
