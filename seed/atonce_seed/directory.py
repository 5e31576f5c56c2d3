"""Who a seed can name to newcomers: a bounded, expiring list of nodes that proved themselves.

Losing it loses nothing that matters: newcomers fill it again.
"""

import random
from collections import OrderedDict
from dataclasses import dataclass

from dht_atonce.config import SeedConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.endpoints import Family

__all__ = ["Directory", "Traffic"]


@dataclass(slots=True)
class _Entry:
    contact: Contact
    seen_at: float


class Directory:
    """Live contacts, by node and family. `now` is monotonic seconds."""

    def __init__(self, config: SeedConfig, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        # (NodeId, family) → entry; the one seen longest ago first
        self._entries: OrderedDict[tuple[bytes, Family], _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def on_live(self, contact: Contact, now: float) -> None:
        """`contact` proved itself just now: by a cookie, or by answering us."""
        key = (contact.id, contact.address.family)
        self._entries[key] = _Entry(contact, now)
        self._entries.move_to_end(key)
        if len(self._entries) > self._config.directory_size:
            self._entries.popitem(last=False)

    def on_failure(self, contact: Contact) -> None:
        """`contact` did not answer us."""
        entry = self._entries.get((contact.id, contact.address.family))
        if entry is not None and entry.contact.address == contact.address:
            del self._entries[contact.id, contact.address.family]

    def newest_age_s(self, now: float) -> float | None:
        """How long ago anybody was heard of; None if nobody is listed."""
        if not self._entries:
            return None
        return now - next(reversed(self._entries.values())).seen_at

    def contacts(self) -> list[Contact]:
        """All, the one heard of last first: what is saved."""
        return [entry.contact for entry in reversed(self._entries.values())]

    def unheard(self, contacts: list[Contact], now: float) -> list[Contact]:
        """Those of `contacts` that were last heard of more than `check_s` ago."""
        entries = ((c, self._entries.get((c.id, c.address.family))) for c in contacts)
        return [c for c, entry in entries if entry is None or now - entry.seen_at > self._config.check_s]

    def pick(self, family: Family, newcomer: bytes, now: float) -> list[Contact]:
        """Contacts for the newcomer with that `NodeId`: at most `max_contacts`, those heard of lately before others,
        spread evenly over the id space, and always the one that came last."""
        self._expire(now)
        entries = [e for (node_id, fam), e in self._entries.items() if fam is family and node_id != newcomer]
        fresh = [e for e in entries if now - e.seen_at <= self._config.fresh_s]
        stale = [e for e in entries if now - e.seen_at > self._config.fresh_s]
        most = self._config.max_contacts
        if len(fresh) <= most:
            missing = most - len(fresh)
            chosen = (stale[-missing:] if missing else []) + fresh
            return [entry.contact for entry in reversed(chosen)]
        latest = fresh.pop()
        ring = sorted((entry.contact for entry in fresh), key=lambda contact: contact.id)
        step = len(ring) / (most - 1)
        offset = self._rng.random() * step
        return [latest.contact] + [ring[int(offset + step * i) % len(ring)] for i in range(most - 1)]

    def _expire(self, now: float) -> None:
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if now - entry.seen_at <= self._config.directory_life_s:
                return
            del self._entries[key]


class Traffic:
    """Counts what peers send to the seed's node of their own accord: the number that must be 0.

    A request belongs to a handshake if its node authenticates within `handshake_s`; what does not, came of itself.
    And who was given live contacts has no business here again in the same run.
    """

    def __init__(self, config: SeedConfig) -> None:
        self._handshake_s = config.handshake_s
        self._limit = config.max_handshakes
        # Node key → number of requests that no handshake explains yet, and when the first came
        self._open: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._unexplained = 0
        self._served: OrderedDict[bytes, None] = OrderedDict()
        self.handshake = 0
        """Datagrams that belonged to handshakes."""
        self.returned = 0
        """Handshakes of processes that had been given live contacts before."""

    def on_request(self, key: bytes, now: float) -> None:
        """The node `key` sent us a request."""
        self._settle(now)
        count, since = self._open.get(key, (0, now))
        self._open[key] = (count + 1, since)
        if len(self._open) > self._limit:
            _, (count, _) = self._open.popitem(last=False)
            self._unexplained += count

    def on_authenticated(self, key: bytes, incarnation: bytes) -> None:
        """The node `key` finished a handshake: its requests were part of it."""
        count, _ = self._open.pop(key, (0, 0.0))
        self.handshake += count
        if incarnation in self._served:
            self.returned += 1

    def on_contacts_given(self, incarnation: bytes) -> None:
        """This process knows live nodes now."""
        self._served[incarnation] = None
        if len(self._served) > self._limit:
            self._served.popitem(last=False)

    @property
    def pending(self) -> int:
        """Datagrams that a handshake may yet explain."""
        return sum(count for count, _ in self._open.values())

    def unsolicited(self, now: float) -> int:
        """Datagrams that no handshake explained in time."""
        self._settle(now)
        return self._unexplained

    def _settle(self, now: float) -> None:
        while self._open:
            key, (count, since) = next(iter(self._open.items()))
            if now - since < self._handshake_s:
                return
            del self._open[key]
            self._unexplained += count
