"""Whom a lookup may ask: each with where it is, how it fares, and on whose word we know of it.

A referrer has *credit*. Each contact that is asked on its word costs one, each that answers gives two more than it
cost; whoever is known only from referrers without credit is asked last, when nobody else is left. So a liar who names
sixteen that do not exist costs a lookup three requests, and honest nodes are never held up by it: in an honest network,
and in one in which half have died, credit grows faster than it is spent. (S/Kademlia's disjoint paths, Baumgart and
Mies 2007, bound a liar's share of a lookup too, and make each honest lookup longer for it.)
"""

from bisect import bisect
from enum import Enum

import msgspec

from dht_atonce.dht.contact import Contact
from dht_atonce.records import AnyRecord

__all__ = ["Candidate", "Candidates", "State"]

_MAX_CANDIDATES = 256  # of all that replies name; farther ones would never be asked within the budget
_MAX_ADDRESSES = 3  # of one node that are tried in one lookup
_MAX_REFERRERS = 6  # whose word is remembered for one candidate
_CREDIT = 3  # of a referrer of whom nothing is known
_GAIN = 3  # for one that answers: what it cost, and two more


class State(Enum):
    """Of a candidate."""

    CANDIDATE = 0
    ASKED = 1
    LATE = 2
    OVERDUE = 3
    ANSWERED = 4
    FAILED = 5


# Read from the class, each of them costs more than the comparison that it is for.
_CANDIDATE, _ASKED, _LATE, _OVERDUE, _ANSWERED, _FAILED = State


class Candidate(msgspec.Struct, eq=False):
    """One node, and what became of it in this lookup."""

    contact: Contact
    hops: int
    referrers: "list[Candidate] | None"
    """On whose word it is here; None: our own table's."""
    state: State = _CANDIDATE
    asked_at: float = 0.0
    addresses: list[Contact] | None = None
    """All that were named, in the order in which they are tried; None: just `contact`, the present one."""
    record: AnyRecord | None = None
    credit: int = _CREDIT

    @property
    def may_be_asked(self) -> bool:
        """Whether somebody whose word is still worth something named it."""
        referrers = self.referrers
        if referrers is None:
            return True
        return any(referrer.credit > 0 for referrer in referrers)

    def ask(self, now: float) -> None:
        """It is asked, on its referrers' word."""
        self.state = _ASKED
        self.asked_at = now
        for referrer in self.referrers or ():
            referrer.credit -= 1

    def answered(self, record: AnyRecord | None) -> None:
        """It is there."""
        self.state = _ANSWERED
        self.record = record
        for referrer in self.referrers or ():
            referrer.credit += _GAIN

    def failed(self) -> None:
        """At its present address nobody answers, or somebody who lies: the one named after it is next, if there is
        one."""
        addresses = self.addresses or [self.contact]
        later = addresses[addresses.index(self.contact) + 1 :]
        self.state = _CANDIDATE if later else _FAILED
        self.contact = later[0] if later else self.contact

    def add_address(self, contact: Contact) -> None:
        """Somebody may name an honest node at a false address: another address is another chance."""
        addresses = self.addresses or [self.contact]
        if self.state is _ANSWERED or contact in addresses or len(addresses) >= _MAX_ADDRESSES:
            return
        self.addresses = [*addresses, contact]
        if self.state is _FAILED:
            self.failed()


class Candidates:
    """All of one lookup, the nearest to its target first."""

    __slots__ = ("_by_id", "_own_id", "distances", "order", "settled", "target")

    def __init__(self, target: int, own_id: bytes) -> None:
        self.target = target
        self.order: list[Candidate] = []
        self.distances: list[int] = []
        """In step with `order`."""
        self.settled = 0
        """So many of the nearest have answered, one behind the other: no need to look at them again."""
        self._by_id: dict[bytes, Candidate] = {}
        self._own_id = own_id

    def get(self, contact: Contact) -> Candidate | None:
        """The candidate that is asked at this very contact."""
        candidate = self._by_id.get(contact.id)
        return candidate if candidate is not None and candidate.contact == contact else None

    def add_all(self, contacts: list[Contact], hops: int, referrer: Candidate | None) -> None:
        """Take up those that `referrer` (None: our own table) names. `hops`: how far they are then."""
        by_id = self._by_id
        if not by_id and len(contacts) < _MAX_CANDIDATES:
            self._begin(contacts, hops, referrer)
            return
        for contact in contacts:  # nearly all of them are known by now
            known = by_id.get(contact.id)
            if known is None:
                self._add(contact, hops, referrer)
                continue
            if known.contact is not contact and known.contact != contact:
                known.add_address(contact)
            referrers = known.referrers
            if (
                known.state is _CANDIDATE
                and referrers is not None
                and referrer is not None
                and len(referrers) < _MAX_REFERRERS
            ):
                referrers.append(referrer)

    def _begin(self, contacts: list[Contact], hops: int, referrer: Candidate | None) -> None:
        """`add_all` while there is nobody."""
        by_id = self._by_id
        for contact in contacts:
            if contact.id in by_id:
                by_id[contact.id].add_address(contact)
            elif contact.id != self._own_id:
                by_id[contact.id] = Candidate(contact, hops, None if referrer is None else [referrer])
        target = self.target
        order = self.order = list(by_id.values())
        distances = self.distances = [candidate.contact.long_id ^ target for candidate in order]
        if distances != sorted(distances):  # a table gives the nearest first
            order.sort(key=lambda candidate: candidate.contact.long_id ^ target)
            distances.sort()

    def settle(self) -> None:
        """Find out how many of the nearest have answered."""
        order = self.order
        while self.settled < len(order) and order[self.settled].state is _ANSWERED:
            self.settled += 1

    def in_state(self, *states: State) -> list[Candidate]:
        """Those in one of these states, the nearest first."""
        return [candidate for candidate in self.order if candidate.state in states]

    def _add(self, contact: Contact, hops: int, referrer: Candidate | None) -> None:
        if contact.id == self._own_id:
            return
        distance = contact.long_id ^ self.target
        if len(self.order) >= _MAX_CANDIDATES and not self._make_room(distance):
            return
        self._by_id[contact.id] = candidate = Candidate(contact, hops, None if referrer is None else [referrer])
        index = bisect(self.distances, distance)
        self.distances.insert(index, distance)
        self.order.insert(index, candidate)
        if index < self.settled:
            self.settled = index

    def _make_room(self, distance: int) -> bool:
        """Forget the farthest that was not asked, or the farthest that failed, if it is farther than `distance`."""
        for index in range(len(self.order) - 1, -1, -1):
            if self.distances[index] <= distance:
                return False
            other = self.order[index]
            if other.state in (_CANDIDATE, _FAILED):
                del self.order[index], self.distances[index]
                del self._by_id[other.contact.id]
                return True
        return False
