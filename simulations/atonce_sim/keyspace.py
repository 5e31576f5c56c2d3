"""Who is nearest to what, as the world knows it: the truth that tables and lookups are measured by."""

from bisect import bisect_left, insort
from collections.abc import Iterable

__all__ = ["KeySpace", "as_long"]

_BITS = 160


def as_long(node_id: bytes) -> int:
    """A 20-byte id as the number whose XOR is the distance."""
    return int.from_bytes(node_id, "big")


class KeySpace:
    """The ids of all nodes that are up, sorted: those that share a prefix lie side by side."""

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._ids = sorted(ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, node_id: int) -> bool:
        at = bisect_left(self._ids, node_id)
        return at < len(self._ids) and self._ids[at] == node_id

    def add(self, node_id: int) -> None:
        """It is up."""
        insort(self._ids, node_id)

    def remove(self, node_id: int) -> None:
        """It is up no more."""
        del self._ids[bisect_left(self._ids, node_id)]

    def nearest(self, target: int, count: int, *, without: int | None = None) -> list[int]:
        """The `count` ids nearest to `target` by XOR, nearest first; not the id `without`."""
        wanted = count + (without is not None)
        first, last = 0, len(self._ids)
        for bits in range(_BITS + 1):  # the smallest subtree round the target that holds enough
            lower = target >> bits << bits
            first = bisect_left(self._ids, lower)
            last = bisect_left(self._ids, lower + (1 << bits))
            if last - first >= wanted:
                break
        found = sorted(self._ids[first:last], key=target.__xor__)
        return [node_id for node_id in found if node_id != without][:count]
