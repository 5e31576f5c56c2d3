"""Defects of stock's storage and of what it does with values, each beside ours. docs/security.md has the rows."""

import asyncio
import random

from defects_support import ID, STOCK, Kept, StockStranger, promise, stock_server
from kademlia.network import Server
from kademlia.node import Node
from kademlia.storage import ForgetfulStorage
from kademlia.utils import digest
from support import (
    LIFE,
    LOCAL,
    NOW,
    Stranger,
    contact_of,
    node_key,
    start_node,
    value_record,
    way_in,
)

from atonce_sim.world import World
from dht_atonce.codec import encode
from dht_atonce.config import DhtConfig
from dht_atonce.dht.family import FamilyServer
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.storage import RecordStore
from dht_atonce.dht.wire import (
    Ping,
    Store,
    Stored,
)
from dht_atonce.endpoints import Family
from dht_atonce.records import ValueRecord

# --- what may be stored ---


@promise
async def test_nobody_stores_what_is_not_signed_well_shaped_and_small(side: str) -> Kept:
    world = World()
    stuff = {"unsigned": b"value", "of another type": [1, 2, 3], "too large": bytes(20_000)}
    if side == STOCK:
        victim, stranger = await stock_server(world), StockStranger(world)
        kept = {}
        for number, (what, value) in enumerate(stuff.items()):
            key = bytes([number]) * (number + 1)
            await stranger.asks(victim.address, "store", stranger.id, key, value)
            kept[what] = key not in victim.server.storage.data
        return kept
    node, other = await start_node(world), Stranger(world)
    reply = await other.asks(node, Ping(0, ID, 0))
    assert reply is not None
    kept = {}
    for what, value in stuff.items():
        said = value[:1100] if isinstance(value, bytes) else value
        other.ask(node, encode([4, 0, ID, 0, said]), reply.cookie)
        await asyncio.sleep(1)
        kept[what] = not node.shared.store.count
    # It is no wall: what is signed is kept.
    assert isinstance(await other.asks(node, Store(0, ID, 0, value_record().blob), reply.cookie), Stored)
    await node.aclose()
    return kept


# --- how long it lives, and which version ---


@promise
async def test_a_value_ends_and_its_newest_version_stays(side: str) -> Kept:
    if side == STOCK:
        return {"it ends": await stock_value_ends(), "the newest stays": await stock_newest_stays()}
    return {"it ends": await our_value_ends(), "the newest stays": await our_newest_stays()}


async def stock_value_ends() -> bool:
    world = World()
    owner = await stock_server(world, storage=ForgetfulStorage(LIFE))
    others = [await stock_server(world, via=owner, storage=ForgetfulStorage(LIFE)) for _ in range(3)]
    await owner.server.set("name", "value")
    owner.server.stop()
    await asyncio.sleep(5 * LIFE)
    return all(other.server.storage.get(digest("name")) is None for other in others)


async def our_value_ends() -> bool:
    world = World()
    owner = await start_node(world)
    others = [await start_node(world, via=owner) for _ in range(3)]
    await owner.set("name", "value")
    key = owner.own.keys()[0]
    assert all(other.shared.store.live(key, other.shared.wall()) for other in others)
    world.crash(world.hosts[owner.addresses[0].ip])
    await asyncio.sleep(1.1 * LIFE)
    found = [(await other.find(key, fresh=True)).record for other in others]
    for node in (owner, *others):
        await node.aclose()
    return found == [None] * 3


async def stock_newest_stays() -> bool:
    world = World()
    nodes = [await stock_server(world)]
    nodes += [await stock_server(world, via=nodes[0]) for _ in range(2)]
    late = nodes[2]
    await nodes[0].server.set("name", "old")
    nodes[0].server.storage[digest("name")] = "old"
    world.unreachable.add(late.address.ip)
    await asyncio.sleep(60)
    await nodes[0].server.set("name", "new")
    nodes[0].server.storage[digest("name")] = "new"
    world.unreachable.clear()
    await late.server.bootstrap([tuple(nodes[0].address)])
    await asyncio.sleep(3 * 3600)
    return all(node.server.storage.get(digest("name")) == "new" for node in nodes)


