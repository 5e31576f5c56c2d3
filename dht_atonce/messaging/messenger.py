"""Messages between peers: queues them, runs a delivery over the link of each pair, hands over what arrives."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from functools import partial

from dht_atonce.config import MessagingConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import (
    AtOnceError,
    DeliveryUnknown,
    MessageTooLarge,
    PeerClosed,
    QueueFull,
)
from dht_atonce.identity import PeerId
from dht_atonce.links import LinkNet, LinkPort
from dht_atonce.messaging.delivery import Memory
from dht_atonce.messaging.frames import ByeCode, Hello, Kind, MessageFrame, write_frame
from dht_atonce.messaging.inbox import Inbox, Message
from dht_atonce.messaging.linking import Accept, FindPresence, Linking
from dht_atonce.messaging.pair import Pair
from dht_atonce.messaging.receipts import Batch, Receipt
from dht_atonce.messaging.service import Service
from dht_atonce.records import PresenceRecord, RecordParser

__all__ = ["Messenger"]

OnLinked = Callable[[PeerId, PresenceRecord], None]
OnUnlinked = Callable[[PeerId, str], None]


class _ToInbox:
    """The service for plain messages."""

    def __init__(self, inbox: Inbox, counters: Counter[str]) -> None:
        self.room = inbox.room
        self._put = inbox.put
        self._counters = counters

    def take(self, sender: PeerId, messages: list[bytes], confirm: Callable[[], None]) -> bool:
        self._put(sender, messages)
        self._counters["messaging.received"] += len(messages)
        return True


class Messenger:
    """One per peer. `own_record` gives our present presence record, `find` looks up others'."""

    def __init__(
        self,
        own_id: PeerId,
        links: LinkNet,
        parser: RecordParser,
        own_incarnation: bytes,
        own_record: Callable[[], bytes],
        find: FindPresence,
        *,
        config: MessagingConfig | None = None,
        counters: Counter[str] | None = None,
    ) -> None:
        self.id = own_id
        self.config = config = config or MessagingConfig()
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.inbox = Inbox(config)
        self.inbox.on_read = self._on_read
        self.linking = Linking(own_id, self, links, parser, own_record, find, config, self.counters)
        self.when_linked: list[OnLinked] = []
        """Told of each link that is up, with the other's record."""
        self.when_unlinked: list[OnUnlinked] = []
        """Told of each link that is gone with no other in its place, and why."""
        self._own_incarnation = own_incarnation
        self._services: dict[int, Service] = {Kind.MESSAGE: _ToInbox(self.inbox, self.counters)}
        self._pairs: OrderedDict[PeerId, Pair] = OrderedDict()
        # What must be kept of an idle pair: without it, a message whose acknowledgement was lost would come twice.
        self._memories: OrderedDict[PeerId, Memory] = OrderedDict()
        self._pressed: dict[Pair, None] = {}
        """Those whose senders had to be told of little room."""
        self._last: Pair | None = None
        self._loop = asyncio.get_running_loop()
        self._closed = False

    # --- life ---

    def listen(self, bind: Address) -> LinkPort:
        """Accept links. Raises `PortInUse`."""
        return self.linking.listen(bind)

    def serve(self, kind: int, service: Service) -> None:
        """Have `service` take messages of `kind`. Messages of kinds that nobody serves are acknowledged and dropped:
        capabilities in presence records say what a peer serves."""
        self._services[kind] = service

    def set_accept(self, accept: Accept) -> None:
        """From now on only those may reach us whom `accept` lets; links of others are ended."""
        self.linking.accept = accept
        for peer_id, pair in list(self._pairs.items()):
            if pair.link is not None and not accept(peer_id):
                self.linking.end(pair, ByeCode.NOT_ACCEPTED, "")

    async def aclose(self) -> None:
        """End all links and fail what waits."""
        self._closed = True
        await self.linking.stop_dialling()
        for pair in self._pairs.values():
            if pair.link is not None:
                self._flush(pair)  # the last words, and acknowledgements, before BYE
            if pair.timer is not None:
                pair.timer.cancel()
        await self.linking.aclose()
        text = "this peer was closed before an acknowledgement came"
        for pair in self._pairs.values():
            for batch in (*pair.outflow.drop_unsent((PeerClosed, text)), *pair.outflow.doubt((DeliveryUnknown, text))):
                batch.wake()
        self.inbox.close()

    # --- the app's side ---

    def messages(self) -> AsyncIterator[Message]:
        """What others send us, as it comes; ends when we are closed."""
        return self.inbox.read()

    def post(self, to: PeerId, data: bytes, timeout_s: float | None = None, kind: int = Kind.MESSAGE) -> Receipt:
        """Queue `data` (at most 60,000 B) for `to`; the receipt tells what became of it, and can be awaited.

        If it is not acknowledged within `timeout_s` (default 10), it has expired, or its outcome is unknown. Raises
        `MessageTooLarge`, `QueueFull`, `PeerClosed`.
        """
        config = self.config
        limit = config.max_message_bytes if kind != Kind.STREAM else config.max_piece_bytes
        if len(data) > limit:
            raise MessageTooLarge(f"a message has at most {limit} bytes, this has {len(data)}")
        if self._closed:
            raise PeerClosed("this peer is closed")
        pair = self._last
        if pair is None or pair.peer_id is not to:
            pair = self._last = self.pair(to)
        outflow = pair.outflow
        if outflow.queued >= config.max_waiting or outflow.queued_bytes >= config.max_waiting_bytes:
            raise QueueFull(f"{outflow.queued} messages to {to.short}… wait already; await receipts")
        if pair.flushing:
            return outflow.push(data, kind, pair.now + (config.send_timeout_s if timeout_s is None else timeout_s))
        pair.now = now = self._loop.time()
        is_alone = not outflow.queued
        receipt = outflow.push(data, kind, now + (config.send_timeout_s if timeout_s is None else timeout_s))
        if pair.link is None:
            self._reach(pair)
        elif is_alone:
            self._flush(pair)  # nothing else is on its way: no need to wait for company
        else:
            self._flush_soon(pair)
        return receipt

    async def send(self, to: PeerId, data: bytes, timeout_s: float | None = None) -> None:
        """Deliver `data`: as `post`, and wait until it is in the queue of the other side's app.

        Raises as `post`; `PeerUnknown`, `PeerOffline`, `NotAccepted` if nothing was sent; `DeliveryUnknown` if it was
        sent and no acknowledgement came.
        """
        receipt = self.post(to, data, timeout_s)
        try:
            await receipt
        except asyncio.CancelledError:
            self.withdraw(to, receipt)
            raise

    def withdraw(self, to: PeerId, receipt: Receipt) -> bool:
        """Do not send what has not left. False: it left already, or is settled."""
        pair = self._pairs.get(to)
        return pair is not None and pair.outflow.withdraw(receipt)

    # --- links ---

    def record_of(self, peer_id: PeerId) -> PresenceRecord | None:
        """The presence record with which a peer that has a link to us greeted."""
        pair = self._pairs.get(peer_id)
        return pair.record if pair is not None and pair.link is not None else None

    def connect(self, peer_id: PeerId) -> None:
        """See to it that there is a link to the peer, if it can be reached; `when_linked` and `when_unlinked` tell."""
        if peer_id != self.id:
            self.linking.connect_soon(self.pair(peer_id))

    def disconnect(self, peer_id: PeerId) -> None:
        """End the link to the peer if nothing is on its way to it."""
        pair = self._pairs.get(peer_id)
        if pair is not None and not pair.outflow.queued:
            self.linking.end(pair, ByeCode.GOING_AWAY, "not needed any more")

    def pair(self, peer_id: PeerId) -> Pair:
        """The pair with this peer, made if new."""
        pair = self._pairs.get(peer_id)
        if pair is None:
            memory = self._memories.pop(peer_id, None)
            if len(self._pairs) >= self.config.max_pairs:
                self._forget_idle()
            pair = self._pairs[peer_id] = Pair(peer_id, self.config, self._own_incarnation, memory)
        self._pairs.move_to_end(peer_id)
        return pair

    def on_linked(self, pair: Pair, hello: Hello, record: PresenceRecord) -> None:
        """Of `PairKeeper`."""
        base = pair.outflow.base
        self._wake(pair.delivery.on_hello(hello, record.incarnation))
        self.counters["messaging.delivered"] += max(0, pair.outflow.base - base)
        self._flush_soon(pair)
        for tell in self.when_linked:
            tell(pair.peer_id, record)

    def on_switched(self, pair: Pair) -> None:
        """Of `PairKeeper`."""
        pair.outflow.rewind()
        self._flush_soon(pair)

    def on_unlinked(self, pair: Pair, reason: str) -> None:
        """Of `PairKeeper`."""
        pair.outflow.on_link_lost()
        if self._closed:
            return
        if pair.outflow.queued:
            self.linking.connect_soon(pair)
        for tell in self.when_unlinked:
            tell(pair.peer_id, reason)

    def on_unreachable(self, pair: Pair, error: AtOnceError) -> None:
        """Of `PairKeeper`."""
        text = str(error)
        unknown = (DeliveryUnknown, f"the link to {pair.peer_id.short}… broke before an acknowledgement came")
        self._wake([*pair.outflow.drop_unsent((type(error), text)), *pair.outflow.doubt(unknown)])
        for tell in self.when_unlinked:
            tell(pair.peer_id, text)

    def on_frame(self, pair: Pair, frame: MessageFrame) -> None:
        """Of `PairKeeper`."""
        inflow, base = pair.delivery.inflow, pair.outflow.base
        taken, settled = pair.delivery.on_frame(frame, partial(self._room, pair.peer_id))
        if settled:
            self.counters["messaging.delivered"] += pair.outflow.base - base
        for one in taken:
            service = self._services.get(one.kind)
            if service is None:
                self.counters["messaging.unknown_kind"] += len(one.messages)
            elif not service.take(pair.peer_id, one.messages, partial(self._confirm, pair, one)):
                inflow.confirm_later(one)
        if frame.messages and inflow.expected < frame.seq0 + len(frame.messages):
            self.counters["messaging.not_taken"] += frame.seq0 + len(frame.messages) - inflow.expected
        self._wake(settled)
        self._flush_soon(pair)

    # --- inside ---

    def _room(self, peer_id: PeerId, kind: int) -> int:
        service = self._services.get(kind)
        return service.room(peer_id) if service is not None else self.config.frame_messages

    def _confirm(self, pair: Pair, taken: object) -> None:
        pair.delivery.inflow.confirm(taken)  # type: ignore[arg-type]
        self._flush_soon(pair)

    def _reach(self, pair: Pair) -> None:
        """There is something for a peer to whom there is no link."""
        if pair.peer_id == self.id:
            pair.flushing = True
            self._loop.call_soon(self._tell_ourselves, pair)
        else:
            self._arm(pair)
            self.linking.connect_soon(pair)

    def _tell_ourselves(self, pair: Pair) -> None:
        """A note to oneself needs no link."""
        pair.flushing = False
        outflow = pair.outflow
        while self.inbox.room(self.id) >= self.config.frame_messages and (run := outflow.take(pair.now)) is not None:
            messages = [data for data in run.messages if data is not None]
            service = self._services.get(run.kind)
            if service is not None:
                service.take(self.id, messages, lambda: None)
            self._wake(outflow.on_ack(run.seq0 + len(run.messages) - 1))
            outflow.on_limit(outflow.base - 1 + self.config.window_messages)
        if outflow.queued:
            self._pressed[pair] = None
            self._arm(pair)

    def _forget_idle(self) -> None:
        for peer_id, pair in self._pairs.items():
            if pair.is_idle:
                del self._pairs[peer_id]
                if self._last is pair:
                    self._last = None
                self._memories[peer_id] = pair.delivery.memory()
                if len(self._memories) > self.config.max_memories:
                    self._memories.popitem(last=False)
                return

    @staticmethod
    def _wake(batches: list[Batch]) -> None:
        for batch in batches:
            if batch.waiters:
                batch.wake()

    def _on_read(self) -> None:
        """The app read messages: whoever was told of little room may have more."""
        if self._pressed:
            pressed, self._pressed = self._pressed, {}
            for pair in pressed:
                self._flush_soon(pair)

    def _flush_soon(self, pair: Pair) -> None:
        if not pair.flushing:
            pair.flushing = True
            pair.now = self._loop.time()
            self._loop.call_soon(self._flush, pair)

    def _flush(self, pair: Pair) -> None:
        pair.flushing = False
        peer_link = pair.link
        if peer_link is None:
            self._reach(pair) if pair.outflow.has_unsent and not self._closed else None
            return
        delivery, send = pair.delivery, peer_link.link.send
        now = peer_link.used_at = self._loop.time()
        room = self.inbox.room(pair.peer_id)
        if room < self.config.window_step:
            self._pressed[pair] = None
        while (frame := delivery.take_frame(now, room)) is not None:
            if not send(write_frame(frame)):
                # Its queue is full, or it is closing and will be told of.
                delivery.untake_frame(frame)
                self._loop.call_later(self.config.unsent_retry_s, self._flush_soon, pair)
                break
        self._arm(pair)

    def _arm(self, pair: Pair) -> None:
        """Have `_on_timer` called at the pair's deadline, or before: a timer that comes early is cheaper than one that
        is moved at each frame."""
        deadline = pair.outflow.deadline
        if deadline == float("inf") or (pair.timer is not None and pair.timer_at <= deadline):
            return
        if pair.timer is not None:
            pair.timer.cancel()
        pair.timer_at = deadline
        pair.timer = self._loop.call_at(deadline, self._on_timer, pair)

    def _on_timer(self, pair: Pair) -> None:
        pair.timer = None
        now, outflow = self._loop.time(), pair.outflow
        if outflow.deadline <= now:
            self._wake(outflow.on_timer(now))
            if pair.link is not None:
                self.counters["messaging.retransmits"] += 1
                self._flush(pair)
        self._arm(pair)
