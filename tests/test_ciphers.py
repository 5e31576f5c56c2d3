"""The ciphers of a made-up world: the one that shares its work says the same bytes, the one without encryption opens
the same datagrams."""

import gc
import random
import sys
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import LOCAL, node_key, start_node

from atonce_sim.ciphers import PassThrough, SharedPairs
from atonce_sim.loop import run
from atonce_sim.world import World
from dht_atonce.cipher import TAG_SIZE, Cipher, CipherFactory, SodiumCipher
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.sealing import PacketType, Sealer
from dht_atonce.errors import WireError
from dht_atonce.identity import NodeKey

NONCE = bytes(range(24))
NETWORK, OTHER_NETWORK = LOCAL.network_id, bytes(range(16))
NODES = [node_key(number) for number in range(1, 5)]
ALICE, BOB, EVE, _ = NODES
FACTORIES: list[type] = [SharedPairs, PassThrough]

contents = st.binary(max_size=200)


async def live(cipher: CipherFactory | None) -> tuple[World, list[DhtNode]]:
    world = World(3)
    nodes: list[DhtNode] = []
    for _ in range(8):
        host = world.host()
        if cipher is not None:
            host.cipher = cipher
        nodes.append(await start_node(world, host=host, via=nodes[0] if nodes else None))
    for node in nodes:
        await node.refresh(nodes[0].shared.node_key.id)
        node.stop()
    return world, nodes


def a_small_world(cipher: CipherFactory | None) -> tuple[World, list[DhtNode]]:
    """Nodes that joined, and looked for each other."""
    return run(live(cipher))


def test_a_world_that_shares_pairs_sends_the_same_bytes() -> None:
    real, _ = a_small_world(None)
    shared, _ = a_small_world(SharedPairs())
    assert shared.datagrams > 100
    assert shared.trace.digest == real.trace.digest


def test_a_world_without_encryption_sends_as_many_datagrams_of_the_same_sizes() -> None:
    real, nodes = a_small_world(None)
    plain, same_nodes = a_small_world(PassThrough())
    assert [node.counters for node in same_nodes] == [node.counters for node in nodes]
    assert plain.datagrams == real.datagrams
    assert plain.trace.digest != real.trace.digest


# --- shared pairs ---


@given(contents)
def test_shared_boxes_are_the_real_ones_byte_for_byte(content: bytes) -> None:
    pairs = SharedPairs()
    for one, other in permutations(NODES, 2):
        for network_id in (NETWORK, OTHER_NETWORK):
            box = SodiumCipher(one, network_id, 1).seal(content, NONCE, other.public)
            assert pairs(one, network_id, 1).seal(content, NONCE, other.public) == box
            assert pairs(other, network_id, 1).open(box, NONCE, one.public) == content


def test_a_pair_is_computed_once_for_both_ends_and_both_directions() -> None:
    pairs = SharedPairs()
    alice, bob = pairs(ALICE, NETWORK, 1), pairs(BOB, NETWORK, 1)
    for _ in range(3):
        bob.open(alice.seal(b"there", NONCE, BOB.public), NONCE, ALICE.public)
        alice.open(bob.seal(b"back", NONCE, ALICE.public), NONCE, BOB.public)
    assert (pairs.computed, len(pairs)) == (1, 1)
    pairs(ALICE, OTHER_NETWORK, 1).seal(b"elsewhere", NONCE, BOB.public)
    assert (pairs.computed, len(pairs)) == (2, 2)


def test_a_bounded_number_of_pairs_is_kept_for_the_whole_world_those_in_use() -> None:
    pairs = SharedPairs(max_pairs=8)
    alice, rng = pairs(ALICE, NETWORK, 1), random.Random(1)
    for number in range(1, 101):
        alice.seal(b"", NONCE, BOB.public)
        pairs(BOB, NETWORK, 1).seal(b"", NONCE, NodeKey.generate(rng).public)
        assert pairs.computed == 1 + number  # that of Alice and Bob once, since it is always in use
        assert len(pairs) <= 8


