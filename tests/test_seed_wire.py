"""The seed handshake's messages, and that what is signed binds every part: docs/wire.md section 5."""

import contextlib
import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_peers import NETWORK, identity

from dht_atonce.codec import decode, encode
from dht_atonce.config import NetworkConfig
from dht_atonce.discovery.seed_wire import (
    Authenticate,
    Challenge,
    ChallengeBody,
    Hello,
    Nope,
    NopeCode,
    Ok,
    SeedMessage,
    body_decoder,
    message_decoder,
    sign_authenticate,
    sign_challenge,
    verify_authenticate,
    verify_challenge,
)
from dht_atonce.errors import WireError
from dht_atonce.identity import NodeKey
from dht_atonce.records import MAX_RECORD

SEED, CLIENT, OTHER = identity(1), identity(2), identity(3)
NODE_KEY = NodeKey(bytes(range(32))).public

u8, u32, u64 = st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
bytes32, bytes64 = st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64)
text = st.text("az09 \x00\n\x7fé\u4e2d\U0001f600\uffff", max_size=64)
contacts = st.lists(st.binary(min_size=38, max_size=58), max_size=16)
messages = st.one_of(
    st.builds(Hello, u8, text),
    st.builds(Challenge, u8, st.binary(max_size=512), bytes64),
    st.builds(Authenticate, u8, bytes32, st.binary(max_size=MAX_RECORD), bytes64),
    st.builds(Ok, u8, contacts, contacts),
    st.builds(Nope, u8, u8, text),
)
ports = st.integers(0, 0xFFFF)
bodies = st.builds(
    ChallengeBody,
    u8,
    bytes32,
    text,
    st.sampled_from([b"", bytes(32)]),
    u8,
    st.booleans(),
    u32,
    u64,
    st.sampled_from([bytes(6), bytes(18)]),
    bytes32,
    st.tuples(ports, ports),
)


def read(data: bytes) -> SeedMessage:
    return decode(message_decoder, data)


# --- there and back ---


@given(messages)
def test_a_message_and_back(message: SeedMessage) -> None:
    assert read(encode(message)) == message


@given(bodies)
def test_a_challenge_s_body_and_back(body: ChallengeBody) -> None:
    assert decode(body_decoder, encode(body)) == body


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (Hello(0, "chess"), [1, 0, "chess"]),
        (Challenge(0, b"body", bytes(64)), [2, 0, b"body", bytes(64)]),
        (Authenticate(0, bytes(32), b"record", bytes(64)), [3, 0, bytes(32), b"record", bytes(64)]),
        (Ok(0, [bytes(38)], [bytes(50)]), [4, 0, [bytes(38)], [bytes(50)]]),
        (Nope(0, NopeCode.BUSY, "later"), [5, 0, 5, "later"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_messages_are_as_specified(message: SeedMessage, fields: list[Any]) -> None:
    data = msgspec.msgpack.encode(fields)
    assert encode(message) == data
    assert read(data) == message
    later = msgspec.msgpack.encode([*fields[:1], 7, *fields[2:], "what a later minor version appends"])
    assert encode(read(later)) == msgspec.msgpack.encode([*fields[:1], 7, *fields[2:]])


def test_a_challenge_s_body_is_as_specified() -> None:
    body = ChallengeBody(0, bytes(32), "n", b"", 20, True, 7200, 1_800_000_000_000, bytes(6), NODE_KEY, (4710, 0))
    fields = [0, bytes(32), "n", b"", 20, True, 7200, 1_800_000_000_000, bytes(6), NODE_KEY, [4710, 0]]
    assert encode(body) == msgspec.msgpack.encode(fields)


# --- what is refused ---


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [0, 0, ""],
        [6, 0, ""],
        ["1", 0, ""],
        [1, 0],
        [1, 0, b"name"],
        [1, 0, "x" * 65],
        [1, 256, ""],
        [2, 0, b"body", bytes(63)],
        [2, 0, bytes(513), bytes(64)],
        [3, 0, bytes(31), b"", bytes(64)],
        [3, 0, bytes(32), bytes(MAX_RECORD + 1), bytes(64)],
        [3, 0, bytes(32), b"", bytes(65)],
        [4, 0, [bytes(38)] * 17, []],
        [4, 0, [bytes(37)], []],
        [4, 0, [], [bytes(59)]],
        [4, 0, []],
        [5, 0, 256, ""],
        [5, 0, 1, "x" * 129],
    ],
    ids=repr,
)
def test_what_is_no_message_is_refused(fields: list[Any]) -> None:
    with pytest.raises(WireError):
        read(encode(fields))


