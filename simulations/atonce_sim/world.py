"""A network that is made up: hosts with datagrams, links, disks, clocks and generators of their own, under one seed
number."""

import asyncio
import contextvars
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

from atonce_sim.bystanders import Bystander
from atonce_sim.latency import Constant
from atonce_sim.loop import VirtualLoop
from atonce_sim.toil import Effort, Toil
from atonce_sim.trace import Trace
from atonce_sim.virtual_datagrams import VirtualDatagrams, VirtualSocket
from atonce_sim.virtual_disks import DiskFaults, VirtualDisk, VirtualDisks
from atonce_sim.virtual_links import VirtualLink, VirtualLinks, VirtualPort
from atonce_sim.wires import Conditions, Wires
from dht_atonce.cipher import CipherFactory, SodiumCipher
from dht_atonce.disk import Disk, FolderDisk
from dht_atonce.endpoints import Address
from dht_atonce.host import Host
from dht_atonce.identity import Identity
from dht_atonce.memo import Memo

__all__ = ["EPOCH", "VirtualHost", "World"]

T = TypeVar("T")

EPOCH = 1_800_000_000.0  # Unix time at which every world begins
_REQUEST_TYPES = (0x01, 0x03)  # docs/wire.md section 3: of a datagram's second byte, without the cookie bit
_RUNS_ON: "contextvars.ContextVar[VirtualHost]" = contextvars.ContextVar("runs_on")  # whose code this is
_MEMO = 1 << 16  # verified records that all hosts share


