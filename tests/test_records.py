"""Records: parsing is believing, so nothing but what an identity signed for this network may be parsed."""

import hashlib
import itertools
from dataclasses import replace
from typing import Any

import nacl.bindings as sodium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import LIFE, LOCAL, NOW, PUBLIC, identity, membership, presence, signed_by_hand, value_record

from dht_atonce.codec import encode
from dht_atonce.config import NetworkConfig
from dht_atonce.endpoints import Address, pack_address
from dht_atonce.errors import MessageTooLarge, RecordError
from dht_atonce.identity import PeerId
from dht_atonce.memo import Memo
from dht_atonce.records import (
    GONE,
    MAX_MEMBER_DATA,
    MAX_RECORD,
    AnyRecord,
    MembershipRecord,
    PresenceRecord,
    Record,
    RecordMemo,
    RecordParser,
    ValueRecord,
    is_newer,
    presence_key,
    topic_key,
    value_key,
)

SKEW = 120
OTHER = NetworkConfig.local_network("other", k=4)
WHO = identity(0)

seqs = st.integers(0, 2**64 - 1)
expiries = st.integers(NOW + 1, NOW + LIFE + SKEW)
statuses = st.text(min_size=1, max_size=25)
words = st.lists(st.text(st.characters(codec="ascii"), min_size=1, max_size=16), max_size=8)
ports = st.integers(1024, 65535)
endpoints = st.lists(
    st.builds(Address, st.sampled_from(["10.0.0.1", "1.1.1.1", "2606:4700::1111", "fd00::1"]), ports), max_size=4
)


def parse(blob: bytes, now: float | None = NOW, network: NetworkConfig = LOCAL) -> AnyRecord:
    return RecordParser(network).parse(blob, now)


def refusal(blob: bytes, now: float | None = NOW, network: NetworkConfig = LOCAL) -> str:
    """Why `blob` is refused."""
    with pytest.raises(RecordError) as caught:
        parse(blob, now, network)
    return caught.value.reason


def fields(record: Record, *more: object) -> list[object]:
    """The payload as an array that msgpack can write, with fields that are not known yet."""
    begin: list[object] = [0, record.peer_id.key, record.seq, record.incarnation, record.expires]
    if isinstance(record, PresenceRecord):
        return [*begin, record.status, [], list(record.capabilities), *more]
    if isinstance(record, MembershipRecord):
        where = [pack_address(endpoint) for endpoint in record.endpoints]
        return [*begin, record.topic, record.status, where, record.data, *more]
    assert isinstance(record, ValueRecord)
    return [*begin, record.name, record.value, *more]


def wide(value: Any) -> bytes:
    """msgpack as nobody would write it: each length and number in its longest form."""
    if isinstance(value, int):
        return b"\xcf" + value.to_bytes(8, "big")
    if isinstance(value, bytes):
        return b"\xc6" + len(value).to_bytes(4, "big") + value
    if isinstance(value, str):
        return b"\xdb" + len(value.encode()).to_bytes(4, "big") + value.encode()
    return b"\xdd" + len(value).to_bytes(4, "big") + b"".join(wide(item) for item in value)


# --- there and back ---


@settings(max_examples=40)
@given(seqs, expiries, statuses, endpoints, words)
def test_a_presence_is_read_as_it_was_signed(
    seq: int, expires: int, status: str, where: list[Address], can: list[str]
) -> None:
    signed = presence(seq=seq, expires=expires, status=status, endpoints=tuple(where), capabilities=tuple(can))
    read = parse(signed.blob)
    assert read == signed
    assert isinstance(read, PresenceRecord)
    assert (read.seq, read.expires, read.status) == (seq, expires, status)
    assert read.endpoints == tuple(where)
    assert read.capabilities == tuple(can)
    assert read.peer_id == WHO.id
    assert read.blob == signed.blob
    assert read.key == presence_key(LOCAL, WHO.id)
    assert read.is_goodbye == (status == GONE)


