"""Latency models: each pair of hosts has its own, the same both ways, and the whole is distributed as it says."""

import math
from statistics import fmean, median

import pytest

from atonce_sim.latency import Constant, Globe, Latency, LogNormal, Uniform, mean_rtt_s, one_way

MODELS: list[Latency] = [Constant(40.0), Uniform(10.0, 90.0), LogNormal(30.0, 0.5), Globe()]
PAIRS = [(one, other) for one in range(80) for other in range(one)]


def delays(model: Latency, seed: int = 1) -> list[float]:
    """In ms, of many pairs."""
    between = one_way(model, seed)
    return [between(*pair) * 1000 for pair in PAIRS]


def share_below(values: list[float], bound: float) -> float:
    return sum(value < bound for value in values) / len(values)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
class TestEach:
    def test_it_is_the_same_both_ways_and_each_time(self, model: Latency) -> None:
        between = one_way(model, 5)
        for one, other in PAIRS[:500]:
            assert between(one, other) == between(other, one) == between(one, other) >= 0

    def test_the_same_seed_gives_the_same_world_in_whatever_order_it_is_asked(self, model: Latency) -> None:
        first, second = one_way(model, 5), one_way(model, 5)
        there = [first(*pair) for pair in PAIRS]
        assert there == [second(*pair) for pair in reversed(PAIRS)][::-1]

    def test_another_seed_gives_another_world_and_the_same_distribution(self, model: Latency) -> None:
        here, there = delays(model, 1), delays(model, 2)
        assert (here == there) == isinstance(model, Constant)
        assert fmean(here) == pytest.approx(fmean(there), rel=0.15)

    def test_the_mean_round_trip_is_that_of_its_hosts(self, model: Latency) -> None:
        between = one_way(model, 1)
        assert mean_rtt_s(between, 80) == pytest.approx(2 * fmean(delays(model)) / 1000, rel=0.05)

    def test_it_says_what_it_is(self, model: Latency) -> None:
        assert len(str(model)) > 10


def test_constant() -> None:
    assert set(delays(Constant(40.0))) == {40.0}


def test_uniform() -> None:
    values = delays(Uniform(10.0, 90.0))
    assert 10 <= min(values) < 12
    assert 88 < max(values) < 90
    for share in (0.25, 0.5, 0.75):
        assert share_below(values, 10 + 80 * share) == pytest.approx(share, abs=0.03)


def test_log_normal() -> None:
    values = delays(LogNormal(30.0, 0.5))
    assert median(values) == pytest.approx(30, rel=0.04)
    # One standard deviation either way holds 68 of 100, and there is a long tail above only.
    assert share_below(values, 30 * math.exp(0.5)) - share_below(values, 30 * math.exp(-0.5)) == pytest.approx(
        0.683, abs=0.03
    )
    assert max(values) > 30 * math.exp(3 * 0.5)
    assert delays(LogNormal(30.0, 0.0)) == pytest.approx([30.0] * len(PAIRS))
    assert set(delays(LogNormal(0.0, 0.5))) == {0.0}


def test_globe() -> None:
    model = Globe(detour=1.6, access_ms=8.0)
    values = delays(model)
    half_round_ms = math.pi * 6371 / 200_000 * 1.6 * 1000
    assert min(values) > 0
    assert max(values) <= half_round_ms + 16
    assert median(values) == pytest.approx(half_round_ms / 2 + 8, rel=0.1)  # half of all points are beyond the horizon
    assert one_way(model, 1)(3, 3) == 0.0
    # Nobody is nearer by way of a third: a great circle is the shortest.
    between = one_way(Globe(detour=1.0, access_ms=0.0), 1)
    for one, other, third in [(1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12)]:
        assert between(one, other) <= between(one, third) + between(third, other) + 1e-12


def test_the_mean_round_trip_of_few_hosts() -> None:
    between = one_way(Uniform(10.0, 90.0), 1)
    assert mean_rtt_s(between, 2) == pytest.approx(2 * between(0, 1))
    assert mean_rtt_s(between, 1) == 2 * between(0, 1)
    of_three = [between(0, 1), between(0, 2), between(1, 2)]
    assert mean_rtt_s(between, 3) == pytest.approx(2 * fmean(of_three), rel=0.05)
