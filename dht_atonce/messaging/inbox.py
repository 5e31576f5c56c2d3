"""The queue between links and the app: bounded, and read by `async for`."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from dht_atonce.config import MessagingConfig
from dht_atonce.identity import PeerId

__all__ = ["Inbox", "Message"]


@dataclass(frozen=True, slots=True)
class Message:
    """A message as the app gets it. The sender is verified: its key opened the link and signed its HELLO."""

    sender: PeerId
    data: bytes


class Inbox:
    """Messages that wait for the app."""

    def __init__(self, config: MessagingConfig) -> None:
        self._config = config
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._closed = False
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def room(self) -> int:
        """How many more messages are accepted now."""
        if self._closed or self._bytes >= self._config.inbox_bytes:
            return 0
        return self._config.inbox_messages - len(self._messages)

    def put(self, message: Message) -> None:
        """Add a message for which there was room."""
        self._messages.append(message)
        self._bytes += len(message.data)
        self._arrived.set()

    def close(self) -> None:
        """No more messages; readers end when they have read what is there."""
        self._closed = True
        self._arrived.set()

    async def read(self) -> AsyncIterator[Message]:
        """All messages, as they come. Several readers share them out."""
        while True:
            while self._messages:
                message = self._messages.popleft()
                self._bytes -= len(message.data)
                yield message
            if self._closed:
                return
            self._arrived.clear()
            await self._arrived.wait()
