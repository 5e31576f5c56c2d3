"""Sealed datagrams: a conversation of two sealers, and those who listen in, change, reflect and replay."""

import hashlib

import nacl.bindings as sodium
import nacl.secret
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import LOCAL, node_key

from dht_atonce.datagrams import MAX_DATAGRAM
from dht_atonce.dht.sealing import (
    MIN_UNPROVED_FIND,
    Opened,
    PacketType,
    Sealer,
    answer_key_request,
    key_request,
    read_key_reply,
)
from dht_atonce.errors import WireError
from dht_atonce.identity import NodeKey

NONCE = bytes(range(24))
COOKIE = bytes(range(100, 116))
NETWORK = LOCAL.network_id
ALICE, BOB, EVE = node_key(1), node_key(2), node_key(3)

# All points of small order on the curve and its twist, each also with the ignored top bit set (RFC 7748 section 6.1;
# the list is that of libsodium's blacklist).
SMALL_ORDER = [
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
]

ZERO_PAIR = bytes.fromhex("351f86faa3b988468a850122b65b0acece9c4826806aeee63de9c0da2bd7f91e")
"""HSalsa20 of nothing but zeros: the pair key that all the world would share with a point of small order."""

bodies = st.binary(max_size=300)
kinds = st.sampled_from([PacketType.REQUEST, PacketType.REPLY])


def sealer(of: NodeKey, network_id: bytes = NETWORK, max_pairs: int = 100) -> Sealer:
    return Sealer(of, network_id, max_pairs)


def by_hand(sender: NodeKey, to: bytes, wire_type: int, content: bytes, cookie: bytes = b"") -> bytes:
    """docs/wire.md section 3 with other people's primitives, and any content: what a malicious sender can make."""
    pair = sodium.crypto_box_beforenm(to, sender.secret)
    key = hashlib.blake2b(pair + sender.public + to + NETWORK, digest_size=32).digest()
    box = nacl.secret.SecretBox(key).encrypt(content, NONCE).ciphertext
    return bytes([1, wire_type]) + sender.public + NONCE + cookie + box


# --- a conversation ---


@given(bodies, bodies, st.binary(min_size=24, max_size=24))
def test_a_request_and_its_reply(question: bytes, answer: bytes, nonce: bytes) -> None:
    alice, bob = sealer(ALICE), sealer(BOB)
    request = alice.seal(PacketType.REQUEST, BOB.public, question, nonce)
    heard = bob.open(request)
    assert heard == Opened(PacketType.REQUEST, ALICE.public, b"", question)

    reply = bob.seal(PacketType.REPLY, heard.sender, answer, nonce)
    assert alice.open(reply) == Opened(PacketType.REPLY, BOB.public, b"", answer)

    with_cookie = alice.seal(PacketType.REQUEST, BOB.public, question, nonce, COOKIE)
    assert len(with_cookie) == len(request) + 16
    assert bob.open(with_cookie) == Opened(PacketType.REQUEST, ALICE.public, COOKIE, question)


@given(bodies, kinds)
def test_the_bytes_are_as_specified(body: bytes, kind: PacketType) -> None:
    sealed = sealer(ALICE).seal(kind, BOB.public, body, NONCE)
    content = bytes([kind]) + len(body).to_bytes(2, "big") + body
    assert sealed == by_hand(ALICE, BOB.public, kind, content)


@given(bodies, st.integers(0, 1232))
def test_padding_makes_it_longer_and_says_nothing(body: bytes, min_size: int) -> None:
    plain = sealer(ALICE).seal(PacketType.REQUEST, BOB.public, body, NONCE)
    padded = sealer(ALICE).seal(PacketType.REQUEST, BOB.public, body, NONCE, min_size=min_size)
    assert len(padded) == max(len(plain), min_size)
    assert sealer(BOB).open(padded).body == body


def test_three_times_a_padded_find_is_a_whole_datagram() -> None:
    assert 3 * (MIN_UNPROVED_FIND - 1) < MAX_DATAGRAM <= 3 * MIN_UNPROVED_FIND


