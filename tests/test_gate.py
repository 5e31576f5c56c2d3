"""Who may ask how much: the machine alone, and in front of a node that is flooded."""

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import (
    LOCAL,
    PUBLIC,
    Stranger,
    close,
    contact_of,
    node_key,
    presence,
    public_ip,
    start_node,
    tap_of,
    virtual,
    way_in,
)

from atonce_sim.world import World
from dht_atonce.codec import encode
from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact, contact_at, share_contacts
from dht_atonce.dht.gate import Bucket, Buckets, Gate, TurnedAway, Verdict
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.protocol import Answer, SealedProtocol
from dht_atonce.dht.sealing import PacketType, key_request
from dht_atonce.dht.wire import FLAG_NO_SEAT, FindNode, Ping, Store
from dht_atonce.endpoints import Address, pack_address

ID = b"requestI"
REQUEST = PacketType.REQUEST
KEY, OTHER = node_key(1).public, node_key(2).public
HOME = pack_address(Address("51.0.0.1", 4000))
CONFIG = DhtConfig(
    requests_per_key_s=10,
    requests_per_key_burst=20,
    unproved_per_owner_s=4,
    unproved_per_owner_burst=8,
    new_keys_per_s=50,
    cookie_answers_per_s=30,
    key_answers_per_s=5,
)


def protocol(node: DhtNode) -> SealedProtocol:
    return next(iter(node.servers.values())).protocol


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def home(number: int, port: int = 4000) -> bytes:
    return pack_address(Address(public_ip(number), port))


# --- buckets ---

moments = st.lists(st.floats(0, 20), max_size=120).map(sorted)


@given(moments, st.integers(1, 20), st.integers(1, 10))
def test_in_no_span_does_more_pass_than_its_burst_and_its_rate_allow(
    times: list[float], per_s: int, burst: int
) -> None:
    bucket, buckets = Bucket(per_s, burst), Buckets[str](per_s, burst, 10)
    passed = [at for at in times if bucket.take(at)]
    assert [at for at in times if buckets.take("one", at)] == passed
    for first, begin in enumerate(passed):
        for count, end in enumerate(passed[first:], 1):
            assert count <= burst + per_s * (end - begin) + 0.011
    if times:
        assert len(passed) >= min(len(times), burst)


@given(st.integers(1, 20), st.integers(1, 10))
def test_what_is_within_the_rate_always_passes(per_s: int, burst: int) -> None:
    buckets = Buckets[str](per_s, burst, 10)
    for _ in range(burst):
        assert buckets.take("one", 0.0)
    for number in range(1, 50):
        assert buckets.take("one", number / per_s + 1e-6)


def test_buckets_are_kept_apart_and_bounded_and_full_ones_are_not_kept() -> None:
    buckets = Buckets[int](1, 2, 1000)
    for number in range(5000):
        assert buckets.take(number, 0.0)
    assert len(buckets) <= 1000
    assert buckets.take(4999, 0.0)
    assert not buckets.take(4999, 0.0)
    for number in range(5000, 5300):
        buckets.take(number, 100.0)
    assert len(buckets) <= 300


# --- verdicts ---


def test_a_known_key_has_a_rate_of_its_own_wherever_it_is() -> None:
    gate = Gate(CONFIG, local=False)
    for who in (KEY, OTHER):
        gate.on_proved(who, 0.0)
        verdicts = [gate.on_request(who, HOME, is_proved=True, now=0.0) for _ in range(25)]
        assert verdicts == [Verdict.PASS] * 20 + [Verdict.KEY_RATE] * 5
    assert gate.on_request(KEY, HOME, is_proved=True, now=0.1) is Verdict.PASS
    assert gate.on_request(KEY, HOME, is_proved=True, now=0.1) is Verdict.KEY_RATE


def test_a_key_is_known_for_one_to_two_epochs() -> None:
    gate = Gate(CONFIG, local=False)
    assert not gate.knows(KEY, 0.0)
    for now in (0.0, 119.0):
        gate.on_proved(KEY, now)
        assert gate.knows(KEY, now)
        assert gate.knows(KEY, now + 119.0)
        assert not gate.knows(OTHER, now)
    gate.on_proved(OTHER, 121.0)
    assert gate.knows(KEY, 239.0)
    assert not gate.knows(KEY, 241.0)


