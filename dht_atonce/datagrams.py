"""The datagram seam, and UDP behind it.

Above the seam: `DatagramNet.open` gives a `DatagramSocket`, and each datagram is handed to a callback. The virtual
world has its own `DatagramNet`.
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from functools import lru_cache
from time import monotonic
from typing import Any, Protocol

from dht_atonce.bulk import BulkReader, bulk_reader
from dht_atonce.endpoints import Address, Family, unpack_address
from dht_atonce.errors import NoFamily, PortInUse

__all__ = ["MAX_DATAGRAM", "DatagramNet", "DatagramSocket", "OnDatagram", "Sift", "UdpNet", "sift_crowds"]

MAX_DATAGRAM = 1232
"""Bytes: the IPv6 minimum MTU of 1,280 less the IPv6 and UDP headers (RFC 8200, RFC 9000 section 14.1)."""

OnDatagram = Callable[[bytes, Address], None]
Sift = Callable[[list[bytes], list[bytes], list[int]], Iterable[int]]
"""Told of a crowd of datagrams the first 34 bytes, the source as on the wire (6 or 18 B) and the size of each; gives
which of them to read, in which order."""

_FEW = 16  # datagrams per wake-up that are read one by one; more are a crowd
_DRAIN = 256  # datagrams per wake-up: twice the throughput of asyncio's own transport
_BATCHES = 16  # of a crowd, 64 in each: what is only looked at takes two microseconds
_DRAIN_S = 0.002  # and still fair to timers: most of a flood is dropped within microseconds, an answer takes a hundred
_BUFFER_BYTES = 4 << 20
"""A burst of answers to one lookup shall not overflow the kernel's default of 208 KiB, nor shall 20,000 spoofed packets
a second while we do not run for a moment (at 1 MiB a tenth was lost, honest ones too). The kernel may allow less:
`net.core.rmem_max`."""


@lru_cache(maxsize=4096)
def _address(source: tuple[Any, ...]) -> Address:
    """What a socket says of a sender, made once for all the datagrams of one."""
    return Address(*source[:2])


_address_at = lru_cache(maxsize=4096)(unpack_address)
"""The same, of a sender's bytes."""


class DatagramSocket(Protocol):
    """A bound socket."""

    @property
    def address(self) -> Address:
        """Where it is bound."""

    def send(self, data: bytes, to: Address) -> None:
        """Send, or lose it: like UDP, this never raises for what the network does."""

    def close(self) -> None:
        """No callback comes afterwards. May be called twice."""


class DatagramNet(Protocol):
    """Where datagram sockets come from."""

    def open(self, bind: Address, on_datagram: OnDatagram) -> DatagramSocket:
        """Bind to `bind` (port 0: any) and hand each datagram to `on_datagram`. Raises `PortInUse`."""


def sift_crowds(datagrams: DatagramSocket, sift: Sift) -> None:
    """From now on `sift` chooses what is read when many datagrams are there at once, if the socket can do that."""
    if isinstance(datagrams, _UdpSocket):
        datagrams.sift = sift


class UdpNet:
    """Real UDP."""

    def open(self, bind: Address, on_datagram: OnDatagram) -> DatagramSocket:
        if not 0 <= bind.port <= 65535:
            raise PortInUse(f"{bind.port} is no port; choose one up to 65535, or 0 for any")
        kind = socket.AF_INET6 if bind.family is Family.IPV6 else socket.AF_INET
        try:
            sock = socket.socket(kind, socket.SOCK_DGRAM)
        except OSError as error:
            raise NoFamily(f"no {bind.family.name} on this machine: {error.strerror}") from None
        try:
            sock.setblocking(False)
            if bind.family is Family.IPV6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            sock.bind(bind)
        except OSError as error:
            sock.close()
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise NoFamily(f"{bind.ip} is no address of this machine; choose one that is") from None
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error.strerror})"
            raise PortInUse(f"UDP {bind} {reason}; choose another port, or 0 for any") from None
        return _UdpSocket(sock, on_datagram)


class _UdpSocket:
    def __init__(self, sock: socket.socket, on_datagram: OnDatagram) -> None:
        self._sock = sock
        self._on_datagram = on_datagram
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._bulk: BulkReader | None = None
        self.sift: Sift | None = None
        self.address = Address(*sock.getsockname()[:2])
        self._loop.add_reader(sock.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        until = monotonic() + _DRAIN_S
        receive, on_datagram = self._sock.recvfrom, self._on_datagram
        for number in range(_DRAIN):
            if self._closed:
                return
            if number == _FEW and self.sift is not None and self._read_crowd(self.sift, until):
                return
            try:
                data, source = receive(2048)
            except BlockingIOError:
                return
            except OSError:
                # An ICMP "port unreachable" for something we sent earlier; the request's own timeout handles it.
                continue
            # What is longer than any packet of ours comes cut short; whoever counts shall count it.
            on_datagram(data, _address(source))
            if monotonic() > until:
                return

    def _read_crowd(self, sift: Sift, until: float) -> bool:
        """Read many at once; False if that is not possible here."""
        bulk = self._bulk
        if bulk is None:
            bulk = self._bulk = bulk_reader(self._sock)
            if bulk is None:
                self.sift = None
                return False
        for _ in range(_BATCHES):
            try:
                if not bulk.read():
                    return True
            except OSError:
                continue  # as above
            places = bulk.places()
            for at in sift(bulk.heads(), places, bulk.sizes):
                try:
                    self._on_datagram(bulk.datagram(at), _address_at(places[at]))
                except Exception as error:  # the others are read already, and would be lost with it
                    context = {"message": "a callback for datagrams failed", "exception": error}
                    self._loop.call_exception_handler(context)
                if self._closed:
                    return True
            if not bulk.was_full or monotonic() > until:
                return True
        return True

    def send(self, data: bytes, to: Address) -> None:
        if self._closed:
            return
        try:
            self._sock.sendto(data, to)
        except (OSError, OverflowError):
            # Buffer full, no route, network down: to the layer above all of it is a lost packet.
            return

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
