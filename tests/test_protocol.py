"""The sealed RPC: real nodes in conversation, and a stranger who says whatever he likes."""

import asyncio
import random
from collections import defaultdict
from dataclasses import replace
from itertools import islice
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import (
    LOCAL,
    NOW,
    PUBLIC,
    Stranger,
    close,
    contact,
    contact_at,
    contact_of,
    node_key,
    presence,
    public_ip,
    start_node,
    tap_of,
    value_record,
    virtual,
    way_in,
)

from atonce_sim.world import World
from dht_atonce.codec import encode
from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.dht.contact import Contact, pack_contact
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.protocol import Answer, SealedProtocol
from dht_atonce.dht.sealing import key_request
from dht_atonce.dht.wire import (
    FLAG_NO_SEAT,
    FindNode,
    FindValue,
    Found,
    NeedCookie,
    Ping,
    Pong,
    Refusal,
    Refused,
    Reply,
    Request,
    Store,
    Stored,
    StoreOutcome,
)
from dht_atonce.endpoints import Address, Family, pack_address
from dht_atonce.errors import PortInUse

ID = b"requestI"
TARGET = bytes(20)
HERE = pack_address(Address("10.0.0.1", 4000))


def protocol(node: DhtNode) -> SealedProtocol:
    return next(iter(node.servers.values())).protocol


def knows(node: DhtNode, who: DhtNode | Stranger) -> bool:
    """Whether `node` has a seat for it."""
    key = who.shared.node_key if isinstance(who, DhtNode) else who.node_key
    return protocol(node).router.seat_of(key.id) is not None


async def asked(node: DhtNode, to: Contact, request: Request) -> Answer | None:
    """What the node hears back; fails the test if it hears nothing at all, or twice."""
    heard: list[Answer | None] = []
    protocol(node).ask(to, request, heard.append)
    assert heard == []  # never from within `ask`
    await asyncio.sleep(10)
    assert len(heard) == 1
    return heard[0]


async def pinged(node: DhtNode, to: DhtNode | Stranger, request_id: bytes = ID) -> Answer | None:
    return await asked(node, contact_of(to) if isinstance(to, DhtNode) else to.contact, Ping(0, request_id, 0))


def head(request_id: bytes = ID, cookie: bytes = b"", flags: int = 0) -> tuple[int, bytes, int, bytes, bytes, int]:
    """The first fields of a reply."""
    return (0, request_id, flags, cookie, HERE, NOW * 1000)


async def proves(stranger: Stranger, node: DhtNode) -> bytes:
    """The stranger gets a cookie."""
    reply = await stranger.asks(node, Ping(0, ID, FLAG_NO_SEAT))
    assert reply is not None
    return reply.cookie


# --- two nodes ---


@virtual
async def test_a_question_and_its_answer() -> None:
    world = World(latency_s=0.025)
    alice, bob = await start_node(world), await start_node(world)
    answer = await pinged(alice, bob)
    assert answer is not None
    assert answer.rtt_s == pytest.approx(0.05)
    assert isinstance(answer.reply, Pong)
    assert answer.reply.you == pack_address(alice.addresses[0])
    assert answer.reply.time_ms == NOW * 1000 + 25
    assert protocol(alice)._outstanding == {}
    await close(alice, bob)


@virtual
async def test_a_seat_is_given_to_who_answers_and_to_who_shows_our_cookie() -> None:
    world = World()
    alice, bob = await start_node(world), await start_node(world)
    await pinged(alice, bob)
    assert knows(alice, bob)
    assert not knows(bob, alice)  # anybody may write any sender address on a packet
    await pinged(alice, bob)
    assert knows(bob, alice)
    await close(alice, bob)


@virtual
async def test_a_record_is_stored_though_no_cookie_was_there_yet() -> None:
    world = World()
    alice, bob = await start_node(world, tap=True), await start_node(world)
    record = presence()
    answer = await asked(alice, contact_of(bob), Store(0, ID, 0, record.blob))
    assert answer is not None
    assert isinstance(answer.reply, Stored)
    assert answer.reply.outcome == StoreOutcome.STORED
    assert bob.shared.store.get(record.key) == record
    # Once without, once with the cookie that came in the answer; the same request both times.
    assert [data[1] for _, data, _ in tap_of(alice).sent] == [0x01, 0x81]
    await close(alice, bob)


