"""Messages between peers: queues them, runs a delivery over the link of each pair, hands over what arrives."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial

from dht_atonce.config import MessagingConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import (
    AtOnceError,
    DeliveryUnknown,
    MessageTooLarge,
    NotAccepted,
    PeerClosed,
    QueueFull,
)
from dht_atonce.identity import PeerId
from dht_atonce.links import LinkNet, LinkPort
from dht_atonce.messaging.delivery import Memory
from dht_atonce.messaging.flusher import Flusher, wake
from dht_atonce.messaging.frames import ByeCode, Frame, Hello, Kind
from dht_atonce.messaging.inbox import Inbox, Message
from dht_atonce.messaging.linking import Accept, Ended, FindPresence, Linking
from dht_atonce.messaging.pair import Pair
from dht_atonce.messaging.receipts import Batch, Receipt
from dht_atonce.messaging.service import OnMessage, Service, ToCallback, ToInbox
from dht_atonce.records import PresenceRecord, RecordParser

__all__ = ["Messenger"]

_HEAD_START = 31  # the last of so many messages that do not wait for those behind them

OnLinked = Callable[[PeerId, PresenceRecord], None]
OnUnlinked = Callable[[PeerId, Ended], None]


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
        self._flusher = Flusher(config, self.inbox, self.counters, self._reach)
        self.linking = Linking(own_id, self, links, parser, own_record, find, config, self.counters)
        self.when_linked: list[OnLinked] = []
        """Told of each link that is up, with the other's record."""
        self.when_unlinked: list[OnUnlinked] = []
        """Told of each link that is gone with no other in its place, and why."""
        self._own_incarnation = own_incarnation
        self._to_inbox = ToInbox(self.inbox, self.counters)
        self._services: dict[int, Service] = {Kind.MESSAGE: self._to_inbox}
        self._max_message_bytes = config.max_message_bytes
        self._max_waiting, self._max_waiting_bytes = config.max_waiting, config.max_waiting_bytes
        self._many_bytes = config.max_waiting_bytes - config.frame_bytes
        self._send_timeout_s = config.send_timeout_s
        self._frame_messages = config.frame_messages
        self._pairs: OrderedDict[PeerId, Pair] = OrderedDict()
        # What must be kept of an idle pair: without it, a message whose acknowledgement was lost would come twice.
        self._memories: OrderedDict[PeerId, Memory] = OrderedDict()
        self._last: Pair | None = None
        """The one to whom something was posted last; None when we are closed."""
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

    def on_put(self, tell: Callable[[], None]) -> None:
        """Have `tell` called whenever plain messages came into the inbox: for who reads them beside something else."""
        self._to_inbox.on_put = tell

    def set_accept(self, accept: Accept) -> None:
        """From now on only those may reach us whom `accept` lets; links of others are ended."""
        self.linking.accept = accept
        self.linking.refusals.clear()
        for peer_id, pair in list(self._pairs.items()):
            if pair.link is not None and not accept(peer_id):
                self.linking.end(pair, ByeCode.NOT_ACCEPTED, "")

    async def aclose(self) -> None:
        """End all links and fail what waits."""
        self._closed, self._last = True, None
        await self.linking.stop_dialling()
        self._flusher.close(self._pairs.values())  # before BYE
        await self.linking.aclose()
        text = "this peer was closed before an acknowledgement came"
        for pair in self._pairs.values():
            wake(pair.outflow.drop_unsent((PeerClosed, text)))
            wake(pair.outflow.doubt((DeliveryUnknown, text)))
        self.inbox.close()

    # --- the app's side ---

    def messages(self) -> AsyncIterator[Message]:
        """What others send us, as it comes; ends when we are closed."""
        return self.inbox.read()

    def post(
        self,
        to: PeerId,
        data: bytes,
        timeout_s: float | None = None,
        kind: int = Kind.MESSAGE,
        *,
        is_prompt: bool = False,
    ) -> Receipt:
        """Queue `data` (at most 60,000 B) for `to`; the receipt tells what became of it, and can be awaited.

        If it is not acknowledged within `timeout_s` (default 10), it has expired, or its outcome is unknown.
        `is_prompt`: whoever calls is about to await the receipt. Raises `MessageTooLarge`, `QueueFull`, `PeerClosed`.
        """
        pair = self._last
        is_plain = timeout_s is None and kind == Kind.MESSAGE
        if pair is None or pair.peer_id is not to or len(data) > self._max_message_bytes:
            self._check(data, kind)
            pair = self._last = self.pair(to)
        elif is_plain and (added := pair.outflow.add(data)) is not None:
            return added
        outflow = pair.outflow
        if outflow.queued >= self._max_waiting or outflow.queued_bytes >= self._max_waiting_bytes:
            raise QueueFull(_full(pair))
        if timeout_s is None:
            timeout_s = self._send_timeout_s
        if pair.flushing:
            receipt = outflow.push(data, kind, pair.now + timeout_s)
            index, last = receipt.index, self._frame_messages - 1
            if index <= _HEAD_START and not outflow.has_flight:
                last = _HEAD_START
            if index == last:
                # A frame is full, or the other side has nothing to do: it may work on these while we go on.
                receipt.batch.is_prompt = is_prompt
                self._flusher.flush(pair)
                pair.flushing = True
            elif is_plain and outflow.queued + last < self._max_waiting and outflow.queued_bytes < self._many_bytes:
                outflow.invite(last - index - 1)
            return receipt
        pair.now = now = self._loop.time()
        is_alone = not outflow.queued and outflow.last_count < 2
        receipt = outflow.push(data, kind, now + timeout_s)
        if pair.link is None:
            self._reach(pair)
        elif is_alone:
            receipt.batch.is_prompt = True  # whoever sends one may well wait for it
            self._flusher.flush(pair)  # nothing else is on its way, nor is it likely that company comes in this turn
        else:
            self._flusher.soon(pair)
        return receipt

    def post_many(
        self, to: Iterable[PeerId], data: bytes, timeout_s: float | None = None, kind: int = Kind.MESSAGE
    ) -> list[Receipt]:
        """`post` the same to each of `to`; their receipts, in that order.

        Nobody has to wait for another one: the receipt of whoever has too much waiting says so, and raises `QueueFull`
        when it is awaited. Raises `MessageTooLarge`, `PeerClosed`.
        """
        self._check(data, kind)
        if timeout_s is None:
            timeout_s = self._send_timeout_s
        receipts = []
        for peer_id in to:
            pair = self.pair(peer_id)
            outflow = pair.outflow
            if outflow.queued >= self._max_waiting or outflow.queued_bytes >= self._max_waiting_bytes:
                refused = Batch(kind, 0.0)
                refused.fate = (QueueFull, _full(pair))
                receipts.append(Receipt(refused, 0))
                continue
            # What one turn of the loop says to somebody has one deadline, so that it can travel together.
            self._flusher.soon(pair)
            receipts.append(outflow.push(data, kind, pair.now + timeout_s))
        return receipts

    async def send(self, to: PeerId, data: bytes, timeout_s: float | None = None) -> None:
        """Deliver `data`: as `post`, and wait until it is in the queue of the other side's app.

        Raises as `post`; `PeerUnknown`, `PeerOffline`, `NotAccepted` if nothing was sent; `DeliveryUnknown` if it was
        sent and no acknowledgement came.
        """
        receipt = self.post(to, data, timeout_s, is_prompt=True)
        try:
            await receipt
        except asyncio.CancelledError:
            self.withdraw(to, receipt)
            raise

    def withdraw(self, to: PeerId, receipt: Receipt) -> bool:
        """Do not send what has not left. False: it left already, or is settled."""
        pair = self._pairs.get(to)
        if pair is None or not pair.outflow.withdraw(receipt):
            return False
        receipt.batch.wake()
        return True

    def on_message(self, callback: OnMessage | None) -> None:
        """Have `callback` called with each message, in the moment in which it is read from its link, instead of having
        it wait for `messages()`: the quickest way to an answer. None: no more.

        It must not block. What it raises goes to the loop's exception handler. A message counts as delivered when it
        returns.
        """
        if callback is None:
            self.serve(Kind.MESSAGE, self._to_inbox)
        else:
            self.serve(Kind.MESSAGE, ToCallback(callback, self.config, self.counters))

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
            self.linking.end(pair, ByeCode.NOT_NEEDED, "not needed any more")

    def pair(self, peer_id: PeerId) -> Pair:
        """The pair with this peer, made if new."""
        pair = self._pairs.get(peer_id)
        if pair is None:
            memory = self._memories.pop(peer_id, None)
            if len(self._pairs) >= self.config.max_pairs:
                self._forget_idle()
            room = partial(self._room, peer_id)
            pair = self._pairs[peer_id] = Pair(peer_id, self.config, self._own_incarnation, memory, room)
        self._pairs.move_to_end(peer_id)
        return pair

    def on_linked(self, pair: Pair, hello: Hello, record: PresenceRecord) -> None:
        """Of `PairKeeper`."""
        before = pair.outflow.delivered
        wake(pair.delivery.on_hello(hello, record.incarnation))
        self.counters["messaging.delivered"] += pair.outflow.delivered - before
        self._flusher.soon(pair)
        for tell in self.when_linked:
            tell(pair.peer_id, record)

    def on_switched(self, pair: Pair) -> None:
        """Of `PairKeeper`."""
        pair.delivery.on_switched()
        self._flusher.soon(pair)

    def on_unlinked(self, pair: Pair, ended: Ended) -> None:
        """Of `PairKeeper`."""
        pair.outflow.on_link_lost()
        if self._closed:
            return
        if pair.outflow.queued:
            self.linking.connect_soon(pair)
        for tell in self.when_unlinked:
            tell(pair.peer_id, ended)

    def on_unreachable(self, pair: Pair, error: AtOnceError) -> None:
        """Of `PairKeeper`."""
        text = str(error)
        unknown = (DeliveryUnknown, f"the link to {pair.peer_id.short}… broke before an acknowledgement came")
        wake([*pair.outflow.drop_unsent((type(error), text)), *pair.outflow.doubt(unknown)])
        for tell in self.when_unlinked:
            tell(pair.peer_id, Ended.REFUSED if isinstance(error, NotAccepted) else Ended.UNREACHABLE)

    def on_frame(self, pair: Pair, frame: Frame) -> None:
        """Of `PairKeeper`."""
        outflow, delivery = pair.outflow, pair.delivery
        before = outflow.delivered
        taken, settled = delivery.on_frame(frame, pair.room)
        for one in taken:
            service = self._services.get(one.kind)
            if service is not None:
                service.take(pair.peer_id, one.messages)
            else:
                self.counters["messaging.unknown_kind"] += len(one.messages)
        if frame.messages and frame.seq0 <= (expected := delivery.inflow.expected) < frame.seq0 + len(frame.messages):
            self.counters["messaging.not_taken"] += frame.seq0 + len(frame.messages) - expected
            if frame.kind == Kind.MESSAGE:
                # It was told of room that others, or larger messages, took meanwhile: it hears when there is some.
                delivery.inflow.untell()
        if settled:
            self.counters["messaging.delivered"] += outflow.delivered - before
            wake(settled)
        if pair.flushing:
            return
        inflow = delivery.inflow
        if inflow.ack_is_urgent or outflow.is_due:
            self._flusher.soon(pair)
        elif inflow.ack_due:
            self._flusher.later(pair)

    # --- inside ---

    def _check(self, data: bytes, kind: int) -> None:
        config = self.config
        limits = {Kind.MESSAGE: config.max_message_bytes, Kind.STREAM: config.max_piece_bytes}
        limit = limits.get(kind, config.max_service_bytes)
        if len(data) > limit:
            raise MessageTooLarge(f"a message has at most {limit} bytes, this has {len(data)}")
        if self._closed:
            raise PeerClosed("this peer is closed")

    def _room(self, peer_id: PeerId, kind: int) -> int:
        service = self._services.get(kind)
        return service.room(peer_id) if service is not None else self._frame_messages

    def _reach(self, pair: Pair) -> None:
        """There is something for a peer to whom there is no link."""
        if self._closed:
            return
        if pair.peer_id == self.id:
            pair.flushing = True
            self._loop.call_soon(self._tell_ourselves, pair)
        else:
            self._flusher.arm(pair)
            self.linking.connect_soon(pair)

    def _tell_ourselves(self, pair: Pair) -> None:
        """A note to oneself needs no link."""
        pair.flushing = False
        outflow = pair.outflow
        outflow.invite(0)
        enough = min(self._frame_messages, self.config.inbox_messages)
        while self.inbox.room(self.id) >= enough and (batch := outflow.take(pair.now)) is not None:
            messages = [data for data in batch.messages if data is not None]
            service = self._services.get(batch.kind)
            if service is not None:
                service.take(self.id, messages)
            wake(outflow.on_ack(batch.seq0 + len(batch.messages) - 1))
            outflow.on_limit(outflow.base - 1 + self.config.window_messages)
        if outflow.queued:
            self._flusher.press(pair)
            self._flusher.arm(pair)

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


def _full(pair: Pair) -> str:
    return f"{pair.outflow.queued} messages to {pair.peer_id.short}… wait already; await receipts"
