"""What of others' durable messages is taken: rounds, and everybody's share of the inbox. No I/O, no clock.

A message is taken only if it is the next one of its round; what follows one that was refused is not, so that the order
of each sender is kept on the disk. Shares are counted from the moment a message is taken, before it is written.
"""

from collections import OrderedDict, deque
from enum import Enum

from dht_atonce.config import DurableConfig
from dht_atonce.durable.wire import Parcel, Why
from dht_atonce.identity import PeerId

__all__ = ["Intake", "Round", "Share", "Verdict"]


class Verdict(Enum):
    """What is done with a message."""

    TAKE = 0
    """Write it, and acknowledge it then."""
    DROP = 1
    """It follows one that was refused, or comes from nowhere: nothing is said."""
    FULL = Why.FULL + 1
    AGAIN = Why.AGAIN + 1
    INVALID = Why.INVALID + 1

    @property
    def why(self) -> int | None:
        """What the sender is told, if it is refused."""
        return self.value - 1 if self.value > 1 else None


class Share:
    """What one sender, or everybody, has here."""

    __slots__ = ("ids", "messages", "size")

    def __init__(self) -> None:
        self.messages = 0
        """That the app is not done with."""
        self.size = 0
        """Their bytes."""
        self.ids = 0
        """That are remembered: these, and those of what is done and may come again."""

    def add(self, messages: int, size: int, ids: int) -> None:
        """So many more; negative: fewer."""
        self.messages += messages
        self.size += size
        self.ids += ids


class Round:
    """Where one sender is."""

    __slots__ = ("first", "has_failed", "is_open", "name", "next", "numbers", "stored")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.next = 0
        """The index that is taken next."""
        self.stored = 0
        self.is_open = True
        self.has_failed = False
        """Something of it could not be written: what follows must not be."""
        self.numbers: deque[int] = deque()
        """Places in the inbox of what was stored and is not settled, the first of them that of index `first`."""
        self.first = 0


class Intake:
    """All senders'."""

    def __init__(self, config: DurableConfig) -> None:
        self.total = Share()
        self.shares: dict[PeerId, Share] = {}
        self._config = config
        self._rounds: OrderedDict[PeerId, Round] = OrderedDict()

    # --- inputs ---

    def on_parcel(self, sender: PeerId, parcel: Parcel, now_ms: int) -> Verdict:
        """A message came."""
        round_ = self._round(sender, parcel)
        if not round_.is_open:
            return Verdict.DROP
        if parcel.index != round_.next:
            verdict = Verdict.AGAIN
        elif parcel.expires_ms > now_ms + (self._config.max_expires_s + self._config.clock_slack_s) * 1000:
            verdict = Verdict.INVALID
        elif not self.has_room(sender, len(parcel.data)):
            verdict = Verdict.FULL
        else:
            round_.next += 1
            self.count(sender, 1, len(parcel.data), 1)
            return Verdict.TAKE
        round_.is_open = False
        return verdict

    def on_written(self, round_: Round, numbers: list[int]) -> int:
        """The next messages of a round are on the disk, at these places. Gives how many of it are by now."""
        round_.stored += len(numbers)
        round_.numbers.extend(numbers)
        return round_.stored

    def on_failed(self, round_: Round) -> None:
        """They could not be written: nothing more of the round is."""
        round_.is_open = False
        round_.has_failed = True

    def on_settled(self, sender: PeerId, round_name: bytes, count: int) -> list[int]:
        """The first `count` of a round never come again. Gives their places, those of which that is news."""
        round_ = self._rounds.get(sender)
        if round_ is None or round_.name != round_name:
            return []
        news = min(count - round_.first, len(round_.numbers))
        if news <= 0:
            return []
        round_.first += news
        return [round_.numbers.popleft() for _ in range(news)]

    def count(self, sender: PeerId, messages: int, size: int, ids: int) -> None:
        """The sender has so many more here; negative: fewer."""
        share = self.shares.get(sender)
        if share is None:
            share = self.shares[sender] = Share()
        share.add(messages, size, ids)
        self.total.add(messages, size, ids)
        if share.ids <= 0:
            del self.shares[sender]

    # --- getters ---

    def round(self, sender: PeerId) -> Round:
        """The one of which a message was just taken."""
        return self._rounds[sender]

    def has_room(self, sender: PeerId, size: int) -> bool:
        """Whether the sender may leave another `size` bytes: as much as is left free, and no more than that."""
        config, total = self._config, self.total
        share = self.shares.get(sender) or Share()
        return (
            total.messages + share.messages < config.inbox_messages
            and total.size + share.size + size <= config.inbox_bytes
            and total.ids + share.ids < config.remembered
        )

    # --- inside ---

    def _round(self, sender: PeerId, parcel: Parcel) -> Round:
        round_ = self._rounds.get(sender)
        if round_ is None or round_.name != parcel.round:
            round_ = self._rounds[sender] = Round(parcel.round)
            if len(self._rounds) > self._config.max_senders:
                self._rounds.popitem(last=False)
        self._rounds.move_to_end(sender)
        return round_
