"""The requests of one socket that wait for an answer: sent, repeated once, and then failed.

A reply is matched on request id, address and key. What a reply says of its sender is the protocol's business; here
it ends a request.
"""

import asyncio
import heapq
from collections.abc import Callable

import msgspec

from dht_atonce.codec import encode
from dht_atonce.datagrams import DatagramSocket
from dht_atonce.dht.contact import Contact, shared_contact
from dht_atonce.dht.sealing import MIN_UNPROVED_FIND, NONCE_SIZE, PacketType, key_request
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.wire import FindMembers, FindNode, FindValue, Reply, Request
from dht_atonce.endpoints import Address
from dht_atonce.errors import WireError

__all__ = ["Answer", "OnAnswer", "Outstanding", "Requests"]

_REQUEST = PacketType.REQUEST
_FINDS = (FindNode, FindValue, FindMembers)


class Answer(msgspec.Struct, frozen=True):
    """A reply that was waited for."""

    reply: Reply
    rtt_s: float
    proved: bool
    """Our request carried a cookie that is still good: they know that we are where we say."""


OnAnswer = Callable[[Answer | None], None]
"""Called once, never from within `ask`. None: no answer, or a useless one."""


class Outstanding(msgspec.Struct, eq=False):
    """A request that waits for its answer."""

    contact: Contact
    request: Request
    on_answer: OnAnswer
    cookie: bytes = b""
    nonce: bytes = b""
    datagram: bytes = b""
    sent_at: float = 0.0
    tries: int = 0
    deadline: float = 0.0
    needs_cookie_again: bool = False
    cookie_packet: bytes = b""
    """The cookie that came unsealed: it is remembered once a sealed answer shows that it was the node's."""