class _CutOff(set[str]):
    """IPs of hosts that are cut off. Links are told when they change."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        super().__init__()
        self._on_change = on_change

    def add(self, ip: str) -> None:
        super().add(ip)
        self._on_change()

    def discard(self, ip: object) -> None:
        super().discard(ip)
        self._on_change()

    def remove(self, ip: str) -> None:
        super().remove(ip)
        self._on_change()

    def update(self, *ips: Iterable[str]) -> None:
        super().update(*ips)
        self._on_change()

    def clear(self) -> None:
        super().clear()
        self._on_change()


class World:
    """All hosts and what lies between them. Conditions may be changed while it runs, but for those of `latency`.

    `latency_s` (one way, the same between all hosts) and `loss` are short for the `conditions` most tests want.
    `cipher` is how all hosts seal their datagrams. In a `public` world each host has an address that is global, in a
    subnet of its own. `effort`: what datagrams cost those whom they reach; None: no time. (Then ciphers should be real
    ones, which compute for one host at a time.)
    """

    def __init__(
        self,
        seed: int = 0,
        latency_s: float = 0.025,
        loss: float = 0.0,
        *,
        conditions: Conditions | None = None,
        cipher: CipherFactory = SodiumCipher,
        public: bool = False,
        effort: Effort | None = None,
    ) -> None:
        self.seed = seed
        self.public = public
        self.effort = effort
        self.conditions = conditions or Conditions(latency=Constant(latency_s * 1000), loss=loss)
        self.wires = Wires(self.conditions, seed)
        self.trace = Trace()
        self.sockets: dict[Address, VirtualSocket] = {}
        self.ports: dict[Address, VirtualPort] = {}
        self.links: dict[VirtualLink, None] = {}
        """All ends of open links."""
        self.disks = VirtualDisks()
        self.hosts: dict[str, VirtualHost] = {}
        """By IP; where a machine was restarted, the latest."""
        self.datagrams = 0
        """How many were sent so far."""
        self.seed_bytes = 0
        """Sent by seeds and to seeds."""
        self.unasked_seed_bytes = 0
        """Sent to seeds by peers of their own accord, after they had joined."""
        self.unreachable: set[str] = _CutOff(self._tell_links)
        """Addresses of hosts that are cut off: nothing leaves or reaches them."""
        self.bystanders: dict[str, Bystander] = {}
        """By IP: those of whom is counted what reaches them."""
        self.cipher = cipher
        self.memo: Memo[Any, Any] = Memo(_MEMO)
        """Verified records, which all hosts share."""
        self._sides: dict[str, int] = {}
        self._blocked: set[tuple[int, int]] = set()
        self._numbers = 0
        self._sleeping = 0
        self._loop: VirtualLoop | None = None

    # --- hosts ---

    def host(self, ip: str | None = None, *, skew_s: float = 0.0, tireless: bool = False) -> "VirtualHost":
        """A new host; its generator depends on the world's seed and its own number only. `tireless`: whatever it does
        takes no time, in any world."""
        number = self._numbers
        self._numbers += 1
        host = VirtualHost(self, ip or self._ip(number), number, 0, skew_s, tireless=tireless)
        self.hosts[host.ip] = host
        return host

    def _ip(self, number: int) -> str:
        if self.public:
            return f"{50 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.1"
        return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"

    def enter(self) -> None:
        """Make this the world of the running loop: endpoints that are opened through the loop are opened here."""
        self._loop = self._enter()

    def crash(self, host: "VirtualHost") -> None:
        """The machine is dead: nothing is said, and whatever of it still runs reaches nobody and writes nothing."""
        host.is_down = host.is_away = True
        for bound in host.bound:
            self.sockets.pop(bound, None)
            self.ports.pop(bound, None)
        host.bound.clear()
        host.cut_disks()
        self.trace.event(self.loop.time(), "crash", host.number, host.ip)
        self._tell_links()

    def restart(self, host: "VirtualHost") -> "VirtualHost":
        """The machine of `host`, which crashed or was shut down, runs again: the same address, clock and disks, another
        process with a generator of its own."""
        again = VirtualHost(self, host.ip, host.number, host.boot + 1, host.skew_s, tireless=host.toil is None)
        again.disk_faults = host.disk_faults
        self.hosts[host.ip] = again
        self.trace.event(self.loop.time(), "restart", host.number, host.ip)
        return again

    def sleep(self, host: "VirtualHost") -> None:
        """The machine's lid is closed: what was begun by its `start` stands still, and what is sent to it is lost."""
        host.is_asleep = host.is_away = True
        self._sleeping += 1
        self.loop.holds = self._hold
        self.trace.event(self.loop.time(), "sleep", host.number, host.ip)
        self._tell_links()

    def wake(self, host: "VirtualHost", ip: str | None = None) -> None:
        """It goes on where it was, at another address if `ip` is given; timers that ran out meanwhile fire late."""
        host.is_asleep, host.is_away = False, host.is_down
        self._sleeping -= 1
        if not self._sleeping:
            self.loop.holds = None
        if ip is not None:
            self.move(host, ip)
        self.trace.event(self.loop.time(), "wake", host.number, host.ip)
        for handle in host.take_held():
            self.loop.post(0, _run_unless_cancelled, handle)  # in the order in which they were due
        self._tell_links()

    def move(self, host: "VirtualHost", ip: str) -> None:
        """The machine's address changes: its sockets stay open, its links are dead, and nothing reaches the old one."""
        del self.hosts[host.ip]
        host.ip = ip
        self.hosts[ip] = host
        for bound in sorted(host.bound):
            for one in (self.sockets.get(bound), self.ports.get(bound)):
                if one is not None:
                    one.move(ip)
        host.bound = {Address(ip, bound.port) for bound in host.bound}
        for link in self.links:
            link.sever_if_on(host)
        self._tell_links()

    def _hold(self, handle: asyncio.Handle) -> bool:
        host = handle._context.get(_RUNS_ON)  # type: ignore[attr-defined] # of every handle
        if host is None or not host.is_asleep:
            return False
        host.hold(handle)
        return True

    # --- what lies between them ---

    @property
    def latency_s(self) -> float:
        """One way between the first two hosts."""
        return self.wires.between(0, 1)

    @latency_s.setter
    def latency_s(self, latency_s: float) -> None:
        self.conditions.latency = Constant(latency_s * 1000)
        self.wires.between = lambda _, __: latency_s

    @property
    def loss(self) -> float:
        """Share of datagrams that vanish."""
        return self.conditions.loss

    @loss.setter
    def loss(self, loss: float) -> None:
        self.conditions.loss = loss

    def partition(self, sides: list[list["VirtualHost"]], *, one_way: bool = False) -> None:
        """Cut the world: nothing passes between hosts of different sides. `one_way`: what a later side sends still
        reaches an earlier one, and nothing comes back. Hosts on no side are on the first."""
        self._sides = {host.ip: number for number, side in enumerate(sides) for host in side}
        numbers = range(len(sides))
        self._blocked = {(one, two) for one in numbers for two in numbers if one < two or (one != two and not one_way)}
        self._tell_links()

    def heal(self) -> None:
        """Undo every `partition`."""
        self._sides, self._blocked = {}, set()
        self._tell_links()

    def delivers(self, source: str, to: str) -> bool:
        """Whether anything passes from one host to another now."""
        if self.unreachable and (source in self.unreachable or to in self.unreachable):
            return False
        if self._blocked and (self._sides.get(source, 0), self._sides.get(to, 0)) in self._blocked:
            return False
        one, other = self.hosts.get(source), self.hosts.get(to)
        return one is not None and other is not None and not one.is_away and not other.is_away

    def spoof(self, host: "VirtualHost", data: bytes, source: Address, to: Address) -> None:
        """`host` sends a datagram that says it came from `source`."""
        other, now = self.hosts.get(to.ip), self.loop.time()
        self.datagrams += 1
        if other is None or host.is_down:
            return
        self.trace.sent(now, host.number, other.number, data)
        if not self.delivers(host.ip, to.ip):
            return
        for delay_s in self.wires.arrivals(host.number, other.number, len(data), now):
            self.loop.post(delay_s, self._arrive_spoofed, data, source, to, other.number)

    def _arrive_spoofed(self, data: bytes, source: Address, to: Address, number: int) -> None:
        socket = self.sockets.get(to)
        if socket is None:
            return
        if source.ip in self.bystanders:
            self.bystanders[source.ip].on_spoofed(number, len(data))
        socket.on_datagram(data, source)

    def on_seed_traffic(self, source: "VirtualHost", to: "VirtualHost", data: bytes) -> None:
        """A datagram from or to a seed."""
        self.seed_bytes += len(data)
        if to.is_seed and source.has_joined and data[1] & 0x7F in _REQUEST_TYPES:
            self.unasked_seed_bytes += len(data)

    def on_seed_frame(self, source: "VirtualHost", size: int) -> None:
        """A frame on a link to a seed."""
        self.seed_bytes += size
        if source.has_joined:
            self.unasked_seed_bytes += size

    def _tell_links(self) -> None:
        for link in list(self.links):
            link.on_cut()

    # --- the loop ---

    @property
    def wall(self) -> float:
        """Unix seconds, as a clock that is right has them."""
        return EPOCH + self.loop.time()

    @property
    def loop(self) -> VirtualLoop:
        """The loop that this world runs in."""
        if self._loop is None:
            self._loop = self._enter()
        return self._loop

    def _enter(self) -> VirtualLoop:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop), "a world runs in a VirtualLoop"
        loop.datagrams = lambda ip: self.hosts[ip].datagrams
        return loop


