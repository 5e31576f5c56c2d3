"""Plumtree (Leitão, Pereira, Rodrigues 2007): a broadcast tree on top of neighbours. No I/O, no clock.

A message goes to *eager* neighbours as it is, to *lazy* ones as an announcement. Who gets it twice prunes the later
one to lazy; who hears of it and does not get it in time grafts whoever announced it to eager. So the links over which
messages come first form a tree, and all the others mend it.

    neighbour ──on_up()──▶ eager ──on_duplicate() / on_prune()──▶ lazy ──graft / on_graft()──▶ eager

Where an announcement shows a way that is shorter by far, it takes the place of the longer one (the paper's
optimization), so the tree stays flat whoever speaks.

Messages of two authors that are under way at once can cut one circle in two places, and what lies between them falls
off. So of those who speak only one prunes, the same for all members: whose key is the lowest. One author's messages all
cut where the first one did.

Neighbours and message ids are opaque. What a neighbour announces is not believed: it costs a question, and the next one
who announced it is asked after that.
"""

import random
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from dht_atonce.config import RoomsConfig

__all__ = ["Plumtree"]

P = TypeVar("P", bound=Hashable)
I = TypeVar("I", bound=Hashable)  # noqa: E741

_FOR_EVER = float("inf")
_RECENT = 512
_MAX_AUTHORS = 1024


class _Missing(Generic[P]):
    __slots__ = ("ask_at", "sources")

    def __init__(self, ask_at: float, source: P) -> None:
        self.ask_at = ask_at
        self.sources = [source]


