"""The records that a node keeps for the network: only verified ones, each until its expiry.

One per key; under a topic's key one for each member, in a `Roster`. What is kept is bounded in all, by origin and by
topic. When it is full, whoever brought most loses first, and else the farthest from us: others are nearer to it, and
keep it.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from kademlia.storage import IStorage

from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.dht.origins import Origins
from dht_atonce.dht.roster import Lottery, Roster
from dht_atonce.dht.sources import KEY_SIZE, Sources
from dht_atonce.records import AnyRecord, MembershipRecord, is_newer

__all__ = ["Keeping", "RecordStore"]

_NEVER = float("inf")


class Keeping(NamedTuple):
    """What became of a record."""

    kept: bool
    changed: bool
    """It is new, or replaced an older one."""
    newer: AnyRecord | None
    """The record that was held and is newer."""
    passed_over: bool = False
    """Its topic has more members than fit, and it is not in our sample."""


_HELD_ALREADY = Keeping(kept=True, changed=False, newer=None)
_NEW = Keeping(kept=True, changed=True, newer=None)
_FULL = Keeping(kept=False, changed=False, newer=None)
_PASSED_OVER = Keeping(kept=False, changed=False, newer=None, passed_over=True)


class RecordStore(IStorage):
    """`kademlia`'s storage interface over signed records. `now` is Unix time in seconds.

    `__setitem__` is refused: a record is kept by `keep`, which compares it with the one held. There is no `__len__`:
    the stock server replaces a storage that is false, and an empty one would be.

    What is over counts as absent in `live` and `keep`; `expire` takes it out.
    """

    def __init__(self, own_id: int, network: NetworkConfig, config: DhtConfig, rng: random.Random) -> None:
        self.on_change: Callable[[AnyRecord, bool], None] | None = None
        """Told of each record that is new or newer, by whatever way it came, and of each whose time is over (True), as
        it is taken out. What goes for want of room is told nobody."""
        self.network_size: Callable[[], float] = lambda: 0
        """Estimates how many nodes there are: some limits hold in large networks only."""
        self.reach_bits = 0
        """All records lie nearer to us than 2 to the power of this."""
        self.dropped = 0
        """How many keys were forgotten so far."""
        self.size = 0
        """Number of records held, with those that are over since the last `expire`."""
        self._own_id = own_id
        self._network = network
        self._config = config
        self._lottery = Lottery(rng, config.lottery_epoch_s)
        self._held: dict[bytes, AnyRecord | Roster] = {}
        # Key → when it is over, of those whose own expiry is farther away than anybody may keep them.
        self._sooner: dict[bytes, float] = {}
        # Nothing is over before this time.
        self._next_expiry = _NEVER
        # (−distance from us, key), once we were full: the farthest goes first. Entries of keys long gone are skipped.
        self._farthest: list[tuple[int, bytes]] | None = None
        # Counted from the moment when there are enough records for one origin to have too many.
        self._origins: Origins | None = None
        # From the first record on; in a local network all are at one address.
        self._sources: Sources | None = None

    @property
    def count(self) -> int:
        """Number of keys held; a topic has one, whatever the number of its members."""
        return len(self._held)

    def keys(self, seen: int = 0) -> list[bytes]:
        """All keys held, in the order in which they came, without the first `seen`."""
        return list(islice(self._held, seen, None))

    def get(self, key: bytes, default: AnyRecord | None = None) -> AnyRecord | None:
        """The record of `key` as held, over or not; `live` looks at the time."""
        record = self._held.get(key, default)
        return default if isinstance(record, Roster) else record

    def live(self, key: bytes, now: float) -> AnyRecord | None:
        """The record of `key`, unless its time is over; a topic's key has none of its own."""
        record = self._held.get(key)
        if record is None or isinstance(record, Roster):
            return None
        return record if self._until(key, record) > now else None

    def roster(self, key: bytes) -> Roster | None:
        """The members of the topic with this key, None if we know of no such topic."""
        held = self._held.get(key)
        return held if isinstance(held, Roster) else None

    def keep(self, record: AnyRecord, now: float, source: bytes = b"") -> Keeping:
        """Keep a record that `RecordParser` gave us, unless a newer one is held or there is no room for it.

        `source`: the subnet of whoever brought it, b"" if we did.
        """
        held = self._of_same(record, now)
        if held is not None and held.blob == record.blob:
            self._attribute(record, source)
            return _HELD_ALREADY
        if held is not None and not is_newer(record, held):
            return Keeping(kept=False, changed=False, newer=held)
        if isinstance(record, MembershipRecord) and not self._admit(record, now):
            return _PASSED_OVER
        if not self._find_room(record, now, source):
            return _FULL
        self._hold(record, now)
        self._attribute(record, source)
        if self.on_change is not None:
            self.on_change(record, False)
        return _NEW

    def expire(self, now: float) -> list[AnyRecord]:
        """Forget what is over; gives what was forgotten."""
        if now < self._next_expiry:
            return []
        gone: list[AnyRecord] = []
        next_expiry, reach = _NEVER, 0
        for key, held in list(self._held.items()):
            for record in held.records() if isinstance(held, Roster) else (held,):
                until = self._until(key, record)
                if until <= now:
                    self._drop(record)
                    gone.append(record)
                else:
                    next_expiry = min(next_expiry, until)
            if key in self._held:
                reach = max(reach, self._distance(key).bit_length())
        self._next_expiry, self.reach_bits = next_expiry, reach
        if self.on_change is not None:
            for record in gone:
                self.on_change(record, True)
        return gone

    def forget(self, key: bytes) -> None:
        """The record of `key`, or its topic, is none of our business any more."""
        held = self._held.get(key)
        if held is not None:
            self._drop_all(held.records() if isinstance(held, Roster) else [held])

    # --- inside ---

    def _distance(self, key: bytes) -> int:
        return int.from_bytes(key, "big") ^ self._own_id

    def _of_same(self, record: AnyRecord, now: float) -> AnyRecord | None:
        """The live record of the same key and, in a topic, the same identity."""
        if isinstance(record, MembershipRecord):
            roster = self.roster(record.key)
            return roster.live(record.peer_id.key, now) if roster is not None else None
        return self.live(record.key, now)

    def _replaced(self, record: AnyRecord) -> AnyRecord | None:
        """What is held, over or not, where `record` would stand."""
        if isinstance(record, MembershipRecord):
            roster = self.roster(record.key)
            return roster.get(record.peer_id.key) if roster is not None else None
        return self.get(record.key)

    def _until(self, key: bytes, record: AnyRecord) -> float:
        """When it is over: the earlier of its expiry and receipt + life."""
        if isinstance(record, MembershipRecord):
            roster = self.roster(key)
            assert roster is not None
            return roster.until(record)
        return self._sooner.get(key, record.expires) if self._sooner else record.expires

    def _hold(self, record: AnyRecord, now: float) -> None:
        key, until = record.key, min(record.expires, now + record.life_limit_s(self._network.record_life_s))
        replaced = self._replaced(record)
        is_new_key = key not in self._held
        if isinstance(record, MembershipRecord):
            roster = self.roster(key)
            if roster is None:
                roster = Roster(key, self._config, self._lottery, local=self._network.local)
                self._held[key] = roster
            roster.enter(record, until)
        else:
            self._held[key] = record
            if until < record.expires:
                self._sooner[key] = until
            else:
                self._sooner.pop(key, None)
        self._next_expiry = min(self._next_expiry, until)
        self._count_in(record, replaced)
        if is_new_key:
            self._on_new_key(key)

    def _count_in(self, record: AnyRecord, replaced: AnyRecord | None) -> None:
        self.size += replaced is None
        if self._origins is not None:
            if replaced is not None:
                self._origins.leave(replaced)
            self._origins.enter(record)
        elif self.size >= self._config.records_per_origin:
            self._origins = Origins(
                self._own_id,
                self._config,
                lambda: self.network_size(),
                (record for _, record in self),
                local=self._network.local,
            )

    def _on_new_key(self, key: bytes) -> None:
        distance = self._distance(key)
        self.reach_bits = max(self.reach_bits, distance.bit_length())
        if self._farthest is not None:
            heapq.heappush(self._farthest, (-distance, key))
            if len(self._farthest) > 4 * len(self._held) + 64:
                self._farthest = None  # made anew when it is needed

    def _drop(self, record: AnyRecord) -> None:
        key = record.key
        if isinstance(record, MembershipRecord):
            roster = self.roster(key)
            assert roster is not None
            roster.leave(record)
            is_last = not len(roster)
        else:
            self._sooner.pop(key, None)
            is_last = True
        if is_last:
            del self._held[key]
            self.dropped += 1
        self.size -= 1
        if self._origins is not None:
            self._origins.leave(record)
        if self._sources is not None:
            self._sources.leave(_name(record))

    def _admit(self, record: MembershipRecord, now: float) -> bool:
        """See to it that `record` fits into its topic."""
        roster = self.roster(record.key)
        if roster is None:
            return True
        losers = roster.losers(record, now)
        if losers is None:
            # What it says is true all the same: what it said before is so no longer.
            replaced = roster.get(record.peer_id.key)
            losers = [replaced] if replaced is not None else []
            self._drop_all(losers)
            return False
        self._drop_all(losers)
        return True

    def _attribute(self, record: AnyRecord, source: bytes) -> None:
        if self._sources is None:
            if self._network.local:
                return
            self._sources = Sources(self._own_id, self._config.records_per_source)
        self._sources.enter(_name(record), source)

    def _find_room(self, record: AnyRecord, now: float, source: bytes) -> bool:
        """See to it that `record` fits into the store."""
        replaced = self._replaced(record)
        if self._origins is not None:
            losers = self._origins.losers(record, replaced)
            if losers is None:
                return False
            self._drop_all(losers)
        while replaced is None and self.size >= self._config.max_records:
            if not self._make_room(record, now, source):
                return False
        return True

    def _drop_all(self, losers: list[AnyRecord] | list[MembershipRecord]) -> None:
        for loser in losers:
            self._drop(loser)

    def _make_room(self, record: AnyRecord, now: float, source: bytes) -> bool:
        """We are full: forget what is over, or else one record. False if that would be `record`."""
        if self.expire(now):
            return True
        loser = self._sources.loser(_name(record), source) if self._sources is not None else None
        if loser is None:
            return self._drop_farthest(record.key, now)
        if loser == _name(record):
            return False
        self._drop(self._named(loser))
        return True

    def _drop_farthest(self, key: bytes, now: float) -> bool:
        """Forget one record of the farthest key. False if `key` is farther."""
        if self._farthest is None:
            self._farthest = [(-self._distance(other), other) for other in self._held]
            heapq.heapify(self._farthest)
        while self._farthest[0][1] not in self._held:
            heapq.heappop(self._farthest)
        distance, farthest = self._farthest[0]
        if -distance <= self._distance(key):
            return False
        held = self._held[farthest]
        self._drop(held.last(now) if isinstance(held, Roster) else held)
        return True

    def _named(self, name: bytes) -> AnyRecord:
        held = self._held[name[:KEY_SIZE]]
        record = held.get(name[KEY_SIZE:]) if isinstance(held, Roster) else held
        assert record is not None
        return record

    # --- the rest of kademlia's interface ---

    def __setitem__(self, key: bytes, value: object) -> None:
        raise TypeError("a record is stored by keep(), which compares it with the one held")

    def __getitem__(self, key: bytes) -> AnyRecord:
        record = self.get(key)
        if record is None:
            raise KeyError(key)
        return record

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[tuple[bytes, AnyRecord]]:
        """Each record with its key; a topic's key comes with each of its members."""
        for key, held in list(self._held.items()):
            for record in held.records() if isinstance(held, Roster) else (held,):
                yield key, record

    def iter_older_than(self, seconds_old: float) -> Iterator[tuple[bytes, AnyRecord]]:
        """Always empty: only its owner renews a record (stock republishes what is not its own, and so nothing ever
        dies)."""
        return iter(())


def _name(record: AnyRecord) -> bytes:
    """Its key, and in a topic whose it is."""
    return record.key + record.peer_id.key if isinstance(record, MembershipRecord) else record.key