@virtual
@pytest.mark.parametrize(("later_s", "sent"), [(0.0, 1), (100.0, 1), (120.0, 2)])
async def test_who_answered_us_lately_may_store_with_us_without_a_cookie(later_s: float, sent: int) -> None:
    world, rare = World(), DhtConfig(young_check_s=900)  # nobody asks of his own accord whether the other is there
    alice, bob = await start_node(world, config=rare), await start_node(world, config=rare)
    await pinged(bob, alice)
    await asyncio.sleep(later_s - 10 if later_s else 0)  # `pinged` took ten
    record = value_record()
    before = alice.counters["dht.sent"] + alice.counters["dht.resent"]
    answer = await asked(alice, contact_of(bob), Store(0, ID, 0, record.blob))
    assert answer is not None
    assert isinstance(answer.reply, Stored)
    assert bob.counters["dht.answered"] == sent
    assert alice.counters["dht.sent"] - before == sent
    assert bob.shared.store.live(record.key, NOW) is not None
    await close(alice, bob)


@virtual
async def test_a_find_is_padded_until_there_is_a_cookie() -> None:
    world = World()
    alice, bob = await start_node(world, tap=True), await start_node(world)
    for _ in range(2):
        await asked(alice, contact_of(bob), FindNode(0, ID, 0, TARGET, 0))
    first, second = (data for _, data, _ in tap_of(alice).sent)
    assert (first[1], len(first)) == (0x01, 411)
    assert (second[1], len(second)) == (0x81, 130)
    await asyncio.sleep(120)
    await asked(alice, contact_of(bob), FindNode(0, ID, 0, TARGET, 0))
    assert len(tap_of(alice).sent[-1][1]) == 411
    await close(alice, bob)


@virtual
async def test_a_reply_brings_a_cookie_only_where_one_is_needed() -> None:
    world = World()
    node, stranger = await start_node(world), Stranger(world)
    cookie = await proves(stranger, node)
    assert len(cookie) == 16
    again = await stranger.asks(node, Ping(0, ID, 0), cookie)
    assert again is not None
    assert again.cookie == b""
    await asyncio.sleep(120)
    later = await stranger.asks(node, Ping(0, ID, 0), cookie)
    assert later is not None
    assert len(later.cookie) == 16
    assert later.cookie != cookie
    await close(node)


@virtual
async def test_a_port_that_is_taken_is_said() -> None:
    world = World()
    host = world.host()
    first = DhtNode(host=host, network=LOCAL)
    await first.listen(4000)
    second = DhtNode(host=host, network=LOCAL)
    with pytest.raises(PortInUse):
        await second.listen(4000)
    assert (await second.listen(4001)).port == 4001
    await close(first, second)


# --- replies that are none ---


@virtual
async def test_an_answer_counts_only_from_the_address_key_and_request_that_it_is_for() -> None:
    world = World()
    node = await start_node(world)
    asked_one, thief = Stranger(world), Stranger(world, 1001)
    elsewhere = Stranger(world)  # the same key at another address
    heard: list[Answer | None] = []
    protocol(node).ask(asked_one.contact, Ping(0, ID, 0), heard.append)
    await asyncio.sleep(0.1)
    elsewhere.reply(node, Pong(*head()))
    thief.reply(node, Pong(*head()))
    asked_one.reply(node, Pong(*head(b"another!")))
    await asyncio.sleep(0.1)
    assert heard == []
    assert node.counters["dht.unasked"] == 3
    assert node.known_nodes == 0
    asked_one.reply(node, Pong(*head()))
    asked_one.reply(node, Pong(*head()))
    await asyncio.sleep(0.1)
    assert len(heard) == 1
    assert heard[0] is not None
    assert node.counters["dht.unasked"] == 4
    await close(node)


PONG, FOUND = Pong(*head()), Found(*head(), [], [], b"")
STORED, REFUSED = Stored(*head(), 0, b""), Refused(*head(), Refusal.FULL)


@pytest.mark.parametrize(
    ("request_", "right"),
    [
        (Ping(0, ID, 0), [PONG, REFUSED]),
        (FindNode(0, ID, 0, TARGET, 0), [FOUND, REFUSED]),
        (FindValue(0, ID, 0, TARGET, 0), [FOUND, REFUSED]),
        (Store(0, ID, 0, presence().blob), [STORED, REFUSED]),
    ],
    ids=lambda value: type(value).__name__,
)
@virtual
async def test_a_reply_of_another_kind_is_no_answer(request_: Request, right: list[Reply]) -> None:
    world = World()
    for reply in (PONG, FOUND, STORED, REFUSED):
        node, stranger = await start_node(world), Stranger(world)
        stranger.answers = lambda _request, _source, reply=reply: reply
        answer = await asked(node, stranger.contact, request_)
        assert (answer is not None) == (reply in right)
        assert node.counters["dht.wrong_reply"] == (reply not in right)
        await close(node)
        stranger.close()