def test_a_datagram_has_at_most_1232_bytes() -> None:
    alice = sealer(ALICE)
    assert len(alice.seal(PacketType.REQUEST, BOB.public, bytes(1155), NONCE)) == 1232
    assert sealer(BOB).open(alice.seal(PacketType.REQUEST, BOB.public, bytes(1139), NONCE, COOKIE)).body == bytes(1139)
    with pytest.raises(WireError, match="too large"):
        alice.seal(PacketType.REQUEST, BOB.public, bytes(1156), NONCE)
    with pytest.raises(WireError, match="too large"):
        alice.seal(PacketType.REQUEST, BOB.public, bytes(1140), NONCE, COOKIE)


# --- what is not opened ---


def test_a_packet_sent_back_to_its_sender_is_refused() -> None:
    alice, bob = sealer(ALICE), sealer(BOB)
    sealed = alice.seal(PacketType.REQUEST, BOB.public, b"whoami", NONCE)
    bob.open(sealed)
    with pytest.raises(WireError, match="our own key"):
        alice.open(sealed)
    # And with Bob's name on it: the two directions have two keys.
    with pytest.raises(WireError, match="does not open"):
        alice.open(sealed[:2] + BOB.public + sealed[34:])


def test_a_packet_for_somebody_else_is_refused() -> None:
    sealed = sealer(ALICE).seal(PacketType.REQUEST, BOB.public, b"for Bob", NONCE)
    with pytest.raises(WireError, match="does not open"):
        sealer(EVE).open(sealed)


def test_a_packet_under_another_name_is_refused() -> None:
    sealed = sealer(EVE).seal(PacketType.REQUEST, BOB.public, b"I am Alice", NONCE)
    with pytest.raises(WireError, match="does not open"):
        sealer(BOB).open(sealed[:2] + ALICE.public + sealed[34:])


@given(st.binary(min_size=16, max_size=16))
def test_a_packet_of_another_network_is_refused(network_id: bytes) -> None:
    sealed = sealer(ALICE).seal(PacketType.REQUEST, BOB.public, b"hello", NONCE)
    if network_id != NETWORK:
        with pytest.raises(WireError, match="does not open"):
            sealer(BOB, network_id).open(sealed)


@given(bodies, st.booleans(), st.integers(1, 255), st.data())
def test_a_packet_changed_anywhere_is_refused(body: bytes, proved: bool, change: int, data: st.DataObject) -> None:
    sealed = bytearray(sealer(ALICE).seal(PacketType.REQUEST, BOB.public, body, NONCE, COOKIE if proved else b""))
    # Byte 0 is the version, which the protocol looks at; the cookie is no secret and is checked by whoever issued it.
    cookie = range(58, 74) if proved else range(0)
    at = data.draw(st.integers(1, len(sealed) - 1).filter(lambda at: at not in cookie))
    sealed[at] ^= change
    with pytest.raises(WireError):
        sealer(BOB).open(bytes(sealed))


def test_every_truncation_and_extension_is_refused() -> None:
    for cookie in (b"", COOKIE):
        sealed = sealer(ALICE).seal(PacketType.REQUEST, BOB.public, b"hello", NONCE, cookie)
        for length in range(58, len(sealed)):
            with pytest.raises(WireError):
                sealer(BOB).open(sealed[:length])
        with pytest.raises(WireError):
            sealer(BOB).open(sealed + b"\0")


