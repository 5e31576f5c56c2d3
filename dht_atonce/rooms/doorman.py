"""What a newcomer is told: the latest shouts that it asks for, and who is there. No I/O, no clock."""

from collections import Counter

from dht_atonce.config import RoomsConfig
from dht_atonce.dht.gate import Buckets
from dht_atonce.rooms.gossip import Gossip
from dht_atonce.rooms.outbox import Outbox
from dht_atonce.rooms.wire import Past, Statement, Welcome

__all__ = ["Doorman"]

_LONG_AGO = -float("inf")
_PAGE_BYTES = 48_000
_STATEMENT_BYTES = 150  # around its data
_PAGE = 200


class Doorman:
    """Tells each peer all of it, but not again and again: it can be a hundred kilobytes."""

    def __init__(
        self, room: bytes, config: RoomsConfig, gossip: Gossip, outbox: Outbox, counters: Counter[str]
    ) -> None:
        self._room = room
        self._config = config
        self._gossip = gossip
        self._outbox = outbox
        self._counters = counters
        self._welcomes: Buckets[bytes] = Buckets(config.welcomes_per_s, config.welcomes, config.max_members)

    def on_join(self, newcomer: bytes, last: int, now: float) -> bool:
        """Somebody wants to be let in, and to hear the `last` shouts; False: it comes too often."""
        if not self._welcomes.take(newcomer, now):
            self._counters["rooms.welcomed_enough"] += 1
            return False
        if last:
            self._tell_past(newcomer, min(last, self._config.max_last))
        self._tell_roster(newcomer, now)
        return True

    def on_ask(self, source: bytes, now: float) -> None:
        """Somebody wants to know who is there."""
        if self._welcomes.take(source, now):
            self._tell_roster(source, now)

    # --- inside ---

    def _tell_roster(self, to: bytes, now: float) -> None:
        gossip = self._gossip
        members = [(one, gossip.authors.highest(one.author)) for one in gossip.roster.statements()]
        others = [one for one in gossip.entries(now, _LONG_AGO) if one.author not in gossip.roster]
        if gossip.news is not None:
            members.append((gossip.news, gossip.seq))
            others = [one for one in others if one.author != gossip.news.author]
        pages = [members[at : at + _PAGE] for at in range(0, len(members), _PAGE)] or [[]]
        for number, page in enumerate(pages):
            more = number + 1 < len(pages)
            self._outbox.say(to, Welcome(self._room, page, [] if more else others, more))

    def _tell_past(self, to: bytes, count: int) -> None:
        page: list[Statement] = []
        size = 0
        for statement in self._gossip.past(count):
            if page and (size + len(statement.data) > _PAGE_BYTES or len(page) >= _PAGE):
                self._outbox.say(to, Past(self._room, page))
                page, size = [], 0
            page.append(statement)
            size += len(statement.data) + _STATEMENT_BYTES
        if page:
            self._outbox.say(to, Past(self._room, page))