@virtual
async def test_somebody_who_always_wants_a_cookie_is_asked_twice() -> None:
    world = World()
    node, stranger = await start_node(world, tap=True), Stranger(world)
    stranger.answers = lambda _request, _source: NeedCookie(*head(cookie=b"c" * 16))
    assert await asked(node, stranger.contact, Store(0, ID, 0, presence().blob)) is None
    assert [data[1] for _, data, _ in tap_of(node).sent] == [0x01, 0x81]
    assert tap_of(node).sent[1][1][58:74] == b"c" * 16
    stranger.answers = lambda _request, _source: NeedCookie(*head(cookie=b""))
    other = Stranger(world, 1001)
    other.answers = stranger.answers
    assert await asked(node, other.contact, Store(0, ID, 0, presence().blob)) is None
    assert len(other.heard) == 1
    await close(node)


@virtual
async def test_a_packet_that_comes_back_is_dropped() -> None:
    world = World()
    node, mirror = await start_node(world), Stranger(world)
    protocol(node).ask(mirror.contact, Ping(0, ID, 0), lambda _: None)
    await asyncio.sleep(0.1)
    packet = mirror.heard[0][0]
    mirror.send(packet, node.addresses[0])
    mirror.send(packet[:2] + mirror.node_key.public + packet[34:], node.addresses[0])
    await asyncio.sleep(0.1)
    assert node.counters["dht.unreadable"] == 2
    assert node.known_nodes == 0
    assert len(mirror.heard) == 1
    await close(node)


@virtual
async def test_a_proved_request_from_another_address_proves_nothing() -> None:
    # Somebody on the way copies a packet with its cookie and sends it from an address of his own choice.
    world = World()
    node, honest, thief = await start_node(world), Stranger(world), Stranger(world, 1001)
    cookie = await proves(honest, node)
    packet = honest.sealer.seal(1, node.shared.node_key.public, encode(Ping(0, ID, 0)), bytes(24), cookie)  # type: ignore[arg-type]
    thief.send(packet, node.addresses[0])
    await asyncio.sleep(1)
    assert node.known_nodes == 0
    honest.send(packet, node.addresses[0])
    await asyncio.sleep(1)
    assert protocol(node).router.find_neighbors(0) == [honest.contact]
    thief.send(packet, node.addresses[0])
    await asyncio.sleep(1)
    assert protocol(node).router.find_neighbors(0) == [honest.contact]
    await close(node)


# --- garbage ---


@virtual
async def test_garbage_of_every_length_is_dropped_and_counted() -> None:
    world = World()
    node, stranger, rng = await start_node(world), Stranger(world), random.Random(1)
    prefixes = [b"", b"\x01", b"\x02", *(bytes([1, kind]) for kind in (0, 1, 2, 4, 5, 6, 0x80, 0x81, 0x82, 0xFF))]
    sent = 0
    for length in [*range(150), 411, 1231, 1232, 1233, 2048]:
        for prefix in prefixes:
            stranger.send(prefix + rng.randbytes(max(0, length - len(prefix))), node.addresses[0])
            sent += 1
    await asyncio.sleep(1)
    counted = node.counters
    reasons = ("dht.short", "dht.long", "dht.unknown_major", "dht.unreadable", "dht.unasked")
    assert counted["dht.received"] == sent == sum(counted[reason] for reason in reasons)
    assert stranger.heard == []
    assert node.known_nodes == 0
    await close(node)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=12),
    max_leaves=15,
)


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=100) | anything.map(encode), min_size=1, max_size=6))
@virtual
async def test_any_body_in_a_good_box_is_survived(bodies: list[bytes]) -> None:
    world = World()
    node, stranger = await start_node(world), Stranger(world)
    protocol(node).ask(stranger.contact, Ping(0, ID, 0), lambda _: None)
    for body in bodies:
        stranger.ask(node, body)
        stranger.reply(node, body)
    await asyncio.sleep(1)
    assert await pinged(node, stranger, b"another!") is None
    stranger.answers = lambda request, _source: Pong(*head(request.request_id))
    assert await pinged(node, stranger, b"a third!") is not None
    await close(node)


