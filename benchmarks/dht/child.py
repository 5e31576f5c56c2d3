"""One trial in a process of its own: `python -m benchmarks.dht.child PLAN`, with the plan as JSON.

Prints JSON lines: progress as [phase, done, of], then {"figures": …} or {"skipped": why}. Ends when its standard input
does, so that none outlives the one who started it, whatever becomes of that. Standard library only.
"""

import asyncio
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.dht.plan import Plan
from benchmarks.dht.rival import Skipped
from benchmarks.dht.workload import Figures, Tell, measure

_TELL_S = 0.25  # between two words of progress


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    threading.Thread(target=_end_with_starter, daemon=True).start()
    try:
        figures = _loop_of(plan.rival)(_trial(plan))
    except Skipped as skipped:
        print(json.dumps({"skipped": str(skipped)}), flush=True)
    else:
        print(json.dumps({"figures": figures}), flush=True)
    os._exit(0)  # hundreds of threads of some rivals would take their time


def _end_with_starter() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _loop_of(rival: str) -> Callable[[Any], Figures]:
    if not rival.endswith("uvloop"):
        return asyncio.run
    try:
        import uvloop
    except ImportError:
        raise Skipped("uvloop is not installed") from None
    return uvloop.run


async def _trial(plan: Plan) -> Figures:
    name = plan.rival.partition("-")[0]
    if plan.nodes:
        rival = importlib.import_module(f"benchmarks.dht.rivals.{name}").make()
        return await measure(rival, plan, _teller())
    from benchmarks.dht import requests

    return await {"ours": requests.measure_ours, "stock": requests.measure_stock}[name](plan, _teller())


def _teller() -> Tell:
    told = 0.0

    def tell(phase: str, done: int, of: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > _TELL_S:
            told = now
            print(json.dumps([phase, done, of]), flush=True)

    return tell


if __name__ == "__main__":
    main()
