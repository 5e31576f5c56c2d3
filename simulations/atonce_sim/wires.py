"""What happens to a datagram under way: pure, given the world's conditions and its seed.

A fate depends on the link and on how much it carried before, not on what else travels: adding a host changes nobody
else's.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from atonce_sim.chance import fraction
from atonce_sim.latency import Constant, Latency, Measured, OneWay, one_way

__all__ = ["Conditions", "Wires"]

Share = Annotated[float, Meta(ge=0, le=1)]

_LOST, _DOUBLED, _LATE, _HOW_LATE, _RESENT = range(10, 15)  # what a draw is for
_MAX_RESENDS = 6  # of a frame; TCP would go on, a simulated link need not tell 3 from 6 lost in a row
_RESEND_S = 0.2  # the least that a lost segment costs a TCP connection (Linux's minimum timeout)
_MAX_BACKLOG_S = 1.0  # what waits longer for a host's uplink is dropped, as by a router's full queue


class Conditions(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What the network does to what travels. May be changed while a world runs, but for the latency."""

    latency: Latency = msgspec.field(default_factory=Constant)
    loss: Share = 0.0
    """Share of datagrams that vanish."""
    duplication: Share = 0.0
    """Share of datagrams that arrive twice."""
    reordering: Share = 0.0
    """Share of datagrams that are held up, and so overtaken."""
    reordering_ms: Annotated[float, Meta(ge=0, le=10_000)] = 50.0
    """At most so long."""
    uplink_bytes_s: Annotated[float, Meta(ge=0)] = 0.0
    """What a host can send in a second; 0: no limit."""

    def __str__(self) -> str:
        words = [f"latency {self.latency}"]
        if self.loss:
            words.append(f"{self.loss:.1%} of datagrams lost")
        if self.duplication:
            words.append(f"{self.duplication:.1%} doubled")
        if self.reordering:
            words.append(f"{self.reordering:.1%} held up by at most {self.reordering_ms:g} ms")
        if self.uplink_bytes_s:
            words.append(f"{self.uplink_bytes_s:g} B/s uplink")
        return "; ".join(words)


class Wires:
    """Decides when what is sent arrives, if at all."""

    def __init__(self, conditions: Conditions, seed: int) -> None:
        self.conditions = conditions
        self.between: OneWay = one_way(conditions.latency, seed)
        """Seconds one way between two hosts, by their numbers."""
        self._seed = seed
        # Link → datagrams that it was given; only where some of them fare otherwise than others.
        self._carried: dict[tuple[int, int], int] = {}
        # Host → when its uplink is free again; only with limited uplinks.
        self._free_at: dict[int, float] = {}

    def arrivals(self, source: int, to: int, size: int, now: float) -> tuple[float, ...]:
        """After how many seconds a datagram arrives: once as a rule, never or twice."""
        conditions = self.conditions
        measured = conditions.latency if isinstance(conditions.latency, Measured) else None
        delay = 0.0 if measured is not None else self.between(source, to)
        if conditions.uplink_bytes_s:
            queued_s = self._queue(source, size, now)
            if queued_s is None:
                return ()
            delay += queued_s
        if not (conditions.loss or conditions.duplication or conditions.reordering or measured is not None):
            return (delay,)
        number = self._carried.get((source, to), 0)
        self._carried[source, to] = number + 1
        what = (self._seed, source, to, number)
        if measured is not None:
            delay += measured.delay_s(*what)
        if conditions.loss and fraction(_LOST, *what) < conditions.loss:
            return ()
        if conditions.reordering and fraction(_LATE, *what) < conditions.reordering:
            delay += conditions.reordering_ms / 1000 * fraction(_HOW_LATE, *what)
        if conditions.duplication and fraction(_DOUBLED, *what) < conditions.duplication:
            return (delay, delay + 0.001)
        return (delay,)

    def frame_delay_s(self, source: int, to: int, size: int, number: int, now: float) -> float:
        """How long frame `number` of a link takes: what is lost is sent again, and costs time instead."""
        delay = self.between(source, to)
        if self.conditions.uplink_bytes_s:
            # A connection waits for its turn where a datagram is dropped.
            delay += self._queue(source, size, now, drops=False) or 0.0
        if self.conditions.loss:
            pause_s = max(_RESEND_S, 2 * delay)
            for resend in range(_MAX_RESENDS):
                if fraction(_RESENT, self._seed, source, to, number, resend) >= self.conditions.loss:
                    break
                delay += pause_s * (1 << resend)
        return delay

    def _queue(self, source: int, size: int, now: float, *, drops: bool = True) -> float | None:
        """Seconds until `size` bytes have left `source`; None: its queue is full."""
        begins = max(now, self._free_at.get(source, 0.0))
        if drops and begins - now > _MAX_BACKLOG_S:
            return None
        ends = self._free_at[source] = begins + size / self.conditions.uplink_bytes_s
        return ends - now