@pytest.mark.parametrize(
    "fields",
    [
        [6, 0, ID, 0],
        [5, 0, ID, 0],
        [2, 0, ID, 0, TARGET],
        [2, 0, ID, 0, TARGET + b"x", 0],
        [1, 0, ID + b"x", 0],
        [1, 0, ID, 256],
        [4, 0, ID, 0, "text"],
        [4, 0, ID, 0, bytes(513)],
    ],
    ids=str,
)
@virtual
async def test_what_cannot_be_read_is_not_answered(fields: list[object]) -> None:
    world = World()
    node, stranger = await start_node(world), Stranger(world)
    stranger.ask(node, encode(fields))
    await asyncio.sleep(1)
    assert stranger.heard == []
    assert node.counters["dht.unreadable"] == 1
    await close(node)


@virtual
async def test_a_newer_minor_version_is_answered() -> None:
    world = World()
    node, stranger = await start_node(world), Stranger(world)
    stranger.ask(node, encode([1, 9, ID, 0b1110, "more", [1, 2, 3]]))
    await asyncio.sleep(1)
    assert isinstance(stranger.read_reply(stranger.heard[0][0]), Pong)
    await close(node)


@pytest.mark.parametrize("ip", ["10.0.0.1", "127.0.0.1", "192.168.1.1", "169.254.1.1", "203.0.113.7", "100.64.0.1"])
@virtual
async def test_outside_a_local_network_a_private_source_is_not_answered(ip: str) -> None:
    world = World()
    node = await start_node(world, PUBLIC, ip=public_ip(1))
    insider = Stranger(world, network=PUBLIC, ip=ip)
    outsider = Stranger(world, network=PUBLIC, ip=public_ip(2))
    assert await insider.asks(node, Ping(0, ID, 0)) is None
    assert node.counters["dht.bad_address"] == 1
    assert await outsider.asks(node, Ping(0, ID, 0)) is not None
    await close(node)


@virtual
async def test_a_system_port_is_not_answered() -> None:
    # Else a packet with a false sender would have us send to somebody's DNS server.
    world = World()
    node = await start_node(world)
    assert await Stranger(world, port=53).asks(node, Ping(0, ID, 0)) is None
    assert node.counters["dht.bad_address"] == 1
    await close(node)


# --- contacts that are none ---

KEY = node_key(500).public


def entry(ip: str, port: int, key: bytes = KEY) -> bytes:
    return pack_contact(Contact(key, Address(ip, port)))


NO_CONTACTS: dict[str, Any] = {
    "a system port": entry("10.0.0.99", 80),
    "port 0": entry("10.0.0.99", 0),
    "multicast": entry("224.0.0.251", 5353),
    "broadcast": entry("255.255.255.255", 4000),
    "unspecified": entry("0.0.0.0", 4000),
    "the other family": entry("fd00::1", 4000),
    "one byte more": entry("10.0.0.99", 4000) + b"\0",
    "one byte less": entry("10.0.0.99", 4000)[:-1],
    "empty": b"",
    "far too long": bytes(1000),
    "port 70000, as another implementation might write it": KEY + bytes([10, 0, 0, 99]) + (70000).to_bytes(3, "big"),
    "a host name": KEY + b"router.example.com:80",
    "a host name as text": "router.example.com",
    "a tuple": [KEY, "10.0.0.99", 4000],
    "a short tuple": [KEY, "10.0.0.99"],
    "nothing": None,
    "a key of small order": entry("10.0.0.99", 4000, bytes(32)),
}


@pytest.mark.parametrize("what", NO_CONTACTS)
@virtual
async def test_a_contact_that_is_none_is_not_asked_and_harms_nobody(what: str) -> None:
    world = World()
    node, liar = await start_node(world, tap=True), Stranger(world)
    honest = await start_node(world)

    def answers(request: Request, _source: Address) -> Reply | None:
        if not isinstance(request, FindNode):
            return Pong(*head(request.request_id))
        contacts = [NO_CONTACTS[what], pack_contact(contact_of(honest))]
        liar.reply(node, encode([2, *head(request.request_id), contacts, [], b""]))
        return None

    liar.answers = answers
    await node.bootstrap([liar.way_in])
    await asyncio.sleep(30)
    assert {to for _, _, to in tap_of(node).sent} <= {liar.address, honest.addresses[0]}
    # And it goes on to work.
    assert await node.bootstrap([way_in(honest)]) >= 1
    assert knows(node, honest)
    await close(node, honest)


@virtual
async def test_a_reply_that_names_too_many_is_not_read() -> None:
    world = World()
    node, liar = await start_node(world, tap=True), Stranger(world)

    def answers(request: Request, _source: Address) -> Reply | None:
        crowd = [entry(f"10.0.1.{n}", 4000, contact(n).key) for n in range(17)]
        liar.reply(node, encode([2, *head(request.request_id), crowd, [], b""]))
        return None

    liar.answers = answers
    assert await node.bootstrap([liar.way_in]) == 0
    assert {to for _, _, to in tap_of(node).sent} == {liar.address}
    assert node.counters["dht.unreadable"] == 2  # the answers to both tries
    await close(node)


