"""The region round a key, and how to meet those in it whom a crowd at the key hides."""

import random

from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.dht.density import CROWDED, IDS, radius, side_targets


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
