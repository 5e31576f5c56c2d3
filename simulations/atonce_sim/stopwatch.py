"""What a run costs in this world: time, and memory."""

import gc
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Stopwatch", "peak_rss_bytes", "rare_garbage", "rss_bytes"]

_STATM = Path("/proc/self/statm")


# A run makes millions of objects that stay and hardly any cycles: looking through all of them again and again cost a
# quarter of the time.
_YOUNG = 500_000


@contextmanager
def rare_garbage() -> Iterator[None]:
    """While this lasts, Python looks for cycles among young objects only, and seldom."""
    before = gc.get_threshold()
    gc.set_threshold(_YOUNG, 10_000, 10_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def wall_s(self) -> float:
        """Seconds on the wall."""
        return time.perf_counter() - self._wall

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU of this process."""
        return time.process_time() - self._cpu


def rss_bytes() -> int:
    """What this process holds in memory now; 0 where the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def peak_rss_bytes() -> int:
    """The most that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
