"""Who is nearest to a target by XOR, in a sorted list of ids.

The ids that share a prefix stand side by side, so a subtree is a slice: nobody has to sort, or even to look at, more
than the few ids in the smallest subtree round the target.
"""

from bisect import bisect_left

from dht_atonce.dht.buckets import ID_BITS

__all__ = ["count_nearer", "smallest_subtree"]

_FEW = 4  # ids that are sooner compared one by one than parted further
_HALF = 1 << (ID_BITS - 1)


def smallest_subtree(ids: list[int], target: int, count: int) -> tuple[int, int]:
    """The slice of the smallest subtree round `target` that holds at least `count`; all, if there are fewer."""
    first, last, lower, half = 0, len(ids), 0, _HALF
    while half:
        middle = lower | half
        cut = bisect_left(ids, middle, first, last)
        if target >= middle:
            if last - cut < count:
                break
            first, lower = cut, middle
        else:
            if cut - first < count:
                break
            last = cut
        half >>= 1
    return first, last


def count_nearer(ids: list[int], target: int, than: int, most: int) -> int:
    """How many of `ids` are nearer to `target` than the id `than` is; no more than `most` are counted, or a few above
    it."""
    # Down the tree towards `than`: where it and the target part, the whole half of the target is nearer.
    distance, count = target ^ than, 0
    first, last, bits = 0, len(ids), ID_BITS
    while distance and count < most and last - first > _FEW:
        # On the way to the next such parting, only what shares its path is left.
        bits = distance.bit_length() - 1
        distance ^= 1 << bits
        lower = than >> bits << bits
        nearer = lower ^ (1 << bits)
        if nearer < lower:
            cut = bisect_left(ids, lower, first, last)
            count += cut - bisect_left(ids, nearer, first, cut)
            first, last = cut, bisect_left(ids, lower + (1 << bits), cut, last)
        else:
            cut = bisect_left(ids, nearer, first, last)
            count += bisect_left(ids, nearer + (1 << bits), cut, last) - cut
            first, last = bisect_left(ids, lower, first, cut), cut
    if count < most and first < last:
        within = target ^ than
        count += sum(1 for long_id in ids[first:last] if long_id ^ target < within)
    return count
