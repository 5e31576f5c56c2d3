"""Whether strangers can reach us, or only those to whom we have spoken lately.

Behind a NAT or a firewall a datagram comes through only where one of ours went out shortly before (RFC 4787, section
5). There is no asking: we learn it from who comes. A request from somebody of whom we have heard nothing for two to
four minutes, which is more than NATs remember, shows that the way is open; news that should have been pushed to us, and
had to be fetched, that it is shut.
"""

import math

from dht_atonce.config import DhtConfig

__all__ = ["Reach"]


class Reach:
    """What we believe; without any sign, that the way is shut. `now` is monotonic seconds."""

    __slots__ = ("_life_s", "_local", "_open_until", "_shut_until")

    def __init__(self, config: DhtConfig, *, local: bool) -> None:
        self._life_s = config.reach_life_s
        self._local = local
        self._open_until = -math.inf
        self._shut_until = -math.inf

    def is_open(self, now: float) -> bool:
        """Whether strangers are believed to reach us; in a local network there is nothing between us."""
        return self._local or (now < self._open_until and now >= self._shut_until)

    def on_stranger(self, now: float) -> None:
        """A request came from somebody of whom we have heard nothing for longer than NATs remember."""
        self._open_until = now + self._life_s

    def on_missed(self, now: float) -> None:
        """What should have been pushed to us had to be fetched. That weighs more: what comes through by chance, or
        through a way that other traffic keeps open, says nothing of a quiet hour."""
        self._shut_until = now + self._life_s
