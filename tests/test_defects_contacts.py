"""Defects of stock's contacts and ids, each beside ours. docs/security.md has the rows."""

import asyncio
from typing import Any

from defects_support import (
    HERE,
    ID,
    NOTHING,
    PORT,
    STOCK,
    Kept,
    Loopback,
    Stock,
    StockStranger,
    head,
    outcome,
    promise,
    promise_on_sockets,
    stock_server,
    until,
)
from kademlia.network import Server
from kademlia.node import Node
from support import (
    LOCAL,
    NOW,
    PUBLIC,
    Stranger,
    contact_of,
    node_key,
    public_ip,
    start_node,
    tap_of,
    value_record,
    way_in,
)

from atonce_sim.world import World
from dht_atonce.codec import encode
from dht_atonce.dht.contact import Contact, pack_contact
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.wire import FindNode, FindValue, Ping, Pong, Reply, Request
from dht_atonce.endpoints import Address, pack_address

KEY = node_key(500).public


def names(liar: Stranger, node: DhtNode, contacts: list[Any], record: bytes = b"") -> None:
    """From now on the stranger names these, whatever they are, to whoever asks it for nodes."""

    def answers(request: Request, _source: Address) -> Reply | None:
        if not isinstance(request, FindNode | FindValue):
            return Pong(*head(request))
        liar.reply(node, encode([2, *head(request), contacts, [], record]))
        return None

    liar.answers = answers


# --- contacts that are none ---

PORT_70000 = KEY + bytes([127, 0, 0, 1]) + (70_000).to_bytes(3, "big")
NO_CONTACTS: dict[str, tuple[list[Any], Any]] = {
    "port 70000": ([b"\x01" * 20, "127.0.0.1", 70_000], PORT_70000),
    "no address": ([b"\x02" * 20, None, 4000], KEY + b"\0\0\0"),
    "no port": ([b"\x03" * 20, "127.0.0.1"], [KEY, "127.0.0.1"]),
}
"""As stock's wire says it, and as ours might."""


@promise_on_sockets
async def test_a_reply_that_names_what_is_no_contact_does_not_end_the_node(side: str) -> Kept:
    kept = {}
    for what, (to_stock, to_ours) in NO_CONTACTS.items():
        kept[what] = await (stock_survives(to_stock) if side == STOCK else ours_survives(to_ours))
    return kept


async def stock_survives(bad: list[Any]) -> bool:
    server, liar = Server(ksize=4), StockStranger(Loopback())
    await server.listen(0, "127.0.0.1")
    liar.answers = lambda name, _args: [bad] if name == "find_node" else liar.id
    joining = asyncio.ensure_future(server.bootstrap([("127.0.0.1", liar.address.port)]))
    await until(lambda: len(liar.requests) == 2)
    await asyncio.sleep(0.05)
    answer = await liar.asks(Address(*server.transport.get_extra_info("sockname")), "ping", liar.id)
    joining.cancel()
    server.stop()
    liar.close()
    return answer is not NOTHING


async def ours_survives(bad: Any) -> bool:
    node, honest = DhtNode(network=LOCAL), DhtNode(network=LOCAL)
    for one in (node, honest):
        await one.listen(interface="127.0.0.1")
    liar = Stranger(Loopback())  # type: ignore[arg-type] # all that it asks of a world
    names(liar, node, [bad])
    joining = asyncio.ensure_future(node.bootstrap([("127.0.0.1", liar.address.port, liar.node_key.public)]))
    await until(lambda: len(liar.heard) == 2)
    await asyncio.sleep(0.05)
    answer = await next(iter(honest.servers.values())).ask(contact_of(node), Ping(0, ID, 0))
    joining.cancel()
    liar.close()
    await node.aclose()
    await honest.aclose()
    return answer is not None


PLANTED = {
    "a host name": "intranet.example",
    "this machine": "127.0.0.1",
    "a private address": "10.1.2.3",
    "the cloud's metadata": "169.254.169.254",
    "multicast": "224.0.0.251",
}


@promise
async def test_only_literal_addresses_that_are_everybody_s_are_asked(side: str) -> Kept:
    world = World()
    if side == STOCK:
        victim = await stock_server(world, k=20, ip=public_ip(1))
        liar = StockStranger(world, ip=public_ip(2))
        contacts = [[bytes([n]) * 20, host, PORT] for n, host in enumerate(PLANTED.values(), 1)]
        liar.answers = lambda name, _args: contacts if name == "find_node" else liar.id
        await victim.server.bootstrap([tuple(liar.address)])
        asked = {to.ip for _, _, to in victim.tap.sent}
    else:
        node = await start_node(world, PUBLIC, ip=public_ip(1), tap=True)
        other = Stranger(world, network=PUBLIC, ip=public_ip(2))
        names(other, node, [KEY + as_bytes(host) for host in PLANTED.values()])
        await node.bootstrap([other.way_in])
        asked = {to.ip for _, _, to in tap_of(node).sent}
        await node.aclose()
    assert public_ip(2) in asked
    return {what: host not in asked for what, host in PLANTED.items()}


