"""Who is nearest, in a sorted list, against looking at everybody."""

from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.dht.sorted_ids import count_nearer, smallest_subtree

ids = st.integers(0, (1 << 160) - 1) | st.integers(0, 300) | st.integers((1 << 160) - 300, (1 << 160) - 1)


@given(st.sets(ids, max_size=60), ids, st.integers(1, 25))
def test_the_smallest_subtree_has_the_nearest(everybody: set[int], target: int, count: int) -> None:
    ordered = sorted(everybody)
    first, last = smallest_subtree(ordered, target, count)
    nearest = sorted(everybody, key=target.__xor__)[:count]
    assert set(nearest) <= set(ordered[first:last])
    if len(everybody) < count:
        assert (first, last) == (0, len(ordered))


@given(st.sets(ids, max_size=60), ids, ids, st.integers(1, 70))
def test_who_is_nearer_is_counted(everybody: set[int], target: int, than: int, most: int) -> None:
    truth = sum(1 for long_id in everybody if long_id ^ target < than ^ target)
    counted = count_nearer(sorted(everybody), target, than, most)
    assert counted == truth if truth <= most else most <= counted <= truth
