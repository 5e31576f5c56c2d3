"""Hand-off: whoever newly is among the k nearest to a record gets it (Kademlia section 2.5).

And an owner hands its own records to each newcomer until k nodes have confirmed them, so that a record published alone
spreads as others come.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact

__all__ = ["HandOff"]

_MAX_NEWCOMERS = 256
_SCAN = 256  # pairs of newcomer and key looked at per call: a full store must not hold up the loop


class HandOff:
    """Decides what to store where, and how fast. `now` is monotonic seconds."""

    def __init__(self, config: DhtConfig) -> None:
        self._interval_s = 1 / config.handoff_per_s
        self._max_queue = config.max_handoff_queue
        # Newcomer → keys not yet looked at. A newcomer that comes again starts over.
        self._newcomers: OrderedDict[Contact, deque[bytes]] = OrderedDict()
        self._queue: OrderedDict[tuple[Contact, bytes], None] = OrderedDict()
        self._next_at = 0.0

    def on_seated(self, contact: Contact, keys: Iterable[bytes]) -> None:
        """`contact` got a seat while we hold records of `keys`."""
        waiting = deque(keys)
        if waiting:
            self._newcomers[contact] = waiting
            if len(self._newcomers) > _MAX_NEWCOMERS:
                self._newcomers.popitem(last=False)  # its records reach it when their owners publish again

    def take(self, now: float, is_near: Callable[[Contact, bytes], bool]) -> list[tuple[Contact, bytes]]:
        """What to store now: newcomers and keys, at most `handoff_per_s` of them a second.

        `is_near` says whether a contact is to have the record of a key.
        """
        budget = _SCAN
        while self._newcomers and budget and len(self._queue) < self._max_queue:
            contact, keys = next(iter(self._newcomers.items()))
            while keys and budget:
                budget -= 1
                key = keys.popleft()
                if is_near(contact, key):
                    self._queue[contact, key] = None
            if not keys:
                del self._newcomers[contact]
        taken = []
        self._next_at = max(self._next_at, now - 1.0)  # what was not used for a second may come as one burst
        while self._queue and self._next_at <= now:
            pair, _ = self._queue.popitem(last=False)
            taken.append(pair)
            self._next_at += self._interval_s
        return taken

    def deadline(self, now: float) -> float | None:
        """When `take` has something to do again; None: not before the next newcomer."""
        if self._newcomers and len(self._queue) < self._max_queue:
            return now
        return self._next_at if self._queue else None
