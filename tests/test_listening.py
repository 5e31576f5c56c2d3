"""Which port is bound: the one asked for, else the last run's, else any; in each family that the machine has."""

from collections.abc import Callable
from typing import Any

import pytest
from support_peers import NETWORK, identity, virtual

from atonce_sim.world import World
from dht_atonce.dht.node import DhtNode
from dht_atonce.endpoints import Address, Family
from dht_atonce.errors import NoFamily, PortInUse
from dht_atonce.links import LinkPort
from dht_atonce.listening import ANYWHERE, listen_links, listen_udp

V4, V6 = "0.0.0.0", "::"


class Machine:
    """Ports that are taken, families that there are, and what was tried."""

    def __init__(self, *taken: tuple[str, int], families: tuple[Family, ...] = tuple(Family)) -> None:
        self.taken = set(taken)
        self.families = families
        self.tried: list[Address] = []
        self.next = 50_000

    def bind(self, bind: Address) -> Address:
        self.tried.append(bind)
        if bind.family not in self.families:
            raise NoFamily(f"no {bind.family.name} on this machine")
        port = bind.port
        if not port:
            port = self.next = self.next + 1
        if (bind.ip, port) in self.taken:
            raise PortInUse(f"{bind} is in use")
        self.taken.add((bind.ip, port))
        return Address(bind.ip, port)


class Port:
    """A `LinkPort`."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def close(self) -> None:
        raise AssertionError("nobody closes a port while others are bound")


class Node:
    """What `listen_udp` needs of a `DhtNode`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    async def listen(self, port: int, interface: str) -> Address:
        return self.machine.bind(Address(interface, port))


def udp(
    machine: Machine, asked: int = 0, last: tuple[int, int] = (0, 0), ips: tuple[str, ...] = ANYWHERE
) -> tuple[int, int]:
    node: Any = Node(machine)
    return virtual(listen_udp(node, ips, asked, last))


def tcp(machine: Machine, asked: int = 0, last: int = 0, ips: tuple[str, ...] = ANYWHERE) -> list[Address]:
    listen: Callable[[Address], LinkPort] = lambda bind: Port(machine.bind(bind))  # noqa: E731
    return [port.address for port in virtual(listen_links(listen, ips, asked, last))]


# --- UDP: a port in each family ---


def test_without_a_wish_any_port_will_do() -> None:
    assert udp(Machine()) == (50_001, 50_002)


def test_the_port_asked_for_is_bound_in_both_families() -> None:
    assert udp(Machine(), asked=4710) == (4710, 4710)


def test_the_last_run_s_ports_are_tried_first() -> None:
    machine = Machine()
    assert udp(machine, last=(6000, 7000)) == (6000, 7000)
    assert machine.tried == [Address(V4, 6000), Address(V6, 7000)]


def test_if_the_last_run_s_port_is_taken_any_will_do() -> None:
    machine = Machine((V4, 6000))
    assert udp(machine, last=(6000, 7000)) == (50_001, 7000)
    assert machine.tried == [Address(V4, 6000), Address(V4, 0), Address(V6, 7000)]


def test_a_port_asked_for_goes_before_the_last_run_s_and_no_other_will_do() -> None:
    machine = Machine((V4, 4710))
    with pytest.raises(PortInUse, match="4710"):
        udp(machine, asked=4710, last=(6000, 0), ips=(V4,))
    assert machine.tried == [Address(V4, 4710)]


def test_a_family_that_the_machine_lacks_is_left_out() -> None:
    assert udp(Machine(families=(Family.IPV4,)), asked=4710) == (4710, 0)
    assert udp(Machine(families=(Family.IPV6,)), asked=4710) == (0, 4710)


def test_a_machine_without_any_family_is_told_so() -> None:
    with pytest.raises(PortInUse, match="no IPV6 on this machine"):
        udp(Machine(families=()))


def test_an_address_that_was_named_must_be_bound() -> None:
    with pytest.raises(PortInUse):
        udp(Machine(("192.0.2.1", 4710)), asked=4710, ips=("192.0.2.1", "2001:db8::1"))
    with pytest.raises(PortInUse, match="no IPV6"):
        udp(Machine(families=(Family.IPV4,)), ips=("192.0.2.1", "2001:db8::1"))
    assert udp(Machine(), ips=("192.0.2.1",)) == (50_001, 0)
    assert udp(Machine(), ips=("2001:db8::1",)) == (0, 50_001)


@pytest.mark.parametrize("taken", [V4, V6])
def test_a_port_asked_for_that_is_taken_in_one_family_is_in_use(taken: str) -> None:
    with pytest.raises(PortInUse, match="in use"):
        udp(Machine((taken, 4710)), asked=4710)
    with pytest.raises(PortInUse, match="in use"):
        tcp(Machine((taken, 4710)), asked=4710)


# --- TCP: one and the same port, where that is free ---


def test_links_are_accepted_at_one_port_in_both_families() -> None:
    assert tcp(Machine()) == [Address(V4, 50_001), Address(V6, 50_001)]
    assert tcp(Machine(), asked=4710) == [Address(V4, 4710), Address(V6, 4710)]
    assert tcp(Machine(), last=6000) == [Address(V4, 6000), Address(V6, 6000)]


def test_where_that_port_is_taken_in_the_other_family_any_will_do() -> None:
    assert tcp(Machine((V6, 6000)), last=6000) == [Address(V4, 6000), Address(V6, 50_001)]
    assert tcp(Machine((V4, 6000)), last=6000) == [Address(V4, 50_001), Address(V6, 50_001)]


def test_links_in_the_one_family_that_there_is() -> None:
    assert tcp(Machine(families=(Family.IPV6,))) == [Address(V6, 50_001)]
    assert tcp(Machine(families=(Family.IPV4,)), asked=4710) == [Address(V4, 4710)]


def test_a_named_address_that_is_taken_is_in_use() -> None:
    with pytest.raises(PortInUse):
        tcp(Machine(("127.0.0.1", 4710)), asked=4710, ips=("127.0.0.1",))


# --- with a real node ---


def test_a_node_listens_and_tells_its_ports() -> None:
    async def main() -> None:
        host = World(1).host()
        node = DhtNode(identity(1), host=host, network=NETWORK)
        assert await listen_udp(node, (V4,), 0, (6000, 0)) == (6000, 0)
        assert node.addresses == [Address(host.ip, 6000)]
        other = DhtNode(identity(2), host=host, network=NETWORK)
        with pytest.raises(PortInUse):
            await listen_udp(other, (V4,), 6000, (0, 0))
        port, _ = await listen_udp(other, (V4,), 0, (6000, 0))
        assert port != 6000
        await node.aclose()
        await other.aclose()

    virtual(main())
