"""The queue between links and the app: bounded, shared fairly, and read by `async for`."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec

from dht_atonce.config import MessagingConfig
from dht_atonce.identity import PeerId

__all__ = ["Inbox", "Message"]


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message as the app gets it. The sender is verified: its key opened the link and signed its HELLO."""

    sender: PeerId
    data: bytes


class _Share(msgspec.Struct, eq=False):
    """What waits of one sender."""

    count: int = 0
    size: int = 0
    """Bytes."""


class _Chunk(msgspec.Struct, eq=False):
    """Messages of one sender that came together, the next one to be read last."""

    sender: PeerId
    messages: list[bytes]
    share: _Share
    count: int
    size: int


class Inbox:
    """Messages that wait for the app.

    A sender may fill as much as is left free (dynamic thresholds, Choudhury and Hahne 1998): one that floods gets half
    of all the room and no more, and others still find theirs. `on_read` is called when senders may send more.
    """

    def __init__(self, config: MessagingConfig) -> None:
        self.on_read: Callable[[], None] | None = None
        self._config = config
        self._many_bytes = config.inbox_bytes // 4
        self._frame_messages, self._frame_bytes = config.frame_messages, config.frame_bytes
        self._messages = config.inbox_messages
        self._chunks: deque[_Chunk] = deque()
        # Chunks are counted out when all of them is read.
        self._count = self._bytes = 0
        self._shares: dict[PeerId, _Share] = {}
        self._closed = False
        self._readers: list[asyncio.Future[None]] = []
        """Those who wait for messages."""

    def __len__(self) -> int:
        head = self._chunks[0] if self._chunks else None
        return self._count - (head.count - len(head.messages) if head is not None else 0)

    def room(self, sender: PeerId) -> int:
        """How many more messages are accepted from `sender` now. Whoever has none here has room for a frame."""
        if self._closed:
            return 0
        held = self._shares.get(sender)
        share, size = (held.count, held.size) if held is not None else (0, 0)
        free = self._messages - self._count
        if self._bytes > self._many_bytes:
            # Going by the mean size of what is here.
            free = min(free, (self._config.inbox_bytes - self._bytes) * self._count // self._bytes)
        room = (free - share) // 2  # each message makes the share larger and what is free smaller
        if room >= self._frame_messages:
            return room
        if size >= self._frame_bytes or self._bytes >= 2 * self._config.inbox_bytes:
            return max(room, 0)
        # A frame for everybody, but not for any number of names.
        return max(room, min(self._frame_messages - share, 2 * self._messages - self._count), 0)

    def put(self, sender: PeerId, messages: list[bytes]) -> None:
        """Add messages for which there was room."""
        if not messages:
            return
        share = self._shares.get(sender)
        if share is None:
            share = self._shares[sender] = _Share()
        count = len(messages)
        size = len(messages[0]) if count == 1 else sum(map(len, messages))
        self._chunks.append(_Chunk(sender, messages[::-1], share, count, size))
        self._count += count
        self._bytes += size
        share.count += count
        share.size += size
        if self._readers:
            self._wake()

    def close(self) -> None:
        """No more messages; readers end when they have read what is there."""
        self._closed = True
        self._wake()

    def waiting(self) -> Iterator[Message]:
        """The messages that are there, until there is none. Whoever stops before that leaves the others."""
        chunks = self._chunks
        while chunks:
            chunk = chunks[0]
            sender, messages = chunk.sender, chunk.messages
            while messages:
                yield Message(sender, messages.pop())
            if chunks and chunks[0] is chunk:  # else another reader got to its end
                chunks.popleft()
                self._count_out(chunk)

    async def read(self) -> AsyncIterator[Message]:
        """All messages, as they come. Several readers share them out."""
        while True:
            for message in self.waiting():
                yield message
            if self._closed:
                return
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._readers.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._readers:  # cancelled
                    self._readers.remove(waiter)

    def _wake(self) -> None:
        readers, self._readers = self._readers, []
        for waiter in readers:
            if not waiter.done():
                waiter.set_result(None)

    def _count_out(self, chunk: _Chunk) -> None:
        self._count -= chunk.count
        self._bytes -= chunk.size
        share = chunk.share
        share.count -= chunk.count
        share.size -= chunk.size
        if not share.count:
            del self._shares[chunk.sender]
        if self.on_read is not None:
            self.on_read()
