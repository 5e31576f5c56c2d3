"""Running a command: signals, exit codes, one-line errors."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from dht_atonce.cli.output import Output
from dht_atonce.errors import (
    AtOnceError,
    DeliveryUnknown,
    EntryFailed,
    PeerOffline,
    PeerUnknown,
    PortInUse,
    ProfileInUse,
    StreamBroken,
    TransferFailed,
)

__all__ = ["explain", "run"]

_HINTS: list[tuple[type[AtOnceError], str, str]] = [
    (ProfileInUse, "", "stop it, or name another folder with --profile"),
    (PeerUnknown, "in the room", "somebody has to listen: see atonce listen --help"),
    (PeerUnknown, "", "check the PeerId, and that the peer has joined this network"),
    (PeerOffline, "no address", "it has to write to you first"),
    (PeerOffline, "", "try again when it is back"),
    (TransferFailed, "nobody there takes", "it has to run: atonce join --receive DIR, or --serve DIR"),
    (TransferFailed, "broke it off", "the same command goes on where it was"),
    (StreamBroken, "", "the same command goes on where it was"),
    (PortInUse, "Cannot assign", "--listen takes an address of this machine"),
    (DeliveryUnknown, "", "it may have arrived: ask before you send it again"),
    (AtOnceError, "serves the network", "leave out --network, or take a seed of your network"),
    (EntryFailed, "does not answer (", "see that the seed runs and can be reached from here"),
    (EntryFailed, "stopped answering", "see that the seed runs and can be reached from here"),
    (EntryFailed, "none of them answers", "UDP may not get through from here: see what a firewall does"),
    (EntryFailed, "none answers", "name a seed with --seed URL"),
]
"""What to do, where the library cannot know what its user has at hand: for which error, with what in its message."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_THREADS_S = 0.3  # for each thread that has nothing left to do; name resolution can take much longer


def run(
    main: Coroutine[Any, Any, int], *, until_signal: bool = False, at_once: Callable[[], None] = lambda: None
) -> NoReturn:
    """Run `main` and exit with what it returns.

    Ctrl-C, SIGTERM and SIGHUP cancel it, so that it can say goodbye. For what runs `until_signal` that is success, for
    all else it is not. A second signal calls `at_once` and ends at once.
    """
    # Our own executor: asyncio would wait for its threads for ever, and one may be asking a dead DNS server.
    executor = ThreadPoolExecutor(thread_name_prefix="atonce")
    runner = asyncio.Runner(loop_factory=_loop_factory())
    try:
        code = runner.run(_until_signal(main, executor, until_signal, at_once))
    except KeyboardInterrupt:  # before our own handlers were there
        code = 0 if until_signal else 130
    except Exception as error:
        code = explain(error)
    executor.shutdown(wait=False, cancel_futures=True)
    if not _threads_end():
        os._exit(code)
    runner.close()
    sys.exit(code)


def explain(error: Exception) -> int:
    """Say in one line what went wrong and what to do; gives the exit code."""
    if isinstance(error, AtOnceError):
        text = str(error)
        hints = (hint for kind, phrase, hint in _HINTS if isinstance(error, kind) and phrase in text)
        Output.error("; ".join([text, *list(hints)[:1]]))
        return 1
    if os.environ.get("ATONCE_DEBUG"):
        raise error
    Output.error(_internal(error))
    return 70


def _internal(error: BaseException) -> str:
    return f"internal: {type(error).__name__}: {error} (set ATONCE_DEBUG=1 to see where; please report it)"


def _on_stray_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Something failed that nobody waits for."""
    error = context.get("exception")
    if error is None or os.environ.get("ATONCE_DEBUG"):
        loop.default_exception_handler(context)
    else:
        Output.error(_internal(error))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _threads_end() -> bool:
    """Whether all threads that Python would wait for have come to their end."""
    ours = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    for thread in ours:
        if not thread.daemon:
            thread.join(_THREADS_S)
    return not any(thread.is_alive() for thread in ours if not thread.daemon)


async def _until_signal(
    main: Coroutine[Any, Any, int], executor: ThreadPoolExecutor, until_signal: bool, at_once: Callable[[], None]
) -> int:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(executor)
    loop.set_exception_handler(_on_stray_error)
    task = loop.create_task(main, name="main")
    first = 0

    def on_signal(number: int) -> None:
        nonlocal first
        if first:
            at_once()
            os._exit(128 + number)
        first = number
        if not task.cancelling():  # else it is ending already, for another reason, and shall do so undisturbed
            task.cancel()

    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` has it
            loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except asyncio.CancelledError:
        return 0 if until_signal else 128 + first