def as_bytes(host: str) -> bytes:
    return host.encode() if host.endswith("example") else pack_address(Address(host, PORT))


# --- ids ---


@promise
async def test_names_that_tie_break_no_later_lookup(side: str) -> Kept:
    # Stock's ids have any length: two that are one number have one distance, and its heap compares the nodes.
    world = World()
    if side == STOCK:
        honest = await stock_server(world)
        assert await (await stock_server(world, via=honest)).server.set("name", "value")
        victim = await stock_server(world, via=honest)
        for name in (b"\x07" * 20, b"\0" + b"\x07" * 20):
            await StockStranger(world).asks(victim.address, "ping", name)
        victim.server.storage.data.clear()
        return await outcome(victim.server.get("name")) == "value"
    record = value_record()
    holder = await start_node(world)
    holder.shared.store.keep(record, NOW)
    node, liar = await start_node(world, via=holder), Stranger(world)
    two_places = [pack_contact(Contact(KEY, Address(f"10.9.9.{n}", PORT))) for n in (1, 2)]
    names(liar, node, [*two_places, KEY[1:] + HERE, b"\0" + KEY + HERE])
    await node.bootstrap([liar.way_in])
    found = await outcome(node.find(record.key, fresh=True))
    await node.aclose()
    await holder.aclose()
    return bool(found.record is not None and found.record.blob == record.blob and found.requests)


# --- seats ---


@promise
async def test_one_packet_from_a_false_address_wins_no_seat(side: str) -> Kept:
    world = World()
    if side == STOCK:
        victim, stranger = await stock_server(world), StockStranger(world)
        stranger.ask(victim.address, "ping", b"a chosen id of 20 by")
        await asyncio.sleep(1)
        return not victim.seats()
    node, other = await start_node(world), Stranger(world)
    other.ask(node, Ping(0, ID, 0))
    await asyncio.sleep(1)
    heard = node.counters["dht.received"]
    seated = node.known_nodes
    await node.aclose()
    return heard == 1 and not seated


@promise
async def test_who_claims_an_honest_node_s_id_first_does_not_get_its_seat(side: str) -> Kept:
    world = World()
    if side == STOCK:
        victim, thief = await stock_server(world), StockStranger(world)
        honest = await stock_server(world)
        thief.answers = lambda _name, _args: honest.server.node.id
        await thief.asks(victim.address, "ping", honest.server.node.id)
        await honest.server.bootstrap([tuple(victim.address)])
        return victim.seats()[honest.server.node.id] == honest.address
    node, liar, ear = await start_node(world), Stranger(world), Stranger(world, 1001)
    friend = await start_node(world)
    names(liar, node, [pack_contact(Contact(friend.shared.node_key.public, ear.address))])
    await node.bootstrap([liar.way_in])
    await friend.bootstrap([way_in(node)])
    await asyncio.sleep(10)
    seat = next(iter(node.servers.values())).router.seat_of(friend.shared.node_key.id)
    await node.aclose()
    await friend.aclose()
    return bool(ear.heard) and seat is not None and seat.contact.address == friend.addresses[0]


@promise
async def test_whoever_answers_must_be_whom_we_asked(side: str) -> Kept:
    world = World()
    claimed = b"\x09" * 20
    if side == STOCK:
        victim: Stock = await stock_server(world)
        other = StockStranger(world)
        other.answers = lambda _name, _args: other.id
        await victim.server.protocol.call_ping(Node(claimed, *other.address))
        return claimed not in victim.seats()
    node, stranger = await start_node(world), Stranger(world)
    claimed_key = node_key(77)
    protocol = next(iter(node.servers.values())).protocol
    answers: list[object] = []
    protocol.ask(Contact(claimed_key.public, stranger.address), Ping(0, ID, 0), answers.append)
    stranger.reply(node, Pong(*head(Ping(0, ID, 0))))  # though it could not even read the request
    await asyncio.sleep(10)
    seat = protocol.router.seat_of(claimed_key.id)
    await node.aclose()
    return answers == [None] and seat is None
