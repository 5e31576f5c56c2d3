"""Who watches which key here, and whom to tell of a change: the holder's side of a watch.

A change concerns the watchers of its key and nobody else; a watch at rest costs nothing until its lease ends. Each
watch goes its way:

    idle ──on_change()──▶ queued ──take()──▶ told ──on_noted()──▶ idle
                            ▲                  │
                            └──── waiting ◀────┴─on_missed(); after three in a row its watcher is dropped

What changes while a watch is queued, told or waiting follows in one push: the shell sends what is newest by then.
"""

import heapq
import math
import random
from collections import Counter
from enum import Enum
from itertools import count
from typing import NamedTuple

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.endpoints import subnet

__all__ = ["Push", "Watchers"]

_SLACK = 64  # entries of ended watches that a heap may keep beyond as many as there are live ones


class Push(NamedTuple):
    """Tell `contact` what is newest at `key`; handed back when it is known what became of it."""

    contact: Contact
    key: bytes
    at: float
    """Monotonic seconds."""


class _State(Enum):
    IDLE = 0
    QUEUED = 1
    TOLD = 2
    WAITING = 3


class _Watcher:
    """A node that watches here, in one address family."""

    __slots__ = ("contact", "missed_at", "misses", "watches")

    def __init__(self, contact: Contact) -> None:
        self.contact = contact
        self.watches: dict[bytes, _Watch] = {}
        self.misses = 0
        self.missed_at = -math.inf


class _Watched:
    """A key and its watches."""

    __slots__ = ("is_due", "key", "quiet_until", "watches")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.watches: dict[_Watch, None] = {}
        self.is_due = False
        self.quiet_until = -math.inf


class _Watch:
    """One key of one watcher."""

    __slots__ = ("changed", "state", "told_at", "until", "watched", "watcher")

    def __init__(self, watcher: _Watcher, watched: _Watched, until: float) -> None:
        self.watcher = watcher
        self.watched = watched
        self.until = until
        self.state = _State.IDLE
        self.told_at = 0.0
        self.changed = False
        """Again, while it was told."""


