"""A lookup: it chooses whom to ask next; it never sends.

Iterative Kademlia lookup with a rolling α: as soon as one contact answers, fails or is late, the next is asked; nobody
waits for a round. Late says nothing about failure, it only lets somebody else be asked too.

    candidates ─next()─▶ asked ─on_reply()──▶ answered
                           │ late: still asked, no longer counted in α
                           │ overdue, after twice as long: if enough others answer, nobody waits for it
                           └──on_failure()──▶ failed (named again by a reply, it stays failed)

A failed one becomes a candidate again only at another address. Beyond α, one more may be asked for each that answered
and is nearer: the way to the target is felt out by four, and those round it are then asked nearly all at once.

Over when the nearest `need` candidates that did not fail, and all nearer than `within`, have answered, or there is
nobody left to ask, or the budget of time or requests is spent. After rust-libp2p's `query/peers/closest.rs`.
"""

from bisect import bisect_left
from enum import Enum

from dht_atonce.config import DhtConfig
from dht_atonce.dht.candidates import Candidate, Candidates, State
from dht_atonce.dht.contact import Contact
from dht_atonce.records import AnyRecord, is_newer

__all__ = ["Lookup", "LookupEnd"]

# Read from the class, each of them costs more than the comparison that it is for.
_CANDIDATE, _ASKED, _LATE, _OVERDUE, _ANSWERED, _FAILED = State
_WAITING = (_ASKED, _LATE, _OVERDUE)
_OVERDUE_HEDGES = 2  # who has not answered after so many times of lateness is not waited for
_UNSURE = 5  # one in so many of the nearest is not met in time


class LookupEnd(Enum):
    """Why a lookup ended."""

    CLOSEST_ANSWERED = "closest answered"
    AGREED = "agreed"
    NOBODY_LEFT = "nobody left"
    DEADLINE = "deadline"
    BUDGET = "budget"


