"""What was heard of each author: no shout twice, none out of order, and each gap mended or told. No I/O, no clock.

    next ──▶ in order: given to the app
    later ─▶ held ──the gap was filled──▶ given      ──it could not be──▶ Missed, then given

Whose session began after ours is heard from its first shout on. Of those who were there before us, what they had said
when we came in is not ours to hear: a welcome tells how far they were, and because it may lie, their first shout that
we hear tells it too.
"""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from dht_atonce.config import RoomsConfig
from dht_atonce.rooms.wire import Entry, Range, Statement, Stream

__all__ = ["Ask", "Authors", "Gap", "Given"]

MAX_SEQ = 1 << 62
_FOR_EVER = float("inf")
_SLOWER = 1.25  # each pause than the one before
_HOLES = 4  # of one author that are asked for at once


class Given(NamedTuple):
    """A shout, in its author's order."""

    author: bytes
    seq: int
    data: bytes
    hops: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Shouts that could not be had."""

    author: bytes
    first: int
    count: int


class Ask(NamedTuple):
    """What is asked for, and for how many times now."""

    ranges: list[Range]
    tries: int


class _Author:
    __slots__ = ("ask_at", "heard_at", "held", "hint", "next", "session", "tries")

    def __init__(self, session: int, following: int, hint: int | None) -> None:
        self.session = session
        self.next = following
        """The next number that the app gets."""
        self.hint = hint
        """Until its first shout: how far it is said to have come."""
        self.held: dict[int, tuple[bytes, int]] = {}
        self.ask_at = _FOR_EVER
        self.tries = 0
        self.heard_at = -_FOR_EVER

    @property
    def highest(self) -> int:
        return max(self.held) if self.held else self.next - 1

    def holes(self) -> list[tuple[int, int]]:
        """First and count of each gap below what is held."""
        holes, at = [], self.next
        for seq in sorted(self.held):
            if seq > at:
                holes.append((at, seq - at))
            at = seq + 1
        return holes


class Authors:
    """All authors of a room, as one member hears them. `own_session`: when we came in, Unix µs."""

    def __init__(self, config: RoomsConfig, own_session: int) -> None:
        self._config = config
        self._own_session = own_session
        # In the order of their last shout
        self._authors: OrderedDict[bytes, _Author] = OrderedDict()
        self._waiting: dict[bytes, None] = {}
        """Those with something held."""
        self._held = 0
        self._held_bytes = 0
        self._ready: list[Given | Gap] = []

    # --- getters ---

    @property
    def deadline(self) -> float:
        """When `on_time` has something to do."""
        return min((self._authors[author].ask_at for author in self._waiting), default=_FOR_EVER)

    @property
    def held(self) -> int:
        """Shouts that wait behind gaps."""
        return self._held

    def has(self, author: bytes, session: int, seq: int) -> bool:
        """Whether this shout was heard, or is not to be heard any more."""
        known = self._authors.get(author)
        if known is None or session > known.session:
            return False
        if session < known.session:
            return True
        if known.hint is not None:
            return False
        return seq < known.next or seq in known.held

    def highest(self, author: bytes) -> int:
        """The highest number heard of it."""
        known = self._authors.get(author)
        return 0 if known is None or known.hint is not None else known.highest

    def recent(self, since: float, until: float, limit: int) -> list[Entry]:
        """Where those are who spoke between two times, the latest first."""
        entries: list[Entry] = []
        for author, known in reversed(self._authors.items()):
            if known.heard_at < since or len(entries) >= limit:
                break
            if known.heard_at <= until and known.hint is None:
                entries.append(Entry(author, known.session, known.highest))
        return entries

    def entry(self, author: bytes) -> Entry | None:
        """How far this one is."""
        known = self._authors.get(author)
        if known is None:
            return None
        return Entry(author, known.session, known.hint if known.hint is not None else known.highest)

    # --- inputs ---

    def on_hint(self, author: bytes, session: int, highest: int) -> None:
        """A welcome, or the author's own word that it is here, tells how far it is. The first one counts: what it says
        after that is for us to hear."""
        known = self._authors.get(author)
        if known is None or session > known.session:
            self._begin(author, session, highest)

    def on_past(self, statement: Statement) -> bool:
        """A shout from before our time, that was asked for: whether it is new. They come in order, and the first one
        begins the author."""
        known = self._authors.get(statement.author)
        if not 0 < statement.seq < MAX_SEQ:
            return False
        if known is None or known.hint is not None or statement.session > known.session:
            self._authors[statement.author] = _Author(statement.session, statement.seq + 1, None)
            self._authors.move_to_end(statement.author, last=False)
            self._bound()
            return True
        if statement.session < known.session or statement.seq < known.next:
            return False
        known.next = statement.seq + 1
        return True

    def on_shout(self, statement: Statement, hops: int, now: float) -> bool:
        """A shout that `has` did not know. False: its number is none."""
        author, session, seq = statement.author, statement.session, statement.seq
        if not 0 < seq < MAX_SEQ:
            return False
        known = self._authors.get(author)
        if known is None or session > known.session:
            known = self._begin(author, session, 0 if session > self._own_session else seq - 1)
        if known.hint is not None:
            known.next = min(known.hint, seq - 1) + 1
            known.hint = None
        known.heard_at = now
        self._authors.move_to_end(author)
        if seq == known.next:
            self._ready.append(Given(author, seq, statement.data, hops))
            known.next += 1
            if known.held:
                known.tries = 0
                self._release(author, known, now)
            return True
        is_repair = bool(known.held) and seq < max(known.held)
        known.held[seq] = statement.data, hops
        self._held += 1
        self._held_bytes += len(statement.data)
        if author not in self._waiting:
            self._waiting[author] = None
            known.tries = 0
            known.ask_at = now + self._config.repair_first_s
        elif is_repair:
            known.tries = 0
        self._make_room(now)
        return True

    def on_entry(self, entry: Entry) -> Range | None:
        """A neighbour tells how far an author is. Gives what it has and we have not heard of."""
        if entry.highest >= MAX_SEQ:
            return None
        known = self._authors.get(entry.author)
        if known is None or entry.session > known.session:
            first = 1 if entry.session > self._own_session else entry.highest + 1
        elif entry.session < known.session:
            return None
        else:
            first = (known.hint if known.hint is not None else known.highest) + 1
        count = min(entry.highest - first + 1, self._config.want_max)
        return Range(entry.author, entry.session, Stream.SHOUT, first, count) if count > 0 else None

    def on_time(self, now: float) -> list[Ask]:
        """Gives what is to be asked for. What was asked for in vain too often is given up."""
        asks = []
        for author in list(self._waiting):
            known = self._authors[author]
            while known.held and known.ask_at <= now and known.tries >= self._config.repair_tries:
                self._give_up(author, known, now)
            if not known.held or known.ask_at > now:
                continue
            known.tries += 1
            known.ask_at = now + min(self._config.repair_s * _SLOWER**known.tries, self._config.repair_max_s)
            ranges, room = [], self._config.want_max
            for first, count in known.holes()[:_HOLES]:
                if room > 0:
                    ranges.append(Range(author, known.session, Stream.SHOUT, first, min(count, room)))
                    room -= min(count, room)
            asks.append(Ask(ranges, known.tries))
        return asks

    # --- drain ---

    def take_ready(self) -> list[Given | Gap]:
        """What the app gets next."""
        ready, self._ready = self._ready, []
        return ready

    # --- inside ---

    def _begin(self, author: bytes, session: int, hint: int) -> _Author:
        """A session that is new to us. What was held of the one before is given."""
        old = self._authors.get(author)
        while old is not None and old.held:
            self._give_up(author, old, 0.0)
        known = self._authors[author] = _Author(session, 1, min(hint, MAX_SEQ))
        self._authors.move_to_end(author, last=False)  # until it is heard, it is the first to be forgotten
        self._bound()
        return known

    def _bound(self) -> None:
        if len(self._authors) > self._config.max_authors:
            _, (author, oldest) = islice(self._authors.items(), 2)  # the first one has just begun
            while oldest.held:
                self._give_up(author, oldest, 0.0)
            del self._authors[author]

    def _release(self, author: bytes, known: _Author, now: float) -> None:
        """What follows in order."""
        while (held := known.held.pop(known.next, None)) is not None:
            data, hops = held
            self._held -= 1
            self._held_bytes -= len(data)
            self._ready.append(Given(author, known.next, data, hops))
            known.next += 1
        if known.held:
            known.ask_at = now + self._config.repair_first_s
        else:
            self._waiting.pop(author, None)
            known.ask_at = _FOR_EVER

    def _give_up(self, author: bytes, known: _Author, now: float) -> None:
        """The first gap of this author cannot be mended."""
        first = min(known.held)
        tries = known.tries
        self._ready.append(Gap(author, known.next, first - known.next))
        known.next = first
        self._release(author, known, now)
        if known.held:  # what lies behind was asked for as often
            known.tries, known.ask_at = tries, now

    def _make_room(self, now: float) -> None:
        config = self._config
        while self._held > config.held or self._held_bytes > config.held_bytes:
            author = next(iter(self._waiting))
            self._give_up(author, self._authors[author], now)
