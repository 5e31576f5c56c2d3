"""Whole nodes in the virtual world: what is published is found, whatever happens in between."""

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest
from support import (
    LIFE,
    LOCAL,
    NOW,
    PUBLIC,
    BothFamilies,
    Stranger,
    close,
    contact,
    contact_of,
    identity,
    node_key,
    presence,
    start_node,
    start_nodes,
    tasks_left,
    value_record,
    virtual,
    way_in,
)

from atonce_sim.loop import run
from atonce_sim.world import World
from dht_atonce.codec import encode
from dht_atonce.config import NetworkConfig
from dht_atonce.dht.node import DhtNode, PublishResult
from dht_atonce.dht.wire import FindNode, FindValue, Found, Ping, Pong, Refusal, Refused, Reply, Request, Store
from dht_atonce.endpoints import Address, Family, pack_address
from dht_atonce.errors import ClockWrong, MessageTooLarge, PeerIdError
from dht_atonce.records import GONE, MAX_RECORD, PresenceRecord, Record, presence_key, value_key

SHORT = replace(LOCAL, record_life_s=600)
"""Records live for ten minutes, so that many lives pass in a test."""


def key_of(node: DhtNode, name: str) -> bytes:
    return value_key(node.shared.network, node.identity.id, name)


def holders(nodes: list[DhtNode], key: bytes) -> list[DhtNode]:
    return [node for node in nodes if node.shared.store.live(key, node.shared.wall()) is not None]


async def all_publish(nodes: list[DhtNode]) -> None:
    await asyncio.gather(*(node.set("number", number) for number, node in enumerate(nodes)))


async def missing(finders: list[DhtNode], owners: dict[int, DhtNode], *, fresh: bool = False) -> list[tuple[int, int]]:
    """Pairs of finder and owner where the finder does not find what the owner published."""
    return [
        (finders.index(finder), number)
        for finder in finders
        for number, owner in owners.items()
        if await finder.get(f"{owner.identity.id}/number", fresh=fresh) != number
    ]


async def say(node: DhtNode, status: str, network: NetworkConfig | None = None) -> PublishResult:
    """Publish the node's presence."""
    network = network or node.shared.network

    def sign(seq: int, expires: int) -> PresenceRecord:
        return PresenceRecord.sign(
            node.identity, network, seq=seq, incarnation=node.incarnation, expires=expires, status=status
        )

    return await node.publish(presence_key(network, node.identity.id), sign, is_goodbye=status == GONE)


async def found(node: DhtNode, owner: DhtNode, *, fresh: bool = False) -> str | None:
    """The status that `node` finds of `owner`."""
    record = (await node.find(presence_key(LOCAL, owner.identity.id), fresh=fresh)).record
    assert record is None or isinstance(record, PresenceRecord)
    return record.status if record else None


# --- everybody finds everything ---


@pytest.mark.parametrize("count", [1, 2, 3, 40])
@virtual
async def test_what_anybody_publishes_everybody_finds(count: int) -> None:
    world = World(seed=count)
    nodes = await start_nodes(world, count)
    await all_publish(nodes)
    assert await missing(nodes, dict(enumerate(nodes))) == []
    for node in nodes:
        assert len(holders(nodes, key_of(node, "number"))) >= min(count, LOCAL.k)
    await close(*nodes)


@virtual
async def test_so_it_is_with_all_limits_on() -> None:
    world = World(seed=3)
    nodes = await start_nodes(world, 15, PUBLIC)
    await all_publish(nodes)
    assert await missing(nodes, dict(enumerate(nodes))) == []
    await close(*nodes)


@virtual
async def test_all_come_at_once() -> None:
    # Each knows only the first, and none of the others is there when it asks.
    world = World(seed=4)
    first = await start_node(world)
    nodes = [first, *await asyncio.gather(*(start_node(world, via=first) for _ in range(20)))]
    await all_publish(nodes)
    await asyncio.sleep(120)
    assert await missing(nodes, dict(enumerate(nodes))) == []
    await close(*nodes)