class Plumtree(Generic[P, I]):
    """One member's part of the tree."""

    def __init__(
        self,
        config: RoomsConfig,
        rng: random.Random,
        author: Callable[[I], bytes],
    ) -> None:
        """`author`: by whom a message is."""
        self._config = config
        self._rng = rng
        self._author = author
        # Authors of whom something may be under way to others, and when it came; the latest last
        self._spoke: dict[bytes, float] = {}
        # Dicts, not sets: in a replay their order is the same.
        self.eager: dict[P, None] = {}
        self.lazy: dict[P, None] = {}
        self._haves: dict[P, list[I]] = {}
        self._haves_at = _FOR_EVER
        # From whom the latest messages came, and over how many links
        self._recent: dict[I, tuple[P | None, int]] = {}
        self._missing: dict[I, _Missing[P]] = {}
        self._ask_at = _FOR_EVER
        self._shortcut_at = 0.0
        self._last_have: P | None = None

    # --- getters ---

    @property
    def deadline(self) -> float:
        """When `take_haves` or `take_grafts` may have something."""
        return min(self._haves_at, self._ask_at)

    @property
    def missing(self) -> int:
        """How many announced messages are waited for."""
        return len(self._missing)

    def hops(self, number: I) -> int:
        """Over how many links a message came to us; 0 for ours, and for what is forgotten."""
        return self._recent.get(number, (None, 0))[1]

    # --- inputs ---

    def on_up(self, peer: P) -> None:
        """A new neighbour."""
        self.lazy.pop(peer, None)
        self.eager[peer] = None

    def on_down(self, peer: P, now: float) -> None:
        """A neighbour less; what it announced is asked of others at once, as it may have been our way to the tree."""
        self.eager.pop(peer, None)
        self.lazy.pop(peer, None)
        self._haves.pop(peer, None)
        for number, missing in list(self._missing.items()):
            if peer in missing.sources:
                missing.sources.remove(peer)
                if not missing.sources:
                    del self._missing[number]
            missing.ask_at = min(missing.ask_at, now)
        if self._missing:
            self._ask_at = now

    def on_new(self, number: I, source: P | None, now: float, *, hops: int = 0) -> list[P]:
        """A message is new to us. Gives whom to send it to; the others will be told that we have it. `source`: the
        neighbour from whom it came through the tree, over so many links."""
        self._missing.pop(number, None)
        author = self._author(number)
        self._spoke.pop(author, None)
        self._spoke[author] = now
        if len(self._spoke) > _MAX_AUTHORS:
            del self._spoke[next(iter(self._spoke))]
        self._recent[number] = source, hops
        if len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]
        if source is not None and source in self.lazy:
            self.on_up(source)
        for peer in self.lazy:
            if peer != source:
                self._haves.setdefault(peer, []).append(number)
                self._haves_at = min(self._haves_at, now + self._config.have_s)
        return [peer for peer in self.eager if peer != source]

    def on_got(self, number: I) -> None:
        """It came by another way than the tree."""
        self._missing.pop(number, None)

    def on_duplicate(self, number: I, source: P, now: float) -> bool:
        """It came through the tree and we had it. Whether to tell the source to prune us."""
        if source not in self.eager:
            return source in self.lazy
        if not self._may_prune(number, now):
            return False
        self._to_lazy(source)
        return True

    def on_shorter(self, source: P, number: I, hops: int, now: float) -> P | None:
        """A neighbour announced a message that we have; over it, it would have come by `hops` links. If that is a plain
        shortcut, it is eager from now on; gives the neighbour whose place it takes, which is to prune us."""
        parent, ours = self._recent.get(number, (None, 0))
        if parent is None or parent not in self.eager or source not in self.lazy:
            return None
        if ours - hops < self._config.shortcut_hops or now < self._shortcut_at or not self._may_prune(number, now):
            return None
        self._shortcut_at = now + self._config.shortcut_s
        self._to_lazy(parent)
        self.on_up(source)
        return parent

    def on_have(self, source: P, numbers: Iterable[I], now: float) -> None:
        """A neighbour announced messages that we have not got."""
        if source not in self.eager and source not in self.lazy:
            return
        self._last_have = source
        for number in numbers:
            missing = self._missing.get(number)
            if missing is not None:
                if source not in missing.sources:
                    missing.sources.append(source)
            elif len(self._missing) < self._config.max_missing:
                # At random: of those who were cut off together the first one mends it for all.
                ask_at = now + self._config.graft_s * (0.5 + self._rng.random())
                self._missing[number] = _Missing(ask_at, source)
                self._ask_at = min(self._ask_at, ask_at)

    def on_graft(self, source: P) -> None:
        """A neighbour wants all that comes."""
        if source in self.lazy:
            self.on_up(source)

    def on_prune(self, source: P) -> None:
        """A neighbour wants announcements only."""
        if source in self.eager:
            self._to_lazy(source)

    # --- drains ---

    def take_haves(self, now: float) -> list[tuple[P, list[I]]]:
        """Announcements that are due."""
        if now < self._haves_at:
            return []
        haves, self._haves = self._haves, {}
        self._haves_at = _FOR_EVER
        return list(haves.items())

    def take_grafts(self, now: float) -> list[tuple[P, list[I]]]:
        """What is asked of whom now. Each source is asked once, and is eager from then on."""
        if now < self._ask_at:
            return []
        grafts: dict[P, list[I]] = {}
        self._ask_at = _FOR_EVER
        for number, missing in list(self._missing.items()):
            if not missing.sources and missing.ask_at <= now:
                del self._missing[number]  # a digest will tell, if anybody has it
            elif missing.ask_at <= now:
                # Who is eager already, if it has it: else each message of a burst would make another one so.
                source = next((one for one in missing.sources if one in self.eager), missing.sources[0])
                self.on_up(source)
                grafts[source] = []
        for number, missing in self._missing.items():
            # All that it announced, due or not: it goes on to those who were cut off with us, and spares them a graft.
            asked = next((one for one in missing.sources if one in grafts), None)
            if asked is not None:
                missing.sources.remove(asked)
                missing.ask_at = now + self._config.graft_again_s
                grafts[asked].append(number)
            self._ask_at = min(self._ask_at, missing.ask_at)
        if not self.eager and self.lazy:
            # Two messages at once can cut a circle twice, and nobody but us sees that we fell out of the tree.
            last = self._last_have
            source = last if last is not None and last in self.lazy else next(iter(self.lazy))
            self.on_up(source)
            grafts[source] = []
        return list(grafts.items())

    # --- inside ---

    def _may_prune(self, number: I, now: float) -> bool:
        """Whether a message may take links out of the tree."""
        spoke = self._spoke
        while spoke and spoke[first := next(iter(spoke))] <= now - self._config.under_way_s:
            del spoke[first]
        return not spoke or self._author(number) <= min(spoke)

    def _to_lazy(self, peer: P) -> None:
        del self.eager[peer]
        self.lazy[peer] = None
        if not self.eager:
            self._ask_at = 0.0
