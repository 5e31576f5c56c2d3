"""The sealed RPC of one socket: who asked what of whom, and which bytes answer it.

A datagram is let in or not, opened, its body read against a schema, and a reply matched on request id, address and key;
all else is dropped and counted. Who may ask how much, `gate` says; what we ask, `requests` keeps; what is answered,
`operations` says; who gets a seat, `routing`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from kademlia.protocol import KademliaProtocol

from dht_atonce.codec import decode, encode
from dht_atonce.datagrams import MAX_DATAGRAM, DatagramSocket, sift_crowds
from dht_atonce.dht.contact import KEY_SIZE, Contact, contact_at, known_at, stranger_at
from dht_atonce.dht.cookies import Proof
from dht_atonce.dht.crowds import sift
from dht_atonce.dht.gate import Verdict
from dht_atonce.dht.operations import Asked, Operations
from dht_atonce.dht.requests import Answer, OnAnswer, Outstanding, Requests
from dht_atonce.dht.routing import RoutingTable, Seating
from dht_atonce.dht.sealing import (
    COOKIE_SIZE,
    MIN_DATAGRAM,
    NONCE_SIZE,
    PacketType,
    answer_key_request,
    answer_with_cookie,
    read_cookie_answer,
    read_key_reply,
    request_header,
    sender_of,
)
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.wire import (
    FLAG_NO_SEAT,
    FindMembers,
    FindNode,
    FindValue,
    Found,
    Members,
    NeedCookie,
    Noted,
    Notify,
    Ping,
    Pong,
    Refused,
    Reply,
    Request,
    Store,
    Stored,
    Watch,
    Watching,
    reply_decoder,
    request_decoder,
)
from dht_atonce.endpoints import Address, Family, pack_acceptable, pack_address
from dht_atonce.errors import WireError

__all__ = ["Answer", "OnAnswer", "SealedProtocol"]

_UNPROVED_FACTOR = 3  # the 3× rule
_AT_ONCE = 16  # requests without a proof, some 20 µs each, that are served in one turn of the loop
_MAX_WAITING = 256  # of them that wait for the next turns; beyond it we are being flooded, or cannot keep up

_EXPECTED: dict[type[Any], tuple[type[Any], ...]] = {
    Ping: (Pong, Refused),
    FindNode: (Found, Refused),
    FindValue: (Found, Refused),
    Store: (Stored, Refused),
    Watch: (Watching, Refused),
    Notify: (Noted, Refused),
    FindMembers: (Members, Refused),
}

# Read from their classes, these cost more than what is done with them for each packet.
_REQUEST, _REPLY = PacketType.REQUEST, PacketType.REPLY
_KEY_REQUEST, _KEY_REPLY, _COOKIE = PacketType.KEY_REQUEST, PacketType.KEY_REPLY, PacketType.COOKIE
_REQUESTS = (int(_REQUEST), _REQUEST | 0x80)  # without and with a cookie
_PASS, _SEND_COOKIE = Verdict.PASS, Verdict.COOKIE
_UNPROVED, _CURRENT = Proof.NONE, Proof.CURRENT
_KEPT, _DOUBTED, _REFUSED = Seating.KEPT, Seating.DOUBTED, Seating.REFUSED

_MOMENT_S = 1.0
"""Of those who speak twice within it, the table, the voices and the gate hear once: a seat's time needs no finer
measure, and in a lookup each node answers many times a second."""


class SealedProtocol(KademliaProtocol):
    """`kademlia`'s protocol with another wire and another RPC.

    From kademlia and rpcudp: `source_node`, `router`, `storage`, `_outstanding`. Not inherited in effect: the datagram
    handlers (two tasks for each packet, unpacked before it is checked), `welcome_if_new` (a seat for whoever speaks),
    and `__getattr__` (an attribute that is missing would become a remote call).
    """

    source_node: Contact
    router: RoutingTable
    _outstanding: dict[bytes, Outstanding]

    def __init__(self, shared: Shared, family: Family, routers: dict[Family, RoutingTable]) -> None:
        own = Contact(shared.node_key.public, Address("::" if family is Family.IPV6 else "0.0.0.0", 0))  # noqa: S104
        super().__init__(own, shared.store, shared.network.k)
        self._shared = shared
        self._counters = shared.counters
        self._local = shared.network.local
        self._socket: DatagramSocket | None = None
        # Of whom this moment has learnt that they are there, by their bytes, and whether they answered
        self._heard_lately: dict[bytes, bool] = {}
        self._moment_ends = 0.0
        shared.settle(asyncio.get_running_loop())
        self._requests = Requests(shared, self._on_unanswered, self._on_end)
        self._outstanding = self._requests.waiting
        self.router = RoutingTable(own, shared.network.k, shared.config, local=shared.network.local, now=shared.now())
        routers[family] = self.router
        self.operations = Operations(
            family,
            routers,
            shared.store,
            shared.parser,
            shared.network,
            shared.counters,
            no_seat=shared.no_seat,
            stores=shared.stores,
        )
        # Requests without a proof, as they came: whoever has one does not wait behind a crowd of strangers.
        self._waiting: list[tuple[bytes, Address, bytes]] = []  # an empty deque has 600 B
        self._turns_taken = 0
        self.on_seated: Callable[[Contact], None] | None = None
        """Told of each contact that newly got a seat."""
        self.on_request: Callable[[Contact, bool, bool], None] | None = None
        """Told of each request that could be read: from whom, whether the address was proved, and whether it takes
        seats."""
        self.on_stranger: Callable[[float], None] | None = None
        """Told when a request comes from somebody of whom we have heard nothing for a cookie epoch or two."""
        self.on_outcome: Callable[[Contact, bool], None] | None = None
        """Told of each of our requests that ended: whom it went to, and whether it was answered."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def open(self, bind: Address) -> Address:
        """Bind the socket; gives the bound address. Raises `PortInUse`."""
        self._socket = self._shared.host.datagrams.open(bind, self.datagram_received)
        sift_crowds(self._socket, self.sift)
        self._requests.open(self._socket)
        return self._socket.address

    def close(self) -> None:
        """Close the socket; what is outstanding is answered None."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._waiting.clear()
        self._requests.close()

    # --- asking ---

    def ask(self, contact: Contact, request: Request, on_answer: OnAnswer) -> None:
        """Send `request` to `contact`; `on_answer` hears what became of it."""
        self._requests.ask(contact, request, on_answer)

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
        return await self._requests.find_key(address, timeout_s)

    def _on_unanswered(self, contact: Contact, now: float) -> None:
        self._heard_lately.pop(contact.packed, None)
        self.router.on_failure(contact, now)
        self.tell_seated()

    def _on_end(self, contact: Contact, answered: bool) -> None:
        if self.on_outcome is not None:
            self.on_outcome(contact, answered)

    # --- hearing ---

    def datagram_received(self, data: bytes, addr: Address) -> None:  # type: ignore[override] # an Address, always
        """Whatever a stranger sent. Never raises."""
        size = len(data)
        counters = self._counters
        counters["dht.received"] += 1
        counters["dht.received_bytes"] += size
        if not MIN_DATAGRAM <= size <= MAX_DATAGRAM:
            counters["dht.short" if size < MIN_DATAGRAM else "dht.long"] += 1
            return
        if data[0] != 1:
            counters["dht.unknown_major"] += 1
            return
        where = pack_acceptable(addr, self._local)
        if not where:
            counters["dht.bad_address"] += 1
            return
        kind = data[1]
        try:
            if kind == _REPLY:
                key = sender_of(data)
                if key + where not in self._requests.expected:
                    counters["dht.unasked"] += 1
                    return
                reply = decode(reply_decoder, self._shared.sealer.body(data, _REPLY, key))
            elif kind in _REQUESTS:
                self._on_request_packet(data, addr, where)
                return
            else:
                self._on_plain(kind, data, addr)
                return
        except WireError:
            counters["dht.unreadable"] += 1
            return
        self._on_reply(reply, key, addr)

    def sift(self, heads: list[bytes], places: list[bytes], sizes: list[int]) -> list[int]:
        """Which datagrams of a crowd to read (`datagrams.Sift`)."""
        return sift(
            heads,
            places,
            sizes,
            expected=self._requests.expected,
            room=_MAX_WAITING - len(self._waiting) + _AT_ONCE - self._turns_taken,
            gate=self._shared.gate,
            counters=self._counters,
            now=self._shared.now(),
        )

    def _on_plain(self, kind: int, data: bytes, source: Address) -> None:
        """What is not sealed."""
        shared = self._shared
        if kind == _KEY_REQUEST:
            reply = answer_key_request(data, shared.network.network_id, shared.node_key.public)
            verdict = shared.gate.on_key_request(pack_address(source), shared.now())
            if verdict is not _PASS:
                self._counters[verdict.counter] += 1
            elif self._socket is not None:
                self._socket.send(reply, source)
        elif kind == _KEY_REPLY:
            self._requests.on_key(*read_key_reply(data), source)
        elif kind == _COOKIE:
            self._requests.on_cookie(*read_cookie_answer(data), source)
        else:
            raise WireError("unknown type")

    def _on_request_packet(self, data: bytes, source: Address, where: bytes) -> None:
        """A REQUEST: let in or not by what its header says, before a public-key operation."""
        key, cookie = request_header(data)
        now = self._shared.now()
        proof = self._shared.cookies.check(cookie, where, key, now)
        if proof is not _UNPROVED or self._may_serve():
            self._judge(data, source, where, key, proof, now)
        elif len(self._waiting) < _MAX_WAITING:
            self._waiting.append((data, source, where))
        else:
            verdict = self._shared.gate.on_crowded_out(where, now)
            self._turn_away(verdict, data, source, where, key, now)

    def _may_serve(self) -> bool:
        """Whether one more request without a proof is served in this turn of the loop."""
        if self._turns_taken >= _AT_ONCE:
            return False
        if not self._turns_taken:
            asyncio.get_running_loop().call_soon(self._on_turn)
        self._turns_taken += 1
        return True

    def _on_turn(self) -> None:
        """The next turn of the loop: those who wait come first, in their order."""
        self._turns_taken = 0
        now = self._shared.now()
        while self._waiting and self._may_serve():
            data, source, where = self._waiting.pop(0)
            try:
                self._judge(data, source, where, sender_of(data), _UNPROVED, now)
            except WireError:
                self._counters["dht.unreadable"] += 1

    def _judge(self, data: bytes, source: Address, where: bytes, key: bytes, proof: Proof, now: float) -> None:
        shared = self._shared
        is_proved = proof is not _UNPROVED
        verdict = shared.gate.on_request(key, where, is_proved=is_proved, now=now)
        if verdict is _PASS:
            request = decode(request_decoder, shared.sealer.body(data, _REQUEST, key))
            sender = known_at(key + where) or (contact_at if is_proved else stranger_at)(key, source)
            self._on_request(request, sender, proof, len(data), now)
        else:
            self._turn_away(verdict, data, source, where, key, now)

    def _turn_away(self, verdict: Verdict, data: bytes, source: Address, where: bytes, key: bytes, now: float) -> None:
        self._counters[verdict.counter] += 1
        if verdict is _SEND_COOKIE and self._socket is not None:
            answer = answer_with_cookie(data, self._shared.cookies.issue(where, key, now))
            self._counters["dht.sent_bytes"] += len(answer)
            self._socket.send(answer, source)

    def _on_request(self, request: Request, sender: Contact, proof: Proof, size: int, now: float) -> None:
        shared = self._shared
        takes_seats = not request.flags & FLAG_NO_SEAT
        if now >= self._moment_ends:
            self._begin_moment(now)
        is_new = sender.packed not in self._heard_lately
        if is_new and self.on_stranger is not None and not shared.gate.knows(sender.key, now):
            self.on_stranger(now)
        if proof is not _UNPROVED:
            if is_new:
                self._on_proved(sender, takes_seats, now, answered=False)
            proved = True
        else:
            # It answered us from there a moment ago: whoever hands a record to a newcomer that asked it has no cookie
            # of the newcomer's yet, and a fifth of all requests of a growing network would be made twice.
            proved = self.router.proved_within(sender, shared.config.cookie_use_s, now)
        cookie = b"" if proof is _CURRENT else shared.cookies.issue(sender.packed[KEY_SIZE:], sender.key, now)
        room = MAX_DATAGRAM if proved else min(MAX_DATAGRAM, _UNPROVED_FACTOR * size)
        reply = self.operations.answer(Asked(request, sender, proved, cookie, room), shared.wall())
        datagram = shared.sealer.seal(_REPLY, sender.key, encode(reply), shared.host.rng.randbytes(NONCE_SIZE))
        if len(datagram) > room:
            self._counters["dht.over_room"] += 1
            return
        if self._socket is not None:
            counters = self._counters
            counters["dht.answered"] += 1
            counters["dht.sent_bytes"] += len(datagram)
            self._socket.send(datagram, sender.address)
        if self.on_request is not None:
            self.on_request(sender, proved, takes_seats)

    def _on_reply(self, reply: Reply, key: bytes, source: Address) -> None:
        shared = self._shared
        outstanding = self._outstanding.get(reply.request_id)
        sender = None if outstanding is None else outstanding.contact
        if outstanding is None or sender is None or sender.key != key or sender.address != source:
            self._counters["dht.unasked"] += 1
            return
        now = shared.now()
        rtt_s = now - outstanding.sent_at
        if outstanding.tries == 1:
            shared.known.on_sample(sender, rtt_s)
        has_cookie = len(reply.cookie) == COOKIE_SIZE
        if has_cookie:
            shared.known.on_cookie(sender, reply.cookie, now)
        elif outstanding.cookie and outstanding.cookie == outstanding.cookie_packet:
            shared.known.on_cookie(sender, outstanding.cookie_packet, outstanding.sent_at)
        if now >= self._moment_ends:
            self._begin_moment(now)
        if not self._heard_lately.get(sender.packed):
            if not isinstance(outstanding.request, Notify):
                # Those we chose to ask have a voice. Whom we notify chose us, and may come in any number.
                shared.observed.on_you(sender.key, reply.you)
                # Half of the round trip passed since they looked at their clock.
                shared.skew.on_time(sender.key, reply.time_ms / 1000 + rtt_s / 2, shared.host.clock.wall())
            self._on_proved(sender, not reply.flags & FLAG_NO_SEAT, now, answered=True)
        if has_cookie and isinstance(reply, NeedCookie) and not outstanding.needs_cookie_again:
            outstanding.needs_cookie_again = True
            self._requests.ask_again(reply.request_id, outstanding, now)
            return
        answer = None
        if type(reply) in _EXPECTED[type(outstanding.request)]:
            answer = Answer(reply, rtt_s, bool(outstanding.cookie) and not reply.cookie)
        else:
            self._counters["dht.wrong_reply"] += 1
        self._requests.end(reply.request_id, answer)

    def _begin_moment(self, now: float) -> None:
        """A moment is over, in which nothing more was to be learnt from those that we had heard."""
        self._moment_ends = now + _MOMENT_S
        self._heard_lately.clear()

    def on_elsewhere(self) -> None:
        """We slept or moved: what anybody says counts anew."""
        self._heard_lately.clear()

    def _on_proved(self, contact: Contact, takes_seats: bool, now: float, *, answered: bool) -> None:
        """It is who and where it says."""
        if not self._local:  # where there is a budget for those who have not proved themselves
            self._shared.unproved.on_proved(contact.address.ip)
        self._shared.gate.on_proved(contact.key, now)
        if not takes_seats:
            return
        seating = self.router.on_proved(contact, now, answered=answered)
        if seating is not _REFUSED:
            self._heard_lately[contact.packed] = answered
        if seating is _DOUBTED:
            self.ping(contact, lambda _: None)
        elif seating is not _KEPT:
            self.tell_seated()

    def tell_seated(self) -> None:
        """Tell `on_seated` of all that newly got a seat."""
        for contact in self.router.take_seated():
            if self.on_seated is not None:
                self.on_seated(contact)
