"""Defects in how stock sets values, republishes them and hands them on, each beside ours. docs/security.md has the
rows."""

import asyncio
from functools import partial
from typing import Any

from defects_support import ID, NOTHING, STOCK, Kept, StockStranger, head, outcome, promise, stock_server
from kademlia.node import Node
from kademlia.utils import digest
from support import (
    LIFE,
    LOCAL,
    NOW,
    Stranger,
    contact,
    identity,
    node_key,
    start_node,
    value_record,
)

from atonce_sim.world import World
from dht_atonce.dht.wire import (
    Found,
    Ping,
    Pong,
    Refusal,
    Refused,
    Reply,
    Request,
    Store,
    Stored,
)
from dht_atonce.endpoints import Address
from dht_atonce.identity import NodeKey
from dht_atonce.records import ValueRecord

# --- hand-off ---

K = 8
NETWORK = LOCAL.with_k(K)
SEATS = [contact(number) for number in range(12)]
NEWCOMERS = range(1000, 1008)
Handed = list[tuple[bytes, list[bytes], set[bytes]]]
"""For each newcomer its id, who had a seat when it came, and the keys that it was handed."""


@promise
async def test_newcomers_are_handed_what_is_near_to_them_and_nothing_else(side: str) -> Kept:
    world = World(5)
    holder = node_key(1)
    records = [value_record(f"name {number}", who=identity(number)) for number in range(200)]
    handed = await (stock_hands_off if side == STOCK else ours_hands_off)(world, holder, records)
    must, may, given = 0, True, 0
    for newcomer, seated, keys in handed:
        for key in (record.key for record in records):
            is_near = sum(is_nearer(one, newcomer, key) for one in seated) < K
            is_ours = is_near and all(is_nearer(holder.id, one, key) for one in seated)
            must += is_ours
            given += is_ours and key in keys
            may = may and (is_near or key not in keys)
    assert must >= 10
    return {"none missed": given == must, "none wrong": may}


def is_nearer(one: bytes, other: bytes, key: bytes) -> bool:
    target = int.from_bytes(key, "big")
    return int.from_bytes(one, "big") ^ target < int.from_bytes(other, "big") ^ target


async def stock_hands_off(world: World, own: NodeKey, records: list[ValueRecord]) -> Handed:
    holder = await stock_server(world, node_id=own.id, k=K)
    for seat in SEATS:
        holder.table.add_contact(Node(seat.id, seat.ip, seat.port))
    for record in records:
        holder.server.storage[record.key] = b"value"
    handed = []
    for number in NEWCOMERS:
        newcomer, node_id, seated = StockStranger(world), node_key(number).id, list(holder.seats())
        newcomer.answers = lambda _name, _args: True
        await newcomer.asks(holder.address, "ping", node_id)
        await asyncio.sleep(1)
        handed.append((node_id, seated, {args[1] for name, args in newcomer.requests if name == "store"}))
    return handed


async def ours_hands_off(world: World, own: NodeKey, records: list[ValueRecord]) -> Handed:
    holder = await start_node(world, NETWORK, node_key=own)
    router = next(iter(holder.servers.values())).router
    for seat in SEATS:
        router.on_proved(seat, 0.0)
    router.take_seated()  # nobody is to be handed anything yet
    for record in records:
        holder.shared.store.keep(record, NOW)
    handed = []
    for number in NEWCOMERS:
        newcomer, seated = Stranger(world, number), [seat.contact.id for seat in router]
        reply = await newcomer.asks(holder, Ping(0, ID, 0))
        assert reply is not None
        blobs: list[bytes] = []
        newcomer.answers = partial(keeps, blobs)
        newcomer.ask(holder, Ping(0, ID, 0), reply.cookie)
        await asyncio.sleep(2)  # all of them come before the node looks around, and finds that its seats are made up
        handed.append((newcomer.node_key.id, seated, {record.key for record in records if record.blob in blobs}))
    await holder.aclose()
    return handed


def keeps(blobs: list[bytes], request: Request, _source: Address) -> Reply:
    """What a newcomer of ours answers, who notes what it is to store."""
    if not isinstance(request, Store):
        return Pong(*head(request))
    blobs.append(request.record)
    return Stored(*head(request), 0, b"")


