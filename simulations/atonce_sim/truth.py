"""The world's own truth: what was said under each key, and so what a lookup should have found.

A lookup is *correct* when it gives a genuine record whose seq is at least that of the newest record whose publish had
completed before it began (after a goodbye: nothing, or the goodbye); *stale* when it gives an older one; *failed* when
it gives nothing though a record was live; *wrong* in any other case.
"""

from dataclasses import dataclass
from enum import Enum

__all__ = ["Answer", "Said", "Truth", "Verdict"]


class Verdict(Enum):
    """What a lookup's answer is worth."""

    CORRECT = "correct"
    STALE = "stale"
    FAILED = "failed"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Said:
    """A record whose publishing has completed."""

    seq: int
    expires: float
    """Unix seconds."""
    is_goodbye: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The record that a lookup gave."""

    seq: int
    expires: float
    is_goodbye: bool
    genuine: bool
    """Signed by whom the key belongs to: checked apart from the code under test."""


class Truth:
    """All that was said. Times are the world's wall clock, which no host's clock need agree with: `skew_s` is how far
    any of them may be off."""

    def __init__(self, skew_s: float = 0.0) -> None:
        self._skew_s = skew_s
        self._newest: dict[bytes, Said] = {}

    def on_published(self, key: bytes, said: Said) -> None:
        """A publish of `said` under `key` has completed."""
        known = self._newest.get(key)
        if known is None or said.seq >= known.seq:
            self._newest[key] = said

    def newest(self, key: bytes) -> Said | None:
        """The newest record whose publish has completed; what a lookup that begins now is measured by."""
        return self._newest.get(key)

    def is_live(self, key: bytes, wall: float) -> bool:
        """Whether a record of `key` is to be found now."""
        said = self._newest.get(key)
        return said is not None and not said.is_goodbye and said.expires > wall

    def judge(self, said: Said | None, answer: Answer | None, wall: float) -> Verdict:
        """What an answer that came at `wall` is worth, if `said` was the newest when its lookup began."""
        if answer is None:
            absent = said is None or said.is_goodbye or said.expires <= wall + self._skew_s
            return Verdict.CORRECT if absent else Verdict.FAILED
        if not answer.genuine or answer.expires <= wall - self._skew_s:
            return Verdict.WRONG
        if said is not None and answer.seq < said.seq:
            return Verdict.STALE
        return Verdict.CORRECT