async def our_newest_stays() -> bool:
    world = World()
    nodes = [await start_node(world)]
    nodes += [await start_node(world, via=nodes[0]) for _ in range(2)]
    late = nodes[2]
    await nodes[0].set("name", "old")
    key = nodes[0].own.keys()[0]
    world.unreachable.add(late.addresses[0].ip)
    await asyncio.sleep(60)
    await nodes[0].set("name", "new")
    world.unreachable.clear()
    await late.bootstrap([way_in(nodes[0])])
    await asyncio.sleep(LIFE)
    records = [node.shared.store.get(key) for node in nodes]
    for node in nodes:
        await node.aclose()
    return all(isinstance(record, ValueRecord) and record.value == encode("new") for record in records)


@promise
async def test_a_life_is_counted_by_the_wall_clock_and_goes_on_over_restarts(side: str) -> Kept:
    world = World()
    if side == STOCK:
        # It asks the monotonic clock, which stands still while a machine sleeps: no time passes for it.
        asleep = ForgetfulStorage(LIFE)
        asleep[b"k" * 20] = "value"
        after_sleep = asleep.get(b"k" * 20) is None
        host = world.host()
        holder, other = await stock_server(world, storage=ForgetfulStorage(LIFE), host=host), await stock_server(world)
        holder.server.storage[b"k" * 20] = "value"
        await asyncio.sleep(LIFE - 60)
        holder.server.stop()
        again = await stock_server(world, storage=ForgetfulStorage(LIFE), host=world.restart(host))
        await other.server.protocol.call_store(Node(b"h" * 20, *again.address), b"k" * 20, "value")
        await asyncio.sleep(120)
        return {"sleep": after_sleep, "restart": again.server.storage.get(b"k" * 20) is None}
    sleeper = await start_node(world)
    sleeper.shared.store.keep(value_record(expires=NOW + LIFE), NOW)
    world.hosts[sleeper.addresses[0].ip].virtual_clock.skew_s += 2 * LIFE
    after_sleep = (await sleeper.find(value_record().key)).record is None
    host = world.host()
    first, friend = await start_node(world, host=host, node_key=node_key(3)), await start_node(world)
    record = value_record(expires=NOW + LIFE)
    first.shared.store.keep(record, NOW)
    await asyncio.sleep(LIFE - 60)
    world.crash(host)
    restarted = await start_node(world, host=world.restart(host), node_key=node_key(3), via=friend)
    await next(iter(friend.servers.values())).store_at([contact_of(restarted)], record)
    assert restarted.shared.store.live(record.key, restarted.shared.wall()) is not None
    await asyncio.sleep(120)
    after_restart = restarted.shared.store.live(record.key, restarted.shared.wall()) is None
    for node in (sleeper, first, friend, restarted):
        await node.aclose()
    return {"sleep": after_sleep, "restart": after_restart}


# --- the storage itself ---


@promise
async def test_a_storage_has_a_bound_and_knows_what_it_holds(side: str) -> Kept:
    if side == STOCK:
        storage = ForgetfulStorage()
        for number in range(20_001):
            storage[number.to_bytes(20, "big")] = b""
        return {"a bound": len(storage.data) <= 20_000, "knows": bytes(20) in storage}
    records = [value_record(str(number)) for number in range(60)]
    store = RecordStore(0, LOCAL, DhtConfig(max_records=40), random.Random(1))
    for record in records:
        store.keep(record, NOW)
    nearest = min(records, key=lambda record: record.key)
    return {"a bound": store.count == 40, "knows": nearest.key in store}


class SizedStorage(ForgetfulStorage):
    def __len__(self) -> int:
        return len(self.data)


class SizedStore(RecordStore):
    def __len__(self) -> int:
        return self.count


@promise
async def test_an_empty_storage_is_not_replaced(side: str) -> Kept:
    if side == STOCK:
        mine = SizedStorage()
        return Server(storage=mine).storage is mine
    shared = Shared(World().host(), LOCAL, node_key(1))
    shared.store = SizedStore(0, LOCAL, DhtConfig(), random.Random(1))
    server = FamilyServer(shared, Family.IPV4, {})
    return server.storage is shared.store and server.protocol.storage is shared.store
