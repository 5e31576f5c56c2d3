"""`python -m benchmarks.messages`: rounds of trials in random order, then medians."""

import random
import time
from typing import Annotated, Any

import typer
import zmq
from rich.console import Console

from benchmarks.messages.children import Trial, run
from benchmarks.messages.judge import judge
from benchmarks.messages.plan import ROWS, Plan
from benchmarks.messages.table import show
from benchmarks.side_by_side import AsJson, MaxS, Quick, Report, again_for_each, check_known

OURS = ["raw", "ours", "ours-uvloop"]
RIVALS = [*OURS, "zmq-asyncio", "pyre", "libp2p", "nats", "redis", "websockets", "tls", "tls-uvloop"]
_COMMON_ROWS = ("one-way-100", "one-way-1k", "acked-64", "acked-1000", "ping")
_TRIAL_S = 20.0  # one that hangs shall not take the others' time
_WIDTH = 210  # where nobody knows how wide it is: eleven rivals
_QUICK = {"measure_s": 0.2, "links": 10, "memory_links": 50}


def main(
    rival: Annotated[list[str] | None, again_for_each(RIVALS)] = None,
    row: Annotated[list[str] | None, again_for_each(list(ROWS))] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Of all that is measured.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the order within the rounds.")] = 1,
    max_s: MaxS = 600.0,
    quick: Quick = False,
    as_json: AsJson = False,
) -> None:
    """Measure messages between two processes, side by side."""
    rivals, rows = rival or RIVALS, row or list(ROWS)
    check_known(rivals, RIVALS)
    check_known(rows, list(ROWS))
    rng = random.Random(seed)
    plans = [plan for at in range(1 if quick else rounds) for plan in _round(at, rivals, rows, quick, rng)]
    report = Report("messages", width=_WIDTH, as_json=as_json)
    trials = _run_all(plans, max_s, report)
    report.finish(trials, judge(trials), show, pyzmq=zmq.__version__, libzmq=zmq.zmq_version())


def _round(at: int, rivals: list[str], rows: list[str], quick: bool, rng: random.Random) -> list[Plan]:
    """One round. The trials of a row follow each other, so that what they are measured against is not long ago."""
    plans = []
    for row in rng.sample(rows, len(rows)):
        who = [name for name in rivals if name in OURS or row in _COMMON_ROWS]
        sizing: dict[str, Any] = _QUICK if quick else {}
        plans += [Plan(name, row, at, **sizing) for name in rng.sample(who, len(who)) if _has(name, row)]
    return plans


def _has(rival: str, row: str) -> bool:
    """Raw pyzmq has one way to ping, and what a link costs does not depend on the loop."""
    return {"ping-handler": rival != "raw", "memory": rival == "ours"}.get(row, True)


def _run_all(plans: list[Plan], max_s: float, report: Report) -> list[Trial]:
    trials: list[Trial] = []
    ends = time.monotonic() + max_s
    missing: dict[str, Trial] = {}
    trial: Trial
    with report.status() as status:
        for plan in plans:
            if status is not None:
                status.update(f"{len(trials) + 1}/{len(plans)} {plan.rival}: {plan.row}")
            if time.monotonic() > ends:
                trial = Trial(plan, {}, "the time was over", failed=False)
            elif plan.rival in missing:
                trial = missing[plan.rival]._replace(plan=plan)
            else:
                trial = run(plan, _TRIAL_S)
                if trial.skipped and not trial.failed:
                    missing[plan.rival] = trial
            trials.append(trial)
            _tell(report.console, trial, len(trials), len(plans))
    return trials


def _tell(console: Console, trial: Trial, number: int, count: int) -> None:
    word = trial.skipped or ", ".join(f"{name} {figure:,.1f}" for name, figure in trial.figures.items())
    plan = trial.plan
    console.print(f"[dim]{number}/{count}[/] round {plan.round + 1}, {plan.row}, {plan.rival}: {word}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
