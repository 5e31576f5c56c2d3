"""A stream as the app has it: an asynchronous reader and writer."""

import asyncio
from types import TracebackType
from typing import Protocol, Self

from dht_atonce.identity import PeerId
from dht_atonce.streams.flow import Flow
from dht_atonce.streams.wire import CHUNK

__all__ = ["Carrier", "Stream"]


class Carrier(Protocol):
    """What moves the bytes of streams."""

    write_ahead_bytes: int

    def read(self, stream: "Stream", most: int) -> bytes: ...

    def write(self, stream: "Stream", data: bytes) -> None: ...

    def finish(self, stream: "Stream") -> None: ...

    def close(self, stream: "Stream") -> None:
        """All that was to be said was said, and what still comes is not wanted."""

    def abort(self, stream: "Stream", text: str) -> None: ...


class Stream:
    """Bytes to and from one other peer, in order. Each direction ends by itself.

        async with await peer.open_stream(friend, "numbers") as stream:
            await stream.write(b"1 2 3")
            await stream.write_eof()
            async for chunk in stream:
                ...

    Left without an error, the block closes the stream; left with one, it aborts it. One task may read while another
    one writes. All methods that wait raise `StreamReset` if the other side gave the stream up, `StreamBroken` if its
    process is gone or out of reach for too long, and `PeerClosed`.
    """

    def __init__(self, carrier: Carrier, peer: PeerId, flow: Flow) -> None:
        self.peer = peer
        """The other side: verified, its key opened the link."""
        self.flow = flow
        self._carrier = carrier
        self._loop = asyncio.get_running_loop()
        self._waiters: list[asyncio.Future[None]] = []
        self._aborted = False

    @property
    def name(self) -> str:
        """What it is for, as whoever opened it says: at most 128 B, and a stranger's words if we did not."""
        return self.flow.name

    # --- reading ---

    async def read(self, most: int = CHUNK) -> bytes:
        """At least one byte and at most `most`, as soon as there is something; b"" at the end."""
        if most < 0:
            raise ValueError("read() wants a number of bytes; read to the end by `async for`")
        flow = self.flow
        while not flow.readable:
            if flow.has_ended or not most:
                return b""
            self._check()
            await self.changed()
        return self._carrier.read(self, most)

    async def readexactly(self, count: int) -> bytes:
        """So many bytes. Raises `asyncio.IncompleteReadError` if the end comes before."""
        parts: list[bytes] = []
        missing = count
        while missing:
            part = await self.read(missing)
            if not part:
                raise asyncio.IncompleteReadError(b"".join(parts), count)
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    # --- writing ---

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Have `data` sent; returns when little of it still waits for its turn, not when it has arrived.

        Whoever is cancelled here has had all of `data` taken. Raises RuntimeError after `write_eof`.
        """
        self._check()
        flow = self.flow
        if flow.finished:
            raise RuntimeError("this stream was ended by write_eof()")
        self._carrier.write(self, data if isinstance(data, bytes) else bytes(data))
        while flow.waiting > self._carrier.write_ahead_bytes:
            await self.changed()
            self._check()

    async def drain(self) -> None:
        """Wait until the other side has all that was written: in its stream, its app need not have read it."""
        while not self.flow.is_drained:
            self._check()
            await self.changed()

    async def write_eof(self) -> None:
        """Nothing more will be written; the other side reads to the end. We can go on reading."""
        if not self.flow.finished:
            self._check()
            self._carrier.finish(self)

    # --- the end ---

    async def aclose(self) -> None:
        """End the stream: wait until the other side has all that was written; what it may still send is not wanted.

        Raises what `write` raises if something that was written did not get there. May be called twice.
        """
        flow = self.flow
        if flow.error is None and not flow.finished:
            self._carrier.finish(self)
        while flow.error is None and not flow.is_drained:
            await self.changed()
        if flow.error is not None and flow.undelivered and not self._aborted:
            self._check()
        self._carrier.close(self)

    def abort(self, reason: str = "") -> None:
        """End the stream at once, in both directions; `reason` (at most 128 characters) is for the other side."""
        self._aborted = True
        self._carrier.abort(self, reason)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.aclose()
        else:
            self.abort()

    # --- the carrier's side ---

    def wake(self) -> None:
        """Something of it changed."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def changed(self) -> None:
        """Wait until something of it changes."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _check(self) -> None:
        why = self.flow.error
        if why is not None:
            raise why[0](why[1])
