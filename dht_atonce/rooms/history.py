"""The latest shouts of a room: for those who come later, and for repair. No I/O, no clock."""

from collections import OrderedDict
from typing import NamedTuple

from dht_atonce.config import RoomsConfig
from dht_atonce.rooms.wire import Statement

__all__ = ["History", "Kept"]


class Kept(NamedTuple):
    """A shout that is kept."""

    statement: Statement
    hops: int
    is_checked: bool
    """Whether its signature was: its author's own link may have vouched for it to us, which tells others nothing."""


class History:
    """A ring: at most so many shouts, and so many bytes."""

    def __init__(self, config: RoomsConfig) -> None:
        self._config = config
        self._bytes = 0
        self._shouts: OrderedDict[tuple[bytes, int, int], Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._shouts)

    def add(self, statement: Statement, hops: int, *, is_checked: bool) -> None:
        """Keep a shout; the oldest make room."""
        key = statement.author, statement.session, statement.seq
        if key in self._shouts:
            return
        self._shouts[key] = Kept(statement, hops, is_checked)
        self._bytes += len(statement.data)
        while len(self._shouts) > self._config.history or self._bytes > self._config.history_bytes:
            _, oldest = self._shouts.popitem(last=False)
            self._bytes -= len(oldest.statement.data)

    def get(self, author: bytes, session: int, seq: int) -> Kept | None:
        """A shout, if it is kept."""
        return self._shouts.get((author, session, seq))

    def on_checked(self, statement: Statement, *, is_good: bool) -> None:
        """Its signature was checked; one that is bad is kept no longer."""
        key = statement.author, statement.session, statement.seq
        kept = self._shouts.get(key)
        if kept is None:
            return
        if is_good:
            self._shouts[key] = kept._replace(is_checked=True)
        else:
            del self._shouts[key]
            self._bytes -= len(statement.data)

    def last(self, count: int) -> list[Kept]:
        """The latest, the oldest first."""
        return list(self._shouts.values())[-count:] if count > 0 else []