@virtual
async def test_our_own_id_in_a_reply_is_not_asked() -> None:
    world = World()
    node, liar = await start_node(world, tap=True), Stranger(world)
    own = [
        entry("10.0.0.99", 4000, node.shared.node_key.public),
        entry(*node.addresses[0], node.shared.node_key.public),
    ]
    liar.answers = lambda request, _source: (
        Found(*head(request.request_id), own, [], b"")
        if isinstance(request, FindNode)
        else Pong(*head(request.request_id))
    )
    assert await node.bootstrap([liar.way_in]) == 1
    assert {to for _, _, to in tap_of(node).sent} == {liar.address}
    assert len(protocol(node).router) == 1
    await close(node)


@virtual
async def test_private_addresses_are_not_asked_outside_a_local_network() -> None:
    world = World()
    node = await start_node(world, PUBLIC, ip=public_ip(1), tap=True)
    liar = Stranger(world, network=PUBLIC, ip=public_ip(2))
    inside = ["10.0.0.1", "127.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1"]
    liar.answers = lambda request, _source: (
        Found(*head(request.request_id), [entry(ip, 4000, contact(n).key) for n, ip in enumerate(inside)], [], b"")
        if isinstance(request, FindNode)
        else Pong(*head(request.request_id))
    )
    await node.bootstrap([liar.way_in])
    await asyncio.sleep(60)
    assert {to for _, _, to in tap_of(node).sent} == {liar.address}
    assert node.counters["dht.bad_contact"] >= len(inside)
    await close(node)


# --- what is sent to whom who did not ask for it ---

LARGE = value_record(value=bytes(380))
assert len(LARGE.blob) >= 505


async def generous_node(world: World, network: NetworkConfig = LOCAL, ip: str | None = None) -> DhtNode:
    """A node that has much to say: 40 contacts, and a large record."""
    node = await start_node(world, network, ip=ip)
    key, own_id = (int.from_bytes(data, "big") for data in (LARGE.key, node.shared.node_key.id))
    farther = (one for one in map(contact, range(1000)) if one.long_id ^ key > own_id ^ key)
    for one in islice(farther, 40):  # nearer ones would make the record none of its business
        protocol(node).router.on_proved(one, 0.0)
    node.shared.store.keep(LARGE, NOW)
    return node


short = st.binary(max_size=10)
requests = st.one_of(
    st.builds(lambda more: encode([1, 0, ID, 0]) if not more else encode([1, 0, ID, 0, more]), short),
    st.builds(lambda want, more: encode([2, 0, ID, 0, TARGET, want, more]), st.integers(0, 255), short),
    st.builds(lambda want, more: encode([3, 0, ID, 0, LARGE.key, want, more]), st.integers(0, 255), short),
    st.builds(lambda want: encode(FindNode(0, ID, 0, TARGET, want)), st.integers(0, 3)),
    st.builds(lambda want: encode(FindValue(0, ID, 0, LARGE.key, want)), st.integers(0, 3)),
    st.builds(lambda data: encode(Store(0, ID, 0, data)), st.binary(max_size=100) | st.just(LARGE.blob)),
    st.binary(max_size=60),
)


@settings(max_examples=120)
@given(
    body=requests,
    cookie=st.none() | st.binary(min_size=16, max_size=16),
    min_size=st.integers(0, 1232),
    ipv6=st.booleans(),
)
@virtual
async def test_who_has_not_proved_its_address_gets_at_most_three_times_what_it_sent(
    body: bytes, cookie: bytes | None, min_size: int, ipv6: bool
) -> None:
    world = World()
    node = await generous_node(world, ip="fd00::1" if ipv6 else None)
    victim = Stranger(world, ip="fd00::2" if ipv6 else None)
    spent = victim.ask(node, body, cookie or b"", min_size)
    await asyncio.sleep(5)
    assert sum(len(data) for data, _ in victim.heard) <= 3 * spent
    assert len(victim.heard) <= 1
    assert node.counters["dht.over_room"] == 0
    await close(node)


@virtual
async def test_a_proved_address_gets_whole_answers() -> None:
    # So that what the test above measures is a limit, and not that there is so little to say.
    world = World()
    node, stranger = await generous_node(world), Stranger(world)
    cookie = await proves(stranger, node)
    spent = stranger.ask(node, FindValue(0, ID, 0, LARGE.key, 0), cookie)
    await asyncio.sleep(1)
    assert len(stranger.heard[-1][0]) > 7 * spent
    await close(node)


