"""Publishing: who is told when, and that the newest word is the last one, in the virtual world."""

import asyncio

import pytest
from support import (
    LOCAL,
    NOW,
    Stranger,
    close,
    contact_of,
    identity,
    start_node,
    start_nodes,
    value_record,
    virtual,
)

from atonce_sim.world import World
from dht_atonce.codec import encode
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.wire import FindValue, Found, Ping, Pong, Reply, Request, Store, Stored, StoreOutcome
from dht_atonce.endpoints import Address, Family, pack_address
from dht_atonce.records import value_key

LATENCY_S = 0.025
ROUND_TRIP_S = 2 * LATENCY_S


def key_of(node: DhtNode, name: str) -> bytes:
    return value_key(node.shared.network, node.identity.id, name)


def nearest(nodes: list[DhtNode], key: bytes) -> list[DhtNode]:
    """All of them, the nearest to `key` first."""
    target = int.from_bytes(key, "big")
    return sorted(nodes, key=lambda node: contact_of(node).long_id ^ target)


def knows_nobody_near(node: DhtNode, key: bytes) -> bool:
    return not node.servers[Family.IPV4].surely_near(int.from_bytes(key, "big"), 1)


class Holder(Stranger):
    """Takes a seat and whatever it is given, and remembers what it was asked, and when."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.seen: list[tuple[float, Request]] = []
        self.found = b""
        """The record that it gives."""
        self.answers = self.answer

    def kinds(self) -> list[type[Request]]:
        return [type(request) for _, request in self.seen]

    def answer(self, request: Request, source: Address) -> Reply:
        self.seen.append((asyncio.get_running_loop().time(), request))
        head = (0, request.request_id, 0, b"c" * 16, pack_address(source), NOW * 1000)
        if isinstance(request, Store):
            return Stored(*head, StoreOutcome.STORED, b"")
        return Pong(*head) if isinstance(request, Ping) else Found(*head, [], [], self.found)


@virtual
async def test_whoever_is_known_to_be_near_is_told_before_anybody_is_asked() -> None:
    world = World(latency_s=LATENCY_S)
    owner, holder = await start_node(world), Holder(world)
    await owner.bootstrap([holder.way_in])
    holder.seen.clear()
    began = asyncio.get_running_loop().time()
    result = await owner.set("name", 1)
    assert holder.kinds() == [Store, FindValue]
    assert holder.seen[0][0] - began == pytest.approx(LATENCY_S)
    assert (result.confirmed, result.asked) == (1, 1)
    await close(owner)


@virtual
async def test_later_on_it_is_asked_first_what_another_process_may_have_signed() -> None:
    world = World(latency_s=LATENCY_S)
    owner, holder = await start_node(world), Holder(world)
    conflicts: list[bytes] = []
    owner.on_conflict = lambda record: conflicts.append(record.incarnation)
    await owner.bootstrap([holder.way_in])
    await owner.set("name", 1)
    holder.seen.clear()
    theirs = value_record("name", encode(9), owner.identity, seq=NOW * 2_000_000, incarnation=b"somebody")
    holder.found = theirs.blob
    result = await owner.set("name", 2)
    # Told at once; and once more, since somebody else has said something newer than that.
    assert holder.kinds() == [FindValue, Store, Store]
    assert conflicts == [b"somebody"]
    assert result.confirmed == 1
    own = owner.own.get(key_of(owner, "name"))
    assert own is not None
    assert own.record is not None
    assert own.record.seq == theirs.seq + 1
    await close(owner)


@virtual
async def test_a_watcher_hears_one_round_trip_after_the_put_while_its_owner_still_looks() -> None:
    nodes = await start_nodes(World(latency_s=LATENCY_S), 12)
    owner, watcher = nodes[3], nodes[9]
    await owner.set("another name", 1)  # by now it has cookies of those whom it knows
    loop = asyncio.get_running_loop()
    async with watcher.watch(key_of(owner, "name")) as watch:
        began = loop.time()
        putting = asyncio.ensure_future(owner.set("name", 1))
        await anext(watch)
        assert loop.time() - began <= ROUND_TRIP_S + 0.001
        assert not putting.done()
        assert (await putting).confirmed >= LOCAL.k
    await close(*nodes)


@virtual
async def test_who_knows_nobody_near_tells_the_nearest_as_soon_as_they_answer() -> None:
    nodes = await start_nodes(World(latency_s=LATENCY_S, seed=3), 60)
    owner, name = next(
        (node, name) for node in nodes for name in map(str, range(50)) if knows_nobody_near(node, key_of(node, name))
    )
    key = key_of(owner, name)
    others = [node for node in nodes if node is not owner]
    watcher = nearest(others, key)[-1]
    async with watcher.watch(key) as watch:
        putting = asyncio.ensure_future(owner.set(name, 1))
        await anext(watch)
        assert not putting.done()
        assert (await putting).confirmed >= LOCAL.k
    assert all(node.shared.store.live(key, NOW) for node in nearest(others, key)[: LOCAL.k])
    await close(*nodes)


@virtual
async def test_nobody_keeps_what_was_said_before_something_newer_was_found() -> None:
    # A backup was restored, by a clock that is half a minute slow, in a node that knows few.
    world = World(latency_s=LATENCY_S, seed=11)
    nodes = await start_nodes(world, 30)
    before = await start_node(world, via=nodes[0], identity=identity(7))
    key = key_of(before, "name")
    await before.set("name", "before")
    old = before.shared.store.get(key)
    assert old is not None
    await close(before)
    # Those it knows have lost the record, and take the older word for new.
    host = world.host()
    host.virtual_clock.skew_s = -30
    after = await start_node(world, via=nodes[0], identity=identity(7), host=host)
    known = {contact.id for contact in after.servers[Family.IPV4].router.find_neighbors(int.from_bytes(key, "big"), 4)}
    for node in nodes:
        if node.shared.node_key.id in known:
            node.shared.store.forget(key)
    await after.set("name", "after")
    held = [record for node in nodes if (record := node.shared.store.live(key, NOW)) is not None]
    assert len(held) >= LOCAL.k
    assert {record.seq for record in held} == {old.seq + 1}
    await close(after, *nodes)


@virtual
async def test_the_dead_among_those_who_are_known_are_not_waited_for() -> None:
    world = World(latency_s=LATENCY_S, seed=5)
    nodes = await start_nodes(world, 12)
    owner, key = nodes[3], key_of(nodes[3], "name")
    await owner.set("another name", 1)
    dead = nearest([node for node in nodes if node is not owner], key)[0]
    world.unreachable.add(dead.addresses[0].ip)
    result = await owner.set("name", 1)
    assert result.confirmed >= LOCAL.k
    assert result.elapsed_s < owner.shared.config.max_timeout_s
    await close(*nodes)
