"""Streams over the delivery: posts what a `Mux` gives, follows what became of it, and has lost links dialled again."""

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from math import inf

from dht_atonce.codec import read_each
from dht_atonce.dht.node import DhtNode
from dht_atonce.errors import (
    DeliveryUnknown,
    NotAccepted,
    NotSupported,
    PeerClosed,
    QueueFull,
    StreamBroken,
    StreamReset,
)
from dht_atonce.identity import PeerId
from dht_atonce.messaging.frames import MAX_FRAME_MESSAGES, Kind
from dht_atonce.messaging.linking import Ended
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.messaging.receipts import State
from dht_atonce.records import PresenceRecord
from dht_atonce.streams.config import MAX_NAME, StreamConfig
from dht_atonce.streams.flow import Flow, Why
from dht_atonce.streams.mux import Budget, Mux
from dht_atonce.streams.side import Posted, Side, keep_heap
from dht_atonce.streams.stream import Stream
from dht_atonce.streams.wire import Open, ResetCode, read_message

__all__ = ["CAPABILITY", "Streams"]

CAPABILITY = "stream1"
"""In presence records of whoever takes streams."""
OUR_NAMES = "atonce."
"""How names of streams begin that are not the app's; if nobody takes them now, nobody will."""


_WORDS = {
    Ended.BROKEN: "the link broke",
    Ended.LEFT: "the other side has gone",
    Ended.CLOSED: "the link was closed",
    Ended.REFUSED: "the other side does not accept us",
    Ended.UNREACHABLE: "the other side cannot be reached",
}


