"""The members of a topic, put together from the pages of those that hold them; it chooses whom to ask, and never sends.

First a lookup asks each node on its way for its first page (start 0) and so finds the k nearest: the holders. From then
on `next` says which of them are asked for further pages.

For a sample each holder is asked in the order of a seed of its own, drawn for this search: nobody can know a place in
it beforehand.

    asked ──on_page()──▶ idle ──next()──▶ asked ── … ──▶ through: it has no more
      └──on_failure()──▶ through

It takes from the holders in turn, so that one which makes members up fills its own share and no more; and from those
only that know nearly all, since what a newcomer has been told so far would come up too often.

To list all members, all holders share the work: `stretches` says who is asked for what.

Each holder keeps a few members of a subnet, and not the same ones: the limit holds for all that they give together.

Of two records of one identity the newer counts, whoever gave it; a goodbye ends a membership that others still list.
"""

import random
from collections import Counter
from enum import Enum

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.roster import member_limit, member_origins, place_of
from dht_atonce.dht.stretches import NO_STRETCH, Ask, Stretches
from dht_atonce.dht.wire import Members
from dht_atonce.errors import RecordError
from dht_atonce.records import MembershipRecord, RecordParser, is_newer

__all__ = ["MemberList"]

_NEARLY_ALL = 0.9


class _State(Enum):
    IDLE = 0
    ASKED = 1
    THROUGH = 2


class _Holder:
    __slots__ = ("given", "seed", "start", "state", "total")

    def __init__(self, seed: bytes, state: _State) -> None:
        self.seed = seed
        self.start = 0
        """Where its next page starts."""
        self.state = state
        self.total = 0
        """How many members it says that it holds."""
        self.given: dict[bytes, None] = {}
        """The identities that it listed and that had not left, in its order."""