@virtual
async def test_a_key_request_is_answered_with_less_than_it_cost() -> None:
    world = World()
    node, stranger = await start_node(world), Stranger(world)
    for data in (key_request(bytes(24), LOCAL.network_id), key_request(bytes(24), PUBLIC.network_id)[:-1]):
        stranger.send(data, node.addresses[0])
    stranger.send(key_request(bytes(24), NetworkConfig(name="other").network_id), node.addresses[0])
    await asyncio.sleep(1)
    assert [len(data) for data, _ in stranger.heard] == [58]
    await close(node)


def most_in_ten_seconds(times: list[float]) -> int:
    return max((sum(1 for at in times if first <= at < first + 10) for first in times), default=0)


@virtual
async def test_a_planted_address_is_asked_at_most_twice_in_ten_seconds() -> None:
    # Liars name one victim over and over, under ever new keys and ports; and people type its address in.
    world = World()
    victim = "8.8.8.8"
    node = await start_node(world, PUBLIC, ip=public_ip(1), tap=True)
    rng = random.Random(1)
    liars = [Stranger(world, 1000 + n, PUBLIC, ip=public_ip(100 + n)) for n in range(5)]

    def answers(request: Request, _source: Address) -> Reply:
        if isinstance(request, Ping):
            return Pong(*head(request.request_id))
        planted = [entry(victim, rng.randrange(1024, 65536), rng.randbytes(32)) for _ in range(16)]
        return Found(*head(request.request_id), planted, [], b"")

    for liar in liars:
        liar.answers = answers
    await node.bootstrap([liar.way_in for liar in liars])
    for second in range(60):
        lookup = asyncio.create_task(node.refresh(rng.randbytes(20)))
        if second % 5 == 0:
            await node.bootstrap([(victim, 4000), (victim, 4001, rng.randbytes(32))])
        await asyncio.sleep(1)
        await lookup
    per_ip: dict[str, list[float]] = defaultdict(list)
    for at, _, to in tap_of(node).sent:
        per_ip[to.ip].append(at)
    assert len(per_ip[victim]) >= 2
    assert most_in_ten_seconds(per_ip[victim]) <= 2
    assert node.counters["dht.unproved_budget"] > 10
    # Those who answered are asked as often as there is something to ask.
    assert max(most_in_ten_seconds(per_ip[liar.address.ip]) for liar in liars) > 4
    await close(node)


@virtual
async def test_of_one_reply_not_many_in_one_subnet_are_asked() -> None:
    world = World()
    node = await start_node(world, PUBLIC, ip=public_ip(1), tap=True)
    liar = Stranger(world, network=PUBLIC, ip=public_ip(2))
    crowd = [entry(f"8.8.8.{n}", 4000, contact(n).key) for n in range(8)]
    crowd += [entry("9.9.9.9", 4000 + n, contact(50 + n).key) for n in range(8)]
    liar.answers = lambda request, _source: (
        Found(*head(request.request_id), crowd, [], b"")
        if isinstance(request, FindNode)
        else Pong(*head(request.request_id))
    )
    await node.bootstrap([liar.way_in])
    asked_there = {to for _, _, to in tap_of(node).sent}
    assert len([to for to in asked_there if to.ip.startswith("8.8.8.")]) == 2
    assert len([to for to in asked_there if to.ip == "9.9.9.9"]) == 1
    await close(node)


# --- seats ---


@virtual
async def test_without_proof_there_is_no_seat_however_often_one_asks() -> None:
    world = World()
    node, stranger = await start_node(world), Stranger(world)
    for number in range(20):
        for request in (Ping(0, bytes([number]) * 8, 0), FindNode(0, ID, 0, TARGET, 0), Store(0, ID, 0, b"")):
            stranger.ask(node, request)
            stranger.ask(node, request, bytes([number]) * 16)
    await asyncio.sleep(5)
    assert len(stranger.heard) == 120
    assert node.known_nodes == 0
    await close(node)


@virtual
async def test_who_wants_no_seat_gets_none() -> None:
    world = World()
    node, guest = await start_node(world), Stranger(world)
    cookie = await proves(guest, node)
    await guest.asks(node, FindNode(0, ID, FLAG_NO_SEAT, TARGET, 0), cookie)
    assert not knows(node, guest)
    guest.answers = lambda request, _source: Pong(*head(request.request_id, flags=FLAG_NO_SEAT))
    assert await pinged(node, guest) is not None
    assert not knows(node, guest)
    await guest.asks(node, Ping(0, ID, 0), cookie)
    assert knows(node, guest)
    await close(node)


