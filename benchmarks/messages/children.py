"""Trials as processes of their own, one at a time; none outlives us."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from benchmarks.messages.plan import Plan
from benchmarks.messages.rival import Figures

__all__ = ["RIVALS_PYTHON", "Trial", "run"]

_ROOT = Path(__file__).resolve().parent.parent.parent
RIVALS_PYTHON = Path(__file__).parent / "rivals" / "venv" / "bin" / "python"
"""Of the environment that `make bench-rivals` makes: what rivals need would be of no use to @Once."""
_OF_OURS = ("raw", "ours", "ours-uvloop", "zmq-asyncio", "tls", "tls-uvloop")


class Trial(NamedTuple):
    """What became of a plan."""

    plan: Plan
    figures: Figures
    skipped: str | None
    """Why there are no figures."""
    failed: bool
    """It was begun and did not end well: its figures are missing for a reason of its own."""


def run(plan: Plan, limit_s: float) -> Trial:
    """Run one trial; after `limit_s` it is ended."""
    python = sys.executable if plan.rival in _OF_OURS else str(RIVALS_PYTHON)
    if not Path(python).exists():
        return Trial(plan, {}, "not installed: make bench-rivals", failed=False)
    child = subprocess.Popen(
        [python, "-m", "benchmarks.messages.child", "near", json.dumps(asdict(plan))],
        cwd=_ROOT,
        stdin=subprocess.PIPE,  # never written: a child ends when it does
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is ours alone
    )
    complaints: list[str] = []
    reader = threading.Thread(target=lambda: complaints.extend(child.stderr or ()), daemon=True)
    late = threading.Timer(limit_s, child.kill)
    with child:
        began = time.monotonic()
        reader.start()
        late.start()
        try:
            line = child.stdout.readline() if child.stdout is not None else ""
        finally:
            late.cancel()
            child.kill()
            reader.join()
    if line:
        said = json.loads(line)
        return Trial(plan, said.get("figures", {}), said.get("skipped"), failed=False)
    why = complaints[-1].strip() if complaints else f"it ended with code {child.returncode}"
    if time.monotonic() - began >= limit_s:
        why = f"it took longer than {limit_s:.0f} s"
    return Trial(plan, {}, why, failed=True)
