"""The records that a node keeps for the network: only verified ones, one per key, each until its expiry."""

import heapq
from collections.abc import Iterator
from typing import NamedTuple

from kademlia.storage import IStorage

from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.records import PresenceRecord, ValueRecord, is_newer

__all__ = ["Held", "Keeping", "RecordStore"]

AnyRecord = PresenceRecord | ValueRecord


class Held(NamedTuple):
    """A record in the store."""

    record: AnyRecord
    until: float
    """Unix seconds: the earlier of its expiry and receipt + life."""


class Keeping(NamedTuple):
    """What became of a record."""

    kept: bool
    changed: bool
    """It is new, or replaced an older one."""
    newer: AnyRecord | None
    """The record that was held and is newer."""


class RecordStore(IStorage):
    """`kademlia`'s storage interface over signed records. `now` is Unix time in seconds.

    `__setitem__` is refused: a record is kept by `keep`, which compares it with the one held. There is no `__len__`:
    the stock server replaces a storage that is false, and an empty one would be.
    """

    def __init__(self, own_id: int, network: NetworkConfig, config: DhtConfig) -> None:
        self._own_id = own_id
        self._network = network
        self._max_records = config.max_records
        self._held: dict[bytes, Held] = {}
        # (−distance from us, key): the farthest goes first when we are full. Entries of keys long gone are skipped.
        self._farthest: list[tuple[int, bytes]] = []
        # (until, key), likewise
        self._expiries: list[tuple[float, bytes]] = []

    @property
    def count(self) -> int:
        """Number of records held."""
        return len(self._held)

    def get(self, key: bytes, default: AnyRecord | None = None) -> AnyRecord | None:
        """The record of `key` as held, expired or not; `live` looks at the time."""
        held = self._held.get(key)
        return held.record if held else default

    def live(self, key: bytes, now: float) -> AnyRecord | None:
        """The record of `key`, unless its time is over."""
        held = self._held.get(key)
        return held.record if held and held.until > now else None

    def keep(self, record: AnyRecord, now: float) -> Keeping:
        """Keep a record that `RecordParser` gave us, unless a newer one is held or we are full of nearer ones."""
        self.expire(now)
        held = self._held.get(record.key)
        if held is not None and held.record.blob == record.blob:
            return Keeping(kept=True, changed=False, newer=None)
        if held is not None and not is_newer(record, held.record):
            return Keeping(kept=False, changed=False, newer=held.record)
        until = min(float(record.expires), now + record.life_limit_s(self._network.record_life_s))
        self._held[record.key] = Held(record, until)
        heapq.heappush(self._expiries, (until, record.key))
        if held is None:
            distance = int.from_bytes(record.key, "big") ^ self._own_id
            heapq.heappush(self._farthest, (-distance, record.key))
            self._evict()
        kept = record.key in self._held
        return Keeping(kept=kept, changed=kept, newer=None)

    def expire(self, now: float) -> list[AnyRecord]:
        """Forget what is over; gives what was forgotten."""
        gone = []
        while self._expiries and self._expiries[0][0] <= now:
            until, key = heapq.heappop(self._expiries)
            held = self._held.get(key)
            if held is not None and held.until == until:
                del self._held[key]
                gone.append(held.record)
        # Renewed records leave old entries behind: rebuilt before they outnumber the records many times.
        if len(self._expiries) > 4 * len(self._held) + 64:
            self._expiries = [(held.until, key) for key, held in self._held.items()]
            heapq.heapify(self._expiries)
        if len(self._farthest) > 4 * len(self._held) + 64:
            self._farthest = [(-(int.from_bytes(key, "big") ^ self._own_id), key) for key in self._held]
            heapq.heapify(self._farthest)
        return gone

    def _evict(self) -> None:
        while len(self._held) > self._max_records:
            _, key = heapq.heappop(self._farthest)
            self._held.pop(key, None)

    # --- the rest of kademlia's interface ---

    def __setitem__(self, key: bytes, value: object) -> None:
        raise TypeError("a record is stored by keep(), which compares it with the one held")

    def __getitem__(self, key: bytes) -> AnyRecord:
        return self._held[key].record

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[tuple[bytes, AnyRecord]]:
        return iter([(key, held.record) for key, held in self._held.items()])

    def iter_older_than(self, seconds_old: float) -> Iterator[tuple[bytes, AnyRecord]]:
        """Always empty: only its owner renews a record (stock republishes what is not its own, and so nothing ever
        dies)."""
        return iter(())
