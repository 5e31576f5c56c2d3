"""The nodes at which we watch keys: what each is still to be told, when it is renewed, how the way to it stays open.

Watches at one node are renewed together, many in one request and one request at a time. Nothing here goes through all
watches: what has a time stands in a heap.
"""

import heapq
import math
import random
from itertools import count, islice
from typing import NamedTuple

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.reach import Reach
from dht_atonce.dht.wire import MAX_WATCHES, NEARER, WATCHED

__all__ = ["RENEWED_AT", "Batch", "Holders"]

RENEWED_AT = 3
"""Watches are renewed after one part in so many of their lease."""
_JITTER = 0.1  # so that watchers that came together do not renew together
_MIN_LEASE_S = 30.0  # who grants less is asked as if it had granted this


class Batch(NamedTuple):
    """One request: watch these keys at `contact`, or (lease 0) end that."""

    contact: Contact
    lease_s: int
    keys: list[bytes]
    is_renewal: bool
    """All of them were watched there before: what changed meanwhile should have been pushed."""


class _Holder:
    """A node at which we watch keys."""

    __slots__ = ("asked", "contact", "ending", "heard_at", "keys", "known", "pinged_at", "renew_at", "todo")

    def __init__(self, contact: Contact) -> None:
        self.contact = contact
        self.keys: dict[bytes, None] = {}
        self.known: dict[bytes, None] = {}
        """Those of `keys` that it watches for us, by its own word."""
        self.todo: dict[bytes, None] = {}
        """Those of `keys` that it is to be asked for."""
        self.ending: dict[bytes, None] = {}
        self.asked: Batch | None = None
        self.renew_at = math.inf
        self.pinged_at = math.inf
        """When it is pinged next, to keep the way open; infinity: not."""
        self.heard_at = -math.inf

    def has_been_told(self, key: bytes) -> bool:
        return key in self.known or (self.asked is not None and key in self.asked.keys)


