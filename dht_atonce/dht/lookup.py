"""A lookup: it chooses whom to ask next; it never sends.

Iterative Kademlia lookup with a rolling α: as soon as one contact answers, fails or is late, the next is asked; nobody
waits for a round. Late says nothing about failure, it only lets somebody else be asked too.

    candidates ─next()─▶ asked ─on_reply()──▶ answered
                           │ late: still asked, no longer counted in α
                           └──on_failure()──▶ failed (named again by a reply, it stays failed)

A failed one becomes a candidate again only at another address.

Over when the nearest `need` candidates that did not fail have all answered, or there is nobody left to ask, or the
budget of time or requests is spent. After rust-libp2p's `query/peers/closest.rs`.
"""

from bisect import bisect
from enum import Enum

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.records import AnyRecord, is_newer

__all__ = ["Lookup", "LookupEnd"]

_MAX_CANDIDATES = 256  # of all that replies name; farther ones would never be asked within the budget
_MAX_ADDRESSES = 3  # of one node that are tried in one lookup


class LookupEnd(Enum):
    """Why a lookup ended."""

    CLOSEST_ANSWERED = "closest answered"
    NOBODY_LEFT = "nobody left"
    DEADLINE = "deadline"
    BUDGET = "budget"


class _State(Enum):
    CANDIDATE = 0
    ASKED = 1
    LATE = 2
    ANSWERED = 3
    FAILED = 4


# Read from the class, each of them costs more than the comparison that it is for.
_CANDIDATE, _ASKED, _LATE, _ANSWERED, _FAILED = _State


class _Candidate:
    __slots__ = ("addresses", "asked_at", "contact", "hops", "record", "state")

    def __init__(self, contact: Contact, hops: int) -> None:
        self.contact = contact
        self.hops = hops
        self.state = _CANDIDATE
        self.asked_at = 0.0
        self.addresses = [contact]
        """All that were named, in the order in which they are tried; `contact` is the present one."""
        self.record: AnyRecord | None = None

    def next_address(self) -> None:
        """The present address failed: try the one named after it, if there is one."""
        later = self.addresses[self.addresses.index(self.contact) + 1 :]
        self.state = _CANDIDATE if later else _FAILED
        self.contact = later[0] if later else self.contact


