"""Who brought the records that a node keeps: when there is no room, whoever brought most loses first.

Farthest from us goes first is a good rule among honest records, and by itself a bad one: whoever grinds names until
their keys lie nearer to us than another's key is could have that one thrown out. So when the store is full, room is
taken from the source, a /24 or /48 of proved addresses, that holds most of it. Sources with few records are all alike:
among these the farthest goes.

Honest records come from their owners, but copies also from neighbours, and a neighbour may bring all that a newcomer
has. So of several who bring one record its source is whoever holds less: each owner's next publish makes it his.
"""

import heapq
from collections import Counter

__all__ = ["Sources"]

KEY_SIZE = 20


class Sources:
    """Of one store. A name is a record's key (20 B) and whatever else tells it from others of that key."""

    __slots__ = ("_counts", "_few", "_heaps", "_large", "_own_id", "_source_of")

    def __init__(self, own_id: int, few: int) -> None:
        self._own_id = own_id
        self._few = few
        self._source_of: dict[bytes, bytes] = {}
        self._counts: Counter[bytes] = Counter()
        # Those with more than few; at most as many as the store has room for
        self._large: dict[bytes, None] = {}
        # Of those that once had most: (−distance from us, name), the farthest first; names that left are passed over
        self._heaps: dict[bytes, list[tuple[int, bytes]]] = {}

    def enter(self, name: bytes, source: bytes) -> None:
        """`source` brings what is kept under `name`, for the first time or again."""
        old = self._source_of.get(name)
        if old is not None:
            if self._counts[source] + 1 >= self._counts[old]:
                return
            self.leave(name)
        self._source_of[name] = source
        self._counts[source] += 1
        if self._counts[source] > self._few:
            self._large[source] = None
        heap = self._heaps.get(source)
        if heap is not None:
            heapq.heappush(heap, (-self._distance(name), name))
            if len(heap) > 4 * self._counts[source] + 64:
                del self._heaps[source]  # made anew when it is needed

    def leave(self, name: bytes) -> None:
        """It is kept no longer."""
        source = self._source_of.pop(name)
        self._counts[source] -= 1
        if self._counts[source] <= self._few:
            self._large.pop(source, None)
            self._heaps.pop(source, None)
        if not self._counts[source]:
            del self._counts[source]

    def loser(self, name: bytes, source: bytes) -> bytes | None:
        """What is to go if there is no room for `name`, which `source` brings: its own name if it is to stay out, None
        if nobody has more than few."""
        own = self._counts[source] + 1
        most = max(own, max((self._counts[large] for large in self._large), default=0))
        if most <= self._few:
            return None
        names = [self._farthest(large) for large in self._large if self._counts[large] == most]
        if own == most:
            names.append(name)
            if self._counts[source]:
                names.append(self._farthest(source))
        return max(names, key=self._distance)

    # --- inside ---

    def _distance(self, name: bytes) -> int:
        return int.from_bytes(name[:KEY_SIZE], "big") ^ self._own_id

    def _farthest(self, source: bytes) -> bytes:
        heap = self._heaps.get(source)
        if heap is None:
            names = [name for name, of in self._source_of.items() if of == source]
            heap = self._heaps[source] = [(-self._distance(name), name) for name in names]
            heapq.heapify(heap)
        while self._source_of.get(heap[0][1]) != source:
            heapq.heappop(heap)
        return heap[0][1]
