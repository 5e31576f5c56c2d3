"""Binding sockets: the port asked for, else the last run's, else any; each address family that this machine has."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from dht_atonce.dht.node import DhtNode
from dht_atonce.endpoints import Address, Family
from dht_atonce.errors import NoFamily, PortInUse
from dht_atonce.links import LinkPort

__all__ = ["ANYWHERE", "listen_links", "listen_udp"]

T = TypeVar("T")

ANYWHERE = ("0.0.0.0", "::")  # noqa: S104
"""All interfaces, both families; a family that the machine lacks is left out."""


async def listen_udp(node: DhtNode, ips: Sequence[str], asked: int, last: tuple[int, int]) -> tuple[int, int]:
    """Have `node` listen at each of `ips` (one for each family); gives the ports, IPv4 and IPv6, 0 for none.

    Raises `PortInUse`.
    """
    last_of = {Family.IPV4: last[0], Family.IPV6: last[1]}
    bound = await _each(
        ips, lambda ip: _bind(asked, last_of[Address(ip, 0).family], lambda port: node.listen(port, ip))
    )
    ports = {address.family: address.port for address in bound}
    return ports.get(Family.IPV4, 0), ports.get(Family.IPV6, 0)


async def listen_links(
    listen: Callable[[Address], LinkPort], ips: Sequence[str], asked: int, last: int
) -> list[LinkPort]:
    """Accept links at each of `ips`, at one and the same port where that is free. Raises `PortInUse`."""
    preferred = last

    async def bind_at(ip: str) -> LinkPort:
        nonlocal preferred

        async def bind(port: int) -> LinkPort:
            return listen(Address(ip, port))

        bound = await _bind(asked, preferred, bind)
        preferred = bound.address.port
        return bound

    return await _each(ips, bind_at)


async def _each(ips: Sequence[str], bind_at: Callable[[str], Awaitable[T]]) -> list[T]:
    """Bind at each address. A family of `ANYWHERE` that the machine lacks is left out, if it has the other."""
    bound: list[T] = []
    problem: NoFamily | None = None
    for ip in ips:
        try:
            bound.append(await bind_at(ip))
        except NoFamily as error:
            if ip not in ANYWHERE:
                raise
            problem = error
    if problem is not None and not bound:
        raise problem
    return bound


async def _bind(asked: int, last: int, bind: Callable[[int], Awaitable[T]]) -> T:
    """`bind` to the port `asked` for, and to no other; if 0 was, to the `last` one or, that being taken, to any."""
    if asked or not last:
        return await bind(asked)
    try:
        return await bind(last)
    except PortInUse:
        return await bind(0)
