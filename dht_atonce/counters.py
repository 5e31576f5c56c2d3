"""Counters of what happened, by name."""

from collections import Counter

__all__ = ["Counts"]


class Counts(Counter[str]):
    """A `Counter` of names in which counting costs half: eight are counted for each request and its answer.

    `Counter` deletes in Python what may not be there. That makes each assignment a search for a method, which a dict's
    own deletion spares.
    """

    __delitem__ = dict.__delitem__  # type: ignore[assignment] # it takes any key, as Counter's does
