"""The queue between links and the app: bounded, shared fairly, and read by `async for`."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec

from dht_atonce.config import MessagingConfig
from dht_atonce.identity import PeerId

__all__ = ["Inbox", "Message"]


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message as the app gets it. The sender is verified: its key opened the link and signed its HELLO."""

    sender: PeerId
    data: bytes


class _Chunk:
    """Messages of one sender that came together, the next one to be read last."""

    __slots__ = ("count", "messages", "sender", "size")

    def __init__(self, sender: PeerId, messages: list[bytes]) -> None:
        self.sender = sender
        self.messages = messages[::-1]
        self.count = len(messages)
        self.size = sum(map(len, messages))


class Inbox:
    """Messages that wait for the app.

    A sender may fill as much as is left free (dynamic thresholds, Choudhury and Hahne 1998): one that floods gets half
    of all the room and no more, and others still find theirs. `on_read` is called when senders may send more.
    """

    def __init__(self, config: MessagingConfig) -> None:
        self.on_read: Callable[[], None] | None = None
        self._config = config
        self._chunks: deque[_Chunk] = deque()
        # Chunks are counted out when all of them is read.
        self._count = self._bytes = 0
        self._shares: dict[PeerId, tuple[int, int]] = {}
        """Messages and bytes of each sender."""
        self._closed = False
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        head = self._chunks[0] if self._chunks else None
        return self._count - (head.count - len(head.messages) if head is not None else 0)

    def room(self, sender: PeerId) -> int:
        """How many more messages are accepted from `sender` now. Whoever has none here has room for a frame."""
        config = self._config
        if self._closed:
            return 0
        share, size = self._shares.get(sender, (0, 0))
        free = config.inbox_messages - self._count
        if self._bytes > config.inbox_bytes // 4:
            # Going by the mean size of what is here.
            free = min(free, (config.inbox_bytes - self._bytes) * self._count // self._bytes)
        room = (free - share) // 2  # each message makes the share larger and what is free smaller
        return max(room, config.frame_messages - share if size < config.frame_bytes else 0, 0)

    def put(self, sender: PeerId, messages: list[bytes]) -> None:
        """Add messages for which there was room."""
        if not messages:
            return
        chunk = _Chunk(sender, messages)
        self._chunks.append(chunk)
        self._count += chunk.count
        self._bytes += chunk.size
        share, size = self._shares.get(sender, (0, 0))
        self._shares[sender] = (share + chunk.count, size + chunk.size)
        self._arrived.set()

    def close(self) -> None:
        """No more messages; readers end when they have read what is there."""
        self._closed = True
        self._arrived.set()

    async def read(self) -> AsyncIterator[Message]:
        """All messages, as they come. Several readers share them out."""
        chunks = self._chunks
        while True:
            while chunks:
                chunk = chunks[0]
                sender, messages = chunk.sender, chunk.messages
                while messages:
                    yield Message(sender, messages.pop())
                if chunks and chunks[0] is chunk:  # else another reader got to its end
                    chunks.popleft()
                    self._count_out(chunk)
            if self._closed:
                return
            self._arrived.clear()
            await self._arrived.wait()

    def _count_out(self, chunk: _Chunk) -> None:
        self._count -= chunk.count
        self._bytes -= chunk.size
        share, size = self._shares[chunk.sender]
        if share > chunk.count:
            self._shares[chunk.sender] = (share - chunk.count, size - chunk.size)
        else:
            del self._shares[chunk.sender]
        if self.on_read is not None:
            self.on_read()
