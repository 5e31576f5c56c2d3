"""Trials as processes of their own, one at a time; none outlives us."""

import sys
from pathlib import Path

from benchmarks import side_by_side
from benchmarks.messages.plan import Plan
from benchmarks.messages.rival import Figures
from benchmarks.side_by_side import follow, start

__all__ = ["RIVALS_PYTHON", "Trial", "run"]

RIVALS_PYTHON = Path(__file__).parent / "rivals" / "venv" / "bin" / "python"
"""Of the environment that `make bench-rivals` makes: what rivals need would be of no use to @Once."""
_OF_OURS = ("raw", "ours", "ours-uvloop", "zmq-asyncio", "tls", "tls-uvloop")

Trial = side_by_side.Trial[Plan, Figures]


def run(plan: Plan, limit_s: float) -> Trial:
    """Run one trial; after `limit_s` it is ended."""
    python = sys.executable if plan.rival in _OF_OURS else str(RIVALS_PYTHON)
    if not Path(python).exists():
        return Trial(plan, {}, "not installed: make bench-rivals", failed=False)
    return follow(plan, start(plan, [python, "-m", "benchmarks.messages.child", "near"]), limit_s)
