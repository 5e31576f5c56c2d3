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


@virtual
async def test_when_two_networks_grow_together_each_holder_hears_what_is_new() -> None:
    world = World()
    nodes = by_distance(await start_nodes(world, 12))
    nearest, others = nodes[: LOCAL.k], nodes[LOCAL.k :]
    for node in nearest:
        node.shared.store.keep(RECORD, NOW)
    # All that are nearest are on one side; what is new is said on the other, and whoever said it is gone by then.
    world.partition([[node.shared.host for node in side] for side in (nearest, others)])
    await asyncio.sleep(300)
    newer = value_record(seq=RECORD.seq + 1, expires=NOW + 7200)
    for node in others[: LOCAL.k]:
        node.shared.store.keep(newer, NOW)
    world.heal()
    await asyncio.sleep(900)
    assert [node.shared.store.get(RECORD.key) for node in nearest] == [newer] * LOCAL.k
    await close(*nodes)