class Watchers:
    """The watches that others have here. `now` is monotonic seconds."""

    def __init__(self, config: DhtConfig, rng: random.Random, *, local: bool) -> None:
        self._config = config
        self._rng = rng
        self._local = local
        self._watchers: dict[bytes, _Watcher] = {}
        self._watched: dict[bytes, _Watched] = {}
        self._subnets: Counter[bytes] = Counter()
        self._count = 0
        self._number = count()  # of what has the same time, the first goes first
        # (when it ends, number, watch): one entry for each watch, moved on when it comes up before its time
        self._leases: list[tuple[float, int, _Watch]] = []
        # (when, number, key): changes that wait for the end of the moment
        self._due: list[tuple[float, int, _Watched]] = []
        # (when, number, watch): to be told again
        self._waiting: list[tuple[float, int, _Watch]] = []
        self._queue: dict[_Watch, None] = {}
        self._next_at = 0.0

    # --- getters ---

    def __len__(self) -> int:
        return self._count

    def is_watched(self, key: bytes) -> bool:
        """Whether anybody watches `key`."""
        return key in self._watched

    def watches(self, who: Contact, key: bytes) -> bool:
        """Whether `who` watches `key`."""
        return self._find(who, key) is not None

    def deadline(self) -> float:
        """When `take` has something to do; infinity: not before the next input."""
        times = [heap[0][0] for heap in (self._leases, self._due, self._waiting) if heap]
        if self._queue:
            times.append(self._next_at)
        return min(times, default=math.inf)

    # --- inputs ---

    def watch(self, who: Contact, key: bytes, lease_s: float, now: float) -> bool:
        """`who`, whose address is proved, watches `key` for so long from now on, and is being told what is newest.

        False if there is no room. A lease is never shortened.
        """
        watcher = self._watchers.get(_watcher_id(who))
        if watcher is not None:
            self._move(watcher, who)
            watcher.misses = 0
        watch = watcher.watches.get(key) if watcher is not None else None
        if watch is not None:
            watch.until = max(watch.until, now + lease_s)
            watch.changed = False
            if watch.state is not _State.TOLD:
                self._queue.pop(watch, None)
                watch.state = _State.IDLE
            return True
        if not self._has_room(watcher, who, key):
            return False
        self._add(watcher or self._new_watcher(who), key, now + lease_s)
        return True

    def unwatch(self, who: Contact, key: bytes) -> None:
        """`who` watches `key` no more."""
        watch = self._find(who, key)
        if watch is not None:
            self._end(watch)

    def tell(self, who: Contact, key: bytes) -> None:
        """`who` lacks what is newest at `key`: push it."""
        watch = self._find(who, key)
        if watch is not None:
            self._enqueue(watch)

    def on_change(self, key: bytes, now: float) -> None:
        """`key` has a newer record here, or has lost it to time."""
        watched = self._watched.get(key)
        if watched is not None and not watched.is_due:
            watched.is_due = True
            heapq.heappush(self._due, (max(now, watched.quiet_until), next(self._number), watched))

    def on_noted(self, push: Push, *, still_watched: bool) -> None:
        """The watcher has heard it."""
        watch = self._told(push)
        if watch is None:
            return
        watch.watcher.misses = 0
        if not still_watched:
            self._end(watch)
            return
        watch.state = _State.IDLE
        if watch.changed:
            watch.changed = False
            self._enqueue(watch)

    def on_missed(self, push: Push, now: float) -> bool:
        """The watcher did not answer. True if it is dropped for that."""
        watch = self._told(push)
        if watch is None:
            return False
        watcher = watch.watcher
        if push.at >= watcher.missed_at:  # what was sent together and lost together is one miss
            watcher.misses += 1
            watcher.missed_at = now
        if watcher.misses >= self._config.notify_misses:
            for other in list(watcher.watches.values()):
                self._end(other)
            return True
        watch.state = _State.WAITING
        watch.changed = False
        again_at = now + self._config.notify_retry_s * (1 << (watcher.misses - 1))
        heapq.heappush(self._waiting, (again_at, next(self._number), watch))
        return False

    # --- drain ---

    def take(self, now: float) -> list[Push]:
        """Whom to tell now: at most `notify_per_s` a second."""
        self._expire(now)
        while self._due and self._due[0][0] <= now:
            watched = heapq.heappop(self._due)[2]
            watched.is_due = False
            watched.quiet_until = now + self._config.notify_moment_s
            watches = list(watched.watches)
            # Each of the holders begins with others, so most watchers hear it early from one of them.
            self._rng.shuffle(watches)
            for watch in watches:
                self._enqueue(watch)
        while self._waiting and self._waiting[0][0] <= now:
            watch = heapq.heappop(self._waiting)[2]
            if watch.state is _State.WAITING:
                watch.state = _State.IDLE
                self._enqueue(watch)
        return self._take_queued(now)

    # --- inside: telling ---

    def _enqueue(self, watch: _Watch) -> None:
        if watch.state is _State.IDLE:
            watch.state = _State.QUEUED
            self._queue[watch] = None
        elif watch.state is _State.TOLD:
            watch.changed = True

    def _take_queued(self, now: float) -> list[Push]:
        if not self._queue:
            return []
        interval_s = 1 / self._config.notify_per_s
        # What was not used may come as one burst.
        self._next_at = max(self._next_at, now - (self._config.notify_burst - 1) * interval_s)
        taken = []
        for watch in self._queue:
            if self._next_at > now:
                break
            self._next_at += interval_s
            watch.state = _State.TOLD
            watch.told_at = now
            taken.append(watch)
        if len(taken) == len(self._queue):
            self._queue = {}  # a dict that was emptied stays as large as it was
        else:
            for watch in taken:
                del self._queue[watch]
        return [Push(watch.watcher.contact, watch.watched.key, now) for watch in taken]

    def _told(self, push: Push) -> _Watch | None:
        """The watch that `push` was for, if it is the one under way."""
        watch = self._find(push.contact, push.key)
        return watch if watch is not None and watch.state is _State.TOLD and watch.told_at == push.at else None

    # --- inside: coming and going ---

    def _find(self, who: Contact, key: bytes) -> _Watch | None:
        watcher = self._watchers.get(_watcher_id(who))
        return watcher.watches.get(key) if watcher is not None else None

    def _has_room(self, watcher: _Watcher | None, who: Contact, key: bytes) -> bool:
        config, watched = self._config, self._watched.get(key)
        return (
            self._count < config.max_watches
            and (watched is None or len(watched.watches) < config.max_watches_per_key)
            and (watcher is None or len(watcher.watches) < config.max_watches_per_watcher)
            and (self._local or self._subnets[subnet(who.ip)] < config.max_watches_per_subnet)
        )

    def _new_watcher(self, who: Contact) -> _Watcher:
        watcher = self._watchers[_watcher_id(who)] = _Watcher(who)
        return watcher

    def _add(self, watcher: _Watcher, key: bytes, until: float) -> None:
        watched = self._watched.get(key)
        if watched is None:
            watched = self._watched[key] = _Watched(key)
        watch = _Watch(watcher, watched, until)
        watched.watches[watch] = None
        watcher.watches[key] = watch
        self._count += 1
        self._count_subnet(watcher.contact, 1)
        heapq.heappush(self._leases, (until, next(self._number), watch))
        if len(self._leases) > 2 * self._count + _SLACK:  # somebody comes and goes
            self._leases = [entry for entry in self._leases if _is_alive(entry[2])]
            heapq.heapify(self._leases)

    def _end(self, watch: _Watch) -> None:
        watcher, watched = watch.watcher, watch.watched
        watch.state = _State.IDLE
        self._queue.pop(watch, None)
        del watcher.watches[watched.key], watched.watches[watch]
        self._count -= 1
        self._count_subnet(watcher.contact, -1)
        if not watcher.watches:
            del self._watchers[_watcher_id(watcher.contact)]
        if not watched.watches:
            del self._watched[watched.key]

    def _expire(self, now: float) -> None:
        while self._leases and self._leases[0][0] <= now:
            watch = self._leases[0][2]
            if not _is_alive(watch):
                heapq.heappop(self._leases)
            elif watch.until > now:
                heapq.heapreplace(self._leases, (watch.until, next(self._number), watch))
            else:
                heapq.heappop(self._leases)
                self._end(watch)

    def _move(self, watcher: _Watcher, who: Contact) -> None:
        """A watcher is where it proved last to be."""
        if watcher.contact != who:
            self._count_subnet(watcher.contact, -len(watcher.watches))
            watcher.contact = who
            self._count_subnet(who, len(watcher.watches))

    def _count_subnet(self, who: Contact, more: int) -> None:
        if self._local:
            return
        net = subnet(who.ip)
        self._subnets[net] += more
        if not self._subnets[net]:
            del self._subnets[net]


def _watcher_id(who: Contact) -> bytes:
    return who.key + who.address.family.to_bytes(1, "big")


def _is_alive(watch: _Watch) -> bool:
    return watch.watcher.watches.get(watch.watched.key) is watch
