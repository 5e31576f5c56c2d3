"""Watches between whole nodes in the virtual world: whatever happens to the network, what changed is heard."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from support import (
    LOCAL,
    NOW,
    PUBLIC,
    Stranger,
    close,
    identity,
    node_key,
    presence,
    public_ip,
    start_node,
    start_nodes,
    tasks_left,
    value_record,
    virtual,
    way_in,
)

from atonce_sim.world import VirtualHost, World
from dht_atonce.config import DhtConfig
from dht_atonce.datagrams import DatagramSocket, OnDatagram
from dht_atonce.dht.node import DhtNode, KeyChange, KeyWatch, WatchEvent
from dht_atonce.dht.wire import Noted, NoteOutcome, Notify, Refused
from dht_atonce.endpoints import Address
from dht_atonce.records import GONE, PresenceRecord, ValueRecord, presence_key, value_key

CONFIG = DhtConfig()
RENEWAL_S = CONFIG.watch_lease_s / 3 * 1.1
"""Between two renewals, at most."""
SOON_S = 1.0


def key_of(node: DhtNode, name: str = "name") -> bytes:
    return value_key(node.shared.network, node.identity.id, name)


class Listener:
    """Reads a watch all the time."""

    def __init__(self, watch: KeyWatch) -> None:
        self.watch = watch
        self.events: list[tuple[float, WatchEvent]] = []
        self._task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for event in self.watch:
            self.events.append((asyncio.get_running_loop().time(), event))

    @property
    def values(self) -> list[Any]:
        """What the values were, msgpack's small ints."""
        return [event.record.value[0] for _, event in self.events if isinstance(event.record, ValueRecord)]

    @property
    def changes(self) -> list[KeyChange]:
        return [event.change for _, event in self.events]

    async def hears(self, value: int, within_s: float) -> float:
        """Wait until this value is heard; gives after how long."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while value not in self.values:
            assert loop.time() - began <= within_s, f"{value} was not heard within {within_s} s"
            await asyncio.sleep(0.01)
        return loop.time() - began

    async def end(self) -> None:
        await self.watch.aclose()
        await self._task


@contextlib.asynccontextmanager
async def listening(node: DhtNode, key: bytes) -> AsyncIterator[Listener]:
    async with node.watch(key) as watch:
        listener = Listener(watch)
        yield listener
        await listener.end()


def watches_at(nodes: list[DhtNode]) -> int:
    """How many watches nodes have for others."""
    return sum(node.watchers for node in nodes)


# --- what is heard ---


@virtual
async def test_a_watcher_hears_what_is_there_and_then_each_change_at_once() -> None:
    nodes = await start_nodes(World(), 12)
    owner, watcher = nodes[3], nodes[9]
    await owner.set("name", 1)
    async with listening(watcher, key_of(owner)) as heard:
        await heard.hears(1, SOON_S)
        assert heard.watch.holders == 4
        for value in (2, 3):
            await owner.set("name", value)
            await heard.hears(value, SOON_S)
        assert heard.values == [1, 2, 3]
        assert heard.watch.record is not None
        assert heard.watch.record.seq == heard.events[-1][1].record.seq
    assert tasks_left() == []
    await close(*nodes)


@virtual
async def test_what_is_not_there_yet_is_heard_when_it_comes() -> None:
    nodes = await start_nodes(World(), 12)
    async with listening(nodes[9], key_of(nodes[3])) as heard:
        await asyncio.sleep(1)
        assert heard.events == []
        assert heard.watch.record is None
        await nodes[3].set("name", 1)
        await heard.hears(1, SOON_S)
    await close(*nodes)


@virtual
async def test_a_goodbye_is_heard() -> None:
    nodes = await start_nodes(World(), 8)
    owner, watcher = nodes[1], nodes[5]
    key = presence_key(LOCAL, owner.identity.id)

    async def say(status: str, *, is_goodbye: bool = False) -> None:
        def sign(seq: int, expires: int) -> PresenceRecord:
            return presence(owner.identity, seq=seq, expires=expires, incarnation=owner.incarnation, status=status)

        await owner.publish(key, sign, is_goodbye=is_goodbye)

    await say("online")
    async with listening(watcher, key) as heard:
        await say(GONE, is_goodbye=True)
        await asyncio.sleep(SOON_S)
        assert heard.changes == [KeyChange.RECORD, KeyChange.GOODBYE]
    await close(*nodes)


@virtual
async def test_the_end_of_a_record_is_heard_when_it_comes_by_the_watchers_own_clock() -> None:
    nodes = await start_nodes(World(), 8)
    record = value_record(who=identity(5), expires=NOW + 100)
    for node in nodes:
        node.shared.store.keep(record, node.shared.wall())
    async with listening(nodes[2], record.key) as heard:
        await asyncio.sleep(1)
        assert heard.changes == [KeyChange.RECORD]
        await asyncio.sleep(200)
        assert heard.changes == [KeyChange.RECORD, KeyChange.EXPIRED]
        at, event = heard.events[-1]
        assert event.record == record
        assert at + NOW == pytest.approx(record.expires, abs=0.01)
        assert heard.watch.record is None
    await close(*nodes)


@virtual
async def test_nobody_makes_a_watcher_believe_that_a_record_is_over_or_another() -> None:
    world = World()
    nodes = await start_nodes(world, 8)
    stranger = Stranger(world)
    record, forged = value_record(who=identity(5), seq=5), bytearray(value_record(who=identity(5), seq=6).blob)
    forged[-1] ^= 1
    for node in nodes:
        node.shared.store.keep(record, node.shared.wall())
    watcher = nodes[2]
    async with listening(watcher, record.key) as heard:
        answers = [
            await stranger.asks(watcher, Notify(0, bytes([number] * 8), 1, record.key, blob))
            for number, blob in enumerate(
                [
                    b"",
                    bytes(forged),
                    value_record("another", who=identity(5)).blob,
                    value_record(who=identity(5), seq=4).blob,
                    value_record(who=identity(5), seq=7, expires=NOW).blob,
                ]
            )
        ]
        assert [type(answer) for answer in answers] == [Noted, Refused, Refused, Noted, Refused]
        assert heard.changes == [KeyChange.RECORD]
        assert heard.watch.record == record
        # What is true may come from anybody.
        newer = value_record(who=identity(5), seq=8)
        await stranger.asks(watcher, Notify(0, b"12345678", 1, record.key, newer.blob))
        assert heard.watch.record == newer
        unasked = await stranger.asks(watcher, Notify(0, b"12345679", 1, bytes(20), newer.blob))
        assert isinstance(unasked, Noted)
        assert unasked.outcome == NoteOutcome.NOT_WATCHED
    await close(*nodes)


@virtual
async def test_what_a_lookup_finds_is_heard_too() -> None:
    world = World()
    nodes = await start_nodes(world, 8)
    record = value_record(who=identity(5))
    async with listening(nodes[2], record.key) as heard:
        for node in nodes:
            if node.watchers:
                node.shared.store.on_change = None  # it pushes nothing
                node.shared.store.keep(record, node.shared.wall())
        await asyncio.sleep(1)
        assert heard.events == []
        await nodes[2].find(record.key)
        await asyncio.sleep(0.1)
        assert [event.record for _, event in heard.events] == [record]
    await close(*nodes)


@virtual
async def test_what_a_lookup_finds_behind_its_first_answer_is_heard_too() -> None:
    nodes = await start_nodes(World(), 12)
    older, newer = (value_record(who=identity(5), seq=seq) for seq in (5, 6))
    async with listening(nodes[2], older.key) as heard:
        holders = [node for node in nodes if node.watchers]
        for node in holders:
            node.shared.store.on_change = None
            node.shared.store.keep(older, node.shared.wall())
        target = int.from_bytes(older.key, "big")
        holders.sort(key=lambda node: int.from_bytes(node.shared.node_key.id, "big") ^ target)
        holders[1].shared.store.keep(newer, NOW)  # two are asked at once, and this one answers second
        found = await nodes[2].find(older.key)
        assert found.record == older
        await asyncio.sleep(0.5)
        assert [event.record for _, event in heard.events] == [older, newer]
    await close(*nodes)


@virtual
async def test_what_is_there_is_heard_before_its_nodes_have_been_asked() -> None:
    nodes = await start_nodes(World(latency_s=0.05), 20)
    await nodes[3].set("name", 1)
    watch = next(node for node in nodes if not node.shared.store.count).watch(key_of(nodes[3]))
    began = asyncio.get_running_loop().time()
    heard = Listener(watch)
    await watch.start()
    settled_s = asyncio.get_running_loop().time() - began
    await heard.hears(1, 0.0)
    # The first answer brings it; the nearest have yet to be found, and then to be asked.
    assert heard.events[0][0] - began == pytest.approx(0.1)
    assert settled_s >= 0.29
    await heard.end()
    await close(*nodes)


@virtual
async def test_a_node_hears_of_its_own_records_and_of_those_it_holds() -> None:
    node = await start_node(World())
    await node.set("name", 1)
    async with listening(node, key_of(node)) as heard:
        await heard.hears(1, SOON_S)
        await node.set("name", 2)
        await heard.hears(2, SOON_S)
        node.shared.store.keep(value_record(who=node.identity, seq=1 << 60, value=b"\3"), NOW)
        await heard.hears(3, SOON_S)
    await close(node)


# --- readers ---


@virtual
async def test_a_slow_reader_sees_the_newest() -> None:
    nodes = await start_nodes(World(), 8)
    async with nodes[5].watch(key_of(nodes[1])) as watch:
        for value in range(1, 6):
            await nodes[1].set("name", value)
            await asyncio.sleep(1)
        event = await anext(watch)
        assert isinstance(event.record, ValueRecord)
        assert event.record.value == b"\5"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 100)
    await close(*nodes)


@virtual
async def test_several_watches_of_one_key_share_one_and_the_last_ends_it() -> None:
    nodes = await start_nodes(World(), 12)
    watcher, key = nodes[9], key_of(nodes[3])
    async with listening(watcher, key) as first:
        sent = watcher.counters["dht.watches_sent"]
        async with listening(watcher, key) as second:
            assert watcher.counters["dht.watches_sent"] == sent
            await nodes[3].set("name", 1)
            await first.hears(1, SOON_S)
            await second.hears(1, SOON_S)
        await asyncio.sleep(1)
        assert watches_at(nodes) == 4
        async with listening(watcher, key) as late:
            await late.hears(1, 0.0)
    await asyncio.sleep(1)
    assert watches_at(nodes) == 0
    await close(*nodes)


@virtual
async def test_a_watch_ends_with_its_node_and_tells_those_who_had_it() -> None:
    nodes = await start_nodes(World(), 8)
    watch = nodes[5].watch(key_of(nodes[1]))
    await watch.start()
    reading = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(1)
    assert watches_at(nodes) == 4
    await nodes[5].aclose()
    with pytest.raises(StopAsyncIteration):
        await reading
    await watch.aclose()
    await asyncio.sleep(1)
    assert watches_at(nodes) == 0
    # Nothing begins on a node that has ended.
    late = nodes[5].watch(key_of(nodes[1]))
    await late.start()
    with pytest.raises(StopAsyncIteration):
        await anext(late)
    await close(*nodes)


@virtual
async def test_a_watch_that_was_closed_begins_no_more() -> None:
    node = await start_node(World())
    watch = node.watch(bytes(20))
    await watch.aclose()
    await watch.start()
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    await watch.aclose()
    await close(node)


@virtual
async def test_misuse_is_said() -> None:
    node = await start_node(World(), config=replace(CONFIG, max_watched=1))
    with pytest.raises(ValueError, match="20 bytes"):
        node.watch(b"short")
    async with node.watch(bytes(20)):
        over = node.watch(bytes([1] * 20))
        with pytest.raises(ValueError, match="at most 1 key"):
            await over.start()
        await over.aclose()
    await close(node)


@virtual
async def test_who_has_no_seat_may_watch() -> None:
    world = World()
    nodes = await start_nodes(world, 8)
    command = await start_node(world, via=nodes[0], no_seat=True, stores=False)
    async with listening(command, key_of(nodes[1])) as heard:
        await nodes[1].set("name", 1)
        await heard.hears(1, SOON_S)
        await asyncio.sleep(1000)
        await nodes[1].set("name", 2)
        await heard.hears(2, SOON_S)
    await close(command, *nodes)


# --- a network that changes ---


@virtual
async def test_a_watch_begun_before_the_node_knew_anybody_finds_its_place() -> None:
    world = World()
    nodes = await start_nodes(world, 8)
    lonely = await start_node(world)
    async with listening(lonely, key_of(nodes[1])) as heard:
        await asyncio.sleep(100)
        await lonely.bootstrap([way_in(nodes[0])])
        await asyncio.sleep(CONFIG.watch_retry_max_s * 1.1 + 1)
        assert heard.watch.holders == 4
        await nodes[1].set("name", 1)
        await heard.hears(1, SOON_S)
    await close(lonely, *nodes)


@virtual
async def test_holders_that_die_are_replaced_within_a_renewal() -> None:
    world = World()
    nodes = await start_nodes(world, 20)
    owner, watcher = nodes[3], nodes[9]
    await owner.set("name", 1)
    async with listening(watcher, key_of(owner)) as heard:
        await asyncio.sleep(60)
        dead = [node for node in nodes if node.watchers and node not in (owner, watcher)]
        assert len(dead) >= 3
        for node in dead:
            world.crash(node.shared.host)  # type: ignore[arg-type]
        await owner.set("name", 2)
        # Nobody is left who would push it: the renewals find out.
        await heard.hears(2, RENEWAL_S + 15)
        await asyncio.sleep(RENEWAL_S)
        assert sum(node.watchers for node in nodes if node not in dead) == 4
        await owner.set("name", 3)
        await heard.hears(3, SOON_S)
    await close(*nodes)


@virtual
async def test_a_holder_that_was_restarted_is_told_again_and_gives_what_was_missed() -> None:
    world = World()
    owner = await start_node(world)
    holder = await start_node(world, via=owner, node_key=node_key(2))
    watcher = await start_node(world, via=owner, no_seat=True, stores=False)
    async with listening(watcher, key_of(owner)) as heard:
        assert holder.watchers == 1
        host, port = holder.shared.host, holder.addresses[0].port
        assert isinstance(host, VirtualHost)
        await holder.aclose()
        world.crash(host)
        again = DhtNode(host=world.restart(host), network=LOCAL, node_key=node_key(2))
        await again.listen(port)
        await again.bootstrap([way_in(owner)])
        # The owner cannot push either: only by its answer to a renewal can the watcher hear.
        owner.shared.store.on_change = None
        again.shared.store.on_change = None
        await owner.set("name", 1)
        assert heard.values == []
        await heard.hears(1, RENEWAL_S)
        assert again.watchers == 1
        assert watcher.counters["dht.push_missed"] >= 1
    await close(watcher, owner, again)


@virtual
async def test_nodes_that_come_nearer_take_over() -> None:
    world = World()
    nodes = await start_nodes(world, 6)
    owner, watcher = nodes[1], nodes[4]
    key = key_of(owner)
    await owner.set("name", 1)
    async with listening(watcher, key) as heard:
        nodes += [await start_node(world, via=nodes[0]) for _ in range(14)]
        await asyncio.sleep(CONFIG.watch_lease_s + 30)
        target = int.from_bytes(key, "big")
        others = sorted(
            (node for node in nodes if node is not watcher),
            key=lambda node: int.from_bytes(node.shared.node_key.id, "big") ^ target,
        )
        assert [node.watchers for node in others[:4]] == [1] * 4
        assert watches_at(others[4:]) == 0
        await owner.set("name", 2)
        await heard.hears(2, SOON_S)
    await close(*nodes)


@virtual
async def test_after_a_partition_heals_what_changed_is_heard() -> None:
    world = World()
    nodes = await start_nodes(world, 16)
    owner, watcher = nodes[3], nodes[9]
    await owner.set("name", 1)
    async with listening(watcher, key_of(owner)) as heard:
        await heard.hears(1, SOON_S)
        world.partition([[], [watcher.shared.host]])  # type: ignore[list-item]
        await owner.set("name", 2)
        await asyncio.sleep(400)
        assert heard.values == [1]
        world.heal()
        await heard.hears(2, CONFIG.watch_retry_max_s * 1.1 + 15)
        await owner.set("name", 3)
        await heard.hears(3, SOON_S)
    await close(*nodes)


@virtual
async def test_with_five_percent_loss_every_change_is_heard_soon() -> None:
    world = World(seed=3)
    nodes = await start_nodes(world, 12)
    owner, watcher = nodes[3], nodes[9]
    world.loss = 0.05
    delays = []
    async with listening(watcher, key_of(owner)) as heard:
        for value in range(1, 41):
            publishing = asyncio.ensure_future(owner.set("name", value))
            delays.append(await heard.hears(value, RENEWAL_S))
            await publishing
            await asyncio.sleep(20)
    assert sorted(delays)[len(delays) * 9 // 10] < 2.0
    world.loss = 0.0
    await close(*nodes)


@virtual
async def test_a_node_that_withholds_is_found_out_by_the_lookup_of_each_lease() -> None:
    world = World()
    nodes = await start_nodes(world, 12)
    owner, watcher = nodes[3], nodes[9]
    async with listening(watcher, key_of(owner)) as heard:
        hostile = [node for node in nodes if node.watchers]
        for node in hostile:
            node.servers[node.addresses[0].family].protocol.operations.on_watch = None
            node.shared.store.on_change = None
        await owner.set("name", 1)
        await heard.hears(1, CONFIG.watch_lease_s + 15)
    await close(*nodes)


# --- cost ---


@virtual
async def test_many_watches_at_rest_cost_few_datagrams_and_a_change_costs_its_watchers() -> None:
    world = World()
    nodes = await start_nodes(world, 6)
    watcher, owners = nodes[0], nodes[1:]
    keys = [key_of(owner, f"{number}") for owner in owners for number in range(64)]
    watches = [watcher.watch(key) for key in keys]
    await asyncio.gather(*(watch.start() for watch in watches))
    await asyncio.sleep(CONFIG.watch_lease_s)
    assert watches_at(nodes) == 4 * len(keys)
    before = watcher.counters.copy()
    await asyncio.sleep(CONFIG.watch_lease_s)
    spent = watcher.counters - before
    # 256 keys at each of five others, 32 in a request, renewed three times; one key in ten has moved meanwhile.
    assert spent["dht.watches_sent"] <= 3.4 * 5 * (320 * 4 / 5 / 32 + 1)
    assert spent["dht.watch_lookups"] <= 1.3 * len(keys)
    before = sum((node.counters for node in nodes[1:]), start=type(watcher.counters)())
    await owners[0].set("1", 1)
    await asyncio.sleep(1)
    after = sum((node.counters for node in nodes[1:]), start=type(watcher.counters)())
    assert (after - before)["dht.notified"] == 4
    for watch in watches:
        await watch.aclose()
    await close(*nodes)


# --- behind a NAT ---


class Nat:
    """A `DatagramNet` behind a NAT that lets in only answers: from where something was sent in the last 30 s."""

    def __init__(self, host: VirtualHost) -> None:
        self._net = host.datagrams
        self.refused = 0
        self._sent: dict[Address, float] = {}
        host.datagrams = self

    def open(self, bind: Address, on_datagram: OnDatagram) -> DatagramSocket:
        def hears(data: bytes, source: Address) -> None:
            now = asyncio.get_running_loop().time()
            if now - self._sent.get(source, -100.0) < 30:
                on_datagram(data, source)
            else:
                self.refused += 1

        return _SocketBehindNat(self._net.open(bind, hears), self._sent)


class _SocketBehindNat:
    def __init__(self, socket: DatagramSocket, sent: dict[Address, float]) -> None:
        self.address = socket.address
        self.close = socket.close
        self._socket = socket
        self._sent = sent

    def send(self, data: bytes, to: Address) -> None:
        self._sent[to] = asyncio.get_running_loop().time()
        self._socket.send(data, to)


async def start_behind_nat(world: World, via: DhtNode, **details: Any) -> tuple[DhtNode, Nat]:
    host = world.host(public_ip(200))
    nat = Nat(host)
    return await start_node(world, PUBLIC, host=host, via=via, **details), nat


@pytest.mark.parametrize("keeps_open", [True, False])
def test_behind_a_nat_changes_are_heard_at_once_because_the_way_is_kept_open(keeps_open: bool) -> None:
    @virtual
    async def run() -> None:
        world = World()
        nodes = await start_nodes(world, 10, PUBLIC)
        config = CONFIG if keeps_open else replace(CONFIG, keep_alive_s=10_000.0)
        watcher, nat = await start_behind_nat(world, nodes[0], config=config)
        owner = nodes[3]
        delays = []
        async with listening(watcher, key_of(owner)) as heard:
            for value in range(1, 9):
                await asyncio.sleep(70)
                await owner.set("name", value)
                delays.append(await heard.hears(value, RENEWAL_S + 20))
        assert nat.refused or keeps_open
        if keeps_open:
            assert max(delays) < SOON_S
            assert watcher.counters["dht.keep_alives"] > 0
        else:
            assert max(delays) > 10
            assert watcher.counters["dht.push_missed"] > 0
        await close(watcher, *nodes)

    run()


@virtual
async def test_who_is_reached_by_strangers_sends_no_keep_alives() -> None:
    world = World()
    nodes = await start_nodes(world, 10, PUBLIC)
    watcher = nodes[4]
    async with listening(watcher, key_of(nodes[3])) as heard:
        await asyncio.sleep(60)
        await Stranger(world, network=PUBLIC, ip=public_ip(99)).asks(watcher, Notify(0, bytes(8), 1, bytes(20), b""))
        before = watcher.counters["dht.keep_alives"]
        await asyncio.sleep(500)
        assert watcher.counters["dht.keep_alives"] == before
        await nodes[3].set("name", 1)
        await heard.hears(1, SOON_S)
    await close(*nodes)
