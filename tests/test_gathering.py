"""Topics between nodes: who announces itself is found by all, who leaves or dies is not, and a crowd stays bearable."""

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest
from support import (
    LIFE,
    LOCAL,
    NOW,
    PUBLIC,
    Stranger,
    close,
    contact_of,
    identity,
    membership,
    public_ip,
    start_node,
    start_nodes,
    virtual,
)

from atonce_sim.world import World
from dht_atonce.config import DhtConfig
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.wire import FindMembers, FindValue, Found, Members, Reply, Request, Store, Stored, StoreOutcome
from dht_atonce.endpoints import Address, Family, pack_address
from dht_atonce.errors import MessageTooLarge
from dht_atonce.records import topic_key

TOPIC = "a room"
KEY = topic_key(LOCAL, TOPIC)
SHORT = 600
BRIEF = replace(LOCAL, record_life_s=SHORT)
"""A network in which records live for ten minutes, so that a test need not last two hours."""


async def names(node: DhtNode, topic: str = TOPIC, *, limit: int | None = None) -> list[bytes]:
    return sorted(record.peer_id.key for record in await node.members(topic, limit=limit))


def ids(nodes: list[DhtNode]) -> list[bytes]:
    return sorted(node.identity.id.key for node in nodes)


def holders(nodes: list[DhtNode], key: bytes = KEY) -> list[DhtNode]:
    target = int.from_bytes(key, "big")
    nearest = sorted(nodes, key=lambda node: int.from_bytes(node.shared.node_key.id, "big") ^ target)
    return nearest[: nodes[0].shared.network.k]


def held(node: DhtNode, key: bytes = KEY) -> int:
    roster = node.shared.store.roster(key)
    return len(roster) if roster is not None else 0


# --- there and gone ---


@virtual
async def test_who_announces_itself_is_found_with_what_it_says() -> None:
    nodes = await start_nodes(World(), 12)
    where = (Address("10.0.0.9", 4000),)
    result = await nodes[1].announce(TOPIC, data=b"flute", endpoints=where)
    assert (result.confirmed, result.asked, result.home) == (5, 5, True)
    await nodes[2].announce(TOPIC)
    found = {record.peer_id: record for record in await nodes[7].members(TOPIC)}
    assert set(found) == {nodes[1].identity.id, nodes[2].identity.id}
    first = found[nodes[1].identity.id]
    assert (first.data, first.endpoints, first.status, first.topic) == (b"flute", where, "online", TOPIC)
    assert await nodes[7].members("another room") == []
    await close(*nodes)


@virtual
async def test_a_lone_node_has_its_own_topics() -> None:
    node = await start_node(World())
    assert await node.members(TOPIC) == []
    await node.announce(TOPIC)
    assert await names(node) == ids([node])
    await node.withdraw(TOPIC)
    assert await names(node) == []
    await close(node)


@virtual
async def test_who_withdraws_is_gone_and_may_come_back() -> None:
    nodes = await start_nodes(World(), 12, BRIEF)
    for node in nodes[:6]:
        await node.announce(TOPIC)
    await nodes[3].withdraw(TOPIC)
    assert await names(nodes[9]) == ids([*nodes[:3], *nodes[4:6]])
    assert KEY not in nodes[3].own  # it is not said again
    await asyncio.sleep(SHORT)  # the others renew theirs
    assert await names(nodes[9]) == ids([*nodes[:3], *nodes[4:6]])
    await nodes[3].announce(TOPIC)
    assert await names(nodes[9]) == ids(nodes[:6])
    await close(*nodes)


@virtual
async def test_who_dies_is_gone_when_its_record_is_over() -> None:
    nodes = await start_nodes(World(), 12, BRIEF)
    for node in nodes[:6]:
        await node.announce(TOPIC)
    await close(nodes[3])
    assert await names(nodes[9]) == ids(nodes[:6])
    await asyncio.sleep(SHORT + 31)
    assert await names(nodes[9]) == ids([*nodes[:3], *nodes[4:6]])
    await close(*nodes)


@virtual
async def test_a_goodbye_reaches_those_to_whom_an_old_record_was_handed() -> None:
    # A holder that missed the goodbye lists the member: the others know better.
    nodes = await start_nodes(World(), 12)
    for node in nodes[:3]:
        await node.announce(TOPIC)
    missed = holders(nodes)[0]
    before = missed.shared.store.roster(KEY)
    assert before is not None
    record = before.get(nodes[1].identity.id.key)
    assert record is not None
    await nodes[1].withdraw(TOPIC)
    missed.shared.store.roster(KEY).enter(record, record.expires)  # type: ignore[union-attr]
    assert await names(nodes[9]) == ids([nodes[0], nodes[2]])
    await close(*nodes)


@virtual
async def test_what_cannot_be_said_is_refused_before_anything_is_sent() -> None:
    node = await start_node(World())
    for topic in ("", "x" * 65):
        with pytest.raises(ValueError, match="record"):
            await node.announce(topic)
    with pytest.raises(ValueError, match="record"):
        await node.announce(TOPIC, data=bytes(129))
    with pytest.raises(MessageTooLarge):
        await node.announce("😀" * 64, data=bytes(128))
    with pytest.raises(ValueError, match="at least one"):
        await node.members(TOPIC, limit=0)
    assert node.own.keys() == []
    await close(node)


