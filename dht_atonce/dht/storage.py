"""The records that a node keeps for the network: only verified ones, one per key, each until its expiry."""

import heapq
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from kademlia.storage import IStorage

from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.records import PresenceRecord, ValueRecord, is_newer

__all__ = ["Keeping", "RecordStore"]

AnyRecord = PresenceRecord | ValueRecord

_NEVER = float("inf")


class Keeping(NamedTuple):
    """What became of a record."""

    kept: bool
    changed: bool
    """It is new, or replaced an older one."""
    newer: AnyRecord | None
    """The record that was held and is newer."""


_HELD_ALREADY = Keeping(kept=True, changed=False, newer=None)
_NEW = Keeping(kept=True, changed=True, newer=None)
_FULL = Keeping(kept=False, changed=False, newer=None)


class RecordStore(IStorage):
    """`kademlia`'s storage interface over signed records. `now` is Unix time in seconds.

    `__setitem__` is refused: a record is kept by `keep`, which compares it with the one held. There is no `__len__`:
    the stock server replaces a storage that is false, and an empty one would be.

    What is over counts as absent in `live` and `keep`; `expire` takes it out.
    """

    def __init__(self, own_id: int, network: NetworkConfig, config: DhtConfig) -> None:
        self._own_id = own_id
        self._network = network
        self._max_records = config.max_records
        self._held: dict[bytes, AnyRecord] = {}
        # Key → when it is over, of those whose own expiry is farther away than anybody may keep them.
        self._sooner: dict[bytes, float] = {}
        # Nothing is over before this time.
        self._next_expiry = _NEVER
        # (−distance from us, key), once we were full: the farthest goes first. Entries of keys long gone are skipped.
        self._farthest: list[tuple[int, bytes]] | None = None
        self.reach_bits = 0
        """All records lie nearer to us than 2 to the power of this."""
        self.dropped = 0
        """How many keys were forgotten so far."""
        self.on_change: Callable[[AnyRecord, bool], None] | None = None
        """Told of each record that is new or newer, by whatever way it came, and of each that is over (True)."""

    @property
    def count(self) -> int:
        """Number of records held, with those that are over since the last `expire`."""
        return len(self._held)

    def keys(self, seen: int = 0) -> list[bytes]:
        """The keys of all records held, in the order in which they came, without the first `seen`."""
        return list(islice(self._held, seen, None))

    def get(self, key: bytes, default: AnyRecord | None = None) -> AnyRecord | None:
        """The record of `key` as held, over or not; `live` looks at the time."""
        return self._held.get(key, default)

    def live(self, key: bytes, now: float) -> AnyRecord | None:
        """The record of `key`, unless its time is over."""
        record = self._held.get(key)
        return record if record is not None and self._until(key, record) > now else None

    def keep(self, record: AnyRecord, now: float) -> Keeping:
        """Keep a record that `RecordParser` gave us, unless a newer one is held or we are full of nearer ones."""
        key = record.key
        held = self.live(key, now)
        if held is not None and held.blob == record.blob:
            return _HELD_ALREADY
        if held is not None and not is_newer(record, held):
            return Keeping(kept=False, changed=False, newer=held)
        is_new = key not in self._held
        if is_new and len(self._held) >= self._max_records and not self._make_room(key, now):
            return _FULL
        self._hold(record, now)
        if is_new:
            distance = int.from_bytes(key, "big") ^ self._own_id
            self.reach_bits = max(self.reach_bits, distance.bit_length())
            if self._farthest is not None:
                heapq.heappush(self._farthest, (-distance, key))
                if len(self._farthest) > 4 * len(self._held) + 64:
                    self._farthest = None  # made anew when it is needed
        if self.on_change is not None:
            self.on_change(record, False)
        return _NEW

    def expire(self, now: float) -> list[AnyRecord]:
        """Forget what is over; gives what was forgotten."""
        if now < self._next_expiry:
            return []
        gone, next_expiry, reach = [], _NEVER, 0
        for key, record in list(self._held.items()):
            until = self._until(key, record)
            if until <= now:
                self._drop(key)
                gone.append(record)
            else:
                next_expiry = min(next_expiry, until)
                reach = max(reach, (int.from_bytes(key, "big") ^ self._own_id).bit_length())
        self._next_expiry, self.reach_bits = next_expiry, reach
        if self.on_change is not None:
            for record in gone:
                self.on_change(record, True)
        return gone

    def forget(self, key: bytes) -> None:
        """The record of `key` is none of our business any more."""
        if key in self._held:
            self._drop(key)

    def _until(self, key: bytes, record: AnyRecord) -> float:
        """When it is over: the earlier of its expiry and receipt + life."""
        return self._sooner.get(key, record.expires) if self._sooner else record.expires

    def _hold(self, record: AnyRecord, now: float) -> None:
        key, until = record.key, now + record.life_limit_s(self._network.record_life_s)
        self._held[key] = record
        if until < record.expires:
            self._sooner[key] = until
        else:
            self._sooner.pop(key, None)
            until = record.expires
        self._next_expiry = min(self._next_expiry, until)

    def _drop(self, key: bytes) -> None:
        del self._held[key]
        self._sooner.pop(key, None)
        self.dropped += 1

    def _make_room(self, key: bytes, now: float) -> bool:
        """We are full: forget what is over, or else the farthest record. False if that would be the one of `key`."""
        if self.expire(now):
            return True
        if self._farthest is None:
            self._farthest = [(-(int.from_bytes(other, "big") ^ self._own_id), other) for other in self._held]
            heapq.heapify(self._farthest)
        while self._farthest[0][1] not in self._held:
            heapq.heappop(self._farthest)
        if -self._farthest[0][0] < int.from_bytes(key, "big") ^ self._own_id:
            return False
        self._drop(heapq.heappop(self._farthest)[1])
        return True

    # --- the rest of kademlia's interface ---

    def __setitem__(self, key: bytes, value: object) -> None:
        raise TypeError("a record is stored by keep(), which compares it with the one held")

    def __getitem__(self, key: bytes) -> AnyRecord:
        return self._held[key]

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[tuple[bytes, AnyRecord]]:
        return iter(list(self._held.items()))

    def iter_older_than(self, seconds_old: float) -> Iterator[tuple[bytes, AnyRecord]]:
        """Always empty: only its owner renews a record (stock republishes what is not its own, and so nothing ever
        dies)."""
        return iter(())
