"""How fast those who have seats go, and so how often each is to be asked whether it is still there.

Whoever dies without a word keeps its seat until it is asked. If it is asked every T seconds and seats are lost at a
rate of λ each, a share of about λT/2 of them is dead: so T is what makes that share small, whether sessions last
minutes or days (Bamboo, Rhea et al. 2004, section 4, finds the same need to follow the churn).
"""

import math
from typing import Final

from dht_atonce.config import DhtConfig

__all__ = ["Turnover"]

_MEMORY_S: Final = 1800.0  # what was seen so long ago counts for a third
_PRIOR_GONE: Final = 0.5  # half a loss ...
_PRIOR_S: Final = 1800.0  # ... in half an hour of one seat: what is believed before much was seen


class Turnover:
    """Of one routing table."""

    __slots__ = ("_config", "_gone", "_seat_s")

    def __init__(self, config: DhtConfig) -> None:
        self._config = config
        self._gone = _PRIOR_GONE
        self._seat_s = _PRIOR_S

    def on_span(self, seats: int, gone: int, span_s: float) -> None:
        """For `span_s` seconds there were `seats` seats, and `gone` of them were lost."""
        fading = math.exp(-span_s / _MEMORY_S)
        self._gone = max(_PRIOR_GONE / 8, self._gone * fading) + gone
        self._seat_s = self._seat_s * fading + seats * span_s

    @property
    def session_s(self) -> float:
        """The median of how long those with seats stay, about."""
        return self._seat_s / self._gone * math.log(2)

    @property
    def check_s(self) -> float:
        """How long a seat may go unheard before it is asked."""
        config = self._config
        wanted = 2 * config.dead_seats * self._seat_s / self._gone
        return min(config.max_check_s, max(config.min_check_s, wanted))
