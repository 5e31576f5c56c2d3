"""What a run costs in this world: time, and memory."""

import gc
import resource
import sys
import time
from pathlib import Path

__all__ = ["Stopwatch", "peak_rss_bytes", "rss_bytes"]

_STATM = Path("/proc/self/statm")


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
    gc.collect()
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def peak_rss_bytes() -> int:
    """The most that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