class Requests:
    """Sends requests from one socket; `now` is monotonic seconds.

    `on_unanswered` is told of each contact that did not answer any try, `on_end` of each request that ended: whom it
    went to, and whether it was answered.
    """

    def __init__(
        self,
        shared: Shared,
        on_unanswered: Callable[[Contact, float], None],
        on_end: Callable[[Contact, bool], None],
    ) -> None:
        self.waiting: dict[bytes, Outstanding] = {}
        """By request id."""
        # What may arrive: who is asked, as often as it is, and the request that was sent with a nonce. An answer that
        # is in neither costs nothing.
        self.expected: dict[bytes, int] = {}
        self._nonces: dict[bytes, bytes] = {}
        self._shared = shared
        self._counters = shared.counters
        self._local = shared.network.local
        self._on_unanswered = on_unanswered
        self._on_end = on_end
        self._socket: DatagramSocket | None = None
        self._loop = asyncio.get_running_loop()
        # (deadline, request id) of all tries, the earliest first; those that were answered or tried again meanwhile are
        # passed over. One timer for all: asyncio's own heap compares handles in Python, at ten times the cost.
        self._deadlines: list[tuple[float, bytes]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._key_waiters: dict[bytes, tuple[Address, asyncio.Future[bytes | None]]] = {}

    def open(self, socket: DatagramSocket) -> None:
        """Send from `socket` from now on."""
        self._socket = socket

    def close(self) -> None:
        """Send nothing more; all that wait are answered None."""
        self._socket = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for request_id in list(self.waiting):
            self._fail(request_id)
        for _, waiter in self._key_waiters.values():
            if not waiter.done():
                waiter.set_result(None)

    # --- asking ---

    def ask(self, contact: Contact, request: Request, on_answer: OnAnswer) -> None:
        """Send `request` to `contact`; `on_answer` hears what became of it."""
        if self._socket is None or len(self.waiting) >= self._shared.config.max_outstanding:
            self._counters["dht.not_asked"] += 1
            self._loop.call_soon(on_answer, None)
            return
        contact = shared_contact(contact)
        packed, request_id, expected = contact.packed, request.request_id, self.expected
        outstanding = self.waiting[request_id] = Outstanding(contact, request, on_answer)
        expected[packed] = expected.get(packed, 0) + 1
        self._send(request_id, outstanding, self._shared.now())

    def ask_again(self, request_id: bytes, outstanding: Outstanding, now: float) -> None:
        """Send it with the cookie that we have by now."""
        outstanding.tries = 0
        self._send(request_id, outstanding, now)

    def on_cookie(self, nonce: bytes, cookie: bytes, source: Address) -> None:
        """Whoever we asked with `nonce` has more strangers than it can open boxes of, and wants `cookie` (16 B) first.

        Who does not see what we send cannot know the nonce."""
        request_id = self._nonces.get(nonce)
        outstanding = self.waiting.get(request_id) if request_id is not None else None
        if request_id is None or outstanding is None or outstanding.contact.address != source:
            self._counters["dht.unasked"] += 1
            return
        if outstanding.cookie_packet:
            self._counters["dht.cookie_refused"] += 1
            return
        self._counters["dht.asked_for_cookie"] += 1
        outstanding.cookie_packet = cookie
        if not self._shared.network.local:
            self._shared.unproved.on_proved(source.ip)
        self.ask_again(request_id, outstanding, self._shared.now())

    def end(self, request_id: bytes, answer: Answer | None) -> None:
        """It was answered, maybe by something useless. `on_answer` is called before this returns."""
        outstanding = self._forget(request_id)
        self._on_end(outstanding.contact, answer is not None)
        outstanding.on_answer(answer)

    async def find_key(self, address: Address, timeout_s: float) -> bytes | None:
        """The node key of whoever is at `address`, on its word (trust on first use); None if nobody answers."""
        if self._socket is None:
            return None
        nonce = self._shared.host.rng.randbytes(NONCE_SIZE)
        waiter: asyncio.Future[bytes | None] = self._loop.create_future()
        self._key_waiters[nonce] = (address, waiter)
        try:
            for _ in range(self._shared.config.tries):
                if not self._may_send(address, self._shared.now()):
                    return None
                self._socket.send(key_request(nonce, self._shared.network.network_id), address)
                try:
                    return await asyncio.wait_for(asyncio.shield(waiter), timeout_s / self._shared.config.tries)
                except TimeoutError:
                    continue
            return None
        finally:
            del self._key_waiters[nonce]

    def on_key(self, nonce: bytes, key: bytes, source: Address) -> None:
        """Somebody says that its node key is `key`."""
        address, waiter = self._key_waiters.get(nonce, (None, None))
        if waiter is None or address != source or waiter.done():
            self._counters["dht.unasked"] += 1
            return
        waiter.set_result(key)

    # --- inside ---

    def _forget(self, request_id: bytes) -> Outstanding:
        """It waits no longer."""
        outstanding = self.waiting.pop(request_id)
        packed, expected = outstanding.contact.packed, self.expected
        left = expected[packed] - 1
        if left:
            expected[packed] = left
        else:
            del expected[packed]
        self._nonces.pop(outstanding.nonce, None)
        return outstanding

    def _send(self, request_id: bytes, outstanding: Outstanding, now: float) -> None:
        shared, contact, request = self._shared, outstanding.contact, outstanding.request
        # What came sealed, with NEED_COOKIE, is truer.
        unsealed = b"" if outstanding.needs_cookie_again else outstanding.cookie_packet
        known, timeout_s = shared.known.towards(contact, now)
        cookie = outstanding.cookie = unsealed or known
        if outstanding.nonce:
            self._nonces.pop(outstanding.nonce, None)
        padded = not cookie and isinstance(request, _FINDS)
        nonce = outstanding.nonce = shared.host.rng.randbytes(NONCE_SIZE)
        try:
            outstanding.datagram = shared.sealer.seal(
                _REQUEST, contact.key, encode(request), nonce, cookie, MIN_UNPROVED_FIND if padded else 0
            )
            self._nonces[nonce] = request_id
        except WireError:
            outstanding.datagram = b""  # a contact whose key cannot be used: the tries send nothing, and it fails
        self._try(request_id, outstanding, now, timeout_s)

    def _may_send(self, address: Address, now: float) -> bool:
        if self._local or self._shared.unproved.take(address.ip, now):
            return True
        self._counters["dht.unproved_budget"] += 1
        return False

    def _try(self, request_id: bytes, outstanding: Outstanding, now: float, timeout_s: float) -> None:
        datagram, address = outstanding.datagram, outstanding.contact.address
        outstanding.tries += 1
        outstanding.sent_at = now
        if self._socket is not None and datagram and (self._local or self._may_send(address, now)):
            counters = self._counters
            counters["dht.sent"] += 1
            counters["dht.sent_bytes"] += len(datagram)
            self._socket.send(datagram, address)
        else:
            outstanding.tries = self._shared.config.tries
            timeout_s = 0.0
        deadline = outstanding.deadline = now + timeout_s
        heapq.heappush(self._deadlines, (deadline, request_id))
        if self._timer is None or deadline < self._timer_at:
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
            outstanding = self.waiting.get(request_id)
            if outstanding is not None and outstanding.deadline == deadline:
                self._on_timeout(request_id, outstanding)
        while self._deadlines and self._deadlines[0][1] not in self.waiting:
            heapq.heappop(self._deadlines)
        self._arm()

    def _on_timeout(self, request_id: bytes, outstanding: Outstanding) -> None:
        now = self._shared.now()
        if outstanding.tries < self._shared.config.tries:
            self._counters["dht.resent"] += 1
            # The second try waits no longer: until it is over the first may be answered too.
            self._try(request_id, outstanding, now, self._shared.known.timeout_s(outstanding.contact))
            return
        self._counters["dht.unanswered"] += 1
        self._on_unanswered(outstanding.contact, now)
        self._fail(request_id)

    def _fail(self, request_id: bytes) -> None:
        outstanding = self._forget(request_id)
        self._on_end(outstanding.contact, False)
        self._loop.call_soon(outstanding.on_answer, None)
