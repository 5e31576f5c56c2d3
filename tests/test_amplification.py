"""The 3× rule on the real protocol: whatever is sent from an address that has not proved itself, at most three bytes
come back for each."""

import asyncio
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support import PUBLIC, Stranger, close, contact, presence, public_ip, start_node, virtual

from atonce_sim.world import World
from dht_atonce.config import DhtConfig
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.sealing import key_request
from dht_atonce.dht.wire import FindNode, FindValue, Ping, Request, Store
from dht_atonce.endpoints import Address, Family
from dht_atonce.records import value_key

RECORD = presence(network=PUBLIC)
BIG = 300
"""Bytes of a value that makes answers long."""

requests = st.sampled_from(["PING", "FIND_NODE", "FIND_VALUE", "STORE", "KEY", "noise", "reply"])
cookies = st.sampled_from(["none", "stolen", "noise", "zeros"])
sizes = st.sampled_from([0, 0, 96, 120, 200, 300, 410, 411, 412, 800, 1232])
steps = st.lists(st.tuples(requests, cookies, sizes, st.integers(0, 5)), min_size=1, max_size=25)


async def full_node(world: World, config: DhtConfig) -> tuple[DhtNode, bytes]:
    """A node with long answers: a table of many contacts, and a record."""
    node = await start_node(world, PUBLIC, ip=public_ip(1), config=config)
    await node.set("name", bytes(BIG))
    router = node.servers[Family.IPV4].router
    for number in range(10, 80):
        router.on_proved(contact(number), node.shared.now())
    return node, value_key(PUBLIC, node.identity.id, "name")


def made(kind: str, key: bytes, number: int) -> Request:
    request_id = number.to_bytes(8, "big")
    match kind:
        case "PING":
            return Ping(0, request_id, 0)
        case "FIND_NODE":
            return FindNode(0, request_id, 0, bytes(20), 3)
        case "FIND_VALUE":
            return FindValue(0, request_id, 0, key, 3)
        case _:
            return Store(0, request_id, 0, RECORD.blob)


class Spoofer(Stranger):
    """Sends from an address that is not his own: he never sees what comes back there."""

    def __init__(self, world: World, stolen: bytes, **options: Any) -> None:
        super().__init__(world, **options)
        self.stolen = stolen
        self.rng = random.Random(1)

    def does(self, node: DhtNode, key: bytes, step: tuple[str, str, int, int], number: int) -> int:
        """Send one datagram; gives its size."""
        kind, cookie, size, _ = step
        if kind == "KEY":
            data = key_request(self.rng.randbytes(24), PUBLIC.network_id)
        elif kind in ("noise", "reply"):
            head = b"\x01\x81" if kind == "noise" else b"\x01\x02"
            data = head + self.node_key.public + self.rng.randbytes(max(size, 77) - 34)
        else:
            shown = {"none": b"", "stolen": self.stolen, "noise": self.rng.randbytes(16), "zeros": bytes(16)}[cookie]
            return self.ask(node, made(kind, key, number), shown, size)
        self.send(data, node.addresses[0])
        return len(data)


@settings(max_examples=60, deadline=None)
@given(steps, st.booleans())
def test_an_address_that_proved_nothing_gets_at_most_three_bytes_for_one(
    plan: list[tuple[str, str, int, int]], is_flooded: bool
) -> None:
    @virtual
    async def conversation() -> None:
        world = World(latency_s=0.001)
        config = DhtConfig(new_keys_per_s=3) if is_flooded else DhtConfig()
        node, key = await full_node(world, config)
        other = Stranger(world, 1001, PUBLIC, ip=public_ip(3))
        reply = await other.asks(node, Ping(0, b"cookies!", 0))
        assert reply is not None
        spoofer = Spoofer(world, reply.cookie, number=1000, network=PUBLIC, ip=public_ip(2))
        for number, step in enumerate(plan):
            before = len(spoofer.heard)
            sent = spoofer.does(node, key, step, number)
            await asyncio.sleep(step[3] / 10 + 0.005)
            got = sum(len(data) for data, _ in spoofer.heard[before:])
            # A cookie that answers an unopened request never makes more of it.
            if any(data[1] == 0x05 for data, _ in spoofer.heard[before:]):
                assert got < sent
            assert got <= 3 * sent
        await close(node)

    conversation()


def test_which_is_not_because_nothing_was_ever_answered() -> None:
    @virtual
    async def conversation() -> None:
        world = World(latency_s=0.001)
        node, key = await full_node(world, DhtConfig())
        spoofer = Spoofer(world, bytes(16), number=1000, network=PUBLIC, ip=public_ip(2))
        ratios = []
        for number, size in enumerate((0, 120, 200, 411, 1232)):
            sent = spoofer.does(node, key, ("FIND_VALUE", "none", size, 0), number)
            await asyncio.sleep(1)
            ratios.append(len(spoofer.heard[-1][0]) / sent)
        assert 2.5 < max(ratios) <= 3
        # With a cookie of its own the same request may have any answer that fits into a datagram.
        reply = await spoofer.asks(node, Ping(0, b"cookies!", 0))
        assert reply is not None
        sent = spoofer.ask(node, made("FIND_VALUE", key, 9), reply.cookie)
        await asyncio.sleep(1)
        assert len(spoofer.heard[-1][0]) / sent > 5
        assert isinstance(spoofer.heard[-1][1], Address)
        await close(node)

    conversation()