@given(st.binary(min_size=58, max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        sealer(BOB).open(data)
    with pytest.raises(WireError):
        sealer(BOB).open(b"\x01\x01" + ALICE.public + data)


@pytest.mark.parametrize("wire_type", [0, 3, 4, 5, 6, 0x80, 0x82, 0x83, 0x84, 0x85, 0xFF])
def test_a_type_that_is_not_sealed_is_not_opened(wire_type: int) -> None:
    content = bytes([wire_type & 0x7F]) + b"\0\0"
    for cookie in (b"", COOKIE):
        with pytest.raises(WireError, match="unknown type"):
            sealer(BOB).open(by_hand(ALICE, BOB.public, wire_type, content, cookie))


@pytest.mark.parametrize(("outside", "inside"), [(1, 2), (2, 1), (0x81, 2), (0x81, 0x81), (1, 0x81), (1, 0), (2, 4)])
def test_the_type_in_the_box_must_be_that_of_the_header(outside: int, inside: int) -> None:
    cookie = COOKIE if outside & 0x80 else b""
    with pytest.raises(WireError, match="box and header differ"):
        sealer(BOB).open(by_hand(ALICE, BOB.public, outside, bytes([inside]) + b"\0\0", cookie))


@pytest.mark.parametrize("length", [1, 2, 300, 0xFFFF])
def test_a_body_longer_than_its_box_is_refused(length: int) -> None:
    content = b"\x01" + length.to_bytes(2, "big") + bytes(length - 1 if length < 100 else 100)
    with pytest.raises(WireError, match="box and header differ"):
        sealer(BOB).open(by_hand(ALICE, BOB.public, 1, content))


@pytest.mark.parametrize("content", [b"", b"\x01", b"\x01\x00"], ids=bytes.hex)
def test_a_box_without_a_body_length_is_refused(content: bytes) -> None:
    with pytest.raises(WireError, match="too short"):
        sealer(BOB).open(by_hand(ALICE, BOB.public, 1, content))


@pytest.mark.parametrize("key", [*SMALL_ORDER, *(k[:31] + bytes([k[31] | 0x80]) for k in SMALL_ORDER)], ids=bytes.hex)
def test_a_key_of_small_order_cannot_be_used(key: bytes) -> None:
    # With it the shared key would be zero, and everybody could speak in its name.
    bob = sealer(BOB)
    with pytest.raises(WireError, match="unusable key"):
        bob.seal(PacketType.REQUEST, key, b"", NONCE)
    directional = hashlib.blake2b(ZERO_PAIR + key + BOB.public + NETWORK, digest_size=32).digest()
    box = nacl.secret.SecretBox(directional).encrypt(b"\x01\0\0", NONCE).ciphertext
    with pytest.raises(WireError, match="unusable key"):
        bob.open(b"\x01\x01" + key + NONCE + box)


# --- cached keys ---


def test_keys_are_computed_once_and_a_bounded_number_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[bytes] = []
    beforenm = sodium.crypto_box_beforenm

    def counting(public: bytes, secret: bytes) -> bytes:
        computed.append(public)
        return beforenm(public, secret)

    monkeypatch.setattr(sodium, "crypto_box_beforenm", counting)
    bob = sealer(BOB, max_pairs=3)
    others = [node_key(number) for number in range(10, 14)]

    def hear(number: int) -> None:
        bob.seal(PacketType.REPLY, others[number].public, b"", NONCE)

    for number in (0, 1, 2, 2, 1, 0):
        hear(number)
    assert len(computed) == 3
    hear(3)  # 2 was not used for longest and goes
    hear(0)
    hear(1)
    assert len(computed) == 4
    hear(2)
    assert len(computed) == 5
    # Both directions of a pair come from one computation.
    bob.open(sealer(others[2]).seal(PacketType.REQUEST, BOB.public, b"", NONCE))
    assert computed.count(others[2].public) == 2


# --- KEY, in plain text ---


def test_a_key_is_asked_for_and_told() -> None:
    request = key_request(NONCE, NETWORK)
    assert request == b"\x01\x03" + NONCE + NETWORK + bytes(54)
    assert len(request) == 96
    reply = answer_key_request(request, NETWORK, BOB.public)
    assert reply == b"\x01\x04" + NONCE + BOB.public
    assert len(reply) < len(request)
    assert read_key_reply(reply) == (NONCE, BOB.public)


def test_a_key_is_not_told_to_another_network_or_for_a_short_request() -> None:
    request = key_request(NONCE, NETWORK)
    with pytest.raises(WireError):
        answer_key_request(request, bytes(16), BOB.public)
    for wrong in (request[:-1], request + b"\0", request[:58]):
        with pytest.raises(WireError):
            answer_key_request(wrong, NETWORK, BOB.public)
    reply = answer_key_request(request, NETWORK, BOB.public)
    for wrong in (reply[:-1], reply + b"\0", b""):
        with pytest.raises(WireError):
            read_key_reply(wrong)
