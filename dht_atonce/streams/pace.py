"""How much of streams may be on its way to one peer. No I/O, no clock.

Too little leaves the way idle; too much fills queues (libzmq's, the kernel's, a router's) in which each message to the
same peer then waits too. What is on its way grows while acknowledgements come nearly as fast as the fastest, and
shrinks when they take longer: the rule of LEDBAT (RFC 6817), per chunk and with `queueing_s` as its target.
"""

from math import inf
from typing import Final

from dht_atonce.config import StreamConfig
from dht_atonce.streams.wire import CHUNK

__all__ = ["SMALL_CHUNK", "Pace"]

SMALL_CHUNK: Final = 57_344
"""The same on a slow way, where all else would have to wait for a large one."""

_BASE_S = 10.0
"""For so long, and up to twice as long, the fastest acknowledgement counts: ways change."""


class Pace:
    """The limit for one peer, in bytes."""

    __slots__ = ("_base_s", "_config", "_last_base_s", "_since", "limit", "outstanding")

    def __init__(self, config: StreamConfig) -> None:
        self._config = config
        self.limit = config.outstanding_min_bytes
        self.outstanding = 0
        """Bytes that are on their way."""
        self._base_s = self._last_base_s = inf
        self._since = 0.0

    @property
    def chunk(self) -> int:
        """The most that shall be sent in one message."""
        return min(CHUNK, max(SMALL_CHUNK, self.limit // 4))

    @property
    def has_room(self) -> bool:
        """Whether another chunk may go."""
        return self.outstanding < self.limit

    def on_sent(self, size: int) -> None:
        """So many bytes left."""
        self.outstanding += size

    def on_lost(self, size: int) -> None:
        """So many bytes will not be acknowledged, or were dropped before they left."""
        self.outstanding -= size

    def on_acknowledged(self, size: int, took_s: float, now: float) -> None:
        """So many bytes were acknowledged after `took_s`."""
        if now - self._since > _BASE_S:
            self._last_base_s, self._base_s, self._since = self._base_s, took_s, now
        self._base_s = min(self._base_s, took_s)
        queueing_s = took_s - min(self._base_s, self._last_base_s)
        config = self._config
        room = 1.0 - queueing_s / config.queueing_s
        was_limit = self.outstanding >= self.limit - size
        self.outstanding -= size
        if room < 0 or was_limit:
            limit = self.limit + int(size * max(room, -0.5))
            self.limit = max(config.outstanding_min_bytes, min(config.outstanding_max_bytes, limit))
