"""Whoever reaches out of the virtual world is stopped: real time, real threads and real sockets would end replay.

An audit hook (PEP 578) sees most of these calls whoever makes them, C code too. It is installed once and can never be
removed; it looks only at threads that are inside a world. Two calls that Python 3.11 does not audit, sleeping and
starting a thread, are guarded where Python code finds them.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from dht_atonce.errors import Escape

__all__ = ["no_escape"]

_ESCAPES = {
    "socket.getaddrinfo": "no name resolution",
    "socket.gethostbyname": "no name resolution",
    "socket.gethostbyaddr": "no name resolution",
    "socket.bind": "no real socket",
    "socket.connect": "no real socket",
    "socket.sendto": "no real socket",
    "socket.sendmsg": "no real socket",
    "subprocess.Popen": "no process",
    "os.fork": "no process",
    "os.forkpty": "no process",
    "os.posix_spawn": "no process",
    "os.system": "no process",
    "os.exec": "no process",
}

_inside: set[int] = set()
_installed = False


def _hook(event: str, _: tuple[Any, ...]) -> None:
    if event in _ESCAPES and threading.get_ident() in _inside:
        raise Escape(f"there is {_ESCAPES[event]} in the virtual world ({event})")


def _guarded(call: Callable[..., Any], what: str) -> Callable[..., Any]:
    @wraps(call)
    def guard(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() in _inside:
            raise Escape(f"there is {what} in the virtual world")
        return call(*args, **kwargs)

    return guard


def _install() -> None:
    global _installed
    if _installed:
        return
    _installed = True
    sys.addaudithook(_hook)
    time.sleep = _guarded(time.sleep, "no real sleep")
    threading.Thread.start = _guarded(threading.Thread.start, "no thread")  # type: ignore[method-assign]


@contextmanager
def no_escape() -> Iterator[None]:
    """While this lasts, what would leave the world raises `Escape` in this thread."""
    _install()
    thread = threading.get_ident()
    if thread in _inside:  # a world inside a world: the outer one still stands when the inner one ends
        yield
        return
    _inside.add(thread)
    try:
        yield
    finally:
        _inside.discard(thread)
