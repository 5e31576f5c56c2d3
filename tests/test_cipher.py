"""The cipher behind sealed datagrams: boxes between two keys in one network, and the seam that makes them."""

import hashlib

import nacl.bindings as sodium
import nacl.secret
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import LOCAL, contact_of, node_key, start_node, virtual

from atonce_sim.world import World
from dht_atonce.cipher import TAG_SIZE, Cipher, SodiumCipher
from dht_atonce.dht.node import DhtNode
from dht_atonce.errors import WireError
from dht_atonce.host import Host
from dht_atonce.identity import NodeKey

NONCE = bytes(range(24))
NETWORK = LOCAL.network_id
ALICE, BOB, EVE = node_key(1), node_key(2), node_key(3)


def cipher(of: NodeKey, network_id: bytes = NETWORK, max_pairs: int = 100) -> SodiumCipher:
    return SodiumCipher(of, network_id, max_pairs)


@given(st.binary(max_size=300), st.binary(min_size=24, max_size=24))
def test_a_box_is_what_the_specification_says(content: bytes, nonce: bytes) -> None:
    pair = sodium.crypto_box_beforenm(BOB.public, ALICE.secret)
    key = hashlib.blake2b(pair + ALICE.public + BOB.public + NETWORK, digest_size=32).digest()
    box = cipher(ALICE).seal(content, nonce, BOB.public)
    assert box == nacl.secret.SecretBox(key).encrypt(content, nonce).ciphertext
    assert len(box) == len(content) + TAG_SIZE
    assert cipher(BOB).open(box, nonce, ALICE.public) == content


def test_a_box_opens_for_its_recipient_as_its_senders_in_its_network_only() -> None:
    box = cipher(ALICE).seal(b"hello", NONCE, BOB.public)
    for other, sender, nonce in (
        (cipher(EVE), ALICE, NONCE),
        (cipher(BOB), EVE, NONCE),
        (cipher(BOB, bytes(16)), ALICE, NONCE),
        (cipher(ALICE), BOB, NONCE),  # sent back to where it came from
        (cipher(BOB), ALICE, bytes(24)),
    ):
        with pytest.raises(WireError, match="does not open"):
            other.open(box, nonce, sender.public)


@given(st.integers(0, 20), st.integers(1, 255))
def test_a_box_that_was_changed_or_cut_does_not_open(at: int, change: int) -> None:
    box = cipher(ALICE).seal(b"hello", NONCE, BOB.public)
    changed = bytearray(box)
    changed[at] ^= change
    for wrong in (bytes(changed), box[:at], box + b"\0"):
        with pytest.raises(WireError):
            cipher(BOB).open(wrong, NONCE, ALICE.public)


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), bytes(31), bytes(33), b""], ids=bytes.hex)
def test_a_key_that_cannot_be_used_is_said(key: bytes) -> None:
    with pytest.raises(WireError, match="unusable key"):
        cipher(ALICE).seal(b"", NONCE, key)
    with pytest.raises(WireError, match="unusable key"):
        cipher(ALICE).open(bytes(16), NONCE, key)


def test_keys_are_kept_within_the_bound_and_the_longest_unused_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[bytes] = []
    beforenm = sodium.crypto_box_beforenm

    def counting(public: bytes, secret: bytes) -> bytes:
        computed.append(public)
        return beforenm(public, secret)

    monkeypatch.setattr(sodium, "crypto_box_beforenm", counting)
    bob = cipher(BOB, max_pairs=2)
    a, b, c = (node_key(number).public for number in (10, 11, 12))
    for key in (a, b, a, c, a):  # b goes when c comes
        bob.seal(b"", NONCE, key)
    assert computed == [a, b, c]
    bob.seal(b"", NONCE, b)
    assert computed == [a, b, c, b]


def test_a_key_whose_box_does_not_open_pushes_out_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    bob = cipher(BOB, max_pairs=2)
    bob.seal(b"", NONCE, ALICE.public)
    box = cipher(ALICE).seal(b"hello", NONCE, BOB.public)
    for number in range(20, 30):
        with pytest.raises(WireError, match="does not open"):
            bob.open(box, NONCE, node_key(number).public)

    def not_again(public: bytes, secret: bytes) -> bytes:
        raise AssertionError("computed once more")

    monkeypatch.setattr(sodium, "crypto_box_beforenm", not_again)
    assert bob.open(box, NONCE, ALICE.public) == b"hello"


# --- the seam ---


def test_a_machine_seals_for_real_unless_another_cipher_is_handed_in() -> None:
    assert Host().cipher is SodiumCipher


class Reversing:
    """No cipher at all: it only shows who is asked to seal what."""

    def __init__(self, own: NodeKey, network_id: bytes, max_pairs: int) -> None:
        self.made_for = (own.public, network_id)

    def seal(self, content: bytes, nonce: bytes, to: bytes) -> bytes:
        return bytes(TAG_SIZE) + content[::-1]

    def open(self, box: bytes, nonce: bytes, sender: bytes) -> bytes:
        return box[: TAG_SIZE - 1 : -1]


@virtual
async def test_a_node_seals_with_the_cipher_of_its_host() -> None:
    made: list[Reversing] = []

    def factory(own: NodeKey, network_id: bytes, max_pairs: int) -> Cipher:
        made.append(Reversing(own, network_id, max_pairs))
        return made[-1]

    world = World()
    nodes: list[DhtNode] = []
    for _ in range(2):
        host = world.host()
        host.cipher = factory
        nodes.append(await start_node(world, host=host))
    assert [one.made_for for one in made] == [(node.shared.node_key.public, NETWORK) for node in nodes]
    assert await nodes[0].join([contact_of(nodes[1])]) == 1
    for node in nodes:
        await node.aclose()


def test_what_is_shorter_than_a_tag_is_no_box() -> None:
    for size in (0, 1, TAG_SIZE - 1):
        with pytest.raises(WireError):
            cipher(BOB).open(bytes(size), NONCE, ALICE.public)


@pytest.mark.parametrize("size", [0, 23, 25])
def test_libsodium_is_not_given_a_nonce_of_another_size(size: int) -> None:
    with pytest.raises(ValueError, match="24 bytes"):
        cipher(ALICE).seal(b"hello", bytes(size), BOB.public)
    with pytest.raises(ValueError, match="24 bytes"):
        cipher(ALICE).open(bytes(50), bytes(size), BOB.public)
