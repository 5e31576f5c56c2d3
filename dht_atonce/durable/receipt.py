"""What became of a durable message, for whoever sent it."""

import asyncio
from collections.abc import Callable, Generator
from typing import Any

from dht_atonce.errors import AtOnceError
from dht_atonce.messaging.receipts import State

__all__ = ["DurableReceipt"]


class DurableReceipt:
    """Of one durable message. `await receipt.kept()` waits until it is on our own disk, `await receipt` until it is on
    the receiver's, which may take until it expires. Nobody has to wait: it is sent all the same.

    QUEUED, SENT, then DELIVERED; EXPIRED: its time ended before it left (in this run), or our disk did not take it;
    UNKNOWN: its time ended after it had left, and no acknowledgement came.
    """

    __slots__ = ("_error", "_is_kept", "_waiters", "id", "state")

    def __init__(self, message_id: bytes) -> None:
        self.id = message_id
        """16 B, the same for sender and receiver."""
        self.state = State.QUEUED
        """Where it stands now."""
        self._is_kept = False
        self._error: AtOnceError | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def is_kept(self) -> bool:
        """Whether it was on our own disk: then it survives our end too."""
        return self._is_kept

    async def kept(self) -> None:
        """Wait until it is on our own disk. Raises `StoreError` if it cannot be, `PeerClosed`."""
        await self._until(lambda: self._is_kept)

    def __await__(self) -> Generator[Any, None, None]:
        """Wait until it is acknowledged, that is, on the receiver's disk.

        Raises `StoreError`; `PeerOffline` if its time ended before it left, `DeliveryUnknown` if after; `PeerClosed` if
        we are closed before that: it goes on at the next start.
        """
        return self._until(lambda: self.state is State.DELIVERED).__await__()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._error is not None:
                raise self._error
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    # --- for whoever sends it ---

    def on_kept(self) -> None:
        """It is on our disk."""
        self._is_kept = True
        self._wake()

    def on_sent(self) -> None:
        """It left."""
        self.state = State.SENT

    def on_delivered(self) -> None:
        """It is acknowledged."""
        self.state = State.DELIVERED
        self._wake()

    def on_failed(self, error: AtOnceError, state: State | None = None) -> None:
        """Nothing more is to be heard of it; None: in this run."""
        if state is not None:
            self.state = state
        self._error = error
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
