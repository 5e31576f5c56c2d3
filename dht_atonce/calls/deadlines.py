"""Many deadlines, of which few come: most are taken back. No I/O, no clock: `now` is monotonic seconds."""

import heapq
from collections.abc import Hashable
from itertools import count
from math import inf
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

K = TypeVar("K", bound=Hashable)

_FEW = 64


class Deadlines(Generic[K]):
    """One deadline for each key. Those taken back stay in the heap until they are half of it."""

    __slots__ = ("_at", "_heap", "_numbers")

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._numbers = count()  # of two that come together the one set first is first, and keys are not compared

    def __len__(self) -> int:
        return len(self._at)

    @property
    def next(self) -> float:
        """When `due` is to be called; at that moment nothing may be due. inf: never."""
        return self._heap[0][0] if self._heap else inf

    def set(self, key: K, at: float) -> None:
        """The key's deadline is `at` from now on."""
        self._at[key] = at
        heapq.heappush(self._heap, (at, next(self._numbers), key))
        if len(self._heap) > _FEW + 2 * len(self._at):
            self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def drop(self, key: K) -> None:
        """The key has no deadline any more."""
        self._at.pop(key, None)

    def due(self, now: float) -> list[K]:
        """Take out those whose deadline has come, the earliest first."""
        keys = []
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._at.get(key) == at:
                del self._at[key]
                keys.append(key)
        return keys
