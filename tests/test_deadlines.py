"""Many deadlines, of which few come."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.calls.deadlines import Deadlines


def test_the_earliest_comes_first_and_of_two_at_once_the_one_set_first() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for key, at in (("c", 3.0), ("b", 1.0), ("a", 1.0)):
        deadlines.set(key, at)
    assert deadlines.next == 1.0
    assert deadlines.due(0.9) == []
    assert deadlines.due(5.0) == ["b", "a", "c"]
    assert deadlines.next == inf


def test_those_taken_back_take_no_room() -> None:
    deadlines: Deadlines[int] = Deadlines()
    for key in range(10_000):
        deadlines.set(key, float(key))
        if key > 10:
            deadlines.drop(key)
    assert len(deadlines) == 11
    assert len(deadlines._heap) < 200


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.integers(0, 5), st.integers(0, 50)),
            st.tuples(st.just("drop"), st.integers(0, 5), st.just(0)),
            st.tuples(st.just("due"), st.just(0), st.integers(0, 20)),
        ),
        max_size=300,
    )
)
def test_it_is_a_table_of_times(steps: list[tuple[str, int, int]]) -> None:
    deadlines: Deadlines[int] = Deadlines()
    table: dict[int, float] = {}
    now = 0.0
    for what, key, number in steps:
        if what == "set":
            deadlines.set(key, now + number)
            table[key] = now + number
        elif what == "drop":
            deadlines.drop(key)
            table.pop(key, None)
        else:
            now += number
            due = deadlines.due(now)
            assert sorted(due) == sorted(key for key, at in table.items() if at <= now)
            assert [table[key] for key in due] == sorted(table[key] for key in due)
            table = {key: at for key, at in table.items() if at > now}
        assert len(deadlines) == len(table)
        assert deadlines.next <= min(table.values(), default=inf)
