"""How a step runs its course: its chance, its name, and what is spread over its time."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from atonce_sim.population import Life
from atonce_sim.scenario import Churn, Invade, Join, Leave, Lookups, Messages, Restart, Step, Update, Wait
from atonce_sim.world import World

__all__ = ["Course", "count_of", "span_s", "step_name"]


def span_s(step: Step, peers: int) -> float:
    """How many simulated seconds a step takes, about."""
    match step:
        case Wait():
            return step.s
        case Churn():
            return step.for_s
        case Join(per_s=rate) if rate:
            return step.share * peers / rate
        case Lookups(per_s=rate) if rate:
            return count_of(step, peers) / rate
        case Invade():
            return step.over_s + step.dormant_s
        case Join() | Update() | Lookups() | Messages() | Leave() | Restart():
            return step.over_s
        case _:
            return 0.0


def step_name(step: Step) -> str:
    """For people."""
    return step.name or str(step.__struct_config__.tag)


def count_of(step: Lookups | Messages, peers: int) -> int:
    return step.count if step.count is not None else round((step.per_peer or 0) * peers)


class Course:
    """The step that is under way, and what its code shares: one generator, so that all chance has one order."""

    def __init__(self, world: World, has_stormed: Callable[[], bool]) -> None:
        self.world = world
        self.has_stormed = has_stormed
        """Then nothing that is measured means anything any more."""
        self.rng = random.Random(0)
        self.step = ""
        self._failed: list[BaseException] = []

    def begin(self, number: int, step: Step) -> None:
        """From now on it is this one."""
        self.rng = random.Random(f"{self.world.seed}/step {number}")
        self.step = step.name
        self.say("step", -1, f"{number} {step_name(step)}")

    def end(self) -> None:
        """It is over. Raises the first mistake of what was spread over it."""
        if self._failed:
            raise self._failed[0]

    def any_of(self, lives: Sequence[Life], other_than: Life | None = None) -> Life | None:
        """One of them; None: there is none."""
        others = [life for life in lives if life is not other_than]
        return others[self.rng.randrange(len(others))] if others else None

    async def over(self, over_s: float, whom: "Sequence[Any]", what: Callable[[Any], Awaitable[object]]) -> None:
        """Do `what` to each of `whom` at moments drawn from a span; ends when the last of it is done."""
        loop = asyncio.get_running_loop()
        begin, running = loop.time(), set[asyncio.Task[None]]()

        async def one(item: Any) -> None:
            try:
                await what(item)
            except Exception as error:  # a mistake of this code or of what it runs: the run ends with it
                self._failed.append(error)

        moments = sorted(self.rng.uniform(0, over_s) for _ in whom)
        for item, moment in zip(whom, moments, strict=True):
            pause_s = begin + moment - loop.time()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            if self._failed or self.has_stormed():
                break
            task = loop.create_task(one(item), name=f"step {self.step}")
            running.add(task)
            task.add_done_callback(running.discard)
        left = begin + over_s - loop.time()
        if left > 0 and not self._failed:
            await asyncio.sleep(left)
        if running:
            await asyncio.wait(set(running))

    def say(self, kind: str, host: int, words: str) -> None:
        """Leave a word in the trace."""
        self.world.trace.event(asyncio.get_running_loop().time(), kind, host & 0xFFFFFFFF, words)
