"""The listening end: one ROUTER, its inbound links, and the TCP connections under them.

libzmq tells little about a ROUTER's connections. What there is, put together, names each of them: the monitor tells
when a descriptor was accepted and when it ended, a message tells the descriptor that it came over, and the kernel tells
the address behind a descriptor. That also gives what libzmq lacks, a way to end one: shut its descriptor down.
"""

import asyncio
import ctypes
import errno
import itertools
import random
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import zmq

from dht_atonce.endpoints import Address, Family
from dht_atonce.errors import NoFamily, PortInUse
from dht_atonce.links import LARGE, OnLink
from dht_atonce.messaging.curve_link import LINGER_MS, TOKEN_SIZE, VERSION, CurveLink, Shared, zmq_endpoint
from dht_atonce.messaging.pump import NOBLOCK, SNDMORE_NOBLOCK, Monitor, Pump, Socket, sender
from dht_atonce.messaging.zap import ZAP_DOMAIN, Admission

__all__ = ["Listener", "first_routing_id"]

_BACKLOG = 1024
_OPEN_GRACE_S = 1.0  # after the handshake limit; OPEN travels right behind the handshake
_CLOSE_GRACE_S = 1.0  # longer than LINGER_MS: for CLOSE to arrive and the dialler to hang up by itself

_MAX_OVER = 4096  # ended links whose late frames are known for what they are

_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
_probe_numbers = itertools.count()


@dataclass(slots=True, eq=False)
class _Connection:
    """One accepted TCP connection, from the kernel's accept to its end."""

    fd: int
    peer: Address
    timer: asyncio.TimerHandle | None = None
    """Cuts the connection: it runs while there is no open link."""
    link: "_InboundLink | None" = None
    """Set by OPEN, and kept when the link has closed: a connection opens one link."""


