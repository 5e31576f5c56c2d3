"""What a node costs in memory: a simulation has ten thousand of them.

Measured by tracemalloc, so that it depends on the interpreter's version and on nothing else. The limits leave room for
a few fields more, not for another dict per contact.
"""

import gc
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from support import LOCAL, NOW, contact, identity, node_key, value_record, virtual

from atonce_sim.ciphers import PassThrough
from atonce_sim.world import World
from dht_atonce.dht.node import DhtNode
from dht_atonce.endpoints import Family
from dht_atonce.memo import Memo

NETWORK = LOCAL.with_k(20)
COUNT = 20  # nodes over which the cost is averaged
CONTACTS = [contact(number) for number in range(200)]
RECORDS = [value_record(f"{number}") for number in range(40)]


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def cost(nodes: list[DhtNode], make: Callable[[], None]) -> float:
    """KiB per node that `make` allocates and somebody keeps."""
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    make()
    gc.collect()
    return (tracemalloc.get_traced_memory()[0] - before) / 1024 / COUNT


async def make_nodes(nodes: list[DhtNode]) -> float:
    world, cipher, memo = World(), PassThrough(), Memo[object, object](1000)
    hosts = [world.host() for _ in range(COUNT)]
    keys = [node_key(number) for number in range(COUNT)]
    for host in hosts:
        host.cipher, host.memo = cipher, memo
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for host, key in zip(hosts, keys, strict=True):
        node = DhtNode(identity(0), host=host, network=NETWORK, node_key=key)
        await node.listen()
        nodes.append(node)
    gc.collect()
    return (tracemalloc.get_traced_memory()[0] - before) / 1024 / COUNT


@virtual
async def test_an_empty_node_has_a_few_kib() -> None:
    nodes: list[DhtNode] = []
    assert await make_nodes(nodes) <= 11
    for node in nodes:
        node.stop()


@virtual
async def test_a_known_contact_has_a_hundred_bytes_and_a_record_its_place_in_a_dict() -> None:
    nodes: list[DhtNode] = []
    await make_nodes(nodes)

    def meet_all() -> None:
        for node in nodes:
            router = node.servers[Family.IPV4].router
            for who in CONTACTS:
                router.on_proved(who, 1.0)
                node.shared.known.on_cookie(who, b"c" * 16, 1.0)
                node.shared.known.on_sample(who, 0.05)
                node.shared.observed.on_you(who.key, bytes([10, 0, 0, 1, 16, 0]))
                node.shared.skew.on_time(who.key, NOW, NOW)
            router.take_seated()

    def hold_all() -> None:
        for node in nodes:
            for record in RECORDS:
                node.shared.store.keep(record, NOW)

    assert cost(nodes, meet_all) <= 20
    assert cost(nodes, hold_all) <= 2
    for node in nodes:
        node.stop()