@given(seqs, expiries, st.text(min_size=1, max_size=30), st.binary(max_size=200))
def test_a_value_is_read_as_it_was_signed(seq: int, expires: int, name: str, value: bytes) -> None:
    signed = value_record(name, value, seq=seq, expires=expires)
    read = parse(signed.blob)
    assert read == signed
    assert isinstance(read, ValueRecord)
    assert (read.name, read.value) == (name, value)
    assert read.key == value_key(LOCAL, WHO.id, name)
    assert not read.is_goodbye


@given(seqs, expiries, st.text(min_size=1, max_size=20), statuses, endpoints, st.binary(max_size=MAX_MEMBER_DATA))
def test_a_membership_is_read_as_it_was_signed(
    seq: int, expires: int, topic: str, status: str, where: list[Address], data: bytes
) -> None:
    signed = membership(topic=topic, seq=seq, expires=expires, status=status, endpoints=tuple(where), data=data)
    read = parse(signed.blob)
    assert read == signed
    assert isinstance(read, MembershipRecord)
    assert (read.topic, read.status, read.endpoints, read.data) == (topic, status, tuple(where), data)
    assert read.key == topic_key(LOCAL, topic)
    assert read.is_goodbye == (status == GONE)


def test_a_topic_has_one_key_for_all_its_members_and_another_in_each_network() -> None:
    assert membership(identity(0)).key == membership(identity(1)).key
    keys = {topic_key(network, topic) for network in (LOCAL, OTHER) for topic in ("a", "b", "ab")}
    assert len(keys) == 6


def test_each_identity_name_kind_and_network_has_a_key_of_its_own() -> None:
    keys = [
        make(network, who.id)
        for network in (LOCAL, OTHER)
        for who in (identity(0), identity(1))
        for make in (presence_key, lambda n, w: value_key(n, w, "a"), lambda n, w: value_key(n, w, "b"))
    ]
    assert len(set(keys)) == 12
    assert {len(key) for key in keys} == {20}


