"""Defects of stock's routing table, each beside ours. docs/security.md has the rows."""

import asyncio
import random

from defects_support import FAR, OURS, STOCK, Kept, OurTable, StockTable, far, promise, stock_server, table
from kademlia.node import Node
from support import Stranger, start_node

from atonce_sim.world import World
from dht_atonce.config import DhtConfig
from dht_atonce.dht.wire import FindNode
from dht_atonce.identity import node_id

OWN = 5
K = 4
SEATED = [far(number) for number in (0, 1, 4, 5)]
NEWCOMER = far(6)


def with_full_bucket(side: str) -> StockTable | OurTable:
    """Four neighbours, a full bucket far from us that is split no further, and one who came when it was full."""
    made = table(side, OWN, K)
    for long_id in [OWN ^ 1, OWN ^ 2, OWN ^ 3, OWN ^ 4, *SEATED, NEWCOMER]:
        made.hears(long_id)
    assert made.port_of(NEWCOMER) is None
    assert all(made.port_of(long_id) for long_id in SEATED)
    return made


@promise
async def test_copies_of_our_own_id_split_no_bucket(side: str) -> Kept:
    copies = [b"\0" * zeros + OWN.to_bytes(20, "big") for zeros in range(1, 12)]
    if side == OURS:
        # An id is a hash of a key and has one length: whoever bears ours is us.
        made = table(side, OWN, K)
        for _ in copies:
            made.hears(OWN)
        return len(made.table.buckets) == 1
    stock = StockTable(OWN, K)
    try:
        for copy in copies:
            stock.protocol.welcome_if_new(Node(copy, "10.0.0.1", 4000))
    except (RecursionError, TypeError):
        return False
    return len(stock.table.buckets) <= 161


@promise
async def test_each_id_has_a_bucket_and_it_is_the_right_one(side: str) -> Kept:
    made = table(side, OWN, K)
    rng = random.Random(3)
    for _ in range(200):
        made.hears(rng.getrandbits(160))
    edges = [edge for bucket in made.table.buckets for edge in bucket.range if edge < 1 << 160]
    assert len(edges) > 10

    def is_right(long_id: int) -> bool:
        lower, upper = made.table.buckets[made.index_of(long_id) or 0].range
        return lower <= long_id <= upper

    def has_one(name: bytes) -> bool:
        """Whether there is a bucket for whoever calls itself by these bytes: at ours they are a key."""
        if isinstance(made, OurTable):
            return made.index_of(int.from_bytes(node_id(name), "big")) is not None
        return made.table.get_bucket_for(Node(name)) is not None

    return {
        "the edges of each range": all(is_right(edge) for edge in edges),
        "the longest name": has_one(b"\xff" * 32),
    }


@promise
async def test_the_k_nearest_are_the_k_nearest(side: str) -> Kept:
    made = table(side, OWN, 20)
    rng = random.Random(4)
    for _ in range(500):
        made.hears(rng.getrandbits(160))
    targets = [rng.getrandbits(160) for _ in range(100)]

    def right(target: int) -> bool:
        return made.nearest(target, 20) == sorted(made.ids(), key=target.__xor__)[:20]

    share = sum(map(right, targets)) / len(targets)
    assert side == OURS or share < 0.2
    return share == 1


@promise
async def test_a_bucket_s_depth_is_that_of_its_range(side: str) -> Kept:
    # Ids chosen alike made a bucket seem as deep as a stranger liked, and it was split or not by his will.
    made = table(side, OWN, K)
    for long_id in [OWN ^ 1, OWN ^ 2, *SEATED]:
        made.hears(long_id)
    bucket = made.table.buckets[made.index_of(FAR) or 0]
    lower, upper = bucket.range
    return bucket.depth() == 160 - (upper - lower).bit_length()


@promise
async def test_what_others_ask_refreshes_no_bucket(side: str) -> Kept:
    world = World()
    if side == STOCK:
        span_s = 3600.0
        stock = await stock_server(world)
        await asyncio.sleep(span_s - 60)
        stock.server.protocol.rpc_find_node(("10.0.0.9", 4000), b"a" * 20, bytes(20))
        await asyncio.sleep(120)
        return bool(stock.table.lonely_buckets())
    span_s = DhtConfig().refresh_s
    node, asker = await start_node(world), Stranger(world)
    await asyncio.sleep(span_s - 60)
    assert await asker.asks(node, FindNode(0, b"requestI", 0, bytes(20), 0)) is not None
    await asyncio.sleep(120)
    router = next(iter(node.servers.values())).router
    lonely = bool(router.lonely_buckets(node.shared.now()))
    await node.aclose()
    return lonely


@promise
async def test_a_contact_that_is_heard_again_is_known_where_it_is_now_and_as_the_latest(side: str) -> Kept:
    moved, heard = table(side, OWN, K), table(side, OWN, K)
    moved.hears(FAR, port=4000)
    moved.hears(FAR, port=5000)
    for long_id in (FAR, FAR + 1, FAR + 2, FAR):
        heard.hears(long_id)
    return {"its address": moved.port_of(FAR) == 5000, "its place": heard.longest_silent(FAR) == FAR + 1}


@promise
async def test_one_lost_packet_evicts_nobody(side: str) -> Kept:
    made = with_full_bucket(side)
    made.unanswered(SEATED[0])
    return made.port_of(SEATED[0]) is not None and made.port_of(NEWCOMER) is None


@promise
async def test_a_failure_at_another_address_costs_no_seat(side: str) -> Kept:
    # Else whoever names (its id, a dead address) in a reply takes an honest node's seat away.
    made = with_full_bucket(side)
    for _ in range(5):
        made.unanswered(SEATED[0], port=9999)
    return made.port_of(SEATED[0]) is not None
