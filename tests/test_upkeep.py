"""What a node does of its own accord. That records spread, live and end is in test_node.py; here is what it costs."""

import asyncio
import random

import pytest
from support import LOCAL, NOW, close, contact, start_node, value_record, virtual

from atonce_sim.world import World
from dht_atonce.config import DhtConfig
from dht_atonce.endpoints import Family

RECORDS = [value_record(f"{number}") for number in range(300)]


@pytest.mark.parametrize(("held", "near", "newcomers"), [(200, False, 80), (300, False, 40), (100, True, 200)])
@virtual
async def test_each_newcomer_gets_what_looking_at_every_record_would_give_it(
    held: int, near: bool, newcomers: int
) -> None:
    # A full store is looked at a few records at a time, a small one at once and with shortcuts: none loses a record.
    node = await start_node(World(), config=DhtConfig(handoff_per_s=1e6))
    router, own_id, k = node.servers[Family.IPV4].router, int.from_bytes(node.shared.node_key.id, "big"), LOCAL.k
    records = [record for record in RECORDS if not near or (record.key[0] ^ node.shared.node_key.id[0]) < 128][:held]
    rng, expected, seated = random.Random(1), 0, list[int]()
    for number in range(newcomers):
        for record in records[number * held // newcomers : (number + 1) * held // newcomers]:
            node.shared.store.keep(record, NOW)
        newcomer = contact(number)
        # Somebody begins to fail now and then, and counts no longer.
        if seated and rng.random() < 0.1:
            failing = rng.choice([seat.contact for seat in router if not seat.failures])
            router.on_failure(failing, node.shared.now())
            seated.remove(failing.long_id)
        router.on_proved(newcomer, node.shared.now())
        node.servers[Family.IPV4].protocol.tell_seated()
        if router.is_live(newcomer):
            seated.append(newcomer.long_id)
            for key, _ in node.shared.store:
                nearest = sorted(seated, key=int.from_bytes(key, "big").__xor__)[:k]
                nearer = [
                    one for one in nearest if one ^ int.from_bytes(key, "big") < own_id ^ int.from_bytes(key, "big")
                ]
                nearer = [one for one in nearer if one != newcomer.long_id]
                expected += newcomer.long_id in nearest and len(nearer) < 2
        await asyncio.sleep(0.001)
        assert node.counters["dht.handed_off"] == expected
    assert expected > 10
    await close(node)


@virtual
async def test_a_node_with_nothing_to_do_tidies_up_twice_a_minute() -> None:
    world = World()
    node = await start_node(world)
    loop, moments = asyncio.get_running_loop(), set[float]()
    store_expire = node.shared.store.expire

    def seen(now: float) -> object:
        moments.add(loop.time())
        return store_expire(now)

    node.shared.store.expire = seen  # type: ignore[method-assign, assignment]
    await asyncio.sleep(599)
    assert len(moments) == 19
    assert world.loop.pending() == 1  # one timer, whatever it is for
    await close(node)
    assert world.loop.pending() == 0