def test_a_record_is_no_larger_than_half_a_kilobyte() -> None:
    most = MAX_RECORD - len(value_record(value=bytes(300)).blob) + 300
    assert len(value_record(value=bytes(most)).blob) == MAX_RECORD
    assert parse(value_record(value=bytes(most)).blob).seq == 1
    with pytest.raises(MessageTooLarge, match="at most 512 bytes, this would have 513"):
        value_record(value=bytes(most + 1))
    with pytest.raises(MessageTooLarge):
        presence(
            status="é" * 32, capabilities=tuple("ü" * 16 for _ in range(8)), endpoints=(Address("fd00::1", 4000),) * 4
        )
    too_long = signed_by_hand(WHO, 2, encode([*fields(value_record(value=b""))[:6], bytes(most + 1)]))
    assert refusal(too_long) == "bad_size"


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": ""},
        {"status": "x" * 33},
        {"capabilities": ("x",) * 9},
        {"capabilities": ("",)},
        {"capabilities": ("x" * 17,)},
        {"endpoints": (Address("10.0.0.1", 4000),) * 5},
        {"incarnation": b"seven b"},
        {"incarnation": b"nine byte"},
        {"seq": -1},
        {"expires": -1},
        {"status": "\ud800"},
    ],
    ids=str,
)
def test_what_nobody_would_read_is_not_signed(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are msgspec's
        presence(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seq": 2**64},
        {"expires": 2**64},
        {"endpoints": (Address("10.0.0.1", 70000),)},
        {"endpoints": (Address("host.example", 4000),)},
    ],
    ids=str,
)
def test_a_field_that_msgpack_or_an_address_cannot_hold_is_a_valueerror_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        presence(**wrong)


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_name_has_1_to_64_characters(name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        value_record(name)
    assert parse(value_record("x" * 64).blob).key == value_key(LOCAL, WHO.id, "x" * 64)


# --- nothing else is believed ---

SIGNED = [
    presence(endpoints=(Address("10.0.0.1", 4000),), capabilities=("relay",)),
    presence(status=GONE),
    value_record(),
    membership(endpoints=(Address("10.0.0.1", 4000),), data=b"flute"),
]


@pytest.mark.parametrize("record", SIGNED, ids=["presence", "goodbye", "value", "membership"])
def test_every_single_bit_counts(record: Record) -> None:
    parser = RecordParser(LOCAL)
    assert parser.parse(record.blob, NOW) == record
    number, size = int.from_bytes(record.blob, "big"), len(record.blob)
    for bit in range(8 * size):
        with pytest.raises(RecordError):
            parser.parse((number ^ 1 << bit).to_bytes(size, "big"), NOW)


@pytest.mark.parametrize("record", SIGNED, ids=["presence", "goodbye", "value", "membership"])
def test_every_truncation_is_refused(record: Record) -> None:
    for length in range(len(record.blob)):
        refusal(record.blob[:length])


@given(st.sampled_from(SIGNED), st.binary(min_size=1, max_size=40), st.data())
def test_every_insertion_is_refused(record: Record, more: bytes, data: st.DataObject) -> None:
    refusal(record.blob + more)
    refusal(more + record.blob)
    at = data.draw(st.integers(1, len(record.blob) - 1))
    refusal(record.blob[:at] + more + record.blob[at:])


@given(st.binary(max_size=600))
def test_garbage_is_refused(data: bytes) -> None:
    refusal(data)
    refusal(b"\x01\x01" + data)
    refusal(b"\x01\x02" + data)
    refusal(b"\x01\x03" + data)


@given(st.binary(max_size=100), st.integers(0, 255))
def test_a_signature_over_garbage_makes_it_no_record(payload: bytes, kind: int) -> None:
    refusal(signed_by_hand(WHO, kind, payload))


def test_a_record_of_another_network_is_refused() -> None:
    assert refusal(presence(network=OTHER).blob) == "bad_signature"
    certified = NetworkConfig(name=LOCAL.name, authority_key=identity(7).id.key)
    assert refusal(presence(network=certified).blob) == "bad_signature"


def test_a_record_of_another_kind_is_refused() -> None:
    # The payload of one kind under the header of the other; and one that could be read as both.
    blob = value_record().blob
    assert refusal(blob[:1] + b"\x01" + blob[2:]) == "malformed"
    both = encode([0, WHO.id.key, 1, bytes(8), NOW + 60, "name", b"", []])
    assert isinstance(parse(signed_by_hand(WHO, 2, both)), ValueRecord)
    ambiguous = signed_by_hand(WHO, 1, encode([0, WHO.id.key, 1, bytes(8), NOW + 60, "online", [], []]))
    assert isinstance(parse(ambiguous), PresenceRecord)
    assert refusal(ambiguous[:1] + b"\x02" + ambiguous[2:]) in ("malformed", "bad_signature")
    assert refusal(signed_by_hand(WHO, 3, both)) == "malformed"
    assert refusal(signed_by_hand(WHO, 4, both)) == "unknown_kind"
    member = membership().blob
    assert refusal(member[:1] + b"\x02" + member[2:]) == "malformed"


def test_a_signature_for_something_else_is_none_for_a_record() -> None:
    # Each context begins with words of its own, so that nothing signed elsewhere can be a record.
    record = presence()
    payload = record.blob[66:]
    for context in (b"", b"atonce challenge v1", b"atonce authenticate v1", b"atonce record v2"):
        signature = WHO.sign(context + b"\x01" + LOCAL.network_id + payload)
        assert refusal(b"\x01\x01" + signature + payload) == "bad_signature"
    without_kind = WHO.sign(b"atonce record v1" + LOCAL.network_id + payload)
    assert refusal(b"\x01\x01" + without_kind + payload) == "bad_signature"
    of_another = identity(1).sign(b"atonce record v1\x01" + LOCAL.network_id + payload)
    assert refusal(b"\x01\x01" + of_another + payload) == "bad_signature"


def test_an_identity_that_is_no_key_is_refused() -> None:
    for key in (bytes(32), b"\x01" + bytes(31), b"\x02" + bytes(31)):
        payload = encode([0, key, 1, bytes(8), NOW + 60, "online", [], []])
        assert refusal(signed_by_hand(WHO, 1, payload)) == "bad_identity"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, -1),
        (0, 256),
        (1, bytes(31)),
        (2, -1),
        (2, 1.0),
        (2, "1"),
        (3, bytes(7)),
        (4, None),
        (5, ""),
        (5, "x" * 33),
        (5, b"online"),
        (6, [bytes(5)]),
        (6, [bytes(7)]),
        (6, [bytes(17)]),
        (6, [bytes(6)] * 5),
        (6, ["10.0.0.1:4000"]),
        (6, b""),
        (7, ["x"] * 9),
        (7, [""]),
        (7, ["x" * 17]),
        (7, {}),
    ],
    ids=str,
)
def test_a_field_of_another_type_or_size_is_refused_though_it_is_signed(field: int, value: object) -> None:
    payload: list[object] = [0, WHO.id.key, 1, bytes(8), NOW + 60, "online", [], []]
    payload[field] = value
    assert refusal(signed_by_hand(WHO, 1, encode(payload))) == "malformed"


