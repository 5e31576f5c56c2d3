"""What a node pushes to those who watch a key there, packet by packet."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from support import NOW, PUBLIC, Stranger, close, membership, public_ip, start_node, value_record, virtual

from atonce_sim.world import World
from dht_atonce.config import DhtConfig
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.wire import (
    FLAG_NO_SEAT,
    NEARER,
    WATCHED,
    NeedCookie,
    Noted,
    NoteOutcome,
    Notify,
    Ping,
    Reply,
    Request,
    Store,
    Watch,
    Watching,
    pack_watch,
)
from dht_atonce.endpoints import Address, Family, pack_address
from dht_atonce.records import Record

RECORD = value_record(seq=5)
KEY = RECORD.key


class Follower:
    """A stranger who watches, and notes what is pushed to it."""

    def __init__(self, world: World, number: int = 1000, **where: Any) -> None:
        self.stranger = Stranger(world, number, **where)
        self.stranger.answers = self._answer
        self.pushed: list[tuple[float, bytes, bytes]] = []
        """When, of which key, which record."""
        self.is_dead = False
        self.outcome = NoteOutcome.NOTED
        self.time_ms = NOW * 1000
        self._cookie = b""

    def _answer(self, request: Request, source: Address) -> Reply | None:
        assert isinstance(request, Notify)
        self.pushed.append((asyncio.get_running_loop().time(), request.key, request.record))
        if self.is_dead:
            return None
        return Noted(0, request.request_id, FLAG_NO_SEAT, b"", pack_address(source), self.time_ms, self.outcome)

    async def ask(self, node: DhtNode, request: Request) -> Reply:
        """A request with a cookie, and its reply."""
        if not self._cookie:
            reply = await self.stranger.asks(node, Ping(0, bytes(8), FLAG_NO_SEAT))
            assert reply is not None
            self._cookie = reply.cookie
        reply = await self.stranger.asks(node, request, self._cookie)
        assert reply is not None
        return reply

    async def watch(self, node: DhtNode, *watches: bytes, lease_s: int = 300) -> Watching:
        reply = await self.ask(node, Watch(0, bytes(8), FLAG_NO_SEAT, lease_s, list(watches)))
        assert isinstance(reply, Watching)
        return reply

    def pushed_records(self) -> list[bytes]:
        return [record for _, _, record in self.pushed]


async def store(node: DhtNode, record: Record, who: Follower) -> None:
    """A STORE as it comes from anybody."""
    await who.ask(node, Store(0, bytes(8), FLAG_NO_SEAT, record.blob))


@virtual
async def test_a_watch_needs_a_proved_address() -> None:
    world = World()
    node, who = await start_node(world), Follower(world)
    reply = await who.stranger.asks(node, Watch(0, bytes(8), FLAG_NO_SEAT, 300, [pack_watch(KEY, None)]))
    assert isinstance(reply, NeedCookie)
    await store(node, RECORD, Follower(world, 1001))
    assert who.pushed == []
    await close(node)


@virtual
async def test_each_newer_record_is_pushed_once_whatever_way_it_comes() -> None:
    world = World()
    node, who, owner = await start_node(world), Follower(world), Follower(world, 1001)
    reply = await who.watch(node, pack_watch(KEY, None))
    assert (reply.lease_s, reply.outcomes, reply.records) == (300, bytes([WATCHED]), [])
    newer = value_record(seq=6)
    for record in (RECORD, RECORD, newer, RECORD):
        await store(node, record, owner)
    assert who.pushed_records() == [RECORD.blob, newer.blob]
    # As `publish` does at home.
    newest = value_record(seq=7)
    node.shared.store.keep(newest, node.shared.wall())
    await asyncio.sleep(1)
    assert who.pushed_records()[2:] == [newest.blob]
    await store(node, value_record("another"), owner)
    assert len(who.pushed) == 3
    await close(node)


@virtual
async def test_a_record_takes_one_round_trip_from_its_owner_to_its_watcher() -> None:
    world = World(latency_s=0.05)
    node, who, owner = await start_node(world), Follower(world), Follower(world, 1001)
    await who.watch(node, pack_watch(KEY, None))
    await owner.ask(node, Ping(0, bytes(8), FLAG_NO_SEAT))
    began = asyncio.get_running_loop().time()
    await store(node, RECORD, owner)
    assert who.pushed[0][0] - began == pytest.approx(0.1)
    await close(node)


@virtual
async def test_who_lacks_something_is_given_it_with_the_reply() -> None:
    world = World()
    node, who = await start_node(world), Follower(world)
    fork = value_record(seq=5, value=b"a fork")
    node.shared.store.keep(RECORD, NOW)
    for held, lacks in ((None, True), (value_record(seq=4), True), (fork, True), (RECORD, False)):
        reply = await who.watch(node, pack_watch(KEY, held))
        assert reply.records == ([RECORD.blob] if lacks else [])
    reply = await who.watch(node, pack_watch(KEY, value_record(seq=6)))
    assert reply.records == []
    assert who.pushed == []
    await close(node)


@virtual
async def test_what_does_not_fit_into_the_reply_is_pushed() -> None:
    world = World()
    node, who = await start_node(world), Follower(world)
    records = [value_record(f"{number}", bytes(200)) for number in range(32)]
    for record in records:
        node.shared.store.keep(record, NOW)
    reply = await who.watch(node, *(pack_watch(record.key, None) for record in records))
    await asyncio.sleep(1)
    assert 2 <= len(reply.records) <= 5
    pushed = who.pushed_records()
    assert Counter(reply.records + pushed) == Counter(record.blob for record in records)
    await close(node)


@virtual
async def test_expiry_is_pushed_as_an_empty_record() -> None:
    world = World()
    node, who = await start_node(world), Follower(world)
    node.shared.store.keep(value_record(expires=NOW + 60), NOW)
    await who.watch(node, pack_watch(KEY, None))
    await asyncio.sleep(120)
    assert [(key, record) for _, key, record in who.pushed] == [(KEY, b"")]
    await close(node)


@virtual
async def test_a_topic_is_not_watched_and_its_members_are_not_pushed() -> None:
    world = World()
    node, early, late = await start_node(world), Follower(world), Follower(world, 1001)
    key = membership().key
    assert (await early.watch(node, pack_watch(key, None))).outcomes == bytes([WATCHED])  # it may become a value's key
    node.shared.store.keep(membership(), NOW)
    reply = await late.watch(node, pack_watch(key, None))
    assert (reply.outcomes, reply.records) == (b"\0", [])
    node.shared.store.keep(membership(seq=2), NOW)
    await asyncio.sleep(30)
    assert (early.pushed, late.pushed) == ([], [])
    assert node.counters["dht.watch_full"] == 0
    await close(node)


@virtual
async def test_a_watch_can_be_ended() -> None:
    world = World()
    node, who = await start_node(world), Follower(world)
    other = value_record("other")
    await who.watch(node, pack_watch(KEY, None), pack_watch(other.key, None))
    reply = await who.watch(node, pack_watch(KEY, None), lease_s=0)
    assert (reply.lease_s, reply.outcomes) == (0, bytes(1))
    for record in (RECORD, other):
        await store(node, record, Follower(world, 1001))
    assert who.pushed_records() == [other.blob]
    who.outcome = NoteOutcome.NOT_WATCHED  # or so
    for seq in (2, 3):
        await store(node, value_record("other", seq=seq), Follower(world, 1001 + seq))
    assert len(who.pushed) == 2
    await close(node)


@virtual
async def test_a_watch_lasts_as_long_as_its_lease() -> None:
    world = World()
    node, who = await start_node(world), Follower(world)
    reply = await who.watch(node, pack_watch(KEY, None), lease_s=65535)
    assert reply.lease_s == 300
    await asyncio.sleep(290)
    await store(node, RECORD, Follower(world, 1001))
    await asyncio.sleep(20)
    await store(node, value_record(seq=6), Follower(world, 1002))
    assert who.pushed_records() == [RECORD.blob]
    await close(node)


@virtual
async def test_who_does_not_answer_three_times_is_dropped() -> None:
    world = World()
    node, who = await start_node(world), Follower(world)
    await who.watch(node, pack_watch(KEY, None))
    who.is_dead = True
    await store(node, RECORD, Follower(world, 1001))
    await asyncio.sleep(60)
    assert len(who.pushed) == 3 * DhtConfig().tries
    assert node.counters["dht.notify_missed"] == 3
    assert node.counters["dht.watcher_dropped"] == 1
    await store(node, value_record(seq=6), Follower(world, 1002))
    assert len(who.pushed) == 6
    # Who speaks again is told what it missed.
    who.is_dead = False
    reply = await who.watch(node, pack_watch(KEY, None))
    assert reply.records == [value_record(seq=6).blob]
    await close(node)


@virtual
async def test_who_misses_one_push_is_told_again_with_the_newest() -> None:
    world = World()
    node, who = await start_node(world), Follower(world)
    await who.watch(node, pack_watch(KEY, None))
    who.is_dead = True
    await store(node, RECORD, Follower(world, 1001))
    await asyncio.sleep(0.5)
    who.is_dead = False
    newer = value_record(seq=6)
    await store(node, newer, Follower(world, 1002))
    await asyncio.sleep(10)
    assert who.pushed_records()[-1] == newer.blob
    assert set(who.pushed_records()[:-1]) == {RECORD.blob}
    await close(node)


@virtual
async def test_a_full_node_says_so_and_still_tells_what_it_has() -> None:
    world = World()
    node = await start_node(world, config=replace(DhtConfig(), max_watches=1))
    node.shared.store.keep(RECORD, NOW)
    assert (await Follower(world).watch(node, pack_watch(bytes(20), None))).outcomes == bytes([WATCHED])
    reply = await Follower(world, 1001).watch(node, pack_watch(KEY, None))
    assert (reply.outcomes, reply.records) == (bytes(1), [RECORD.blob])
    assert node.counters["dht.watch_full"] == 1
    await close(node)


@virtual
async def test_who_knows_four_nearer_nodes_says_so() -> None:
    world = World()
    node = await start_node(world)
    others = [await start_node(world, via=node) for _ in range(8)]
    await asyncio.sleep(5)
    by_distance = sorted(
        (node, *others), key=lambda one: int.from_bytes(one.shared.node_key.id, "big") ^ int.from_bytes(KEY, "big")
    )
    says = []
    for number, one in enumerate(by_distance):
        says.append((await Follower(world, 1000 + number).watch(one, pack_watch(KEY, None))).outcomes[0])
    assert says[:4] == [WATCHED] * 4
    assert says[-1] == WATCHED | NEARER
    await close(node, *others)


@virtual
async def test_the_one_who_asks_does_not_count_as_nearer() -> None:
    world = World()
    nodes = [await start_node(world)]
    for _ in range(4):
        nodes.append(await start_node(world, via=nodes[0]))
    await asyncio.sleep(5)
    target = int.from_bytes(KEY, "big")
    nodes.sort(key=lambda one: int.from_bytes(one.shared.node_key.id, "big") ^ target)
    # The farthest of five has four nearer ones, and one of them asks.
    async with nodes[0].watch(KEY):
        await asyncio.sleep(250)
        assert nodes[0].counters["dht.watch_lookups"] <= 2
    await close(*nodes)


@virtual
async def test_a_thousand_watchers_of_one_key_hear_once_each_at_the_bounded_rate() -> None:
    world = World()
    node = await start_node(world)
    crowd = [Follower(world, 1000 + number) for number in range(1000)]
    for first in range(0, 1000, 100):  # strangers beyond 500 a second would have to ask twice
        await asyncio.gather(*(who.watch(node, pack_watch(KEY, None)) for who in crowd[first : first + 100]))
        await asyncio.sleep(0.5)
    before, began = node.counters.copy(), asyncio.get_running_loop().time()
    node.shared.store.keep(RECORD, NOW)
    await asyncio.sleep(30)
    assert [who.pushed_records() for who in crowd] == [[RECORD.blob]] * 1000
    spent = node.counters - before
    assert (spent["dht.sent"], spent["dht.received"], spent["dht.resent"]) == (1000, 1000, 0)
    config, latest = DhtConfig(), max(who.pushed[0][0] for who in crowd) - began
    assert latest == pytest.approx(1000 / config.notify_per_s, rel=0.1)
    busiest = max(Counter(int((who.pushed[0][0] - began) * 10) for who in crowd).values())
    assert busiest <= config.notify_per_s / 10 + config.notify_burst + 1
    # At rest they cost nothing.
    before = node.counters.copy()
    await asyncio.sleep(100)
    assert (node.counters - before)["dht.sent"] == 0
    await close(node)


@virtual
async def test_limits_of_the_internet_do_not_hold_up_pushes_to_who_has_proved_itself() -> None:
    world = World()
    node = await start_node(world, PUBLIC, ip=public_ip(1))
    who = Follower(world, 1000, network=PUBLIC, ip=public_ip(2))
    key = value_record(network=PUBLIC).key
    await who.watch(node, pack_watch(key, None))
    for seq in range(1, 9):
        node.shared.store.keep(value_record(seq=seq, network=PUBLIC), NOW)
        await asyncio.sleep(0.5)
    assert len(who.pushed) == 8
    await close(node)


@virtual
async def test_watchers_have_no_voice_in_what_time_it_is_or_where_we_are() -> None:
    # Anybody can make us send a NOTIFY, as often as it likes.
    world = World()
    node = await start_node(world)
    for number in range(5):
        who = Follower(world, 1000 + number)
        who.time_ms = (NOW - 7 * 86400) * 1000
        await who.watch(node, pack_watch(KEY, None))
    node.shared.store.keep(RECORD, NOW)
    await asyncio.sleep(1)
    assert node.counters["dht.notified"] == 5
    assert node.shared.skew.correction_s == 0
    assert not node.shared.skew.is_hopeless
    assert node.shared.observed.ip(Family.IPV4) is None
    await close(node)


@virtual
async def test_nobody_is_told_after_the_end() -> None:
    world = World()
    node, who = await start_node(world), Follower(world)
    await who.watch(node, pack_watch(KEY, None))
    node.shared.store.keep(RECORD, NOW)
    await asyncio.sleep(0.1)
    node.shared.store.keep(value_record(seq=6), NOW)  # waits for the end of the moment
    await close(node)
    node.shared.store.keep(value_record(seq=7), NOW)
    await asyncio.sleep(10)
    assert who.pushed_records() == [RECORD.blob]