@virtual
async def test_a_node_that_takes_no_seat_says_so_in_all_it_sends() -> None:
    world = World()
    host, seed = await start_node(world), await start_node(world, no_seat=True, stores=False)
    await seed.bootstrap([way_in(host)])
    await seed.refresh(TARGET)
    await host.bootstrap([way_in(seed)])
    await host.refresh(TARGET)
    assert not knows(host, seed)
    assert knows(seed, host)
    answer = await asked(host, contact_of(seed), Store(0, ID, 0, presence().blob))
    assert answer is not None
    assert isinstance(answer.reply, Refused)
    assert (answer.reply.reason, answer.reply.flags) == (Refusal.NOT_HERE, FLAG_NO_SEAT)
    await close(host, seed)


@virtual
async def test_a_node_that_moves_takes_its_seat_along() -> None:
    world = World()
    node = await start_node(world)
    before = await start_node(world, node_key=node_key(77), via=node)
    assert protocol(node).router.find_neighbors(0) == [contact_of(before)]
    await close(before)
    after = await start_node(world, node_key=node_key(77), via=node)
    assert after.addresses != before.addresses
    assert protocol(node).router.find_neighbors(0) == [contact_of(after)]
    await close(node, after)


@virtual
async def test_seats_requests_and_outcomes_are_told() -> None:
    world = World()
    told: list[tuple[object, ...]] = []
    node = DhtNode(host=world.host(), network=LOCAL)
    node.on_seated = lambda who: told.append(("seated", who))
    node.on_request = lambda who, proved, seatable: told.append(("request", who, proved, seatable))
    node.on_outcome = lambda who, answered: told.append(("outcome", who, answered))
    await node.listen()
    stranger = Stranger(world)
    cookie = await proves(stranger, node)
    await stranger.asks(node, Ping(0, ID, 0), cookie)
    assert told == [
        ("request", stranger.contact, False, False),
        ("seated", stranger.contact),
        ("request", stranger.contact, True, True),
    ]
    told.clear()
    await pinged(node, stranger)
    assert told == [("outcome", stranger.contact, False)]
    await close(node)


def strangers_in_one_bucket(world: World, node: DhtNode) -> list[Stranger]:
    """Two whose ids share the first five bits, and these are not the node's."""
    prefixes: dict[int, int] = {}
    for number in range(2000, 3000):
        prefix = node_key(number).id[0] >> 3
        if prefix == node.shared.node_key.id[0] >> 3:
            continue
        if prefix in prefixes:
            return [Stranger(world, prefixes[prefix]), Stranger(world, number)]
        prefixes[prefix] = number
    raise AssertionError("not among a thousand")


@virtual
async def test_who_waited_for_its_seat_is_told_too() -> None:
    world = World()
    told: list[Contact] = []
    node = await start_node(world, replace(LOCAL, k=1), config=DhtConfig(failures_to_go=1))
    node.on_seated = told.append
    neighbour = contact_at(int.from_bytes(node.shared.node_key.id, "big") ^ 1)
    protocol(node).router.on_proved(neighbour, 0.0)  # the one nearest to us always has a seat
    protocol(node).router.take_seated()
    first, second = strangers_in_one_bucket(world, node)
    for stranger in (first, second):
        await stranger.asks(node, Ping(0, ID, 0), await proves(stranger, node))
    assert told == [first.contact]
    assert not knows(node, second)
    await pinged(node, first)
    try:
        assert not knows(node, first)
        assert knows(node, second)
        assert told == [first.contact, second.contact]
    finally:
        await close(node)


# --- KEY ---


@virtual
async def test_a_node_of_which_only_the_address_is_known_tells_its_key() -> None:
    world = World()
    node, other = await start_node(world), await start_node(world)
    elsewhere = await start_node(world, NetworkConfig.local_network("elsewhere"))
    assert await protocol(node).find_key(other.addresses[0], 1.0) == other.shared.node_key.public
    assert await protocol(node).find_key(elsewhere.addresses[0], 1.0) is None
    assert await protocol(node).find_key(Address("10.99.9.9", 4000), 1.0) is None
    assert await node.bootstrap([(*other.addresses[0],)]) == 1
    assert knows(node, other)
    await close(node, other, elsewhere)


