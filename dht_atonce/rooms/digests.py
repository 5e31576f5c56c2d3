"""What neighbours tell each other every few seconds: how far authors have come, and a sum over all members. No I/O, no
clock.

What a digest shows that we lack is asked of its sender. A sum that differs by the same again and again is no news under
way, but something that one of us has missed: then the list of members is asked for.
"""

from collections import Counter

from dht_atonce.config import RoomsConfig
from dht_atonce.rooms.gossip import Gossip
from dht_atonce.rooms.outbox import Outbox
from dht_atonce.rooms.wire import AskRoster, Digest

__all__ = ["Digests"]

_LONG_AGO = -float("inf")
_LATELY = 12  # digests ago


class Digests:
    """Ours, and those of our neighbours."""

    def __init__(
        self, room: bytes, config: RoomsConfig, gossip: Gossip, outbox: Outbox, counters: Counter[str]
    ) -> None:
        self._room = room
        self._config = config
        self._gossip = gossip
        self._outbox = outbox
        self._counters = counters
        self._differs: dict[bytes, int] = {}
        """By how much each neighbour's sum differed last time."""
        self._asked: bytes | None = None
        self._asked_at = _LONG_AGO

    def has_asked(self, peer: bytes) -> bool:
        """Whether the list of members was asked of it."""
        return peer == self._asked

    def say(self, to: list[bytes], now: float) -> None:
        """Tell neighbours where we are."""
        self._say(to, now, now - _LATELY * self._config.digest_s)

    def greet(self, peer: bytes, now: float) -> None:
        """The same to a new neighbour, which may have been away for long."""
        self._say([peer], now, _LONG_AGO)

    def on_digest(self, source: bytes, message: Digest, now: float) -> None:
        """A neighbour tells where it is."""
        self._gossip.on_entries(source, message.authors)
        differs = self._sum()[1] ^ message.sum
        is_stuck = differs and self._differs.get(source) == differs
        self._differs[source] = differs
        if is_stuck and now >= self._asked_at + self._config.roster_s:
            self._asked, self._asked_at = source, now
            self._counters["rooms.rosters_asked"] += 1
            self._outbox.say(source, AskRoster(self._room))

    def on_down(self, peer: bytes) -> None:
        """A neighbour less."""
        self._differs.pop(peer, None)

    def _say(self, to: list[bytes], now: float, since: float) -> None:
        if to:
            members, total = self._sum()
            entries = self._gossip.entries(now, since)
            self._outbox.say_all(to, Digest(self._room, self._gossip.mode, members, total, entries))

    def _sum(self) -> tuple[int, int]:
        """Members and their sum, ourselves included."""
        news, roster = self._gossip.news, self._gossip.roster
        if news is None:
            return len(roster), roster.sum
        return len(roster) + 1, roster.sum ^ roster.mark(news)