@virtual
async def test_what_nobody_published_nobody_finds() -> None:
    nodes = await start_nodes(World(seed=5), 10)
    result = await nodes[3].find(bytes(20))
    assert (result.record, result.local, result.hops) == (None, False, 0)
    assert result.requests >= LOCAL.k
    assert await nodes[3].get("nothing") is None
    assert await nodes[3].get(f"{identity(9).id}/nothing") is None
    await close(*nodes)


def test_one_seed_number_gives_one_run() -> None:
    async def history() -> tuple[int, float, list[int], list[bool]]:
        world = World(seed=6, loss=0.1)
        nodes = await start_nodes(world, 8)
        await all_publish(nodes)
        began = asyncio.get_running_loop().time()
        records = [(await nodes[0].find(key_of(node, "number"))).record for node in nodes]
        took = asyncio.get_running_loop().time() - began
        await close(*nodes)
        return world.datagrams, took, [node.known_nodes for node in nodes], [record is not None for record in records]

    assert run(history()) == run(history())


# --- values ---


@pytest.mark.parametrize(
    "value", [0, 42, -1, 2**63, -(2**63), 1.5, float("inf"), True, False, "", "größe ✓", b"", b"\x00\xff"], ids=repr
)
@virtual
async def test_a_value_is_read_as_it_was_set(value: object) -> None:
    alice, bob = await start_nodes(World(), 2)
    assert (await alice.set("name", value)).confirmed == 1
    for read in (await alice.get("name"), await bob.get(f"{alice.identity.id}/name")):
        assert read == value
        assert type(read) is type(value)
    assert await bob.get("name") is None
    await close(alice, bob)


@pytest.mark.parametrize("value", [None, [], {}, (1,), {1}, object(), 1j], ids=lambda value: type(value).__name__)
@virtual
async def test_a_value_of_another_type_is_refused(value: object) -> None:
    node = await start_node(World())
    with pytest.raises(TypeError, match="int, float, bool, str or bytes"):
        await node.set("name", value)
    assert node.own.keys() == []
    await close(node)


@virtual
async def test_a_value_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    alice, bob = await start_nodes(World(), 2)
    await alice.set("name", b"small")
    with pytest.raises(MessageTooLarge, match="at most 512 bytes"):
        await alice.set("name", bytes(500))
    with pytest.raises(ValueError, match="record"):
        await alice.set("x" * 65, 1)
    with pytest.raises(ValueError, match="record"):
        await alice.set("", 1)
    assert await bob.get(f"{alice.identity.id}/name") == b"small"
    assert len(alice.own.keys()) == 1
    await close(alice, bob)


@virtual
async def test_a_value_that_nearly_fits_changes_nothing_either() -> None:
    alice, bob = await start_nodes(World(), 2, SHORT)
    await alice.set("name", b"small")
    record = alice.shared.store.get(key_of(alice, "name"))
    assert record is not None
    # From 256 B on, two lengths (of the field, and of the value in it) take a byte more.
    largest = MAX_RECORD - (len(record.blob) - len(b"small")) - 2
    try:
        for too_many in range(1, 15):
            with pytest.raises(MessageTooLarge):
                await alice.set("name", bytes(largest + too_many))
        await asyncio.sleep(1200)
        assert await bob.get(f"{alice.identity.id}/name", fresh=True) == b"small"
        await alice.set("name", bytes(largest))
        assert await bob.get(f"{alice.identity.id}/name", fresh=True) == bytes(largest)
    finally:
        await close(alice, bob)


@virtual
async def test_a_number_too_large_is_refused_as_a_value() -> None:
    node = await start_node(World())
    try:
        with pytest.raises(ValueError):  # noqa: PT011
            await node.set("name", 2**64)
    finally:
        await close(node)


@virtual
async def test_names_are_anything_and_owners_are_peer_ids() -> None:
    alice, bob = await start_nodes(World(), 2)
    await alice.set("with space/and slash", 1)
    assert await bob.get(f"{alice.identity.id}/with space/and slash") == 1
    with pytest.raises(PeerIdError):
        await bob.get("nobody/name")
    await close(alice, bob)


