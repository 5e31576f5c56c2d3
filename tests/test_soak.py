"""The long runs of `python -m soak`, short."""

import asyncio

import pytest

from soak.cuts import cut_regularly, redial
from soak.restarts import Judge, restart
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
    assert report.cuts >= 19  # the last one may come after the report


@pytest.mark.process
def test_durable_messages_outlive_the_processes_on_both_sides() -> None:
    judge = asyncio.run(restart(2_000, 2.0, 0.5, lambda _: None))
    assert judge.problems == []
    assert len(judge.numbers) == 2_000


def test_the_judge_of_restarts_sees_what_would_be_wrong() -> None:
    judge = Judge()
    for line in ("got a 1 0", "got b 1 1", "done a", "got c 1 3"):
        judge.hear(line)
    assert judge.problems == ["2 of run 1 is missing before 3"]
    judge.on_worker_started()
    for line in ("got b 1 1", "got b 1 1", "got a 1 0"):
        judge.hear(line)
    assert judge.again == 1 + 1 + 1
    assert judge.problems[1:] == ["1 came twice to one process", "0 came again after it was done"]
    judge.hear("got d 1 2")
    assert judge.problems[3] == "2 of run 1 came behind (1, 3)"
    judge.close(5)
    assert judge.problems[4:] == ["1 never came, 4 the first of them", "3 were not done"]  # and nobody was killed