def test_who_writes_a_known_key_on_spoofed_packets_uses_up_nothing_of_its_owners() -> None:
    gate = Gate(CONFIG, local=False)
    gate.on_proved(KEY, 0.0)
    for number in range(1000):
        gate.on_request(KEY, home(number), is_proved=False, now=0.0)
        gate.on_request(KEY, HOME, is_proved=False, now=0.0)
    assert all(gate.on_request(KEY, HOME, is_proved=True, now=0.0) is Verdict.PASS for _ in range(20))


def test_beyond_their_limit_strangers_are_sent_cookies_and_beyond_another_nothing() -> None:
    gate = Gate(CONFIG, local=False)
    counted = Counter(gate.on_request(key(n), home(n), is_proved=False, now=0.0) for n in range(200))
    assert counted == {Verdict.PASS: 50, Verdict.COOKIE: 30, Verdict.COOKIE_RATE: 120}
    # Those who are known, or bring the cookie, pass all the same.
    gate.on_proved(KEY, 0.0)
    assert gate.on_request(KEY, HOME, is_proved=False, now=0.0) is Verdict.PASS
    assert gate.on_request(OTHER, HOME, is_proved=True, now=0.0) is Verdict.PASS


def test_who_was_turned_away_and_asks_again_has_a_cookie_before_those_who_come_once() -> None:
    gate = Gate(DhtConfig(new_keys_per_s=1, cookie_answers_per_s=100, second_tries_per_s=20), local=True)
    rng = random.Random(1)

    def flood(now: float) -> None:
        for _ in range(200):
            gate.on_request(rng.randbytes(32), rng.randbytes(6), is_proved=False, now=now)

    newcomers = [(key(number), home(number)) for number in range(10)]
    verdicts: list[list[Verdict]] = []
    for now in (0.0, 0.5):
        flood(now)
        verdicts.append([gate.on_request(*one, is_proved=False, now=now) for one in newcomers])
    assert verdicts == [[Verdict.COOKIE_RATE] * 10, [Verdict.COOKIE] * 10]
    # So it is for whoever could not even wait.
    assert [gate.on_crowded_out(home(99), now) for now in (0.5, 0.5)] == [Verdict.CROWD, Verdict.COOKIE]
    # They are as bounded as all else: whoever asks twice from each of many addresses gains no more than that.
    again = [(key(number), home(number)) for number in range(100, 150)]
    for _ in range(2):
        counted = Counter(gate.on_request(*one, is_proved=False, now=0.5) for one in again)
    assert counted == {Verdict.COOKIE: 9, Verdict.COOKIE_RATE: 41}


def test_who_was_turned_away_long_ago_is_forgotten() -> None:
    away = TurnedAway(2.0)
    assert [away.again(HOME, now) for now in (0.0, 1.9, 3.9, 5.9, 9.9)] == [False, True, True, True, False]
    rng = random.Random(2)
    for _ in range(15_000):
        away.again(rng.randbytes(6), 10.0)
    mistaken = sum(away.again(rng.randbytes(6), 10.0) for _ in range(1000))
    assert mistaken <= 40


def test_one_address_has_few_requests_without_a_cookie_and_an_office_behind_it_goes_on() -> None:
    gate = Gate(CONFIG, local=False)
    office = [home(7, port) for port in range(4000, 4030)]
    verdicts = [gate.on_request(key(n), at, is_proved=False, now=0.0) for n, at in enumerate(office)]
    assert verdicts == [Verdict.PASS] * 8 + [Verdict.COOKIE] * 22
    # With their cookies they come in, at the rate for new keys of one address, and then each has its own.
    now = 0.0
    for number, at in enumerate(office):
        while gate.on_request(key(number), at, is_proved=True, now=now) is not Verdict.PASS:
            now += 0.25
        gate.on_proved(key(number), now)
    assert now <= (30 - 8) / 4
    for number, at in enumerate(office):
        for _ in range(20):
            assert gate.on_request(key(number), at, is_proved=True, now=now) is Verdict.PASS


def test_one_owner_has_a_whole_64_of_ipv6() -> None:
    gate = Gate(CONFIG, local=False)
    near = [pack_address(Address(f"2a00:1::{n:x}", 4000)) for n in range(20)]
    far = [pack_address(Address(f"2a00:1:0:{n:x}::1", 4000)) for n in range(1, 21)]
    assert Counter(gate.on_request(key(1), at, is_proved=False, now=0.0) for at in near)[Verdict.PASS] == 8
    assert Counter(gate.on_request(key(1), at, is_proved=False, now=0.0) for at in far)[Verdict.PASS] == 20


