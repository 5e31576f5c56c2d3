"""What the benchmarks beside rivals share: their options, trials in processes of their own, and what becomes of the
figures. Each trial is a plan; its process prints JSON lines: progress as [phase, done, of], then {"figures": …} or
{"skipped": why}.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table

__all__ = [
    "AsJson",
    "MaxS",
    "OnProgress",
    "Quick",
    "Report",
    "Trial",
    "again_for_each",
    "check_known",
    "empty_table",
    "follow",
    "say_once",
    "say_verdict",
    "start",
    "why_missing",
]

_ROOT = Path(__file__).resolve().parent.parent
_RESULTS = Path(__file__).resolve().parent / "results"

MaxS = Annotated[float, typer.Option(help="What has not begun by then is left out.")]
Quick = Annotated[bool, typer.Option("--quick", help="One round of a small size, to see that it works.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def again_for_each(known: Sequence[str]) -> Any:
    """The option that chooses some of these."""
    return typer.Option(help=f"Again for each. All: {', '.join(known)}.")


def check_known(given: Sequence[str], known: Sequence[str]) -> None:
    """Raises `typer.BadParameter` of what there is not."""
    if unknown := [name for name in given if name not in known]:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(known)}")


# --- trials ---


class _Plan(Protocol):
    """A dataclass that says what one trial does."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def rival(self) -> str: ...


P = TypeVar("P", bound=_Plan)
F = TypeVar("F")

OnProgress = Callable[[str, int, int], None]


class Trial(NamedTuple, Generic[P, F]):
    """What became of a plan."""

    plan: P
    figures: F
    skipped: str | None
    """Why there are no figures."""
    failed: bool
    """It was begun and did not end well: its figures are missing for a reason of its own."""


def start(plan: _Plan, command: list[str]) -> "subprocess.Popen[str]":
    """Start a trial's process, which is handed the plan as JSON. Raises `FileNotFoundError`."""
    return subprocess.Popen(
        [*command, json.dumps(asdict(plan))],
        cwd=_ROOT,
        stdin=subprocess.PIPE,  # never written: a child ends when it does
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is ours alone
    )


def follow(
    plan: P, child: "subprocess.Popen[str]", limit_s: float, on_progress: OnProgress = lambda *_: None
) -> Trial[P, Any]:
    """What comes of a trial; after `limit_s` it is ended. It does not outlive this."""
    complaints: list[str] = []
    reader = threading.Thread(target=lambda: complaints.extend(child.stderr or ()), daemon=True)
    late = threading.Timer(limit_s, child.kill)
    with child:
        began = time.monotonic()
        reader.start()
        late.start()
        try:
            trial = _heard(plan, child, on_progress)
        finally:
            late.cancel()
            child.kill()
            reader.join()
    if trial is not None:
        return trial
    why = complaints[-1].strip() if complaints else f"it ended with code {child.returncode}"
    if time.monotonic() - began >= limit_s:
        why = f"it took longer than {limit_s:.0f} s"
    return Trial(plan, {}, why, failed=True)


def _heard(plan: P, child: "subprocess.Popen[str]", on_progress: OnProgress) -> Trial[P, Any] | None:
    """What the child says; None if it ends without figures or a reason."""
    for line in child.stdout or ():
        said = json.loads(line)
        if isinstance(said, list):
            on_progress(*said)
        else:
            return Trial(plan, said.get("figures", {}), said.get("skipped"), failed=False)
    return None


# --- what becomes of the figures ---


class _Target(Protocol):
    @property
    def text(self) -> str: ...


class _Verdict(Protocol):
    """A named tuple of a target and what was found of it."""

    @property
    def target(self) -> _Target: ...

    def _asdict(self) -> dict[str, Any]: ...


T = TypeVar("T", bound=Trial[Any, Any])
V = TypeVar("V", bound=_Verdict)


class Report:
    """What a run tells people and programs, from its beginning to its end."""

    def __init__(self, name: str, *, width: int, as_json: bool) -> None:
        """`width`: of the console where nobody knows how wide it is. Standard output is for JSON if that is wanted."""
        self._name = name
        self._as_json = as_json
        self._load_before = os.getloadavg()
        self.console = Console(stderr=as_json)
        if not self.console.is_terminal:
            self.console = Console(stderr=as_json, width=width)

    @contextmanager
    def status(self) -> Iterator[Status | None]:
        """A line that changes; None where there is no terminal."""
        if not self.console.is_terminal:
            yield None
            return
        with self.console.status("") as status:
            yield status

    def finish(
        self, trials: list[T], verdicts: list[V], show: Callable[[Console, list[T], list[V]], None], **versions: str
    ) -> None:
        """Keep all figures in a file of `benchmarks/results/`, and show them. `versions`: of what was measured."""
        result = {
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": {
                "system": platform.platform(),
                "python": platform.python_version(),
                **versions,
                "cores": os.cpu_count(),
                "load_before": self._load_before,
            },
            "command": sys.argv[1:],
            "trials": [{**trial._asdict(), "plan": asdict(trial.plan)} for trial in trials],
            "targets": [_plain(verdict) for verdict in verdicts],
        }
        path = self._save(result)
        show(self.console, trials, verdicts)
        self.console.print(f"[dim]all figures: {path}[/]", soft_wrap=True)
        if self._as_json:
            print(json.dumps(result))

    def _save(self, result: dict[str, Any]) -> Path:
        _RESULTS.mkdir(exist_ok=True)
        path = _RESULTS / f"{self._name}-{result['at'].replace(':', '').removesuffix('+0000')}.json"
        path.write_text(json.dumps(result, indent=1))
        return path


def _plain(verdict: _Verdict) -> dict[str, Any]:
    found = verdict._asdict()
    return {"text": found.pop("target").text, **found}


# --- for people ---


def empty_table(title: str, rivals: list[str]) -> Table:
    """A column for what is measured, and one for each rival."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for rival in rivals:
        table.add_column(rival, justify="right")
    return table


def say_verdict(console: Console, held: bool, words: str) -> None:
    """Whether a promise is kept."""
    mark = "[green]held  [/]" if held else "[red]missed[/]"
    console.print(f"{mark} {words}")


def why_missing(trial: Trial[Any, Any], name: str) -> list[str]:
    """Why a trial has no figures, if it has none. `name`: of what failed, if it did."""
    if trial.skipped is None:
        return []
    of = f"{name} failed" if trial.failed else f"{trial.plan.rival} left out"
    return [f"{of}: {trial.skipped}"]


def say_once(console: Console, reasons: list[str]) -> None:
    """What is missing, each reason once."""
    for reason in dict.fromkeys(reasons):
        console.print(f"[dim]{reason}[/]")
