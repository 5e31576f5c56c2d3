"""A bucket: a range of ids. Who sits in it, its table knows; it knows who waits for a seat."""

from array import array
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, Protocol

from kademlia.routing import KBucket as StockKBucket

from dht_atonce.dht.contact import Contact

__all__ = ["ID_BITS", "KBucket", "Seat", "Seating", "Seats"]

ID_BITS: Final = 160
_NOBODY: Final[tuple[Contact, ...]] = ()


class Seating(Enum):
    """What became of a contact that proved itself."""

    SEATED = "seated"
    """It is new in the table."""
    KEPT = "kept"
    """It had this seat already."""
    MOVED = "moved"
    """It had a seat at another address, which is now this one."""
    WAITING = "waiting"
    """Its bucket is full; it comes in when a seat falls free."""
    REFUSED = "refused"
    """Ourselves, too many of its subnet (one that moves there loses its seat), or doubted and asked lately."""
    DOUBTED = "doubted"
    """It asks, but did not answer lately: an answer would show that it is there, so it is worth asking."""


class Seat:
    """A contact in a bucket and how it fares."""

    __slots__ = ("contact", "failing_since", "failures", "last_answer")

    def __init__(self, contact: Contact, last_answer: float) -> None:
        self.contact = contact
        self.last_answer = last_answer
        self.failures = 0
        self.failing_since = 0.0


class Seats(Protocol):
    """All seats of a table."""

    ksize: int

    def seats_of(self, bucket: "KBucket") -> list[Seat]:
        """The seats in the range of `bucket`."""

    def count_of(self, bucket: "KBucket") -> int:
        """How many there are."""


class KBucket(StockKBucket):
    """A range of ids with up to k seats, and up to k who wait for one.

    From kademlia: `range` (inclusive), `nodes` (the longest silent first), `replacement_nodes`, `has_in_range`,
    `ksize`, `len()`. The nodes are to be looked at: the table says who sits.
    """

    def __init__(self, table: Seats, lower: int, bits: int, last_updated: float) -> None:
        # Not the stock constructor: it would make two dicts and read a clock.
        self.bits = bits
        """log2 of the number of ids in the range."""
        self.last_updated = last_updated
        self._table = table
        self._lower = lower
        # Who waits, the latest last, and when they proved themselves
        self._waiting: list[Contact] | None = None
        self._proved_at: array[float] | None = None

    @property
    def range(self) -> tuple[int, int]:  # type: ignore[override] # looked up, not kept
        return self._lower, self._lower + (1 << self.bits) - 1

    @property
    def ksize(self) -> int:  # type: ignore[override] # looked up, not kept
        return self._table.ksize

    max_replacement_nodes = ksize

    @property
    def nodes(self) -> Mapping[bytes, Seat]:  # type: ignore[override] # looked up, not kept
        seats = sorted(self._table.seats_of(self), key=lambda seat: seat.last_answer)
        return MappingProxyType({seat.contact.id: seat for seat in seats})

    @property
    def replacement_nodes(self) -> Mapping[bytes, Seat]:  # type: ignore[override] # looked up, not kept
        times = self._proved_at or ()
        return MappingProxyType({c.id: Seat(c, at) for c, at in zip(self.waiting, times, strict=True)})

    def __len__(self) -> int:
        return self._table.count_of(self)

    def touch_last_updated(self) -> None:
        """Does nothing: the stock classes call this and read a clock; `refreshed` is told the time."""

    def refreshed(self, now: float) -> None:
        """A lookup of our own ended in this range."""
        self.last_updated = now

    def depth(self) -> int:
        """Number of leading bits that all ids in the range share."""
        return ID_BITS - self.bits

    # --- those who wait ---

    @property
    def waiting(self) -> "list[Contact] | tuple[Contact, ...]":
        """Verified contacts without a seat, the latest last."""
        return self._waiting or _NOBODY

    def wait(self, contact: Contact, now: float) -> None:
        """Remember a verified contact that does not wait yet for when a seat falls free; the latest comes first."""
        if self._waiting is None or self._proved_at is None:
            self._waiting, self._proved_at = [], array("d")
        elif len(self._waiting) >= self.max_replacement_nodes:
            del self._waiting[0], self._proved_at[0]
        self._waiting.append(contact)
        self._proved_at.append(now)

    def forget(self, node_id: bytes) -> tuple[Contact, float] | None:
        """This node waits no longer; gives its contact and when it proved itself, None if it did not wait."""
        if self._waiting is None or self._proved_at is None:
            return None
        for at, contact in enumerate(self._waiting):
            if contact.id == node_id:
                return self._waiting.pop(at), self._proved_at.pop(at)
        return None

    def halves(self) -> tuple["KBucket", "KBucket"]:
        """Buckets for the two halves of the range, as lonely as this one; those who wait are shared out."""
        half = self.bits - 1
        middle = self._lower + (1 << half)
        one = KBucket(self._table, self._lower, half, self.last_updated)
        two = KBucket(self._table, middle, half, self.last_updated)
        for contact, at in zip(self.waiting, self._proved_at or (), strict=True):
            (one if contact.long_id < middle else two).wait(contact, at)
        return one, two
