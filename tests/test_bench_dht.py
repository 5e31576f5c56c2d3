"""`make bench-dht` at its smallest: that it measures, judges, and leaves nobody behind."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.dht.children import Trial, run
from benchmarks.dht.judge import judge, medians, ratio
from benchmarks.dht.plan import Plan
from benchmarks.dht.rival import Rival, Skipped, make_deaf
from benchmarks.dht.rivals import ours, stock
from benchmarks.dht.table import show
from benchmarks.dht.workload import Figures, measure, percentile

ROOT = Path(__file__).resolve().parent.parent


def plan(rival: str, nodes: int = 5, **sizes: float) -> Plan:
    small = {"puts": 3, "gets": 5, "gets_after": 2, "watches": 1, "requests": 128, "gap_s": 0.001}
    return Plan(rival, nodes, seed=1, **{**small, **sizes})  # type: ignore[arg-type] # counts and seconds


# --- what is measured ---


# One of five dead would cost stock five seconds.
@pytest.mark.parametrize(("make", "dead_share"), [(ours.make, 0.2), (stock.make, 0.0)])
async def test_five_nodes_are_measured(make: Callable[[], Rival], dead_share: float) -> None:
    rival, phases = make(), []
    figures = await measure(rival, plan("", dead_share=dead_share), lambda phase, done, of: phases.append(phase))
    await rival.close()
    assert figures["found"] == figures["found_at_once"] == figures["dead_found"] == 1
    for name in ("join_ms", "put_ms", "get_ms", "get_p99_ms", "gets_per_s", "cpu_ms", "dead_ms", "dead_p99_ms"):
        figure = figures[name]
        assert isinstance(figure, float)
        assert 0 < figure < 30_000
    assert list(dict.fromkeys(phases))[:4] == ["join", "put", "get", "gets at once"]


class Forgetful(Rival):
    """Has what it was given only for the first get of each value, and cannot watch."""

    def __init__(self) -> None:
        self.values: dict[int, bytes] = {}
        self.silent: list[int] = []

    async def join(self, entry: int | None) -> None: ...

    async def put(self, owner: int, number: int, value: bytes) -> None:
        self.values[number] = value

    async def get(self, node: int, owner: int, number: int) -> bytes | None:
        assert node != owner
        assert node not in self.silent
        return self.values.pop(number, None)

    async def silence(self, node: int) -> None:
        self.silent.append(node)


async def test_what_is_not_found_is_not_counted_as_found() -> None:
    rival = Forgetful()
    figures = await measure(rival, plan("", nodes=10, puts=2, gets=20, dead_share=0.3), lambda *_: None)
    assert figures["found"] == 2 / 20
    assert figures["found_at_once"] == figures["dead_found"] == 0
    assert len(rival.silent) == 3


async def test_what_cannot_be_measured_is_left_out_with_its_reason() -> None:
    figures = await measure(Forgetful(), plan(""), lambda *_: None)
    assert figures["watch_ms"] is None
    assert figures["skipped: watch_ms"] == "it cannot watch"


def test_percentiles() -> None:
    hundred = [float(n) for n in range(100)]
    assert [percentile(hundred, share) for share in (0, 0.5, 0.99, 1)] == [0, 50, 99, 99]


# --- trials are processes ---


def test_a_trial_of_single_requests_in_its_process() -> None:
    trial = run(plan("stock", nodes=0), 30, lambda *_: None)
    assert trial.skipped is None
    assert isinstance(trial.figures["find_per_s"], float)


def test_who_takes_too_long_is_ended_and_its_figures_are_missing() -> None:
    trial = run(plan("stock"), 0.01, lambda *_: None)
    assert trial.failed
    assert trial.skipped == "it took longer than 0 s"
    assert trial.figures == {}


def test_a_trial_ends_with_whoever_started_it() -> None:
    arguments = [sys.executable, "-m", "benchmarks.dht.child", json.dumps(asdict(plan("ours", nodes=10_000)))]
    child = subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    assert json.loads(child.stdout.readline())[0] == "join"
    child.stdin.close()
    assert child.wait(20) == 1
    child.stdout.close()


# --- what is made of it ---


def trial(rival: str, seed: int, nodes: int = 200, **figures: float | str | None) -> Trial:
    return Trial(Plan(rival, nodes, seed), dict(figures), None, failed=False)


def test_ratios_are_of_one_round() -> None:
    # The second round was on a busier machine: each median alone would be unfair to somebody.
    trials = [
        trial("ours", 1, cpu_ms=1.0),
        trial("stock", 1, cpu_ms=2.0),
        trial("ours", 2, cpu_ms=10.0),
        trial("stock", 2, cpu_ms=20.0),
        trial("ours", 3, cpu_ms=1.5),
    ]
    assert ratio(trials, "ours", 200, "cpu_ms") == 0.5
    assert medians(trials, "ours", 200) == {"cpu_ms": 1.5}
    assert ratio(trials, "hyperdht", 200, "cpu_ms") is None


@pytest.mark.parametrize(("p99_ms", "held"), [(99.0, True), (100.5, False), (None, None)])
def test_a_target_is_held_missed_or_not_measured(p99_ms: float | None, held: bool | None) -> None:
    verdicts = judge([trial("ours", 1, dead_p99_ms=p99_ms)])
    assert [v.held for v in verdicts if v.target.measure == "dead_p99_ms"] == [held]
    assert all(v.held is None for v in verdicts if v.target.measure != "dead_p99_ms")


def test_the_table_says_what_is_missing_and_why() -> None:
    console = Console(width=140, record=True, file=None, quiet=False)
    figures: Figures = {"get_ms": 1.25, "watch_ms": None, "skipped: watch_ms": "it cannot watch"}
    trials = [
        Trial(Plan("ours", 50, 1), figures, None, failed=False),
        Trial(Plan("hyperdht", 50, 1), {}, "node is not installed", failed=False),
        Trial(Plan("opendht", 50, 1), {}, "Segmentation fault", failed=True),
    ]
    with console.capture() as capture:
        show(console, trials, judge(trials))
    text = capture.get()
    assert "1.25" in text
    assert "ours, watch_ms: it cannot watch" in text
    assert "hyperdht left out: node is not installed" in text
    assert "opendht failed: Segmentation fault" in text


def test_a_deaf_socket_hears_nobody_and_speaks_to_nobody() -> None:
    import socket

    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        for sock in (one, other):
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(0.05)
        at = one.getsockname()
        make_deaf(at[1])
        other.sendto(b"are you there?", at)
        with pytest.raises(TimeoutError):
            one.recvfrom(100)
        with pytest.raises(OSError):  # noqa: PT011 # which one is the system's affair
            one.sendto(b"I am", other.getsockname())


def test_a_rival_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.dht.rivals import libtorrent, opendht

    for rival, module in ((libtorrent, "libtorrent"), (opendht, "opendht")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(Skipped, match="make bench-rivals"):
            rival.make()