# --- many ---


@virtual
async def test_all_of_many_members_are_paged_through_and_a_sample_has_its_size() -> None:
    nodes = await start_nodes(World(), 30)
    members = [membership(identity(number), expires=NOW + 3600) for number in range(150)]
    for node in holders(nodes):
        for record in members:
            node.shared.store.keep(record, NOW)
    asker = next(node for node in nodes if node not in holders(nodes))
    assert await names(asker) == sorted(record.peer_id.key for record in members)
    sample = await names(asker, limit=20)
    assert len(sample) == len(set(sample)) == 20
    await close(*nodes)


@virtual
async def test_samples_are_fair() -> None:
    # 40 members, 150 samples of 10: 37.5 each. 39 degrees of freedom: 73 is passed by chance in one of a thousand.
    nodes = await start_nodes(World(), 15)
    members = [membership(identity(number)) for number in range(40)]
    for node in holders(nodes):
        for record in members:
            node.shared.store.keep(record, NOW)
    asker = next(node for node in nodes if node not in holders(nodes))
    counts = Counter[bytes]()
    for _ in range(150):
        counts.update(await names(asker, limit=10))
    expected = 150 * 10 / 40
    unfairness = sum((counts[one.peer_id.key] - expected) ** 2 for one in members) / (expected * (1 - 10 / 40))
    assert unfairness < 73
    await close(*nodes)


@virtual
async def test_in_a_full_topic_nobody_announces_in_vain_again_and_again() -> None:
    config = replace(DhtConfig(), topic_members=5)
    nodes = await start_nodes(World(), 20, config=config)
    results = [await node.announce(TOPIC) for node in nodes]
    assert all(held(node) == 5 for node in holders(nodes))
    assert min(result.confirmed for result in results) == 0
    assert all(node.own.deadline() > node.shared.now() + LIFE / 5 for node in nodes)
    assert all(not node.own.wanting() for node in nodes)  # nor is it handed to whoever comes
    # Each holder has a sample of its own, so together they know more than one of them.
    assert 5 < len(await names(nodes[0])) <= 20
    await close(*nodes)


@virtual
async def test_a_hundred_announcements_from_one_subnet_have_eight_places() -> None:
    nodes = await start_nodes(World(), 20, PUBLIC)
    for number, node in enumerate(nodes):
        await node.announce(TOPIC, endpoints=(Address(public_ip(number), 4000),))
    hostile = [
        membership(identity(number), network=PUBLIC, endpoints=(Address(f"52.1.1.{number}", 4000),))
        for number in range(100)
    ]
    key = topic_key(PUBLIC, TOPIC)
    for node in holders(nodes, key):
        for record in hostile:
            await nodes[0].servers[Family.IPV4].store_at([contact_of(node)], record)
        assert held(node, key) == 28
    for node in nodes[::5]:
        found = await node.members(TOPIC)
        assert len(found) == 28
        assert sum(record.endpoints[0].ip.startswith("52.1.1.") for record in found) == 8
    await close(*nodes)


# --- holders come and go ---


@virtual
async def test_a_newcomer_among_the_nearest_gets_all_members_and_no_faster_than_it_can_bear() -> None:
    world = World()
    nodes = await start_nodes(world, 8)
    for node in holders(nodes):
        for number in range(100):
            node.shared.store.keep(membership(identity(number)), NOW)
    for number in range(5):  # other records are to have their turn between the members
        for node in holders(nodes, topic_key(LOCAL, f"small {number}")):
            node.shared.store.keep(membership(identity(0), f"small {number}"), NOW)
    newcomers = [await start_node(world, via=nodes[0]) for _ in range(6)]
    before = Counter({node: node.counters["dht.handed_off"] for node in nodes})
    await asyncio.sleep(2)
    handed = {node: node.counters["dht.handed_off"] - before[node] for node in nodes}
    assert 20 <= max(handed.values()) <= 2 * 20 + 21
    new_holders = [node for node in holders([*nodes, *newcomers]) if node in newcomers]
    assert new_holders
    assert all(0 < held(node) < 100 for node in new_holders)
    for number in range(5):
        key = topic_key(LOCAL, f"small {number}")
        for node in holders([*nodes, *newcomers], key):
            assert held(node, key) == 1
    await asyncio.sleep(60)
    assert all(held(node) == 100 for node in holders([*nodes, *newcomers]))
    assert await names(newcomers[0]) == sorted(identity(number).id.key for number in range(100))
    await close(*nodes, *newcomers)


@virtual
async def test_a_newcomer_that_dies_is_not_sent_the_rest() -> None:
    world = World()
    nodes = await start_nodes(world, 3)
    for node in nodes:
        for number in range(200):
            node.shared.store.keep(membership(identity(number)), NOW)
    newcomer = await start_node(world, via=nodes[0])
    await asyncio.sleep(1)
    await close(newcomer)
    await asyncio.sleep(60)
    assert sum(node.counters["dht.handed_off"] for node in nodes) < 200
    await close(*nodes)