@virtual
async def test_a_value_that_is_not_ours_to_read_is_none() -> None:
    # Whoever signs may put any bytes there.
    alice, bob = await start_nodes(World(), 2)
    for number, data in enumerate((b"", b"\xc1", b"\x91" * 300, encode([1, 2]) + b"\0")):
        record = value_record(f"name {number}", data, identity(5))
        bob.shared.store.keep(record, NOW)
        assert await alice.get(f"{identity(5).id}/name {number}") is None
    await close(alice, bob)


# --- alone, and then no longer ---


@virtual
async def test_who_is_alone_stores_at_home_and_says_so() -> None:
    node = await start_node(World())
    assert await node.set("name", 1) == PublishResult(confirmed=0, asked=0, home=True)
    assert await node.get("name") == 1
    result = await node.find(key_of(node, "name"))
    assert (result.local, result.requests, result.hops) == (True, 0, 0)
    await close(node)


@virtual
async def test_what_was_published_alone_spreads_as_others_come() -> None:
    world = World()
    first = await start_node(world)
    await first.set("name", "early")
    others = []
    for number in range(10):
        others.append(await start_node(world, via=first))
        await asyncio.sleep(10)
        wanted = min(number + 1, LOCAL.k)
        assert len(holders(others, key_of(first, "name"))) >= wanted
    first.stop()
    for other in others:
        assert await other.get(f"{first.identity.id}/name") == "early"
    await close(first, *others)


def refuses_to_store(request: Request, source: Address) -> Reply:
    """How somebody answers who takes a seat and keeps nothing."""
    head = (0, request.request_id, 0, b"c" * 16, pack_address(source), NOW * 1000)
    if isinstance(request, Store):
        return Refused(*head, Refusal.FULL)
    return Pong(*head) if isinstance(request, Ping) else Found(*head, [], [], b"")


@virtual
async def test_an_owner_hands_on_its_record_whoever_sits_nearer_to_it() -> None:
    # As a rule the two nearest holders hand on a record. Here these keep nothing, and the owner has to do it.
    world = World(seed=27)
    owner = await start_node(world)
    name = next(f"{n}" for n in range(99) if (key_of(owner, f"{n}")[0] ^ owner.shared.node_key.id[0]) & 0x80)
    await owner.set(name, "mine")
    key = key_of(owner, name)
    nearer = [number for number in range(3000, 3100) if not (node_key(number).id[0] ^ key[0]) & 0x80][:2]
    for number in nearer:
        squatter = Stranger(world, number)
        squatter.answers = refuses_to_store
        await owner.bootstrap([squatter.way_in])
    assert owner.known_nodes == 2
    newcomers = []
    for _ in range(3):
        newcomers.append(await start_node(world, via=owner))
        await asyncio.sleep(10)
        assert holders(newcomers, key) == newcomers
    await close(owner, *newcomers)


@virtual
async def test_newcomers_near_a_record_get_it() -> None:
    # The owner is gone; those who hold its record hand it on.
    world = World(seed=7)
    nodes = await start_nodes(world, 4)
    await nodes[0].set("name", 1)
    nodes[0].stop()
    target = int.from_bytes(key_of(nodes[0], "name"), "big")
    for _ in range(30):
        nodes.append(await start_node(world, via=nodes[1]))
        await asyncio.sleep(1)
    await asyncio.sleep(120)
    nearest = sorted(nodes[1:], key=lambda n: int.from_bytes(n.shared.node_key.id, "big") ^ target)
    assert len(holders(nearest[: LOCAL.k], key_of(nodes[0], "name"))) >= LOCAL.k - 1
    await close(*nodes)


@virtual
async def test_who_refuses_our_record_does_not_hold_it() -> None:
    world = World()
    owner, full = await start_node(world), Stranger(world)
    await owner.set("name", 1)
    own = owner.own.get(key_of(owner, "name"))
    assert own is not None
    seen: list[Request] = []

    def answers(request: Request, source: Address) -> Reply:
        seen.append(request)
        return refuses_to_store(request, source)

    full.answers = answers
    try:
        await owner.bootstrap([full.way_in])
        await asyncio.sleep(60)
        assert any(isinstance(request, Store) for request in seen)
        assert own.confirmed == []
    finally:
        await close(owner)


