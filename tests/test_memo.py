"""A memo: what was worked out once, bounded."""

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.memo import Memo


def test_what_is_put_is_got_and_nothing_else() -> None:
    memo: Memo[str, int] = Memo(3)
    memo.put("a", 1)
    assert memo.get("a") == 1
    assert memo.get("b") is None
    memo.put("a", 2)
    assert memo.get("a") == 2
    assert len(memo) == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=100), st.integers(1, 8))
def test_a_small_one_forgets_what_was_not_used_for_longest(steps: list[tuple[bool, int]], limit: int) -> None:
    memo: Memo[int, int] = Memo(limit)
    model: OrderedDict[int, int] = OrderedDict()
    for number, (puts, key) in enumerate(steps):
        if puts:
            memo.put(key, number)
            model[key] = number
            model.move_to_end(key)
            if len(model) > limit:
                model.popitem(last=False)
        else:
            assert memo.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        assert len(memo) == len(model)


@pytest.mark.parametrize("limit", [63, 64, 1000])
def test_a_large_one_is_never_over_its_limit_nor_far_under_it(limit: int) -> None:
    memo: Memo[int, int] = Memo(limit)
    for number in range(5 * limit):
        memo.put(number, number)
        memo.get(0)
        assert len(memo) <= limit
        assert len(memo) >= min(number + 1, limit - limit // 64)
    assert memo.get(0) == 0
    assert memo.get(1) is None
    assert all(memo.get(number) == number for number in range(4 * limit + limit // 32 + 2, 5 * limit))