@pytest.mark.parametrize("length", range(8))
def test_a_payload_that_ends_early_is_refused(length: int) -> None:
    payload = [0, WHO.id.key, 1, bytes(8), NOW + 60, "online", [], []][:length]
    assert refusal(signed_by_hand(WHO, 1, encode(payload))) == "malformed"


def test_a_newer_major_version_is_refused() -> None:
    blob = presence().blob
    for major in (0, 2, 255):
        assert refusal(bytes([major]) + blob[1:]) == "unknown_major"


# --- the bytes as received ---


@pytest.mark.parametrize("record", SIGNED[1:], ids=["goodbye", "value", "membership"])
def test_another_encoding_of_the_same_is_another_record_and_kept_as_it_came(
    record: AnyRecord,
) -> None:
    kind = record.blob[1]
    blob = signed_by_hand(WHO, kind, wide(fields(record)))
    assert blob[66:] != record.blob[66:]
    read = parse(blob)
    assert read.blob == blob
    assert (read.seq, read.expires, read.key, read.is_goodbye) == (
        record.seq,
        record.expires,
        record.key,
        record.is_goodbye,
    )
    # Where both are in the network, all nodes choose the same one.
    assert is_newer(read, record) != is_newer(record, read)
    # The signature is not one over the canonical form: to re-encode would be to destroy the record.
    assert refusal(blob[:66] + record.blob[66:]) == "bad_signature"


@given(
    st.lists(st.none() | st.integers(0, 2**64 - 1) | st.binary(max_size=40) | st.lists(st.text(max_size=5), max_size=3))
)
def test_fields_of_a_later_minor_version_are_kept_though_not_understood(more: list[object]) -> None:
    for record in SIGNED[1:]:
        payload = encode([7, *fields(record, *more)[1:]])
        if 66 + len(payload) <= MAX_RECORD:
            blob = signed_by_hand(WHO, record.blob[1], payload)
            read = parse(blob)
            assert read.blob == blob
            assert (read.seq, read.key) == (record.seq, record.key)


def test_addresses_that_a_network_does_not_accept_are_left_out() -> None:
    where = (
        Address("10.0.0.1", 4000),
        Address("1.1.1.1", 4000),
        Address("fd00::1", 4000),
        Address("1.1.1.1", 80),
    )
    at_home = presence(endpoints=where)
    assert at_home.endpoints == where[:3]
    assert parse(at_home.blob) == at_home
    outside = presence(network=PUBLIC, endpoints=where)
    read = parse(outside.blob, network=PUBLIC)
    assert isinstance(read, PresenceRecord)
    assert read.endpoints == (Address("1.1.1.1", 4000),)
    # They are left out of what we dial, not of what we pass on.
    assert read.blob == outside.blob
    never = presence(
        endpoints=(Address("224.0.0.251", 5353), Address("0.0.0.0", 4000), Address("::ffff:10.0.0.1", 4000))
    )
    assert never.endpoints == ()


