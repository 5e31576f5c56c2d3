"""What one member of a room says, hears, passes on and repairs. No I/O, no clock: `now` is monotonic seconds, `wall`
Unix seconds.

A shout is one signed statement in both modes; the modes differ in who is sent it:

- direct: its author sends it to every member, whose link vouches for it; nobody passes it on.
- tree: its author sends it to its eager neighbours, and whoever gets it checks the signature and passes it on.

Each message says which of the two it is, so members that disagree about the mode understand each other. What either
missed is found out by digests, which neighbours exchange in both modes, and by gaps in an author's numbers.
"""

import random
from collections import Counter
from operator import itemgetter

from dht_atonce.config import RoomsConfig
from dht_atonce.dht.gate import Bucket, Buckets
from dht_atonce.errors import WireError
from dht_atonce.rooms.authors import Authors
from dht_atonce.rooms.history import History, Kept
from dht_atonce.rooms.numbers import Number, number_of, numbers_of, pages
from dht_atonce.rooms.outbox import Outbox
from dht_atonce.rooms.plumtree import Plumtree
from dht_atonce.rooms.roster import Roster
from dht_atonce.rooms.signing import Signer
from dht_atonce.rooms.wire import (
    Entry,
    Have,
    Mode,
    Prune,
    Range,
    Say,
    Statement,
    Stream,
    Want,
    Why,
    here_data,
    here_of,
    suspect_data,
    suspect_of,
)

__all__ = ["Gossip"]

_FOR_EVER = float("inf")
_MAX_HOPS = 255
_GUEST_SAYS_TO = 3
_LAST_WORDS_TO = 3
_REFUTE_S = 1.0


