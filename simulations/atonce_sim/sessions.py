"""How long peers stay: the distributions that measurements of peer-to-peer networks are fitted with.

Weibull with a shape near 0.5 fits BitTorrent's and Kad's sessions (Stutzbach and Rejaie, IMC 2006); Pareto is the
heavier tail that older work used. Both are given by their median.
"""

import math
import random
from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = ["Pareto", "Session", "Weibull"]

Median = Annotated[float, Meta(gt=0, le=7 * 86400)]


class Weibull(msgspec.Struct, frozen=True, tag_field="model", tag="weibull", forbid_unknown_fields=True):
    """Many short sessions, some very long ones."""

    median_s: Median
    shape: Annotated[float, Meta(gt=0.05, le=10)] = 0.5

    def draw(self, rng: random.Random) -> float:
        """Seconds."""
        scale = self.median_s / math.log(2) ** (1 / self.shape)
        return rng.weibullvariate(scale, self.shape)


class Pareto(msgspec.Struct, frozen=True, tag_field="model", tag="pareto", forbid_unknown_fields=True):
    """Nobody goes at once, and the tail has no end."""

    median_s: Median
    shape: Annotated[float, Meta(gt=0.05, le=10)] = 1.2

    def draw(self, rng: random.Random) -> float:
        """Seconds."""
        least = self.median_s / 2 ** (1 / self.shape)
        return least * rng.paretovariate(self.shape)


Session = Weibull | Pareto