def test_new_keys_from_proved_addresses_are_limited_by_owner_and_in_all() -> None:
    gate = Gate(CONFIG, local=False)
    one = [gate.on_request(key(n), HOME, is_proved=True, now=0.0) for n in range(20)]
    assert one == [Verdict.PASS] * 8 + [Verdict.NEW_RATE] * 12
    many = Counter(gate.on_request(key(n), home(n), is_proved=True, now=0.0) for n in range(1, 200))
    assert many == {Verdict.PASS: 42, Verdict.NEW_RATE: 157}


def test_on_one_machine_many_share_an_address() -> None:
    gate = Gate(CONFIG, local=True)
    for number in range(40):
        assert gate.on_request(key(number), HOME, is_proved=False, now=0.0) is Verdict.PASS
        assert gate.on_request(key(number), HOME, is_proved=True, now=0.0) is Verdict.PASS


def test_a_key_is_known_for_one_to_two_epochs_and_only_so_many_are() -> None:
    gate = Gate(DhtConfig(new_keys_per_s=1, max_pair_keys=100), local=True)

    def is_known(who: bytes, now: float) -> bool:
        gate.on_request(OTHER, HOME, is_proved=False, now=now)  # uses up what there is for those who are not
        return gate.on_request(who, HOME, is_proved=False, now=now) is Verdict.PASS

    gate.on_proved(KEY, 0.0)
    gate.on_proved(key(1), 119.0)
    assert is_known(KEY, 119.0)
    gate.on_proved(key(2), 121.0)
    gate.on_proved(key(3), 241.0)
    assert not is_known(KEY, 242.0)
    for number in range(1000):
        gate.on_proved(key(number), 242.0)
    assert sum(is_known(key(number), 242.0) for number in range(1000)) <= 100
    assert is_known(key(999), 242.0)


def test_key_requests_are_limited_by_owner_and_in_all() -> None:
    gate = Gate(CONFIG, local=False)
    verdicts = [gate.on_key_request(home(number), 0.0) for number in range(10)]
    assert verdicts == [Verdict.PASS] * 5 + [Verdict.PLAIN_RATE] * 5
    gate = Gate(DhtConfig(unproved_per_owner_burst=3), local=False)
    assert [gate.on_key_request(HOME, 0.0) for _ in range(4)] == [Verdict.PASS] * 3 + [Verdict.PLAIN_RATE]


# --- a node in a flood ---

FLOODED = DhtConfig(new_keys_per_s=2)


async def flood(world: World, node: DhtNode, count: int, *, seals: bool = False) -> list[Stranger]:
    """As many strangers send a request each; their boxes are sealed, or noise."""
    rng, strangers = random.Random(1), []
    for number in range(count):
        stranger = Stranger(world, 2000 + number, node.shared.network, ip=public_ip(2000 + number))
        strangers.append(stranger)
        if seals:
            stranger.ask(node, Ping(0, ID, 0))
        else:
            stranger.send(b"\x01\x01" + rng.randbytes(409), node.addresses[0])
    await asyncio.sleep(0.06)
    return strangers


async def asked(node: DhtNode, to: Contact, request: Ping | FindNode | Store) -> Answer | None:
    heard: list[Answer | None] = []
    protocol(node).ask(to, request, heard.append)
    await asyncio.sleep(1)
    assert len(heard) == 1
    return heard[0]


@virtual
async def test_in_a_flood_a_newcomer_pays_one_round_trip_more_and_then_none() -> None:
    world = World(latency_s=0.025)
    node = await start_node(world, PUBLIC, ip=public_ip(1), config=FLOODED)
    alice = await start_node(world, PUBLIC, ip=public_ip(2), tap=True)
    strangers = await flood(world, node, 20)
    assert [len(stranger.heard) for stranger in strangers] == [0, 0] + [1] * 18
    assert {len(data) for stranger in strangers for data, _ in stranger.heard} == {42}
    began = world.loop.time()
    done = list[float]()
    protocol(alice).ask(contact_of(node), FindNode(0, ID, 0, bytes(20), 0), lambda _: done.append(world.loop.time()))
    await asyncio.sleep(0.5)
    assert done == [pytest.approx(began + 0.1)]
    assert [(data[1], len(data)) for _, data, _ in tap_of(alice).sent] == [(0x01, 411), (0x81, 130)]
    # What came unsealed is remembered, since a sealed answer bore it out.
    await flood(world, node, 20)
    assert await asked(alice, contact_of(node), Ping(0, ID, 0)) is not None
    assert tap_of(alice).sent[2][1][58:74] == tap_of(alice).sent[1][1][58:74]
    assert alice.counters["dht.asked_for_cookie"] == 1
    assert alice.counters["dht.resent"] == 0
    await close(node, alice)