# --- newer and older ---


@virtual
async def test_fresh_finds_the_newest_and_mends_those_who_missed_it() -> None:
    world = World(seed=8)
    nodes = await start_nodes(world, 12)
    owner = nodes[0]
    await owner.set("number", 1)
    stale = holders(nodes[1:], key_of(owner, "number"))[:2]
    for node in stale:
        world.unreachable.add(node.addresses[0].ip)
    await owner.set("number", 2)
    world.unreachable.clear()
    assert [await node.get(f"{owner.identity.id}/number") for node in stale] == [1, 1]  # what they hold themselves
    finder = next(node for node in nodes[1:] if node not in holders(nodes, key_of(owner, "number")))
    assert await finder.get(f"{owner.identity.id}/number", fresh=True) == 2
    await asyncio.sleep(5)
    assert [await node.get(f"{owner.identity.id}/number") for node in stale] == [2, 2]
    for node in nodes:
        assert await node.get(f"{owner.identity.id}/number", fresh=True) == 2
    await close(*nodes)


@virtual
async def test_a_goodbye_is_found_as_one() -> None:
    nodes = await start_nodes(World(seed=9), 10)
    owner = nodes[0]
    assert (await say(owner, "online")).confirmed >= LOCAL.k
    assert {await found(node, owner) for node in nodes} == {"online"}
    assert (await say(owner, GONE)).confirmed >= LOCAL.k
    assert {await found(node, owner, fresh=True) for node in nodes} == {GONE}
    # The old record, brought back by somebody who was away, changes nothing.
    key = presence_key(LOCAL, owner.identity.id)
    for node in nodes[1:]:
        node.shared.store.keep(presence(owner.identity, seq=1), NOW)
    assert {await found(node, owner, fresh=True) for node in nodes} == {GONE}
    # It outlives what it ended, and then nothing is left.
    await close(owner)
    await asyncio.sleep(LIFE - 60)
    assert len(holders(nodes[1:], key)) >= LOCAL.k
    await asyncio.sleep(240)
    assert holders(nodes[1:], key) == []
    await close(*nodes)


@virtual
async def test_a_record_is_renewed_while_its_owner_lives_and_ends_after_it() -> None:
    nodes = await start_nodes(World(seed=10), 8, SHORT)
    owner, others = nodes[0], nodes[1:]
    key = key_of(owner, "name")
    await owner.set("name", "alive")
    seqs, expiries = [], []
    for _ in range(12):  # half an hour: three lives
        await asyncio.sleep(150)
        record = (await others[0].find(key, fresh=True)).record
        assert record is not None
        seqs.append(record.seq)
        expiries.append(record.expires - owner.shared.wall())
    assert seqs == sorted(seqs)
    assert len(set(seqs)) >= 9  # at a quarter of the life, more or less a tenth
    assert min(expiries) > 600 * 0.7
    await close(owner)
    await asyncio.sleep(600)
    assert holders(others, key) == []
    assert [await other.get(f"{owner.identity.id}/name", fresh=True) for other in others] == [None] * 7
    await asyncio.sleep(60)
    assert [other.shared.store.count for other in others] == [0] * 7
    await close(*others)


@virtual
async def test_a_restored_backup_does_not_fall_silent() -> None:
    # The machine comes back with its clock half a minute slow; by its clock, what it says now is the older word.
    world = World(seed=11)
    nodes = await start_nodes(world, 8)
    before = await start_node(world, via=nodes[0], identity=identity(7))
    await before.set("name", "before")
    old = before.shared.store.get(key_of(before, "name"))
    assert old is not None
    await close(before)
    host = world.host()
    host.virtual_clock.skew_s = -30
    after = await start_node(world, via=nodes[0], identity=identity(7), host=host)
    result = await after.set("name", "after")
    assert result.confirmed == LOCAL.k
    new = (await nodes[3].find(key_of(before, "name"), fresh=True)).record
    assert new is not None
    assert new.seq == old.seq + 1
    assert [await node.get(f"{identity(7).id}/name", fresh=True) for node in nodes] == ["after"] * 8
    await close(after, *nodes)


