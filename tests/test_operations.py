"""What a node answers, request by request, and that it fits into what may be sent."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import LOCAL, NOW, PUBLIC, contact, identity, membership, presence, value_record

from dht_atonce.codec import encode
from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.dht.contact import Contact, unpack_contact
from dht_atonce.dht.operations import Asked, Granted, Operations
from dht_atonce.dht.routing import RoutingTable
from dht_atonce.dht.storage import RecordStore
from dht_atonce.dht.wire import (
    FLAG_NO_SEAT,
    FindMembers,
    FindNode,
    FindValue,
    Found,
    Members,
    NeedCookie,
    Noted,
    NoteOutcome,
    Notify,
    Ping,
    Pong,
    Refusal,
    Refused,
    Reply,
    Request,
    Store,
    Stored,
    StoreOutcome,
    Watch,
    Watching,
    pack_watch,
)
from dht_atonce.endpoints import Address, Family, pack_address
from dht_atonce.errors import RecordError
from dht_atonce.records import GONE, MAX_RECORD, RecordParser, ValueRecord

OWN = contact(0)
ASKER = contact(1)
ID = b"requestI"
COOKIE = b"c" * 16
TARGET = bytes(20)
SEALED = 58 + 16 + 3
"""What a sealed reply has beside its body: header, tag, type and length."""
WHOLE = 1232
LEAST_ROOM = 3 * (SEALED + len(encode(FindNode(0, ID, 0, TARGET, 0))))
"""For an answer to the shortest FIND, from an address that is not proved."""


class Node:
    """The parts of a node that answer, without any network."""

    def __init__(
        self,
        family: Family = Family.IPV4,
        *,
        network: NetworkConfig = LOCAL,
        ipv4: int = 0,
        ipv6: int = 0,
        stores: bool = True,
        no_seat: bool = False,
        max_records: int = 100,
        topic_members: int = 1000,
    ) -> None:
        config = replace(DhtConfig(), max_records=max_records, topic_members=topic_members)
        roomy = replace(network, k=64)
        self.routers = {f: RoutingTable(OWN, 64, config, local=True, now=0.0) for f in Family}
        for number in range(2, 2 + ipv4):
            self.routers[Family.IPV4].on_proved(contact(number, f"10.0.{number}.1"), 0.0)
        for number in range(1000, 1000 + ipv6):
            self.routers[Family.IPV6].on_proved(contact(number, f"fd00::{number:x}"), 0.0)
        self.store = RecordStore(OWN.long_id, network, config, random.Random(1))
        self.counters: Counter[str] = Counter()
        self.operations = Operations(
            family,
            self.routers,
            self.store,
            RecordParser(network),
            roomy,
            self.counters,
            no_seat=no_seat,
            stores=stores,
        )

    def answer(
        self, request: Request, *, proved: bool = True, cookie: bytes = b"", room: int = WHOLE, sender: Contact = ASKER
    ) -> Reply:
        return self.operations.answer(Asked(request, sender, proved, cookie, room), NOW)


def store(record: bytes) -> Store:
    return Store(0, ID, 0, record)


def named(raw: list[bytes], family: Family = Family.IPV4) -> list[Contact]:
    return [unpack_contact(data, family, local=True) for data in raw]


def size(reply: Reply) -> int:
    """Bytes of the datagram that carries it."""
    return SEALED + len(encode(reply))


# --- each request and its reply ---


def test_a_ping_is_answered_with_what_everybody_tells_everybody() -> None:
    reply = Node().answer(Ping(0, ID, 0), cookie=COOKIE)
    assert reply == Pong(0, ID, 0, COOKIE, pack_address(ASKER.address), NOW * 1000)
    assert Node().answer(Ping(0, ID, 0)).cookie == b""


def test_a_node_that_takes_no_seats_says_so() -> None:
    node = Node(no_seat=True)
    for request in (Ping(0, ID, 0), FindNode(0, ID, 0, TARGET, 0), store(presence().blob)):
        assert node.answer(request).flags == FLAG_NO_SEAT


def test_the_nearest_sixteen_are_named_without_the_one_who_asks() -> None:
    node = Node(ipv4=40)
    asker = contact(5, "10.0.5.1")
    reply = node.answer(FindNode(0, ID, 0, asker.id, 0), sender=asker)
    assert isinstance(reply, Found)
    everybody = [contact(number, f"10.0.{number}.1") for number in range(2, 42) if number != 5]
    nearest = sorted(everybody, key=lambda one: one.long_id ^ asker.long_id)
    assert named(reply.contacts)[:12] == nearest[:12]
    # The last four are some of the next twelve, and each node names others of them.
    assert len(reply.contacts) == 16
    assert [nearest.index(one) for one in named(reply.contacts)[12:]] in (
        [12, 15, 18, 21],
        [13, 16, 19, 22],
        [14, 17, 20, 23],
    )
    assert reply.other == []
    assert reply.record == b""


def test_who_fails_is_not_named() -> None:
    node = Node(ipv4=3)
    failing = contact(2, "10.0.2.1")
    node.routers[Family.IPV4].on_failure(failing, 0.0)
    reply = node.answer(FindNode(0, ID, 0, failing.id, 0))
    assert isinstance(reply, Found)
    assert len(reply.contacts) == 2
    assert failing not in named(reply.contacts)


def test_the_other_family_is_named_if_it_is_wanted() -> None:
    node = Node(ipv4=20, ipv6=20)
    reply = node.answer(FindNode(0, ID, 0, TARGET, Family.IPV6))
    assert isinstance(reply, Found)
    assert len(named(reply.contacts)) >= 8
    assert 1 <= len(named(reply.other, Family.IPV6)) <= 8
    for want in (0, Family.IPV4):
        plain = node.answer(FindNode(0, ID, 0, TARGET, want))
        assert isinstance(plain, Found)
        assert plain.other == []
        assert len(plain.contacts) == 16
    by_ipv6 = Node(Family.IPV6, ipv4=20, ipv6=20).answer(FindNode(0, ID, 0, TARGET, Family.IPV4))
    assert isinstance(by_ipv6, Found)
    assert named(by_ipv6.contacts, Family.IPV6)
    assert named(by_ipv6.other, Family.IPV4)


def test_a_value_is_handed_out_with_contacts_beside_it() -> None:
    node, record = Node(ipv4=40), value_record()
    assert node.answer(store(record.blob)) == Stored(
        0, ID, 0, b"", pack_address(ASKER.address), NOW * 1000, StoreOutcome.STORED, b""
    )
    reply = node.answer(FindValue(0, ID, 0, record.key, 0))
    assert isinstance(reply, Found)
    assert reply.record == record.blob
    assert len(reply.contacts) >= 8
    # Who asks for nodes gets no record, and who asks for another key neither.
    for request in (FindNode(0, ID, 0, record.key, 0), FindValue(0, ID, 0, TARGET, 0)):
        other = node.answer(request)
        assert isinstance(other, Found)
        assert other.record == b""
        assert len(other.contacts) == 16


def test_a_record_whose_time_is_over_is_not_handed_out() -> None:
    node, record = Node(), value_record(expires=NOW + 10)
    node.store.keep(record, NOW - 100)
    node.operations.answer(Asked(Ping(0, ID, 0), ASKER, True, b"", WHOLE), NOW)
    late = node.operations.answer(Asked(FindValue(0, ID, 0, record.key, 0), ASKER, True, b"", WHOLE), NOW + 10)
    assert isinstance(late, Found)
    assert late.record == b""


# --- storing ---


def test_nothing_is_stored_before_the_address_is_proved() -> None:
    node = Node()
    reply = node.answer(store(presence().blob), proved=False, cookie=COOKIE)
    assert reply == NeedCookie(0, ID, 0, COOKIE, pack_address(ASKER.address), NOW * 1000)
    assert node.store.count == 0


def test_a_record_is_stored_once() -> None:
    node, record = Node(), presence()
    for _ in range(2):
        reply = node.answer(store(record.blob))
        assert isinstance(reply, Stored)
        assert (reply.outcome, reply.record) == (StoreOutcome.STORED, b"")
    assert node.store.get(record.key) == record
    assert node.counters["dht.stored"] == 1


def test_who_brings_an_older_record_is_shown_the_newer() -> None:
    node, newer = Node(), presence(seq=2)
    node.answer(store(newer.blob))
    reply = node.answer(store(presence(seq=1).blob))
    assert isinstance(reply, Stored)
    assert (reply.outcome, reply.record) == (StoreOutcome.NEWER_HELD, newer.blob)
    assert node.store.get(newer.key) == newer


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"", "bad_size"),
        (b"\x02" + presence().blob[1:], "unknown_major"),
        (presence().blob[:-1] + b"\x91", "malformed"),
        (presence().blob[:20] + bytes(1) + presence().blob[21:], "bad_signature"),
        (presence(network=NetworkConfig(name="other")).blob, "bad_signature"),
        (presence(expires=NOW).blob, "expired"),
        (presence(expires=NOW + 100_000).blob, "lives_too_long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_record_is_refused_and_counted(blob: bytes, reason: str) -> None:
    node = Node()
    reply = node.answer(store(blob))
    assert isinstance(reply, Refused)
    assert reply.reason == Refusal.BAD_RECORD
    assert node.counters == {f"record.{reason}": 1}
    assert node.store.count == 0


def test_a_seed_stores_nothing() -> None:
    node = Node(stores=False, no_seat=True)
    assert isinstance(node.answer(store(presence().blob), proved=False), NeedCookie)
    reply = node.answer(store(presence().blob))
    assert isinstance(reply, Refused)
    assert (reply.reason, reply.flags) == (Refusal.NOT_HERE, FLAG_NO_SEAT)
    assert node.store.count == 0


def test_a_full_store_says_so() -> None:
    node = Node(max_records=1)
    records = sorted(
        (value_record(f"{number}") for number in range(3)),
        key=lambda record: int.from_bytes(record.key, "big") ^ OWN.long_id,
    )
    assert isinstance(node.answer(store(records[1].blob)), Stored)
    reply = node.answer(store(records[2].blob))
    assert isinstance(reply, Refused)
    assert reply.reason == Refusal.FULL
    assert isinstance(node.answer(store(records[0].blob)), Stored)


# --- watching ---

WATCH = Watch(0, ID, 0, 300, [pack_watch(TARGET, None)])


def test_nobody_watches_before_the_address_is_proved() -> None:
    node = Node()
    node.operations.on_watch = lambda *_: Granted(300, b"\1", [])
    assert isinstance(node.answer(WATCH, proved=False, cookie=COOKIE), NeedCookie)
    assert node.answer(WATCH) == Watching(0, ID, 0, b"", pack_address(ASKER.address), NOW * 1000, 300, b"\1", [])


def test_where_nothing_is_stored_nothing_is_watched() -> None:
    seed, alone = Node(stores=False, no_seat=True), Node()
    seed.operations.on_watch = lambda *_: Granted(300, b"\1", [])
    for node in (seed, alone):
        reply = node.answer(WATCH)
        assert isinstance(reply, Refused)
        assert reply.reason == Refusal.NOT_HERE


@pytest.mark.parametrize("count", [0, 1, 32])
def test_the_room_for_records_leaves_the_reply_its_size(count: int) -> None:
    node = Node()
    sender = contact(1, "2606:4700::1111")

    def grant(_who: Contact, request: Watch, room: int, _wall: float) -> Granted:
        assert room > 900
        return Granted(300, bytes(len(request.watches)), [bytes(room // 2 - 3)] * 2)

    node.operations.on_watch = grant
    request = Watch(0, ID, 0, 300, [bytes(32)] * count)
    assert SEALED + 16 + len(encode(request)) <= WHOLE
    assert WHOLE - 12 <= size(node.answer(request, cookie=COOKIE, sender=sender)) <= WHOLE


def test_what_is_pushed_is_noted_if_it_is_watched() -> None:
    node, heard = Node(), list[bytes]()
    request = Notify(0, ID, 0, TARGET, b"")

    def hear(request: Notify, _wall: float) -> bool:
        if request.record:
            raise RecordError("other_key")
        heard.append(request.key)
        return request.key == TARGET

    outcomes = [NoteOutcome.NOT_WATCHED]
    assert node.answer(request, proved=False) == Noted(
        0, ID, 0, b"", pack_address(ASKER.address), NOW * 1000, NoteOutcome.NOT_WATCHED
    )
    node.operations.on_notify = hear
    for key in (TARGET, bytes([1] * 20)):
        reply = node.answer(Notify(0, ID, 0, key, b""), proved=False)
        assert isinstance(reply, Noted)
        outcomes.append(NoteOutcome(reply.outcome))
    assert outcomes == [NoteOutcome.NOT_WATCHED, NoteOutcome.NOTED, NoteOutcome.NOT_WATCHED]
    assert heard == [TARGET, bytes([1] * 20)]
    refused = node.answer(Notify(0, ID, 0, TARGET, b"x"), proved=False)
    assert isinstance(refused, Refused)
    assert refused.reason == Refusal.BAD_RECORD
    assert node.counters["record.other_key"] == 1
    assert size(refused) <= 3 * (SEALED + len(encode(request)))


# --- what fits ---


def value_of(blob_bytes: int) -> ValueRecord:
    """A record of this size."""
    length = blob_bytes - len(value_record(value=b"").blob)
    return value_record(
        value=bytes(length - 1 if length > 255 else length)
    )  # from 256 on, the length takes a byte more


@settings(max_examples=150)
@given(
    family=st.sampled_from(Family),
    room=st.integers(LEAST_ROOM, WHOLE) | st.just(WHOLE),
    want=st.integers(0, 3) | st.just(255),
    cookie=st.sampled_from([b"", COOKIE]),
    blob_bytes=st.integers(200, MAX_RECORD) | st.none(),
    target=st.binary(min_size=20, max_size=20),
    far_away=st.booleans(),
)
def test_an_answer_fits_and_never_hides_the_record(
    family: Family, room: int, want: int, cookie: bytes, blob_bytes: int | None, target: bytes, far_away: bool
) -> None:
    node = Node(family, ipv4=40, ipv6=40)
    sender = contact(1, "2606:4700::1111" if family is Family.IPV6 or far_away else "1.1.1.1")
    record = value_of(blob_bytes) if blob_bytes else None
    if record is not None:
        node.store.keep(record, NOW)
        target = record.key
    for request in (FindNode(0, ID, 0, target, want), FindValue(0, ID, 0, target, want)):
        reply = node.answer(request, cookie=cookie, room=room, sender=sender)
        assert size(reply) <= room
        if isinstance(reply, NeedCookie):
            # Only where the record does not fit: then the asker comes again and gets all of it.
            assert isinstance(request, FindValue)
            assert record is not None
            assert room < WHOLE
            assert room - SEALED < len(record.blob) + 100
            continue
        assert isinstance(reply, Found)
        assert len(reply.contacts) <= 16
        assert len(reply.other) <= 8
        if record is not None and isinstance(request, FindValue):
            assert reply.record == record.blob
            if room == WHOLE and not want:
                assert len(reply.contacts) >= 8
        else:
            assert reply.record == b""
            if room == WHOLE:
                assert len(reply.contacts) >= (14 if want else 16)


@pytest.mark.parametrize("family", Family)
def test_eight_contacts_beside_a_record_whatever_else_is_wanted(family: Family) -> None:
    node, record = Node(family, ipv4=40, ipv6=40), value_of(MAX_RECORD)
    node.store.keep(record, NOW)
    reply = node.answer(FindValue(0, ID, 0, record.key, 3), cookie=COOKIE)
    assert isinstance(reply, Found)
    assert reply.record == record.blob
    assert len(reply.contacts) >= 8


def test_a_small_network_is_named_whole() -> None:
    node = Node(ipv4=3)
    reply = node.answer(FindNode(0, ID, 0, TARGET, 3), room=LEAST_ROOM)
    assert isinstance(reply, Found)
    assert len(reply.contacts) == 3


@pytest.mark.parametrize("network", [LOCAL, PUBLIC], ids=["local", "public"])
def test_an_answer_to_a_padded_find_is_whole(network: NetworkConfig) -> None:
    node = Node(network=network, ipv4=40)
    record = value_record(value=bytes(300), network=network, who=identity(3))
    node.store.keep(record, NOW)
    reply = node.answer(FindValue(0, ID, 0, record.key, 0), cookie=COOKIE, room=min(WHOLE, 3 * 411), proved=False)
    assert isinstance(reply, Found)
    assert reply.record == record.blob
    assert len(reply.contacts) >= 8


def test_the_shortest_requests_can_be_answered() -> None:
    # Their answers have no contacts to leave out.
    longest = pack_address(Address("2606:4700::1111", 4000))
    for request, reply in (
        (Ping(0, ID, 0), Pong(0, ID, 0, COOKIE, longest, NOW * 1000)),
        (store(b""), NeedCookie(0, ID, 0, COOKIE, longest, NOW * 1000)),
        (FindValue(0, ID, 0, TARGET, 0), NeedCookie(0, ID, 0, COOKIE, longest, NOW * 1000)),
    ):
        assert size(reply) <= 3 * (SEALED + len(encode(request)))


def test_the_same_question_has_the_same_answer() -> None:
    rng = random.Random(5)
    for _ in range(20):
        target = rng.randbytes(20)
        answers = {encode(Node(ipv4=40).answer(FindNode(0, ID, 0, target, 0))) for _ in range(2)}
        assert len(answers) == 1


# --- the members of a topic ---

SEED = b"a seed ."
JOINED = [membership(identity(number), data=bytes(number % 100)) for number in range(30)]
TOPIC = JOINED[0].key


def ask_members(start: int = 0, want: int = 0, key: bytes = TOPIC) -> FindMembers:
    return FindMembers(0, ID, 0, key, want, SEED, start)


def with_members(count: int = 30, **details: Any) -> Node:
    node = Node(**details)
    for record in JOINED[:count]:
        node.store.keep(record, NOW)
    return node


@pytest.mark.parametrize("family", Family)
def test_all_members_are_listed_page_by_page_and_contacts_on_the_first(family: Family) -> None:
    node = with_members(family=family, ipv4=20, ipv6=20)
    found, start, count = list[bytes](), 0, 0
    while True:
        reply = node.answer(ask_members(start), cookie=COOKIE)
        assert isinstance(reply, Members)
        assert size(reply) <= WHOLE
        assert reply.total == 30
        assert len(named(reply.contacts, family)) >= 8 if start == 0 else reply.contacts == []
        assert reply.records
        found += reply.records
        count += 1
        if not reply.next:
            break
        start = reply.next
    assert sorted(found) == sorted(record.blob for record in JOINED)
    assert count <= 9


def test_the_first_page_names_the_other_family_too() -> None:
    node = with_members(ipv4=20, ipv6=20)
    reply = node.answer(ask_members(want=Family.IPV6))
    assert isinstance(reply, Members)
    assert len(reply.contacts) >= 8
    assert reply.records
    assert size(reply) <= WHOLE


@settings(max_examples=60)
@given(
    st.integers(0, 30), st.integers(0, 40), st.integers(0, 40), st.sampled_from([0, 1, 2, 3]), st.integers(0, 2**64 - 1)
)
def test_no_page_is_larger_than_a_datagram(members: int, ipv4: int, ipv6: int, want: int, start: int) -> None:
    for family in Family:
        node = with_members(members, family=family, ipv4=ipv4, ipv6=ipv6)
        for at in (0, start):
            assert size(node.answer(ask_members(at, want), cookie=COOKIE)) <= WHOLE


def test_a_node_without_members_says_who_is_nearer() -> None:
    reply = Node(ipv4=20).answer(ask_members())
    assert isinstance(reply, Members)
    assert (len(reply.contacts), reply.total, reply.next, reply.records) == (16, 0, 0, [])


def test_who_has_left_is_listed_but_not_counted() -> None:
    node = with_members(3)
    gone = membership(identity(1), seq=2, status=GONE)
    node.store.keep(gone, NOW)
    reply = node.answer(ask_members())
    assert isinstance(reply, Members)
    assert reply.total == 2
    assert gone.blob in reply.records


def test_a_page_that_does_not_fit_into_three_times_the_question_waits_for_a_cookie() -> None:
    reply = with_members(3).answer(ask_members(), proved=False, room=WHOLE - 1, cookie=COOKIE)
    assert reply == NeedCookie(0, ID, 0, COOKIE, pack_address(ASKER.address), NOW * 1000)
    assert isinstance(with_members(3).answer(ask_members(), proved=False, room=WHOLE), Members)
    assert isinstance(Node(ipv4=3).answer(ask_members(), proved=False, room=LEAST_ROOM), Members)


def test_a_large_topic_is_put_in_order_for_nobody_without_an_address() -> None:
    node = with_members(30, max_records=200)
    for number in range(30, 100):
        node.store.keep(membership(identity(number)), NOW)
    assert isinstance(node.answer(ask_members(), proved=False), Members)
    node.store.keep(membership(identity(100)), NOW)
    assert isinstance(node.answer(ask_members(), proved=False), NeedCookie)
    assert isinstance(node.answer(ask_members()), Members)


def test_a_member_that_is_not_in_the_sample_is_passed_over() -> None:
    node = with_members(topic_members=10)
    held = node.store.roster(TOPIC)
    assert held is not None
    left_out = next(record for record in JOINED if held.get(record.peer_id.key) is None)
    reply = node.answer(store(left_out.blob))
    assert isinstance(reply, Stored)
    assert (reply.outcome, reply.record) == (StoreOutcome.PASSED_OVER, b"")
    inside = next(record for record in JOINED if held.get(record.peer_id.key) is not None)
    assert node.answer(store(inside.blob)).outcome == StoreOutcome.STORED  # type: ignore[union-attr]
