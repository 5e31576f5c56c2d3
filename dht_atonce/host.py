"""All that comes from outside, in one bundle: the machine on which a peer or a seed runs.

The virtual world hands in another bundle and runs the same code.
"""

import asyncio
import ipaddress
import random
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dht_atonce.cipher import CipherFactory, SodiumCipher
from dht_atonce.clock import Clock, SystemClock
from dht_atonce.datagrams import DatagramNet, UdpNet
from dht_atonce.disk import Disk, FolderDisk
from dht_atonce.endpoints import Address, Family
from dht_atonce.errors import LinkError
from dht_atonce.identity import Identity
from dht_atonce.links import LinkNet
from dht_atonce.memo import Memo

__all__ = ["Host", "LinkNetFactory", "Offload", "Resolver", "Routes", "SystemOffload", "SystemResolver", "SystemRoutes"]

T = TypeVar("T")


class Resolver(Protocol):
    """Names to IP literals."""

    async def resolve(self, name: str) -> list[str]:
        """All addresses of `name`, both families, in the system's order; an IP literal is its own. [] if there is
        none."""


class Offload(Protocol):
    """Where calls go that would block the loop: a thread here, in line in the virtual world."""

    async def run(self, call: Callable[[], T]) -> T: ...


class Routes(Protocol):
    """Which of its addresses this machine would use."""

    def source(self, to: Address) -> str | None:
        """The address from which a datagram to `to` would be sent; None if there is no way. Nothing is sent."""


class SystemRoutes:
    """The kernel's routing table."""

    def source(self, to: Address) -> str | None:
        kind = socket.AF_INET6 if to.family is Family.IPV6 else socket.AF_INET
        try:
            with socket.socket(kind, socket.SOCK_DGRAM) as sock:
                sock.connect(to)
                return str(sock.getsockname()[0])
        except (OSError, OverflowError):
            return None


class SystemResolver:
    """The system's resolver, in a thread."""

    async def resolve(self, name: str) -> list[str]:
        try:
            return [str(ipaddress.ip_address(name))]
        except ValueError:
            pass
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return []
        # A dict keeps the system's order and drops doubles.
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class SystemOffload:
    """The loop's default executor."""

    async def run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(None, call)


class LinkNetFactory(Protocol):
    """Links are made per identity: its key is what they prove. `messaging.curve.system_host` has the real ones."""

    def __call__(self, identity: Identity, counters: Counter[str] | None = None) -> LinkNet:
        """A `LinkNet` that counts in `counters`, if they are given, what it refuses."""


def _no_links(identity: Identity, counters: Counter[str] | None = None) -> LinkNet:
    raise LinkError("this host makes no links; messaging.curve.system_host gives one that does")


@dataclass(slots=True)
class Host:
    """A machine: its network, its clocks, its randomness. `messaging.curve.system_host` makes the real one."""

    links: LinkNetFactory = _no_links
    clock: Clock = field(default_factory=SystemClock)
    datagrams: DatagramNet = field(default_factory=UdpNet)
    disk: Callable[[Path], Disk] = FolderDisk
    cipher: CipherFactory = SodiumCipher
    resolver: Resolver = field(default_factory=SystemResolver)
    routes: Routes = field(default_factory=SystemRoutes)
    offload: Offload = field(default_factory=SystemOffload)
    rng: random.Random = field(default_factory=random.SystemRandom)
    memo: Memo[Any, Any] = field(default_factory=lambda: Memo(512))
    """What was verified before; hosts of one process may share it."""
