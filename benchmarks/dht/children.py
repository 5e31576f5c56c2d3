"""Trials as processes of their own, one at a time, on one core; none outlives us."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from benchmarks.dht.plan import Plan
from benchmarks.dht.workload import Figures

__all__ = ["Trial", "run"]

_ROOT = Path(__file__).resolve().parent.parent.parent
_DEBIANS_PYTHON = "/usr/bin/python3"
_HYPERDHT = str(Path(__file__).parent / "rivals" / "hyperdht.js")

OnProgress = Callable[[str, int, int], None]


class Trial(NamedTuple):
    """What became of a plan."""

    plan: Plan
    figures: Figures
    skipped: str | None
    """Why there are no figures."""
    failed: bool
    """It was begun and did not end well: its figures are missing for a reason of its own."""


def run(plan: Plan, limit_s: float, on_progress: OnProgress) -> Trial:
    """Run one trial; after `limit_s` it is ended."""
    try:
        child = _start(plan)
    except FileNotFoundError as error:
        return Trial(plan, {}, f"{error.filename} is not installed", failed=False)
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


def _heard(plan: Plan, child: "subprocess.Popen[str]", on_progress: OnProgress) -> Trial | None:
    """What the child says; None if it ends without figures or a reason."""
    for line in child.stdout or ():
        said = json.loads(line)
        if isinstance(said, list):
            on_progress(*said)
        elif "skipped" in said:
            return Trial(plan, {}, said["skipped"], failed=False)
        else:
            return Trial(plan, said["figures"], None, failed=False)
    return None


def _start(plan: Plan) -> "subprocess.Popen[str]":
    with _only_one_core():
        return subprocess.Popen(
            [*_command(plan), json.dumps(asdict(plan))],
            cwd=_ROOT,
            stdin=subprocess.PIPE,  # never written: a child ends when it does
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is ours alone
        )


def _command(plan: Plan) -> list[str]:
    if plan.rival == "hyperdht":
        return ["node", _HYPERDHT]
    return [_python(plan.rival), "-m", "benchmarks.dht.child"]


def _python(rival: str) -> str:
    """Debian's modules run under Debian's Python. libtorrent may come from either."""
    ours_lacks = rival == "opendht" or (rival == "libtorrent" and find_spec("libtorrent") is None)
    return _DEBIANS_PYTHON if ours_lacks and Path(_DEBIANS_PYTHON).exists() else sys.executable


@contextmanager
def _only_one_core() -> Iterator[None]:
    """Whoever is started meanwhile has one core for all its threads, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
