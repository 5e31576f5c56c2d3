"""From trials to medians, ratios against stock in the same round, and verdicts on what is promised."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from benchmarks.dht.children import Trial

__all__ = ["MEASURES", "SMALL", "TARGETS", "Measure", "Target", "Verdict", "judge", "medians", "ratio"]


class Measure(NamedTuple):
    """One row of the table."""

    key: str
    label: str
    digits: int
    is_share: bool = False


MEASURES = [
    Measure("join_ms", "join, ms per node", 1),
    Measure("put_ms", "put p50, ms", 1),
    Measure("get_ms", "get p50, ms", 2),
    Measure("get_p99_ms", "get p99, ms", 1),
    Measure("found", "found", 1, is_share=True),
    Measure("gets_per_s", "gets/s, 32 outstanding", 0),
    Measure("cpu_ms", "CPU ms per get", 2),
    Measure("watch_ms", "put until the watcher hears, ms", 1),
    Measure("dead_found", "30 % dead: found", 1, is_share=True),
    Measure("dead_ms", "30 % dead: get p50, ms", 1),
    Measure("dead_p99_ms", "30 % dead: get p99, ms", 1),
]
"""Of networks."""

SMALL = [
    Measure("find_per_s", "FIND_NODE per second of one core", 0),
    Measure("find_us", "CPU µs per FIND_NODE and answer", 0),
    Measure("ping_per_s", "PING per second of one core", 0),
    Measure("ping_us", "CPU µs per PING and answer", 0),
]
"""Of single requests; no nodes are counted."""


@dataclass(frozen=True)
class Target:
    """What issue 4 promises."""

    text: str
    rival: str
    nodes: int
    measure: str
    holds: Callable[[float], bool]
    against_stock: bool = False
    """The figure is the ratio to stock's in the same round."""


TARGETS = [
    Target("sealed FIND_NODE at least twice stock's unsealed", "ours", 0, "find_per_s", lambda x: x >= 2, True),
    Target("sealed FIND_NODE at least 12,000/s", "ours-uvloop", 0, "find_per_s", lambda x: x >= 12_000),
    Target("sealed PING at least 16,000/s", "ours-uvloop", 0, "ping_per_s", lambda x: x >= 16_000),
    *(
        target
        for nodes in (50, 200)
        for target in (
            Target(
                f"CPU per get at most 0.6 of stock's, N = {nodes}", "ours", nodes, "cpu_ms", lambda x: x <= 0.6, True
            ),
            Target(f"get p50 at most stock's, N = {nodes}", "ours", nodes, "get_ms", lambda x: x <= 1, True),
            Target(f"a watcher hears within 5 ms, N = {nodes}", "ours", nodes, "watch_ms", lambda x: x <= 5),
        )
    ),
    Target("30 % dead: all found, N = 200", "ours", 200, "dead_found", lambda x: x == 1),
    Target("30 % dead: get p99 at most 100 ms, N = 200", "ours", 200, "dead_p99_ms", lambda x: x <= 100),
]


class Verdict(NamedTuple):
    target: Target
    figure: float | None
    held: bool | None
    """None: it was not measured."""


def medians(trials: list[Trial], rival: str, nodes: int) -> dict[str, float]:
    """Measure → median over the seeds."""
    by_measure: dict[str, list[float]] = {}
    for trial in _trials(trials, rival, nodes):
        for measure, figure in trial.figures.items():
            if isinstance(figure, int | float):
                by_measure.setdefault(measure, []).append(figure)
    return {measure: median(figures) for measure, figures in by_measure.items()}


def ratio(trials: list[Trial], rival: str, nodes: int, measure: str) -> float | None:
    """The median of the ratios to stock's figure with the same seed; None where either is missing."""
    stock = {trial.plan.seed: trial.figures.get(measure) for trial in _trials(trials, "stock", nodes)}
    ratios = []
    for trial in _trials(trials, rival, nodes):
        ours, theirs = trial.figures.get(measure), stock.get(trial.plan.seed)
        if isinstance(ours, int | float) and isinstance(theirs, int | float) and theirs:
            ratios.append(ours / theirs)
    return median(ratios) if ratios else None


def judge(trials: list[Trial]) -> list[Verdict]:
    """What of `TARGETS` holds."""
    verdicts = []
    for target in TARGETS:
        if target.against_stock:
            figure = ratio(trials, target.rival, target.nodes, target.measure)
        else:
            figure = medians(trials, target.rival, target.nodes).get(target.measure)
        verdicts.append(Verdict(target, figure, None if figure is None else target.holds(figure)))
    return verdicts


def _trials(trials: list[Trial], rival: str, nodes: int) -> Iterator[Trial]:
    return (trial for trial in trials if (trial.plan.rival, trial.plan.nodes) == (rival, nodes))
