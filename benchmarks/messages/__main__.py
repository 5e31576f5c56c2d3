"""`python -m benchmarks.messages`: rounds of trials in random order, then medians."""

import contextlib
import datetime
import json
import os
import platform
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import zmq
from rich.console import Console
from rich.status import Status

from benchmarks.messages.children import Trial, run
from benchmarks.messages.judge import Verdict, judge
from benchmarks.messages.plan import ROWS, Plan
from benchmarks.messages.table import show

OURS = ["raw", "ours", "ours-uvloop"]
RIVALS = [*OURS, "zmq-asyncio", "pyre", "libp2p", "nats", "redis", "websockets", "tls", "tls-uvloop"]
_COMMON_ROWS = ("one-way-100", "one-way-1k", "acked-64", "acked-1000", "ping")
_RESULTS = Path(__file__).resolve().parent.parent / "results"
_TRIAL_S = 20.0  # one that hangs shall not take the others' time
_WIDTH = 210  # where nobody knows how wide it is: eleven rivals
_QUICK = {"measure_s": 0.2, "links": 10, "memory_links": 50}


def main(
    rival: Annotated[list[str] | None, typer.Option(help=f"Again for each. All: {', '.join(RIVALS)}.")] = None,
    row: Annotated[list[str] | None, typer.Option(help=f"Again for each. All: {', '.join(ROWS)}.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Of all that is measured.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the order within the rounds.")] = 1,
    max_s: Annotated[float, typer.Option(help="What has not begun by then is left out.")] = 600.0,
    quick: Annotated[bool, typer.Option("--quick", help="One round of a small size, to see that it works.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Measure messages between two processes, side by side."""
    rivals, rows = rival or RIVALS, row or list(ROWS)
    for given, known in ((rivals, RIVALS), (rows, list(ROWS))):
        if unknown := [name for name in given if name not in known]:
            raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(known)}")
    rng = random.Random(seed)
    plans = [plan for at in range(1 if quick else rounds) for plan in _round(at, rivals, rows, quick, rng)]
    load_before = os.getloadavg()
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console = Console(stderr=as_json, width=_WIDTH)
    trials = _run_all(plans, max_s, console)
    verdicts = judge(trials)
    result = _result(trials, verdicts, load_before)
    path = _save(result)
    show(console, trials, verdicts)
    console.print(f"[dim]all figures: {path}[/]", soft_wrap=True)
    if as_json:
        print(json.dumps(result))


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


def _run_all(plans: list[Plan], max_s: float, console: Console) -> list[Trial]:
    trials: list[Trial] = []
    ends = time.monotonic() + max_s
    missing: dict[str, Trial] = {}
    with _status(console) as status:
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
            _tell(console, trial, len(trials), len(plans))
    return trials


@contextlib.contextmanager
def _status(console: Console) -> Iterator[Status | None]:
    if not console.is_terminal:
        yield None
        return
    with console.status("") as status:
        yield status


def _tell(console: Console, trial: Trial, number: int, count: int) -> None:
    word = trial.skipped or ", ".join(f"{name} {figure:,.1f}" for name, figure in trial.figures.items())
    plan = trial.plan
    console.print(f"[dim]{number}/{count}[/] round {plan.round + 1}, {plan.row}, {plan.rival}: {word}", soft_wrap=True)


def _result(trials: list[Trial], verdicts: list[Verdict], load: tuple[float, float, float]) -> dict[str, Any]:
    return {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "pyzmq": zmq.__version__,
            "libzmq": zmq.zmq_version(),
            "cores": os.cpu_count(),
            "load_before": load,
        },
        "command": sys.argv[1:],
        "trials": [
            {"plan": asdict(t.plan), "figures": t.figures, "skipped": t.skipped, "failed": t.failed} for t in trials
        ],
        "targets": [{"text": v.target.text, "figure": v.figure, "held": v.held, "best": v.best} for v in verdicts],
    }


def _save(result: dict[str, Any]) -> Path:
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"messages-{result['at'].replace(':', '').removesuffix('+0000')}.json"
    path.write_text(json.dumps(result, indent=1))
    return path


if __name__ == "__main__":
    typer.run(main)