class Listener:
    """A `LinkPort`. Raises `PortInUse`.

    `max_connections` bounds the TCP connections without a link, whatever they did or did not prove.
    """

    def __init__(
        self, shared: Shared, bind: Address, on_link: OnLink, admission: Admission, max_connections: int
    ) -> None:
        self._shared = shared
        self._counters = shared.counters
        self._on_link = on_link
        self._admission = admission
        self._max_connections = max_connections
        self._loop = asyncio.get_running_loop()
        self._connections: dict[int, _Connection] = {}
        self._waiting: dict[int, _Connection] = {}
        """Those that have not sent OPEN, oldest first."""
        self._links: dict[bytes, _InboundLink] = {}
        """Open links by routing id."""
        self._over: dict[bytes, None] = {}
        """Routing ids whose links have ended, or never will be opened: what still comes from them is nobody else's,
        though the descriptor that it came over may be another connection's by now."""
        self._accepted = 0
        self.is_closed = False
        with _listening_socket(bind) as listening:
            self.address = Address(*listening.getsockname()[:2])
            _hide_routing_ids(shared.rng)
            self._router = router = shared.socket(zmq.ROUTER, bind.family)
            router.set(zmq.CURVE_SERVER, True)
            router.set(zmq.ZAP_DOMAIN, ZAP_DOMAIN.encode())
            router.set(zmq.ZAP_ENFORCE_DOMAIN, True)
            router.set(zmq.ROUTER_MANDATORY, True)
            self.first_id = first_routing_id(router)
            self._monitor = Monitor(router, _EVENTS, self._on_event, shared.config.drain)
            # libzmq takes over a socket that we bound: it would make an IPv6 one that takes IPv4's port as well.
            router.set(zmq.USE_FD, listening.fileno())
            router.bind(zmq_endpoint(self.address))
            listening.detach()
        self._send = sender(router)
        self._pump = Pump(router, self._read_one, shared.config.drain)

    # --- connections ---

    def refresh(self) -> None:
        """Take in what happened to the connections up to now."""
        self._monitor.drain()

    def _on_event(self, event: int, value: int) -> None:
        if event == zmq.EVENT_ACCEPTED:
            self._on_accepted(value)
        else:
            self._on_disconnected(value)

    def _on_accepted(self, fd: int) -> None:
        self._on_disconnected(fd)  # libzmq has said so already, except where it keeps an end to itself
        self._accepted += 1
        connection = self._connections[fd] = self._waiting[fd] = _Connection(fd, _peer_of(fd))
        self._admission.on_accepted(connection.peer.ip)
        self._cut_later(connection, self._shared.config.handshake_s + _OPEN_GRACE_S)
        if len(self._waiting) > self._max_connections:
            # The oldest has had the most time to log in; who is honest takes a few milliseconds.
            self._counters["link.refused_flood"] += 1
            self._cut(next(iter(self._waiting.values())))

    def _on_disconnected(self, fd: int) -> None:
        connection = self._connections.get(fd)
        if connection is None:
            return
        self._forget(connection)
        if connection.link is None:
            self._counters["link.never_opened"] += 1
        elif not connection.link.is_closed:
            # In the next turn, since we may be in the middle of reading the frames that it waits for.
            self._loop.call_soon(connection.link.end_when_dry, self._pump, "the connection is lost")

    def _forget(self, connection: _Connection) -> None:
        del self._connections[connection.fd]
        self._waiting.pop(connection.fd, None)
        if connection.timer is not None:
            connection.timer.cancel()
        self._admission.on_ended(connection.peer.ip, connection.link is not None)

    def _cut_later(self, connection: _Connection, delay_s: float) -> None:
        connection.timer = self._loop.call_later(delay_s, self._on_timer, connection)

    def _on_timer(self, connection: _Connection) -> None:
        self.refresh()
        if self._connections.get(connection.fd) is connection:
            self._cut(connection)

    def _cut(self, connection: _Connection) -> None:
        """End the TCP connection. The monitor reports the end; until then it is waiting for nothing."""
        self._waiting.pop(connection.fd, None)
        if _shut_down(connection.fd, connection.peer):
            self._counters["link.cut"] += 1
        else:
            self._forget(connection)

    # --- frames ---

    def _read_one(self) -> bool:
        router = self._router
        try:
            routing_id = router.recv(NOBLOCK)
        except zmq.Again:
            return False
        # libzmq hands over whole messages only. A Frame says whether more follow for less than asking the socket costs.
        frame = router.recv(NOBLOCK, copy=False)
        link = self._links.get(routing_id)
        if frame.more:
            self._counters["link.multipart"] += 1
            while router.get(zmq.RCVMORE):
                router.recv(zmq.NOBLOCK)
        elif link is not None:
            link.receive(frame.bytes if len(frame) < LARGE else cast("bytes", frame.buffer))
        else:
            self._read_stranger(routing_id, frame)
        return True

    def _read_stranger(self, routing_id: bytes, frame: zmq.Frame) -> None:
        """A message over a connection without an open link: OPEN, or nothing that we want."""
        if routing_id in self._over:
            self._counters["link.after_close"] += 1
            return
        self.refresh()  # descriptors are used again: what we know of this one must not be older than the message
        connection = self._connections.get(frame.get(zmq.SRCFD))
        if connection is None or connection.peer.ip != _plain(_property(frame, "Peer-Address")):
            self._counters["link.stale"] += 1
        elif connection.link is not None:
            self._counters["link.after_close"] += 1
        elif not self.is_given(routing_id):
            self._counters["link.routing_id_set"] += 1
            self._cut(connection)
        elif frame.bytes != VERSION:
            self._counters["link.not_open"] += 1
            self._set_over(routing_id)
            self._cut(connection)
        else:
            self._open(connection, routing_id, bytes.fromhex(_property(frame, "User-Id")))

    def _open(self, connection: _Connection, routing_id: bytes, curve_key: bytes) -> None:
        token = self._shared.rng.randbytes(TOKEN_SIZE)
        if not self.write(routing_id, token + VERSION):
            self._counters["link.stale"] += 1
            return
        link = _InboundLink(self, self._shared, connection, routing_id, curve_key, token)
        connection.link = self._links[routing_id] = link
        del self._waiting[connection.fd]
        if connection.timer is not None:
            connection.timer.cancel()
        self._on_link(link)

    def is_given(self, routing_id: bytes) -> bool:
        """Whether this is one of the routing ids that libzmq has counted up to, not one that the other side set.

        The property "Identity" does not tell: it ends at the first zero byte, and an id may begin with one.
        """
        if len(routing_id) != 5 or routing_id[0] != 0:
            return False
        number = int.from_bytes(routing_id[1:], "big") - self.first_id & 0xFFFFFFFF
        return 0 < number <= self._accepted

    def write(self, routing_id: bytes, frame: bytes) -> bool:
        """Queue a frame for a connection. False: its queue is full, or it is gone."""
        try:
            self._send(routing_id, SNDMORE_NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EAGAIN, errno.EHOSTUNREACH):
                raise
            link = self._links.get(routing_id)
            if link is not None and error.errno == errno.EHOSTUNREACH:
                self._loop.call_soon(link.end, "the connection is lost")
            return False
        self._send(frame, NOBLOCK)
        self._pump.kick()
        return True

    def release(self, link: "_InboundLink") -> None:
        """The link is closed. Its connection, if it lives, gets a moment to hang up by itself."""
        del self._links[link.routing_id]
        self._set_over(link.routing_id)
        connection = link.connection
        if self._connections.get(connection.fd) is connection:
            self._cut_later(connection, _CLOSE_GRACE_S)

    def _set_over(self, routing_id: bytes) -> None:
        self._over[routing_id] = None
        if len(self._over) > _MAX_OVER:
            del self._over[next(iter(self._over))]

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        for link in list(self._links.values()):
            link.close()
        for connection in list(self._connections.values()):
            self._forget(connection)
        self._monitor.close()
        self._pump.close(LINGER_MS)


