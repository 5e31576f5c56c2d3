"""The world's knowledge of who is nearest, against looking at everybody."""

import random

from hypothesis import given
from hypothesis import strategies as st

from atonce_sim.keyspace import KeySpace, as_long

longs = st.integers(min_value=0, max_value=2**160 - 1)
# Ids that share long prefixes, in whose subtrees an off-by-one shows.
close = st.one_of(
    longs, st.integers(0, 40), st.integers(2**160 - 40, 2**160 - 1), st.integers(2**159 - 20, 2**159 + 20)
)


def brute(ids: set[int], target: int, count: int, without: int | None) -> list[int]:
    return sorted(ids - {without}, key=lambda node_id: node_id ^ target)[:count]


@given(st.sets(close, max_size=60), close, st.integers(0, 25), st.data())
def test_the_nearest_are_the_nearest(ids: set[int], target: int, count: int, data: st.DataObject) -> None:
    space = KeySpace(ids)
    without = data.draw(st.one_of(st.none(), st.sampled_from(sorted(ids)) if ids else st.none()))
    assert space.nearest(target, count, without=without) == brute(ids, target, count, without)


@given(st.sets(close, min_size=1, max_size=40), st.integers(1, 8))
def test_one_s_own_neighbours_are_others(ids: set[int], count: int) -> None:
    space = KeySpace(ids)
    for own in ids:
        assert space.nearest(own, count)[0] == own
        assert space.nearest(own, count, without=own) == brute(ids, own, count, own)


@given(st.sets(close, max_size=30), close, close)
def test_whom_it_leaves_out_need_not_be_there(ids: set[int], target: int, without: int) -> None:
    assert KeySpace(ids).nearest(target, 5, without=without) == brute(ids, target, 5, without)


def test_it_follows_those_who_come_and_go() -> None:
    rng, space, ids = random.Random(1), KeySpace(), set[int]()
    for _ in range(2000):
        node_id = rng.getrandbits(160)
        space.add(node_id)
        ids.add(node_id)
        if rng.random() < 0.4:
            gone = rng.choice(sorted(ids))
            space.remove(gone)
            ids.remove(gone)
            assert gone not in space
        assert node_id in space or node_id not in ids
    assert len(space) == len(ids)
    for _ in range(200):
        target = rng.getrandbits(160)
        assert space.nearest(target, 20) == brute(ids, target, 20, None)
        assert target not in space


def test_an_id_is_a_number_whose_first_byte_weighs_most() -> None:
    assert as_long(b"\x01" + bytes(19)) == 1 << 152
    assert as_long(bytes(19) + b"\x01") == 1
