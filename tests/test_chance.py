"""Chance without state: uniform, the same everywhere, and another for each thing that it is drawn for."""

import os
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atonce_sim.chance import fraction

whole = st.integers(min_value=0, max_value=2**32)


@given(st.lists(whole, min_size=1, max_size=6))
def test_it_is_in_the_unit_interval_and_always_the_same(of: list[int]) -> None:
    drawn = fraction(*of)
    assert 0.0 <= drawn < 1.0
    assert drawn == fraction(*of)


@given(st.lists(whole, min_size=1, max_size=6), st.data())
def test_another_argument_gives_another_draw(of: list[int], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(of) - 1))
    other = data.draw(whole.filter(lambda number: number != of[at]))
    assert fraction(*of) != fraction(*of[:at], other, *of[at + 1 :])


def test_the_order_of_arguments_counts() -> None:
    assert fraction(1, 2, 3) != fraction(1, 3, 2)


@pytest.mark.parametrize("place", range(4), ids=["first", "second", "third", "last"])
def test_it_is_uniform_over_whatever_is_counted_up(place: int) -> None:
    def drawn(number: int) -> float:
        of = [10, 1, 7, 9]
        of[place] = number
        return fraction(*of)

    count, bins = 20_000, 20
    counts = [0] * bins
    for number in range(count):
        counts[int(drawn(number) * bins)] += 1
    # Chi-square with 19 degrees of freedom: beyond 43.8 once in a thousand such tests.
    assert sum((seen - count / bins) ** 2 / (count / bins) for seen in counts) < 43.8
    # Neighbours have nothing to do with each other: the correlation of n pairs is within 4 / sqrt(n).
    centred = [drawn(number) - 0.5 for number in range(count)]
    assert abs(sum(one * other for one, other in pairwise(centred)) / count * 12) < 4 / count**0.5


def test_no_two_of_many_draws_are_alike() -> None:
    drawn = {fraction(seed, one, other) for seed in range(20) for one in range(50) for other in range(50)}
    assert len(drawn) == 20 * 50 * 50


def test_it_is_the_same_whatever_pythonhashseed_is() -> None:
    def elsewhere(hash_seed: str) -> str:
        words = "from atonce_sim.chance import fraction; print(fraction(1, 2, 3), fraction(2**80), fraction())"
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", words], env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    assert elsewhere("1") == elsewhere("77") == f"{fraction(1, 2, 3)} {fraction(2**80)} {fraction()}\n"