class MemberList:
    """One search for the members of the topic with this `key`: all of them, or with `limit` a random sample.

    `now` is monotonic seconds, `wall` Unix seconds.
    """

    def __init__(
        self,
        key: bytes,
        parser: RecordParser,
        config: DhtConfig,
        rng: random.Random,
        *,
        now: float,
        limit: int | None = None,
    ) -> None:
        self.key = key
        self.requests = 0
        """How many pages were asked for, the first ones too."""
        self._parser = parser
        self._config = config
        self._local = parser.network.local
        self._rng = rng
        self._limit = limit
        self._deadline = now + config.members_deadline_s
        self._holders: dict[Contact, _Holder] = {}
        self._own = _Holder(b"", _State.THROUGH)
        self._newest: dict[bytes, MembershipRecord] = {}
        # Many holders give the same bytes: they are verified once.
        self._read: dict[bytes, MembershipRecord] = {}
        self._stretches: Stretches | None = None
        # Pages that are waited for
        self._waiting = 0

    # --- inputs ---

    def on_own(self, records: list[MembershipRecord]) -> None:
        """What our own store holds: we are a holder too."""
        records = list(records)
        self._rng.shuffle(records)
        for record in records:
            self._take(self._own, record)
        self._own.total = len(self._own.given)

    def on_page(self, ask: Ask, reply: Members, wall: float) -> list[Ask]:
        """It was answered. Gives what is asked of the same holder at once.

        Raises `RecordError` if the answer is a lie: nothing of it is believed, and that holder is asked no more.
        """
        holder = self._holders[ask.contact]
        try:
            records = self._verify(ask, reply, wall)
        except RecordError:
            self.on_failure(ask)
            raise
        self._waiting -= 1
        for record in records:
            self._take(holder, record)
        is_too_much = len(holder.given) >= self._config.members_from_holder
        if ask.stretch == NO_STRETCH:
            holder.start, holder.total = reply.next, reply.total
            holder.state = _State.THROUGH if not reply.next or is_too_much else _State.IDLE
            return []
        assert self._stretches is not None
        if is_too_much:
            self._stretches.on_silenced(ask.contact)
        following = self._stretches.on_page(ask, reply.next)
        return self._sent([following] if following is not None and self._room > 0 else [])

    def on_failure(self, ask: Ask) -> None:
        """It was not answered, or with nonsense."""
        self._waiting -= 1
        self._holders[ask.contact].state = _State.THROUGH
        if ask.stretch != NO_STRETCH and self._stretches is not None:
            self._stretches.on_failure(ask)

    # --- commands ---

    def first(self, contact: Contact) -> Ask:
        """`contact` is asked for its first page."""
        holder = self._holders[contact] = _Holder(self._rng.randbytes(8), _State.ASKED)
        return self._sent([Ask(contact, holder.seed, 0)])[0]

    def settle(self, nearest: list[Contact]) -> None:
        """The lookup is over: these are the holders, the nearest first. What others listed on the way counts no
        more."""
        self._holders = {contact: self._holders[contact] for contact in nearest}
        self._waiting = 0
        if self._limit is None:
            self._stretches = self._cut()

    def next(self, now: float) -> list[Ask]:
        """Who is asked for a further page now."""
        if now >= self._deadline:
            return []
        if self._stretches is not None:
            return self._sent(self._stretches.next(self._room))
        room = min(self._config.alpha - self._waiting, self._room)
        if room <= 0 or self._is_enough():
            return []
        behind = [pair for pair in self._holders.items() if pair[1].state is not _State.THROUGH]
        # So that each has its share in the sample
        informed = self._informed()
        behind.sort(key=lambda pair: (pair[1] not in informed, len(pair[1].given)))
        picked = [pair for pair in behind if pair[1].state is _State.IDLE][:room]
        for _, holder in picked:
            holder.state = _State.ASKED
        return self._sent([Ask(contact, holder.seed, holder.start) for contact, holder in picked])

    # --- getters ---

    @property
    def is_asking(self) -> bool:
        """Whether an answer is still waited for."""
        return self._waiting > 0 and not (self._stretches is not None and self._stretches.is_through)

    def members(self) -> list[MembershipRecord]:
        """Those that have not left, in random order: all that are known, or as many as the limit says."""
        members = [self._newest[identity] for identity in self._pick()]
        self._rng.shuffle(members)
        return members

    # --- inside ---

    @property
    def _room(self) -> int:
        """How many more pages may be asked for in all."""
        return self._config.members_max_requests - self.requests

    def _sent(self, asks: list[Ask]) -> list[Ask]:
        self.requests += len(asks)
        self._waiting += len(asks)
        return asks

    def _cut(self) -> Stretches:
        informed = self._informed()
        total = max((holder.total for holder in informed), default=0)
        stretches = Stretches(list(self._holders), total, self._config, self._rng)
        for contact, holder in self._holders.items():
            if holder.state is _State.THROUGH:
                stretches.on_whole(contact, counts=holder in informed)
        for key, record in self._newest.items():
            if record.is_goodbye:
                stretches.on_gone(key)
        for holder in (*self._holders.values(), self._own):
            for identity in holder.given:
                stretches.on_listed(holder, identity)
        return stretches

    def _pick(self) -> list[bytes]:
        """Whom the holders give in turn, until there are as many as the limit says."""
        picked: dict[bytes, None] = {}
        from_origin = Counter[bytes]()
        most = len(self._newest) if self._limit is None else self._limit
        informed = self._informed()
        others = [holder for holder in (*self._holders.values(), self._own) if holder not in informed]
        for holders in (informed, others):
            queues = [iter(holder.given) for holder in holders]
            self._rng.shuffle(queues)
            while queues and len(picked) < most:
                queue = queues.pop(0)
                following = next((one for one in queue if one not in picked and self._may_be(one, from_origin)), None)
                if following is not None:
                    picked[following] = None
                    from_origin.update(member_origins(self._newest[following]))
                    queues.append(queue)
        return list(picked)

    def _informed(self) -> list[_Holder]:
        """The holders that say they have nearly as many members as most of them say."""
        holders = [holder for holder in (*self._holders.values(), self._own) if holder.total]
        if not holders:
            return []
        usual = sorted(holder.total for holder in holders)[len(holders) // 2]
        return [holder for holder in holders if holder.total >= _NEARLY_ALL * usual]

    def _verify(self, ask: Ask, reply: Members, wall: float) -> list[MembershipRecord]:
        """The records of a page that are not over. Raises `RecordError` if this is no page of what was asked for."""
        records, at = [], ask.start
        for blob in reply.records:
            record = self._read.get(blob)
            if record is None:
                parsed = self._parser.parse(blob, None)
                if not isinstance(parsed, MembershipRecord) or parsed.key != self.key:
                    raise RecordError("other_key")
                record = self._read[blob] = parsed
            place = place_of(ask.seed, record.peer_id.key)
            if place < at:
                raise RecordError("out_of_order")
            at = place + 1
            try:
                self._parser.check_time(record, wall)
            except RecordError as error:
                if error.reason != "expired":  # that may be a slow clock; all else is a lie
                    raise
                continue
            records.append(record)
        if reply.next and (reply.next < at or not reply.records):
            raise RecordError("out_of_order")
        return records

    def _take(self, holder: _Holder, record: MembershipRecord) -> None:
        identity = record.peer_id.key
        if is_newer(record, self._newest.get(identity)):
            self._newest[identity] = record
            if record.is_goodbye and self._stretches is not None:
                self._stretches.on_gone(identity)
        if not record.is_goodbye:
            holder.given[identity] = None
            if self._stretches is not None:
                self._stretches.on_listed(holder, identity)

    def _is_there(self, identity: bytes) -> bool:
        return not self._newest[identity].is_goodbye

    def _may_be(self, identity: bytes, from_origin: Counter[bytes]) -> bool:
        """Whether it is there, and its subnet is not there often enough already."""
        if not self._is_there(identity):
            return False
        return self._local or all(
            from_origin[origin] < member_limit(origin, self._config)
            for origin in member_origins(self._newest[identity])
        )

    def _is_enough(self) -> bool:
        informed = self._informed()
        share = (self._limit or 0) / max(1, len(informed))
        if any(holder.state is not _State.THROUGH and len(holder.given) < share for holder in informed):
            return False
        return len(self._pick()) >= (self._limit or 0)
