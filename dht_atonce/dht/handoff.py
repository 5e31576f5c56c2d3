"""Hand-off: whoever newly is among the k nearest to a record gets it (Kademlia section 2.5).

And an owner hands its own records to each newcomer until k nodes have confirmed them, so that a record published alone
spreads as others come.
"""

from collections.abc import Callable

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.routing import RoutingTable
from dht_atonce.dht.storage import RecordStore

__all__ = ["SCAN", "HandOff", "NearKeys", "Pick"]

_MAX_NEWCOMERS = 256
SCAN = 256  # pairs of newcomer and key looked at per call: a full store must not hold up the loop

Pick = Callable[[Contact, list[bytes]], list[bytes]]
"""Gives those of the keys whose record a contact is to have."""


class HandOff:
    """Decides what to store where, and how fast. `now` is monotonic seconds."""

    __slots__ = ("_interval_s", "_max_queue", "_newcomers", "_next_at", "_queue")

    def __init__(self, config: DhtConfig) -> None:
        self._interval_s = 1 / config.handoff_per_s
        self._max_queue = config.max_handoff_queue
        # Newcomer → keys not yet looked at. A newcomer that comes again starts over.
        self._newcomers: dict[Contact, list[bytes]] = {}
        self._queue: dict[tuple[Contact, bytes], None] = {}
        self._next_at = 0.0

    def on_seated(self, contact: Contact, keys: list[bytes]) -> None:
        """`contact` got a seat while we hold records of `keys`."""
        if keys:
            self._newcomers[contact] = keys
            if len(self._newcomers) > _MAX_NEWCOMERS:
                # Its records reach it when their owners publish again.
                del self._newcomers[next(iter(self._newcomers))]

    def add(self, contact: Contact, key: bytes) -> None:
        """`contact` is to have the record of `key`, since another that had it is gone."""
        if len(self._queue) < self._max_queue:
            self._queue[contact, key] = None

    def take(self, now: float, pick: Pick) -> list[tuple[Contact, bytes]]:
        """What to store now: newcomers and keys, at most `handoff_per_s` of them a second."""
        if self._newcomers:
            self._look(pick)
        if not self._queue:
            return []
        taken = []
        self._next_at = max(self._next_at, now - 1.0)  # what was not used for a second may come as one burst
        for pair in self._queue:
            if self._next_at > now:
                break
            taken.append(pair)
            self._next_at += self._interval_s
        if len(taken) == len(self._queue):
            self._queue = {}  # a dict that was emptied stays as large as it was
        else:
            for pair in taken:
                del self._queue[pair]
        return taken

    def again(self, contact: Contact, key: bytes) -> None:
        """What `take` gave is not done: it is given once more, after the others."""
        self._queue[contact, key] = None

    def _look(self, pick: Pick) -> None:
        budget = SCAN
        while self._newcomers and budget and len(self._queue) < self._max_queue:
            contact, keys = next(iter(self._newcomers.items()))
            for key in pick(contact, keys[:budget]):
                self._queue[contact, key] = None
            if len(keys) > budget:
                self._newcomers[contact] = keys[budget:]
            else:
                del self._newcomers[contact]
            budget = max(0, budget - len(keys))
        if not self._newcomers:
            self._newcomers = {}

    def deadline(self, now: float) -> float | None:
        """When `take` has something to do again; None: not before the next newcomer."""
        if self._newcomers and len(self._queue) < self._max_queue:
            return now
        return self._next_at if self._queue else None


class NearKeys:
    """The held keys to which fewer than `limit` live seats are nearer than we are; of other records, others take care.

    Whoever comes can only make them fewer: so each key is looked at until it is none of them, and all again only after
    a seat or a record is gone.
    """

    __slots__ = ("_keys", "_limit", "_losses", "_own_id", "_seen")

    def __init__(self, own_id: int, limit: int) -> None:
        self._own_id = own_id
        self._limit = limit
        self._keys: list[bytes] = []
        self._seen = 0
        self._losses = (0, 0)

    def look(self, store: RecordStore, router: RoutingTable) -> list[bytes]:
        """Those of `store` by the seats of `router`: always the same two."""
        losses = (store.dropped, router.left)
        if losses != self._losses:
            self._losses, self._keys, self._seen = losses, [], 0
        own_id, limit = self._own_id, self._limit
        self._keys = [
            key
            for key in self._keys + store.keys(self._seen)
            if router.count_nearer(int.from_bytes(key, "big"), own_id, limit) < limit
        ]
        self._seen = store.count
        return self._keys