# --- time ---


def test_a_record_is_over_at_its_expiry() -> None:
    blob = presence(expires=NOW + 10).blob
    assert parse(blob, NOW + 9.99).expires == NOW + 10
    assert refusal(blob, NOW + 10) == "expired"
    assert refusal(blob, NOW + 1000) == "expired"
    assert parse(blob, None).expires == NOW + 10


@pytest.mark.parametrize(("status", "longest"), [("online", LIFE + SKEW), (GONE, LIFE + 2 * SKEW)])
def test_a_record_may_not_claim_a_longer_life_than_its_network_allows(status: str, longest: int) -> None:
    assert parse(presence(expires=NOW + longest, status=status).blob).expires == NOW + longest
    too_long = presence(expires=NOW + longest + 1, status=status).blob
    assert refusal(too_long) == "lives_too_long"
    assert parse(too_long, NOW + 1).expires == NOW + longest + 1
    assert refusal(presence(expires=2**64 - 1, status=status).blob) == "lives_too_long"


def test_a_goodbye_is_kept_longer_than_what_it_ended() -> None:
    assert presence().life_limit_s(LIFE) == LIFE
    assert presence(status=GONE).life_limit_s(LIFE) == LIFE + SKEW
    assert value_record(GONE).life_limit_s(LIFE) == LIFE


def test_only_a_presence_will_do_where_a_presence_is_asked_for() -> None:
    parser = RecordParser(LOCAL)
    assert parser.parse_presence(presence().blob, NOW) == presence()
    with pytest.raises(RecordError, match="not_presence"):
        parser.parse_presence(value_record().blob, NOW)
    with pytest.raises(RecordError, match="expired"):
        parser.parse_presence(presence().blob, NOW + 7200)


# --- what was verified once ---


def test_a_signature_is_verified_once_and_the_clock_looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[PeerId] = []
    verify = PeerId.verify

    def counting(self: PeerId, signature: bytes, message: bytes) -> bool:
        verified.append(self)
        return verify(self, signature, message)

    monkeypatch.setattr(PeerId, "verify", counting)
    parser = RecordParser(LOCAL, Memo(3))
    first, others = value_record("first", expires=NOW + 100), [value_record(f"{number}") for number in range(3)]

    for _ in range(5):
        parser.parse(first.blob, NOW)
    assert len(verified) == 1
    with pytest.raises(RecordError, match="expired"):
        parser.parse(first.blob, NOW + 100)
    with pytest.raises(RecordError, match="lives_too_long"):
        parser.parse(first.blob, NOW - 2 * LIFE)

    # What was asked for last stays; what was not needed for longest is forgotten, and so the memory is bounded.
    parser.parse(others[0].blob, NOW)
    parser.parse(others[1].blob, NOW)
    parser.parse(first.blob, NOW)
    parser.parse(others[2].blob, NOW)
    assert len(verified) == 4
    parser.parse(first.blob, NOW)
    assert len(verified) == 4
    parser.parse(others[0].blob, NOW)
    assert len(verified) == 5


