"""A large topic in a large network, in the virtual world: is everybody found, is a sample fair, who comes back?

    python benchmarks/topics.py [NODES] [MEMBERS] [SAMPLES]

Members beyond the number of nodes are guests: nodes that take no seat and keep no records. All are on public addresses,
each in a /24 of its own; one more /24 is hostile. Who leaves and who crashes is tried in a world of its own, of 60
nodes and 200 members, in which a record lives for five minutes: so that it is soon over.
"""

import asyncio
import random
import sys
import time
from collections import Counter

from atonce_sim.ciphers import PassThrough
from atonce_sim.latency import Uniform
from atonce_sim.loop import run
from atonce_sim.wires import Conditions
from atonce_sim.world import EPOCH, World
from dht_atonce.config import NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.node import DhtNode
from dht_atonce.endpoints import Address, Family
from dht_atonce.identity import Identity
from dht_atonce.records import MembershipRecord, topic_key

NETWORK = NetworkConfig(name="topics")
BRIEF = NetworkConfig(name="topics", record_life_s=300)
TOPIC = "a room"
KEY = topic_key(NETWORK, TOPIC)
HOSTILE = 100
LEAVING = 40
"""Of 200 members so many say goodbye, and so many crash."""


def ip_of(number: int) -> str:
    return f"51.{number >> 8}.{number & 255}.1"


async def start(world: World, number: int, known: list[DhtNode], network: NetworkConfig, *, guest: bool) -> DhtNode:
    node = DhtNode(host=world.host(ip_of(number)), network=network, no_seat=guest, stores=not guest)
    await node.listen()
    if known:
        via = random.Random(number).choice(known)
        await node.bootstrap([(*via.addresses[0], via.shared.node_key.public)])
    return node


async def listed(asker: DhtNode, limit: int | None = None) -> tuple[list[bytes], int, float]:
    """Who is found, with how many requests, in how many seconds of the virtual world."""
    sent, began = asker.counters["dht.sent"], asker.shared.now()
    found = [record.peer_id.key for record in await asker.members(TOPIC, limit=limit)]
    return found, asker.counters["dht.sent"] - sent, asker.shared.now() - began


def report(what: str, askers: list[tuple[list[bytes], int, float]], expected: set[bytes]) -> None:
    missed = sum(len(expected - set(found)) for found, _, _ in askers)
    wrong = sum(len(set(found) - expected) for found, _, _ in askers)
    requests = sorted(requests for _, requests, _ in askers)[len(askers) // 2]
    seconds = sorted(seconds for _, _, seconds in askers)[len(askers) // 2]
    print(
        f"{what}: {len(askers)} lists of {len(expected):,}; missed {missed}, wrong {wrong};"
        f" median {requests:,} requests, {seconds:.1f} s",
        flush=True,
    )


async def crowd(count: int, members: int, network: NetworkConfig) -> tuple[list[DhtNode], list[DhtNode]]:
    """So many nodes, and so many, with guests among them, that have announced themselves."""
    world = World(1, conditions=Conditions(latency=Uniform()), cipher=PassThrough())
    nodes: list[DhtNode] = []
    for number in range(count):
        nodes.append(await start(world, number, nodes, network, guest=False))
    guests = [await start(world, number, nodes, network, guest=True) for number in range(count, members)]
    everybody = [*nodes, *guests][:members]
    results = []
    for at in range(0, members, 50):
        where = range(at, min(members, at + 50))
        announcing = (everybody[n].announce(TOPIC, endpoints=(Address(ip_of(n), 4000),)) for n in where)
        results += await asyncio.gather(*announcing)
    print(f"{count} nodes, {members} members; confirmed by {min(r.confirmed for r in results)} or more", flush=True)
    await asyncio.sleep(60)
    return nodes, everybody


def identities(nodes: list[DhtNode]) -> set[bytes]:
    return {node.identity.id.key for node in nodes}


async def listing(count: int, members: int, samples: int) -> None:
    rng = random.Random(1)
    nodes, everybody = await crowd(count, members, NETWORK)
    ids = identities(everybody)
    askers = rng.sample(nodes, min(10, count))
    report("all of them", [await listed(asker) for asker in askers], ids)

    counts, spent = Counter[bytes](), Counter[int]()
    for _ in range(samples):
        found, requests, _ = await listed(rng.choice(nodes), 20)
        counts.update(found)
        spent[requests] += 1
    expected, freedom = samples * 20 / members, members - 1
    statistic = sum((counts[one] - expected) ** 2 for one in ids) / (expected * (1 - 20 / members))
    bound = freedom + 3.1 * (2 * freedom) ** 0.5
    print(
        f"{samples} samples of 20: chi-square {statistic:.0f} of {freedom} degrees of freedom"
        f" (99.9 %: {bound:.0f}); median {spent.most_common(1)[0][0]} requests",
        flush=True,
    )

    target = int.from_bytes(KEY, "big")
    nearest = sorted(nodes, key=lambda node: int.from_bytes(node.shared.node_key.id, "big") ^ target)[: NETWORK.k]
    contacts = [Contact(node.shared.node_key.public, node.addresses[0]) for node in nearest]
    for number in range(HOSTILE):
        record = MembershipRecord.sign(
            Identity.generate(rng),
            NETWORK,
            seq=1,
            incarnation=bytes(8),
            expires=int(EPOCH + asyncio.get_running_loop().time()) + NETWORK.record_life_s,
            topic=TOPIC,
            endpoints=(Address(f"99.9.9.{number}", 4000),),
        )
        await askers[0].servers[Family.IPV4].store_at(contacts, record)
    found, _, _ = await listed(askers[1])
    hostile, honest = len(set(found) - ids), len(set(found) & ids)
    print(f"{HOSTILE} announcements from one /24: {hostile} are listed, and {honest:,} others", flush=True)

    for node in dict.fromkeys([*nodes, *everybody]):
        node.stop()


async def leaving() -> None:
    nodes, everybody = await crowd(60, 200, BRIEF)
    random.Random(1).shuffle(everybody)
    left, crashed = everybody[:LEAVING], everybody[LEAVING : 2 * LEAVING]
    for node in left:
        await node.withdraw(TOPIC)
    living = [node for node in nodes if node not in crashed][:10]
    again = [await listed(asker) for asker in living]
    back = sum(len(identities(left) & set(found)) for found, _, _ in again)
    print(f"{LEAVING} have left: {back} of them are listed", flush=True)
    for node in crashed:
        await node.aclose()
    await asyncio.sleep(BRIEF.record_life_s + 60)
    report(
        f"a record's life after {LEAVING} crashed",
        [await listed(one) for one in living],
        identities(everybody[2 * LEAVING :]),
    )
    for node in dict.fromkeys([*nodes, *everybody]):
        node.stop()


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    began = time.process_time()
    run(listing(*(given + [200, 1000, 150][len(given) :])))
    run(leaving())
    print(f"{time.process_time() - began:.0f} s of CPU")
