"""The sending half of a delivery: batches, their sequence numbers, the window, retransmission. No I/O, no clock.

push ──▶ waiting ──take()──▶ flight ──on_ack()──▶ delivered
            │ drop_unsent(), on_timer()     │ lose(), on_timer()
            ▼                               ▼
      expired, refused                   unknown
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import islice
from math import inf
from typing import Final

from dht_atonce.config import MessagingConfig
from dht_atonce.errors import DeliveryUnknown, PeerOffline
from dht_atonce.messaging.receipts import Batch, Receipt, Why

__all__ = ["MESSAGE_OVERHEAD", "Outflow"]

MESSAGE_OVERHEAD: Final = 5
"""What msgpack adds to a message, at most."""
_TOO_LATE: Final = (PeerOffline, "it could not be sent in its time: the peer is out of reach, or does not read")
_UNANSWERED: Final = (DeliveryUnknown, "it was not acknowledged in its time")


class Outflow:
    """What goes to one peer. `base` is the lowest sequence number that is not acknowledged."""

    __slots__ = (
        "_config",
        "_cursor",
        "_expiry",
        "_flight",
        "_flight_bytes",
        "_frame_bytes",
        "_frame_messages",
        "_invited",
        "_knocked",
        "_left",
        "_limit",
        "_lowered",
        "_next_seq",
        "_open",
        "_probing",
        "_retransmit_at",
        "_retransmit_s",
        "_waiting",
        "base",
        "delivered",
        "last_count",
        "queued",
        "queued_bytes",
    )

    def __init__(self, config: MessagingConfig, base: int = 1) -> None:
        self._config = config
        self._frame_messages, self._frame_bytes = config.frame_messages, config.frame_bytes
        self.base = base
        self.delivered = 0
        """Messages that were ever acknowledged, withdrawn ones left out."""
        self.last_count = 0
        """How many messages were taken last for the first time."""
        self._next_seq = base
        self._limit = base - 1 + config.first_window
        self._waiting: deque[Batch] = deque()
        self._flight: deque[Batch] = deque()
        """Batches that were sent and are not wholly acknowledged."""
        self._open: Batch | None = None
        """The last one that waits, while messages may still be added to it."""
        self._left = 0
        """Bytes for which it has room: its `size` is told when somebody asks. 0 where there is none."""
        self._invited = 0
        self.queued = 0
        """Messages that are not acknowledged."""
        self.queued_bytes = 0
        """Of the same, with what msgpack adds."""
        self._flight_bytes = 0
        self._cursor = 0
        """The place in flight of the batch to send next over the present link."""
        self._probing = False
        self._lowered = False
        """What lies beyond a limit that became lower was taken back."""
        self._knocked = False
        """The first frame was sent once more since the timer, for there was said to be room."""
        self._retransmit_s = config.retransmit_s
        self._retransmit_at: float | None = None
        self._expiry = inf

    # --- getters ---

    @property
    def has_unsent(self) -> bool:
        """Whether something was never sent."""
        return bool(self._waiting)

    @property
    def has_flight(self) -> bool:
        """Whether something was sent and is not acknowledged."""
        return bool(self._flight)

    @property
    def has_more(self) -> bool:
        """Whether `take` may have something to give."""
        return bool(self._waiting) or self._cursor < len(self._flight)

    @property
    def is_due(self) -> bool:
        """Whether `take` has to be called: it may give something, or has to set when something is sent again."""
        flight = self._flight
        return bool(self._waiting) or (bool(flight) and (self._retransmit_at is None or self._cursor < len(flight)))

    @property
    def deadline(self) -> float:
        """When `on_timer` is to be called, in monotonic seconds; inf: nothing is due."""
        return self._expiry if self._retransmit_at is None else min(self._expiry, self._retransmit_at)

    # --- commands ---

    def push(self, data: bytes, kind: int, deadline: float) -> Receipt:
        """Queue a message. The caller bounds its length, `queued` and `queued_bytes`."""
        size = len(data) + MESSAGE_OVERHEAD
        batch = self._open
        if (
            batch is None
            or batch.kind != kind
            or batch.deadline != deadline
            or size > self._left
            or len(batch.messages) >= self._frame_messages
        ):
            self._measure()
            batch = self._open = Batch(kind, deadline)
            self._left = self._frame_bytes
            self._waiting.append(batch)
            if deadline < self._expiry:
                self._expiry = deadline
        self._invited = 0
        messages = batch.messages
        receipt = Receipt(batch, len(messages))
        messages.append(data)
        self._left -= size
        self.queued += 1
        self.queued_bytes += size
        return receipt

    def invite(self, count: int) -> None:
        """So many more messages, in this turn of the loop, are like the one that was pushed last: `add` takes them."""
        self._invited = count

    def add(self, data: bytes) -> Receipt | None:
        """`push` for one that was invited: half as much to look at. None: it was not, or finds no room."""
        size = len(data) + MESSAGE_OVERHEAD
        left = self._left - size
        if left < 0 or not self._invited:
            return None
        self._invited -= 1
        self._left = left
        batch = self._open
        messages = batch.messages  # type: ignore[union-attr] # who was invited finds it open
        receipt = Receipt(batch, len(messages))  # type: ignore[arg-type]
        messages.append(data)
        self.queued += 1
        self.queued_bytes += size
        return receipt

    def withdraw(self, receipt: Receipt) -> bool:
        """Do not send a message that has not left: its number goes without it. False: it left, or is settled."""
        batch, index = receipt.batch, receipt.index
        if batch.was_sent or batch.fate is not None or batch.messages[index] is None:
            return False
        batch.messages[index] = None
        if batch.withdrawn is None:
            batch.withdrawn = set()
        batch.withdrawn.add(index)
        return True

    def drop_unsent(self, why: Why) -> list[Batch]:
        """Give up all that never left; gives its batches."""
        self._measure()
        dropped = list(self._waiting)
        self._waiting.clear()
        self._give_up(dropped, why)
        return dropped

    def lose(self, why: str) -> list[Batch]:
        """The process that they were sent to is gone: what is not acknowledged is unknown, and numbers begin at 1
        again. What never left stays queued."""
        lost = list(self._flight)
        self._flight.clear()
        self._flight_bytes = 0
        for batch in lost:
            self._count_out(batch)
            batch.overdue = batch.overdue or (DeliveryUnknown, why)
        self.base = self._next_seq = 1
        self._limit = self._config.first_window
        self.rewind()
        return lost

    def doubt(self, why: Why) -> list[Batch]:
        """Nobody shall wait any longer for what was sent; it keeps its place, and may yet be acknowledged."""
        doubted = [batch for batch in self._flight if batch.overdue is None]
        for batch in doubted:
            batch.overdue = why
        return doubted

    def rewind(self) -> None:
        """A new link: what is not acknowledged is sent again over it."""
        self._cursor = 0
        self._be_patient()

    def on_link_lost(self) -> None:
        """There is no link: nothing is sent again before the next one."""
        self._retransmit_at = None

    # --- inputs ---

    def on_ack(self, ack: int) -> list[Batch]:
        """All up to `ack` is acknowledged; gives the batches of which something was settled by it."""
        if not self.base <= ack < self._next_seq:
            return []  # old news, or an acknowledgement of what was never sent
        settled: list[Batch] = []
        flight = self._flight
        while flight and (batch := flight[0]).seq0 <= ack:
            settled.append(batch)
            size = len(batch.messages)
            count = min(size, ack - batch.seq0 + 1)
            self.delivered += count - batch.settled
            if batch.withdrawn is not None:
                self.delivered -= sum(batch.settled <= index < count for index in batch.withdrawn)
            batch.settled = count
            if count < size:
                break
            flight.popleft()
            self._count_out(batch)
            self._flight_bytes -= batch.size
            if self._cursor:
                self._cursor -= 1
        self.base = ack + 1
        self._be_patient()
        return settled

    def on_held(self, ranges: Sequence[tuple[int, int]]) -> None:
        """The receiver holds these, (first, count), behind a gap: they need not be sent again."""
        flight = self._flight
        for first, count in ranges:
            at, end = bisect_left(flight, first, key=_first), bisect_right(flight, first + count, key=_end)
            # What is said again and again must not cost more than to find it: both ends stand for what is between them.
            if at < end and not (flight[at].held and flight[end - 1].held):
                for batch in islice(flight, at, end):
                    batch.held = True

    def on_limit(self, limit: int) -> None:
        """The receiver has room for numbers up to `limit`. It may be lower than what it said before, which turned out
        to be wrong: what lies beyond it was not taken, and is sent again when it says more."""
        is_higher, is_lower = limit > self._limit, limit < self._limit
        self._limit = limit
        if is_lower and not self._lowered:
            # Once until something is acknowledged or the timer comes, whatever is said.
            self._lowered = True
            self._cursor = min(self._cursor, bisect_right(self._flight, limit + 1, key=_end))
        if not self._flight:
            if is_higher:
                self.rewind()
        elif self._probing and not self._knocked and limit >= self.base:
            # What found no room may find it now: the first frame shows. Once until the timer, whatever is said.
            self._knocked = True
            self._cursor = 0

    def skip_to(self, base: int) -> None:
        """The receiver expects `base` though we know of nothing sent: we had forgotten the pair, it had not."""
        if not self._flight and base > self.base:
            self.base = self._next_seq = base
            self._limit = max(self._limit, base - 1 + self._config.first_window)

    def on_timer(self, now: float) -> list[Batch]:
        """The `deadline` has come. Gives the batches that expired or became unknown."""
        if self._retransmit_at is not None and now >= self._retransmit_at:
            # The first frame again, to see whether the other takes it, and forget what it said of others. If it said
            # that it has no room: the next frame, to see whether it has.
            for batch in self._flight:
                batch.held = False
            self._cursor = 0
            self._probing, self._knocked, self._lowered = True, False, False
            self._retransmit_s = min(self._config.retransmit_max_s, self._retransmit_s * 2)
            self._retransmit_at = None
        return self._expire(now) if now >= self._expiry else []

    # --- drain ---

    def take(self, now: float) -> Batch | None:
        """What to send next over the present link, from its `settled` on; None: nothing, or nothing that the window
        lets through."""
        flight, cursor, waiting = self._flight, self._cursor, self._waiting
        self._measure()
        sent = len(flight)
        while cursor < sent and flight[cursor].held:
            cursor += 1
        batch = None
        if self._probing and cursor:
            pass
        elif cursor < sent:
            first = flight[cursor]
            if self._probing or first.seq0 + first.settled <= self._limit:
                batch = first
                batch.unhurried = False
                cursor += 1
        elif waiting and self._fits(waiting[0]):
            batch = waiting.popleft()
            if batch is self._open:
                self._open, self._left = None, 0
            batch.was_sent = True
            batch.seq0 = seq0 = self._next_seq
            self.last_count = count = len(batch.messages)
            self._next_seq = seq0 + count
            flight.append(batch)
            self._flight_bytes += batch.size
            batch.unhurried = not (batch.is_prompt or batch.waiters or self._is_tight())
            cursor += 1
        self._cursor = cursor
        if self._retransmit_at is None and (sent or cursor or waiting):
            self._retransmit_at = now + self._retransmit_s
        return batch

    def untake(self) -> None:
        """The last batch taken could not be sent: it will be taken again."""
        self._cursor -= 1

    # --- inside ---

    def _measure(self) -> None:
        """Nobody adds to the open batch without looking whether it is still open, and its size is as told."""
        self._invited = 0
        if self._open is not None:
            self._open.size = self._frame_bytes - self._left

    def _fits(self, batch: Batch) -> bool:
        """Whether the window lets the next batch through. A batch larger than ours goes alone."""
        config, count = self._config, len(batch.messages)
        if self._probing:
            return not self._flight
        if self._next_seq + count - 1 > self._limit:
            return False
        if not self._flight:
            return True
        in_flight = self._next_seq - self.base
        return in_flight + count <= config.window_messages and self._flight_bytes + batch.size <= config.window_bytes

    def _is_tight(self) -> bool:
        """Whether the window may come to its end before an acknowledgement that is late."""
        config, next_seq = self._config, self._next_seq
        return (
            next_seq - self.base > config.window_messages // 2
            or self._flight_bytes > config.window_bytes // 2
            or self._limit - next_seq < config.window_messages // 8
        )

    def _be_patient(self) -> None:
        """The other side gave a sign of life."""
        self._probing = self._lowered = False
        self._retransmit_s = self._config.retransmit_s
        self._retransmit_at = None

    def _count_out(self, batch: Batch) -> None:
        """A batch is queued no longer: nothing but its receipts remembers it."""
        self.queued -= len(batch.messages)
        self.queued_bytes -= batch.size
        batch.messages = []

    def _give_up(self, batches: list[Batch], why: Why) -> None:
        self._open, self._left = None, 0
        for batch in batches:
            batch.fate = why
            self._count_out(batch)

    def _expire(self, now: float) -> list[Batch]:
        late = [batch for batch in self._flight if batch.deadline <= now and batch.overdue is None]
        for batch in late:
            batch.overdue = _UNANSWERED
        self._measure()
        expired = [batch for batch in self._waiting if batch.deadline <= now]
        if expired:
            self._waiting = deque(batch for batch in self._waiting if batch.deadline > now)
            self._give_up(expired, _TOO_LATE)
        still = [batch.deadline for batch in self._flight if batch.overdue is None]
        still += [batch.deadline for batch in self._waiting]
        self._expiry = min(still, default=inf)
        return late + expired


def _first(batch: Batch) -> int:
    return batch.seq0


def _end(batch: Batch) -> int:
    return batch.seq0 + len(batch.messages)