# --- republishing ---


@promise
async def test_one_value_that_cannot_be_stored_does_not_end_the_republishing_of_others(side: str) -> Kept:
    world = World()
    if side == STOCK:
        victim = await stock_server(world)
        neighbour = await stock_server(world, via=victim)
        await StockStranger(world).asks(victim.address, "store", b"s" * 20, b"\x01" * 20, bytes(9_000))
        await asyncio.sleep(1)
        assert await victim.server.set("name", "value")
        victim.server.storage[digest("name")] = "value"
        await asyncio.sleep(2 * 3600)
        return neighbour.server.storage.data[digest("name")][0] > 3000
    node = await start_node(world)
    other = await start_node(world, via=node)

    def fails(seq: int, _expires: int) -> ValueRecord:
        if seq != 1 << 63 and node.shared.now() > 10:
            raise ValueError("this cannot be signed any more")
        return value_record("a", who=node.identity, seq=seq, expires=_expires)

    await node.publish(value_record("a", who=node.identity).key, fails)
    await node.set("b", "value")
    key = node.own.keys()[1]
    first = other.shared.store.get(key)
    await asyncio.sleep(LIFE / 2)
    again = other.shared.store.get(key)
    await node.aclose()
    await other.aclose()
    return first is not None and again is not None and again.seq > first.seq


# --- what `set` says ---


@promise
async def test_set_says_how_many_hold_a_value_whoever_is_there(side: str) -> Kept:
    if side == STOCK:
        return {
            "all dead": await stock_set_with_dead(),
            "one of four": await stock_set_at_one(),
            "alone": await stock_set_alone(),
        }
    return {
        "all dead": await our_set_with_dead(),
        "one of four": await our_set_at_one(),
        "alone": await our_set_alone(),
    }


async def stock_set_with_dead() -> bool:
    world = World()
    other = await stock_server(world)
    node = await stock_server(world, via=other)
    other.server.stop()
    return not isinstance(await outcome(node.server.set("name", "value")), Exception)


async def our_set_with_dead() -> bool:
    world = World()
    other = await start_node(world)
    node = await start_node(world, via=other)
    world.crash(world.hosts[other.addresses[0].ip])
    result = await node.set("name", "value")
    await node.aclose()
    await other.aclose()
    return result.confirmed == 0 and result.home


async def stock_set_at_one() -> bool:
    async def says(willing: int) -> object:
        world = World()
        node = await stock_server(world)
        for number in range(4):
            other = StockStranger(world, number)
            other.answers = lambda name, _args, will=number < willing: (
                [] if name != "store" else True if will else NOTHING
            )
            node.server.protocol.welcome_if_new(Node(other.id, *other.address))
        return await node.server.set("name", "value")

    return await says(1) != await says(4)


def keeps_if(will: bool, name: str, _args: list[Any]) -> Any:
    """What a neighbour of stock's answers."""
    if name != "store":
        return []
    return True if will else NOTHING


async def our_set_at_one() -> bool:
    world = World()
    node = await start_node(world)
    for number in range(4):
        other = Stranger(world, 1000 + number)

        def answers(request: Request, _source: Address, will: bool = number == 0) -> Reply:
            match request:
                case Store():
                    return Stored(*head(request), 0, b"") if will else Refused(*head(request), Refusal.FULL)
                case Ping():
                    return Pong(*head(request))
                case _:
                    return Found(*head(request), [], [], b"")

        other.answers = answers
        next(iter(node.servers.values())).router.on_proved(other.contact, 0.0)
    result = await node.set("name", "value")
    is_tried_again = node.own.deadline() - node.shared.now() < 60
    await node.aclose()
    return (result.confirmed, result.asked) == (1, 4) and is_tried_again


async def stock_set_alone() -> bool:
    node = await stock_server(World())
    await node.server.set("name", "value")
    return await node.server.get("name") == "value"


async def our_set_alone() -> bool:
    node = await start_node(World())
    result = await node.set("name", "value")
    found = await node.get("name")
    await node.aclose()
    return result.home and result.confirmed == 0 and found == "value"
