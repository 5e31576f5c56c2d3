"""Hostile peers really attack: against a node that lacks the defence each succeeds, and one that has it holds."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from support import NOW, Stranger, identity, presence, virtual

from atonce_sim.bystanders import Bystander
from atonce_sim.hostile.decoys import Decoys, nowhere
from atonce_sim.hostile.gang import Aim, Gang
from atonce_sim.hostile.kinds import (
    Blackhole,
    Eclipse,
    Flooder,
    Forger,
    Hoarder,
    Kind,
    Liar,
    Redirect,
    Reflector,
    Stuffer,
    Sybil,
    aims_of,
)
from atonce_sim.hostile.rogues import Puppet, RogueNode
from atonce_sim.hostile.underworld import plan_of
from atonce_sim.keyspace import as_long
from atonce_sim.node_residents import NodeResident
from atonce_sim.scenario_file import read_scenario
from atonce_sim.simulation import Options, simulate
from atonce_sim.world import World
from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.dht import protocol
from dht_atonce.dht.contact import unpack_contact
from dht_atonce.dht.wire import FindNode, FindValue, Found, Ping, Pong, Store, Stored, StoreOutcome
from dht_atonce.endpoints import Address, Family, is_acceptable
from dht_atonce.errors import RecordError
from dht_atonce.identity import NodeKey, PeerId, node_id
from dht_atonce.records import PresenceRecord, RecordParser

NETWORK = NetworkConfig(name="attacked", k=4)
"""Public: all limits are on."""
RID = b"request!"
OUTSIDER = Address("66.102.1.1", 4000)
TARGET = bytes(range(20))


class Village:
    """A few honest nodes, and a gang that has come in."""

    def __init__(self, kind: Kind, *, config: DhtConfig | None = None) -> None:
        self.world = World(1, public=True)
        self.honest: list[NodeResident] = []
        self.gang = Gang(self.world, NETWORK, random.Random(5))
        self.plan = plan_of(kind, self.gang)
        self.rogues: list[RogueNode] = []
        self._config = config

    async def settle(self, honest: int, rogues: int = 0, *, awake: bool = True) -> None:
        for _ in range(honest):
            resident = NodeResident(self.world, self.world.host(), NETWORK, config=self._config)
            await resident.start(self.honest[:3])
            self.honest.append(resident)
        self.gang.honest = self.honest
        for _ in range(rogues):
            rogue = RogueNode(self.gang, self.plan, self.world.host(), NodeKey.generate(self.gang.rng))
            await rogue.start(self.honest[:3])
            self.rogues.append(rogue)
            self.gang.admit(rogue)
        self.gang.is_awake = awake

    def stranger(self) -> Stranger:
        return Stranger(self.world, network=NETWORK, ip="77.1.1.1")

    async def ask(self, request: Any, of: RogueNode | None = None) -> Any:
        """What the first rogue (or another) answers to somebody who has a cookie."""
        stranger, rogue = self.stranger(), of or self.rogues[0]
        pong = await stranger.asks(rogue.running, Ping(0, RID, 0))
        cookie = pong.cookie if pong is not None else b""
        reply = await stranger.asks(rogue.running, request, cookie)
        stranger.close()
        return reply

    async def end(self) -> None:
        await self.gang.tasks.aclose()
        for resident in [*self.honest, *self.rogues]:
            await resident.aclose()


def contacts(found: Any) -> list[Any]:
    assert isinstance(found, Found)
    return [unpack_contact(raw, Family.IPV4, local=False) for raw in found.contacts]


def ids(rogues: Sequence[RogueNode | Puppet]) -> set[bytes]:
    return {rogue.node_id for rogue in rogues}


def of_business_to(rogue: RogueNode) -> PresenceRecord:
    """A record that an honest node in its place would answer with."""
    (server,) = rogue.running.servers.values()
    records = (presence(identity(number), network=NETWORK) for number in range(1, 100))
    own = as_long(rogue.node_id)
    return next(record for record in records if server.router.is_responsible(own, as_long(record.key)))


def find(key: bytes = TARGET) -> FindValue:
    return FindValue(0, RID, 0, key, 0)


# --- all of them ---


def test_what_each_kind_may_aim_at() -> None:
    assert aims_of(Sybil()) == ("key",)
    assert aims_of(Eclipse()) == ("victim",)
    assert aims_of(Liar()) == ("nobody", "key")


@virtual
async def test_until_they_wake_they_are_like_anybody() -> None:
    village = Village(Blackhole())
    await village.settle(6, 1, awake=False)
    record = of_business_to(village.rogues[0])
    assert isinstance(await village.ask(Store(0, RID, 0, record.blob)), Stored)
    found = await village.ask(find(record.key))
    assert found.record == record.blob
    assert {c.id for c in contacts(found)} <= {resident.node_id for resident in village.honest}
    village.gang.is_awake = True
    assert await village.ask(find(record.key)) is None
    await village.end()


def test_ids_of_nobody_are_nearer_than_those_of_a_network_and_lead_nowhere() -> None:
    decoys = Decoys(random.Random(1), local=False)
    others = [random.Random(number).randbytes(20) for number in range(1000)]
    nearest = sorted(as_long(other) ^ as_long(TARGET) for other in others)
    named = decoys.dead(TARGET, 8)
    assert len({raw[32:] for raw in named}) == 8
    distances = [as_long(node_id(raw[:32])) ^ as_long(TARGET) for raw in named]
    assert distances == sorted(distances)
    assert distances[0] < nearest[0]
    assert distances[7] < nearest[7]
    for local in (True, False):
        assert is_acceptable(nowhere(70_000, local=local), local=local)


# --- round a key, round a victim ---


@virtual
async def test_sybils_swallow_the_record_of_one_key_and_name_each_other_to_whoever_asks_for_it() -> None:
    village = Village(Sybil())
    await village.settle(6, 4)
    mine, other = presence(network=NETWORK), of_business_to(village.rogues[0])
    village.gang.aims = [Aim(mine.key, village.honest[0], 1 << 150)]
    for record in (mine, other):
        stored = await village.ask(Store(0, RID, 0, record.blob))
        assert isinstance(stored, Stored)
        assert stored.outcome == StoreOutcome.STORED
    censored, kept = await village.ask(find(mine.key)), await village.ask(find(other.key))
    assert censored.record == b""
    assert {c.id for c in contacts(censored)} == ids(village.rogues[1:])
    assert kept.record == other.blob
    assert not {c.id for c in contacts(kept)} <= ids(village.rogues)
    # Who looks for the neighbourhood of the key stays among them too.
    near = await village.ask(FindNode(0, RID, 0, mine.key, 0))
    assert {c.id for c in contacts(near)} == ids(village.rogues[1:])
    await village.end()


async def crowded(config: DhtConfig) -> int:
    """How many seats of a victim 120 ids of two subnets have, of all that it has."""
    village = Village(Eclipse(), config=config)
    await village.settle(4)
    gang, victim = village.gang, village.honest[0]
    gang.victims = [victim]
    hosts = [village.world.host(f"80.0.{number % 2}.{1 + number // 2}") for number in range(8)]
    puppets = [Puppet(gang, village.plan, hosts[n % 8], NodeKey.generate(gang.rng)) for n in range(120)]
    for puppet in puppets:
        gang.admit(puppet)
        gang.tasks.start(village.plan.act(puppet), "crowd")
    await asyncio.sleep(5)
    taken = sum(seated in ids(puppets) for seated, _ in victim.seats())
    for puppet in puppets:
        puppet.stop()
    await village.end()
    return taken


@virtual
async def test_a_crowd_gets_what_the_limits_per_subnet_leave_and_without_them_all_it_wants() -> None:
    assert await crowded(DhtConfig()) <= 2 * DhtConfig().table_seats_per_subnet
    assert await crowded(DhtConfig(bucket_seats_per_subnet=1000, table_seats_per_subnet=1000)) >= 20


@virtual
async def test_a_black_hole_answers_nothing_and_loses_its_seats_though_it_goes_on_asking() -> None:
    village = Village(Blackhole(knocks_s=30))
    await village.settle(6, 1)
    (hole,) = village.rogues
    assert await village.ask(Ping(0, RID, 0)) is None
    village.gang.tasks.start(village.plan.act(hole), "hole")
    victim = village.honest[0]
    assert hole.node_id in [seated for seated, _ in victim.seats()]
    victim.running.servers[Family.IPV4].protocol.ping(hole.contact, lambda _: None)
    await asyncio.sleep(120)
    for _ in range(10):
        assert hole.node_id not in [seated for seated, _ in victim.seats()]
        await asyncio.sleep(60)
    # It is asked now and then, and has its seat again as soon as it answers.
    village.gang.is_awake = False
    await asyncio.sleep(120)
    assert hole.node_id in [seated for seated, _ in victim.seats()]
    await village.end()


@virtual
async def test_a_black_hole_may_answer_pings_alone() -> None:
    village = Village(Blackhole(answers="pings"))
    await village.settle(4, 1)
    assert isinstance(await village.ask(Ping(0, RID, 0)), Pong)
    assert await village.ask(find()) is None
    await village.end()


# --- contacts ---


@virtual
async def test_each_lie_about_contacts() -> None:
    village = Village(Liar(names="dead", clock_s=3600))
    await village.settle(8, 3)
    honest = {resident.node_id: resident.contact.address for resident in village.honest}
    at = {resident.host.ip for resident in [*village.honest, *village.rogues]}
    record = of_business_to(village.rogues[0])
    assert isinstance(await village.ask(Store(0, RID, 0, record.blob)), Stored)

    dead = await village.ask(find(record.key))
    assert dead.record == b""
    assert not {c.id for c in contacts(dead)} & (honest.keys() | ids(village.rogues))
    assert not {c.ip for c in contacts(dead)} & at
    assert len(contacts(dead)) == 16
    assert dead.time_ms / 1000 > village.world.wall + 3500

    village.plan = village.rogues[0].plan = plan_of(Liar(names="moved"), village.gang)
    moved = contacts(await village.ask(find(record.key)))
    assert {c.id for c in moved} <= honest.keys() | ids(village.rogues)
    assert moved
    assert not {c.ip for c in moved} & at

    village.rogues[0].plan = plan_of(Liar(names="fellows"), village.gang)
    assert {c.id for c in contacts(await village.ask(find(record.key)))} == ids(village.rogues[1:])
    village.rogues[0].plan = plan_of(Liar(names="nothing"), village.gang)
    nothing = await village.ask(find(record.key))
    assert (nothing.contacts, nothing.record) == ([], b"")
    await village.end()


async def redirected(config: DhtConfig) -> int:
    """The most datagrams that one honest node sent to an outsider within ten seconds of searching."""
    village = Village(Redirect(), config=config)
    village.gang.outsider = OUTSIDER
    bystander = village.world.bystanders[OUTSIDER.ip] = Bystander()
    await village.settle(4, 3)
    for number in range(10):
        await village.honest[0].find(random.Random(number).randbytes(20), None)
    await village.end()
    return bystander.most


@virtual
async def test_an_outsider_hears_two_datagrams_and_without_a_budget_many() -> None:
    assert 0 < await redirected(DhtConfig()) <= 2
    assert await redirected(DhtConfig(unproved_datagrams=10_000)) > 10


# --- records ---


@virtual
async def test_each_forgery_is_refused_but_for_a_genuine_one_that_is_old() -> None:
    village = Village(Forger())
    await village.settle(4, 1)
    older, newer = presence(network=NETWORK, seq=1), presence(network=NETWORK, seq=2)
    for record in (older, newer):
        assert isinstance(await village.ask(Store(0, RID, 0, record.blob)), Stored)
    parser, reasons = RecordParser(NETWORK), dict[str, set[str]]()
    ways = ("tampered", "signed-by-us", "other-key", "old", "noise")
    for gives in ways:
        village.rogues[0].plan = plan_of(Forger(gives=gives), village.gang)
        for _ in range(20):
            blob = (await village.ask(find(newer.key))).record
            assert blob != newer.blob
            try:
                record = parser.parse(blob, NOW + village.world.loop.time())
                reason = f"seq {record.seq}" if record.key == newer.key else "other key"
            except RecordError as error:
                reason = error.reason
            reasons.setdefault(gives, set()).add(reason)
    assert reasons["signed-by-us"] == {"bad_signature"}
    assert reasons["other-key"] == {"other key"}
    assert reasons["old"] == {"seq 1"}
    assert not {"seq 1", "seq 2", "other key"} & (reasons["tampered"] | reasons["noise"])
    await village.end()


@pytest.mark.parametrize("checked", [True, False])
def test_without_the_check_of_signatures_a_forged_record_reaches_the_app(
    checked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not checked:
        monkeypatch.setattr(PeerId, "verify", lambda *_: True)

    @virtual
    async def main() -> None:
        village = Village(Forger(gives="tampered"))
        await village.settle(2, 6)
        owner, asker = village.honest
        await owner.update()
        forged = 0
        for _ in range(30):
            answer = (await asker.find(owner.key, owner, fresh=True)).answer
            forged += answer is not None and not answer.genuine
        assert (forged == 0) is checked
        await village.end()

    main()


@virtual
async def test_a_hoarder_says_stored_and_has_nothing_but_true_contacts() -> None:
    village = Village(Hoarder())
    await village.settle(8, 1)
    record = presence(network=NETWORK)
    stored = await village.ask(Store(0, RID, 0, record.blob))
    assert (stored.outcome, stored.record) == (StoreOutcome.STORED, b"")
    found = await village.ask(find(record.key))
    assert found.record == b""
    assert {c.id for c in contacts(found)} <= {resident.node_id for resident in village.honest}
    assert contacts(found)
    assert village.rogues[0].held() == []
    await village.end()


async def stuffed(**limits: int) -> list[int]:
    """How many honest records each store keeps that was filled with nearer ones."""
    village = Village(Stuffer(puts=60, per_s=100, nodes=2, grind=6), config=DhtConfig(max_records=20, **limits))
    await village.settle(4, 1)
    for resident in village.honest:
        await resident.update()
    village.gang.aims = [Aim(village.honest[0].key, village.honest[0], 1)]
    await village.plan.act(village.rogues[0])
    await asyncio.sleep(2)
    full = [resident.held() for resident in village.honest if len(resident.held()) == 20]
    owners = {resident.key for resident in village.honest}
    await village.end()
    return [sum(record.key in owners for record in held) for held in full]


@virtual
async def test_a_stuffer_gets_what_others_leave_and_without_that_limit_all() -> None:
    assert await stuffed(records_per_source=4) == [4, 4]  # two stores, and no more than that
    crowded_out = await stuffed(records_per_source=1000)
    assert len(crowded_out) == 2
    assert max(crowded_out) < 4


# --- floods ---


@pytest.mark.parametrize("source", ["spoofed", "own"])
@pytest.mark.parametrize("packets", ["noise", "sealed"])
@virtual
async def test_a_flood_reaches_its_victim(source: Any, packets: Any) -> None:
    village = Village(Flooder(per_s=500, for_s=0.5, source=source, packets=packets))
    await village.settle(1)
    (victim,) = village.honest
    village.gang.victims = [victim]
    before, heard = victim.running.counters.copy(), set[Address]()
    socket = village.world.sockets[victim.contact.address]
    hears = socket.on_datagram

    def listen(data: bytes, at: Address) -> None:
        heard.add(at)
        hears(data, at)

    socket.on_datagram = listen
    host = village.world.host()
    await village.plan.rage(host)
    await asyncio.sleep(1)
    after = victim.running.counters
    assert after["dht.received"] - before["dht.received"] == 250
    # Of noise from one address, only as many are opened as strangers at one address may send.
    over = 250 if source == "spoofed" else after["dht.unreadable"] - before["dht.unreadable"]
    assert packets == "sealed" or 0 < over <= 250
    assert after["dht.unreadable"] - before["dht.unreadable"] == (over if packets == "noise" else 0)
    assert len(heard) == (250 if source == "spoofed" else 1)
    assert (host.ip in {at.ip for at in heard}) is (source == "own")
    await village.end()


async def reflected() -> float:
    village = Village(Reflector(per_s=100, for_s=4))
    village.gang.outsider = OUTSIDER
    bystander = village.world.bystanders[OUTSIDER.ip] = Bystander()
    await village.settle(10)
    await village.plan.rage(village.world.host())
    await asyncio.sleep(1)
    await village.end()
    assert bystander.largest_ratio is not None
    return bystander.largest_ratio


@virtual
async def test_an_outsider_hears_three_times_what_was_said_in_its_name() -> None:
    assert 1 < await reflected() <= 3


@virtual
async def test_without_the_rule_it_hears_more() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "_UNPROVED_FACTOR", 100)
        assert await reflected() > 3


# --- whole runs ---

ALL = """
question = "Does it end well?"
level = "node"
[network]
local = false
k = 4
[world]
latency = { model = "uniform", low_ms = 5, high_ms = 65 }
[[steps]]
do = "join"
over_s = 10
INVADE
[[steps]]
do = "lookups"
name = "all"
per_peer = 3
over_s = 20
[[steps]]
do = "lookups"
of = "aimed"
per_peer = 1
over_s = 5
[[steps]]
do = "lookups"
by = "victims"
per_peer = 1
over_s = 5
"""
GANGS = (
    '"liar" }\nshare = 0.1',
    '"hoarder" }\nshare = 0.1',
    '"forger" }\nshare = 0.1',
    '"blackhole" }\nshare = 0.1\ndormant_s = 5',
    '"redirect" }\nshare = 0.1',
    '"sybil" }\ncount = 4\naim = "key"',
    '"eclipse" }\ncount = 10\naim = "victim"\nsubnets = 2',
    '"flooder", per_s = 100, for_s = 2 }\ncount = 1\naim = "victim"',
    '"reflector", per_s = 100, for_s = 2 }\ncount = 1',
    '"stuffer", puts = 20 }\ncount = 1\naim = "key"',
)


def test_a_world_with_all_kinds_is_replayed_by_its_seed_and_ends_cleanly() -> None:
    steps = (f'[[steps]]\ndo = "invade"\nover_s = 3\nwho = {{ kind = {gang}\n' for gang in GANGS)
    scenario = read_scenario(ALL.replace("INVADE", "".join(steps)), "all")
    one, two = (simulate(Options("all", "all", scenario, 10, seed=3, level="node")) for _ in range(2))
    assert one.summary.trace_digest == two.summary.trace_digest
    assert one.broken == []
    assert one.summary.lookups.wrong == 0
    # Only the honest are counted: those who were wanted to come.
    assert {sample.live for sample in one.samples} == {10}