@virtual
async def test_what_the_gate_keeps_out_costs_no_public_key_operation_and_is_counted() -> None:
    world = World()
    node = await start_node(world, PUBLIC, ip=public_ip(1), config=DhtConfig(new_keys_per_s=2, cookie_answers_per_s=5))
    await flood(world, node, 20)
    assert node.counters["dht.unreadable"] == 2
    assert node.counters["dht.cookies"] == 5
    assert node.counters["dht.over_cookie_rate"] == 13
    await close(node)


@virtual
async def test_a_store_in_a_flood_is_proved_by_the_cookie_that_came_unsealed() -> None:
    world = World()
    node = await start_node(world, PUBLIC, ip=public_ip(1), config=FLOODED)
    alice = await start_node(world, PUBLIC, ip=public_ip(2), tap=True)
    await flood(world, node, 5)
    record = presence(network=PUBLIC)
    assert await asked(alice, contact_of(node), Store(0, ID, 0, record.blob)) is not None
    assert node.shared.store.get(record.key) == record
    assert len(tap_of(alice).sent) == 2
    await close(node, alice)


@virtual
async def test_a_cookie_counts_only_from_whom_we_asked_for_what_we_asked_and_once() -> None:
    world = World()
    node = await start_node(world, LOCAL, tap=True)
    asked_one, thief = Stranger(world), Stranger(world, 1001)
    heard: list[Answer | None] = []
    protocol(node).ask(asked_one.contact, Ping(0, ID, 0), heard.append)
    await asyncio.sleep(0.1)
    nonce = asked_one.heard[0][0][34:58]

    def cookie_for(nonce: bytes, cookie: bytes = b"c" * 16) -> bytes:
        return b"\x01\x05" + nonce + cookie

    thief.send(cookie_for(nonce), node.addresses[0])
    asked_one.send(cookie_for(bytes(24)), node.addresses[0])
    asked_one.send(cookie_for(nonce) + b"\0", node.addresses[0])
    asked_one.send(cookie_for(nonce)[:-1], node.addresses[0])
    await asyncio.sleep(0.1)
    assert len(tap_of(node).sent) == 1
    assert node.counters["dht.unasked"] == 2
    assert node.counters["dht.unreadable"] == node.counters["dht.short"] == 1
    asked_one.send(cookie_for(nonce), node.addresses[0])
    asked_one.send(cookie_for(nonce), node.addresses[0])  # that nonce is no longer outstanding
    await asyncio.sleep(0.1)
    assert len(tap_of(node).sent) == 2
    again = tap_of(node).sent[1][1]
    assert (again[1], again[58:74]) == (0x81, b"c" * 16)
    asked_one.send(cookie_for(again[34:58]), node.addresses[0])
    await asyncio.sleep(0.1)
    assert len(tap_of(node).sent) == 2
    assert node.counters["dht.cookie_refused"] == 1
    await asyncio.sleep(10)
    assert heard == [None]
    # Nobody sealed an answer to it: it is not used again.
    assert node.shared.known.cookie(asked_one.contact, node.shared.now()) == b""
    asked_one.send(cookie_for(again[34:58]), node.addresses[0])
    await asyncio.sleep(0.1)
    assert node.counters["dht.unasked"] == 4
    await close(node)


