"""`python -m benchmarks.dht`: rounds of trials in random order, then medians."""

import random
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status

from benchmarks.dht.children import Trial, run
from benchmarks.dht.judge import judge
from benchmarks.dht.plan import Plan
from benchmarks.dht.table import show
from benchmarks.side_by_side import AsJson, MaxS, Quick, Report, again_for_each, check_known

RIVALS = ["ours", "ours-uvloop", "stock", "opendht", "libtorrent", "hyperdht"]
_WITH_REQUESTS = ["ours", "ours-uvloop", "stock"]
_TRIAL_S = 75.0  # no trial takes half as long; one that hangs shall not take the others' time
_WIDTH = 140  # where nobody knows how wide it is
_QUICK = {"puts": 50, "gets": 100, "gets_after": 60, "watches": 5, "requests": 5_000}


def main(
    rival: Annotated[list[str] | None, again_for_each(RIVALS)] = None,
    nodes: Annotated[list[int] | None, typer.Option(help="Again for each size; 0: single requests.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many rounds, each with another seed.")] = 3,
    first_seed: Annotated[int, typer.Option(help="The seed of the first round.")] = 1,
    max_s: MaxS = 360.0,
    quick: Quick = False,
    as_json: AsJson = False,
) -> None:
    """Measure DHTs on real sockets, side by side."""
    rivals = rival or RIVALS
    check_known(rivals, RIVALS)
    sizes = nodes or ([0, 50] if quick else [0, 50, 200])
    sizing = _QUICK if quick else {}
    rounds = [
        [Plan(name, size, seed, **sizing) for name in rivals for size in sizes if size or name in _WITH_REQUESTS]
        for seed in range(first_seed, first_seed + (1 if quick else seeds))
    ]
    report = Report("dht", width=_WIDTH, as_json=as_json)
    trials = _run_all(rounds, max_s, report)
    report.finish(trials, judge(trials), show)


def _run_all(rounds: list[list[Plan]], max_s: float, report: Report) -> list[Trial]:
    trials: list[Trial] = []
    ends = time.monotonic() + max_s
    count = sum(map(len, rounds))
    with report.status() as status:
        for plans in rounds:
            # Whoever comes later may find the machine hotter or busier: the order is another one in each round.
            random.Random(plans[0].seed).shuffle(plans)
            for plan in plans:
                trials.append(_run_one(plan, ends, status, f"{len(trials) + 1}/{count}"))
                _tell(report.console, trials[-1], len(trials), count)
    return trials


def _run_one(plan: Plan, ends: float, status: Status | None, at: str) -> Trial:
    left_s = ends - time.monotonic()
    if left_s <= 0:
        return Trial(plan, {}, "the time was over", failed=False)

    def progress(phase: str, done: int, of: int) -> None:
        if status is not None:
            status.update(f"{at} {_name(plan)}: {phase} {done}/{of}")

    progress("start", 0, 1)
    return run(plan, min(_TRIAL_S, left_s + 10), progress)


def _tell(console: Console, trial: Trial, number: int, count: int) -> None:
    if trial.skipped is not None:
        word = trial.skipped
    elif trial.plan.nodes:
        word = "get p50 {get_ms:.2f} ms, {cpu_ms:.2f} ms of CPU".format_map(trial.figures)
    else:
        word = "{find_per_s:,.0f} FIND_NODE/s".format_map(trial.figures)
    console.print(f"[dim]{number}/{count}[/] {_name(trial.plan)}, seed {trial.plan.seed}: {word}")


def _name(plan: Plan) -> str:
    return f"{plan.rival}, {plan.nodes} nodes" if plan.nodes else f"{plan.rival}, single requests"


if __name__ == "__main__":
    typer.run(main)