class Gossip:
    """The statements of one room, at one member."""

    def __init__(
        self,
        signer: Signer,
        room: bytes,
        config: RoomsConfig,
        rng: random.Random,
        outbox: Outbox,
        counters: Counter[str],
    ) -> None:
        self.signer = signer
        self.roster = Roster(config)
        self.authors = Authors(config, signer.session)
        self.history = History(config)
        self.tree: Plumtree[bytes, Number] = Plumtree(config, rng, itemgetter(0))
        self.mode = Mode.DIRECT
        self.seq = 0
        """How many shouts we made."""
        self.news: Statement | None = None
        """What we said last of ourselves; None: we are a guest, or not in yet."""
        self.guest_of: bytes | None = None
        """A guest's way into the room."""
        self._own = signer.own
        self._name = ""
        self._room = room
        self._config = config
        self._rng = rng
        self._outbox = outbox
        self._counters = counters
        self._late: list[Number] = []
        """What did not come through the tree, and neighbours are to be told of."""
        self._late_at = _FOR_EVER
        self._asked: dict[Number, float] = {}
        """What was asked for because a neighbour had it late, and when."""
        self._said_at = -_FOR_EVER
        self._refuted_at = -_FOR_EVER
        self._relay: Buckets[bytes] = Buckets(config.relay_per_s, config.relay_burst, config.max_authors)
        self._news: Buckets[bytes] = Buckets(config.news_per_s, config.news_burst, config.max_authors)
        self._serve: Buckets[bytes] = Buckets(config.serve_per_s, config.serve_burst, config.max_members)
        self._pace = Bucket(config.relay_per_s * 9 // 10, config.relay_burst * 9 // 10)

    # --- getters ---

    @property
    def deadline(self) -> float:
        """When `on_time` has something to do."""
        return min(self._late_at, self.tree.deadline, self.authors.deadline, self.roster.deadline)

    @property
    def neighbours(self) -> list[bytes]:
        """Those with whom we are in the tree."""
        return [*self.tree.eager, *self.tree.lazy]

    def entries(self, now: float, since: float) -> list[Entry]:
        """Where the authors are who spoke since then, ourselves included."""
        until = now - self._config.digest_age_s
        entries = self.authors.recent(since, until, self._config.digest_authors)
        if self.seq and since <= self._said_at <= until:
            entries.append(Entry(self._own, self.signer.session, self.seq))
        return entries

    def past(self, count: int) -> list[Statement]:
        """The latest shouts, the oldest first."""
        return [kept.statement for kept in self.history.last(count) if self._may_pass_on(kept)]

    # --- commands ---

    def may_shout(self, now: float) -> bool:
        """Whether we keep to what others pass on, if we shout now: asked once for each shout."""
        return self.mode == Mode.DIRECT or self._pace.take(now)

    def shout(self, data: bytes, now: float) -> int:
        """Say something to all. Gives its number."""
        self.seq += 1
        self._said_at = now
        statement = self.signer.make(Stream.SHOUT, self.seq, data)
        self.history.add(statement, 0, is_checked=True)
        number = number_of(statement)
        if self.mode == Mode.DIRECT:
            self._outbox.say_all(self.roster.keys(), Say(self._room, statement, Why.DIRECT, 1))
        else:
            targets = self.tree.on_new(number, None, now)
            if self.guest_of is not None:
                others = self.roster.keys()
                more = self._rng.sample(others, min(_GUEST_SAYS_TO - 1, len(others)))
                targets = list(dict.fromkeys([self.guest_of, *more]))
            self._outbox.say_all(targets, Say(self._room, statement, Why.TREE, 1))
        return self.seq

    def say_here(self, name: str, now: float, wall: float) -> None:
        """Tell all that we are here."""
        self._name = name
        self._tell(Stream.HERE, now, wall)

    def say_gone(self, now: float, wall: float) -> None:
        """Tell all that we leave: those whom we reach, as nobody can ask us for it afterwards."""
        if self.news is None:
            return
        for peer in self.neighbours:
            self.tree.on_graft(peer)
        self._tell(Stream.GONE, now, wall)
        # Our neighbours may be leaving as well.
        others = [member for member in self.roster.keys() if member not in self.tree.eager]  # noqa: SIM118 # no dict
        if self.mode == Mode.TREE:
            others = self._rng.sample(others, min(_LAST_WORDS_TO, len(others)))
        self._outbox.say_all(others, Say(self._room, self.news, Why.TREE, 1))

    def suspect(self, member: bytes, now: float, wall: float) -> None:
        """We cannot reach a member."""
        known = self.roster.news(member)
        if known is None or self.news is None or self.roster.has_suspicion(member, known.session, known.seq):
            return
        data = suspect_data(member, known.session, known.seq)
        statement = self.signer.make(Stream.SUSPECT, int(wall * 1_000_000), data)
        self.roster.on_suspect(member, statement, now)
        self._push(statement, None, now, 0)
        self._counters["rooms.suspected"] += 1

    # --- inputs ---

    def on_say(self, source: bytes, message: Say, now: float, wall: float) -> bool:
        """A statement came. False: the source has to be a liar, as members check what they pass on."""
        statement, why = message.statement, message.why
        try:
            number = number_of(statement)
        except WireError:
            self._counters["rooms.bad_statement"] += 1
            return True
        author = statement.author
        if author == self._own or self._has(number):
            self._counters["rooms.duplicates"] += 1
            if why == Why.TREE and self.tree.on_duplicate(number, source, now):
                self._outbox.say(source, Prune(self._room))
            return True
        is_vouched = why == Why.DIRECT and source == author and statement.stream == Stream.SHOUT
        if not is_vouched:
            if not self.signer.is_genuine(statement):
                return False
            buckets = self._relay if statement.stream == Stream.SHOUT else self._news
            if why != Why.ASKED and not buckets.take(author, now):
                self._counters["rooms.over_rate"] += 1
                return True
        if number[0] == self._own:  # it can only be a suspicion: our answer goes round, not this
            self._refute(now, wall)
            return True
        if not self._take(statement, message.hops, now, wall, is_checked=not is_vouched):
            self._counters["rooms.bad_statement"] += 1
            return True
        if why == Why.DIRECT:
            self.tree.on_got(number)
        elif why == Why.TREE:
            self._push(statement, source, now, message.hops)
        else:
            self._spread(number, now)
        return True

    def on_have(self, source: bytes, message: Have, now: float) -> None:
        """A neighbour announces statements."""
        numbers = numbers_of(message.ranges)
        new = [number for number in numbers if not self._has(number)]
        if message.is_late:
            new = [number for number in new if self._ask_late(number, now)]
            for ranges in pages(new):
                self._outbox.say(source, Want(self._room, ranges, False))
            return
        self.tree.on_have(source, new, now)
        if numbers and (not new or new[0] != numbers[0]):
            replaced = self.tree.on_shorter(source, numbers[0], message.hops, now)
            if replaced is not None:
                self._counters["rooms.shortcuts"] += 1
                self._outbox.say(source, Want(self._room, [], True))
                self._outbox.say(replaced, Prune(self._room))

    def on_want(self, source: bytes, message: Want, now: float) -> None:
        """Somebody asks for statements."""
        why = Why.TREE if message.graft else Why.ASKED
        if message.graft:
            self.tree.on_graft(source)
        for number in numbers_of(message.ranges):
            found = self._find(number)
            if found is not None and self._serve.take(source, now):
                statement, hops = found
                self._outbox.say(source, Say(self._room, statement, why, min(hops + 1, _MAX_HOPS)))

    def on_entries(self, source: bytes, entries: list[Entry]) -> None:
        """A neighbour tells where authors are: what we have not heard is asked of it."""
        wanted = [self.authors.on_entry(entry) for entry in entries if entry.author != self._own]
        ranges = [one for one in wanted if one is not None]
        if ranges:
            self._counters["rooms.asked_by_digest"] += 1
            self._outbox.say(source, Want(self._room, ranges, False))

    def on_hint(self, author: bytes, session: int, highest: int) -> None:
        """A list of members tells how far an author has come."""
        if author != self._own:
            self.authors.on_hint(author, session, highest)

    def on_past(self, statement: Statement) -> bool:
        """A shout that was made before we came. False: it is worth nothing."""
        if statement.stream != Stream.SHOUT or statement.author == self._own:
            return False
        if not self.signer.is_genuine(statement) or not self.authors.on_past(statement):
            return False
        self.history.add(statement, 0, is_checked=True)
        return True

    def on_member(self, statement: Statement, now: float, wall: float) -> None:
        """A list of members has this one."""
        if statement.stream != Stream.HERE or statement.author == self._own:
            return
        if self.roster.has(statement.author, statement.session, statement.seq):
            return
        if (
            self.roster.is_acceptable(statement, wall)
            and self.signer.is_genuine(statement)
            and self.roster.on_here(statement)
        ):
            self._spread(number_of(statement), now)

    def on_time(self, now: float) -> None:
        """Time has passed."""
        for peer, numbers in self.tree.take_haves(now):
            hops = min(self.tree.hops(numbers[0]) + 1, _MAX_HOPS)
            for ranges in pages(numbers):
                self._outbox.say(peer, Have(self._room, ranges, hops, False))
                hops = _MAX_HOPS  # said of the first only
        if now >= self._late_at:
            late, self._late, self._late_at = self._late, [], _FOR_EVER
            for ranges in pages(late):
                self._outbox.say_all(self.neighbours, Have(self._room, ranges, 0, True))
        for peer, numbers in self.tree.take_grafts(now):
            numbers = [number for number in numbers if not self._has(number)]
            for ranges in pages(numbers) or [[]]:
                self._counters["rooms.grafts"] += 1
                self._outbox.say(peer, Want(self._room, ranges, True))
        if now >= self.authors.deadline:
            for ask in self.authors.on_time(now):
                self._repair(ask.ranges, ask.tries)
        if now >= self.roster.deadline:
            self.roster.on_time(now)

    # --- inside ---

    def _tell(self, stream: int, now: float, wall: float) -> None:
        data = here_data(self.seq, self._name)
        last = self.news.seq if self.news is not None else 0
        self.news = self.signer.make(stream, max(int(wall * 1_000_000), last + 1), data)
        self._push(self.news, None, now, 0)

    def _push(self, statement: Statement, source: bytes | None, now: float, hops: int) -> None:
        """`hops`: over how many links it came to us."""
        targets = self.tree.on_new(number_of(statement), source, now, hops=hops)
        self._outbox.say_all(targets, Say(self._room, statement, Why.TREE, min(hops + 1, _MAX_HOPS)))

    def _spread(self, number: Number, now: float) -> None:
        """What did not come through the tree: have our neighbours ask for it, if they lack it too."""
        self.tree.on_got(number)
        if self.neighbours:
            self._late.append(number)
            self._late_at = min(self._late_at, now + self._config.have_s)

    def _ask_late(self, number: Number, now: float) -> bool:
        """Whether to ask for it: several neighbours announce the same."""
        if self._asked.get(number, -_FOR_EVER) > now - self._config.repair_s:
            return False
        self._asked.pop(number, None)
        self._asked[number] = now
        if len(self._asked) > self._config.max_missing:
            del self._asked[next(iter(self._asked))]
        return True

    def _has(self, number: Number) -> bool:
        """Whether it is no news to us."""
        author, session, stream, seq = number
        is_own = author == self._own
        if stream == Stream.SHOUT:
            return is_own or self.authors.has(author, session, seq)
        if stream == Stream.HERE:
            return is_own or self.roster.has(author, session, seq)
        if stream != Stream.SUSPECT:
            return True
        if is_own:
            return self.news is None or (self.news.session, self.news.seq) > (session, seq)
        return self.roster.has_suspicion(author, session, seq)

    def _take(self, statement: Statement, hops: int, now: float, wall: float, *, is_checked: bool) -> bool:
        """Make of it what it is worth; False: nothing."""
        stream = statement.stream
        if stream == Stream.SHOUT:
            if not self.authors.on_shout(statement, hops, now):
                return False
            self.history.add(statement, hops, is_checked=is_checked)
            return True
        if stream == Stream.SUSPECT:
            member, _, _ = suspect_of(statement.data)
            self.roster.on_suspect(member, statement, now)
            return True
        if not self.roster.is_acceptable(statement, wall):
            return False
        said, _ = here_of(statement.data)
        self.authors.on_hint(statement.author, statement.session, said)
        if stream == Stream.GONE:
            self.roster.on_gone(statement)
            return True
        return self.roster.on_here(statement)

    def _refute(self, now: float, wall: float) -> None:
        """Somebody thinks that we are gone."""
        if self.news is not None and self.news.stream == Stream.HERE and now >= self._refuted_at + _REFUTE_S:
            self._refuted_at = now
            self._counters["rooms.refuted"] += 1
            self._tell(Stream.HERE, now, wall)

    def _find(self, number: Number) -> tuple[Statement, int] | None:
        """What others may have of us, and over how many links it came."""
        author, session, stream, seq = number
        statement: Statement | None
        if stream == Stream.SHOUT:
            kept = self.history.get(author, session, seq)
            return (kept.statement, kept.hops) if kept is not None and self._may_pass_on(kept) else None
        if author == self._own:
            statement = self.news
        elif stream == Stream.SUSPECT:
            statement = self.roster.suspicion(author)
        else:
            statement = self.roster.news(author)
        return (statement, 0) if statement is not None else None

    def _may_pass_on(self, kept: Kept) -> bool:
        """Whether its signature holds: what others get of us they cannot believe otherwise."""
        if kept.is_checked:
            return True
        is_good = self.signer.is_genuine(kept.statement)
        self.history.on_checked(kept.statement, is_good=is_good)
        return is_good

    def _repair(self, ranges: list[Range], tries: int) -> None:
        """Ask somebody for what fills a gap: in a direct room the author first, then one neighbour after the other."""
        author = ranges[0].author
        others = [peer for peer in self.neighbours if peer != author]
        if author in self.roster and (self.mode == Mode.DIRECT or author in self.neighbours):
            others.insert(0, author)
        self._counters["rooms.repairs"] += 1
        if others:
            self._outbox.say(others[(tries - 1) % len(others)], Want(self._room, ranges, False))