@virtual
async def test_another_process_under_our_identity_is_noticed() -> None:
    world = World(seed=12)
    nodes = await start_nodes(world, 6, SHORT)
    ours = await start_node(world, SHORT, via=nodes[0], identity=identity(7))
    noticed: list[Record] = []
    ours.on_conflict = noticed.append
    await ours.set("name", "ours")
    await asyncio.sleep(1)
    theirs = await start_node(world, SHORT, via=nodes[0], identity=identity(7))
    theirs.on_conflict = lambda record: pytest.fail("what was there before the first publish is no conflict")
    await theirs.set("name", "theirs")
    assert noticed == []
    theirs.stop()
    result = await ours.set("name", "ours again")
    assert [record.incarnation for record in noticed] == [theirs.incarnation]
    # We go above it all the same.
    assert result.confirmed >= LOCAL.k
    assert await nodes[0].get(f"{identity(7).id}/name", fresh=True) == "ours again"
    await close(ours, theirs, *nodes)


@virtual
async def test_our_own_past_is_no_conflict() -> None:
    world = World(seed=13)
    nodes = await start_nodes(world, 6)
    ours = await start_node(world, via=nodes[0], identity=identity(7), past_incarnations=(b"the past",))
    ours.on_conflict = lambda record: pytest.fail("our own past")
    await ours.set("name", 1)
    for node in nodes:
        node.shared.store.keep(
            value_record("name", encode(0), identity(7), seq=NOW * 2_000_000, incarnation=b"the past"), NOW
        )
    await ours.set("name", 2)
    assert await nodes[0].get(f"{identity(7).id}/name", fresh=True) == 2
    await close(ours, *nodes)


# --- what goes wrong ---


@virtual
async def test_a_fifth_of_all_packets_is_lost() -> None:
    world = World(seed=15, loss=0.2)
    nodes = await start_nodes(world, 15)
    await all_publish(nodes)
    await asyncio.sleep(60)
    # Of 225 lookups in which one try of three is in vain: who is overdue is not waited for, and one may have been the
    # last that had it.
    assert len(await missing(nodes, dict(enumerate(nodes)))) <= 2
    assert await missing(nodes, dict(enumerate(nodes))) == []
    await close(*nodes)


@virtual
async def test_three_in_ten_vanish_without_a_word() -> None:
    world = World(seed=15)
    network = replace(LOCAL, k=8)
    nodes = await start_nodes(world, 30, network)
    await all_publish(nodes)
    await asyncio.sleep(60)
    dead = random.Random(1).sample(nodes, 9)
    for node in dead:
        node.stop()
    alive = [node for node in nodes if node not in dead]
    owners = {number: node for number, node in enumerate(nodes) if node in alive}
    loop = asyncio.get_running_loop()
    slowest = 0.0
    for finder in alive[:4]:
        for number, owner in owners.items():
            began = loop.time()
            assert await finder.get(f"{owner.identity.id}/number") == number
            slowest = max(slowest, loop.time() - began)
    assert slowest < 1.0  # nobody waits for the dead to time out
    assert await missing(alive[:2], owners, fresh=True) == []
    await close(*nodes)


@virtual
async def test_the_same_network_cut_in_two_and_healed() -> None:
    world = World(seed=16)
    nodes = await start_nodes(world, 12)
    await all_publish(nodes)
    away = nodes[6:]
    for node in away:
        world.unreachable.add(node.addresses[0].ip)
    await asyncio.sleep(300)
    assert await missing(nodes[:6], dict(list(enumerate(nodes))[:6])) == []
    world.unreachable.clear()
    await asyncio.sleep(300)
    assert await missing(nodes, dict(enumerate(nodes))) == []
    await close(*nodes)


