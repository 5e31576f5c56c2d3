"""All members of a topic, from many holders at once: the order of one seed is cut into stretches of a few pages, and
each is gone through at a few holders. It chooses who is asked for what, and never sends.

A stretch is through when enough holders have listed it and each member in it is known to two of all: where the last
ones told us nothing that only they know, others hardly know more (Good 1953). What the first pages told, each in an
order of its own, counts as well: so holders that keep quiet about a stretch are found out by those that are not asked
for it. If there are more members than any holder says it has, all holders are gone through: each keeps a sample.
"""

import random
from itertools import pairwise
from math import ceil
from typing import NamedTuple

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.roster import place_of

__all__ = ["NO_STRETCH", "Ask", "Stretches"]

NO_STRETCH = -1
_PLACES = 1 << 64
_MORE = 1.2  # times what a holder has: it may lack a tenth that came or left just now


class Ask(NamedTuple):
    """A page that somebody is asked for."""

    contact: Contact
    seed: bytes
    start: int
    stretch: int = NO_STRETCH
    """The number of the stretch that it is for."""


class _Stretch:
    __slots__ = ("alone", "asked", "end", "known", "start", "through")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.asked: dict[Contact, bool] = {}
        """Who was given this stretch → whether it is under way there."""
        self.through = 0
        self.known: dict[bytes, object] = {}
        """Identity → who alone is known to list it, None if two do."""
        self.alone = 0
        """How many are known to one alone."""


class Stretches:
    """The order of a seed of its own, for a topic of about `total` members at these `holders`."""

    def __init__(self, holders: list[Contact], total: int, config: DhtConfig, rng: random.Random) -> None:
        self.seed = rng.randbytes(8)
        self._config = config
        count = max(1, ceil(min(total, config.topic_members) / config.members_stretch))
        # Place 0 asks for contacts too, and nobody has it.
        starts = [max(1, at * _PLACES // count) for at in range(count + 1)]
        self._stretches = [_Stretch(*pair) for pair in pairwise(starts)]
        # Holder → how many of its pages are waited for; those that fell out are left out
        self._busy = dict.fromkeys(rng.sample(holders, len(holders)), 0)
        self._total = total
        self._found = 0
        # How many have told all that there is with their first page
        self._whole = 0

    # --- inputs ---

    def on_listed(self, holder: object, identity: bytes) -> None:
        """`holder` lists a member, wherever in whatever order."""
        stretch = self._stretch_of(identity)
        if identity not in stretch.known:
            stretch.known[identity] = holder
            stretch.alone += 1
            self._found += 1
        elif stretch.known[identity] is not holder:
            self._vouch(stretch, identity)

    def on_gone(self, identity: bytes) -> None:
        """It has left: nobody has to vouch for it."""
        self._vouch(self._stretch_of(identity), identity)

    def on_whole(self, contact: Contact, *, counts: bool) -> None:
        """Its first page was all that it knows; that is all there is, if it `counts`."""
        self.on_silenced(contact)
        self._whole += counts

    def on_page(self, ask: Ask, following: int) -> Ask | None:
        """It answered, and its next page starts at `following` (0: there is none). Gives what it is asked for next."""
        stretch = self._stretches[ask.stretch]
        if not following or following >= stretch.end:
            stretch.through += 1
        elif ask.contact in self._busy and not self._is_through(stretch):
            return ask._replace(start=following)
        self._end(ask)
        return None

    def on_failure(self, ask: Ask) -> None:
        """It did not answer, or with nonsense: it is asked no more."""
        self._end(ask)
        self.on_silenced(ask.contact)

    def on_silenced(self, contact: Contact) -> None:
        """It has told too much: it is asked no more."""
        self._busy.pop(contact, None)

    # --- commands ---

    def next(self, room: int) -> list[Ask]:
        """Who begins with which stretch now; at most `room` of them."""
        asks: list[Ask] = []
        for number, stretch in enumerate(self._stretches):
            for _ in range(self._lacking(stretch)):
                free = [contact for contact in self._busy if contact not in stretch.asked]
                contact = min(free, key=self._busy.__getitem__, default=None)
                if contact is None or self._busy[contact] >= self._config.members_at_once:
                    break
                if len(asks) >= room:
                    return asks
                stretch.asked[contact] = True
                self._busy[contact] += 1
                asks.append(Ask(contact, self.seed, stretch.start, number))
        return asks

    # --- getters ---

    @property
    def is_through(self) -> bool:
        """Whether nobody else has to be asked."""
        return all(self._is_through(stretch) for stretch in self._stretches)

    # --- inside ---

    def _stretch_of(self, identity: bytes) -> _Stretch:
        return self._stretches[place_of(self.seed, identity) * len(self._stretches) // _PLACES]

    def _vouch(self, stretch: _Stretch, identity: bytes) -> None:
        if stretch.known.get(identity) is not None:
            stretch.alone -= 1
        stretch.known[identity] = None

    def _end(self, ask: Ask) -> None:
        self._stretches[ask.stretch].asked[ask.contact] = False
        if ask.contact in self._busy:
            self._busy[ask.contact] -= 1

    def _lacking(self, stretch: _Stretch) -> int:
        """How many more holders it wants now."""
        if self._is_through(stretch):
            return 0
        first = self._config.members_walks - self._whole - stretch.through
        return max(0, (first if first > 0 else self._config.alpha) - sum(stretch.asked.values()))

    def _is_through(self, stretch: _Stretch) -> bool:
        is_listed = stretch.through + self._whole >= self._config.members_walks
        return is_listed and not stretch.alone and self._found <= _MORE * self._total
