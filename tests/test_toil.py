"""What datagrams cost the machine that they reach: they wait, and are lost when too many do."""

import asyncio
import random

from support import LOCAL, start_nodes, virtual

from atonce_sim.latency import Constant
from atonce_sim.toil import Effort
from atonce_sim.wires import Conditions
from atonce_sim.world import VirtualHost, World
from dht_atonce.dht.sealing import PacketType, Sealer
from dht_atonce.endpoints import Address
from dht_atonce.identity import NodeKey

EFFORT = Effort(datagram_us=1000, box_us=2000, pair_us=50_000, buffer_bytes=2048)
NONCE = bytes(24)


def a_world() -> World:
    return World(conditions=Conditions(latency=Constant(0)), effort=EFFORT)


def hears_at(host: VirtualHost) -> tuple[list[float], Address]:
    times: list[float] = []
    socket = host.datagrams.open(Address("0.0.0.0", 0), lambda *_: times.append(asyncio.get_running_loop().time()))
    return times, socket.address


@virtual
async def test_one_thing_after_another() -> None:
    world = a_world()
    times, address = hears_at(world.host())
    sender = world.host().datagrams.open(Address("0.0.0.0", 0), lambda *_: None)
    for _ in range(3):
        sender.send(b"x", address)
    await asyncio.sleep(1)
    assert [round(at, 6) for at in times] == [0.0, 0.001, 0.002]


@virtual
async def test_what_finds_the_buffer_full_is_lost() -> None:
    world = a_world()
    host = world.host()
    times, address = hears_at(host)
    sender = world.host().datagrams.open(Address("0.0.0.0", 0), lambda *_: None)
    for _ in range(10):
        sender.send(bytes(1000), address)
    await asyncio.sleep(1)
    assert host.toil is not None
    assert (len(times), host.toil.dropped) == (3, 7)  # one at once, and two that the buffer holds


@virtual
async def test_a_tireless_host_and_any_other_world_take_no_time() -> None:
    for host in (a_world().host(tireless=True), World(latency_s=0.0).host()):
        assert host.toil is None
        times, address = hears_at(host)
        sender = host.world.host(tireless=True).datagrams.open(Address("0.0.0.0", 0), lambda *_: None)
        for _ in range(50):
            sender.send(bytes(1000), address)
        await asyncio.sleep(1)
        assert times == [times[0]] * 50


@virtual
async def test_x25519_counts_once_for_each_key_that_is_not_remembered() -> None:
    world = a_world()
    host = world.host()
    rng = random.Random(1)
    own, others = NodeKey.generate(rng), [NodeKey.generate(rng) for _ in range(3)]
    sealer = Sealer(own, LOCAL.network_id, 2, host.cipher)
    boxes = [
        Sealer(other, LOCAL.network_id, 10).seal(PacketType.REQUEST, own.public, b"body", NONCE) for other in others
    ]
    socket = host.datagrams.open(Address("0.0.0.0", 0), lambda data, _: sealer.open(data) and None)
    sender = world.host(tireless=True).datagrams.open(Address("0.0.0.0", 0), lambda *_: None)
    assert host.toil is not None

    async def takes(number: int) -> float:
        """Until the next datagram would be looked at."""
        sender.send(boxes[number], socket.address)
        await asyncio.sleep(0.001)
        assert host.toil is not None
        free_at = host.toil._free_at
        began = asyncio.get_running_loop().time() - 0.001
        await asyncio.sleep(1)
        return round(free_at - began, 6)

    assert await takes(0) == 0.053
    assert await takes(0) == 0.003  # remembered
    assert await takes(1) == 0.053
    assert await takes(2) == 0.053  # takes the place of the first, since two are remembered
    assert await takes(0) == 0.053


@virtual
async def test_nodes_live_with_it() -> None:
    world = World(effort=Effort(), latency_s=0.01)
    alice, *_, bob = await start_nodes(world, 5)
    await alice.set("name", 5)
    assert await bob.get(f"{alice.identity.id}/name") == 5
    for node in (alice, bob):
        host = node.shared.host
        assert isinstance(host, VirtualHost)
        assert host.toil is not None
        assert host.toil.dropped == 0
