"""Stock kademlia in the virtual world: unchanged, replayable, and stopped when it storms."""

import asyncio
import gc
import logging
import os
import random
import subprocess
import sys

import kademlia.network
import kademlia.routing
import pytest
import rpcudp.protocol

from atonce_sim.loop import run
from atonce_sim.scenario_file import load_scenario
from atonce_sim.simulation import Options, simulate
from atonce_sim.stock import Budget, Lookup, StockNode, stock_world
from atonce_sim.world import World

KEY = bytes(range(20))


async def network(world: World, count: int, budget: Budget) -> list[StockNode]:
    """So many nodes, each joined through one that was there before."""
    rng = random.Random(5)
    nodes: list[StockNode] = []
    for _ in range(count):
        host = world.host()
        node = StockNode(host, 20, host.rng.randbytes(20), budget)
        await node.listen()
        if nodes:
            other = rng.choice(nodes)
            assert await node.bootstrap([(other.address.ip, other.address.port)]) > 0
        nodes.append(node)
    return nodes


def test_it_joins_sets_and_gets() -> None:
    world = World(3)
    budget = Budget(100_000)

    async def main() -> None:
        nodes = await network(world, 40, budget)
        assert await nodes[1].set(KEY, b"value")
        value, local, lookup = await nodes[-1].get(KEY)
        assert value == b"value"
        if not local:
            assert lookup.requests >= 1
            assert 1 <= lookup.hops <= 4
        assert sum(1 for node in nodes for key, held in node.stored() if (key, held) == (KEY, b"value")) >= 10
        absent = await nodes[-1].get(bytes(20))
        assert absent[0] is None
        assert absent[2].requests >= 20
        assert absent[2].hops == 0
        assert sum(node.requests for node in nodes) == budget.sent
        assert all(len(node.seats()) >= 20 for node in nodes)
        assert len(nodes[0].nearest_known(KEY, 5)) == 5
        for node in nodes:
            node.stop()
        await asyncio.sleep(30)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert world.loop.pending() == 0

    with stock_world(random.Random(1), lambda: world.loop.time()):
        run(main())


def test_who_is_stopped_in_the_middle_of_a_lookup_leaves_nothing_behind() -> None:
    world = World(3)
    budget = Budget(100_000)

    async def main() -> None:
        nodes = await network(world, 40, budget)
        await asyncio.sleep(30)
        asked = [asyncio.ensure_future(node.get(bytes(20))) for node in nodes]
        told = asyncio.ensure_future(nodes[3].set(KEY, b"value"))
        await asyncio.sleep(0.06)
        for node in nodes:
            node.stop()
        sent, at = budget.sent, world.loop.time()
        assert not await told
        assert all(value is None for value, _, _ in await asyncio.gather(*asked))
        assert world.loop.time() == at
        await asyncio.sleep(1)  # what was under way arrives where nobody is
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert world.loop.pending() == 0
        assert budget.sent == sent  # the dead ask for nothing

    with stock_world(random.Random(1), lambda: world.loop.time()):
        run(main())


def test_a_contact_of_the_own_table_is_one_hop_away_whoever_else_names_it() -> None:
    lookup = Lookup([b"near", b"far"])
    assert lookup.ask(b"near") == 1
    lookup.on_answer(1, [[b"far", "10.0.0.1", 1], [b"new", "10.0.0.2", 1]])
    assert (lookup.ask(b"far"), lookup.ask(b"new")) == (1, 2)


def test_a_refresh_that_finds_nobody_is_counted_and_raises_nowhere() -> None:
    world = World(3)
    budget = Budget(100_000)

    async def main() -> None:
        unhandled: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        nodes = await network(world, 10, budget)
        assert await nodes[0].set(KEY, b"value")
        holder = next(node for node in nodes if node.stored())
        for node in nodes:
            if node is not holder:
                node.stop()
        await asyncio.sleep(2 * 3600 + 600)
        assert holder.server.failed_refreshes >= 1
        gc.collect()  # a task that nobody asked tells of its error when it goes
        await asyncio.sleep(1)
        assert not unhandled
        holder.stop()

    with stock_world(random.Random(1), lambda: world.loop.time()):
        run(main())


def test_beyond_its_budget_nothing_is_sent() -> None:
    world = World(3)
    budget = Budget(30)

    async def main() -> None:
        host = world.host()
        first = StockNode(host, 20, host.rng.randbytes(20), budget)
        await first.listen()
        before = 0
        for _ in range(40):
            host = world.host()
            node = StockNode(host, 20, host.rng.randbytes(20), budget)
            await node.listen()
            await node.bootstrap([(first.address.ip, first.address.port)])
            before = world.datagrams
        assert budget.sent == budget.limit
        assert budget.spent_at_s is not None
        await node.bootstrap([(first.address.ip, first.address.port)])
        assert world.datagrams == before

    with stock_world(random.Random(1), lambda: world.loop.time()):
        run(main())


def test_what_was_replaced_is_back_afterwards_and_it_does_not_nest() -> None:
    before = (kademlia.network.random, kademlia.routing.time, rpcudp.protocol.os, logging.getLogger("rpcudp").level)
    with stock_world(random.Random(1), lambda: 5.0):
        assert kademlia.routing.time.monotonic() == 5.0
        with pytest.raises(RuntimeError), stock_world(random.Random(2), lambda: 6.0):
            pass
        assert kademlia.routing.time.monotonic() == 5.0
    after = (kademlia.network.random, kademlia.routing.time, rpcudp.protocol.os, logging.getLogger("rpcudp").level)
    assert after == before
    assert rpcudp.protocol.os is os


_RUN = """
from atonce_sim.scenario_file import load_scenario
from atonce_sim.simulation import Options, simulate
_, scenario = load_scenario("mass-death")
summary = simulate(Options("mass-death", "mass-death", scenario, 30, 1, "stock", "node")).summary
print(summary.trace_digest, summary.requests)
"""


def test_one_seed_replays_it_in_another_process() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-c", _RUN],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
            timeout=100,
        ).stdout
        for hash_seed in ("1", "777")
    ]
    assert told[0] == told[1]
    assert int(told[0].split()[1]) > 300


def test_the_same_scenario_runs_on_both() -> None:
    _, scenario = load_scenario("scaling")
    ours = simulate(Options("scaling", "scaling", scenario, 40, 1, "ours", "node"))
    stock = simulate(Options("scaling", "scaling", scenario, 40, 1, "stock", "node"))
    assert ours.mean_rtt_s == stock.mean_rtt_s  # the same hosts and latencies
    assert (ours.summary.node, stock.summary.node) == ("ours", "stock")
    assert stock.summary.lookups.attempted == ours.summary.lookups.attempted == 40
    assert stock.summary.requests > 500
    assert stock.summary.us_per_request
