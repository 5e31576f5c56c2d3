"""The dialling end: one DEALER for each dial, never used again.

A socket that reconnects by itself would lose frames in silence and come back without its token. So it is given no time
to: a monitor tells when its one connection ends, and then it is closed.
"""

import asyncio
import ipaddress
from collections.abc import Callable

import zmq

from dht_atonce.endpoints import Address
from dht_atonce.errors import LinkError, LinkRefused
from dht_atonce.messaging.curve_link import LINGER_MS, TOKEN_SIZE, VERSION, CurveLink, Shared, zmq_endpoint
from dht_atonce.messaging.pump import NOBLOCK, Monitor, Pump, sender

__all__ = ["OutboundLink"]

_NEVER_MS = 86_400_000
"""Until libzmq reconnects. Not its -1, "never": with that it throws away, at the end of a connection, what has arrived
and was not read yet (4.3.5)."""

_EVENTS = (
    zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class OutboundLink(CurveLink):
    """A link that we dial. `opened` is done when it is open, or holds the `LinkError` that says why it is not.

    Raises `LinkError` if the dial cannot even begin. `on_released` is called when nothing is held below any more.
    """

    def __init__(
        self, shared: Shared, address: Address, curve_key: bytes, on_released: Callable[["OutboundLink"], None]
    ) -> None:
        super().__init__(shared, curve_key, address, outbound=True, token=b"")
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self._address = address
        self._on_released = on_released
        try:
            ipaddress.ip_address(address.ip)  # libzmq would resolve a name in its I/O thread, and block all links
            self._sock = shared.socket(zmq.DEALER, address.family)
        except ValueError:
            raise LinkError(f"{address} cannot be dialled: it is no IP address") from None
        except zmq.ZMQError as error:
            raise LinkError(f"no socket left for a link: {error.strerror}") from None
        try:
            self._sock.set(zmq.CURVE_SERVERKEY, curve_key)
            self._sock.set(zmq.RECONNECT_IVL, _NEVER_MS)
            self._sock.set(zmq.HANDSHAKE_IVL, 0)  # the dial has a timeout of its own
            self._monitor = Monitor(self._sock, _EVENTS, self._on_event, shared.config.drain)
            self._sock.connect(zmq_endpoint(address))
            self._sock.send(VERSION, zmq.NOBLOCK)  # OPEN: waits in the socket until CURVE is through
        except zmq.ZMQError as error:
            if hasattr(self, "_monitor"):
                self._monitor.close()
            self._sock.close(0)
            raise LinkError(f"{address} cannot be dialled: {error.strerror}") from None
        self._send = sender(self._sock)
        self._pump = Pump(self._sock, self._read_one, shared.config.drain)

    def _on_event(self, event: int, value: int) -> None:
        if self._token:
            if event == zmq.EVENT_DISCONNECTED:
                self._loop.call_soon(self.end_when_dry, self._pump, "the connection is lost")
        elif event == zmq.EVENT_CLOSED:
            self.fail(LinkError(f"nobody listens at {self._address}, or it cannot be reached"))
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self.fail(LinkRefused(f"{self._address} does not admit us: it is full, or has enough links from here"))
        else:
            # OPENED may have come just before the end. In the next turn, since this may be within reading.
            self._loop.call_soon(self._fail_when_dry)

    def _fail_when_dry(self) -> None:
        self._pump.drain()
        if self._token:
            self.end_when_dry(self._pump, "the connection is lost")
        else:
            self.fail(LinkRefused(f"{self._address} was reached but does not hold the key we expect, or refused us"))

    def fail(self, error: LinkError) -> None:
        """Give up a dial that is not open yet."""
        if not self.opened.done():
            self.opened.set_exception(error)
        self.abort()

    def abort(self) -> None:
        """Close without a word and without waiting."""
        if not self.is_closed:
            self.is_closed = True
            self._release(0)

    def _read_one(self) -> bool:
        sock = self._sock
        try:
            # A Frame says whether more follow for less than asking the socket costs.
            part = sock.recv(NOBLOCK, copy=False)
        except zmq.Again:
            return False
        frame = part.bytes
        if part.more:
            self._counters["link.multipart"] += 1
            while sock.get(zmq.RCVMORE):
                sock.recv(NOBLOCK)
        elif self._token:
            self.receive(frame)
        elif len(frame) == TOKEN_SIZE + len(VERSION) and frame.endswith(VERSION):
            self._token = frame[:TOKEN_SIZE]
            if not self.opened.done():
                self.opened.set_result(None)
        else:
            self._counters["link.not_opened"] += 1
        return True

    def _write(self, frame: bytes) -> bool:
        try:
            self._send(frame, NOBLOCK)
        except zmq.Again:
            return False
        self._pump.kick()
        return True

    def _release(self, linger_ms: int = LINGER_MS) -> None:
        self._monitor.close()
        self._pump.close(linger_ms)
        self._on_released(self)