@virtual
async def test_a_reply_that_nobody_waits_for_is_not_even_opened() -> None:
    world = World()
    node = await start_node(world, LOCAL)
    opened: list[bytes] = []
    sealer_body = node.shared.sealer.body

    class Watching:
        seal = node.shared.sealer.seal

        def body(self, data: bytes, kind: int, sender: bytes) -> bytes:
            opened.append(data)
            return sealer_body(data, kind, sender)

    node.shared.sealer = Watching()  # type: ignore[assignment]
    silent, thief = Stranger(world), Stranger(world, 1001)
    protocol(node).ask(silent.contact, Ping(0, ID, 0), lambda _: None)
    packet = b"\x01\x02" + silent.node_key.public + bytes(60)
    thief.send(packet, node.addresses[0])
    silent.send(b"\x01\x02" + thief.node_key.public + bytes(60), node.addresses[0])
    await asyncio.sleep(0.1)
    assert opened == []
    silent.send(packet, node.addresses[0])
    await asyncio.sleep(10)
    assert opened == [packet]
    silent.send(packet, node.addresses[0])
    await asyncio.sleep(0.1)
    assert opened == [packet]
    assert node.counters["dht.unasked"] == 3
    await close(node)


# --- what a flood must not push out ---


@virtual
async def test_keys_that_anybody_may_write_push_out_nothing_that_is_in_use() -> None:
    world = World()
    config = DhtConfig(max_pair_keys=20, max_known_addresses=20)
    node = await start_node(world, PUBLIC, ip=public_ip(1), config=config)
    alice = await start_node(world, PUBLIC, ip=public_ip(2), via=node)
    await asked(alice, contact_of(node), Ping(0, ID, 0))
    await asked(node, contact_of(alice), Ping(0, ID, 0))
    before = (len(node.shared.known), node.known_nodes)
    cookie = node.shared.known.cookie(contact_of(alice), node.shared.now())
    share_contacts(20)
    known = contact_at(alice.shared.node_key.public, alice.addresses[0])
    for number in range(60):
        stranger = Stranger(world, 2000 + number, PUBLIC, ip=public_ip(2000 + number))
        stranger.send(b"\x01\x01" + stranger.node_key.public + bytes(400), node.addresses[0])  # opens for nobody
        stranger.ask(node, Ping(0, ID, 0))  # opens, and proves no address
    await asyncio.sleep(0.1)
    assert contact_at(alice.shared.node_key.public, alice.addresses[0]) is known
    share_contacts(1 << 16)
    assert node.counters["dht.unreadable"] == 60
    assert (len(node.shared.known), node.known_nodes) == before
    assert node.shared.known.cookie(contact_of(alice), node.shared.now()) == cookie != b""
    now = node.shared.now()
    for _ in range(2 * config.new_keys_per_s):  # nothing is left for those who are not known
        node.shared.gate.on_request(node_key(9).public, home(9), is_proved=False, now=now)
    passes = node.shared.gate.on_request(
        alice.shared.node_key.public, pack_address(alice.addresses[0]), is_proved=False, now=now
    )
    assert passes is Verdict.PASS
    await close(node, alice)


@virtual
async def test_key_requests_beyond_their_rate_get_no_answer() -> None:
    world = World()
    node = await start_node(world, LOCAL, config=DhtConfig(key_answers_per_s=3))
    stranger = Stranger(world)
    for _ in range(10):
        stranger.send(key_request(bytes(24), LOCAL.network_id), node.addresses[0])
    await asyncio.sleep(1)
    assert len(stranger.heard) == 3
    assert node.counters["dht.over_plain_rate"] == 7
    joining = await start_node(world, LOCAL)
    assert await joining.bootstrap([way_in(node)[:2]]) == 1
    await close(node, joining)


@virtual
async def test_whoever_has_a_cookie_is_served_before_a_crowd_of_strangers() -> None:
    world = World()
    node, known, stranger = await start_node(world), Stranger(world, 1), Stranger(world, 2)
    reply = await known.asks(node, Ping(0, ID, FLAG_NO_SEAT))
    assert reply is not None
    served: list[bytes] = []
    protocol(node).on_request = lambda sender, *_: served.append(sender.key)
    hears, request = protocol(node).datagram_received, encode(Ping(0, ID, FLAG_NO_SEAT))
    key = node.shared.node_key.public

    def crowd(number: int) -> None:
        sealed = stranger.sealer.seal(REQUEST, key, request, number.to_bytes(24, "big"))
        hears(sealed, Address(public_ip(number), 4000))

    # All of it in one turn of the loop, the known one last.
    for number in range(300):
        crowd(number)
    hears(known.sealer.seal(REQUEST, key, request, bytes(24), reply.cookie), known.address)
    assert served == [stranger.node_key.public] * 16 + [known.node_key.public]
    await asyncio.sleep(0)
    assert len(served) == 2 * 16 + 1
    await asyncio.sleep(1)
    assert len(served) == 16 + 1 + 256  # as many as can wait
    assert node.counters["dht.over_waiting"] == 300 - 16 - 256
    assert node.counters["dht.cookies"] == 0
    # Nobody who waits is served after the end.
    for number in range(300):
        crowd(number)
    await close(node)
    await asyncio.sleep(1)
    assert len(served) == 16 + 1 + 256 + 16


