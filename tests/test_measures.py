"""What a run counts: quantiles, verdicts, and the figures that expectations may name."""

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atonce_sim.measures import Measures, StepMeasures, mean, quantile, quantiles
from atonce_sim.residents import Found
from atonce_sim.results import Hops, LookupCounts, MessageCounts, Quantiles
from atonce_sim.truth import Answer, Verdict


def found(elapsed_s: float = 0.1, *, local: bool = False, hops: int = 2, requests: int = 5) -> Found:
    return Found(None, local, hops, requests, elapsed_s)


# --- quantiles ---


@pytest.mark.parametrize(
    ("count", "share", "rank"),
    [
        *[(1, 0.5, 1), (1, 0.99, 1), (2, 0.5, 1), (2, 0.51, 2), (10, 0.0, 1), (10, 0.5, 5), (10, 0.9, 9)],
        *[(10, 0.91, 10), (100, 0.99, 99), (101, 0.99, 100), (1000, 0.99, 990), (200, 1.0, 200)],
    ],
)
def test_a_quantile_is_a_value_that_was_measured(count: int, share: float, rank: int) -> None:
    values = list(range(1, count + 1))
    random.Random(1).shuffle(values)
    assert quantile(values, share) == rank


@pytest.mark.parametrize("share", ["0.5", "0.9", "0.99"])
def test_no_rank_is_off_by_one_for_want_of_digits(share: str) -> None:
    for count in range(1, 3000):
        assert quantile(range(1, count + 1), float(share)) == math.ceil(Fraction(share) * count)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_so_many_are_at_or_below_a_quantile(values: list[float], share: float) -> None:
    at = quantile(values, share)
    assert at is not None
    assert at in values
    assert sum(value <= at for value in values) >= share * len(values) * (1 - 1e-9)
    assert sum(value < at for value in values) < share * len(values) * (1 + 1e-9)


def test_of_nothing_there_is_no_quantile_and_no_mean() -> None:
    assert quantile([], 0.5) is None
    assert quantiles([]) == Quantiles(None, None, None)
    assert mean([]) is None
    assert quantiles([3.0, 1.0, 2.0]) == Quantiles(2.0, 3.0, 3.0)
    assert mean([1, 2, 6]) == 3


# --- lookups ---


def test_lookups_are_counted_by_their_verdict() -> None:
    measures = StepMeasures()
    for verdict, count in [(Verdict.CORRECT, 5), (Verdict.STALE, 2), (Verdict.FAILED, 1), (Verdict.WRONG, 1)]:
        for _ in range(count):
            measures.on_lookup(found(), verdict)
    assert measures.lookups() == LookupCounts(attempted=9, correct=5, stale=2, wrong=1, failed=1)


def test_what_the_own_store_answered_is_counted_apart() -> None:
    measures = StepMeasures()
    measures.on_lookup(found(local=True), Verdict.CORRECT)
    measures.on_lookup(found(local=True), Verdict.STALE)
    assert measures.lookups() == LookupCounts(local=2, local_stale=1)
    assert (measures.lookup_s, measures.hops, measures.requests) == ([], [], [])
    figures = measures.figures(0.1)
    assert figures["lookups.correct_share"] is None
    assert figures["lookups.local_stale_share"] == 0.5


def test_only_answers_have_a_time() -> None:
    measures = StepMeasures()
    measures.on_lookup(found(0.1, hops=1, requests=3), Verdict.CORRECT)
    measures.on_lookup(found(0.2, hops=0, requests=20), Verdict.CORRECT)  # rightly nothing: nobody was first to answer
    measures.on_lookup(found(0.3, hops=3, requests=7), Verdict.STALE)
    measures.on_lookup(found(15.0, hops=0, requests=100), Verdict.FAILED)
    measures.on_lookup(found(9.0, hops=9, requests=10), Verdict.WRONG)
    assert measures.lookup_s == [0.1, 0.2, 0.3]
    assert measures.hops == [1, 3]
    assert measures.hop_counts() == Hops(2.0, 3)
    assert measures.requests == [3, 20, 7, 100, 10]


# --- figures ---


def test_figures_of_nothing() -> None:
    figures = StepMeasures().figures(0.05)
    counts = ["attempted", "correct", "stale", "failed", "wrong", "local"]
    assert [figures[f"lookups.{name}"] for name in counts] == [0] * 6
    assert [figures[f"messages.{name}"] for name in ("sent", "lost", "doubled", "unknown")] == [0] * 4
    measured = {name for name, figure in figures.items() if figure is not None}
    assert figures["forged"] == 0
    assert measured == {"forged"} | {f"lookups.{name}" for name in counts} | {
        f"messages.{name}" for name in ("sent", "lost", "doubled", "unknown")
    }


