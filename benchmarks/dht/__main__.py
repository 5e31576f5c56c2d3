"""`python -m benchmarks.dht`: rounds of trials in random order, then medians."""

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
from rich.console import Console
from rich.status import Status

from benchmarks.dht.children import Trial, run
from benchmarks.dht.judge import Verdict, judge
from benchmarks.dht.plan import Plan
from benchmarks.dht.table import show

RIVALS = ["ours", "ours-uvloop", "stock", "opendht", "libtorrent", "hyperdht"]
_WITH_REQUESTS = ["ours", "ours-uvloop", "stock"]
_RESULTS = Path(__file__).resolve().parent.parent / "results"
_TRIAL_S = 75.0  # no trial takes half as long; one that hangs shall not take the others' time
_WIDTH = 140  # where nobody knows how wide it is
_QUICK = {"puts": 50, "gets": 100, "gets_after": 60, "watches": 5, "requests": 5_000}


def main(
    rival: Annotated[list[str] | None, typer.Option(help=f"Again for each. All: {', '.join(RIVALS)}.")] = None,
    nodes: Annotated[list[int] | None, typer.Option(help="Again for each size; 0: single requests.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many rounds, each with another seed.")] = 3,
    first_seed: Annotated[int, typer.Option(help="The seed of the first round.")] = 1,
    max_s: Annotated[float, typer.Option(help="What has not begun by then is left out.")] = 360.0,
    quick: Annotated[bool, typer.Option("--quick", help="One round of a small size, to see that it works.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Measure DHTs on real sockets, side by side."""
    rivals = rival or RIVALS
    if unknown := [name for name in rivals if name not in RIVALS]:
        raise typer.BadParameter(f"{', '.join(unknown)}: the rivals are {', '.join(RIVALS)}")
    sizes = nodes or ([0, 50] if quick else [0, 50, 200])
    sizing = _QUICK if quick else {}
    rounds = [
        [Plan(name, size, seed, **sizing) for name in rivals for size in sizes if size or name in _WITH_REQUESTS]
        for seed in range(first_seed, first_seed + (1 if quick else seeds))
    ]
    load_before = os.getloadavg()
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console = Console(stderr=as_json, width=_WIDTH)
    trials = _run_all(rounds, max_s, console)
    verdicts = judge(trials)
    result = _result(trials, verdicts, load_before)
    path = _save(result)
    show(console, trials, verdicts)
    console.print(f"[dim]all figures: {path}[/]", soft_wrap=True)
    if as_json:
        print(json.dumps(result))


def _run_all(rounds: list[list[Plan]], max_s: float, console: Console) -> list[Trial]:
    trials: list[Trial] = []
    ends = time.monotonic() + max_s
    count = sum(map(len, rounds))
    with _status(console) as status:
        for plans in rounds:
            # Whoever comes later may find the machine hotter or busier: the order is another one in each round.
            random.Random(plans[0].seed).shuffle(plans)
            for plan in plans:
                trials.append(_run_one(plan, ends, status, f"{len(trials) + 1}/{count}"))
                _tell(console, trials[-1], len(trials), count)
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


@contextlib.contextmanager
def _status(console: Console) -> Iterator[Status | None]:
    if not console.is_terminal:
        yield None
        return
    with console.status("") as status:
        yield status


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


def _result(trials: list[Trial], verdicts: list[Verdict], load: tuple[float, float, float]) -> dict[str, Any]:
    return {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load_before": load,
        },
        "command": sys.argv[1:],
        "trials": [
            {"plan": asdict(t.plan), "figures": t.figures, "skipped": t.skipped, "failed": t.failed} for t in trials
        ],
        "targets": [{"text": v.target.text, "figure": v.figure, "held": v.held} for v in verdicts],
    }


def _save(result: dict[str, Any]) -> Path:
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"dht-{result['at'].replace(':', '').removesuffix('+0000')}.json"
    path.write_text(json.dumps(result, indent=1))
    return path


if __name__ == "__main__":
    typer.run(main)
