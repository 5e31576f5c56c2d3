"""The clock seam. What decides is handed `now`; only shells hold a `Clock`."""

import asyncio
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Two clocks: one that measures spans, one that everybody shares."""

    def monotonic(self) -> float:
        """Seconds, from an arbitrary start: the time of the running loop, so that timers and machines agree."""

    def wall(self) -> float:
        """Unix time in seconds, as this machine believes it to be."""


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return time.time()
