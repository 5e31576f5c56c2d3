"""What became of a message: the states, and the receipt by which whoever queued it asks.

Messages that are queued for one peer in one turn of the loop form a `Batch`, which travels as one frame if the window
lets it: sending, acknowledging and settling cost per batch, not per message. A receipt names a batch and a place in it.

    QUEUED ──▶ SENT ──▶ DELIVERED
       │        └──▶ UNKNOWN ──▶ (an acknowledgement that comes late) DELIVERED
       ├──▶ EXPIRED     never left in its time, and never will
       └──▶ REFUSED     the other side does not want us
"""

import asyncio
from collections.abc import Generator
from enum import StrEnum
from typing import Any

import msgspec

from dht_atonce.errors import AtOnceError, NotAccepted, PeerOffline

__all__ = ["Batch", "Receipt", "State"]


class State(StrEnum):
    """Where a message stands."""

    QUEUED = "queued"
    """It has not left."""
    SENT = "sent"
    """It left, and is not acknowledged."""
    DELIVERED = "delivered"
    """Acknowledged: it is in the queue of the receiver's app; if durable, on the receiver's disk."""
    EXPIRED = "expired"
    """Its time ended, or the peer could not be reached, before it left: it was not delivered."""
    REFUSED = "refused"
    """The other side does not accept us: it was not delivered."""
    UNKNOWN = "unknown"
    """It left, and no acknowledgement came in time or before the other process ended: it may have been delivered."""


Why = tuple[type[AtOnceError], str]


class Batch(msgspec.Struct, eq=False):
    """Messages in a row to one peer, sent together. A receiver may take the first `settled` of them only, for want of
    room."""

    kind: int
    deadline: float
    """Monotonic seconds."""
    messages: list[bytes | None] = []
    """None: withdrawn. Empty once all is settled, or given up."""
    size: int = 0
    """Bytes, with what msgpack adds."""
    seq0: int = 0
    """The first message's sequence number, once it was sent."""
    was_sent: bool = False
    is_prompt: bool = False
    """Its acknowledgement is waited for, though there may be no waiter yet."""
    unhurried: bool = False
    """When it was sent last, its acknowledgement could wait for others."""
    settled: int = 0
    held: bool = False
    """The receiver holds all of it, behind a gap."""
    overdue: Why | None = None
    """Why the outcome of what was sent is unknown."""
    fate: Why | None = None
    """Why what was not sent never will be."""
    waiters: list[tuple[int, asyncio.Future[None]]] = []
    withdrawn: set[int] | None = None

    def is_delivered(self, index: int) -> bool:
        """The message at `index`."""
        return index < self.settled and (self.withdrawn is None or index not in self.withdrawn)

    @property
    def is_plain(self) -> bool:
        """Whether nothing went wrong with any of its messages so far."""
        return self.overdue is None and self.fate is None and self.withdrawn is None

    def state(self, index: int) -> State:
        """Of the message at `index`."""
        if self.withdrawn is not None and index in self.withdrawn:
            return State.EXPIRED
        if index < self.settled:
            return State.DELIVERED
        if self.was_sent:
            return State.SENT if self.overdue is None else State.UNKNOWN
        if self.fate is None:
            return State.QUEUED
        return State.REFUSED if self.fate[0] is NotAccepted else State.EXPIRED

    def error(self, index: int) -> AtOnceError | None:
        """What is raised for the message at `index`; None: it was delivered, or nothing is known yet."""
        state = self.state(index)
        if state is State.UNKNOWN:
            why = self.overdue
        elif state in (State.EXPIRED, State.REFUSED):
            why = self.fate or (PeerOffline, "it was withdrawn before it left")
        else:
            return None
        assert why is not None
        return why[0](why[1])

    def wake(self) -> None:
        """Tell those who wait for what is settled by now."""
        if not self.waiters:
            return
        waiting, self.waiters = self.waiters, []
        if not self.messages and self.is_plain:
            for _, waiter in waiting:  # all of it is delivered, all but always
                if not waiter.done():
                    waiter.set_result(None)
            return
        for index, waiter in waiting:
            if waiter.done():
                continue
            if self.is_delivered(index):
                waiter.set_result(None)
            elif (error := self.error(index)) is not None:
                waiter.set_exception(error)
            else:
                self.waiters.append((index, waiter))


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """Of one message that was queued. `await receipt` waits until it is delivered, and raises what `Peer.send` raises.

    `state` tells at any time, also when nobody waited.
    """

    batch: Batch
    index: int

    @property
    def state(self) -> State:
        """Where the message stands now."""
        return self.batch.state(self.index)

    def __await__(self) -> Generator[Any, None, None]:
        # No generator of our own: it would have to be made and resumed for each message.
        batch, index = self.batch, self.index
        if batch.is_delivered(index):
            return iter(())  # type: ignore[return-value] # an iterator is all that it takes
        if not batch.is_plain and (error := batch.error(index)) is not None:
            raise error
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        batch.waiters.append((index, waiter))
        return waiter.__await__()
