"""The trace of a run: everything that any host sent, in order, folded into one digest.

Two runs with the same digest were the same run, byte for byte. Somebody who wants to see more listens.
"""

import hashlib
import struct
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Seen", "Trace"]

_HEAD = struct.Struct("<dIIcI")


class Seen(NamedTuple):
    """Something that happened in the world."""

    at_s: float
    kind: str
    """`sent`, `arrived`, `lost`, `frame`, or what a run says: `join`, `crash`, `lookup`, …"""
    host: int
    """Number of the host at which it happened."""
    other: int
    """Number of the host at the other end; -1: none."""
    data: bytes
    """The datagram or frame, or the run's words in UTF-8."""


class Trace:
    """Folds what happens into a digest and tells `listener`, if there is one."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.listener: Callable[[Seen], None] | None = None

    @property
    def digest(self) -> str:
        """Of all that was sent and said so far, 32 hex digits."""
        return self._hash.hexdigest()

    def sent(self, at_s: float, host: int, other: int, data: bytes, *, is_frame: bool = False) -> None:
        """`host` sent `data` to `other` (-1: to an address where nobody ever was)."""
        self._hash.update(_HEAD.pack(at_s, host, other & 0xFFFFFFFF, b"f" if is_frame else b"d", len(data)) + data)
        if self.listener is not None:
            self.listener(Seen(at_s, "frame" if is_frame else "sent", host, other, data))

    def event(self, at_s: float, kind: str, host: int, words: str, other: int = -1) -> None:
        """Something that a run did, or saw."""
        data = words.encode()
        self._hash.update(_HEAD.pack(at_s, host, other & 0xFFFFFFFF, b"e", len(data)) + kind.encode() + data)
        if self.listener is not None:
            self.listener(Seen(at_s, kind, host, other, data))

    def arrived(self, at_s: float, host: int, other: int, data: bytes) -> None:
        """`data` of `other` reached `host`: it follows from what was sent, and is not part of the digest."""
        if self.listener is not None:
            self.listener(Seen(at_s, "arrived", host, other, data))

    def lost(self, at_s: float, host: int, other: int, data: bytes) -> None:
        """What `host` sent to `other` vanished under way."""
        if self.listener is not None:
            self.listener(Seen(at_s, "lost", host, other, data))
