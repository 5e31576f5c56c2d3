"""Defects of stock's RPC, each beside ours. docs/security.md has the rows."""

import asyncio
import gc
from contextlib import suppress
from typing import Any

import umsgpack
from defects_support import (
    ID,
    STOCK,
    Kept,
    StockStranger,
    head,
    promise,
    stock_server,
)
from kademlia.network import Server
from kademlia.node import Node
from kademlia.protocol import KademliaProtocol
from support import LOCAL, Stranger, contact_of, node_key, start_node

from atonce_sim.world import World
from dht_atonce.codec import encode
from dht_atonce.dht.protocol import SealedProtocol
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.wire import Ping, Pong
from dht_atonce.endpoints import Address, Family

PACKETS = 50


@promise
async def test_a_datagram_starts_no_task_and_what_is_none_of_ours_is_not_unpacked(side: str) -> Kept:
    world = World()
    loop = asyncio.get_running_loop()
    if side == STOCK:
        stock, stranger = await stock_server(world), StockStranger(world)
        receive, ping = stock.server.protocol.datagram_received, b"\0" * 21 + umsgpack.packb(["ping", [stranger.id]])
        unknown = b"\x07" + ID.ljust(20) + b"\xc1"
    else:
        node, other = await start_node(world), Stranger(world)
        receive = next(iter(node.servers.values())).protocol.datagram_received
        ping = other.sealer.seal(1, node.shared.node_key.public, encode(Ping(0, ID, 0)), bytes(24))
        unknown = bytes([1, 7]) + bytes(60)
    tasks: list[str] = []

    def starts(of: asyncio.AbstractEventLoop, coroutine: Any, **details: Any) -> "asyncio.Task[Any]":
        tasks.append(str(coroutine))
        return asyncio.Task(coroutine, loop=of, **details)

    unhandled: list[object] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    loop.set_task_factory(starts)
    for _ in range(PACKETS):
        receive(ping, Address("10.0.0.9", 4000))
    await asyncio.sleep(1)
    started = len(tasks)
    receive(unknown, Address("10.0.0.9", 4000))
    await asyncio.sleep(1)
    loop.set_task_factory(None)
    gc.collect()  # a task that nobody awaits tells of its error when it goes
    await asyncio.sleep(0)
    if side == STOCK:
        assert started == 2 * PACKETS
    else:
        assert node.counters["dht.answered"] == PACKETS
        await node.aclose()
    return {"no task": not started, "not unpacked": not unhandled}


@promise
async def test_a_reply_counts_only_from_whom_it_was_asked(side: str) -> Kept:
    world = World()
    if side == STOCK:
        victim, asked, thief = await stock_server(world), StockStranger(world), StockStranger(world)
        call = asyncio.ensure_future(victim.server.protocol.ping(tuple(asked.address), b"i" * 20))
        await asyncio.sleep(1)
        thief.send(b"\x01" + asked.heard[0][0][1:21] + umsgpack.packb(b"t" * 20), victim.address)
        await asyncio.sleep(10)
        return call.result() == (False, None)
    node, silent = await start_node(world), Stranger(world)
    other = Stranger(world)  # with the same key, and with the id of the request
    answers: list[object] = []
    next(iter(node.servers.values())).protocol.ask(silent.contact, Ping(0, ID, 0), answers.append)
    await asyncio.sleep(0.1)
    other.reply(node, Pong(*head(Ping(0, ID, 0))))
    await asyncio.sleep(10)
    await node.aclose()
    return answers == [None]


@promise
async def test_a_call_that_is_cancelled_leaves_nothing_behind(side: str) -> Kept:
    world = World()
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    if side == STOCK:
        stock = await stock_server(world)
        call = asyncio.ensure_future(stock.server.protocol.call_ping(nobody()))
        waiting = stock.server.protocol._outstanding
    else:
        node = await start_node(world)
        server = next(iter(node.servers.values()))
        call = asyncio.ensure_future(server.ask(Stranger(world).contact, Ping(0, ID, 0)))
        waiting = server.protocol._outstanding
    await asyncio.sleep(0.01)
    assert waiting
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call
    await asyncio.sleep(10)
    if side != STOCK:
        await node.aclose()
    return {"no error": not unhandled, "forgotten": not waiting}


def nobody() -> Node:
    """A contact of stock's that does not answer."""
    return Node(b"n" * 20, "10.99.0.1", 4000)


class StockWithHelper(KademliaProtocol):
    called = 0

    def rpc_helper(self, *_: Any) -> bool:
        """Not meant for others; its name is enough."""
        type(self).called += 1
        return True


class OursWithHelper(SealedProtocol):
    called = 0

    def rpc_helper(self, *_: Any) -> bool:
        type(self).called += 1
        return True


@promise
async def test_a_stranger_calls_what_is_listed_and_not_what_has_a_name(side: str) -> Kept:
    world = World()
    if side == STOCK:

        class Helped(Server):
            protocol_class = StockWithHelper

        victim = await stock_server(world, made=Helped)
        await StockStranger(world).asks(victim.address, "helper")
        return not StockWithHelper.called
    node, other = await start_node(world), Stranger(world)
    protocol = OursWithHelper(node.shared, Family.IPV4, {})
    for body in (encode(["helper", []]), encode(["rpc_helper", 0, ID, 0]), encode([6, 0, ID, 0])):
        other.ask(node, body)
    other.send(b"\0" * 21 + umsgpack.packb(["helper", []]), node.addresses[0])
    for data in [other.sealer.seal(1, node.shared.node_key.public, encode(["helper", []]), bytes(24))]:
        protocol.datagram_received(data, other.address)
    await asyncio.sleep(1)
    unreadable = node.counters["dht.unreadable"] + node.counters["dht.short"] + node.counters["dht.unknown_major"]
    await node.aclose()
    return not OursWithHelper.called and not other.heard and unreadable >= 3


class StockWithProperty(KademliaProtocol):
    @property
    def size(self) -> int:
        return len(None.nodes)  # type: ignore[attr-defined] # a mistake, as it happens


class OursWithProperty(SealedProtocol):
    @property
    def size(self) -> int:
        return len(None.nodes)  # type: ignore[attr-defined]


@promise
async def test_a_mistake_in_a_property_is_no_remote_call(side: str) -> Kept:
    if side == STOCK:
        made: Any = StockWithProperty(nobody(), {}, 4)
    else:
        made = OursWithProperty(Shared(World().host(), LOCAL, node_key(1)), Family.IPV4, {})

    def raises(name: str) -> bool:
        try:
            getattr(made, name)
        except AttributeError:
            return True
        return False

    return {"a property": raises("size"), "a name that is none": raises("fnd_node")}


@promise
async def test_one_lost_packet_is_sent_again_and_soon(side: str) -> Kept:
    world = World()
    loop = asyncio.get_running_loop()
    world.loss = 1.0
    loop.call_later(0.1, setattr, world, "loss", 0.0)
    if side == STOCK:
        stock, other = await stock_server(world), StockStranger(world)
        other.answers = lambda _name, _args: other.id
        answered, _ = await stock.server.protocol.ping(tuple(other.address), stock.server.node.id)
        return bool(answered)
    node, friend = await start_node(world), await start_node(world)
    began = loop.time()
    answer = await next(iter(node.servers.values())).ask(contact_of(friend), Ping(0, ID, 0))
    elapsed_s = loop.time() - began
    await node.aclose()
    await friend.aclose()
    return answer is not None and elapsed_s < 1
