"""The sealed RPC of one socket: who asked what of whom, and which bytes answer it.

A datagram is opened, its body read against a schema, and a reply matched on request id, address and key; all else is
dropped and counted. A request is repeated once and then has failed. What is answered, `operations` says; who gets a
seat, `routing` says.
"""

import asyncio
import heapq
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from kademlia.protocol import KademliaProtocol

from dht_atonce.codec import decode, encode
from dht_atonce.datagrams import MAX_DATAGRAM, DatagramSocket
from dht_atonce.dht.contact import Contact, contact_at
from dht_atonce.dht.cookies import Proof
from dht_atonce.dht.operations import Asked, Operations
from dht_atonce.dht.routing import RoutingTable
from dht_atonce.dht.sealing import (
    MIN_UNPROVED_FIND,
    NONCE_SIZE,
    Opened,
    PacketType,
    answer_key_request,
    key_request,
    read_key_reply,
)
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.wire import (
    FLAG_NO_SEAT,
    FindNode,
    FindValue,
    Found,
    NeedCookie,
    Ping,
    Pong,
    Refused,
    Reply,
    Request,
    Store,
    Stored,
    reply_decoder,
    request_decoder,
)
from dht_atonce.endpoints import Address, Family, is_acceptable
from dht_atonce.errors import WireError

__all__ = ["Answer", "OnAnswer", "SealedProtocol"]

T = TypeVar("T")

_MIN_PACKET = 58
_UNPROVED_FACTOR = 3  # the 3× rule

_EXPECTED: dict[type[Any], type[Any]] = {Ping: Pong, FindNode: Found, FindValue: Found, Store: Stored}


class Answer(NamedTuple):
    """A reply that was waited for."""

    reply: Reply
    rtt_s: float
    proved: bool
    """Our request carried a cookie that is still good: they know that we are where we say."""


OnAnswer = Callable[[Answer | None], None]
"""Called once, never from within `ask`. None: no answer, or a useless one."""


class _Outstanding:
    __slots__ = (
        "contact",
        "cookie",
        "datagram",
        "deadline",
        "needs_cookie_again",
        "on_answer",
        "request",
        "sent_at",
        "tries",
    )

    def __init__(self, contact: Contact, request: Request, on_answer: OnAnswer) -> None:
        self.contact = contact
        self.request = request
        self.on_answer = on_answer
        self.cookie = b""
        self.datagram = b""
        self.sent_at = 0.0
        self.tries = 0
        self.deadline = 0.0
        self.needs_cookie_again = False


