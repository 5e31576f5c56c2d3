"""Results of pure functions, remembered for a while.

One memo may serve all nodes of a process: what a key stands for is the same for each of them.
"""

from itertools import islice
from typing import Generic, TypeVar

__all__ = ["Memo"]

_BATCH = 64  # a full memo forgets 1/64 of itself at once: to find the oldest, a dict walks over all that left before it

K = TypeVar("K")
V = TypeVar("V")


class Memo(Generic[K, V]):
    """At most `limit` entries; those not used for longest are forgotten first."""

    __slots__ = ("_entries", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # In the order of their last use
        self._entries: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """What was put under `key`, None if that is not known (any more); it counts as a use."""
        value = self._entries.pop(key, None)
        if value is not None:
            self._entries[key] = value
        return value

    def put(self, key: K, value: V) -> None:
        """Remember `value`, which is not None."""
        entries = self._entries
        entries.pop(key, None)
        if len(entries) >= self._limit:
            for oldest in list(islice(entries, 1 + self._limit // _BATCH)):
                del entries[oldest]
        entries[key] = value

    def __len__(self) -> int:
        return len(self._entries)
