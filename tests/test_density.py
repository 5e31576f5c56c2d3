"""The region round a key, and how to meet those in it whom a crowd at the key hides."""

import random

from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.dht.density import CROWDED, IDS, network_size, radius, side_targets


def estimates(nodes: int, crowd: int = 0) -> list[float]:
    """Of many who know everybody, in networks of so many; with a crowd at a key near them."""
    rng, found = random.Random(nodes), []
    for _ in range(100):
        own = rng.getrandbits(160)
        key = own ^ (4 * IDS // nodes)
        ids = [rng.getrandbits(160) for _ in range(nodes)] + [key ^ rng.getrandbits(90) for _ in range(crowd)]
        found.append(network_size(sorted(ids), own, 10, 16) / nodes)
    return sorted(found)


def test_the_size_of_the_network_is_told_from_the_neighbours() -> None:
    for nodes in (100, 1000, 10_000):
        found = estimates(nodes)
        assert 0.9 < sum(found) / len(found) < 1.1
        assert 0.55 < found[5] < found[95] < 1.75


def test_a_crowd_near_us_does_not_make_it_seem_larger() -> None:
    for nodes in (100, 1000, 10_000):
        found = estimates(nodes, crowd=40)
        assert 0.55 < found[5] < found[95] < 2.2


def test_a_table_that_is_thin_beyond_our_neighbours_does_not_make_it_seem_small() -> None:
    rng, found = random.Random(1), []
    for _ in range(300):
        own, ids = rng.getrandbits(160), [rng.getrandbits(160) for _ in range(3000)]
        nearest = sorted(ids, key=lambda one: one ^ own)
        known = nearest[:20] + [one for one in nearest[20:] if rng.random() < 0.1]
        found.append(network_size(sorted(known), own, 10, 16) / 3000)
    found.sort()
    assert found[0] > 0.25
    assert 0.85 < found[150] < 1.15


def test_of_so_few_we_know_all() -> None:
    assert network_size([], 7, 10, 16) == 1
    assert network_size([1, 2, 3], 7, 10, 16) == 4


def test_in_the_region_are_as_many_as_ought_to_be() -> None:
    rng = random.Random(1)
    ids = [rng.getrandbits(160) for _ in range(5000)]
    counts = []
    for _ in range(200):
        target, reach = rng.getrandbits(160), radius(5000, 20)
        counts.append(sum(1 for long_id in ids if long_id ^ target < reach))
    assert 19 < sum(counts) / len(counts) < 21
    # That all k nearest lie where half of them ought to be happens by chance about once in 300 times.
    assert sum(1 for count in counts if count * CROWDED > 20) <= 4


def test_in_a_small_network_the_region_is_all_there_is() -> None:
    assert radius(20, 20) == radius(1, 20) == IDS
    assert radius(40, 20) == IDS // 2


@given(st.integers(0, IDS - 1), st.integers(1, IDS), st.integers(0, 100))
def test_side_targets_are_in_the_region_and_each_in_another_part(target: int, region: int, seed: int) -> None:
    sides = side_targets(target, region, random.Random(seed))
    distances = [side ^ target for side in sides]
    assert all(0 <= side < IDS for side in sides)
    assert all(distance < max(8, region) for distance in distances)
    assert len({distance.bit_length() for distance in distances}) == len(sides) >= 2
