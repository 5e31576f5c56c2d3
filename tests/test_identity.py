"""Identities, PeerIds, node keys: what is accepted as a key, and what people may mistype."""

import hashlib
import random

import nacl.bindings as sodium
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.errors import PeerIdError
from dht_atonce.identity import Identity, NodeKey, PeerId, node_id

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the prime-order subgroup, which every honest key is in."""
FIELD = 2**255 - 19

# The eight points of small order, y as libsodium writes it (Cremers and Jackson, "Prime, Order Please!", 2019).
SMALL_ORDER = [
    bytes(32),
    bytes([1]) + bytes(31),
    (FIELD - 1).to_bytes(32, "little"),
    bytes(31) + b"\x80",
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
]

secret_seeds = st.binary(min_size=32, max_size=32)
identities = st.builds(Identity, secret_seeds)


def identity(number: int) -> Identity:
    return Identity.generate(random.Random(number))


def negative(key: bytes) -> bytes:
    """−A: the same y, the other sign of x."""
    return key[:31] + bytes([key[31] ^ 0x80])


# --- PeerId: which keys ---


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
def test_a_point_of_small_order_is_refused(key: bytes) -> None:
    with pytest.raises(PeerIdError, match="not a valid Ed25519 public key"):
        PeerId(key)


@pytest.mark.parametrize("torsion", SMALL_ORDER[2:], ids=bytes.hex)
def test_a_point_of_mixed_order_is_refused(torsion: bytes) -> None:
    # It has a small-order part: a signature under it may hold for one verifier and not for another.
    mixed = sodium.crypto_core_ed25519_add(identity(1).id.key, torsion)
    with pytest.raises(PeerIdError):
        PeerId(mixed)


def test_a_point_off_the_curve_is_refused() -> None:
    # 2 is no y of a point on the curve.
    with pytest.raises(PeerIdError):
        PeerId(bytes([2]) + bytes(31))


def test_a_second_encoding_of_a_point_is_refused() -> None:
    # y and y + p are one coordinate, and both fit into 255 bits only where y < 19. None of these is an honest key in
    # its canonical form either; so nobody can be found under two names.
    for y in range(19):
        with pytest.raises(PeerIdError):
            PeerId((y + FIELD).to_bytes(32, "little"))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(PeerIdError):
        PeerId(bytes(length))


@given(identities)
def test_what_an_identity_has_is_accepted(who: Identity) -> None:
    assert PeerId(who.id.key) == who.id


@given(identities)
def test_a_key_and_its_negative_are_two_peers_with_one_curve_key(who: Identity) -> None:
    # Why a link, which proves a curve key, does not say who is at its other end.
    other = PeerId(negative(who.id.key))
    assert other != who.id
    assert str(other) != str(who.id)
    assert other.curve_key == who.id.curve_key


@given(identities)
def test_the_curve_secret_belongs_to_the_curve_key(who: Identity) -> None:
    assert sodium.crypto_scalarmult_base(who.curve_secret) == who.id.curve_key


# --- PeerId: text ---


@given(identities)
def test_text_and_back(who: Identity) -> None:
    text = str(who.id)
    assert len(text) == 56
    assert set(text) <= set(ALPHABET)
    assert PeerId.parse(text) == who.id
    assert PeerId.parse(f"  {text.upper()}\n") == who.id
    assert text.startswith(who.id.short)


def test_the_text_is_as_specified() -> None:
    # docs/wire.md section 1, spelt out: what another implementation would do.
    key = identity(1).id.key
    checksum = hashlib.blake2b(b"atonce peer id" + key + b"\x01", digest_size=2).digest()
    number = int.from_bytes(key + checksum + b"\x01", "big")
    letters = "".join(ALPHABET[number >> shift & 31] for shift in range(275, -1, -5))
    assert str(PeerId(key)) == letters


@pytest.mark.parametrize("number", range(8))
def test_every_single_typo_is_refused(number: int) -> None:
    # All 56 × 31 of them. The checksum has 16 bits, and one key in 16 is a valid point: of a million typos one passes,
    # which is why these are fixed identities and not random ones.
    text = str(identity(number).id)
    for position, right in enumerate(text):
        for wrong in ALPHABET:
            if wrong != right:
                with pytest.raises(PeerIdError):
                    PeerId.parse(text[:position] + wrong + text[position + 1 :])


@pytest.mark.parametrize("number", range(64))
def test_every_swap_of_neighbours_is_refused(number: int) -> None:
    text = str(identity(number).id)
    for i in range(55):
        if text[i] != text[i + 1]:
            with pytest.raises(PeerIdError):
                PeerId.parse(text[:i] + text[i + 1] + text[i] + text[i + 2 :])


@given(identities, st.integers(0, 55), st.characters())
def test_a_character_that_is_no_letter_of_ours_is_refused(who: Identity, position: int, wrong: str) -> None:
    text = str(who.id)
    if wrong.isascii() and wrong.lower() in ALPHABET:
        return
    with pytest.raises(PeerIdError):
        PeerId.parse(text[:position] + wrong + text[position + 1 :])


@pytest.mark.parametrize(("letter", "look_alike"), [("i", "ı"), ("s", "ſ")])
def test_letters_that_only_become_ours_in_upper_case_are_refused(letter: str, look_alike: str) -> None:
    # "ſ".upper() is "S": one PeerId shall not have spellings that compare as different.
    text = next(str(identity(n).id) for n in range(100) if letter in str(identity(n).id))
    with pytest.raises(PeerIdError):
        PeerId.parse(text.replace(letter, look_alike, 1))


def test_the_message_says_what_is_wrong() -> None:
    text = str(identity(1).id)
    with pytest.raises(PeerIdError, match="has 56 characters, this has 55"):
        PeerId.parse(text[:-1])
    with pytest.raises(PeerIdError, match="only the letters a-z and the digits 2-7"):
        PeerId.parse("0" + text[1:])
    with pytest.raises(PeerIdError, match="checksum does not fit"):
        PeerId.parse(("b" if text[0] == "a" else "a") + text[1:])
    with pytest.raises(PeerIdError, match="version 2"):
        PeerId.parse(text[:-1] + "c")


def test_an_invalid_key_with_a_right_checksum_is_refused() -> None:
    key = SMALL_ORDER[2]
    checksum = hashlib.blake2b(b"atonce peer id" + key + b"\x01", digest_size=2).digest()
    number = int.from_bytes(key + checksum + b"\x01", "big")
    text = "".join(ALPHABET[number >> shift & 31] for shift in range(275, -1, -5))
    with pytest.raises(PeerIdError, match="not a valid Ed25519 public key"):
        PeerId.parse(text)


# --- signatures ---


@given(identities, st.binary(max_size=200))
def test_a_signature_holds(who: Identity, message: bytes) -> None:
    signature = who.sign(message)
    assert len(signature) == 64
    assert who.id.verify(signature, message)


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_signature_does_not_hold_for_anything_else(message: bytes, data: st.DataObject) -> None:
    who, other = identity(1), identity(2)
    signature = who.sign(message)
    bit = data.draw(st.integers(0, len(message) * 8 - 1))
    flipped = (int.from_bytes(message, "big") ^ 1 << bit).to_bytes(len(message), "big")
    assert not who.id.verify(signature, flipped)
    assert not other.id.verify(signature, message)
    assert not PeerId(negative(who.id.key)).verify(signature, message)


@given(st.binary(min_size=1, max_size=64), st.integers(0, 63))
def test_a_signature_of_another_length_does_not_hold(message: bytes, cut: int) -> None:
    # The border between signature and message must not be movable.
    who = identity(1)
    signature = who.sign(message)
    assert not who.id.verify(signature[:cut], signature[cut:] + message)
    assert not who.id.verify(signature + message[:1], message[1:])
    assert not who.id.verify(b"", signature + message)


def test_signatures_are_ed25519() -> None:
    # RFC 8032 section 7.1, test 1.
    who = Identity(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert who.id.key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert who.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655"
        "141438e7a100b"
    )


def test_a_malleable_signature_does_not_hold() -> None:
    # S and S + order are the same scalar; only the smaller one is a signature (RFC 8032 section 5.1.7).
    who = identity(1)
    signature = who.sign(b"message")
    scalar = int.from_bytes(signature[32:], "little")
    assert not who.id.verify(signature[:32] + (scalar + ORDER).to_bytes(32, "little"), b"message")


# --- identities and node keys ---


def test_an_identity_comes_from_the_given_randomness_alone() -> None:
    assert identity(7).id == identity(7).id
    assert identity(7).id != identity(8).id
    assert Identity(identity(7).secret_seed).id == identity(7).id


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_secret_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(PeerIdError, match=f"has 32 bytes, this has {length}"):
        Identity(bytes(length))


def test_no_secret_is_shown() -> None:
    # What is printed or logged by accident.
    who, node = identity(7), NodeKey.generate(random.Random(7))
    for shown in (repr(who), repr(who.id), str(who.id), repr(node), str(node)):
        assert who.secret_seed.hex()[:8] not in shown
        assert node.secret.hex()[:8] not in shown
        assert repr(who.secret_seed)[2:10] not in shown


def test_a_node_key_is_an_x25519_pair() -> None:
    # RFC 7748 section 6.1: Bob's.
    bob = NodeKey(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert NodeKey.generate(random.Random(3)).public == NodeKey.generate(random.Random(3)).public
    assert NodeKey.generate(random.Random(3)).public != NodeKey.generate(random.Random(4)).public


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_node_secret_of_another_length_is_refused(length: int) -> None:
    # libsodium reads 32 bytes whatever it is given: from a short file the key would be made of foreign memory.
    with pytest.raises(ValueError, match="32"):
        NodeKey(bytes(length))


def test_a_node_id_is_the_hash_of_the_key_and_the_salt() -> None:
    node = NodeKey.generate(random.Random(3))
    assert node.id == node_id(node.public) == hashlib.blake2b(node.public, digest_size=20).digest()
    assert len(node.id) == 20
    assert node_id(node.public, b"salted!!") == hashlib.blake2b(node.public + b"salted!!", digest_size=20).digest()


@pytest.mark.parametrize("padding", [1, 3, 4, 6])
def test_padding_stands_for_no_letters(padding: int) -> None:
    # base32 knows padding, and gives fewer bytes for it.
    text = str(identity(1).id)
    with pytest.raises(PeerIdError, match="only the letters a-z and the digits 2-7"):
        PeerId.parse(text[:-padding] + "=" * padding)