@virtual
async def test_liars_with_forged_records_are_not_believed() -> None:
    world = World(seed=17)
    nodes = await start_nodes(world, 8)
    owner = nodes[0]
    await owner.set("name", "true")
    key = key_of(owner, "name")
    forged = [
        value_record("name", encode("false"), identity(66), seq=2**60).blob,  # signed by somebody else
        value_record("other", encode("false"), owner.identity, seq=2**60).blob,  # of another name
        presence(owner.identity, seq=2**60).blob,  # of another kind
        value_record("name", encode("false"), owner.identity, replace(LOCAL, name="other"), seq=2**60).blob,
        value_record("name", encode("false"), owner.identity, seq=2**60, expires=NOW - 1).blob,
        bytes(200),
    ]
    liars = []
    for number, blob in enumerate(forged):
        liar = Stranger(world, 2000 + number)

        def answers(request: Request, source: Address, blob: bytes = blob) -> Reply:
            head = (0, request.request_id, 0, b"c" * 16, pack_address(source), NOW * 1000)
            if isinstance(request, FindNode | FindValue):
                return Found(*head, [], [], blob)
            return Pong(*head)

        liar.answers = answers
        liars.append(liar)
    finder = await start_node(world)
    await finder.bootstrap([way_in(nodes[1]), *(liar.way_in for liar in liars)])
    for fresh in (False, True):
        assert await finder.get(f"{owner.identity.id}/name", fresh=fresh) == "true"
    assert finder.shared.store.get(key) in (None, owner.shared.store.get(key))
    assert sum(count for name, count in finder.counters.items() if name.startswith("record.")) >= len(liars)
    await close(finder, *nodes)


# --- clocks ---


@virtual
async def test_a_clock_an_hour_off_is_corrected() -> None:
    for skew in (-3600, 3600):
        world = World(seed=18)
        nodes = await start_nodes(world, 6)
        host = world.host()
        host.virtual_clock.skew_s = skew
        late = await start_node(world, via=nodes[0], host=host)
        assert late.shared.wall() == pytest.approx(nodes[0].shared.wall(), abs=1)
        assert (await late.set("number", 1)).confirmed >= LOCAL.k
        assert await missing(nodes, {1: late}) == []
        assert await late.get(f"{nodes[0].identity.id}/number") is None
        await nodes[0].set("number", 0)
        assert await late.get(f"{nodes[0].identity.id}/number") == 0
        await close(late, *nodes)


@pytest.mark.parametrize("skew", [-110, -50, 50, 110])
@virtual
async def test_a_clock_two_minutes_off_does_no_harm(skew: float) -> None:
    world = World(seed=19)
    nodes = await start_nodes(world, 6)
    host = world.host()
    host.virtual_clock.skew_s = skew
    late = await start_node(world, via=nodes[0], host=host)
    assert (await late.set("number", 1)).confirmed >= LOCAL.k
    assert await missing(nodes, {1: late}) == []
    await close(late, *nodes)


@virtual
async def test_a_clock_two_days_off_is_said() -> None:
    world = World(seed=20)
    nodes = await start_nodes(world, 4)
    host = world.host()
    host.virtual_clock.skew_s = 2 * 86400
    lost = await start_node(world, via=nodes[0], host=host)
    with pytest.raises(ClockWrong, match="more than a day"):
        await lost.set("name", 1)
    await close(lost, *nodes)


