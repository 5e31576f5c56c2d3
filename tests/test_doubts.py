"""Those who did not answer."""

from dht_atonce.dht.doubts import Doubts


def test_who_is_silent_and_asks_is_asked_in_turn_but_not_each_time() -> None:
    doubts = Doubts(60.0)
    doubts.on_silent(1, 10.0)
    assert 1 in doubts
    assert 2 not in doubts
    assert [now for now in range(10, 140) if doubts.take(1, float(now))] == [10, 70, 130]
    assert not doubts.take(2, 10.0)


def test_an_answer_ends_all_doubt() -> None:
    doubts = Doubts(60.0)
    doubts.on_silent(1, 10.0)
    doubts.on_answer(1)
    doubts.on_answer(2)  # nobody doubted it
    assert 1 not in doubts
    doubts.on_silent(1, 20.0)
    assert doubts.take(1, 20.0)


def test_a_bounded_number_is_doubted_the_latest() -> None:
    doubts = Doubts(60.0)
    for number in range(5000):
        doubts.on_silent(number, 0.0)
    doubted = [number for number in range(5000) if number in doubts]
    assert doubted == list(range(5000 - 1024, 5000))