def test_figures() -> None:
    measures = StepMeasures()
    for number in range(100):
        measures.on_lookup(found((number + 1) / 100, hops=1 + number // 50, requests=4), Verdict.CORRECT)
    for verdict in (Verdict.STALE, Verdict.FAILED, Verdict.WRONG, Verdict.WRONG):
        measures.on_lookup(found(9.0, hops=2, requests=30), verdict)
    measures.publish_s = [0.3, 0.1, 0.2]
    measures.wanted, measures.entered, measures.enter_s = 4, 3, [1.0, 2.0, 3.0]
    measures.sent, measures.delivered, measures.lost, measures.doubled, measures.unknown = 10, 8, 1, 2, 3
    figures = measures.figures(0.05)
    assert figures == pytest.approx(
        {
            "forged": 0,
            "lookups.attempted": 104,
            "lookups.local": 0,
            "lookups.local_stale_share": None,
            "lookups.correct": 100,
            "lookups.correct_share": 100 / 104,
            "lookups.stale": 1,
            "lookups.stale_share": 1 / 104,
            "lookups.failed": 1,
            "lookups.failed_share": 1 / 104,
            "lookups.wrong": 2,
            "lookups.wrong_share": 2 / 104,
            "lookup_s.p50": 0.51,
            "lookup_s.p90": 0.91,
            "lookup_s.p99": 1.0,
            "lookup_rtts.p50": 0.51 / 0.05,
            "lookup_rtts.p90": 0.91 / 0.05,
            "lookup_rtts.p99": 1.0 / 0.05,
            "publish_s.p50": 0.2,
            "publish_s.p90": 0.3,
            "publish_s.p99": 0.3,
            "publish_rtts.p50": 0.2 / 0.05,
            "publish_rtts.p90": 0.3 / 0.05,
            "publish_rtts.p99": 0.3 / 0.05,
            "enter_s.p50": 2.0,
            "enter_s.p90": 3.0,
            "enter_s.p99": 3.0,
            "requests_per_lookup": (100 * 4 + 4 * 30) / 104,
            "hops.mean": (50 + 2 * 51) / 101,
            "hops.p99": 2,
            "entered_share": 0.75,
            "messages.sent": 10,
            "messages.delivered_share": 0.8,
            "messages.lost": 1,
            "messages.doubled": 2,
            "messages.unknown": 3,
        }
    )
    assert measures.messages() == MessageCounts(sent=10, delivered=8, lost=1, doubled=2, unknown=3)


def test_round_trips_of_a_world_without_latency_are_not_measured() -> None:
    measures = StepMeasures()
    measures.on_lookup(found(0.5), Verdict.CORRECT)
    assert measures.figures(0.0)["lookup_rtts.p50"] is None


# --- of a run and its steps ---


def test_what_happens_in_a_named_step_counts_there_and_in_all() -> None:
    measures = Measures()
    measures.on_lookup("first", found(), Verdict.CORRECT)
    measures.on_lookup("", found(), Verdict.CORRECT)
    measures.on_lookup("second", found(local=True), Verdict.STALE)
    measures.on_lookup("first", found(), Verdict.FAILED)
    assert measures.all.lookups() == LookupCounts(attempted=3, correct=2, failed=1, local=1, local_stale=1)
    assert measures.steps["first"].lookups() == LookupCounts(attempted=2, correct=1, failed=1)
    assert measures.steps["second"].lookups() == LookupCounts(local=1, local_stale=1)
    assert set(measures.steps) == {"first", "second"}
    assert measures.interval == {Verdict.CORRECT: 2, Verdict.FAILED: 1}
    assert measures.of("first") == [measures.all, measures.steps["first"]]
    assert measures.of("") == [measures.all]


def test_an_answer_that_its_owner_did_not_sign_is_counted_wherever_it_came_from() -> None:
    measures = StepMeasures()
    for genuine in (True, False):
        for local in (True, False):
            answer = Answer(1, 2.0, is_goodbye=False, genuine=genuine)
            measures.on_lookup(Found(answer, local, 1, 1, 0.1), Verdict.CORRECT if genuine else Verdict.WRONG)
    measures.on_lookup(found(), Verdict.FAILED)
    assert measures.figures(0.1)["forged"] == 2
