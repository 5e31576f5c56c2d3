"""Trials as processes of their own, one at a time, on one core; none outlives us."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from benchmarks import side_by_side
from benchmarks.dht.plan import Plan
from benchmarks.dht.workload import Figures
from benchmarks.side_by_side import OnProgress, follow, start

__all__ = ["Trial", "run"]

_DEBIANS_PYTHON = "/usr/bin/python3"
_HYPERDHT = str(Path(__file__).parent / "rivals" / "hyperdht.js")

Trial = side_by_side.Trial[Plan, Figures]


def run(plan: Plan, limit_s: float, on_progress: OnProgress) -> Trial:
    """Run one trial; after `limit_s` it is ended."""
    try:
        with _only_one_core():
            child = start(plan, _command(plan))
    except FileNotFoundError as error:
        return Trial(plan, {}, f"{error.filename} is not installed", failed=False)
    return follow(plan, child, limit_s, on_progress)


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