def _run_unless_cancelled(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        handle._run()


class _VirtualClock:
    """The loop's time, and a wall clock that may be wrong."""

    __slots__ = ("_loop", "_world", "skew_s")

    def __init__(self, world: World, skew_s: float) -> None:
        self.skew_s = skew_s
        self._world = world
        self._loop: VirtualLoop | None = None

    def monotonic(self) -> float:
        loop = self._loop
        if loop is None:
            loop = self._loop = self._world.loop
        return loop._now

    def wall(self) -> float:
        return EPOCH + self.skew_s + self.monotonic()


class _Inline:
    """Calls that would block a real loop take no time here, unless the disk is slow: then what they do is done half-way
    through, so that a machine may die before it, and between it and its caller's hearing of it."""

    __slots__ = ("_host",)

    def __init__(self, host: "VirtualHost") -> None:
        self._host = host

    async def run(self, call: Callable[[], T]) -> T:
        commit_s = self._host.disk_faults.commit_s
        if not commit_s:
            return call()
        await asyncio.sleep(commit_s / 2)
        try:
            return call()
        finally:
            await asyncio.sleep(commit_s / 2)


class _Literals:
    """There is no name service; a name is an IP."""

    async def resolve(self, name: str) -> list[str]:
        return [name]


class _Cables:
    """A machine has one address."""

    __slots__ = ("_host",)

    def __init__(self, host: "VirtualHost") -> None:
        self._host = host

    def source(self, to: Address) -> str | None:
        return self._host.ip


_LITERALS = _Literals()


class VirtualHost(Host):
    """A machine in the world: hand it to a node, a peer or a seed."""

    def __init__(self, world: World, ip: str, number: int, boot: int, skew_s: float, *, tireless: bool = False) -> None:
        self.world = world
        self.ip = ip
        self.number = number
        self.boot = boot
        """How often it was restarted."""
        self.virtual_clock = _VirtualClock(world, skew_s)
        self.is_down = False
        self.is_asleep = False
        self.is_away = False
        """Down or asleep: nothing leaves or reaches it."""
        self.context: contextvars.Context | None = None
        """That of all that runs on it; only of a host that was `start`ed, and so may sleep."""
        self._held: list[asyncio.Handle] = []
        self.is_seed = False
        self.has_joined = False
        """Said by whoever runs a peer on it."""
        self.bytes_sent = 0
        """UDP payload, and frames of links."""
        self.bound: set[Address] = set()
        """Where its sockets and ports are, or were."""
        self.toil = Toil(world.effort, lambda: world.loop) if world.effort is not None and not tireless else None
        """Where what it does takes time."""
        self.disk_faults = DiskFaults()
        self._disks: list[VirtualDisk] = []
        super().__init__(
            links=self._links,
            clock=self.virtual_clock,
            datagrams=VirtualDatagrams(self),
            disk=self._disk,
            cipher=self.toil.cipher(world.cipher) if self.toil is not None else world.cipher,
            memo=world.memo,
            resolver=_LITERALS,
            routes=_Cables(self),
            offload=_Inline(self),
            rng=random.Random(f"{world.seed}/{number}" + (f"/{boot}" if boot else "")),
        )

    @property
    def skew_s(self) -> float:
        """By how much its clock is wrong."""
        return self.virtual_clock.skew_s

    def start(self, coroutine: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Run `coroutine` on this host: all that it begins stands still while the host sleeps."""
        if self.context is None:
            self.context = contextvars.copy_context()
            self.context.run(_RUNS_ON.set, self)
        return self.world.loop.create_task(coroutine, name=name, context=self.context.copy())

    def runs(self, callback: Callable[..., object], *args: object) -> None:
        """Call `callback` as part of what runs on this host."""
        if self.context is None:
            callback(*args)
        else:
            self.context.copy().run(callback, *args)

    def hold(self, handle: asyncio.Handle) -> None:
        """Keep `handle` until this host wakes."""
        self._held.append(handle)

    def take_held(self) -> list[asyncio.Handle]:
        """All that was kept, in its order."""
        held, self._held = self._held, []
        return held

    def cut_disks(self) -> None:
        """What runs on it writes nothing any more."""
        for disk in self._disks:
            disk.cut()

    def _disk(self, path: Path) -> Disk:
        if path.is_absolute():
            return FolderDisk(path)  # a real folder, for whoever wants to look into it
        disk = self.world.disks.open(str(path), self.disk_faults)
        self._disks.append(disk)
        return disk

    def _links(self, identity: Identity, counters: Counter[str] | None = None) -> VirtualLinks:
        return VirtualLinks(self, identity)
