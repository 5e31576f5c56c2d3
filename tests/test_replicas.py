"""Records stay where they belong as neighbours come and go (newcomers: test_handoff, topics: test_gathering)."""

import asyncio

from support import LOCAL, NOW, close, start_nodes, value_record, virtual

from atonce_sim.world import World
from dht_atonce.dht.node import DhtNode

RECORD = value_record(expires=NOW + 7200)


def by_distance(nodes: list[DhtNode]) -> list[DhtNode]:
    target = int.from_bytes(RECORD.key, "big")
    return sorted(nodes, key=lambda node: int.from_bytes(node.shared.node_key.id, "big") ^ target)


@virtual
async def test_when_a_holder_dies_the_next_one_is_given_its_records() -> None:
    nodes = by_distance(await start_nodes(World(), 12))
    for node in nodes[: LOCAL.k]:
        node.shared.store.keep(RECORD, NOW)
    await close(nodes.pop(1))
    await asyncio.sleep(900)
    holding = [node.shared.store.get(RECORD.key) is not None for node in nodes]
    assert holding == [True] * LOCAL.k + [False] * (11 - LOCAL.k)
    await close(*nodes)
