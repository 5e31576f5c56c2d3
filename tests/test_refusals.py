"""Whoever is refused again and again is refused unread."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.config import MessagingConfig
from dht_atonce.messaging.refusals import Refusals

CONFIG = replace(MessagingConfig(), refused_burst=4, refused_s=10.0, max_refused=100)
KEY, OTHER = bytes([1] * 32), bytes([2] * 32)


def test_four_are_read_at_once_and_then_one_every_ten_seconds() -> None:
    refusals = Refusals(CONFIG)
    for _ in range(4):
        assert not refusals.is_spent(KEY, 0.0)
        refusals.on_refused(KEY, 0.0)
    assert refusals.is_spent(KEY, 9.9)
    assert not refusals.is_spent(OTHER, 0.0)
    assert not refusals.is_spent(KEY, 10.0)
    refusals.on_refused(KEY, 10.0)
    assert refusals.is_spent(KEY, 10.0)
    assert not refusals.is_spent(KEY, 50.0)
    assert len(refusals) == 0


def test_others_may_be_accepted_after_a_change() -> None:
    refusals = Refusals(CONFIG)
    for _ in range(4):
        refusals.on_refused(KEY, 0.0)
    refusals.clear()
    assert not refusals.is_spent(KEY, 0.0)


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 5)), max_size=300))
def test_no_key_is_read_more_often_than_that_and_the_table_is_bounded(dials: list[tuple[int, float]]) -> None:
    refusals = Refusals(CONFIG)
    now, read = 0.0, [0.0] * 201
    for number, passes in dials:
        now += passes
        key = bytes([number] * 32)
        if not refusals.is_spent(key, now):
            read[number] += 1
            refusals.on_refused(key, now)
        assert len(refusals) <= CONFIG.max_refused
    if len({number for number, _ in dials}) <= CONFIG.max_refused:
        assert max(read) <= CONFIG.refused_burst + now / CONFIG.refused_s
