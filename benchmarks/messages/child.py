"""One end of one trial: `python -m benchmarks.messages.child near|far PLAN`, with the plan as JSON.

The near end starts the far one, whose first line says how to reach it, and prints {"figures": …} or {"skipped": why}.
Both end when their standard input does, so that none outlives the one who started it. Standard library only.
"""

import asyncio
import importlib
import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks.messages.plan import Plan
from benchmarks.messages.rival import Figures, Info, Skipped
from benchmarks.messages.workload import Clock, near, serve

_MODULES = {"zmq-asyncio": "zmq_asyncio"}


def main() -> None:
    side, plan = sys.argv[1], Plan(**json.loads(sys.argv[2]))
    threading.Thread(target=_end_with_starter, daemon=True).start()
    try:
        if side == "far":
            _run(plan, lambda: _far(plan))
        else:
            _say({"figures": _run(plan, lambda: _near(plan))})
    except Skipped as skipped:
        _say({"skipped": str(skipped)})
    except Exception:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # threads of some rivals would take their time


def _say(said: dict[str, Any]) -> None:
    print(json.dumps(said), flush=True)


def _end_with_starter() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _module(plan: Plan) -> Any:
    name = plan.rival.removesuffix("-uvloop")
    return importlib.import_module(f"benchmarks.messages.rivals.{_MODULES.get(name, name)}")


def _run(plan: Plan, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    if plan.rival == "libp2p":
        return _module(plan).run(main)  # trio's
    if not plan.rival.endswith("-uvloop"):
        return asyncio.run(main())
    try:
        import uvloop
    except ImportError:
        raise Skipped("uvloop is not installed") from None
    return uvloop.run(main())


async def _far(plan: Plan) -> None:
    module = _module(plan)
    if hasattr(module, "far"):
        await module.far(plan, _say)
    else:
        rival = module.make()
        _say(await rival.listen())
        await serve(await rival.accept())


async def _near(plan: Plan) -> Figures:
    module = _module(plan)
    far = subprocess.Popen(  # noqa: ASYNC220 # there is nothing else to do meanwhile
        [sys.executable, "-m", "benchmarks.messages.child", "far", sys.argv[2]],
        stdin=subprocess.PIPE,  # never written: it ends when we do
        stdout=subprocess.PIPE,
    )
    assert far.stdout is not None
    Clock.far_pid = far.pid
    line = far.stdout.readline()
    if not line:
        raise RuntimeError("the far process ended")
    info: Info = json.loads(line)
    if "skipped" in info:
        raise Skipped(info["skipped"])
    if hasattr(module, "near"):
        figures: Figures = await module.near(plan, info)
        return figures
    return await near(plan, await module.make().dial(info))


if __name__ == "__main__":
    main()