class Streams:
    """All streams of one peer."""

    def __init__(self, first_number: int, config: StreamConfig | None = None) -> None:
        """No two processes of an identity shall begin at the same number."""
        self.config = config or StreamConfig()
        self.write_ahead_bytes = self.config.write_ahead_bytes
        self._wake_writer_bytes = self.write_ahead_bytes // 2
        self._budget = Budget(self.config)
        self._sides: dict[PeerId, Side] = {}
        self._streams: dict[Flow, Stream] = {}
        self._untaken: dict[Stream, asyncio.TimerHandle] = {}
        self._takers: Counter[str | None] = Counter()
        self._arrived = asyncio.Event()
        self._closed = self._attached = False
        self._loop = asyncio.get_running_loop()
        self._messenger: Messenger
        self._counters: Counter[str]
        self._numbers = itertools.count(first_number)

    # --- life ---

    def start(self, node: DhtNode, messenger: Messenger) -> None:
        """Of a peer's features."""
        self.attach(messenger)

    def attach(self, messenger: Messenger) -> None:
        """Serve streams."""
        self._attached = True
        self._messenger, self._counters = messenger, messenger.counters
        messenger.serve(Kind.STREAM, self)
        messenger.when_linked.append(self._on_linked)
        messenger.when_unlinked.append(self._on_unlinked)

    async def aclose(self) -> None:
        """End all streams; others are told."""
        self._closed = True
        why: Why = (PeerClosed, "this peer was closed")
        for side in list(self._sides.values()):
            if side.timer is not None:
                side.timer.cancel()
            for flow in list(side.mux.flows.values()):
                side.mux.reset(flow, ResetCode.ABORTED, "going away", why)
                self._wake(flow)
            if self._is_linked(side):
                self._pump(side)
        for timer in self._untaken.values():
            timer.cancel()
        self._untaken.clear()
        self._arrived.set()

    # --- the app's side ---

    async def open(self, to: PeerId, name: str, timeout_s: float | None = None) -> Stream:
        """As `Peer.open_stream`."""
        if not name or len(name.encode()) > MAX_NAME:
            raise ValueError(f"the name of a stream has 1 to {MAX_NAME} bytes")
        if self._closed or not self._attached:
            raise PeerClosed("this peer is closed" if self._closed else "this peer is not in a network yet")
        if to == self._messenger.id:
            raise ValueError("a peer opens no streams to itself")
        timeout_s = self.config.open_timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    return await self._open(to, name)
                except StreamBroken:  # the first link showed that it is a new process: it may not have heard of us
                    return await self._open(to, name)
        except TimeoutError:
            raise DeliveryUnknown(f"{to.short}… did not answer within {timeout_s:g} s") from None

    async def incoming(self, name: str | None = None) -> AsyncIterator[Stream]:
        """As `Peer.streams`."""
        self._takers[name] += 1
        try:
            while not self._closed:
                stream = self._pick(name)
                if stream is None:
                    self._arrived.clear()
                    await self._arrived.wait()
                    continue
                self._untaken.pop(stream).cancel()
                self._side(stream.peer).mux.give_credit(stream.flow)
                self._pump_soon(self._side(stream.peer))
                yield stream
        finally:
            self._takers[name] -= 1

    # --- Carrier ---

    def read(self, stream: Stream, most: int) -> bytes:
        side = self._sides.get(stream.peer)
        if side is None:
            return stream.flow.read(most)
        data = side.mux.read(stream.flow, most)
        if side.mux.has_first:
            self._pump_soon(side)
        return data

    def write(self, stream: Stream, data: bytes) -> None:
        side = self._side(stream.peer)
        side.mux.write(stream.flow, data)
        self._pump_soon(side)

    def finish(self, stream: Stream) -> None:
        side = self._side(stream.peer)
        side.mux.finish(stream.flow)
        self._pump_soon(side)

    def close(self, stream: Stream) -> None:
        self._end(stream, ResetCode.CLOSED, "")

    def abort(self, stream: Stream, text: str) -> None:
        self._end(stream, ResetCode.ABORTED, text)

    def _end(self, stream: Stream, code: int, text: str) -> None:
        side = self._sides.get(stream.peer)
        if side is not None and not self._closed:
            self._reset(side, stream.flow, code, text, (StreamReset, "this stream was closed by ourselves"))

    # --- Service ---

    def room(self, sender: PeerId) -> int:
        """Credit bounds streams: what goes beyond it is dropped, so nobody waits for anybody."""
        return MAX_FRAME_MESSAGES

    def take(self, sender: PeerId, messages: list[bytes], confirm: Callable[[], None]) -> bool:
        if self._closed:
            return True
        side = self._side(sender)
        mux = side.mux
        for message in read_each(read_message, messages, self._counters, "streams.bad_message"):
            untaken = sum(one.peer == sender for one in self._untaken) if isinstance(message, Open) else 0
            flow, is_new = mux.on_message(message, untaken)
            if flow is not None and is_new and flow.name.startswith(OUR_NAMES) and not self._takers[flow.name]:
                why: Why = (StreamReset, "nobody takes it")
                mux.reset(flow, ResetCode.REFUSED, "nobody there takes what it is for", why)
            elif flow is not None and is_new:
                stream = self._streams[flow] = Stream(self, sender, flow)
                self._untaken[stream] = self._loop.call_later(self.config.untaken_s, self._refuse, stream)
                self._arrived.set()
            elif flow is not None:
                self._wake(flow)
        self._pump_soon(side)
        return True

    # --- inside: streams ---

    async def _open(self, to: PeerId, name: str) -> Stream:
        self._check_support(self._messenger.record_of(to))
        side = self._side(to)
        flow = side.mux.open(name)
        stream = self._streams[flow] = Stream(self, to, flow)
        self._pump(side)
        try:
            while flow.unsettled and flow.error is None:
                await stream.changed()
            if flow.error is not None:
                raise flow.error[0](flow.error[1])
            self._check_support(self._messenger.record_of(to))
        except BaseException:
            self._reset(side, flow, ResetCode.ABORTED, "", (StreamReset, "it was not opened"))
            raise
        side.mux.give_credit(flow)
        self._pump_soon(side)
        return stream

    @staticmethod
    def _check_support(record: PresenceRecord | None) -> None:
        if record is not None and CAPABILITY not in record.capabilities:
            raise NotSupported(f"{record.peer_id.short}… takes no streams")

    def _pick(self, name: str | None) -> Stream | None:
        for stream in self._untaken:
            if stream.name == name or (name is None and not self._takers[stream.name]):
                return stream
        return None

    def _refuse(self, stream: Stream) -> None:
        self._counters["streams.untaken"] += 1
        side = self._side(stream.peer)
        self._reset(side, stream.flow, ResetCode.REFUSED, "nobody took it", (StreamReset, "nobody took it"))

    def _reset(self, side: Side, flow: Flow, code: int, text: str, why: Why) -> None:
        side.mux.reset(flow, code, text, why)
        for posted in side.posted:
            if posted.post.flow is flow and posted.post.size:
                self._messenger.withdraw(side.peer_id, posted.receipt)
        self._wake(flow)
        self._pump_soon(side)

    def _wake(self, flow: Flow) -> None:
        """Tell the app of what changed, and forget a stream that is over."""
        stream = self._streams.get(flow)
        if stream is not None:
            if flow.is_over:
                del self._streams[flow]
            if flow.error is not None and (timer := self._untaken.pop(stream, None)) is not None:
                timer.cancel()
            stream.wake()

    # --- inside: the delivery ---

    def _side(self, peer_id: PeerId) -> Side:
        side = self._sides.get(peer_id)
        if side is None:
            keep_heap()
            mux = Mux(self.config, self._budget, self._counters, self._numbers)
            side = self._sides[peer_id] = Side(peer_id, mux, self.config.redial_s)
            record = self._messenger.record_of(peer_id)
            side.incarnation = record.incarnation if record is not None else b""
        return side

    def _is_linked(self, side: Side) -> bool:
        return self._messenger.record_of(side.peer_id) is not None

    def _pump_soon(self, side: Side) -> None:
        """What an app writes in one turn of the loop goes together."""
        if not side.pumping and not self._closed:
            side.pumping = True
            self._loop.call_soon(self._pump, side)

    def _pump(self, side: Side) -> None:
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
                self._loop.call_later(self.config.full_retry_s, self._pump_soon, side)
                return
            except PeerClosed:
                return
            posted = Posted(post, receipt, now)
            side.posted.append(posted)
            self._watch(side, posted)
            if post.size and flow is not None and flow.waiting <= self._wake_writer_bytes:
                self._wake(flow)
        if mux.is_idle and not side.posted and self._sides.get(side.peer_id) is side:
            del self._sides[side.peer_id]

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
        self._pump_soon(side)

    def _settle(self, side: Side) -> None:
        now, posted = self._loop.time(), side.posted
        while posted and posted[0].is_delivered:
            one = posted.popleft()
            side.mux.on_settled(one.post, now - one.at, now)
            flow = one.post.flow
            if flow is not None and (flow.is_drained or flow.is_over):
                self._wake(flow)

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
                self._wake(flow)
        if not side.mux.flows:
            self._break(side, (StreamBroken, side.why))

    # --- inside: links ---

    def _on_linked(self, peer_id: PeerId, record: PresenceRecord) -> None:
        side = self._sides.get(peer_id)
        if side is None:
            return
        if side.timer is not None:
            side.timer.cancel()
        known, side.incarnation = side.incarnation, record.incarnation
        is_back, side.lost_at, side.timer, side.pause_s = side.lost_at is not None, None, None, self.config.redial_s
        if known and known != record.incarnation:
            self._on_restarted(side)
        elif is_back:
            side.mux.restate()
        self._pump_soon(side)

    def _on_restarted(self, side: Side) -> None:
        """The process at the other end is another one, and knows of nothing."""
        self._break(side, (StreamBroken, f"{side.peer_id.short}… was started again: its end of the stream is gone"))
        lost = [posted for posted in side.posted if posted.receipt.batch.was_sent]
        side.posted = deque(posted for posted in side.posted if not posted.receipt.batch.was_sent)
        for posted in lost:
            side.mux.on_given_up(posted.post)

    def _on_unlinked(self, peer_id: PeerId, ended: Ended) -> None:
        side = self._sides.get(peer_id)
        if side is None or self._closed:
            return
        side.why = _WORDS[ended]
        if side.lost_at is None:
            side.lost_at = self._loop.time()
        if side.timer is None and side.mux.flows:
            side.timer = self._loop.call_later(side.pause_s, self._redial, side)

    def _redial(self, side: Side) -> None:
        side.timer = None
        if side.lost_at is None or not side.mux.flows:
            return
        left_s = side.lost_at + self.config.unreachable_s - self._loop.time()
        if left_s <= 0:
            away = f"{side.peer_id.short}… was out of reach for {self.config.unreachable_s:g} s"
            self._break(side, (StreamBroken, f"{away}: {side.why}"))
            return
        self._messenger.connect(side.peer_id)
        side.pause_s = min(2 * side.pause_s, self.config.redial_max_s)
        side.timer = self._loop.call_later(min(side.pause_s, left_s), self._redial, side)

    def _break(self, side: Side, why: Why) -> None:
        for flow in side.mux.drop_all(why):
            self._wake(flow)
        self._give_up(side)

    def _give_up(self, side: Side) -> None:
        """There are no streams: what could not be sent of them need not be."""
        again, side.again = side.again, deque()
        for post in again:
            side.mux.on_given_up(post)
        for posted in side.posted:
            self._messenger.withdraw(side.peer_id, posted.receipt)
