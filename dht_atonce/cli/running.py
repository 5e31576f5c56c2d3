"""Running a coroutine as a command: signals, exit codes, one-line errors."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from dht_atonce.cli.output import Output
from dht_atonce.errors import AtOnceError

__all__ = ["run"]


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def run(main: Coroutine[Any, Any, int]) -> None:
    """Run `main` and exit with what it returns. Ctrl-C and SIGTERM cancel it, so that it can say goodbye; that is
    success.

    A second signal ends at once.
    """
    sys.exit(_run(main))


def _run(main: Coroutine[Any, Any, int]) -> int:
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_until_signal(main))
    except AtOnceError as error:
        Output.error(str(error))
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("ATONCE_DEBUG"):
            raise
        Output.error(f"internal: {type(error).__name__}: {error} (set ATONCE_DEBUG=1 to see where; please report it)")
        return 70


async def _until_signal(main: Coroutine[Any, Any, int]) -> int:
    loop = asyncio.get_running_loop()
    task = loop.create_task(main, name="main")
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            os._exit(130)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        return await task
    except asyncio.CancelledError:
        return 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
