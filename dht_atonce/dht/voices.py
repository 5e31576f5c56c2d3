"""What others say of us: one voice each, and only the latest count."""

from collections.abc import Iterator, MutableSequence
from typing import Generic, TypeVar

__all__ = ["Voices"]

_MAX_VOICES = 31

T = TypeVar("T")


class Voices(Generic[T]):
    """What the latest 31 nodes said, in the order in which they spoke last.

    Two lists in step: a dict would take three times the memory, and so few are searched as fast.
    """

    __slots__ = ("_keys", "_words")

    def __init__(self, words: MutableSequence[T]) -> None:
        """`words` is empty: where to keep what they say."""
        self._keys: list[bytes] = []
        self._words = words

    def on_voice(self, key: bytes, word: T) -> T | None:
        """The node `key` says `word`; gives what is forgotten for it: what `key` said before, or who spoke longest
        ago."""
        keys, words = self._keys, self._words
        forgotten = None
        if key in keys:
            at = keys.index(key)
        elif len(keys) >= _MAX_VOICES:
            at = 0
        else:
            at = -1
        if at >= 0:
            forgotten = words[at]
            del keys[at], words[at]
        keys.append(key)
        words.append(word)
        return forgotten

    def latest(self) -> T | None:
        """What was said last."""
        return self._words[-1] if self._words else None

    def __iter__(self) -> Iterator[T]:
        return iter(self._words)

    def __len__(self) -> int:
        return len(self._words)