@virtual
async def test_when_a_holder_dies_the_next_one_is_given_all_members() -> None:
    world = World()
    nodes = await start_nodes(world, 12)
    for node in holders(nodes):
        for number in range(40):
            node.shared.store.keep(membership(identity(number)), NOW)
    dies = holders(nodes)[1]
    await close(dies)
    left = [node for node in nodes if node is not dies]
    next_one = holders(left)[-1]
    assert held(next_one) == 0
    await asyncio.sleep(900)
    assert held(next_one) == 40
    await close(*left)


@virtual
async def test_a_topic_that_is_none_of_our_business_is_shed_and_not_listed() -> None:
    nodes = await start_nodes(World(), 30)
    target = int.from_bytes(KEY, "big")
    far = max(nodes, key=lambda node: int.from_bytes(node.shared.node_key.id, "big") ^ target)
    for number in range(10):
        far.shared.store.keep(membership(identity(number), expires=NOW + 3600), NOW)
    assert not await names(nodes[0])  # it may have been told of no goodbye
    await asyncio.sleep(60)
    assert (held(far), far.counters["dht.shed"]) == (0, 1)
    await close(*nodes)


@virtual
async def test_a_membership_is_no_answer_to_whoever_looks_for_a_record() -> None:
    world = World()
    node, liar = await start_node(world), Stranger(world)
    theirs = membership(identity(9), seq=1 << 60, incarnation=b"not ours")
    conflicts: list[object] = []
    node.on_conflict = conflicts.append

    def answers(request: Request, source: Address) -> Reply:
        head = (0, request.request_id, 0, bytes(16), pack_address(source), NOW * 1000)
        if isinstance(request, Store):
            return Stored(*head, StoreOutcome.NEWER_HELD, theirs.blob)
        return Found(*head, [], [], theirs.blob if isinstance(request, FindValue) else b"")

    liar.answers = answers
    await node.bootstrap([liar.way_in])
    await node.announce(TOPIC)
    await node.announce(TOPIC)
    assert conflicts == []
    assert (await node.find(KEY, fresh=True)).record is None
    assert node.counters["record.other_key"] >= 3
    await close(node)


@virtual
async def test_an_announcement_made_alone_spreads_as_others_come() -> None:
    world = World()
    first = await start_node(world)
    await first.announce(TOPIC)
    others = [await start_node(world, via=first) for _ in range(6)]
    await asyncio.sleep(5)
    await close(first)
    assert await names(others[5]) == ids([first])
    await close(*others)


@virtual
async def test_all_are_found_though_packets_are_lost_and_a_third_is_dead() -> None:
    world = World(loss=0.05)
    nodes = await start_nodes(world, 24, LOCAL.with_k(8))
    for node in nodes[:12]:
        await node.announce(TOPIC)
    dead = random.Random(1).sample(nodes[12:], 8)
    await close(*dead)
    living = [node for node in nodes if node not in dead]
    assert await names(living[-1]) == ids(nodes[:12])
    await close(*living)


# --- strangers ---


@virtual
async def test_a_liar_is_asked_no_more_and_counted() -> None:
    world = World()
    node, liar = await start_node(world), Stranger(world)
    asked = list[Request]()

    def answers(request: Request, source: Address) -> Reply:
        asked.append(request)
        head = (0, request.request_id, 0, b"", pack_address(source), NOW * 1000)
        if not isinstance(request, FindMembers):
            return Found(*head, [], [], b"")
        return Members(*head, [], [], 7, 2**63, [membership(topic="another").blob])

    liar.answers = answers
    await node.bootstrap([liar.way_in])
    assert await node.members(TOPIC) == []
    assert sum(isinstance(request, FindMembers) for request in asked) == 1
    assert node.counters["record.other_key"] == 1
    await close(node)


@virtual
async def test_a_question_without_proof_is_padded_and_its_answer_is_within_three_times() -> None:
    world = World()
    node, stranger = await start_node(world, PUBLIC, ip=public_ip(1)), Stranger(world, 1000, PUBLIC, public_ip(2))
    for number in range(50):
        node.shared.store.keep(membership(identity(number), network=PUBLIC), NOW)
    request = FindMembers(0, bytes(8), 0, topic_key(PUBLIC, TOPIC), 0, bytes(8), 0)
    for min_size in (0, 300, 411):
        before = len(stranger.heard)
        size = stranger.ask(node, request, b"", min_size)
        await asyncio.sleep(1)
        assert all(len(data) <= 3 * size for data, _ in stranger.heard[before:])
    assert isinstance(stranger.read_reply(stranger.heard[-1][0]), Members)
    await close(node)


@virtual
async def test_a_search_ends_when_its_node_stops() -> None:
    world = World()
    nodes = await start_nodes(world, 6)
    for node in nodes:
        for number in range(100):
            node.shared.store.keep(membership(identity(number)), NOW)
    search = asyncio.ensure_future(nodes[5].members(TOPIC))
    await asyncio.sleep(0.06)
    nodes[5].stop()
    assert len(await search) <= 100
    await close(*nodes)
