"""The machine that says whether we are still in the network: a conversation with it, second by second."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.config import StayConfig
from dht_atonce.watchdog import Doubt, Step, Watchdog

CONFIG = StayConfig()
A, B = ("10.0.0.1",), ("10.0.0.2",)
REST, REACH, CLIMB, RETURN, REPUBLISH = Step.REST, Step.REACH, Step.CLIMB, Step.RETURN, Step.REPUBLISH
MANY, FEW = CONFIG.visit_below, CONFIG.visit_below - 1


class Day:
    """A watchdog, and the clocks that it is shown."""

    def __init__(self, *, is_in: bool = True, seed: int = 1) -> None:
        self.now, self.wall = 100.0, 1e9
        self.watchdog = Watchdog(CONFIG, random.Random(seed), self.now)
        self.is_known = is_in
        self.others = MANY
        if is_in:
            self.addresses(A)
            assert self.look() is REST

    def addresses(self, here: tuple[str | None, ...], endpoints: tuple[object, ...] = ()) -> None:
        self.watchdog.on_addresses(here, endpoints, self.now)

    def look(self, after_s: float = 1.0, wall_s: float | None = None) -> Step:
        self.now += after_s
        self.wall += after_s if wall_s is None else wall_s
        return self.watchdog.on_look(self.now, self.wall, known=self.others if self.is_known else 0)

    def done(self, step: Step, succeeded: bool) -> Step:
        """It was tried, and the watchdog is asked at once what follows."""
        self.watchdog.on_done(step, succeeded, self.now)
        return self.look(0.0)

    def until(self, step: Step) -> float:
        """Let time pass until this is to be tried, all else being in vain; gives the seconds."""
        began = self.now
        for _ in range(1000):
            what = self.look()
            while what not in (REST, step):
                what = self.done(what, False)
            if what is step:
                return self.now - began
        raise AssertionError("never")


def test_who_learns_that_it_has_an_address_has_not_moved() -> None:
    day = Day(is_in=False)
    for here in ((), A, (*A, "2001:db8::1")):
        day.addresses(here)
        day.look()
        assert day.watchdog.doubt is None
    day.addresses((*B, "2001:db8::1"))
    day.look()
    assert day.watchdog.doubt is Doubt.MOVED


@pytest.mark.parametrize("others", [FEW, MANY])
def test_whoever_came_in_past_the_seeds_visits_them_if_the_network_is_small(others: int) -> None:
    day = Day()
    day.others = others
    day.watchdog.on_saved_way(day.now)
    said = [day.look() for _ in range(1000)]
    assert said.count(Step.VISIT) == (others is FEW)
    assert Step.VISIT not in said[4:]


@pytest.mark.parametrize("others", [FEW, MANY])
def test_whoever_moved_in_a_small_network_visits_the_seeds_and_nobody_else_does(others: int) -> None:
    day = Day()
    day.others = others
    assert all(day.look() is REST for _ in range(1000))
    day.addresses(B)
    assert day.look() is REACH
    assert day.done(REACH, True) is RETURN
    assert day.done(RETURN, True) is REST
    said = [day.look() for _ in range(1000)]
    assert said.count(Step.VISIT) == (others is FEW)
    assert Step.VISIT not in said[4:]  # soon, and once


def test_whoever_is_in_rests() -> None:
    day = Day()
    for _ in range(1000):
        assert day.look() is REST
        day.addresses(A)
    assert day.watchdog.doubt is None


@pytest.mark.parametrize(("monotonic_s", "wall_s"), [(3600.0, 3600.0), (0.3, 3600.0), (3600.0, 0.3)])
def test_sleep_shows_on_either_clock(monotonic_s: float, wall_s: float) -> None:
    day = Day()
    assert day.look(monotonic_s, wall_s) is REACH
    assert day.watchdog.doubt is Doubt.WOKE
    assert day.done(REACH, True) is RETURN
    assert day.done(RETURN, True) is REST
    assert day.watchdog.doubt is None


@pytest.mark.parametrize(("monotonic_s", "wall_s"), [(1.0, 1.0), (3.9, 3.9), (1.0, -3600.0), (1.0, 3.5)])
def test_a_late_look_or_a_clock_set_back_is_no_sleep(monotonic_s: float, wall_s: float) -> None:
    assert Day().look(monotonic_s, wall_s) is REST


def test_if_nobody_answers_the_ladder_follows_at_once_and_then_pauses_grow() -> None:
    day = Day()
    assert day.look(3600.0) is REACH
    assert day.done(REACH, False) is CLIMB
    climbs, reaches = [day.now], [day.now]
    day.is_known = False
    step = day.done(CLIMB, False)
    while day.now < 8000:
        if step is CLIMB:
            climbs.append(day.now)
        elif step is REACH:
            reaches.append(day.now)
        step = day.done(step, False) if step is not REST else day.look()
    for tries, longest in ((climbs, CONFIG.climb_max_s), (reaches, CONFIG.reach_max_s)):
        pauses = [b - a for a, b in itertools.pairwise(tries)]
        assert pauses[0] <= 3
        assert max(pauses) <= 1.25 * longest + 2
        assert max(pauses) >= 0.75 * longest
    assert len(climbs) < len(reaches) < 8000 / (0.75 * CONFIG.reach_max_s) + 10


def test_whoever_was_out_and_reaches_somebody_returns() -> None:
    day = Day()
    assert day.look(3600.0) is REACH
    assert day.done(REACH, False) is CLIMB
    day.is_known = False
    assert day.done(CLIMB, False) is REST
    assert day.until(REACH) <= 4
    assert day.done(REACH, True) is RETURN
    day.is_known = True
    assert day.done(RETURN, True) is REST
    assert day.look() is REST


def test_whoever_was_out_and_is_found_returns() -> None:
    day = Day()
    assert day.look(3600.0) is REACH
    assert day.done(REACH, False) is CLIMB
    assert day.done(CLIMB, False) is REST  # that contacts stand in a table says nothing
    day.watchdog.on_heard()
    assert day.look() is RETURN
    assert day.done(RETURN, True) is REST


def test_a_return_that_failed_is_tried_again_after_a_pause() -> None:
    day = Day()
    assert day.look(3600.0) is REACH
    assert day.done(REACH, True) is RETURN
    assert day.done(RETURN, False) is CLIMB
    assert day.done(CLIMB, False) is REST
    assert day.until(REACH) <= 4


def test_the_ladder_shows_us_by_itself() -> None:
    day = Day()
    assert day.look(3600.0) is REACH
    assert day.done(REACH, False) is CLIMB
    assert day.done(CLIMB, True) is REST
    assert day.watchdog.doubt is None


def test_another_address_is_doubt_and_none_at_all_is_waited_out() -> None:
    day = Day()
    day.addresses((None,))
    assert day.look() is REST
    day.addresses(A)
    assert day.look() is REACH
    assert day.watchdog.doubt is Doubt.MOVED
    assert day.done(REACH, True) is RETURN
    assert day.done(RETURN, True) is REST
    day.addresses(B)
    assert day.look() is REACH


def test_who_wakes_elsewhere_has_moved() -> None:
    day = Day()
    day.addresses(B)
    assert day.look(3600.0) is REACH
    assert day.watchdog.doubt is Doubt.MOVED


def test_failures_without_any_answer_are_doubt_but_not_one_answer_among_them() -> None:
    day = Day()
    for _ in range(3):
        for _ in range(CONFIG.silent_requests - 1):
            day.watchdog.on_failure()
        assert day.look() is REST
        day.watchdog.on_heard()
    for _ in range(CONFIG.silent_requests):
        day.watchdog.on_failure()
    assert day.look() is REACH
    assert day.watchdog.doubt is Doubt.SILENT
    # It was just those: we have not been away, and need not show ourselves.
    assert day.done(REACH, True) is REST
    assert day.watchdog.doubt is None


def test_who_loses_the_last_contact_doubts_too() -> None:
    day = Day()
    day.is_known = False
    assert day.look() is REACH
    assert day.done(REACH, False) is CLIMB


def test_while_something_is_tried_nothing_else_is() -> None:
    day = Day()
    assert day.look(3600.0) is REACH
    for _ in range(10):
        assert day.look() is REST
    day.addresses(B)  # the network is there only now
    assert day.look() is REST
    assert day.done(REACH, False) is REACH
    assert day.watchdog.doubt is Doubt.MOVED


def test_who_never_was_in_climbs_with_growing_pauses_and_has_nobody_to_reach() -> None:
    day = Day(is_in=False)
    pauses = []
    for _ in range(12):
        pauses.append(day.until(CLIMB))
        assert day.done(CLIMB, False) is REST
    assert pauses[0] <= 3
    assert 200 < max(pauses) <= 377
    day.look(100_000.0)
    assert day.watchdog.again_s <= 2  # after a sleep it begins anew


def test_who_is_seen_elsewhere_publishes_but_not_all_the_time() -> None:
    day = Day()
    day.addresses(A, (1,))
    assert day.look() is REST  # nothing was published yet
    day.watchdog.on_shown((1,))
    day.addresses(A, (1,))
    assert day.look() is REST
    day.addresses(A, ())
    assert day.look() is REST  # not known is not elsewhere
    day.addresses(A, (2,))
    assert day.look() is REPUBLISH
    assert day.done(REPUBLISH, True) is REST
    day.watchdog.on_shown((2,))
    day.addresses(A, (1,))
    assert day.look() is REST
    day.now += CONFIG.republish_s
    day.wall += CONFIG.republish_s
    day.addresses(A, (1,))
    assert day.watchdog.on_look(day.now, day.wall, known=20) in (REPUBLISH, REACH)


events = st.lists(
    st.tuples(st.sampled_from(["look", "sleep", "A", "B", "none", "fail", "answer"]), st.booleans(), st.booleans()),
    max_size=80,
)


@given(events, st.integers(0, 5))
def test_whatever_happens_it_ends_at_rest_in_a_network_that_answers(
    plan: list[tuple[str, bool, bool]], seed: int
) -> None:
    day = Day(is_in=False, seed=seed)
    pending: Step | None = None
    for what, is_known, succeeds in plan:
        day.is_known = is_known
        match what:
            case "A" | "B" | "none":
                day.addresses({"A": A, "B": B, "none": (None,)}[what])
            case "fail" | "answer":
                (day.watchdog.on_heard if what == "answer" else day.watchdog.on_failure)()
        step = day.look(50.0 if what == "sleep" else 1.0)
        if pending is not None:
            assert step is REST  # one thing at a time
            step = day.done(pending, succeeds)
        pending = step if step in (REACH, CLIMB, RETURN) else None
    day.is_known = True
    steps = 0
    for _ in range(700):
        step = day.done(pending, True) if pending is not None else day.look()
        pending = step if step in (REACH, CLIMB, RETURN) else None
        steps = 0 if step is REST else steps + 1
        assert steps < 6
    assert pending is None
    assert day.watchdog.doubt is None


def test_while_something_is_tried_nothing_else_is_asked_for() -> None:
    # Else what is asked for meanwhile would be forgotten when the first one ends.
    day = Day()
    day.watchdog.on_shown((1,))
    day.addresses(A, (2,))
    assert day.look() is REPUBLISH
    day.addresses(B)
    assert day.look() is REST
    assert day.done(REPUBLISH, True) is REACH
