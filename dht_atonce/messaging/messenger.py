"""Messages between peers: finds or dials a link to a peer, runs a `Delivery` over it, hands over what arrives."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable

from dht_atonce.config import MessagingConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import (
    DeliveryUnknown,
    LinkError,
    MessageTooLarge,
    PeerClosed,
    PeerOffline,
    PeerUnknown,
    QueueFull,
    RecordError,
    WireError,
)
from dht_atonce.host import Host
from dht_atonce.identity import PeerId
from dht_atonce.links import Link, LinkNet, LinkPort
from dht_atonce.messaging.delivery import Delivery, Memory, Outcome, Outgoing, Settled
from dht_atonce.messaging.frames import Bye, ByeCode, Frame, Hello, MessageFrame, read_frame, write_frame
from dht_atonce.messaging.inbox import Inbox, Message
from dht_atonce.records import PresenceRecord, RecordParser
from dht_atonce.tasks import TaskGroup

__all__ = ["FindPresence", "Messenger"]

FindPresence = Callable[[PeerId, bool], Awaitable[PresenceRecord | None]]
"""Looks up a peer's presence; the flag asks for the fresh one."""


_MAX_REDIALS = 3  # of a peer whose links end as soon as they are open


class _Pair:
    """What there is between us and one peer."""

    __slots__ = ("delivery", "dialling", "flushing", "links", "peer_id", "record_seq", "timer", "waiters")

    def __init__(self, peer_id: PeerId, delivery: Delivery) -> None:
        self.peer_id = peer_id
        self.delivery = delivery
        self.links: list[_PeerLink] = []
        """Those that passed HELLO; the last one is used."""
        self.record_seq = 0
        self.waiters: dict[Outgoing, asyncio.Future[None]] = {}
        self.dialling: asyncio.Task[None] | None = None
        self.flushing = False
        self.timer: asyncio.TimerHandle | None = None


class _PeerLink:
    """A link and what we know of who is at its other end."""

    __slots__ = ("greeted", "link", "pair", "timer")

    def __init__(self, link: Link, greeted: "asyncio.Future[None] | None") -> None:
        self.link = link
        self.greeted = greeted
        """Of a link that we dialled: done when its HELLO came."""
        self.pair: _Pair | None = None
        self.timer: asyncio.TimerHandle | None = None