class _InboundLink(CurveLink):
    def __init__(
        self,
        listener: Listener,
        shared: Shared,
        connection: _Connection,
        routing_id: bytes,
        curve_key: bytes,
        token: bytes,
    ) -> None:
        super().__init__(shared, curve_key, connection.peer, outbound=False, token=token)
        self.connection = connection
        self.routing_id = routing_id
        self._listener = listener

    def _write(self, frame: bytes) -> bool:
        return self._listener.write(self.routing_id, frame)

    def _release(self) -> None:
        self._listener.release(self)


# --- the machine below libzmq ---


def _listening_socket(bind: Address) -> socket.socket:
    """A TCP socket that listens, of one family only. Raises `PortInUse`."""
    kind = socket.AF_INET6 if bind.family is Family.IPV6 else socket.AF_INET
    try:
        sock = socket.socket(kind, socket.SOCK_STREAM)
    except OSError as error:
        raise NoFamily(f"no {bind.family.name} on this machine: {error.strerror}") from None
    try:
        if bind.family is Family.IPV6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(bind)
        sock.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        number = error.errno if isinstance(error, OSError) else 0
        if number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise NoFamily(f"{bind.ip} is no address of this machine; choose one that is") from None
        reason = "is in use" if number == errno.EADDRINUSE else f"cannot be bound ({getattr(error, 'strerror', error)})"
        raise PortInUse(f"TCP {bind} {reason}; choose another port, or 0 for any") from None
    return sock


def _hide_routing_ids(rng: random.Random) -> None:
    """Give the next ROUTER a count of routing ids that no stranger can foresee.

    libzmq starts the count at rand(), which nobody seeds: it is 0x6b8b4567 everywhere. Who claims the id that is next
    makes libzmq abort the whole process when it gives that id to somebody else (4.3.5, socket_base.cpp:2113).
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).srand(ctypes.c_uint(rng.getrandbits(32)))


def first_routing_id(router: Socket) -> int:
    """Where the count of routing ids stands, learned by connecting within the process."""
    endpoint = f"inproc://probe-{next(_probe_numbers)}"
    probe: Socket = router.context.socket(zmq.DEALER)
    router.bind(endpoint)
    probe.connect(endpoint)
    probe.send(b"", zmq.NOBLOCK)
    routing_id, _ = router.recv_multipart(zmq.NOBLOCK)
    router.unbind(endpoint)
    probe.close(0)
    return int.from_bytes(routing_id[1:], "big")


def _property(frame: zmq.Frame, name: str) -> str:
    """What a message's connection says of itself; "" if nothing."""
    try:
        return str(frame.get(name))
    except (KeyError, zmq.ZMQError):
        return ""
    except UnicodeDecodeError:
        return "?"


def _plain(ip: str) -> str:
    """An address without the zone of a link-local one."""
    return ip.partition("%")[0]


def _peer_of(fd: int) -> Address:
    """Who is at the other end of a descriptor that libzmq owns; an address without IP if the connection is gone."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return Address("", 0)
    try:
        ip, port = sock.getpeername()[:2]
        return Address(_plain(ip), port)
    except (OSError, ValueError):
        return Address("", 0)
    finally:
        sock.detach()


def _shut_down(fd: int, peer: Address) -> bool:
    """Shut down the connection to `peer` on `fd`. False, and nothing done, if the descriptor is another's by now."""
    if not peer.ip or _peer_of(fd) != peer:
        return False
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    finally:
        sock.detach()
    return True
