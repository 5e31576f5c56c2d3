"""A network that is made up: hosts with datagrams, links, clocks and generators of their own, under one seed number."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import TypeVar

from dht_atonce.datagrams import DatagramSocket, OnDatagram
from dht_atonce.endpoints import Address
from dht_atonce.errors import LinkError, LinkRefused, MessageTooLarge, PortInUse
from dht_atonce.host import Host
from dht_atonce.identity import Identity
from dht_atonce.links import Link, LinkPort, OnClosed, OnFrame, OnLink

__all__ = ["VirtualHost", "World"]

T = TypeVar("T")

EPOCH = 1_800_000_000.0  # Unix time at which every world begins
_MAX_BODY = 61_440


class World:
    """All hosts and what lies between them. Loss and latency may be changed while it runs.

    `latency_s` is one way and the same between all hosts; `loss` is the share of datagrams that vanish.
    """

    def __init__(self, seed: int = 0, latency_s: float = 0.025, loss: float = 0.0) -> None:
        self.seed = seed
        self.latency_s = latency_s
        self.loss = loss
        self.sockets: dict[Address, _VirtualSocket] = {}
        self.ports: dict[Address, _VirtualPort] = {}
        self.datagrams = 0
        """How many were sent so far."""
        self.unreachable: set[str] = set()
        """Addresses of hosts that are cut off: nothing leaves or reaches them."""
        self._hosts = 0

    def host(self, ip: str | None = None) -> "VirtualHost":
        """A new host; its generator depends on the world's seed and its own number only."""
        number = self._hosts
        self._hosts += 1
        return VirtualHost(self, ip or f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", number)

    def delivers(self, source: str, to: str) -> bool:
        """Whether anything passes between two hosts now."""
        return source not in self.unreachable and to not in self.unreachable


class _VirtualClock:
    def __init__(self, skew_s: float) -> None:
        self.skew_s = skew_s

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return EPOCH + self.skew_s + asyncio.get_running_loop().time()


class _Inline:
    async def run(self, call: Callable[[], T]) -> T:
        return call()


class _Literals:
    async def resolve(self, name: str) -> list[str]:
        return [name]


class VirtualHost(Host):
    """A machine in the world: hand it to a node, a peer or a seed."""

    def __init__(self, world: World, ip: str, number: int) -> None:
        self.world = world
        self.ip = ip
        self.virtual_clock = _VirtualClock(0.0)
        super().__init__(
            links=self._links,
            clock=self.virtual_clock,
            datagrams=_VirtualDatagrams(world, ip, number),
            resolver=_Literals(),
            offload=_Inline(),
            rng=random.Random(f"{world.seed}/{number}"),
        )

    def _links(self, identity: Identity, counters: Counter[str] | None = None) -> "_VirtualLinks":
        return _VirtualLinks(self.world, self.ip, identity)


class _Ports:
    """The next free port of a host."""

    def __init__(self) -> None:
        self.next = 20_000

    def take(self, bind: Address, ip: str, used: Callable[[Address], bool]) -> Address:
        if bind.port:
            address = Address(ip, bind.port)
            if used(address):
                raise PortInUse(f"{address} is in use")
            return address
        while used(Address(ip, self.next)):
            self.next += 1
        return Address(ip, self.next)


class _VirtualDatagrams:
    def __init__(self, world: World, ip: str, number: int) -> None:
        self._world = world
        self._ip = ip
        self._ports = _Ports()
        self._rng = random.Random(f"{world.seed}/{number}/datagrams")

    def open(self, bind: Address, on_datagram: OnDatagram) -> DatagramSocket:
        address = self._ports.take(bind, self._ip, self._world.sockets.__contains__)
        socket = _VirtualSocket(self._world, address, on_datagram, self._rng)
        self._world.sockets[address] = socket
        return socket


class _VirtualSocket:
    def __init__(self, world: World, address: Address, on_datagram: OnDatagram, rng: random.Random) -> None:
        self.address = address
        self._world = world
        self._on_datagram = on_datagram
        self._rng = rng
        self._loop = asyncio.get_running_loop()

    def send(self, data: bytes, to: Address) -> None:
        world = self._world
        if world.sockets.get(self.address) is not self:
            return
        world.datagrams += 1
        lost = self._rng.random() < world.loss
        if not lost and world.delivers(self.address.ip, to.ip):
            self._loop.call_later(world.latency_s, self._arrive, data, to)

    def _arrive(self, data: bytes, to: Address) -> None:
        socket = self._world.sockets.get(to)
        if socket is not None:
            socket._on_datagram(data, self.address)

    def close(self) -> None:
        if self._world.sockets.get(self.address) is self:
            del self._world.sockets[self.address]


class _VirtualLinks:
    """In-memory links: both ends know the other's key without CURVE, frames arrive in order after the latency."""

    def __init__(self, world: World, ip: str, identity: Identity) -> None:
        self._world = world
        self._ip = ip
        self._key = identity.id.curve_key
        self._numbers = _Ports()
        self._ports: list[_VirtualPort] = []
        self._links: dict[_VirtualLink, None] = {}

    def listen(self, bind: Address, on_link: OnLink) -> LinkPort:
        address = self._numbers.take(bind, self._ip, self._world.ports.__contains__)
        port = _VirtualPort(self._world, address, self._key, on_link)
        self._world.ports[address] = port
        self._ports.append(port)
        return port

    async def dial(self, address: Address, curve_key: bytes, timeout_s: float) -> Link:
        world = self._world
        if not world.delivers(self._ip, address.ip):
            await asyncio.sleep(timeout_s)
            raise LinkError(f"{address} does not answer")
        await asyncio.sleep(2 * world.latency_s)
        port = world.ports.get(address)
        if port is None:
            raise LinkError(f"nobody listens at {address}")
        if port.key != curve_key:
            raise LinkRefused(f"{address} holds another key")
        ours = _VirtualLink(world, self._ip, port.key, address, outbound=True)
        theirs = _VirtualLink(world, address.ip, self._key, Address(self._ip, 0), outbound=False)
        ours.other, theirs.other = theirs, ours
        self._links[ours] = None
        port.links[theirs] = None
        port.on_link(theirs)
        return ours

    async def aclose(self) -> None:
        for port in self._ports:
            port.close()
        for link in list(self._links):
            link.close()
        self._links.clear()


class _VirtualPort:
    def __init__(self, world: World, address: Address, key: bytes, on_link: OnLink) -> None:
        self.address = address
        self.key = key
        self.on_link = on_link
        self.links: dict[_VirtualLink, None] = {}
        self._world = world

    def close(self) -> None:
        if self._world.ports.get(self.address) is self:
            del self._world.ports[self.address]
        for link in list(self.links):
            link.close()
        self.links.clear()


class _VirtualLink:
    def __init__(self, world: World, ip: str, curve_key: bytes, remote: Address, *, outbound: bool) -> None:
        self.curve_key = curve_key
        self.remote: Address | None = remote
        self.outbound = outbound
        self.is_closed = False
        self.other: _VirtualLink
        self._world = world
        self._ip = ip
        self._loop = asyncio.get_running_loop()
        self._on_frame: OnFrame | None = None
        self._on_closed: OnClosed | None = None
        self._early: deque[bytes] = deque()
        self._under_way: deque[bytes | None] = deque()

    def start(self, on_frame: OnFrame, on_closed: OnClosed) -> None:
        self._on_frame, self._on_closed = on_frame, on_closed
        while self._early and not self.is_closed:
            on_frame(self._early.popleft())

    def send(self, body: bytes) -> bool:
        if len(body) > _MAX_BODY:
            raise MessageTooLarge(f"a frame has at most {_MAX_BODY} bytes, this has {len(body)}")
        if self.is_closed:
            return False
        self._dispatch(body)
        return True

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._dispatch(None)

    def _dispatch(self, body: bytes | None) -> None:
        """Have the other end hear `body`, or the end of the link, unless the two are cut off."""
        if self.remote is not None and self._world.delivers(self._ip, self.remote.ip):
            self._under_way.append(body)
            self._loop.call_later(self._world.latency_s, self._deliver)

    def _deliver(self) -> None:
        # Timers of one moment fire in any order; frames do not arrive so.
        body = self._under_way.popleft()
        if body is None:
            self.other._end("closed by the other side")
        else:
            self.other._arrive(body)

    def _arrive(self, body: bytes) -> None:
        if self.is_closed:
            return
        if self._on_frame is None:
            self._early.append(body)
        else:
            self._on_frame(body)

    def _end(self, reason: str) -> None:
        if not self.is_closed:
            self.is_closed = True
            if self._on_closed is not None:
                self._on_closed(reason)