@virtual
async def test_a_key_counts_only_from_where_it_was_asked() -> None:
    world = World()
    node, asked_one, thief = await start_node(world), Stranger(world), Stranger(world, 1001)
    search = asyncio.create_task(protocol(node).find_key(asked_one.address, 1.0))
    await asyncio.sleep(0.1)
    nonce = asked_one.heard[0][0][2:26]
    right, wrong = asked_one.node_key.public, thief.node_key.public
    for who, data in (
        (thief, nonce + wrong),
        (asked_one, bytes(24) + wrong),
        (asked_one, nonce + right),
        (asked_one, nonce + wrong),
    ):
        who.send(b"\x01\x04" + data, node.addresses[0])
        await asyncio.sleep(0.1)
    assert await search == right
    assert node.counters["dht.unasked"] == 3
    await close(node)


@virtual
async def test_a_search_for_a_key_ends_with_the_node() -> None:
    # The caller was not cancelled, so it is told that there is nothing and not that it was cancelled.
    world = World()
    node, silent = await start_node(world), Stranger(world)
    search = asyncio.create_task(node.bootstrap([(*silent.address,)]))
    await asyncio.sleep(0.1)
    await close(node)
    await asyncio.wait([search], timeout=5)
    assert not search.cancelled()
    assert search.result() == 0


# --- what is left of kademlia and rpcudp ---


@virtual
async def test_an_attribute_that_is_missing_is_no_remote_call() -> None:
    node = await start_node(World())
    for name in ("find_everything", "rpc_shutdown", "_missing", "call"):
        assert not hasattr(protocol(node), name)
    with pytest.raises(AttributeError, match="no attribute 'find_everything'"):
        _ = protocol(node).find_everything
    await close(node)


@virtual
async def test_an_rpc_of_stock_kademlia_is_garbage() -> None:
    # rpcudp: 0x00 for a request, 20 bytes of id, umsgpack of the method's name and its arguments.
    world = World()
    node, stranger = await start_node(world), Stranger(world)
    for method in ("ping", "store", "find_node", "stun", "__init__", "_call"):
        stranger.send(
            b"\0" + bytes(20) + msgspec.msgpack.encode([method, [bytes(20), bytes(20), b"x"]]), node.addresses[0]
        )
    await asyncio.sleep(1)
    assert stranger.heard == []
    assert node.shared.store.count == 0
    assert node.counters["dht.short"] + node.counters["dht.unknown_major"] == 6
    await close(node)


@virtual
async def test_each_family_has_a_protocol_of_its_own() -> None:
    world = World()
    alice = await start_node(world, ip="fd00::1")
    bob = await start_node(world, ip="fd00::2", via=alice)
    assert list(alice.servers) == [Family.IPV6]
    assert knows(alice, bob)
    assert knows(bob, alice)
    assert protocol(alice).router.find_neighbors(0)[0].address.family is Family.IPV6
    await close(alice, bob)


# --- a moment ---


async def answered(node: DhtNode, to: DhtNode) -> None:
    """A PING and its answer, in a tenth of a second."""
    protocol(node).ping(contact_of(to), lambda _: None)
    await asyncio.sleep(0.1)


@virtual
async def test_an_answer_teaches_nothing_that_was_learnt_within_the_same_second() -> None:
    world = World(latency_s=0.01)
    alice, bob = await start_node(world), await start_node(world)
    table = protocol(alice).router

    async def heard_at() -> float:
        await answered(alice, bob)
        seat = table.seat_of(bob.shared.node_key.id)
        assert seat is not None
        return seat.last_answer

    first = await heard_at()
    assert await heard_at() == first
    await asyncio.sleep(1.0)
    assert await heard_at() > first + 1.0
    await close(alice, bob)


@virtual
async def test_who_fails_and_answers_within_the_same_second_is_believed_again() -> None:
    world = World(latency_s=0.01)
    alice, bob = await start_node(world), await start_node(world)
    await answered(alice, bob)
    table, there = protocol(alice).router, contact_of(bob)
    assert table.is_live(there)
    protocol(alice)._on_unanswered(there, alice.shared.now())
    assert not table.is_live(there)
    await answered(alice, bob)
    assert table.is_live(there)
    await close(alice, bob)


@virtual
async def test_after_a_move_the_first_answer_tells_where_we_are_at_once() -> None:
    world = World(latency_s=0.01)
    alice, bob = await start_node(world), await start_node(world)
    await answered(alice, bob)
    assert alice.shared.observed.ip(Family.IPV4) == alice.addresses[0].ip
    alice.on_elsewhere(moved=True)
    assert alice.shared.observed.ip(Family.IPV4) is None
    await answered(alice, bob)
    assert alice.shared.observed.ip(Family.IPV4) == alice.addresses[0].ip
    await close(alice, bob)
