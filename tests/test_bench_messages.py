"""`make bench` at its smallest: that it measures, judges, and leaves nobody behind."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.messages import children
from benchmarks.messages.children import Trial, run
from benchmarks.messages.judge import LINES, TARGETS, judge, ratio
from benchmarks.messages.plan import ROWS, Plan
from benchmarks.messages.table import show
from benchmarks.messages.workload import latencies

ROOT = Path(__file__).resolve().parent.parent


def plan(rival: str, row: str) -> Plan:
    return Plan(rival, row, 0, measure_s=0.02, links=3, memory_links=5)


# --- trials are processes ---


@pytest.mark.process
@pytest.mark.parametrize(
    ("rival", "row"),
    [
        ("ours", "one-way-100"),
        ("ours", "acked-64"),
        ("ours", "fan-64"),
        ("ours", "ping"),
        ("ours", "ping-handler"),
        ("raw", "acked-64"),
        ("raw", "fan-1"),
        ("zmq-asyncio", "ping"),
        ("tls", "one-way-1k"),
    ],
)
def test_a_row_is_measured(rival: str, row: str) -> None:
    trial = run(plan(rival, row), 60)
    assert trial.skipped is None
    measures = {line.measure for line in LINES if line.row == row}
    assert measures <= trial.figures.keys()
    assert all(figure >= 0 for figure in trial.figures.values())


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_link_s_memory_is_measured() -> None:
    trial = run(plan("ours", "memory"), 60)
    assert trial.skipped is None
    assert trial.figures.keys() == {"link_kib"}


def test_who_takes_too_long_is_ended_and_its_figures_are_missing() -> None:
    trial = run(plan("raw", "ping"), 0.01)
    assert (trial.failed, trial.skipped, trial.figures) == (True, "it took longer than 0 s", {})


def test_a_rival_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(children, "RIVALS_PYTHON", tmp_path / "python")
    trial = run(plan("nats", "ping"), 60)
    assert (trial.failed, trial.skipped) == (False, "not installed: make bench-rivals")


@pytest.mark.process
def test_the_far_end_ends_with_whoever_started_it() -> None:
    arguments = [sys.executable, "-m", "benchmarks.messages.child", "far", json.dumps(asdict(plan("raw", "ping")))]
    child = subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    assert json.loads(child.stdout.readline())["ports"]
    child.stdin.close()
    assert child.wait(20) == 1
    child.stdout.close()


# --- what is made of it ---


def trial(rival: str, row: str, at: int, **figures: float) -> Trial:
    return Trial(Plan(rival, row, at), figures, None, failed=False)


def test_ratios_are_of_one_round() -> None:
    # The second round was on a busier machine: each median alone would be unfair to somebody.
    trials = [
        trial("ours", "one-way-100", 0, k_per_s=300),
        trial("raw", "one-way-100", 0, k_per_s=100),
        trial("ours", "one-way-100", 1, k_per_s=30),
        trial("raw", "one-way-100", 1, k_per_s=10),
        trial("ours", "one-way-100", 2, k_per_s=500),
    ]
    assert ratio(trials, "ours", "one-way-100", "k_per_s") == 3
    assert ratio(trials, "nats", "one-way-100", "k_per_s") is None


def test_handlers_are_measured_against_raw_s_only_way_to_ping() -> None:
    trials = [trial("ours", "ping-handler", 0, p50_us=150), trial("raw", "ping", 0, p50_us=100)]
    assert ratio(trials, "ours", "ping-handler", "p50_us") == 1.5
    (verdict,) = [v for v in judge(trials) if v.figure is not None]
    assert (verdict.target.row, verdict.held) == ("ping-handler", True)


@pytest.mark.parametrize(("kib", "held"), [(64.0, True), (64.1, False)])
def test_a_target_is_held_missed_or_not_measured(kib: float, held: bool) -> None:
    verdicts = judge([trial("ours", "memory", 0, link_kib=kib)])
    assert [v.held for v in verdicts if v.target.row == "memory"] == [held]
    assert all(v.held is None for v in verdicts if v.target.row != "memory")


def test_each_target_is_of_a_row_and_a_measure_that_there_are() -> None:
    lines = {(line.row, line.measure) for line in LINES}
    assert all((target.row, target.measure) in lines and target.row in ROWS for target in TARGETS)


def test_the_table_says_what_is_missing_and_why() -> None:
    console = Console(width=140, record=True, quiet=False)
    trials = [
        trial("ours", "ping", 0, p50_us=123.4),
        trial("raw", "ping", 0, p50_us=100),
        Trial(Plan("nats", "ping", 0), {}, "not installed: make bench-rivals", failed=False),
        Trial(Plan("redis", "ping", 0), {}, "Segmentation fault", failed=True),
    ]
    with console.capture() as capture:
        show(console, trials, judge(trials))
    text = capture.get()
    assert "123 (1.23)" in text
    assert "nats left out: not installed: make bench-rivals" in text
    assert "redis, ping failed: Segmentation fault" in text


def test_the_median_is_of_what_came_after_the_warm_up() -> None:
    figures = latencies([1.0] * 25 + [1e-6] * 50 + [2e-6] * 50, plan("raw", "ping"))
    assert figures["p50_us"] == pytest.approx(2)
    assert figures["p99_us"] == pytest.approx(2)
