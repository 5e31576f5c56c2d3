"""Datagrams between the hosts of a world."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from dht_atonce.datagrams import DatagramSocket, OnDatagram
from dht_atonce.endpoints import Address
from dht_atonce.errors import PortInUse

if TYPE_CHECKING:
    from atonce_sim.world import VirtualHost

__all__ = ["Ports", "VirtualDatagrams", "VirtualSocket"]

_FIRST_PORT = 20_000


class Ports:
    """Gives a host's ports away, one kind (UDP or TCP) of them."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = _FIRST_PORT

    def take(self, bind: Address, ip: str, used: Callable[[Address], bool]) -> Address:
        """Where to bind. Raises `PortInUse`."""
        if bind.port:
            address = Address(ip, bind.port)
            if used(address):
                raise PortInUse(f"{address} is in use")
            return address
        while used(Address(ip, self._next)):
            self._next += 1
        return Address(ip, self._next)


class VirtualDatagrams:
    """One host's."""

    __slots__ = ("_host", "_ports")

    def __init__(self, host: "VirtualHost") -> None:
        self._host = host
        self._ports = Ports()

    def open(self, bind: Address, on_datagram: OnDatagram) -> DatagramSocket:
        # What still runs on a dead machine is given something that looks like a socket.
        sockets = self._host.world.sockets if not self._host.is_down else {}
        address = self._ports.take(bind, self._host.ip, sockets.__contains__)
        if self._host.toil is not None:
            on_datagram = self._host.toil.hears(on_datagram)
        socket = sockets[address] = VirtualSocket(self._host, address, on_datagram)
        self._host.bound.add(address)
        return socket


class VirtualSocket:
    """A bound socket."""

    __slots__ = ("_host", "_loop", "_sockets", "_trace", "_wires", "_world", "address", "on_datagram")

    def __init__(self, host: "VirtualHost", address: Address, on_datagram: OnDatagram) -> None:
        self.address = address
        self.on_datagram = on_datagram
        self._host = host
        self._world = world = host.world
        self._loop = world.loop
        self._sockets = world.sockets
        self._trace = world.trace
        self._wires = world.wires

    def send(self, data: bytes, to: Address) -> None:
        host, world = self._host, self._world
        if self._sockets.get(self.address) is not self:
            return
        size = len(data)
        world.datagrams += 1
        host.bytes_sent += size
        if host.toil is not None:
            host.toil.on_sent()
        other = world.hosts.get(to.ip)
        now = self._loop._now
        if world.bystanders and to.ip in world.bystanders:
            world.bystanders[to.ip].on_sent(host.number, size, now)
        if other is None:
            self._trace.sent(now, host.number, -1, data)
            return
        self._trace.sent(now, host.number, other.number, data)
        if other.is_seed or host.is_seed:
            world.on_seed_traffic(host, other, data)
        if world.delivers(host.ip, to.ip):
            arrivals = self._wires.arrivals(host.number, other.number, size, now)
            for delay_s in arrivals:
                self._loop.post(delay_s, self._arrive, data, to, other)
            if arrivals:
                return
        self._trace.lost(now, host.number, other.number, data)

    def _arrive(self, data: bytes, to: Address, host: "VirtualHost") -> None:
        socket = self._sockets.get(to)
        if socket is not None and not host.is_asleep:
            if self._trace.listener is not None:
                self._trace.arrived(self._loop._now, host.number, self._host.number, data)
            if host.context is None:
                socket.on_datagram(data, self.address)
            else:
                host.runs(socket.on_datagram, data, self.address)

    def move(self, ip: str) -> None:
        """Its host has another address."""
        if self._sockets.get(self.address) is self:
            del self._sockets[self.address]
            self.address = Address(ip, self.address.port)
            self._sockets[self.address] = self

    def close(self) -> None:
        if self._sockets.get(self.address) is self:
            del self._sockets[self.address]