class Messenger:
    """One per peer. `own_record` gives our present presence record, `find` looks up others'."""

    def __init__(
        self,
        host: Host,
        links: LinkNet,
        parser: RecordParser,
        own_incarnation: bytes,
        own_record: Callable[[], bytes],
        find: FindPresence,
        *,
        config: MessagingConfig | None = None,
        counters: Counter[str] | None = None,
    ) -> None:
        self.config = config or MessagingConfig()
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.inbox = Inbox(self.config)
        self._host = host
        self._links = links
        self._parser = parser
        self._own_incarnation = own_incarnation
        self._own_record = own_record
        self._find = find
        self._pairs: OrderedDict[PeerId, _Pair] = OrderedDict()
        # What must be kept of an idle pair: without it, a message whose acknowledgement was lost would come twice.
        self._memories: OrderedDict[PeerId, Memory] = OrderedDict()
        self._open: dict[_PeerLink, None] = {}
        self._tasks = TaskGroup()
        self._dials = asyncio.Semaphore(self.config.max_dials)
        self._loop = asyncio.get_running_loop()
        self._closed = False

    # --- life ---

    def listen(self, bind: Address) -> LinkPort:
        """Accept links. Raises `PortInUse`."""
        return self._links.listen(bind, self._on_link)

    async def aclose(self) -> None:
        """End all links and fail what waits."""
        self._closed = True
        await self._tasks.aclose()
        for peer_link in list(self._open):
            self._bye(peer_link, ByeCode.GOING_AWAY, "going away")
        for pair in self._pairs.values():
            if pair.timer is not None:
                pair.timer.cancel()
            for message, waiter in pair.waiters.items():
                if not waiter.done():
                    closed = "this peer was closed before an acknowledgement came"
                    waiter.set_exception(DeliveryUnknown(closed) if message.was_sent else PeerClosed(closed))
        self.inbox.close()
        await self._links.aclose()

    # --- the app's side ---

    def messages(self) -> AsyncIterator[Message]:
        """What others send us, as it comes; ends when we are closed."""
        return self.inbox.read()

    async def send(self, to: PeerId, data: bytes, timeout_s: float | None = None) -> None:
        """Deliver `data` (at most 60,000 B): returns when it is in the queue of the other side's app.

        Raises `MessageTooLarge`, `QueueFull`, `PeerClosed`; `PeerUnknown` or `PeerOffline` if nothing was sent;
        `DeliveryUnknown` if it was sent and no acknowledgement came.
        """
        if len(data) > self.config.max_message_bytes:
            limit = self.config.max_message_bytes
            raise MessageTooLarge(f"a message has at most {limit} bytes, this has {len(data)}")
        if self._closed:
            raise PeerClosed("this peer is closed")
        pair = self._pair(to)
        if pair.delivery.queued >= self.config.max_waiting:
            raise QueueFull(f"{self.config.max_waiting} messages to {to.short}… wait already")
        message = pair.delivery.push(data)
        waiter: asyncio.Future[None] = self._loop.create_future()
        pair.waiters[message] = waiter
        if pair.links:
            self._flush_soon(pair)
        elif pair.dialling is None:
            pair.dialling = self._tasks.start(self._connect(pair), f"dial {to.short}")
        timeout_s = self.config.send_timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except DeliveryUnknown:
            raise  # a TimeoutError too, and it says more than we could
        except TimeoutError:
            if message.was_sent:
                raise DeliveryUnknown(f"{to.short}… did not acknowledge within {timeout_s:g} s") from None
            raise PeerOffline(f"{to.short}… could not be reached within {timeout_s:g} s") from None
        finally:
            pair.waiters.pop(message, None)
            if not waiter.done() or waiter.cancelled():
                pair.delivery.abandon(message)

    # --- pairs ---

    def _pair(self, peer_id: PeerId) -> _Pair:
        pair = self._pairs.get(peer_id)
        if pair is None:
            memory = self._memories.pop(peer_id, None)
            if len(self._pairs) >= self.config.max_pairs:
                self._forget_idle()
            delivery = Delivery(self.config, self._own_incarnation, memory)
            pair = self._pairs[peer_id] = _Pair(peer_id, delivery)
        self._pairs.move_to_end(peer_id)
        return pair

    def _forget_idle(self) -> None:
        for peer_id, pair in self._pairs.items():
            if not pair.links and not pair.delivery.queued and pair.dialling is None and not pair.waiters:
                del self._pairs[peer_id]
                self._memories[peer_id] = pair.delivery.memory()
                if len(self._memories) > self.config.max_memories:
                    self._memories.popitem(last=False)
                return

    async def _connect(self, pair: _Pair) -> None:
        """Bring about a link to the peer, or fail all that waits for one."""
        error: PeerUnknown | PeerOffline | None = None
        try:
            for _ in range(_MAX_REDIALS):
                async with self._dials:
                    error = await self._dial_known(pair)
                if error is not None or pair.links:
                    break
            else:
                error = PeerOffline(f"{pair.peer_id.short}… ends each link at once")
        finally:
            pair.dialling = None
        if error is None or pair.links:
            return
        for message in pair.delivery.give_up():
            self._fail(pair, message, error)
        for message in [message for message in pair.waiters if message.was_sent]:
            unknown = f"the link to {pair.peer_id.short}… broke before an acknowledgement came"
            self._fail(pair, message, DeliveryUnknown(unknown))

    async def _dial_known(self, pair: _Pair) -> PeerUnknown | PeerOffline | None:
        """Dial where the peer says it is; if the first record found leads nowhere, where the fresh one says."""
        short = pair.peer_id.short
        tried: list[Address] = []
        for fresh in (False, True):
            record = await self._find(pair.peer_id, fresh)
            if pair.links:
                return None  # meanwhile the peer dialled us
            if record is None:
                if not tried:
                    return PeerUnknown(f"the network knows no peer {short}…")
                break
            if record.is_goodbye:
                if fresh:
                    return PeerOffline(f"{short}… has said goodbye")
                continue  # it may be back already
            for endpoint in record.endpoints:
                if endpoint in tried:
                    continue
                tried.append(endpoint)
                if await self._dial(pair, endpoint):
                    return None
        if not tried:
            return PeerOffline(f"{short}… has no address at which it can be dialled")
        return PeerOffline(f"{short}… does not answer at {', '.join(map(str, tried))}")

    async def _dial(self, pair: _Pair, endpoint: Address) -> bool:
        try:
            link = await self._links.dial(endpoint, pair.peer_id.curve_key, self.config.hello_timeout_s)
        except LinkError:
            self.counters["messaging.dial_failed"] += 1
            return False
        peer_link = self._begin(link, self._loop.create_future())
        self._greet(peer_link, pair)
        assert peer_link.greeted is not None
        try:
            await peer_link.greeted
        except LinkError:
            return False
        return peer_link.pair is pair

    def _fail(self, pair: _Pair, message: Outgoing, error: Exception) -> None:
        waiter = pair.waiters.get(message)
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    # --- links ---

    def _on_link(self, link: Link) -> None:
        if self._closed:
            link.close()
        else:
            self._begin(link, None)

    def _begin(self, link: Link, greeted: "asyncio.Future[None] | None") -> _PeerLink:
        peer_link = _PeerLink(link, greeted)
        self._open[peer_link] = None
        peer_link.timer = self._loop.call_later(self.config.hello_timeout_s, self._on_no_hello, peer_link)
        link.start(lambda data: self._on_frame(peer_link, data), lambda _: self._on_closed(peer_link))
        return peer_link

    def _on_no_hello(self, peer_link: _PeerLink) -> None:
        self.counters["messaging.no_hello"] += 1
        self._bye(peer_link, ByeCode.PROTOCOL_ERROR, "no HELLO")

    def _greet(self, peer_link: _PeerLink, pair: _Pair) -> None:
        hello = pair.delivery.hello(self._own_record())
        peer_link.link.send(write_frame(Frame(0, 0, 0, [], [hello])))

    def _bye(self, peer_link: _PeerLink, code: int, text: str) -> None:
        peer_link.link.send(write_frame(Frame(0, 0, 0, [], [Bye(code, text)])))
        peer_link.link.close()
        self._on_closed(peer_link)

    def _on_closed(self, peer_link: _PeerLink) -> None:
        """The link has ended, whoever ended it."""
        if peer_link not in self._open:
            return
        del self._open[peer_link]
        if peer_link.timer is not None:
            peer_link.timer.cancel()
        if peer_link.greeted is not None and not peer_link.greeted.done():
            peer_link.greeted.set_exception(LinkError("the link ended before HELLO"))
        pair = peer_link.pair
        if pair is None:
            return
        pair.links.remove(peer_link)
        if pair.links or self._closed:
            return
        pair.delivery.on_link_lost()
        if pair.waiters and pair.dialling is None:
            pair.dialling = self._tasks.start(self._connect(pair), f"dial {pair.peer_id.short} again")

    def _on_frame(self, peer_link: _PeerLink, data: bytes) -> None:
        try:
            frame = read_frame(data)
        except WireError:
            self.counters["messaging.bad_frame"] += 1
            self._bye(peer_link, ByeCode.PROTOCOL_ERROR, "unreadable frame")
            return
        for special in frame.specials:
            if isinstance(special, Bye):
                peer_link.link.close()
                self._on_closed(peer_link)
                return
            self._on_hello(peer_link, special)
        pair = peer_link.pair
        if pair is None:
            if not frame.specials:
                self.counters["messaging.before_hello"] += 1
                self._bye(peer_link, ByeCode.PROTOCOL_ERROR, "HELLO comes first")
            return
        self._take(pair, frame)

    def _on_hello(self, peer_link: _PeerLink, hello: Hello) -> None:
        if peer_link.pair is not None or peer_link.link.is_closed:
            return
        try:
            record = self._parser.parse_presence(hello.record, None)
            if record.peer_id.curve_key != peer_link.link.curve_key:
                raise RecordError("not_of_this_link")
        except RecordError as error:
            self.counters[f"hello.{error.reason}"] += 1
            self._bye(peer_link, ByeCode.NOT_ACCEPTED, f"record: {error.reason}")
            return
        pair = self._pair(record.peer_id)
        known = pair.delivery.their_incarnation
        if known and record.incarnation != known:
            if record.seq < pair.record_seq:
                self.counters["hello.old_incarnation"] += 1
                self._bye(peer_link, ByeCode.NOT_ACCEPTED, "a newer process of yours is here")
                return
            for old in list(pair.links):
                old.link.close()
                self._open.pop(old, None)
            pair.links.clear()
        pair.record_seq = max(pair.record_seq, record.seq)
        if peer_link.timer is not None:
            peer_link.timer.cancel()
        peer_link.pair = pair
        if peer_link.greeted is None:
            # It dialled us again: its earlier links are dead, or will be. One that we dialled may stay beside.
            for earlier in [known for known in pair.links if known.greeted is None]:
                pair.links.remove(earlier)
                self._open.pop(earlier, None)
                earlier.link.close()
        pair.links.append(peer_link)
        self._settle(pair, pair.delivery.on_hello(hello, record.incarnation))
        if peer_link.greeted is None:
            self._greet(peer_link, pair)
        elif not peer_link.greeted.done():
            peer_link.greeted.set_result(None)
        self._flush_soon(pair)

    # --- delivery ---

    def _take(self, pair: _Pair, frame: MessageFrame) -> None:
        accepted, settled = pair.delivery.on_frame(frame, self.inbox.room)
        for data in accepted:
            self.inbox.put(Message(pair.peer_id, data))
        self.counters["messaging.received"] += len(accepted)
        refused = len(frame.messages) - len(accepted)
        if refused:
            self.counters["messaging.not_taken"] += refused
        self._settle(pair, settled)
        self._flush_soon(pair)

    def _settle(self, pair: _Pair, settled: list[Settled]) -> None:
        for message, outcome in settled:
            waiter = pair.waiters.get(message)
            if waiter is None or waiter.done():
                continue
            if outcome is Outcome.DELIVERED:
                self.counters["messaging.delivered"] += 1
                waiter.set_result(None)
            else:
                gone = f"{pair.peer_id.short}… was started again before an acknowledgement came"
                waiter.set_exception(DeliveryUnknown(gone))

    def _flush_soon(self, pair: _Pair) -> None:
        if not pair.flushing:
            pair.flushing = True
            self._loop.call_soon(self._flush, pair)

    def _flush(self, pair: _Pair) -> None:
        pair.flushing = False
        if not pair.links:
            return
        link = pair.links[-1].link
        now = self._loop.time()
        while (frame := pair.delivery.take_frame(now)) is not None:
            if not link.send(write_frame(frame)):
                break  # its queue is full or it is closing: the retransmission timer brings the rest
        self._arm(pair)

    def _arm(self, pair: _Pair) -> None:
        if pair.timer is not None:
            pair.timer.cancel()
            pair.timer = None
        deadline = pair.delivery.deadline
        if deadline is not None:
            pair.timer = self._loop.call_at(deadline, self._on_timer, pair)

    def _on_timer(self, pair: _Pair) -> None:
        pair.timer = None
        pair.delivery.on_timer(self._loop.time())
        self.counters["messaging.retransmits"] += 1
        self._flush(pair)
