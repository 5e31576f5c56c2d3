"""The region round a key: where honest nodes ought to be, going by how many nodes the network has.

Ids are hashes: among N nodes the m nearest to any target lie within m/N of all ids. Whoever makes node keys until their
ids lie nearer than that can take the nearest seats at a key; it cannot make the honest nodes go that are in the region.
So absence is believed only when the region has answered, and records are stored in all of it.
"""

import random
from bisect import bisect_left
from typing import Final

from dht_atonce.dht.buckets import ID_BITS

__all__ = ["CROWDED", "IDS", "network_size", "radius", "side_targets"]

IDS: Final = 1 << ID_BITS
CROWDED: Final = 0.5
"""Nearer than this share of the region there are half as many honest nodes as replicas: if all replicas lie there,
somebody chose their ids."""
_BIAS = 0.9  # of the least of several estimates of one number, measured over 60 to 10,000 random ids
_SIDES = 3  # subtrees of a half, a quarter and an eighth of the region


def network_size(ids: list[int], own: int, count: int, met: int) -> float:
    """How many nodes the network has, about, with ourselves, going by our nearest neighbours.

    `ids`: of all that we know, sorted. The subtrees beside our own path, from the nearest on, are taken until they hold
    `count` nodes; the most crowded of them is left out, for that may be a crowd round some key near us. But unless one
    of them is as crowded as that, we go no farther than the `met` nearest, whom we have surely met: of the thirty who
    are next a young table has three, and would make the network seem a fiftieth of what it is. It is off by a third or
    so, crowd or not.
    """
    if not ids:
        return 1.0
    nodes, share, least, most = 1, 0.0, float("inf"), 0
    shells: list[tuple[int, float]] = []
    at = bisect_left(ids, own)
    nearest = min((other ^ own).bit_length() for other in ids[max(0, at - 1) : at + 1])
    for bit in range(max(0, nearest - 1), (ids[0] ^ own | ids[-1] ^ own).bit_length()):
        lower = (own >> bit ^ 1) << bit
        first = bisect_left(ids, lower)
        inside = bisect_left(ids, lower + (1 << bit), first) - first
        shells.append((inside, 2.0 ** (bit - ID_BITS)))
        share = 2.0 ** (bit + 1 - ID_BITS)
        nodes += inside
        most = max(most, inside)
        if nodes - most > count or nodes > met > most:
            break
    else:
        return float(nodes)  # so few that they are all
    for inside, part in shells:
        least = min(least, (nodes - inside) / (share - part))
    return min(least, nodes / share) / _BIAS


def radius(nodes: float, count: int) -> int:
    """The distance from any key within which `count` honest nodes are to be expected, if there are `nodes` of them."""
    return int(count / nodes * IDS) if nodes > count else IDS


def side_targets(target: int, region: int, rng: random.Random) -> list[int]:
    """Ids to look up so as to meet those in the `region` (a distance) round `target` who are not nearest to it: one in
    each of the largest subtrees of the region beside the one that holds the target."""
    top = max(_SIDES, region.bit_length() - 1)
    return [target ^ (1 << bit) ^ rng.getrandbits(bit) for bit in range(top - 1, top - 1 - _SIDES, -1) if bit]