@pytest.mark.parametrize(
    ("number", "wrong"),
    [
        (0, 256),
        (1, bytes(31)),
        (2, b"name"),
        (3, bytes(33)),
        (4, 256),
        (4, -1),
        (5, 1),
        (6, 2**32),
        (7, -1),
        (8, bytes(5)),
        (8, bytes(19)),
        (9, bytes(33)),
        (10, [4710]),
        (10, [4710, 65536]),
        (10, [4710, 0, 0]),
        (10, 4710),
    ],
)
def test_a_challenge_s_body_with_a_wrong_field_is_refused(number: int, wrong: Any) -> None:
    fields = [0, bytes(32), "n", b"", 20, True, 7200, 1, bytes(6), NODE_KEY, [4710, 0]]
    fields[number] = wrong
    with pytest.raises(WireError):
        decode(body_decoder, encode(fields))


@given(st.binary(max_size=300))
def test_bytes_are_read_or_refused_and_nothing_else(data: bytes) -> None:
    for decoder in (message_decoder, body_decoder):
        with contextlib.suppress(WireError):
            decode(decoder, data)


# --- the seed's signature ---


def challenge(body: bytes = b"body") -> Challenge:
    return Challenge(0, body, sign_challenge(SEED, CLIENT.id.curve_key, body))


def test_the_seed_s_signature_holds_and_is_as_specified() -> None:
    signed = challenge()
    assert verify_challenge(SEED.id, CLIENT.id.curve_key, signed)
    assert SEED.id.verify(signed.signature, b"atonce challenge v1" + CLIENT.id.curve_key + b"body")


def flipped(data: bytes, bit: int) -> bytes:
    """One bit is another."""
    number = int.from_bytes(data, "big") ^ (1 << bit % (8 * len(data)))
    return number.to_bytes(len(data), "big")


@given(st.integers(0, 10_000))
def test_the_seed_s_signature_covers_every_bit_of_the_body(bit: int) -> None:
    signed = challenge(bytes(range(100)))
    assert not verify_challenge(SEED.id, CLIENT.id.curve_key, Challenge(0, flipped(signed.body, bit), signed.signature))
    assert not verify_challenge(SEED.id, CLIENT.id.curve_key, Challenge(0, signed.body, flipped(signed.signature, bit)))


def test_the_seed_s_signature_is_for_one_client_and_by_one_seed() -> None:
    signed = challenge()
    assert not verify_challenge(SEED.id, OTHER.id.curve_key, signed)
    assert not verify_challenge(OTHER.id, CLIENT.id.curve_key, signed)


def test_a_body_that_was_cut_or_went_on_is_another_body() -> None:
    signed = challenge()
    for body in [b"bod", b"body\x00", b""]:
        assert not verify_challenge(SEED.id, CLIENT.id.curve_key, Challenge(0, body, signed.signature))


# --- the client's signature ---


def authenticated(body: bytes = b"body") -> Authenticate:
    signature = sign_authenticate(CLIENT, NETWORK.network_id, SEED.id, NODE_KEY, body)
    return Authenticate(0, NODE_KEY, b"record", signature)


def test_the_client_s_signature_holds_and_is_as_specified() -> None:
    message = authenticated()
    assert verify_authenticate(CLIENT.id, NETWORK.network_id, SEED.id, message, b"body")
    digest = hashlib.blake2b(b"body", digest_size=32).digest()
    signed = b"atonce authenticate v1" + NETWORK.network_id + SEED.id.key + CLIENT.id.curve_key + NODE_KEY + digest
    assert CLIENT.id.verify(message.signature, signed)


def test_the_client_s_signature_is_for_one_network_seed_challenge_and_node_key() -> None:
    message, network_id = authenticated(), NETWORK.network_id
    elsewhere = NetworkConfig.local_network("elsewhere").network_id
    other_node = Authenticate(0, NodeKey(bytes(32)).public, b"record", message.signature)
    assert not verify_authenticate(CLIENT.id, elsewhere, SEED.id, message, b"body")
    assert not verify_authenticate(CLIENT.id, network_id, OTHER.id, message, b"body")
    assert not verify_authenticate(OTHER.id, network_id, SEED.id, message, b"body")
    assert not verify_authenticate(CLIENT.id, network_id, SEED.id, message, b"another body")
    assert not verify_authenticate(CLIENT.id, network_id, SEED.id, other_node, b"body")


@given(st.integers(0, 10_000))
def test_a_client_s_signature_with_a_bit_changed_does_not_hold(bit: int) -> None:
    message = authenticated()
    changed = Authenticate(0, NODE_KEY, b"record", flipped(message.signature, bit))
    assert not verify_authenticate(CLIENT.id, NETWORK.network_id, SEED.id, changed, b"body")


def test_neither_signature_can_stand_for_the_other() -> None:
    # The contexts differ, so nobody can have the seed or a client sign one thing and show it as another.
    as_challenge = sign_challenge(CLIENT, CLIENT.id.curve_key, b"body")
    message = Authenticate(0, NODE_KEY, b"record", as_challenge)
    assert not verify_authenticate(CLIENT.id, NETWORK.network_id, SEED.id, message, b"body")
    as_answer = sign_authenticate(SEED, NETWORK.network_id, SEED.id, NODE_KEY, b"body")
    assert not verify_challenge(SEED.id, SEED.id.curve_key, Challenge(0, b"body", as_answer))