class SealedProtocol(KademliaProtocol):
    """`kademlia`'s protocol with another wire and another RPC.

    From kademlia and rpcudp: `source_node`, `router`, `storage`, `_outstanding`. Not inherited in effect: the datagram
    handlers (two tasks for each packet, unpacked before it is checked), `welcome_if_new` (a seat for whoever speaks),
    and `__getattr__` (an attribute that is missing would become a remote call).
    """

    source_node: Contact
    router: RoutingTable
    _outstanding: dict[bytes, _Outstanding]

    def __init__(self, shared: Shared, family: Family, routers: dict[Family, RoutingTable]) -> None:
        own = Contact(shared.node_key.public, Address("::" if family is Family.IPV6 else "0.0.0.0", 0))  # noqa: S104
        super().__init__(own, shared.store, shared.network.k)
        self._shared = shared
        self._family = family
        self._counters = shared.counters
        self._socket: DatagramSocket | None = None
        self._loop = asyncio.get_running_loop()
        # (deadline, request id) of all tries, the earliest first; those that were answered or tried again meanwhile are
        # passed over. One timer for all: asyncio's own heap compares handles in Python, at ten times the cost.
        self._deadlines: list[tuple[float, bytes]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._key_waiters: dict[bytes, tuple[Address, asyncio.Future[bytes | None]]] = {}
        self.router = RoutingTable(own, shared.network.k, shared.config, local=shared.network.local, now=shared.now())
        routers[family] = self.router
        self._operations = Operations(
            family,
            routers,
            shared.store,
            shared.parser,
            shared.network,
            shared.counters,
            no_seat=shared.no_seat,
            stores=shared.stores,
        )
        self.on_seated: Callable[[Contact], None] | None = None
        """Told of each contact that newly got a seat."""
        self.on_request: Callable[[Contact, bool, bool], None] | None = None
        """Told of each request that could be read: from whom, whether the address was proved, and whether it takes
        seats."""
        self.on_outcome: Callable[[Contact, bool], None] | None = None
        """Told of each of our requests that ended: whom it went to, and whether it was answered."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def open(self, bind: Address) -> Address:
        """Bind the socket; gives the bound address. Raises `PortInUse`."""
        self._socket = self._shared.host.datagrams.open(bind, self.datagram_received)
        return self._socket.address

    def close(self) -> None:
        """Close the socket; what is outstanding is answered None."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for request_id in list(self._outstanding):
            self._finish(request_id, None)
        for _, waiter in self._key_waiters.values():
            if not waiter.done():
                waiter.set_result(None)

    # --- asking ---

    def ask(self, contact: Contact, request: Request, on_answer: OnAnswer) -> None:
        """Send `request` to `contact`; `on_answer` hears what became of it."""
        outstanding = _Outstanding(contact, request, on_answer)
        if self._socket is None or len(self._outstanding) >= self._shared.config.max_outstanding:
            self._counters["dht.not_asked"] += 1
            self._loop.call_soon(on_answer, None)
            return
        self._outstanding[request.request_id] = outstanding
        self._seal(outstanding)
        self._try(request.request_id, outstanding)

    def request_id(self) -> bytes:
        """A fresh request id, 8 B."""
        return self._shared.host.rng.randbytes(8)

    @property
    def flags(self) -> int:
        """What our requests say of us."""
        return FLAG_NO_SEAT if self._shared.no_seat else 0

    def ping(self, contact: Contact, on_answer: OnAnswer) -> None:
        """Ask whether `contact` is there."""
        self.ask(contact, Ping(0, self.request_id(), self.flags), on_answer)

    def store(self, contact: Contact, record: bytes, on_answer: OnAnswer) -> None:
        """Ask `contact` to keep `record`."""
        self.ask(contact, Store(0, self.request_id(), self.flags, record), on_answer)

    async def find_key(self, address: Address, timeout_s: float) -> bytes | None:
        """The node key of whoever is at `address`, on its word (trust on first use); None if nobody answers."""
        if self._socket is None:
            return None
        nonce = self._shared.host.rng.randbytes(NONCE_SIZE)
        waiter: asyncio.Future[bytes | None] = self._loop.create_future()
        self._key_waiters[nonce] = (address, waiter)
        try:
            for _ in range(self._shared.config.tries):
                if not self._may_send(address):
                    return None
                self._socket.send(key_request(nonce, self._shared.network.network_id), address)
                try:
                    return await asyncio.wait_for(asyncio.shield(waiter), timeout_s / self._shared.config.tries)
                except TimeoutError:
                    continue
            return None
        finally:
            del self._key_waiters[nonce]

    def _seal(self, outstanding: _Outstanding) -> None:
        shared, contact = self._shared, outstanding.contact
        cookie = outstanding.cookie = shared.known.cookie(contact, shared.now())
        is_find = isinstance(outstanding.request, FindNode | FindValue)
        try:
            outstanding.datagram = shared.sealer.seal(
                PacketType.REQUEST,
                contact.key,
                encode(outstanding.request),
                shared.host.rng.randbytes(NONCE_SIZE),
                cookie,
                MIN_UNPROVED_FIND if is_find and not cookie else 0,
            )
        except WireError:
            outstanding.datagram = b""  # a contact whose key cannot be used: the tries send nothing, and it fails

    def _may_send(self, address: Address) -> bool:
        if self._shared.network.local or self._shared.unproved.take(address.ip, self._shared.now()):
            return True
        self._counters["dht.unproved_budget"] += 1
        return False

    def _try(self, request_id: bytes, outstanding: _Outstanding) -> None:
        shared = self._shared
        timeout_s = shared.round_trips.timeout_s(outstanding.contact) * (1 << outstanding.tries)
        outstanding.tries += 1
        outstanding.sent_at = shared.now()
        if self._socket is not None and outstanding.datagram and self._may_send(outstanding.contact.address):
            self._counters["dht.sent"] += 1
            self._counters["dht.sent_bytes"] += len(outstanding.datagram)
            self._socket.send(outstanding.datagram, outstanding.contact.address)
        else:
            outstanding.tries = shared.config.tries
            timeout_s = 0.0
        outstanding.deadline = outstanding.sent_at + min(timeout_s, shared.config.max_timeout_s)
        heapq.heappush(self._deadlines, (outstanding.deadline, request_id))
        self._arm()

    def _arm(self) -> None:
        """See to it that the timer fires no later than the earliest deadline."""
        if not self._deadlines:
            return
        earliest = self._deadlines[0][0]
        if self._timer is not None:
            if self._timer_at <= earliest:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(earliest, self._on_timer)
        self._timer_at = earliest  # uvloop's handles do not always tell

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, request_id = heapq.heappop(self._deadlines)
            outstanding = self._outstanding.get(request_id)
            if outstanding is not None and outstanding.deadline == deadline:
                self._on_timeout(request_id, outstanding)
        while self._deadlines and self._deadlines[0][1] not in self._outstanding:
            heapq.heappop(self._deadlines)
        self._arm()

    def _on_timeout(self, request_id: bytes, outstanding: _Outstanding) -> None:
        if outstanding.tries < self._shared.config.tries:
            self._counters["dht.resent"] += 1
            self._try(request_id, outstanding)
            return
        self._counters["dht.unanswered"] += 1
        self.router.on_failure(outstanding.contact, self._shared.now())
        self.tell_seated()
        self._finish(request_id, None)

    def _finish(self, request_id: bytes, answer: Answer | None) -> None:
        outstanding = self._outstanding.pop(request_id)
        if self.on_outcome is not None:
            self.on_outcome(outstanding.contact, answer is not None)
        self._loop.call_soon(outstanding.on_answer, answer)

    # --- hearing ---

    def datagram_received(self, data: bytes, addr: Address) -> None:  # type: ignore[override] # an Address, always
        """Whatever a stranger sent. Never raises."""
        self._counters["dht.received"] += 1
        self._counters["dht.received_bytes"] += len(data)
        if not _MIN_PACKET <= len(data) <= MAX_DATAGRAM:
            self._counters["dht.short" if len(data) < _MIN_PACKET else "dht.long"] += 1
            return
        if data[0] != 1:
            self._counters["dht.unknown_major"] += 1
            return
        if not is_acceptable(addr, local=self._shared.network.local):
            self._counters["dht.bad_address"] += 1
            return
        try:
            if data[1] == PacketType.KEY_REQUEST:
                self._on_key_request(data, addr)
            elif data[1] == PacketType.KEY_REPLY:
                self._on_key_reply(data, addr)
            else:
                opened = self._shared.sealer.open(data)
                sender = contact_at(opened.sender, addr)
                if opened.type is PacketType.REQUEST:
                    self._on_request(opened, sender, len(data))
                else:
                    self._on_reply(opened, sender)
        except WireError:
            self._counters["dht.unreadable"] += 1

    def _on_key_request(self, data: bytes, source: Address) -> None:
        reply = answer_key_request(data, self._shared.network.network_id, self._shared.node_key.public)
        if self._socket is not None:
            self._socket.send(reply, source)

    def _on_key_reply(self, data: bytes, source: Address) -> None:
        nonce, key = read_key_reply(data)
        address, waiter = self._key_waiters.get(nonce, (None, None))
        if waiter is None or address != source or waiter.done():
            self._counters["dht.unasked"] += 1
            return
        waiter.set_result(key)

    def _on_request(self, opened: Opened, sender: Contact, size: int) -> None:
        shared = self._shared
        request = decode(request_decoder, opened.body)
        now = shared.now()
        proof = shared.cookies.check(opened.cookie, sender.address, sender.key, now)
        proved = proof is not Proof.NONE
        if proved:
            shared.unproved.on_proved(sender.ip)
            if not request.flags & FLAG_NO_SEAT:
                self._seat(sender, now)
        cookie = b"" if proof is Proof.CURRENT else shared.cookies.issue(sender.address, sender.key, now)
        room = MAX_DATAGRAM if proved else min(MAX_DATAGRAM, _UNPROVED_FACTOR * size)
        reply = self._operations.answer(Asked(request, sender, proved, cookie, room), shared.wall())
        datagram = shared.sealer.seal(
            PacketType.REPLY, sender.key, encode(reply), shared.host.rng.randbytes(NONCE_SIZE)
        )
        if len(datagram) > room:
            self._counters["dht.over_room"] += 1
            return
        if self._socket is not None:
            self._counters["dht.answered"] += 1
            self._counters["dht.sent_bytes"] += len(datagram)
            self._socket.send(datagram, sender.address)
        if self.on_request is not None:
            self.on_request(sender, proved, not request.flags & FLAG_NO_SEAT)

    def _on_reply(self, opened: Opened, sender: Contact) -> None:
        shared = self._shared
        reply = decode(reply_decoder, opened.body)
        outstanding = self._outstanding.get(reply.request_id)
        if outstanding is None or outstanding.contact != sender:
            self._counters["dht.unasked"] += 1
            return
        now = shared.now()
        rtt_s = now - outstanding.sent_at
        shared.unproved.on_proved(sender.ip)
        if outstanding.tries == 1:
            shared.round_trips.on_sample(sender, rtt_s)
        if len(reply.cookie) == 16:
            shared.known.on_cookie(sender, reply.cookie, now)
        shared.observed.on_you(sender.key, reply.you)
        # Half of the round trip passed since they looked at their clock.
        shared.skew.on_time(sender.key, reply.time_ms / 1000 + rtt_s / 2, shared.host.clock.wall())
        if not reply.flags & FLAG_NO_SEAT:
            self._seat(sender, now)
        if isinstance(reply, NeedCookie) and not outstanding.needs_cookie_again and len(reply.cookie) == 16:
            outstanding.needs_cookie_again = True
            outstanding.tries = 0
            self._seal(outstanding)
            self._try(reply.request_id, outstanding)
            return
        useful = isinstance(reply, _EXPECTED[type(outstanding.request)] | Refused)
        if not useful:
            self._counters["dht.wrong_reply"] += 1
        self._finish(
            reply.request_id, Answer(reply, rtt_s, bool(outstanding.cookie) and not reply.cookie) if useful else None
        )

    def _seat(self, contact: Contact, now: float) -> None:
        self.router.on_proved(contact, now)
        self.tell_seated()

    def tell_seated(self) -> None:
        """Tell `on_seated` of all that newly got a seat."""
        for contact in self.router.take_seated():
            if self.on_seated is not None:
                self.on_seated(contact)
