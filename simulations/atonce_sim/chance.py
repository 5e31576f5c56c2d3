"""Chance without state: each draw is a function of the world's seed and of what it is drawn for.

So a link needs no generator of its own, and another host, or another datagram elsewhere, changes none of its draws.
"""

__all__ = ["fraction"]

_MASK = (1 << 64) - 1


def fraction(*of: int) -> float:
    """A number in [0, 1), uniform over all `of`. The mixer is splitmix64's (Steele, Lea and Flood, OOPSLA 2014)."""
    # A tuple's hash of integers depends on nothing else, PYTHONHASHSEED included; it mixes too weakly to be used as is.
    z = (hash(of) + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((z ^ (z >> 31)) >> 11) * 2.0**-53
