"""Who of a routing table is to be asked whether it is still there, and who of those that went may be back.

- A seat that was not heard for long is asked; how long that is, `turnover` tells.
- A failing one is asked at each look, until it answers or has failed three times.
- A few of those that went are remembered and asked now and then: if the network was cut in two, one of them is the way
  back together.
"""

import random
from typing import Final

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.routing import RoutingTable
from dht_atonce.dht.turnover import Turnover

__all__ = ["SeatCheck"]

_ALONE: Final = 4  # failing ones that are asked at each look while nobody answers at all
_WITNESSES: Final = 2  # live ones that are asked beside the failing: if they do not answer either, the fault is ours


class SeatCheck:
    """Of one table. `now` is monotonic seconds."""

    __slots__ = ("_began_s", "_config", "_last_s", "_missing", "_returned", "_rng", "turnover")

    def __init__(self, config: DhtConfig, rng: random.Random, now: float) -> None:
        self.turnover = Turnover(config)
        self._config = config
        self._rng = rng
        self._began_s = self._last_s = now
        # Contact → when it is asked again, and after how long then
        self._missing: dict[Contact, tuple[float, float]] = {}
        self._returned = False

    def look(self, router: RoutingTable, gone: list[Contact], now: float) -> list[Contact]:
        """Whom to ask now; `gone` lost their seats since the last look."""
        config = self._config
        self.turnover.on_span(len(router), len(gone), now - self._last_s)
        self._last_s = now
        for contact in gone:
            self._miss(contact, now)
        failing = router.failing()
        if not router.live_count:
            return self._rng.sample(failing, min(_ALONE, len(failing)))
        unheard = router.unheard(now - self._check_s(now), config.max_checks)
        if failing and not unheard:
            unheard = router.unheard(now, _WITNESSES)
        return [*failing[: config.max_checks], *unheard, *self._due(router, now)]

    def _check_s(self, now: float) -> float:
        """How long a seat may go unheard: while we are young, no longer than we have seen anything of the network."""
        young_s = max(self._config.young_check_s, (now - self._began_s) / 2)
        return min(young_s, self.turnover.check_s)

    def pause_s(self, router: RoutingTable) -> float:
        """Until the next look, at most."""
        if router.failing():
            return self._config.check_pause_s
        return min(self._config.max_check_pause_s, max(self._config.check_pause_s, self.turnover.check_s / 8))

    def take_returned(self) -> bool:
        """Whether somebody that had been missing is back, since the last call."""
        returned, self._returned = self._returned, False
        return returned

    def _miss(self, contact: Contact, now: float) -> None:
        if len(self._missing) >= self._config.max_missing:
            # Any of them: the latest are no likelier to be on the other side of a cut.
            del self._missing[self._rng.choice(list(self._missing))]
        pause_s = self._config.missing_first_s
        self._missing[contact] = (now + pause_s, pause_s)

    def _due(self, router: RoutingTable, now: float) -> list[Contact]:
        due = []
        for contact, (at, pause_s) in list(self._missing.items()):
            if not router.is_new_node(contact):
                del self._missing[contact]
                self._returned = True
            elif at <= now:
                pause_s = min(2 * pause_s, self._config.missing_max_s)
                self._missing[contact] = (now + pause_s * self._rng.uniform(0.75, 1.25), pause_s)
                due.append(contact)
        return due
