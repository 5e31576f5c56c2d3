"""When what is to be said to a peer leaves: at once, at the end of this turn of the loop, with others some milliseconds
later, or when it is time to say it again."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from math import inf

from dht_atonce.config import MessagingConfig
from dht_atonce.messaging.frames import MAX_FRAME_MESSAGES, write_parts
from dht_atonce.messaging.inbox import Inbox
from dht_atonce.messaging.pair import Pair
from dht_atonce.messaging.receipts import Batch

__all__ = ["Flusher", "wake"]


def wake(batches: Iterable[Batch]) -> None:
    """Tell those who wait for what is settled of these."""
    for batch in batches:
        if batch.waiters:
            batch.wake()


class Flusher:
    """Drains the deliveries of all pairs into their links. `reach` is called for those with something to say and no
    link."""

    def __init__(
        self, config: MessagingConfig, inbox: Inbox, counters: Counter[str], reach: Callable[[Pair], None]
    ) -> None:
        self._config = config
        self._inbox = inbox
        self._counters = counters
        self._reach = reach
        # A sender that may say so many more need not be told of more room.
        self._ample = max(config.window_messages - 2 * config.window_step, MAX_FRAME_MESSAGES)
        self._pressed: dict[Pair, None] = {}
        """Those whose senders had to be told of little room."""
        self._unflushed: deque[Pair] = deque()
        """Those with something to say at the end of this turn of the loop."""
        self._now = 0.0
        """When the first of them got something to say."""
        self._unhurried: list[Pair] = []
        """Those whose acknowledgements wait for others."""
        self._unhurried_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    # --- commands ---

    def soon(self, pair: Pair) -> None:
        """At the end of this turn of the loop: what is said in one turn travels together."""
        if not pair.flushing:
            pair.flushing = True
            if not self._unflushed:
                self._now = self._loop.time()
                self._loop.call_soon(self._flush_all)
            pair.now = self._now
            self._unflushed.append(pair)

    def later(self, pair: Pair) -> None:
        """When other acknowledgements for which nobody waits have had time to come together."""
        if not pair.ack_waits:
            pair.ack_waits = True
            if not self._unhurried:
                self._unhurried_timer = self._loop.call_later(self._config.ack_delay_s, self._flush_unhurried)
            self._unhurried.append(pair)

    def flush(self, pair: Pair) -> None:
        """Now; `pair.now` says when that is."""
        pair.flushing = False
        peer_link = pair.link
        if peer_link is None:
            pair.outflow.invite(0)  # this turn is over
            if pair.outflow.has_unsent:
                self._reach(pair)
            return
        delivery, outflow, link = pair.delivery, pair.outflow, peer_link.link
        now = peer_link.used_at = pair.now
        room: int | None = None
        inflow = delivery.inflow
        if inflow.told - inflow.expected < self._ample:
            room = self._inbox.room(pair.peer_id)
            if room < self._config.window_step:
                self.press(pair)
        while (frame := delivery.take_frame(now, room)) is not None:
            if not link.send(*write_parts(frame)):
                # Its queue is full, or it is closing and will be told of.
                delivery.untake_frame(frame)
                if pair.retry is None:
                    pair.retry = self._loop.call_later(self._config.unsent_retry_s, self._retry, pair)
                break
            if not outflow.has_more:
                break
        if outflow.deadline < pair.timer_at:
            self.arm(pair)

    def press(self, pair: Pair) -> None:
        """It was told of little room: it is to hear of more when the app has read messages."""
        self._pressed[pair] = None
        self._inbox.on_read = self._on_read

    def arm(self, pair: Pair) -> None:
        """Have what is overdue seen to at the pair's deadline, or before: a timer that comes early is cheaper than one
        that is moved at each frame."""
        deadline = pair.outflow.deadline
        if deadline >= pair.timer_at:
            return
        if pair.timer is not None:
            pair.timer.cancel()
        pair.timer_at = deadline
        pair.timer = self._loop.call_at(deadline, self._on_timer, pair)

    def close(self, pairs: Iterable[Pair]) -> None:
        """Let the last words of these go, and acknowledgements; no timer runs afterwards."""
        for pair in pairs:
            if pair.link is not None:
                self.flush(pair)
            for timer in (pair.timer, pair.retry):
                if timer is not None:
                    timer.cancel()
        if self._unhurried_timer is not None:
            self._unhurried_timer.cancel()

    # --- inside ---

    def _on_read(self) -> None:
        self._inbox.on_read = None
        pressed, self._pressed = self._pressed, {}
        for pair in pressed:
            self.soon(pair)

    def _flush_all(self) -> None:
        unflushed = self._unflushed
        try:
            while unflushed:
                self.flush(unflushed.popleft())
        finally:
            if unflushed:
                self._loop.call_soon(self._flush_all)

    def _flush_unhurried(self) -> None:
        unhurried, self._unhurried = self._unhurried, []
        for pair in unhurried:
            pair.ack_waits = False
            if pair.delivery.inflow.ack_due:
                self.soon(pair)

    def _retry(self, pair: Pair) -> None:
        pair.retry = None
        self.soon(pair)

    def _on_timer(self, pair: Pair) -> None:
        pair.timer, pair.timer_at = None, inf
        now, outflow = self._loop.time(), pair.outflow
        if outflow.deadline <= now:
            wake(outflow.on_timer(now))
            if pair.link is not None:
                pair.now = now
                self._counters["messaging.retransmits"] += 1
                self.flush(pair)
        self.arm(pair)
