"""What every rival does, and what is measured of it. Standard library only: some rivals run under another Python.

`hyperdht.js` says the same for node.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable

from benchmarks.dht.plan import Plan
from benchmarks.dht.rival import Rival, Skipped

__all__ = ["Figures", "Tell", "measure", "percentile"]

Figures = dict[str, float | str | None]
"""Measure → figure; None: it is not to be had from this rival. A reason stands under "skipped: …"."""

Tell = Callable[[str, int, int], None]
"""Told of progress: the phase, how many are done, of how many."""

_QUIET_S = 0.1  # what goes on behind an answer has ended by then, and counts


class _Get:
    """One get of the plan and what became of it."""

    __slots__ = ("asker", "found", "number", "owner", "took_ms")

    def __init__(self, asker: int, owner: int, number: int) -> None:
        self.asker = asker
        self.owner = owner
        self.number = number
        self.found = False
        self.took_ms: float | None = None


class _Trial:
    def __init__(self, rival: Rival, plan: Plan, tell: Tell) -> None:
        self.rival = rival
        self.plan = plan
        self.tell = tell
        self.rng = random.Random(plan.seed)
        self.alive = list(range(plan.nodes))
        self.owners: list[int] = []
        self.values: list[bytes] = []

    # --- the phases ---

    async def join(self) -> Figures:
        began = time.perf_counter()
        for node in range(self.plan.nodes):
            await self.rival.join(self.rng.randrange(node) if node else None)
            self.tell("join", node + 1, self.plan.nodes)
        took_ms = (time.perf_counter() - began) * 1000 / self.plan.nodes
        await asyncio.sleep(self.rival.settle_s)
        return {"join_ms": took_ms if self.rival.says_when_joined else None}

    async def put(self) -> Figures:
        took_ms = []
        for _ in range(self.plan.puts):
            owner, value = self.rng.choice(self.alive), self.rng.randbytes(self.plan.value_bytes)
            began = time.perf_counter()
            await self.rival.put(owner, len(self.values), value)
            took_ms.append((time.perf_counter() - began) * 1000)
            self.owners.append(owner)
            self.values.append(value)
            self.tell("put", len(self.values), self.plan.puts)
        return {"put_ms": percentile(took_ms, 0.5)}

    async def get(self) -> Figures:
        gets = self._gets(self.plan.gets)
        await self._at_a_pace("get", gets)
        return {"get_ms": _took(gets, 0.5), "get_p99_ms": _took(gets, 0.99), "found": _found(gets)}

    async def get_many_at_once(self) -> Figures:
        gets = self._gets(self.plan.gets)
        waiting = iter(gets)
        began, cpu_began = time.perf_counter(), time.process_time()
        workers = [self._all(waiting) for _ in range(self.plan.outstanding)]
        await self._patiently(asyncio.ensure_future(worker) for worker in workers)
        took_s = time.perf_counter() - began
        await asyncio.sleep(_QUIET_S)
        cpu_s = time.process_time() - cpu_began
        self.tell("gets at once", len(gets), len(gets))
        return {"gets_per_s": len(gets) / took_s, "cpu_ms": cpu_s * 1000 / len(gets), "found_at_once": _found(gets)}

    async def watch(self) -> Figures:
        try:
            waits = [await self._watch_one(number) for number in range(self.plan.watches)]
        except Skipped as skipped:
            return {"watch_ms": None, "skipped: watch_ms": str(skipped)}
        heard = [took_ms for took_ms in waits if took_ms is not None]
        return {"watch_ms": percentile(heard, 0.5) if heard else None, "watch_heard": len(heard) / len(waits)}

    async def die(self, pause_s: float) -> Figures:
        dead = self.rng.sample(self.alive, round(self.plan.dead_share * self.plan.nodes))
        for node in dead:
            await self.rival.silence(node)
            self.alive.remove(node)
        await asyncio.sleep(pause_s)
        gets = self._gets(self.plan.gets_after)
        await self._at_a_pace("get with 30 % dead", gets)
        return {"dead_found": _found(gets), "dead_ms": _took(gets, 0.5), "dead_p99_ms": _took(gets, 0.99)}

    # --- inside ---

    def _gets(self, count: int) -> list[_Get]:
        """Random values for random nodes that would have to ask somebody."""
        gets = []
        for _ in range(count):
            number = self.rng.randrange(len(self.values))
            owner = self.owners[number]
            askers = [node for node in self.alive if node != owner and not self.rival.holds(node, owner, number)]
            gets.append(_Get(self.rng.choice(askers or self.alive), owner, number))
        return gets

    async def _one(self, get: _Get) -> None:
        began = time.perf_counter()
        value = await self.rival.get(get.asker, get.owner, get.number)
        get.took_ms = (time.perf_counter() - began) * 1000
        get.found = value == self.values[get.number]

    async def _all(self, gets: Iterable[_Get]) -> None:
        for get in gets:
            await self._one(get)

    async def _at_a_pace(self, phase: str, gets: list[_Get]) -> None:
        tasks = []
        begin = time.perf_counter()
        for at, get in enumerate(gets):
            await asyncio.sleep(max(0.0, begin + at * self.plan.gap_s - time.perf_counter()))
            tasks.append(asyncio.ensure_future(self._one(get)))
            self.tell(phase, at + 1, len(gets))
        await self._patiently(tasks)

    async def _patiently(self, tasks: "Iterable[asyncio.Future[None]]") -> None:
        done, late = await asyncio.wait(list(tasks), timeout=self.plan.patience_s)
        for task in late:
            task.cancel()
        for task in done:
            task.result()

    async def _watch_one(self, number: int) -> float | None:
        """Milliseconds from the put until the watcher hears; None: it did not within a second."""
        watcher, owner = self.rng.sample(self.alive, 2)
        number += len(self.values)
        heard: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def hear() -> None:
            if not heard.done():
                heard.set_result(time.perf_counter())

        await self.rival.watch(watcher, owner, number, hear)
        self.tell("watch", number - len(self.values) + 1, self.plan.watches)
        began = time.perf_counter()
        putting = asyncio.ensure_future(self.rival.put(owner, number, self.rng.randbytes(self.plan.value_bytes)))
        try:
            return (await asyncio.wait_for(heard, 1) - began) * 1000
        except TimeoutError:
            return None
        finally:
            await putting


async def measure(rival: Rival, plan: Plan, tell: Tell) -> Figures:
    """Join, put, get, watch, die."""
    trial = _Trial(rival, plan, tell)
    figures: Figures = {}
    figures.update(await trial.join())
    figures.update(await trial.put())
    began = time.perf_counter()
    figures.update(await trial.get())
    phase_s = time.perf_counter() - began
    figures.update(await trial.get_many_at_once())
    figures.update(await trial.watch())
    figures.update(await trial.die(phase_s / 3))
    return figures


def percentile(values: list[float], share: float) -> float:
    """The smallest of `values` that is not exceeded by `share` of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _took(gets: list[_Get], share: float) -> float | None:
    """Those that did not end took longer than all others, nobody knows how long."""
    took = [float("inf") if get.took_ms is None else get.took_ms for get in gets]
    value = percentile(took, share)
    return None if value == float("inf") else value


def _found(gets: list[_Get]) -> float:
    return sum(get.found for get in gets) / len(gets)
