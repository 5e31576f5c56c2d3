"""Somebody who has no part in a network, and how much of its traffic reaches him all the same."""

from collections import Counter, defaultdict, deque
from typing import Final

__all__ = ["Bystander"]

WINDOW_S: Final = 10.0


class Bystander:
    """One address; `host` is the number of the host that sent to it, or was asked in its name."""

    def __init__(self) -> None:
        self.datagrams = 0
        """How many were sent to it, by anybody."""
        self.most = 0
        """The most that any one host sent to it within ten seconds."""
        self.largest_ratio: float | None = None
        """Of bytes that a host had sent to it, over bytes that had been sent to that host in its name by then; None:
        nothing was sent in its name."""
        self._recent: defaultdict[int, deque[float]] = defaultdict(deque)
        self._asked: Counter[int] = Counter()
        self._answered: Counter[int] = Counter()

    def on_sent(self, host: int, size: int, now: float) -> None:
        """`host` sent a datagram of `size` bytes to it."""
        self.datagrams += 1
        recent = self._recent[host]
        while recent and now - recent[0] >= WINDOW_S:
            recent.popleft()
        recent.append(now)
        self.most = max(self.most, len(recent))
        self._answered[host] += size
        if asked := self._asked[host]:
            self.largest_ratio = max(self.largest_ratio or 0.0, self._answered[host] / asked)

    def on_spoofed(self, host: int, size: int) -> None:
        """`host` heard `size` bytes that came in its name."""
        self._asked[host] += size
        self.largest_ratio = self.largest_ratio or 0.0