# --- all of them ---


@pytest.mark.parametrize("factory", FACTORIES)
@given(contents)
def test_a_box_is_opened_by_its_recipient(factory: type, content: bytes) -> None:
    ciphers: CipherFactory = factory()
    box = ciphers(ALICE, NETWORK, 1).seal(content, NONCE, BOB.public)
    assert len(box) == len(content) + TAG_SIZE
    assert ciphers(BOB, NETWORK, 1).open(box, NONCE, ALICE.public) == content


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_box_opens_where_it_would_with_real_crypto_and_nowhere_else(factory: type) -> None:
    ciphers: CipherFactory = factory()
    networks = (NETWORK, OTHER_NETWORK)

    def opens(cipher: Cipher, box: bytes, sender: NodeKey) -> bool:
        try:
            return cipher.open(box, NONCE, sender.public) == b"hello"
        except WireError:
            return False

    box = ciphers(ALICE, NETWORK, 1).seal(b"hello", NONCE, BOB.public)
    opened = [
        (who, sender, network_id)
        for who in NODES
        for sender in NODES
        for network_id in networks
        if who is not sender and opens(ciphers(who, network_id, 1), box, sender)
    ]
    assert opened == [(BOB, ALICE, NETWORK)]
    for length in range(TAG_SIZE):
        assert not opens(ciphers(BOB, NETWORK, 1), box[:length], ALICE)


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_keys_that_cannot_be_used_are_the_same(factory: type) -> None:
    ciphers: CipherFactory = factory()
    prime = 2**255 - 19
    points = [0, 1, 2, 9, prime - 1, prime, prime + 1, prime + 2, 2**255, 2**255 + 1, 2**255 + 9, 2**256 - 1]
    points += [325606250916557431795983626356110631294008115727848805560023387167927233504]
    points += [39382357235489614581723060781553021112529911719440698176882885853963445705823]
    keys = [point.to_bytes(32, "little") for point in points] + [b"", bytes(31), ALICE.public + b"\0", EVE.public]

    def usable(cipher: Cipher, key: bytes) -> tuple[bool, bool]:
        said = []
        for use in (cipher.seal, cipher.open):
            try:
                use(bytes(16), NONCE, key)
            except WireError as error:
                said.append(str(error) != "unusable key")
            else:
                said.append(True)
        return said[0], said[1]

    real, ours = SodiumCipher(ALICE, NETWORK, 100), ciphers(ALICE, NETWORK, 100)
    assert [usable(ours, key) for key in keys] == [usable(real, key) for key in keys]
    assert [usable(real, key)[0] for key in keys].count(False) == 12


@given(contents)
def test_a_box_that_is_not_encrypted_is_legible(content: bytes) -> None:
    assert PassThrough()(ALICE, NETWORK, 1).seal(content, NONCE, BOB.public)[TAG_SIZE:] == content


def test_worlds_with_and_without_encryption_do_not_understand_each_other() -> None:
    plain = Sealer(ALICE, NETWORK, 1, PassThrough()).seal(PacketType.REQUEST, BOB.public, b"body", NONCE)
    real = Sealer(ALICE, NETWORK, 1).seal(PacketType.REQUEST, BOB.public, b"body", NONCE)
    assert len(plain) == len(real)
    with pytest.raises(WireError):
        Sealer(BOB, NETWORK, 1).open(plain)
    with pytest.raises(WireError):
        Sealer(BOB, NETWORK, 1, PassThrough()).open(real)


def test_a_node_without_encryption_keeps_next_to_nothing_for_it() -> None:
    ciphers, keys = PassThrough(), [node_key(number) for number in range(100)]
    made = [ciphers(key, NETWORK, 4096) for key in keys]
    for one in made:
        for key in keys:
            one.seal(b"", NONCE, key.public)
    parts = {id(part): part for one in made for part in gc.get_referents(one) if not isinstance(part, type)}
    size = sum(sys.getsizeof(one) for one in made) + sum(sys.getsizeof(part) for part in parts.values())
    assert size / len(made) <= 100
