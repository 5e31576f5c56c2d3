"""An asyncio loop whose clock jumps to the next timer: an hour passes in the time that its work takes."""

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, NoReturn, TypeVar

from dht_atonce.errors import Deadlock

__all__ = ["VirtualLoop", "run"]

T = TypeVar("T")


class _NoSelector(selectors.BaseSelector):
    """Stands in for the selector: instead of waiting for I/O it moves the clock, since in this world there is no
    I/O."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock(f"nothing is scheduled, and these wait: {self._loop.waiting()}")
        if timeout > 0:
            self._loop.advance(timeout)
        return []

    # The loop registers its self-pipe here; nothing will ever be readable.
    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        raise KeyError(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}

    def close(self) -> None:
        """Nothing to close."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time begins at 0. What would leave the world (threads, name resolution) raises."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_NoSelector(self))
        # Timers a nanosecond apart are one moment: the clock shall not creep between them.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock."""
        self._now += seconds

    def waiting(self) -> str:
        """The names of all tasks that are not done."""
        return ", ".join(sorted(task.get_name() for task in asyncio.all_tasks(self))) or "no task"

    def run_in_executor(self, *args: Any, **kwargs: Any) -> NoReturn:  # type: ignore[override] # never returns
        raise RuntimeError("there are no threads in the virtual world")

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError("there is no name resolution in the virtual world")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in a loop of its own, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
