"""How one comes into a room: one member after the other is asked to let us in. No I/O, no clock.

Who comes at the same moment as we do is not in either, and says so: those are asked again a little later, in case they
are in by then. If nobody is left to ask, the room is empty.
"""

from collections import Counter

from dht_atonce.config import RoomsConfig
from dht_atonce.rooms.outbox import Outbox
from dht_atonce.rooms.wire import Join, Statement

__all__ = ["Entrance"]

_FOR_EVER = float("inf")
_ROUNDS = 2  # in which those are asked again who came when we did
_ROUND_S = 0.4


class Entrance:
    """Whom we ask, and what we are owed: the `last` shouts."""

    def __init__(
        self, room: bytes, config: RoomsConfig, outbox: Outbox, counters: Counter[str], *, last: int, guest: bool
    ) -> None:
        self.contact: bytes | None = None
        """Whom we asked to let us in."""
        self.deadline = _FOR_EVER
        """When the next is to be asked."""
        self._room = room
        self._config = config
        self._outbox = outbox
        self._counters = counters
        self._last = min(last, config.max_last)
        self._guest = guest
        self._candidates: list[bytes] = []
        self._not_yet: list[bytes] = []
        """Candidates that were not in themselves when we asked."""
        self._rounds = 0
        self._past_left = 0

    def offer(self, candidates: list[bytes]) -> None:
        """These may be asked, in this order, and no others."""
        self._candidates = candidates

    def ask_next(self, now: float, *, is_in: bool) -> bool:
        """Ask the next candidate. True: there is none, and we are in without being let in. Who `is_in` already, and
        alone, asks as well, and is owed nothing."""
        if self.contact is not None:
            self._counters["rooms.not_let_in"] += 1
        self.contact, self.deadline = None, _FOR_EVER
        if self._candidates:
            self.contact = self._candidates.pop(0)
            self.deadline = now + self._config.join_s
            self._past_left = 0 if is_in else self._last
            self._outbox.say(self.contact, Join(self._room, self._guest, self._past_left))
        elif not is_in:
            if not self._not_yet or self._rounds >= _ROUNDS:
                return True
            self._rounds += 1
            self._candidates, self._not_yet = self._not_yet, []
            self.deadline = now + _ROUND_S
        return False

    def on_not_yet(self, source: bytes) -> None:
        """Our contact is not in itself."""
        self._not_yet.append(source)

    def on_let_in(self) -> None:
        """Nobody else need be asked."""
        self.contact, self.deadline, self._candidates = None, _FOR_EVER, []

    def take_past(self, statements: list[Statement]) -> list[Statement]:
        """As many of these as we are still owed."""
        owed = statements[: self._past_left]
        self._past_left -= len(owed)
        return owed

    def stop(self) -> None:
        """We do not want in any more."""
        self.deadline = _FOR_EVER
