"""What every rival does, and what is measured of it. Standard library only, and neither asyncio's nor trio's.

A message's first byte says what is to be done with it at the far end.
"""

import os
import time
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.messages.plan import ROWS, Plan
from benchmarks.messages.rival import Channel, Figures, Skipped

__all__ = [
    "ACK",
    "CHUNK",
    "DONE",
    "ECHO",
    "END",
    "STREAM",
    "Clock",
    "latencies",
    "message",
    "near",
    "percentile",
    "serve",
]

STREAM: Final = ord("s")
"""Read, and nothing else."""
END: Final = ord("e")
"""All before it were read: say so."""
ACK: Final = ord("a")
"""Say that it was read."""
ECHO: Final = ord("p")
"""Send it back."""
DONE: Final = b"d"

CHUNK: Final = 10_000
"""Messages between two looks at the clock."""
_FIRST_CHUNK: Final = 500
_CHUNK_S: Final = 0.1
"""Who takes longer for a chunk gets no larger one."""


def message(what: int, size: int) -> bytes:
    """A message of `size` bytes."""
    return bytes([what]) + bytes(size - 1)


class Clock:
    """Tells when a trial has warmed up, and when it is over."""

    far_pid: ClassVar[int] = 0
    """Whose CPU counts beside ours."""

    def __init__(self, plan: Plan) -> None:
        self._cpu_began = _cpu_s(self.far_pid)
        self._warm_s = plan.measure_s * plan.warm_share
        self._measure_s = plan.measure_s
        self._began = time.perf_counter()
        self._looked = self._began
        self._count = 0
        self._best = 0.0
        self._is_warm = False

    def is_over(self, count: int) -> bool:
        """`count` more messages are through: a slice."""
        now = time.perf_counter()
        took_s, self._looked = now - self._looked, now
        if not self._is_warm:
            if now - self._began >= self._warm_s:
                self._is_warm, self._began, self._cpu_began = True, now, _cpu_s(self.far_pid)
            return False
        self._count += count
        self._best = max(self._best, count / took_s)
        self._took_s = now - self._began
        if self._took_s < self._measure_s:
            return False
        self._cpu_s = _cpu_s(self.far_pid) - self._cpu_began
        return True

    @property
    def rate(self) -> Figures:
        """Thousands of messages per second, those of the best slice, and what one costs."""
        return {"k_per_s": self._count / self._took_s / 1000, "best_k_per_s": self._best / 1000, **self.cpu}

    @property
    def cpu(self) -> Figures:
        """Microseconds per message, all threads of both processes; without a broker's, and where there is no /proc,
        without the far one's."""
        return {"cpu_us": self._cpu_s / self._count * 1e6}


def _cpu_s(far_pid: int) -> float:
    """Of ourselves and the far process."""
    try:
        fields = Path(f"/proc/{far_pid}/stat").read_text().rpartition(")")[2].split()
        return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return time.process_time()


async def serve(channel: Channel) -> None:
    """The far end, until the channel ends."""
    send, recv = channel.send, channel.recv
    while True:
        data = await recv()
        what = data[0]
        if what == STREAM:
            continue
        if what == ECHO:
            await send(data)
        else:
            await send(DONE)


async def near(plan: Plan, channel: Channel) -> Figures:
    """The near end. Raises `Skipped`."""
    row = ROWS[plan.row]
    if row.name.startswith("one-way"):
        return await _one_way(plan, channel, message(STREAM, row.size))
    if row.name.startswith("acked"):
        return await _acked(plan, channel, message(ACK, row.size), row.in_flight)
    if row.name == "ping":
        return await _ping(plan, channel, message(ECHO, row.size))
    raise Skipped("only ours and raw pyzmq are measured here")


async def _one_way(plan: Plan, channel: Channel, data: bytes) -> Figures:
    send, clock, end, chunk = channel.send, Clock(plan), message(END, 1), _FIRST_CHUNK
    while True:
        began = time.perf_counter()
        for _ in range(chunk):
            await send(data)
        await send(end)
        await channel.recv()
        if clock.is_over(chunk):
            return clock.rate
        if time.perf_counter() - began < _CHUNK_S:
            chunk = min(CHUNK, 2 * chunk)


async def _acked(plan: Plan, channel: Channel, data: bytes, in_flight: int) -> Figures:
    send, recv, clock, chunk = channel.send, channel.recv, Clock(plan), _FIRST_CHUNK
    for _ in range(in_flight):
        await send(data)
    while True:
        for _ in range(chunk):
            await recv()
            await send(data)
        if clock.is_over(chunk):
            return clock.rate


async def _ping(plan: Plan, channel: Channel, data: bytes) -> Figures:
    send, recv, clock, now = channel.send, channel.recv, Clock(plan), time.perf_counter
    took: list[float] = []
    while True:
        for _ in range(100):
            began = now()
            await send(data)
            await recv()
            took.append(now() - began)
        if clock.is_over(100):
            return latencies(took, plan) | clock.cpu


def latencies(took_s: list[float], plan: Plan) -> Figures:
    """Of what `took_s`, in microseconds; and the median of the best hundred in a row."""
    warm = took_s[int(len(took_s) * plan.warm_share / (1 + plan.warm_share)) :]
    best = min(percentile(sorted(warm[at : at + 100]), 0.5) for at in range(0, max(1, len(warm) - 99), 100))
    warm.sort()
    return {"p50_us": percentile(warm, 0.5) * 1e6, "p99_us": percentile(warm, 0.99) * 1e6, "best_p50_us": best * 1e6}


def percentile(ordered: list[float], share: float) -> float:
    """The smallest that is not exceeded by `share` of them."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