@virtual
async def test_a_clock_two_days_off_does_not_make_it_spin() -> None:
    world = World(seed=20)
    nodes = await start_nodes(world, 4)
    host = world.host()
    host.virtual_clock.skew_s = 2 * 86400
    lost = await start_node(world, via=nodes[0], host=host)
    with pytest.raises(ClockWrong):
        await lost.set("name", 1)
    attempts = 0

    def count(_loop: Any, _context: dict[str, Any]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 50:
            lost.stop()  # or the test would never end

    asyncio.get_running_loop().set_exception_handler(count)
    try:
        await asyncio.sleep(60)
        assert attempts < 10
    finally:
        await close(lost, *nodes)


@virtual
async def test_a_word_that_cannot_be_signed_does_not_end_the_one_before() -> None:
    world = World(seed=21)
    nodes = await start_nodes(world, 4, SHORT)
    owner = nodes[0]
    await say(owner, "online")
    with pytest.raises(ValueError, match="record"):
        await say(owner, "a status that is much too long for a record")
    try:
        await asyncio.sleep(1200)
        record = (await nodes[1].find(presence_key(SHORT, owner.identity.id), fresh=True)).record
        assert record is not None
    finally:
        await close(*nodes)


# --- both families ---


async def start_both(world: World, number: int, via: list[DhtNode]) -> DhtNode:
    """A node with a socket in each family."""
    host = world.host(f"10.7.7.{number}")
    host.datagrams = BothFamilies(host.datagrams, world.host(f"fd07::{number}").datagrams)
    node = DhtNode(host=host, network=LOCAL)
    await node.listen(interface="0.0.0.0")
    await node.listen(interface="::")
    if via:
        await node.bootstrap([way_in(other) for other in via])
    return node


@virtual
async def test_a_node_in_both_families_is_the_bridge_between_them() -> None:
    world = World(seed=22)
    only4 = await start_node(world, ip="10.0.0.1")
    only6 = await start_node(world, ip="fd00::1")
    bridge = await start_both(world, 1, [only4, only6])
    assert {family: len(server.router) for family, server in bridge.servers.items()} == {Family.IPV4: 1, Family.IPV6: 1}
    nodes = [only4, only6, bridge]
    await all_publish(nodes)
    assert await missing(nodes, dict(enumerate(nodes))) == []
    assert (await bridge.set("number", 2)).confirmed == 2
    await close(*nodes)


@virtual
async def test_the_other_family_is_learnt_from_replies() -> None:
    # BEP 32: the newcomer knows one IPv4 address only, and asks for the other family as long as it knows nobody there.
    world = World(seed=23)
    first = await start_both(world, 1, [])
    second = await start_both(world, 2, [first])
    await second.bootstrap([(*first.addresses[1], first.shared.node_key.public)])
    newcomer = await start_both(world, 3, [second])
    assert len(newcomer.servers[Family.IPV4].router) == 2
    assert len(newcomer.servers[Family.IPV6].router) >= 1
    await close(first, second, newcomer)


@virtual
async def test_a_family_can_be_listened_in_once() -> None:
    node = await start_node(World())
    with pytest.raises(ValueError, match="IPV4 already"):
        await node.listen()
    assert len(node.addresses) == 1
    await close(node)


# --- the end ---


@virtual
async def test_nothing_is_left_after_aclose() -> None:
    world = World(seed=24)
    nodes = await start_nodes(world, 6)
    await all_publish(nodes)
    await asyncio.sleep(2000)
    assert world.loop.pending() >= 6  # the upkeep of each
    await close(*nodes)
    assert tasks_left() == []
    await asyncio.sleep(10)  # what is under way arrives
    assert world.loop.pending() == 0
    assert world.sockets == {}
    sent = world.datagrams
    await asyncio.sleep(3600)
    assert world.datagrams == sent


@virtual
async def test_nothing_is_left_though_much_was_going_on() -> None:
    world = World(seed=25)
    nodes = await start_nodes(world, 6)
    await all_publish(nodes)
    node = nodes[0]
    for other in nodes[1:]:
        other.stop()
    busy = [
        asyncio.create_task(node.find(bytes(20))),
        asyncio.create_task(node.find(bytes(20), fresh=True)),
        asyncio.create_task(node.set("name", 1)),
        asyncio.create_task(node.refresh(bytes(20))),
        asyncio.create_task(node.bootstrap([way_in(nodes[1])])),
        asyncio.create_task(node.prove_address(contact_of(nodes[1]))),
    ]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in busy)
    await close(*nodes)
    done, pending = await asyncio.wait(busy, timeout=1)
    assert pending == set()
    assert all(task.exception() is None for task in done)
    assert tasks_left() == []
    assert world.sockets == {}


