"""What we watch, what we know of it, and when it is looked up: the watcher's side.

A key is looked up, and watched at the nodes nearest to it (`holders` talks to them). It is looked up again when one of
them falls silent or says that others are nearer, and once per lease in any case: nodes that withhold what is stored
there would never be found out otherwise.

Nothing here goes through all watches: what has a time stands in a heap.
"""

import heapq
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.holders import RENEWED_AT, Batch, Holders
from dht_atonce.dht.reach import Reach
from dht_atonce.endpoints import Family
from dht_atonce.records import AnyRecord, is_newer

__all__ = ["KeyChange", "WatchEvent", "Watches"]

_JITTER = 0.1


class KeyChange(Enum):
    """What happened at a watched key."""

    RECORD = "record"
    """There is a newer record, or the first that we hear of."""
    GOODBYE = "goodbye"
    """The newer record is a goodbye."""
    EXPIRED = "expired"
    """The record's time is over, by its own signed expiry and our clock, and nothing newer was heard."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """A change at a watched key."""

    change: KeyChange
    record: AnyRecord
    """The newest; of `EXPIRED`, the one that is over."""


class _Watched:
    """A key that we watch."""

    __slots__ = (
        "backoff_s",
        "expiry_at",
        "has_lost",
        "holders",
        "is_new",
        "is_over",
        "looked_at",
        "lookup_at",
        "pause_s",
        "record",
    )

    def __init__(self) -> None:
        self.record: AnyRecord | None = None
        self.is_over = False
        self.expiry_at = math.inf
        """Unix seconds at which its entry in the heap comes up, infinity without one."""
        self.holders: dict[Contact, None] = {}
        self.is_new = True
        """It was not looked up yet."""
        self.looked_at = -math.inf
        self.lookup_at = math.inf
        """When it is looked up next; infinity while it is, or waits for its turn."""
        self.backoff_s = 0.0
        self.has_lost = False
        """A holder fell silent since it was looked up."""
        self.pause_s = 0.0
        """How long after a lookup the next one for such a reason may be."""


class Watches:
    """Our watches. `now` is monotonic, `wall` Unix seconds."""

    def __init__(self, config: DhtConfig, rng: random.Random, *, local: bool) -> None:
        self._config = config
        self._rng = rng
        self.reach = Reach(config, local=local)
        self.at = Holders(config, rng, self.reach)
        """Where we watch."""
        self._watched: dict[bytes, _Watched] = {}
        # Keys whose first lookup is due, keys that move to other holders, and keys that are looked up
        self._first: dict[bytes, None] = {}
        self._moving: dict[bytes, None] = {}
        self._looking: dict[bytes, None] = {}
        self._lookup_next_at = 0.0
        # Heaps of (when, number, key). Entries that do not hold any more are passed over.
        self._number = count()
        self._lookups: list[tuple[float, int, bytes]] = []
        self._expiries: list[tuple[float, int, bytes]] = []

    # --- getters ---

    def __len__(self) -> int:
        return len(self._watched)

    def __contains__(self, key: object) -> bool:
        return key in self._watched

    def __iter__(self) -> Iterator[bytes]:
        """The keys that we watch."""
        return iter(list(self._watched))

    def record(self, key: bytes) -> AnyRecord | None:
        """The newest record of `key` that we heard of, over or not."""
        watched = self._watched.get(key)
        return watched.record if watched is not None else None

    def is_over(self, key: bytes) -> bool:
        """Whether that record's time is over."""
        return key in self._watched and self._watched[key].is_over

    def holders(self, key: bytes) -> list[Contact]:
        """The nodes that watch `key` for us, by their own word."""
        watched = self._watched.get(key)
        return [c for c in watched.holders if self.at.watches(c, key)] if watched is not None else []

    def is_settled(self, key: bytes) -> bool:
        """Whether `key` was looked up, and all nodes that were asked to watch it have answered."""
        watched = self._watched.get(key)
        if watched is None:
            return True
        return not watched.is_new and not any(self.at.is_pending(contact, key) for contact in watched.holders)

    def deadline(self, now: float, wall: float) -> float:
        """When something is due, monotonic seconds; infinity: not before the next input."""
        times = [self.at.deadline(now)]
        if len(self._looking) < self._config.watch_lookups:
            if self._first:
                times.append(now)
            if self._moving:
                times.append(self._lookup_next_at)
            if self._lookups:
                times.append(max(self._lookups[0][0], self._lookup_next_at))
        if self._expiries:
            times.append(now + self._expiries[0][0] - wall)
        return min(times)

    # --- commands ---

    def add(self, key: bytes) -> None:
        """Watch `key`. Raises ValueError beyond `max_watched` keys."""
        if key in self._watched:
            return
        if len(self._watched) >= self._config.max_watched:
            raise ValueError(f"a node watches at most {self._config.max_watched} keys")
        self._watched[key] = _Watched()
        self._first[key] = None

    def remove(self, key: bytes) -> None:
        """Watch `key` no more; its holders are told."""
        watched = self._watched.pop(key, None)
        if watched is None:
            return
        self._first.pop(key, None)
        self._moving.pop(key, None)
        for contact in watched.holders:
            self.at.leave(contact, key)

    # --- inputs: records ---

    def on_record(self, record: AnyRecord, wall: float) -> WatchEvent | None:
        """A verified record was heard of, in whatever way. Gives what is new in it to whoever watches."""
        watched = self._watched.get(record.key)
        if watched is None or record.expires <= wall or not is_newer(record, watched.record):
            return None
        watched.record, watched.is_over = record, False
        if record.expires < watched.expiry_at:
            # One that comes up too early is moved on: a record that is renewed all the time has one entry.
            watched.expiry_at = record.expires
            heapq.heappush(self._expiries, (record.expires, next(self._number), record.key))
        return WatchEvent(KeyChange.GOODBYE if record.is_goodbye else KeyChange.RECORD, record)

    def take_expired(self, wall: float) -> list[WatchEvent]:
        """The records whose time is over now. A goodbye's end is no news."""
        events = []
        while self._expiries and self._expiries[0][0] <= wall:
            at, _, key = heapq.heappop(self._expiries)
            watched = self._watched.get(key)
            if watched is None or watched.expiry_at != at:
                continue
            watched.expiry_at = math.inf
            record = watched.record
            if record is None or watched.is_over:
                continue
            if record.expires > wall:
                watched.expiry_at = record.expires
                heapq.heappush(self._expiries, (record.expires, next(self._number), key))
                continue
            watched.is_over = True
            if not record.is_goodbye:
                events.append(WatchEvent(KeyChange.EXPIRED, record))
        return events

    # --- lookups ---

    def take_lookups(self, now: float) -> list[bytes]:
        """The keys to be looked up now; `on_nearest` and then `on_looked_up` hear what came of it."""
        taken: list[bytes] = []
        self._lookup_next_at = max(self._lookup_next_at, now - 1.0)  # what was not used for a second may come at once
        while len(self._looking) < self._config.watch_lookups:
            key = self._next_lookup(now)
            if key is None:
                break
            self._watched[key].lookup_at = math.inf
            self._looking[key] = None
            taken.append(key)
        return taken

    def _next_lookup(self, now: float) -> bytes | None:
        key = self._next_in(self._first)  # somebody waits for it: not held up by the rate
        if key is None and self._lookup_next_at <= now:
            key = self._next_in(self._moving) or self._next_due(now)
            if key is not None:
                self._lookup_next_at += 1 / self._config.watch_lookups_per_s
        return key

    def _next_in(self, queue: dict[bytes, None]) -> bytes | None:
        while queue:
            key = next(iter(queue))
            del queue[key]
            if key not in self._looking:
                return key
        return None

    def _next_due(self, now: float) -> bytes | None:
        while self._lookups and self._lookups[0][0] <= now:
            at, _, key = heapq.heappop(self._lookups)
            watched = self._watched.get(key)
            if watched is not None and watched.lookup_at == at and key not in self._looking:
                return key
        return None

    def on_nearest(self, key: bytes, family: Family, nearest: Sequence[Contact]) -> None:
        """A lookup found these nodes, which answered, to be the nearest to `key` in `family`."""
        watched = self._watched.get(key)
        if watched is None or not nearest:
            return
        chosen = nearest[: self._config.watch_nodes]
        for contact in [c for c in watched.holders if c.address.family is family and c not in chosen]:
            del watched.holders[contact]
            self.at.leave(contact, key)
        for contact in chosen:
            if contact not in watched.holders:
                watched.holders[contact] = None
                self.at.enter(contact, key)

    def on_looked_up(self, key: bytes, now: float) -> None:
        """The lookups of `key` are over, in all families."""
        self._looking.pop(key, None)
        watched = self._watched.get(key)
        if watched is None:
            return
        watched.is_new = False
        watched.looked_at = now
        config = self._config
        # Some nodes answer a FIND and nothing else, and are found again and again: each time we look later.
        longer_s = min(config.watch_lease_s, 2 * watched.pause_s) if watched.has_lost else 0.0
        watched.pause_s = max(config.watch_lookup_pause_s, longer_s)
        watched.has_lost = False
        if watched.holders:
            watched.backoff_s = 0.0
            self._look_at(key, watched, now + config.watch_lease_s * self._rng.uniform(1 - 2 * _JITTER, 1.0))
        else:
            watched.backoff_s = min(config.watch_retry_max_s, watched.backoff_s * 2 or config.watch_retry_first_s)
            self._look_at(key, watched, now + watched.backoff_s * self._rng.uniform(1 - _JITTER, 1 + _JITTER))

    # --- inputs: holders ---

    def on_watching(self, batch: Batch, lease_s: float, outcomes: bytes, now: float) -> None:
        """A holder answered: it watches for us for `lease_s`, as the bits of `outcomes` say for each key."""
        for key in self.at.on_watching(batch, lease_s, outcomes, now):
            # Whoever says at each renewal that others are nearer makes us look so often, and no more.
            self._move(key, now, self._config.watch_lease_s / RENEWED_AT)

    def on_silent(self, contact: Contact, now: float) -> None:
        """`contact` did not answer, or will not watch for us: others take its place."""
        for key in self.at.on_silent(contact):
            watched = self._watched[key]
            watched.holders.pop(contact, None)
            watched.has_lost = True
            self._move(key, now, watched.pause_s)

    # --- inside ---

    def _look_at(self, key: bytes, watched: _Watched, at: float) -> None:
        watched.lookup_at = at
        heapq.heappush(self._lookups, (at, next(self._number), key))

    def _move(self, key: bytes, now: float, pause_s: float) -> None:
        """Other nodes may have to be found for `key`: at once, or `pause_s` after it was looked up."""
        watched = self._watched[key]
        if watched.is_new or key in self._looking or key in self._moving:
            return
        soon = watched.looked_at + pause_s
        if soon <= now:
            watched.lookup_at = math.inf
            self._moving[key] = None
        elif soon < watched.lookup_at:
            self._look_at(key, watched, soon)
