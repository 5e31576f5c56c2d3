"""What a newcomer is told: the latest shouts that it asks for, and who is there. No I/O, no clock."""

from collections import Counter

from dht_atonce.rooms.config import RoomsConfig
from dht_atonce.rooms.gossip import Gossip
from dht_atonce.rooms.outbox import Outbox
from dht_atonce.rooms.wire import Past, Statement, Welcome

__all__ = ["Doorman"]

_LONG_AGO = -float("inf")
_PAGE_BYTES = 48_000
_STATEMENT_BYTES = 150  # around its data
_PAGE = 200


class Doorman:
    """Tells each peer all of it, but not again at once: it can be a hundred kilobytes."""

    def __init__(
        self, room: bytes, config: RoomsConfig, gossip: Gossip, outbox: Outbox, counters: Counter[str]
    ) -> None:
        self._room = room
        self._config = config
        self._gossip = gossip
        self._outbox = outbox
        self._counters = counters
        self._welcomed: dict[bytes, float] = {}

    def on_join(self, newcomer: bytes, last: int, now: float) -> None:
        """Somebody wants to be let in, and to hear the `last` shouts."""
        if last and self._welcomed.get(newcomer, _LONG_AGO) <= now - self._config.welcome_s:
            self._tell_past(newcomer, min(last, self._config.max_last))
        self.tell_roster(newcomer, now)

    def tell_roster(self, to: bytes, now: float) -> None:
        """Somebody wants to know who is there."""
        again_at = now - self._config.welcome_s
        if self._welcomed.get(to, _LONG_AGO) > again_at:
            self._counters["rooms.welcomed_already"] += 1
            return
        self._welcomed = {one: at for one, at in self._welcomed.items() if at > again_at}
        self._welcomed[to] = now
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