class Lookup:
    """One search for the nodes nearest to `target`, and for the record there.

    `now` is monotonic seconds. `need` is how many of the nearest must have answered; once a record was found,
    `need_with_record` (default: `need`) is enough, since absence takes more asking to believe than presence does.
    `agreement`: it is over when so many gave the newest record, however near they are.
    `eager`: it is of no use before all of `need` have answered; so more are in flight, and some are asked whom it takes
    only if nearer ones turn out to be dead.
    `lead`: for a moment only so many are in flight, until so many of the nearest have answered: whoever is told
    something when it has answered shall not hear it behind all the others.
    `within` is a distance: all that are nearer must have answered too, while `need` of them are needed.
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
        within: int = 0,
        agreement: int | None = None,
        eager: bool = False,
        max_requests: int | None = None,
        lead: int = 0,
    ) -> None:
        self.target = target
        self.requests = 0
        self.record: AnyRecord | None = None
        """The newest record that any reply brought."""
        self.has_answer = False
        """`record` is worth giving to whoever waits: a node near enough said it, or two did. Who is farther away may
        have had it before so many came who are nearer, and not have been told of a newer one since."""
        self.record_hops = 0
        """Length of the referral chain to the node that first had it; a contact of our own table is 1."""
        self.end: LookupEnd | None = None
        self._need = need
        self._need_with_record = need if need_with_record is None else need_with_record
        self._within = within
        self._retry_s = config.min_timeout_s
        self._agreement = agreement
        # The newest of those that may be old: what there is, if nobody has another
        self._unsure: AnyRecord | None = None
        # So many gave `record`
        self._agreeing = 0
        self._has_all = False
        self._alpha = config.eager_alpha if eager else config.alpha
        if within and start and not eager and start[0].long_id ^ target < within:
            self._alpha = config.near_alpha
        self._eager = eager
        self._full_alpha = self._alpha
        self._absent_alpha = config.absent_alpha
        self._lead = lead
        self._lead_until = now + config.publish_lead_s if lead else now
        if lead:
            self._alpha = lead
        self._spare_share = config.spare_share
        self._deadline = now + config.lookup_deadline_s
        self._max_requests = max_requests or config.lookup_max_requests
        self._all = Candidates(target, own_id)
        self._answers = 0
        # Those that are asked and not late, in the order in which they were asked
        self._asked: list[Candidate] = []
        # Those that are late and not overdue, in that order too
        self._late: list[Candidate] = []
        # What was named behind the answer, with who named it: read only if somebody more has to be asked
        self._unread: list[tuple[Candidate, list[Contact]]] = []
        self._all.add_all(start, 1, None)

    # --- commands and inputs ---

    def next(self, now: float, hedge_s: float) -> list[Contact]:
        """Whom to ask now. `hedge_s`: after how long a request is late. Sets `end` when the lookup is over."""
        if self.end is not None:
            return []
        if now >= self._deadline:
            self._over(LookupEnd.DEADLINE)
            return []
        if self._agreement is not None and self._agreeing >= self._agreement:
            self._over(LookupEnd.AGREED)
            return []
        asked = self._asked
        while asked and now >= asked[0].asked_at + hedge_s:  # the very sum that `deadline` gives: no rounding between
            asked[0].state = _LATE
            self._late.append(asked.pop(0))
        while self._late and now >= self._late[0].asked_at + self._overdue_s(hedge_s):
            self._late.pop(0).state = _OVERDUE
        if self._waits_for_agreement():
            return []
        self._read()
        self._all.settle()
        if self._lead and (self._all.settled >= self._lead or now >= self._lead_until):
            self._lead, self._alpha = 0, self._full_alpha
        picked, answered, hoped_for = self._walk(now, trusting=False)
        if not hoped_for and answered < self._wanted:
            # On nobody's word but that of referrers who named the dead: better than to give up.
            picked, answered, hoped_for = self._walk(now, trusting=True)
        self.requests += len(picked)
        if not hoped_for:
            self._over(LookupEnd.CLOSEST_ANSWERED if answered >= self._wanted else LookupEnd.NOBODY_LEFT)
        elif not picked and self.requests >= self._max_requests and not self._all.in_state(*_WAITING):
            self._over(LookupEnd.BUDGET)
        return [candidate.contact for candidate in picked]

    def deadline(self, hedge_s: float) -> float:
        """When `next` must be called again even if nothing was heard."""
        deadline = self._lead_until if self._lead else self._deadline
        if self._asked:
            deadline = min(deadline, self._asked[0].asked_at + hedge_s)
        if self._late:
            deadline = min(deadline, self._late[0].asked_at + self._overdue_s(hedge_s))
        return deadline

    def on_reply(
        self, contact: Contact, contacts: list[Contact], record: AnyRecord | None, *, is_sure: bool = True
    ) -> None:
        """`contact` answered, naming `contacts` and maybe a verified, unexpired `record` of the target's key; it says
        itself whether it `is_sure` that this is no old one."""
        candidate = self._take(contact)
        if candidate is None:
            return
        candidate.answered(record)
        self._answers += 1
        self._unread.append((candidate, contacts))
        if not self.has_answer:
            self._read()  # they tell whether the candidate is near
        if record is None:
            if self.record is None and self._within and self._is_near(candidate):
                self._alpha = max(self._alpha, self._absent_alpha)
            return
        if not is_sure:
            if is_newer(record, self._unsure):
                self._unsure = record
            return
        if self.record is None:
            self.record_hops = candidate.hops
        self.has_answer = self.has_answer or self.record is not None or self._is_near(candidate)
        if self.record is not None and record.blob == self.record.blob:
            self._agreeing += 1
        elif is_newer(record, self.record):
            self.record, self._agreeing = record, 1

    def on_failure(self, contact: Contact) -> None:
        """`contact` did not answer, or answered nonsense."""
        candidate = self._take(contact)
        if candidate is not None:
            candidate.failed()

    def widen(self, contacts: list[Contact]) -> None:
        """It ended, and others than those it met may be near the target: go on with them."""
        self._read()
        self._all.add_all(contacts, 1, None)
        self.end = None

    # --- getters ---

    def closest(self, count: int, within: int = 0) -> list[Contact]:
        """The `count` nearest that answered, and all that did and are nearer than `within`; nearest first."""
        answered = self.answered()
        return [c for at, c in enumerate(answered) if at < count or c.long_id ^ self.target < within]

    def leading(self, count: int) -> list[Contact]:
        """Those of the `count` nearest we know by now, less the failed, that have answered and are nearer than
        `within`; nearest first."""
        leading: list[Contact] = []
        for candidate, distance in zip(self._all.order, self._all.distances, strict=True):
            if not count or distance >= self._within:
                break
            count -= candidate.state is not _FAILED
            if candidate.state is _ANSWERED:
                leading.append(candidate.contact)
        return leading

    def answered(self) -> list[Contact]:
        """All that answered, nearest first."""
        return [candidate.contact for candidate in self._all.in_state(_ANSWERED)]

    def holders(self) -> list[Contact]:
        """Those that gave a record, however old, nearest first."""
        return [candidate.contact for candidate in self._all.in_state(_ANSWERED) if candidate.record is not None]

    def records(self) -> list[AnyRecord]:
        """All different ones that were given, that of the nearest first."""
        found = [candidate.record for candidate in self._all.in_state(_ANSWERED) if candidate.record is not None]
        return list({record.blob: record for record in found}.values())

    def known(self) -> list[Contact]:
        """All that did not fail, asked or not, nearest first."""
        self._read()
        return [candidate.contact for candidate in self._all.in_state(_CANDIDATE, *_WAITING, _ANSWERED)]

    def reach(self) -> int | None:
        """The distance of the last of the nearest `need` that answered; None if fewer did, or fewer were wanted since
        there was a record."""
        if self.end is not LookupEnd.CLOSEST_ANSWERED or not self._has_all:
            return None
        return self.answered()[self._need - 1].long_id ^ self.target

    def unasked(self, count: int) -> list[Contact]:
        """Those of the `count` nearest that did not fail whom nobody asked yet, nearest first."""
        self._read()
        nearest = self._all.in_state(_CANDIDATE, *_WAITING, _ANSWERED)[:count]
        return [candidate.contact for candidate in nearest if candidate.state is _CANDIDATE]

    def lacking(self, count: int) -> list[Contact]:
        """Who answered without the newest record and should have had it: those of the `count` nearest, and whoever
        gave an older one."""
        if self.record is None:
            return []
        answered = self._all.in_state(_ANSWERED)
        return [
            candidate.contact
            for at, candidate in enumerate(answered)
            if (at < count if candidate.record is None else is_newer(self.record, candidate.record))
        ]

    # --- inside ---

    def _waits_for_agreement(self) -> bool:
        """Whether there is a record, and as many as are to agree on it are asked and not late."""
        if self._agreement is None or not self.has_answer:
            return False
        return bool(self._asked) and len(self._asked) >= self._agreement - self._agreeing

    def _read(self) -> None:
        """Take up what was named."""
        if self._unread:
            for candidate, contacts in self._unread:
                self._all.add_all(contacts, candidate.hops + 1, candidate)
            self._unread.clear()

    def _overdue_s(self, hedge_s: float) -> float:
        """After how long nobody waits for an answer: there was time for one to the second try."""
        return max(_OVERDUE_HEDGES * hedge_s, hedge_s + self._retry_s)

    def _over(self, end: LookupEnd) -> None:
        self.end = end
        self._has_all = self._wanted == self._need
        if self._unsure is not None and is_newer(self._unsure, self.record):
            self.record = self._unsure

    def _take(self, contact: Contact) -> Candidate | None:
        """The candidate that was asked at `contact`, which is not waited for any more."""
        candidate = self._all.get(contact)
        if candidate is None or candidate.state not in _WAITING:
            return None
        if candidate.state is _ASKED:
            self._asked.remove(candidate)
        elif candidate.state is _LATE:
            self._late.remove(candidate)
        return candidate

    def _is_near(self, candidate: Candidate) -> bool:
        """Whether it is surely among those that the record is stored at, as far as we know by now."""
        distance = candidate.contact.long_id ^ self.target
        if self._within and distance >= self._within:
            return False
        nearer = bisect_left(self._all.distances, distance)
        sure = self._need - self._need // _UNSURE
        return nearer < sure or sum(1 for other in self._all.order[:nearer] if other.state is not _FAILED) < sure

    @property
    def _wanted(self) -> int:
        return self._need if self.record is None else self._need_with_record

    def _walk(self, now: float, *, trusting: bool) -> tuple[list[Candidate], int, int]:
        """Along the candidates, from the nearest: whom to ask now, how many have answered, and of how many it is still
        to be hoped. `trusting`: whatever the word is worth on which they are here."""
        everybody, wanted, asked = self._all, self._wanted, self._asked
        order, distances = everybody.order, everybody.distances
        within = self._within if wanted == self._need else 0
        spare = wanted // self._spare_share if self._eager or within else 0
        picked: list[Candidate] = []
        answered, expected, hoped_for, late, overdue = everybody.settled, 0, 0, 0, 0
        left = self._max_requests - self.requests
        alpha, growth = self._alpha, 1
        if self._agreement is not None and self.record is not None:
            # Each of those that are asked most likely has it too: what more would say comes when it is over.
            alpha, growth = self._agreement - self._agreeing, 0
        most = alpha + growth * self._answers if left else 0
        for at in range(everybody.settled, len(order)):
            is_wanted = answered + expected < wanted or distances[at] < within
            if not is_wanted and answered + expected >= wanted + spare:
                break
            if len(asked) >= most and expected + late:
                break  # whoever else there is: nobody more is asked now, and it is not over
            has_room = left > len(picked) and len(asked) < alpha + growth * answered
            candidate = order[at]
            state = candidate.state
            if state is _ANSWERED:
                answered += 1
            elif state is _LATE:
                late += is_wanted  # still hoped for, but somebody beyond it is asked in its place
            elif state is _OVERDUE:
                overdue += is_wanted
            elif state is _ASKED:
                expected += 1
                hoped_for += is_wanted
            elif state is _CANDIDATE and (trusting or candidate.may_be_asked):
                expected += 1
                hoped_for += is_wanted
                if has_room:
                    candidate.ask(now)
                    asked.append(candidate)
                    picked.append(candidate)
        if answered < wanted:
            late += overdue  # nobody else may be left, and it may be our clock that is quick
        return picked, answered, hoped_for + late
