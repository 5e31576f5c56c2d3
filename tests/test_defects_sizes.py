"""How much stock sends, logs and reads for whoever speaks to it, each beside ours. docs/security.md has the rows."""

import asyncio
import logging

from defects_support import (
    ID,
    STOCK,
    Kept,
    StockStranger,
    head,
    promise,
    promise_on_sockets,
    stock_server,
)
from kademlia.network import Server
from kademlia.node import Node
from support import LOCAL, NOW, PUBLIC, Stranger, contact, contact_at, node_key, public_ip, start_node, value_record

from atonce_sim.world import World
from dht_atonce.config import DhtConfig
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.wire import FindNode, FindValue, Ping, Pong, Store, Stored
from dht_atonce.endpoints import Address

LARGE = value_record(value=bytes(380))
PUBLIC_LARGE = value_record(value=bytes(380), network=PUBLIC)


@promise
async def test_a_false_source_gets_at_most_three_bytes_for_one(side: str) -> Kept:
    world = World()
    if side == STOCK:
        victim = await stock_server(world, k=20)
        for number in range(20):
            seat = contact(number)
            victim.table.add_contact(Node(seat.id, seat.ip, seat.port))
        victim.server.storage[b"v" * 20] = bytes(60_000)
        spoofed = StockStranger(world)
        asked = {
            "find_node": spoofed.ask(victim.address, "find_node", spoofed.id, bytes(20)),
            "find_value": spoofed.ask(victim.address, "find_value", spoofed.id, b"v" * 20),
        }
        await asyncio.sleep(1)
        answers = [len(data) for data, _ in spoofed.heard if data[:1] == b"\x01"]
        return {what: got <= min(3 * size, 1232) for (what, size), got in zip(asked.items(), answers, strict=True)}
    node = await start_node(world, PUBLIC.with_k(20), ip=public_ip(100))
    for number in range(40):
        next(iter(node.servers.values())).router.on_proved(contact(number), 0.0)
    node.shared.store.keep(PUBLIC_LARGE, NOW)
    requests = {"find_node": FindNode(0, ID, 0, bytes(20), 0), "find_value": FindValue(0, ID, 0, PUBLIC_LARGE.key, 0)}
    kept = {}
    for number, (what, request) in enumerate(requests.items()):
        kept[what] = True
        for padding in (0, 200, 411, 1232):
            other = Stranger(world, 1000 + padding, network=PUBLIC.with_k(20), ip=public_ip(200 + padding + number))
            size = other.ask(node, request, min_size=padding)
            await asyncio.sleep(1)
            kept[what] &= bool(other.heard) and len(other.heard[0][0]) <= min(3 * size, 1232)
    await node.aclose()
    return kept


@promise
async def test_who_waits_for_a_seat_is_not_sent_all_values_with_each_message(side: str) -> Kept:
    world = World()
    newcomer = node_key(1000)
    near = [5 ^ number for number in (1, 2, 3, 4)]
    beside = [newcomer.id and int.from_bytes(newcomer.id, "big") ^ number << 2 for number in (1, 4, 5, 6)]
    if side == STOCK:
        victim = await stock_server(world, node_id=(5).to_bytes(20, "big"))
        for long_id in near + beside:
            victim.table.add_contact(Node(long_id.to_bytes(20, "big"), "10.99.0.1", 4000))
        for number in range(50):
            victim.server.storage[bytes([number])] = bytes(500)
        other = StockStranger(world)  # who answers nothing: with answers this would never end
        sent = sum([other.ask(victim.address, "ping", newcomer.id) for _ in range(20)])
        await asyncio.sleep(1)
        assert newcomer.id not in victim.seats()
        return sum(len(data) for data, _ in other.heard) <= 3 * sent
    return await our_newcomer(world, beside)


async def our_newcomer(world: World, beside: list[int]) -> bool:
    node, other = await start_node(world), Stranger(world)
    router = next(iter(node.servers.values())).router
    own = int.from_bytes(node.shared.node_key.id, "big")
    for long_id in [own ^ 1, own ^ 2, own ^ 3, own ^ 4, *beside]:
        router.on_proved(contact_at(long_id), 0.0)
    router.take_seated()
    for number in range(50):
        node.shared.store.keep(value_record(f"name {number}", value=bytes(380)), NOW)
    reply = await other.asks(node, Ping(0, ID, 0))
    assert reply is not None
    other.answers = lambda request, _source: (
        Stored(*head(request), 0, b"") if isinstance(request, Store) else Pong(*head(request))
    )
    before = sum(len(data) for data, _ in other.heard)
    sent = sum([other.ask(node, Ping(0, ID, 0), reply.cookie) for _ in range(20)])
    await asyncio.sleep(10)
    assert router.seat_of(other.node_key.id) is None
    got = sum(len(data) for data, _ in other.heard) - before
    await node.aclose()
    return got <= 3 * sent


class _Noted(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@promise_on_sockets
async def test_bad_packets_are_counted_and_not_logged(side: str) -> Kept:
    """Too short, an answer to nothing, and a request that nobody answers."""
    noted, quiet = _Noted(), logging.NOTSET
    bad: dict[str, bytes] = {"short": b"\x01short", "unasked": b"\x01" + bytes(20) + b"\xc0"}
    heard = {}
    logging.getLogger().addHandler(noted)
    logging.getLogger("rpcudp").setLevel(quiet)
    try:
        if side == STOCK:
            server = Server(ksize=4)
            await server.listen(0, "127.0.0.1")
            for what, data in bad.items():
                noted.lines.clear()
                server.protocol.datagram_received(data, ("127.0.0.1", 5000))
                await asyncio.sleep(0.01)
                heard[what] = not noted.lines
            noted.lines.clear()
            server.protocol._wait_timeout = 0.01
            await server.protocol.ping(("127.0.0.1", 9), bytes(20))
            heard["unanswered"] = not noted.lines
            server.stop()
            return heard
        node = DhtNode(network=LOCAL, config=DhtConfig(first_timeout_s=0.01, tries=1))
        await node.listen(interface="127.0.0.1")
        protocol = next(iter(node.servers.values())).protocol
        counted = {"short": "dht.short", "unasked": "dht.unasked", "unanswered": "dht.unanswered"}
        protocol.datagram_received(bad["short"], Address("127.0.0.1", 5000))
        protocol.datagram_received(bytes([1, 2]) + bytes(100), Address("127.0.0.1", 5000))
        await node.ping([contact(1, "127.0.0.1", 9)], 1.0)
        heard = {what: node.counters[counter] == 1 and not noted.lines for what, counter in counted.items()}
        await node.aclose()
        return heard
    finally:
        logging.getLogger().removeHandler(noted)
