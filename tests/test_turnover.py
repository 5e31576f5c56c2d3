"""How often seats are checked follows how fast those who have them go."""

import random

from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.config import DhtConfig
from dht_atonce.dht.turnover import Turnover

CONFIG = DhtConfig()


def seen(mean_session_s: float, for_s: float = 7200.0, seats: int = 100) -> Turnover:
    """A table of `seats` whose holders go after such sessions, each replaced at once."""
    turnover, rng = Turnover(CONFIG), random.Random(1)
    due = 0.0
    for _ in range(int(for_s / 10)):
        due += seats * 10 / mean_session_s
        gone = int(due) if rng.random() < 0.5 else 0
        due -= gone
        turnover.on_span(seats, gone, 10.0)
    return turnover


def test_the_checks_leave_the_wanted_share_of_dead_seats() -> None:
    for mean_s in (600, 1200, 3600):
        check_s = seen(mean_s).check_s
        # A seat whose holder died is found after half of `check_s`, on average.
        assert abs(check_s / 2 / mean_s - CONFIG.dead_seats) < 0.01, mean_s


def test_the_session_is_told() -> None:
    assert 600 < seen(1200).session_s < 1100  # ln 2 times the mean is 832
    assert seen(86400, for_s=86400).session_s > 30_000


def test_where_nobody_goes_the_checks_are_as_rare_as_they_may_be() -> None:
    assert seen(1e9).check_s == CONFIG.max_check_s
    assert Turnover(CONFIG).check_s < CONFIG.max_check_s  # nothing was seen yet


def test_where_all_go_at_once_there_is_a_least() -> None:
    assert seen(20).check_s == CONFIG.min_check_s


def test_what_is_long_past_is_forgotten() -> None:
    turnover = seen(300)
    for _ in range(2000):
        turnover.on_span(100, 0, 10.0)
    assert turnover.check_s == CONFIG.max_check_s


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.floats(0, 1e6)), max_size=50))
def test_whatever_happens_it_stays_within_its_bounds(spans: list[tuple[int, int, float]]) -> None:
    turnover = Turnover(CONFIG)
    for seats, gone, span_s in spans:
        turnover.on_span(seats, gone, span_s)
        assert CONFIG.min_check_s <= turnover.check_s <= CONFIG.max_check_s
