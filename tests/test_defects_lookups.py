"""Defects of stock's lookups, each beside ours. docs/security.md has the rows."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from defects_support import NOTHING, PORT, STOCK, Kept, StockStranger, head, outcome, promise, stock_server
from kademlia.crawling import NodeSpiderCrawl
from kademlia.node import Node
from kademlia.utils import digest
from support import (
    LOCAL,
    NOW,
    Stranger,
    contact_at,
    identity,
    node_key,
    start_node,
    start_nodes,
    tap_of,
    value_record,
    way_in,
)

from atonce_sim.world import World
from dht_atonce.codec import encode
from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact, pack_contact
from dht_atonce.dht.lookup import Lookup, LookupEnd
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.wire import FindValue, Found, Pong, Refusal, Refused, Reply, Request, Store
from dht_atonce.endpoints import Address

K = 4
Tells = Callable[[int], list[int] | None]
"""Whom a node names, by ids; None if it is dead."""


# --- a lookup alone ---


async def search(side: str, tells: Tells, start: list[int], target: int = 0) -> tuple[list[int], int, bool]:
    """Whom a lookup of `target` gives as alive, how many requests it took, and whether it came to an end."""
    return await stock_search(tells, start, target) if side == STOCK else our_search(tells, start, target)


async def stock_search(tells: Tells, start: list[int], target: int) -> tuple[list[int], int, bool]:
    def node(long_id: int) -> Node:
        return Node(long_id.to_bytes(20, "big"), "10.0.0.1", PORT)

    class Network:
        requests = 0

        async def call_find_node(self, asked: Node, _target: Node) -> tuple[bool, Any]:
            self.requests += 1
            named = tells(asked.long_id)
            return (False, None) if named is None else (True, [tuple(node(long_id)) for long_id in named])

    network = Network()
    crawl = NodeSpiderCrawl(network, node(target), [node(long_id) for long_id in start], K, 3)
    found = await outcome(crawl.find())
    if isinstance(found, Exception):
        return [], network.requests, False
    return [one.long_id for one in found], network.requests, True


def our_search(tells: Tells, start: list[int], target: int) -> tuple[list[int], int, bool]:
    contacts = [contact_at(long_id) for long_id in start]
    lookup = Lookup(target, contacts, own_id=b"", need=K, now=0.0, config=DhtConfig())
    now = 0.0
    while lookup.end is None:
        for contact in lookup.next(now, 1.0):
            named = tells(contact.long_id)
            if named is None:
                lookup.on_failure(contact)
            else:
                lookup.on_reply(contact, [contact_at(long_id) for long_id in named], None)
        now += 0.01
    return [contact.long_id for contact in lookup.closest(K)], lookup.requests, lookup.end is not LookupEnd.DEADLINE


@promise
async def test_who_did_not_answer_is_not_given_as_alive_whoever_names_it(side: str) -> Kept:
    # The last of them names the dead one when it has failed already.
    dead = 1
    named = {40: [dead, 30], 30: [20], 20: [dead, 10], 10: [dead]}
    found, _, _ = await search(side, lambda asked: named.get(asked), [40])
    assert found
    return dead not in found


@promise
async def test_ever_closer_nodes_are_not_followed_for_ever(side: str) -> Kept:
    _, requests, ended = await search(side, lambda asked: [asked - 1], [1 << 100])
    return ended and requests <= 100


# --- a lookup in a network ---


@promise
async def test_the_dead_near_a_key_cost_a_lookup_no_five_seconds(side: str) -> Kept:
    world = World(7)
    loop = asyncio.get_running_loop()
    if side == STOCK:
        first = await stock_server(world)
        nodes = [first, *[await stock_server(world, via=first) for _ in range(15)]]
        await nodes[3].server.set("name", "value")
        key = digest("name")
        nodes.sort(key=lambda node: node.server.node.long_id ^ int.from_bytes(key, "big"))
        for node in nodes[:2]:
            node.server.stop()
        longest_s = 0.0
        for node in nodes[2:]:
            if key not in node.server.storage.data:
                began = loop.time()
                assert await node.server.get("name") == "value"
                longest_s = max(longest_s, loop.time() - began)
        return longest_s < 1
    ours = await start_nodes(world, 16)
    await ours[3].set("name", "value")
    key = next(iter(ours[3].own.keys()))
    ours.sort(key=lambda node: int.from_bytes(node.shared.node_key.id, "big") ^ int.from_bytes(key, "big"))
    for node in ours[:2]:
        world.crash(world.hosts[node.addresses[0].ip])
    results = [await node.find(key) for node in ours[2:] if key not in node.shared.store]
    for node in ours:
        await node.aclose()
    assert all(result.record for result in results)
    return max(result.elapsed_s for result in results) < 1


@promise
async def test_of_one_reply_no_more_than_sixteen_are_taken(side: str) -> Kept:
    world = World()
    crowd = [Contact(node_key(2000 + n).public, Address(f"10.7.{n}.1", PORT)) for n in range(24)]
    if side == STOCK:
        victim, liar = await stock_server(world, k=20), StockStranger(world)
        named = [[contact.id, contact.ip, contact.port] for contact in crowd]
        liar.answers = lambda name, _args: named if name == "find_node" else liar.id
        await victim.server.bootstrap([tuple(liar.address)])
        sent = victim.tap.sent
    else:
        node, other = await start_node(world, LOCAL.with_k(20), tap=True), Stranger(world, network=LOCAL.with_k(20))
        packed = [pack_contact(contact) for contact in crowd]
        other.answers = lambda request, _source: other.reply(node, encode([2, *head(request), packed, [], b""]))
        await node.bootstrap([other.way_in])
        sent = tap_of(node).sent
        await node.aclose()
    asked = {to for _, _, to in sent}
    return len(asked & {contact.address for contact in crowd}) <= 16


# --- malformed and forged answers ---

MALFORMED: list[Any] = [7, "text", [7], [[b"short"]], [[1, 2, 3]], {"no": "value"}, [[b"i" * 20, "10.0.0.9", 1, 2]]]


@promise
async def test_what_a_liar_answers_ends_no_bootstrap_and_no_get_and_is_never_given(side: str) -> Kept:
    return await (stock_among_liars() if side == STOCK else ours_among_liars())


async def stock_among_liars() -> dict[str, bool]:
    kept = {"bootstrap": True, "get": True, "forged": True}
    for malformed in MALFORMED:
        world = World()
        honest = await stock_server(world)
        await honest.server.bootstrap([tuple((await stock_server(world)).address)])
        await honest.server.set("name", "value")
        victim, liar = await stock_server(world), StockStranger(world)
        liar.answers = partial(lies, liar.id, malformed)
        joined = await outcome(victim.server.bootstrap([tuple(liar.address), tuple(honest.address)]))
        kept["bootstrap"] &= not isinstance(joined, Exception)
        victim.server.storage.data.clear()
        victim.server.protocol.welcome_if_new(Node(liar.id, *liar.address))
        kept["get"] &= await outcome(victim.server.get("name")) == "value"
        liar.answers = partial(lies, liar.id, {"value": "forged"})
        kept["forged"] &= await outcome(victim.server.get("another name")) != "forged"
    return kept


def lies(own_id: bytes, says: Any, name: str, _args: list[Any]) -> Any:
    """What a liar answers to stock."""
    return own_id if name == "ping" else says


async def ours_among_liars() -> dict[str, bool]:
    record = value_record()
    forged = value_record(value=b"forged", who=identity(9))
    spoilt = record.blob[:-1] + bytes([record.blob[-1] ^ 1])
    tails = [*([said, [], b""] for said in MALFORMED), *([[], [], blob] for blob in (spoilt, forged.blob))]
    kept = {"bootstrap": True, "get": True, "forged": True}
    for tail in tails:
        world = World()
        holder, node, liar = await start_node(world), await start_node(world), Stranger(world)
        holder.shared.store.keep(record, NOW)
        liar.answers = partial(answers_with, liar, node, tail)
        kept["bootstrap"] &= await node.bootstrap([liar.way_in, way_in(holder)]) >= 1
        found = await node.find(record.key, fresh=True)
        kept["get"] &= found.record is not None
        kept["forged"] &= found.record is not None and found.record.blob == record.blob
        kept["forged"] &= (await node.find(value_record("another name").key)).record is None
        await node.aclose()
        liar.close()
    await holder.aclose()
    return kept


def answers_with(liar: Stranger, node: DhtNode, tail: list[Any], request: Request, _source: Address) -> None:
    """What a liar answers to ours: FOUND, and then anything."""
    liar.reply(node, encode([2, *head(request), *tail]))


# --- which answer counts ---


@promise
async def test_the_newest_answer_counts_and_no_forged_one_is_passed_on(side: str) -> Kept:
    world = World()
    if side == STOCK:
        victim = await stock_server(world)
        says = ["old", "old", "new"]
        tellers = [StockStranger(world, number) for number in range(3)]
        for teller, value in zip(tellers, says, strict=True):
            teller.answers = lambda _name, _args, value=value: {"value": value}
            victim.server.protocol.welcome_if_new(Node(teller.id, *teller.address))
        newest = await victim.server.get("name") == "new"
        tellers[0].answers = lambda name, _args: [] if name != "store" else NOTHING
        for teller in tellers[1:]:
            teller.answers = lambda _name, _args: {"value": "forged"}
        await victim.server.get("name")
        passed_on = any("forged" in args for name, args in tellers[0].requests if name == "store")
        return {"the newest": newest, "not passed on": not passed_on}
    return await our_answers(world)


async def our_answers(world: World) -> dict[str, bool]:
    old, new = value_record(value=b"old"), value_record(value=b"new", seq=2)
    node = await start_node(world)
    others = [Stranger(world, 1000 + number) for number in range(3)]
    stored: list[bytes] = []

    def teller(record: bytes) -> Callable[[Request, Address], Reply]:
        def answers(request: Request, _source: Address) -> Reply:
            if isinstance(request, Store):
                stored.append(request.record)
                return Refused(*head(request), Refusal.FULL)
            return Found(*head(request), [], [], record) if isinstance(request, FindValue) else Pong(*head(request))

        return answers

    for other, record in zip(others, (old, old, new), strict=True):
        other.answers = teller(record.blob)
        next(iter(node.servers.values())).router.on_proved(other.contact, 0.0)
    newest = (await node.find(old.key, fresh=True)).record
    await asyncio.sleep(5)
    assert set(stored) == {new.blob}  # those who lacked it were handed it
    stored.clear()
    forged = new.blob[:-1] + bytes([new.blob[-1] ^ 1])
    others[0].answers = teller(b"")
    others[1].answers = others[2].answers = teller(forged)
    await node.find(new.key)
    await asyncio.sleep(5)
    await node.aclose()
    return {"the newest": newest is not None and newest.blob == new.blob, "not passed on": not stored}