def test_parsers_that_share_a_memo_verify_a_record_once_for_each_network(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[bytes] = []
    verify = PeerId.verify

    def counting(self: PeerId, signature: bytes, message: bytes) -> bool:
        verified.append(signature)
        return verify(self, signature, message)

    monkeypatch.setattr(PeerId, "verify", counting)
    memo: RecordMemo = Memo(10)
    record = presence()
    one, two, alone = RecordParser(LOCAL, memo), RecordParser(LOCAL, memo), RecordParser(LOCAL)
    assert one.parse(record.blob, NOW) is two.parse(record.blob, NOW)
    assert len(verified) == 1
    assert alone.parse(record.blob, NOW) == record
    assert len(verified) == 2
    with pytest.raises(RecordError, match="bad_signature"):
        RecordParser(replace(LOCAL, name="another"), memo).parse(record.blob, NOW)


def test_what_a_local_network_believes_the_internet_reads_for_itself() -> None:
    # The same name and bytes, but private endpoints are accepted in one of them only.
    memo: RecordMemo = Memo(10)
    record = presence(endpoints=(Address("10.0.0.1", 4000), Address("1.1.1.1", 4000)))
    local = RecordParser(LOCAL, memo).parse_presence(record.blob, NOW)
    public = RecordParser(replace(LOCAL, local=False), memo).parse_presence(record.blob, NOW)
    assert len(local.endpoints) == 2
    assert public.endpoints == (Address("1.1.1.1", 4000),)


def test_what_is_refused_is_not_remembered() -> None:
    parser = RecordParser(LOCAL)
    blob = bytearray(presence().blob)
    blob[10] ^= 1
    for _ in range(2):
        with pytest.raises(RecordError, match="bad_signature"):
            parser.parse(bytes(blob), NOW)


# --- which of two is newer ---

forks = st.builds(
    lambda seq, gone, number: presence(
        seq=seq, status=GONE if gone else "online", incarnation=number.to_bytes(8, "big")
    ),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 5),
)


@given(forks, forks)
def test_of_two_records_exactly_one_is_newer(one: PresenceRecord, two: PresenceRecord) -> None:
    assert is_newer(one, two) + is_newer(two, one) == (one.blob != two.blob)
    assert not is_newer(one, one)
    assert is_newer(one, None)


@given(forks, forks, forks)
def test_newer_than_newer_is_newer(one: PresenceRecord, two: PresenceRecord, three: PresenceRecord) -> None:
    if is_newer(one, two) and is_newer(two, three):
        assert is_newer(one, three)


@settings(max_examples=40)
@given(st.lists(forks, min_size=2, max_size=4))
def test_whatever_the_order_of_arrival_the_same_record_wins(arrivals: list[PresenceRecord]) -> None:
    winners = set()
    for order in itertools.permutations(arrivals):
        held: PresenceRecord | None = None
        for record in order:
            if is_newer(record, held):
                held = record
        assert held is not None
        winners.add(held.blob)
    assert len(winners) == 1


def test_two_signatures_over_one_payload_say_the_same() -> None:
    # RFC 8032 derives the nonce from the message, but whoever holds the key may choose another one. Neither record is
    # newer, so nobody can be made to pass on one after the other.
    record = presence()
    payload = record.blob[66:]
    message = b"atonce record v1\x01" + LOCAL.network_id + payload
    hashed = hashlib.sha512(WHO.secret_seed).digest()
    secret = bytes([hashed[0] & 248]) + hashed[1:31] + bytes([hashed[31] & 127 | 64])
    nonce = sodium.crypto_core_ed25519_scalar_reduce(bytes(range(64)))
    point = sodium.crypto_scalarmult_ed25519_base_noclamp(nonce)
    challenge = sodium.crypto_core_ed25519_scalar_reduce(hashlib.sha512(point + WHO.id.key + message).digest())
    product = sodium.crypto_core_ed25519_scalar_mul(
        challenge, sodium.crypto_core_ed25519_scalar_reduce(secret + bytes(32))
    )
    other = parse(b"\x01\x01" + point + sodium.crypto_core_ed25519_scalar_add(nonce, product) + payload)
    assert other.blob != record.blob
    assert not is_newer(other, record)
    assert not is_newer(record, other)


def test_higher_seq_then_goodbye_then_lower_hash() -> None:
    assert is_newer(presence(seq=2), presence(seq=1, status=GONE))
    assert is_newer(presence(seq=2**64 - 1), presence(seq=2**64 - 2))
    for number in range(10):
        gone = presence(status=GONE, incarnation=number.to_bytes(8, "big"))
        assert is_newer(gone, presence())
    one, two = presence(incarnation=bytes(8)), presence(incarnation=b"\x01" + bytes(7))
    hashes = [hashlib.blake2b(record.blob[66:], digest_size=32).digest() for record in (one, two)]
    assert is_newer(one, two) == (hashes[0] < hashes[1])
    assert [one.tie_hash, two.tie_hash] == hashes
