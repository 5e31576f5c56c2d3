"""How long a datagram takes from one host to another: models, as a scenario names them.

Each is a pure function of the world's seed and the two hosts' numbers. A pair keeps its latency, in both directions:
round trips that differ from pair to pair are what tells lookups apart; jitter is the network's (`reorder`). Only what
was `measured` somewhere is drawn anew for each datagram: on one machine all pairs are alike, and each answer is not.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Annotated

import msgspec
from msgspec import Meta

from atonce_sim.chance import fraction

__all__ = ["Constant", "Globe", "Latency", "LogNormal", "Measured", "OneWay", "Uniform", "mean_rtt_s", "one_way"]

OneWay = Callable[[int, int], float]
"""Seconds from one host to another, by their numbers."""

Ms = Annotated[float, Meta(ge=0, le=60_000)]

_EARTH_KM = 6371.0
_KM_PER_S = 200_000.0  # light in glass
_PAIRS = 2000  # over which the mean round trip is taken
_NORMAL = NormalDist()
_STEPS = 1000  # between the quantiles that are kept of what was measured: its p99.9 is one of them
_LATENCY, _LATITUDE, _LONGITUDE, _ACCESS, _PAIR, _MEASURED = range(6)  # what a draw is for


class Constant(msgspec.Struct, frozen=True, tag_field="model", tag="constant", forbid_unknown_fields=True):
    """The same everywhere."""

    one_way_ms: Ms = 25.0

    def __str__(self) -> str:
        return f"{self.one_way_ms:g} ms one way, everywhere"


class Uniform(msgspec.Struct, frozen=True, tag_field="model", tag="uniform", forbid_unknown_fields=True):
    """Each pair's between two bounds."""

    low_ms: Ms = 5.0
    high_ms: Ms = 65.0

    def __str__(self) -> str:
        return f"{self.low_ms:g} to {self.high_ms:g} ms one way, uniform over pairs of hosts"


class LogNormal(msgspec.Struct, frozen=True, tag_field="model", tag="log-normal", forbid_unknown_fields=True):
    """Most pairs near the median, a few far above: what measurements of the Internet look like."""

    median_ms: Ms = 35.0
    sigma: Annotated[float, Meta(ge=0, le=3)] = 0.5

    def __str__(self) -> str:
        return f"log-normal over pairs of hosts, median {self.median_ms:g} ms one way, sigma {self.sigma:g}"


class Globe(msgspec.Struct, frozen=True, tag_field="model", tag="globe", forbid_unknown_fields=True):
    """Hosts are points on a globe: great circles in glass, `detour` times as long, and each host's way to the net."""

    detour: Annotated[float, Meta(ge=1, le=5)] = 1.6
    access_ms: Ms = 8.0
    """At most so much is added at each end."""

    def __str__(self) -> str:
        return (
            f"hosts scattered over a globe, light in glass with detours of {self.detour:g}, "
            f"up to {self.access_ms:g} ms of access at each end"
        )


class Measured(msgspec.Struct, frozen=True, tag_field="model", tag="measured", forbid_unknown_fields=True):
    """Round trips as they were measured somewhere, the same for all pairs, another draw for each datagram."""

    rtt_ms: Annotated[tuple[Ms, ...], Meta(min_length=1)]
    """Quantiles at equal steps, from the least to the greatest."""

    @classmethod
    def of(cls, rtts_s: Sequence[float]) -> "Measured":
        """What was measured, in any order; at least one."""
        ordered = sorted(rtts_s)
        last = len(ordered) - 1
        steps = min(_STEPS, last)
        return cls(tuple(ordered[round(step * last / max(1, steps))] * 1000 for step in range(steps + 1)))

    def rtt_s(self, share: float) -> float:
        """The round trip that this share of all were below."""
        at = share * (len(self.rtt_ms) - 1)
        below = int(at)
        low_ms = self.rtt_ms[below]
        high_ms = self.rtt_ms[min(below + 1, len(self.rtt_ms) - 1)]
        return (low_ms + (at - below) * (high_ms - low_ms)) / 1000

    def delay_s(self, seed: int, source: int, to: int, number: int) -> float:
        """Of datagram `number` from one host to another.

        A whole round trip is spent on one way, and nothing on the other: two halves, each drawn for itself, would add
        up to round trips with a thinner tail than was measured, whatever one did to the halves.
        """
        return self.rtt_s(fraction(_MEASURED, seed, source, to, number)) if source < to else 0.0

    def __str__(self) -> str:
        return f"round trips as measured, median {self.rtt_s(0.5) * 1000:.3g} ms, p99 {self.rtt_s(0.99) * 1000:.3g} ms"


Latency = Constant | Uniform | LogNormal | Globe | Measured


def one_way(model: Latency, seed: int) -> OneWay:
    """The latencies of one world; where each datagram has its own, their mean."""
    match model:
        case Constant():
            constant_s = model.one_way_ms / 1000
            return lambda _, __: constant_s
        case Uniform():
            low_s, span_s = model.low_ms / 1000, (model.high_ms - model.low_ms) / 1000
            return lambda one, other: low_s + span_s * _of_pair(seed, one, other)
        case LogNormal():
            mu, sigma = math.log(model.median_ms / 1000) if model.median_ms else -math.inf, model.sigma
            return lambda one, other: math.exp(
                mu + sigma * _NORMAL.inv_cdf(min(max(_of_pair(seed, one, other), 1e-12), 1 - 1e-12))
            )
        case Globe():
            return _Globe(model, seed)
        case Measured():
            mean_s = sum(model.rtt_ms) / len(model.rtt_ms) / 2000
            return lambda _, __: mean_s


def mean_rtt_s(between: OneWay, hosts: int) -> float:
    """The mean round trip over pairs of the first `hosts` hosts."""
    if hosts < 2:
        return 2 * between(0, 1)
    total = 0.0
    for pair in range(_PAIRS):
        one = int(fraction(_PAIR, pair, 0) * hosts)
        other = (one + 1 + int(fraction(_PAIR, pair, 1) * (hosts - 1))) % hosts
        total += between(one, other) + between(other, one)
    return total / _PAIRS


def _of_pair(seed: int, one: int, other: int) -> float:
    return fraction(_LATENCY, seed, one, other) if one < other else fraction(_LATENCY, seed, other, one)


class _Globe:
    def __init__(self, model: Globe, seed: int) -> None:
        self._seed = seed
        self._s_per_radian = _EARTH_KM * model.detour / _KM_PER_S
        self._access_s = model.access_ms / 1000
        self._places: dict[int, tuple[float, float, float, float]] = {}

    def _place(self, host: int) -> tuple[float, float, float, float]:
        """A point on the unit sphere, and the way from there to the net in seconds."""
        place = self._places.get(host)
        if place is None:
            z = 2 * fraction(_LATITUDE, self._seed, host) - 1  # uniform over the sphere (Archimedes)
            angle = 2 * math.pi * fraction(_LONGITUDE, self._seed, host)
            radius = math.sqrt(1 - z * z)
            access_s = self._access_s * fraction(_ACCESS, self._seed, host)
            place = self._places[host] = (radius * math.cos(angle), radius * math.sin(angle), z, access_s)
        return place

    def __call__(self, one: int, other: int) -> float:
        if one == other:
            return 0.0
        x1, y1, z1, access1_s = self._place(one)
        x2, y2, z2, access2_s = self._place(other)
        cosine = min(1.0, max(-1.0, x1 * x2 + y1 * y2 + z1 * z2))
        return access1_s + access2_s + self._s_per_radian * math.acos(cosine)
