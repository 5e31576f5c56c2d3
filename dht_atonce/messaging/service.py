"""What takes messages of one kind out of frames, and the two that take plain ones: for a queue, or a callback."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from dht_atonce.config import MessagingConfig
from dht_atonce.identity import PeerId
from dht_atonce.messaging.inbox import Inbox, Message

__all__ = ["OnMessage", "Service", "ToCallback", "ToInbox"]

OnMessage = Callable[[Message], None]


class Service(Protocol):
    """One for each `Kind`. Neither method raises: what a stranger says is dropped and counted."""

    def room(self, sender: PeerId) -> int:
        """How many more messages `sender` may send now. Those beyond it are not acknowledged, and hold up all that
        the sender says behind them."""

    def take(self, sender: PeerId, messages: list[bytes]) -> None:
        """Take messages, in order. They are acknowledged when it returns."""


class ToInbox:
    """Puts plain messages where the app reads them."""

    def __init__(self, inbox: Inbox, counters: Counter[str]) -> None:
        self.on_put: Callable[[], None] | None = None
        self.room = inbox.room
        self._put = inbox.put
        self._counters = counters

    def take(self, sender: PeerId, messages: list[bytes]) -> None:
        self._put(sender, messages)
        self._counters["messaging.received"] += len(messages)
        if self.on_put is not None:
            self.on_put()


class ToCallback:
    """Calls the app for each plain message."""

    def __init__(self, callback: OnMessage, config: MessagingConfig, counters: Counter[str]) -> None:
        self._callback = callback
        self._room = config.inbox_messages // 2
        self._counters = counters
        self._loop = asyncio.get_running_loop()

    def room(self, sender: PeerId) -> int:
        return self._room

    def take(self, sender: PeerId, messages: list[bytes]) -> None:
        self._counters["messaging.received"] += len(messages)
        for data in messages:
            try:
                self._callback(Message(sender, data))
            except Exception as error:
                self._loop.call_exception_handler({"message": "a callback for messages failed", "exception": error})