@virtual
async def test_of_a_crowd_is_read_what_has_a_proof_or_is_waited_for_then_who_asks_again() -> None:
    world = World()
    node, known, stranger = await start_node(world), Stranger(world, 1), Stranger(world, 2)
    reply = await known.asks(node, Ping(0, ID, FLAG_NO_SEAT))
    assert reply is not None
    asked = contact_of(await start_node(world))
    protocol(node).ping(asked, lambda _: None)
    key, request = node.shared.node_key.public, encode(Ping(0, ID, FLAG_NO_SEAT))
    spoofed = stranger.sealer.seal(REQUEST, key, request, bytes(24))
    proved = known.sealer.seal(REQUEST, key, request, bytes(24), reply.cookie)

    def head(kind: int, sender: bytes) -> bytes:
        return bytes((1, kind)) + sender

    crowd = [(spoofed[:34], pack_address(Address(public_ip(number), 4000))) for number in range(300)]
    crowd += [(proved[:34], pack_address(known.address)), (head(2, asked.key), asked.packed[32:])]
    crowd += [(head(2, asked.key), HOME), (head(2, OTHER), asked.packed[32:]), (head(4, OTHER), HOME)]
    before = Counter(node.counters)
    chosen = protocol(node).sift([one for one, _ in crowd], [place for _, place in crowd], [100] * len(crowd))
    # First what is known: a cookie, the answer to our ping, and a KEY reply, which nobody can tell yet.
    assert chosen == [300, 301, 304, *range(256 + 16)]
    assert Counter(node.counters) - before == {
        "dht.received": 30,
        "dht.received_bytes": 3000,
        "dht.unasked": 2,
        "dht.over_waiting": 28,
    }
    # What is shorter than a head has another's bytes behind it: it is judged where everything is.
    assert protocol(node).sift([spoofed[:34]] * 2, [HOME] * 2, [33, 0]) == [0, 1]
    # As many wait as can, and one of those who had to go comes again: it is read, and gets a cookie.
    for number in range(16 + 256):
        protocol(node).datagram_received(spoofed, Address(public_ip(number), 4000))
    assert protocol(node).sift([spoofed[:34]] * 2, [HOME] * 2, [34, 33]) == [1]  # there is no room for a whole one
    assert protocol(node).sift(*zip(*[(*crowd[271], 100), (*crowd[299], 100)], strict=True)) == [1]  # type: ignore[arg-type]
    protocol(node).datagram_received(spoofed, Address(public_ip(299), 4000))
    assert node.counters["dht.cookies"] == 1
    await close(node)


@virtual
async def test_a_whole_network_grows_and_publishes_without_anybody_being_throttled() -> None:
    world = World()
    nodes = [await start_node(world, PUBLIC, ip=public_ip(1))]
    for number in range(2, 16):
        nodes.append(await start_node(world, PUBLIC, via=nodes[-1], ip=public_ip(number)))
    await asyncio.gather(*(nodes[3].set(f"{number}", number) for number in range(100)))
    assert all(await asyncio.gather(*(nodes[3].get(f"{number}", fresh=True) for number in range(1, 100))))
    reasons = {f"dht.{verdict.value}" for verdict in Verdict if verdict is not Verdict.PASS}
    assert not any(node.counters[reason] for node in nodes for reason in reasons)
    await close(*nodes)


@virtual
async def test_who_shows_a_cookie_and_takes_no_seat_is_known_too() -> None:
    world = World()
    node = await start_node(world, PUBLIC, ip=public_ip(1), config=DhtConfig(unproved_per_owner_burst=1))
    client = Stranger(world, 1000, PUBLIC, ip=public_ip(2))
    reply = await client.asks(node, Ping(0, ID, FLAG_NO_SEAT))
    assert reply is not None
    for _ in range(30):
        client.ask(node, Ping(0, ID, FLAG_NO_SEAT), reply.cookie)
    await asyncio.sleep(1)
    assert len(client.heard) == 31
    assert node.counters["dht.over_new_rate"] == 0
    await close(node)