class Holders:
    """All of them. `now` is monotonic seconds."""

    def __init__(self, config: DhtConfig, rng: random.Random, reach: Reach) -> None:
        self._config = config
        self._rng = rng
        self._reach = reach
        self._holders: dict[Contact, _Holder] = {}
        # Those that have something to be told, and are not being told
        self._ready: dict[Contact, None] = {}
        # Heaps of (when, number, which). Entries that do not hold any more are passed over.
        self._number = count()
        self._renewals: list[tuple[float, int, Contact]] = []
        self._pings: list[tuple[float, int, Contact]] = []

    # --- getters ---

    def __len__(self) -> int:
        return len(self._holders)

    def watches(self, contact: Contact, key: bytes) -> bool:
        """Whether `contact` watches `key` for us, by its own word."""
        holder = self._holders.get(contact)
        return holder is not None and key in holder.known

    def is_pending(self, contact: Contact, key: bytes) -> bool:
        """Whether `contact` is still to answer for `key`."""
        holder = self._holders.get(contact)
        return holder is not None and (key in holder.todo or (holder.asked is not None and key in holder.asked.keys))

    def deadline(self, now: float) -> float:
        """When something is due; infinity: not before the next input."""
        if self._ready:
            return now
        return min((heap[0][0] for heap in (self._renewals, self._pings) if heap), default=math.inf)

    # --- commands ---

    def enter(self, contact: Contact, key: bytes) -> None:
        """Watch `key` at `contact`."""
        holder = self._holders.get(contact)
        if holder is None:
            holder = self._holders[contact] = _Holder(contact)
        holder.keys[key] = holder.todo[key] = None
        holder.ending.pop(key, None)
        self._settle(holder)

    def leave(self, contact: Contact, key: bytes) -> None:
        """Watch `key` at `contact` no more; it is told, if it knows of it."""
        holder = self._holders[contact]
        if holder.has_been_told(key):
            holder.ending[key] = None
        del holder.keys[key]
        holder.known.pop(key, None)
        holder.todo.pop(key, None)
        self._settle(holder)

    # --- requests ---

    def take(self, now: float) -> list[Batch]:
        """What to tell holders now; `on_watching` or `on_silent` hears what came of each."""
        while self._renewals and self._renewals[0][0] <= now:
            at, _, contact = heapq.heappop(self._renewals)
            holder = self._holders.get(contact)
            if holder is not None and holder.renew_at == at:
                holder.renew_at = math.inf
                holder.todo.update(holder.keys)
                self._settle(holder)
        batches = []
        for contact in self._ready:
            holder = self._holders[contact]
            holder.asked = self._batch(holder)
            batches.append(holder.asked)
        self._ready = {}
        return batches

    def on_watching(self, batch: Batch, lease_s: float, outcomes: bytes, now: float) -> list[bytes]:
        """A holder answered: it watches for us for `lease_s`, as the bits of `outcomes` say for each key.

        Gives the keys to which others are nearer than it is.
        """
        holder = self._holders.get(batch.contact)
        if holder is None or holder.asked is not batch:
            return []
        holder.asked = None
        holder.heard_at = now
        nearer = []
        if batch.lease_s:
            self._renew(holder, lease_s, now)
            self._keep_open(holder, now)
            for key, outcome in zip(batch.keys, outcomes.ljust(len(batch.keys), b"\0"), strict=False):
                if key not in holder.keys:
                    continue
                if outcome & WATCHED:
                    holder.known[key] = None
                else:
                    holder.known.pop(key, None)  # it is asked again with the next renewal
                if outcome & NEARER:
                    nearer.append(key)
        self._settle(holder)
        return nearer

    def on_silent(self, contact: Contact) -> list[bytes]:
        """`contact` did not answer, or refused: it is no holder any more. Gives the keys that were watched there."""
        holder = self._holders.pop(contact, None)
        self._ready.pop(contact, None)
        return list(holder.keys) if holder is not None else []

    # --- keeping the way open ---

    def take_pings(self, now: float) -> list[Contact]:
        """Whom to ping, so that what they push can reach us; `on_alive` or `on_silent` hears what came of it."""
        taken = []
        while self._pings and self._pings[0][0] <= now:
            at, _, contact = heapq.heappop(self._pings)
            holder = self._holders.get(contact)
            if holder is None or holder.pinged_at != at:
                continue
            holder.pinged_at = math.inf
            if self._reach.is_open(now):
                continue  # looked at again with the next renewal
            if holder.heard_at + self._config.keep_alive_s <= now:
                taken.append(contact)
                self._ping_at(holder, now + self._config.keep_alive_s)
            else:
                self._ping_at(holder, holder.heard_at + self._config.keep_alive_s)
        return taken

    def on_alive(self, contact: Contact, now: float) -> None:
        """`contact` answered a ping."""
        holder = self._holders.get(contact)
        if holder is not None:
            holder.heard_at = now

    # --- inside ---

    def _batch(self, holder: _Holder) -> Batch:
        waiting = holder.ending or holder.todo
        lease_s = 0 if waiting is holder.ending else int(self._config.watch_lease_s)
        keys = list(islice(waiting, MAX_WATCHES))
        for key in keys:
            del waiting[key]
        return Batch(holder.contact, lease_s, keys, all(key in holder.known for key in keys))

    def _settle(self, holder: _Holder) -> None:
        """It goes to where it belongs: to those that have something to be told, or out."""
        contact = holder.contact
        self._ready.pop(contact, None)
        if holder.asked is not None:
            return
        if holder.todo or holder.ending:
            self._ready[contact] = None
        elif not holder.keys:
            self._holders.pop(contact, None)

    def _renew(self, holder: _Holder, lease_s: float, now: float) -> None:
        if holder.renew_at == math.inf and holder.keys:
            part_s = min(self._config.watch_lease_s, max(_MIN_LEASE_S, lease_s)) / RENEWED_AT
            holder.renew_at = now + part_s * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
            heapq.heappush(self._renewals, (holder.renew_at, next(self._number), holder.contact))

    def _keep_open(self, holder: _Holder, now: float) -> None:
        is_full = len(self._pings) >= self._config.max_keep_alives
        if holder.pinged_at == math.inf and not is_full and not self._reach.is_open(now):
            self._ping_at(holder, now + self._config.keep_alive_s)

    def _ping_at(self, holder: _Holder, at: float) -> None:
        holder.pinged_at = at
        heapq.heappush(self._pings, (at, next(self._number), holder.contact))
