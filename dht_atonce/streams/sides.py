"""Our sides of all streams: posts what each `Mux` gives, follows what came of it, and has lost links dialled again."""

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from math import inf

from dht_atonce.config import StreamConfig
from dht_atonce.errors import NotAccepted, PeerClosed, QueueFull, StreamBroken
from dht_atonce.identity import PeerId
from dht_atonce.messaging.frames import Kind
from dht_atonce.messaging.linking import Ended
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.messaging.receipts import State
from dht_atonce.records import PresenceRecord
from dht_atonce.streams.flow import Flow, Why
from dht_atonce.streams.mux import Budget, Mux
from dht_atonce.streams.side import Posted, Side, keep_heap
from dht_atonce.streams.wire import ResetCode

__all__ = ["Sides"]

_WORDS = {
    Ended.BROKEN: "the link broke",
    Ended.LEFT: "the other side has gone",
    Ended.CLOSED: "the link was closed",
    Ended.REFUSED: "the other side does not accept us",
    Ended.UNREACHABLE: "the other side cannot be reached",
}


class Sides:
    """One for each peer with which there are streams. `on_change` hears of each whose app has to look again."""

    def __init__(
        self, config: StreamConfig, first_number: int, messenger: Messenger, on_change: Callable[[Flow], None]
    ) -> None:
        self.budget = Budget(config)
        self.by_peer: dict[PeerId, Side] = {}
        self._config = config
        self._messenger = messenger
        self._counters: Counter[str] = messenger.counters
        self._on_change = on_change
        self._numbers = itertools.count(first_number)
        self._closed = False
        self._loop = asyncio.get_running_loop()

    # --- commands ---

    def of(self, peer_id: PeerId) -> Side:
        """Ours with this one."""
        side = self.by_peer.get(peer_id)
        if side is None:
            keep_heap()
            mux = Mux(self._config, self.budget, self._counters, self._numbers)
            side = self.by_peer[peer_id] = Side(peer_id, mux, self._config.redial_s)
            record = self._messenger.record_of(peer_id)
            side.incarnation = record.incarnation if record is not None else b""
        return side

    def pump_soon(self, side: Side) -> None:
        """What an app writes in one turn of the loop goes together."""
        if not side.pumping and not self._closed:
            side.pumping = True
            self._loop.call_soon(self.pump, side)

    def pump(self, side: Side) -> None:
        """Post what there is to say."""
        side.pumping = False
        if side.again and not self._is_linked(side):
            return
        now, mux, again = self._loop.time(), side.mux, side.again
        while (post := again.popleft() if again else mux.take()) is not None:
            flow = post.flow
            if flow is not None and flow.error is not None and post.size:
                mux.on_given_up(post)
                continue
            try:
                receipt = self._messenger.post(side.peer_id, post.data, inf, Kind.STREAM)
            except QueueFull:
                again.appendleft(post)
                self._loop.call_later(self._config.full_retry_s, self.pump_soon, side)
                return
            except PeerClosed:
                return
            posted = Posted(post, receipt, now)
            side.posted.append(posted)
            self._watch(side, posted)
            if post.size and flow is not None and flow.waiting <= self._config.write_ahead_bytes:
                self._on_change(flow)
        if mux.is_idle and not side.posted and self.by_peer.get(side.peer_id) is side:
            del self.by_peer[side.peer_id]

    def reset(self, side: Side, flow: Flow, code: int, text: str, why: Why) -> None:
        """End a stream, and what of it has not left."""
        side.mux.reset(flow, code, text, why)
        for posted in side.posted:
            if posted.post.flow is flow and posted.post.size:
                self._messenger.withdraw(side.peer_id, posted.receipt)
        self._on_change(flow)
        self.pump_soon(side)

    def close(self) -> None:
        """End all streams; others are told."""
        self._closed = True
        why: Why = (PeerClosed, "this peer was closed")
        for side in list(self.by_peer.values()):
            if side.timer is not None:
                side.timer.cancel()
            for flow in list(side.mux.flows.values()):
                side.mux.reset(flow, ResetCode.ABORTED, "going away", why)
                self._on_change(flow)
            if self._is_linked(side):
                self.pump(side)

    # --- inputs ---

    def on_linked(self, peer_id: PeerId, record: PresenceRecord) -> None:
        """There is a link."""
        side = self.by_peer.get(peer_id)
        if side is None:
            return
        if side.timer is not None:
            side.timer.cancel()
        known, side.incarnation = side.incarnation, record.incarnation
        is_back, side.lost_at, side.timer, side.pause_s = side.lost_at is not None, None, None, self._config.redial_s
        if known and known != record.incarnation:
            self._on_restarted(side)
        elif is_back:
            side.mux.restate()
        self.pump_soon(side)

    def on_unlinked(self, peer_id: PeerId, ended: Ended) -> None:
        """It is gone, or none could be had."""
        side = self.by_peer.get(peer_id)
        if side is None or self._closed:
            return
        side.why = _WORDS[ended]
        if side.lost_at is None:
            side.lost_at = self._loop.time()
        if side.timer is None and side.mux.flows:
            side.timer = self._loop.call_later(side.pause_s, self._redial, side)

    # --- inside: the delivery ---

    def _is_linked(self, side: Side) -> bool:
        return self._messenger.record_of(side.peer_id) is not None

    def _watch(self, side: Side, posted: Posted) -> None:
        """Have `_on_outcome` called when something becomes of a message."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        waiter.add_done_callback(partial(self._on_outcome, side, posted))
        posted.receipt.batch.waiters.append((posted.receipt.index, waiter))

    def _on_outcome(self, side: Side, posted: Posted, waiter: "asyncio.Future[None]") -> None:
        waiter.exception()  # that it was asked is all that asyncio wants
        if self._closed:
            return
        state = posted.receipt.state
        if posted.is_delivered:
            self._settle(side)
        elif state is State.UNKNOWN:
            self._watch(side, posted)  # it keeps its place: the next link tells
        elif state in (State.EXPIRED, State.REFUSED):
            self._take_back(side)
        self.pump_soon(side)

    def _settle(self, side: Side) -> None:
        now, posted = self._loop.time(), side.posted
        while posted and posted[0].is_delivered:
            one = posted.popleft()
            side.mux.on_settled(one.post, now - one.at, now)
            flow = one.post.flow
            if flow is not None and (flow.is_drained or flow.is_over):
                self._on_change(flow)

    def _take_back(self, side: Side) -> None:
        """Some messages were dropped before they left: always the last ones."""
        kept: deque[Posted] = deque()
        dropped: list[Posted] = []
        for posted in side.posted:
            is_dropped = not posted.is_delivered and posted.receipt.batch.fate is not None
            (dropped if is_dropped else kept).append(posted)
        side.posted = kept
        for posted in reversed(dropped):
            side.again.appendleft(posted.post)
        for posted in dropped:
            flow, fate = posted.post.flow, posted.receipt.batch.fate
            assert fate is not None
            if fate[0] is NotAccepted:
                self._break(side, fate)
                return
            if flow is not None and flow.is_ours and not flow.is_open and flow.error is None:
                side.mux.drop(flow, fate)
                self._on_change(flow)
        if not side.mux.flows:
            self._break(side, (StreamBroken, side.why))

    # --- inside: links ---

    def _on_restarted(self, side: Side) -> None:
        """The process at the other end is another one, and knows of nothing."""
        self._break(side, (StreamBroken, f"{side.peer_id.short}… was started again: its end of the stream is gone"))
        lost = [posted for posted in side.posted if posted.receipt.batch.was_sent]
        side.posted = deque(posted for posted in side.posted if not posted.receipt.batch.was_sent)
        for posted in lost:
            side.mux.on_given_up(posted.post)

    def _redial(self, side: Side) -> None:
        side.timer = None
        if side.lost_at is None or not side.mux.flows:
            return
        left_s = side.lost_at + self._config.unreachable_s - self._loop.time()
        if left_s <= 0:
            away = f"{side.peer_id.short}… was out of reach for {self._config.unreachable_s:g} s"
            self._break(side, (StreamBroken, f"{away}: {side.why}"))
            return
        self._messenger.connect(side.peer_id)
        side.pause_s = min(2 * side.pause_s, self._config.redial_max_s)
        side.timer = self._loop.call_later(min(side.pause_s, left_s), self._redial, side)

    def _break(self, side: Side, why: Why) -> None:
        for flow in side.mux.drop_all(why):
            self._on_change(flow)
        self._give_up(side)

    def _give_up(self, side: Side) -> None:
        """There are no streams: what could not be sent of them need not be."""
        again, side.again = side.again, deque()
        for post in again:
            side.mux.on_given_up(post)
        for posted in side.posted:
            self._messenger.withdraw(side.peer_id, posted.receipt)
