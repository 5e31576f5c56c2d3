"""How long peers stay: each model has the median that it is given, and the shape that it is named for."""

import random
from statistics import median

import pytest

from atonce_sim.sessions import Pareto, Session, Weibull

COUNT = 20_000


def draws(session: Session, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return sorted(session.draw(rng) for _ in range(COUNT))


@pytest.mark.parametrize(
    "session",
    [Weibull(600.0), Weibull(60.0, 1.0), Weibull(3600.0, 3.0), Pareto(600.0), Pareto(60.0, 3.0), Pareto(9.0, 0.8)],
    ids=str,
)
def test_half_of_all_sessions_are_shorter_than_the_median(session: Session) -> None:
    # The share below a quantile is within 4 standard deviations of it.
    drawn = draws(session)
    assert sum(length < session.median_s for length in drawn) / COUNT == pytest.approx(0.5, abs=2 / COUNT**0.5)
    assert median(drawn) == pytest.approx(session.median_s, rel=0.1)
    assert drawn[0] > 0


def test_weibull_with_a_small_shape_has_very_short_and_very_long_ones() -> None:
    drawn = draws(Weibull(600.0, 0.5))
    assert drawn[COUNT // 10] < 600 / 20
    assert drawn[-COUNT // 100] > 600 * 30
    # With shape 1 it is memoryless: another median halves what is left.
    memoryless = draws(Weibull(600.0, 1.0))
    assert sum(length > 1200 for length in memoryless) / COUNT == pytest.approx(0.25, abs=0.02)


def test_with_pareto_nobody_goes_at_once_and_the_tail_is_long() -> None:
    drawn = draws(Pareto(600.0, 1.2))
    least = 600 / 2 ** (1 / 1.2)
    assert least <= drawn[0] < least * 1.01
    # Ten times as long is 10 ** 1.2 times as rare.
    assert sum(length > least * 10 for length in drawn) / COUNT == pytest.approx(10**-1.2, abs=0.01)


def test_they_depend_on_the_generator_and_nothing_else() -> None:
    for session in (Weibull(600.0), Pareto(600.0)):
        assert draws(session, 1) == draws(session, 1) != draws(session, 2)
