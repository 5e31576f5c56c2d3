"""From trials to medians, ratios against raw pyzmq in the same round, and verdicts on what is promised."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final, NamedTuple

from benchmarks.messages.children import Trial

__all__ = ["LINES", "TARGETS", "Line", "Target", "Verdict", "figures_of", "judge", "ratio"]

_RAW_ROWS: Final = {"ping-handler": "ping"}
"""Which of raw pyzmq's rows another one is measured against, where that is not its own."""


class Line(NamedTuple):
    """One line of the table."""

    row: str
    measure: str
    label: str


LINES: Final = [
    Line("one-way-100", "k_per_s", "one-way, 100 B, k/s"),
    Line("one-way-1k", "k_per_s", "one-way, 1 KiB, k/s"),
    Line("acked-64", "k_per_s", "acknowledged, 64 in flight, k/s"),
    Line("acked-1000", "k_per_s", "acknowledged, 1,000 in flight, k/s"),
    Line("fan-64", "k_per_s", "to 50 links, 64 rounds per turn, k/s"),
    Line("fan-1", "k_per_s", "to 50 links, one round per turn, k/s"),
    Line("ping", "p50_us", "ping-pong p50, µs"),
    Line("ping", "p99_us", "ping-pong p99, µs"),
    Line("ping-handler", "p50_us", "ping-pong in handlers p50, µs"),
    Line("ping-handler", "p99_us", "ping-pong in handlers p99, µs"),
    Line("memory", "link_kib", "memory per link, KiB"),
    Line("one-way-100", "cpu_us", "CPU: one-way, 100 B, µs"),
    Line("one-way-1k", "cpu_us", "CPU: one-way, 1 KiB, µs"),
    Line("acked-64", "cpu_us", "CPU: 64 in flight, µs"),
    Line("acked-1000", "cpu_us", "CPU: 1,000 in flight, µs"),
    Line("fan-64", "cpu_us", "CPU: 64 rounds, µs"),
    Line("fan-1", "cpu_us", "CPU: one round, µs"),
    Line("ping", "cpu_us", "CPU: ping-pong, µs"),
    Line("ping-handler", "cpu_us", "CPU: ping-pong in handlers, µs"),
]


@dataclass(frozen=True)
class Target:
    """What issue 5 promises."""

    text: str
    rival: str
    row: str
    measure: str
    holds: Callable[[float], bool]
    against_raw: bool = True
    """The figure is the ratio to raw pyzmq's in the same round."""


def _at_least(rival: str, row: str, floor: float) -> Target:
    return Target(f"{rival}, {row}: at least {floor:g} × raw", rival, row, "k_per_s", lambda x: x >= floor)


def _at_most(rival: str, row: str, ceiling: float) -> Target:
    return Target(f"{rival}, {row}: p50 at most {ceiling:g} × raw", rival, row, "p50_us", lambda x: x <= ceiling)


TARGETS: Final = [
    *(_at_least(rival, "one-way-100", 2.5) for rival in ("ours", "ours-uvloop")),
    *(_at_least(rival, "one-way-1k", 1.5) for rival in ("ours", "ours-uvloop")),
    _at_least("ours", "acked-64", 0.8),
    _at_least("ours-uvloop", "acked-64", 1.0),
    *(_at_least(rival, "acked-1000", 1.2) for rival in ("ours", "ours-uvloop")),
    *(_at_least(rival, "fan-64", 3.0) for rival in ("ours", "ours-uvloop")),
    *(_at_least(rival, "fan-1", 0.6) for rival in ("ours", "ours-uvloop")),
    _at_most("ours", "ping", 2.0),
    _at_most("ours-uvloop", "ping", 1.6),
    *(_at_most(rival, "ping-handler", 1.5) for rival in ("ours", "ours-uvloop")),
    Target("a link takes at most 64 KiB", "ours", "memory", "link_kib", lambda x: x <= 64, against_raw=False),
]


class Verdict(NamedTuple):
    target: Target
    figure: float | None
    held: bool | None
    """None: it was not measured."""
    best: float | None
    """The same of the best slices: what it is when nobody else wants the machine. It decides nothing."""


def figures_of(trials: list[Trial], rival: str, row: str, measure: str) -> dict[int, float]:
    """Round → figure."""
    return {
        trial.plan.round: trial.figures[measure]
        for trial in trials
        if (trial.plan.rival, trial.plan.row) == (rival, row) and measure in trial.figures
    }


def ratio(trials: list[Trial], rival: str, row: str, measure: str) -> float | None:
    """The median of the ratios to raw pyzmq's figure in the same round; None where either is missing."""
    raw = figures_of(trials, "raw", _RAW_ROWS.get(row, row), measure)
    ratios = [figure / raw[at] for at, figure in figures_of(trials, rival, row, measure).items() if raw.get(at)]
    return median(ratios) if ratios else None


def judge(trials: list[Trial]) -> list[Verdict]:
    """What of `TARGETS` holds."""
    verdicts = []
    for target in TARGETS:
        if target.against_raw:
            figure = ratio(trials, target.rival, target.row, target.measure)
        else:
            figures = figures_of(trials, target.rival, target.row, target.measure)
            figure = median(figures.values()) if figures else None
        best = ratio(trials, target.rival, target.row, f"best_{target.measure}") if target.against_raw else None
        verdicts.append(Verdict(target, figure, None if figure is None else target.holds(figure), best))
    return verdicts