class Lookup:
    """One search for the nodes nearest to `target`, and for the record there.

    `now` is monotonic seconds. `need` is how many of the nearest must have answered; once a record was found,
    `need_with_record` (default: `need`) is enough, since absence takes more asking to believe than presence does.
    """

    def __init__(
        self,
        target: int,
        start: list[Contact],
        *,
        own_id: bytes,
        need: int,
        now: float,
        config: DhtConfig,
        need_with_record: int | None = None,
        max_requests: int | None = None,
    ) -> None:
        self.target = target
        self.requests = 0
        self.record: AnyRecord | None = None
        """The newest record that any reply brought."""
        self.record_hops = 0
        """Length of the referral chain to the node that first had it; a contact of our own table is 1."""
        self.end: LookupEnd | None = None
        self._own_id = own_id
        self._need = need
        self._need_with_record = need if need_with_record is None else need_with_record
        self._alpha = config.alpha
        self._deadline = now + config.lookup_deadline_s
        self._max_requests = max_requests or config.lookup_max_requests
        self._by_id: dict[bytes, _Candidate] = {}
        # Nearest first, and their distances
        self._order: list[_Candidate] = []
        self._distances: list[int] = []
        # So many of the nearest have answered, one behind the other: no need to look at them again.
        self._answered = 0
        # Those that are asked and not late, in the order in which they were asked; at most alpha
        self._asked: list[_Candidate] = []
        for contact in start:
            self._add(contact, 1)

    # --- commands and inputs ---

    def next(self, now: float, hedge_s: float) -> list[Contact]:
        """Whom to ask now. `hedge_s`: after how long a request is late. Sets `end` when the lookup is over."""
        if self.end is not None:
            return []
        if now >= self._deadline:
            self.end = LookupEnd.DEADLINE
            return []
        asked, order = self._asked, self._order
        while asked and now >= asked[0].asked_at + hedge_s:  # the very sum that `deadline` gives: no rounding between
            asked.pop(0).state = _LATE
        while self._answered < len(order) and order[self._answered].state is _ANSWERED:
            self._answered += 1
        picked: list[Contact] = []
        need = self._need if self.record is None else self._need_with_record
        room = min(self._alpha - len(asked), self._max_requests - self.requests)
        answered, expected, late = min(self._answered, need), 0, 0
        for candidate in order[self._answered :] if answered < need else ():
            state = candidate.state
            if state is _ANSWERED:
                answered += 1
            elif state is _LATE:
                late += 1  # still hoped for, but somebody beyond it is asked in its place
            elif state is not _FAILED:
                expected += 1
                if room > 0 and state is _CANDIDATE:
                    candidate.state = _ASKED
                    candidate.asked_at = now
                    room -= 1
                    asked.append(candidate)
                    picked.append(candidate.contact)
            # Whoever else there is: nobody more is asked now, and it is not over.
            if answered + expected >= need or (room <= 0 and expected + late):
                break
        self.requests += len(picked)
        if not expected and not late:
            self.end = LookupEnd.CLOSEST_ANSWERED if answered >= need else LookupEnd.NOBODY_LEFT
        elif not picked and self.requests >= self._max_requests and not self._has_pending():
            self.end = LookupEnd.BUDGET
        return picked

    def deadline(self, hedge_s: float) -> float:
        """When `next` must be called again even if nothing was heard."""
        if not self._asked:
            return self._deadline
        return min(self._deadline, self._asked[0].asked_at + hedge_s)

    def on_reply(self, contact: Contact, contacts: list[Contact], record: AnyRecord | None) -> bool:
        """`contact` answered, naming `contacts` and maybe a verified, unexpired `record` of the target's key.

        True if the record is the newest so far.
        """
        candidate = self._by_id.get(contact.id)
        if candidate is None or candidate.contact != contact:
            return False
        if candidate.state is _ASKED:
            self._asked.remove(candidate)
        elif candidate.state is not _LATE:
            return False
        candidate.state = _ANSWERED
        candidate.record = record
        hops = candidate.hops + 1
        by_id = self._by_id
        for other in contacts:  # nearly all of them are known by now
            known = by_id.get(other.id)
            if known is None or known.contact is not other:
                self._add(other, hops)
        if record is None or not is_newer(record, self.record):
            return False
        if self.record is not None and self.record.blob == record.blob:
            return False
        if self.record is None:
            self.record_hops = candidate.hops
        self.record = record
        return True

    def on_failure(self, contact: Contact) -> None:
        """`contact` did not answer, or answered nonsense."""
        candidate = self._by_id.get(contact.id)
        if candidate is not None and candidate.contact == contact and candidate.state is not _ANSWERED:
            if candidate.state is _ASKED:
                self._asked.remove(candidate)
            candidate.next_address()

    # --- getters ---

    def closest(self, count: int) -> list[Contact]:
        """The `count` nearest that answered, nearest first."""
        answered = [c.contact for c in self._order if c.state is _ANSWERED]
        return answered[:count]

    def answered(self) -> list[Contact]:
        """All that answered, nearest first."""
        return [c.contact for c in self._order if c.state is _ANSWERED]

    def unasked(self, count: int) -> list[Contact]:
        """Those of the `count` nearest that did not fail whom nobody asked yet, nearest first."""
        nearest = [c for c in self._order if c.state is not _FAILED][:count]
        return [c.contact for c in nearest if c.state is _CANDIDATE]

    def lacking(self, count: int) -> list[Contact]:
        """Those of the `count` nearest that answered without the newest record: they are to be repaired."""
        if self.record is None:
            return []
        nearest = [c for c in self._order if c.state is _ANSWERED][:count]
        return [c.contact for c in nearest if c.record is None or is_newer(self.record, c.record)]

    # --- inside ---

    def _add(self, contact: Contact, hops: int) -> None:
        known = self._by_id.get(contact.id)
        if known is not None:
            self._add_address(known, contact)
            return
        if contact.id == self._own_id:
            return
        distance = contact.long_id ^ self.target
        if len(self._order) >= _MAX_CANDIDATES and not self._make_room(distance):
            return
        self._by_id[contact.id] = candidate = _Candidate(contact, hops)
        index = bisect(self._distances, distance)
        self._distances.insert(index, distance)
        self._order.insert(index, candidate)
        if index < self._answered:
            self._answered = index

    def _add_address(self, known: _Candidate, contact: Contact) -> None:
        """Somebody may name an honest node at a false address: another address is another chance."""
        if known.state is _ANSWERED or contact in known.addresses or len(known.addresses) >= _MAX_ADDRESSES:
            return
        known.addresses.append(contact)
        if known.state is _FAILED:
            known.next_address()

    def _make_room(self, distance: int) -> bool:
        """Forget the farthest that was not asked, or the farthest that failed, if it is farther than `distance`."""
        for index in range(len(self._order) - 1, -1, -1):
            if self._distances[index] <= distance:
                return False
            other = self._order[index]
            if other.state in (_CANDIDATE, _FAILED):
                del self._order[index]
                del self._distances[index]
                del self._by_id[other.contact.id]
                return True
        return False

    def _has_pending(self) -> bool:
        return any(c.state in (_ASKED, _LATE) for c in self._order)