@virtual
async def test_a_node_may_be_closed_twice_and_asked_afterwards() -> None:
    world = World()
    alice, bob = await start_nodes(world, 2)
    await alice.set("name", 1)
    alice.stop()
    alice.stop()
    await alice.aclose()
    await alice.aclose()
    assert await alice.get("name") == 1  # what it holds itself
    assert (await alice.find(bytes(20))).record is None
    assert await alice.set("name", 2) == PublishResult(confirmed=0, asked=0, home=True)
    assert await alice.bootstrap([way_in(bob)]) == 0
    assert tasks_left() == []
    await asyncio.sleep(10)
    assert world.loop.pending() == 1  # Bob's upkeep
    await close(bob)
    assert world.loop.pending() == 0


# --- joining ---


@virtual
async def test_an_address_is_proved_by_asking_twice() -> None:
    world = World()
    alice, bob = await start_node(world), await start_node(world)
    assert await alice.prove_address(contact_of(bob))
    assert bob.known_nodes == 1
    bob.stop()
    assert not await alice.prove_address(contact_of(bob))
    assert not await alice.prove_address(contact_of(await start_node(world, ip="fd00::1")))
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            task.cancel()
    await close(alice, bob)


@virtual
async def test_joining_gives_the_number_of_those_who_answered() -> None:
    world = World()
    nodes = await start_nodes(world, 5)
    newcomer = await start_node(world)
    assert await newcomer.bootstrap([way_in(nodes[0])]) >= LOCAL.k
    assert newcomer.known_nodes >= LOCAL.k
    assert len(newcomer.live_contacts(3)) == 3
    lonely = await start_node(world)
    assert await lonely.bootstrap([]) == 0
    assert await lonely.bootstrap([("10.99.9.9", 4000), ("10.99.9.9", 4000, node_key(1).public)]) == 0
    assert lonely.known_nodes == 0
    await close(newcomer, lonely, *nodes)


@virtual
async def test_a_transient_node_reads_and_leaves_no_trace() -> None:
    world = World(seed=26)
    nodes = await start_nodes(world, 8)
    await all_publish(nodes)
    guest = await start_node(world, via=nodes[0], no_seat=True, stores=False)
    assert await missing([guest], dict(enumerate(nodes))) == []
    assert all(contact_of(guest) not in node.live_contacts(100) for node in nodes)
    assert guest.shared.store.count == 0
    await close(guest, *nodes)


@virtual
async def test_reaching_for_many_ends_with_the_first_that_answers() -> None:
    world = World(latency_s=0.025)
    node, other = await start_node(world), await start_node(world)
    silent = [Stranger(world, 1000 + number).contact for number in range(5)]
    loop = asyncio.get_running_loop()
    assert await node.reach([*silent, contact_of(other)], 3.0)
    assert loop.time() == pytest.approx(0.05)
    assert not await node.reach(silent, 3.0)
    assert loop.time() == pytest.approx(0.05 + 1.0)
    assert not await node.reach(silent, 0.2)
    assert loop.time() == pytest.approx(0.05 + 1.0 + 0.2)
    assert not await node.reach([], 3.0)
    await asyncio.sleep(10)
    assert tasks_left() == []
    await close(node, other)


@virtual
async def test_likely_contacts_are_the_latest_then_others_and_the_failing_last() -> None:
    node = await start_node(World(), LOCAL.with_k(20))
    assert node.is_alone
    router = node.servers[Family.IPV4].router
    known = [contact(number) for number in range(12)]
    for at, who in enumerate(known):
        router.on_proved(who, float(at))
    router.on_failure(known[0], 20.0)
    router.on_failure(known[11], 20.0)
    likely = node.likely_contacts(6)
    assert likely[:3] == [known[10], known[9], known[8]]
    assert set(likely[3:]) < set(known[1:8])
    assert node.likely_contacts(100)[10:] in ([known[0], known[11]], [known[11], known[0]])
    assert not node.is_alone
    await close(node)
