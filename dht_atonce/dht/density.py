"""The region round a key: where honest nodes ought to be, going by how many nodes the network has.

Ids are hashes: among N nodes the m nearest to any target lie within m/N of all ids. Whoever makes node keys until their
ids lie nearer than that can take the nearest seats at a key; it cannot make the honest nodes go that are in the region.
So absence is believed only when the region has answered, and records are stored in all of it.
"""

import random
from typing import Final

__all__ = ["CROWDED", "IDS", "radius", "side_targets"]

IDS: Final = 1 << 160
CROWDED: Final = 0.5
"""Nearer than this share of the region there are half as many honest nodes as replicas: if all replicas lie there,
somebody chose their ids."""
_SIDES = 3  # subtrees of a half, a quarter and an eighth of the region


def radius(nodes: float, count: int) -> int:
    """The distance from any key within which `count` honest nodes are to be expected, if there are `nodes` of them."""
    return int(count / nodes * IDS) if nodes > count else IDS


def side_targets(target: int, region: int, rng: random.Random) -> list[int]:
    """Ids to look up so as to meet those in the `region` (a distance) round `target` who are not nearest to it: one in
    each of the largest subtrees of the region beside the one that holds the target."""
    top = max(_SIDES, region.bit_length() - 1)
    return [target ^ (1 << bit) ^ rng.getrandbits(bit) for bit in range(top - 1, top - 1 - _SIDES, -1) if bit]
