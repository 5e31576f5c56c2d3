"""The long runs of `python -m soak`, short."""

import asyncio

import pytest

from soak.cuts import cut_regularly, redial
from soak.weather import weather


@pytest.mark.parametrize("seed", range(1, 7))
def test_in_bad_weather_no_receipt_lies(seed: int) -> None:
    outcome = weather(seed)
    assert outcome.problems == []
    assert outcome.states["delivered"] > 500
    assert outcome.weather.total() >= 5


@pytest.mark.process
def test_a_link_that_is_cut_again_and_again_loses_nothing() -> None:
    states, report = asyncio.run(cut_regularly(20_000, 0.0, each=3_000))
    assert states == {"delivered": 20_000}
    assert (report.received, report.out_of_order) == (20_000, 0)
    assert report.cuts >= 6


@pytest.mark.process
def test_no_link_that_is_dialled_again_is_deaf() -> None:
    lost, report = asyncio.run(redial(20))
    assert (lost, report.received, report.out_of_order) == (0, 20, 0)
    assert report.cuts == 20
