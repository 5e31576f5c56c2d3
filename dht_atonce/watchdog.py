"""Whether we are still in the network, and what to do about it: told what can be seen, it says what to try.

Three things cast doubt on it: time that passed without us (a laptop slept), another address of our own (a network was
changed), and requests that nobody answers. Then a handful of contacts is *reached* for. If one answers we show
ourselves again (*return*); if none does the whole ladder is *climbed*. Whoever is out tries both again and again, with
growing pauses, the cheap one more often. Whoever moved, and knows few others, *visits* the seeds: of a small network
all may have moved away from where its seeds know them, and then nobody else finds in.
"""

import random
from enum import Enum
from math import inf

from dht_atonce.config import StayConfig

__all__ = ["Doubt", "Step", "Watchdog"]


class Step(Enum):
    """What to do now."""

    REST = "rest"
    REACH = "reach"
    """Ask a handful of contacts, all at once, whether they are there."""
    CLIMB = "climb"
    """One round of the entry ladder."""
    RETURN = "return"
    """Somebody answers: find our place again, and publish anew."""
    VISIT = "visit"
    """Be seen by the seeds, and meet whom they know, beside all else."""
    REPUBLISH = "republish"
    """We are in, but others see us at another address than the one that we published."""


class Doubt(Enum):
    """Why we might be out."""

    WOKE = "woke"
    """Time passed in which we did not run."""
    MOVED = "moved"
    """This machine has another address."""
    SILENT = "silent"
    """Nobody answers."""


class _State(Enum):
    ENTERING = "entering"
    """Nobody was ever known."""
    IN = "in"
    OUT = "out"
    """We were in, and nobody answers."""


class Watchdog:
    """One peer's. `now` is monotonic seconds, `wall` Unix seconds: on Linux the former stands still while a machine
    sleeps."""

    __slots__ = (
        "_climb_at",
        "_climb_s",
        "_config",
        "_doubt",
        "_failures",
        "_here",
        "_is_busy",
        "_is_heard",
        "_looked",
        "_next",
        "_reach_at",
        "_reach_s",
        "_republish_at",
        "_rng",
        "_shown",
        "_state",
        "_visit_at",
    )

    def __init__(self, config: StayConfig, rng: random.Random, now: float) -> None:
        self._config = config
        self._rng = rng
        self._state = _State.ENTERING
        self._doubt: Doubt | None = None
        self._next = Step.REST
        self._is_busy = False
        self._is_heard = False
        self._failures = 0
        self._looked: tuple[float, float] | None = None
        self._here: tuple[str | None, ...] | None = None
        self._shown: tuple[object, ...] | None = None
        self._climb_s = self._reach_s = config.backoff_first_s
        self._climb_at = self._reach_at = self._republish_at = now
        self._visit_at = inf
        self._wait_to_climb(now)

    @property
    def doubt(self) -> Doubt | None:
        """Why we last thought that we might be out; None once we are back."""
        return self._doubt

    def is_late(self, now: float, wall: float) -> bool:
        """Whether more time has passed since the last look than could have if we had been running."""
        if self._looked is None:
            return False
        passed_s = max(now - self._looked[0], wall - self._looked[1])
        return passed_s > self._config.look_s + self._config.asleep_s

    @property
    def again_s(self) -> float:
        """About how long the next climb will be waited for."""
        return self._climb_s

    # --- inputs ---

    def on_heard(self) -> None:
        """Somebody answered us, or asked and proved that it is at its address."""
        self._failures = 0
        self._is_heard = True

    def on_failure(self) -> None:
        """A request of ours was not answered."""
        self._failures += 1

    def on_shown(self, endpoints: tuple[object, ...]) -> None:
        """We published that we can be dialled at `endpoints`."""
        self._shown = endpoints

    def on_saved_way(self, now: float) -> None:
        """We came in by contacts of our own, and no seed heard of us: one that lost its list names nobody."""
        self._visit_at = now + self._config.visit_s * self._rng.uniform(0.75, 1.25)

    def on_addresses(self, here: tuple[str | None, ...], endpoints: tuple[object, ...], now: float) -> None:
        """This machine's own addresses (None in a family without a way out), and where others can dial us now."""
        # Of a family in which nobody was known before, nothing was known of our address either.
        if self._here is not None and len(here) == len(self._here) and here != self._here and any(here):
            self._doubt_it(Doubt.MOVED, now)
        self._here = here
        is_elsewhere = self._shown is not None and bool(endpoints) and endpoints != self._shown
        if is_elsewhere and self._state is _State.IN and self._next is Step.REST and now >= self._republish_at:
            self._republish_at = now + self._config.republish_s
            self._next = Step.REPUBLISH

    def on_done(self, step: Step, succeeded: bool, now: float) -> None:
        """What `on_look` asked for was tried. A REACH succeeded if somebody answered, a CLIMB if it led in."""
        self._is_busy = False
        if step is Step.CLIMB:
            # The ladder shows us by itself.
            self._wait_to_climb(now)
            if succeeded:
                self._come_in(now)
        elif step is Step.REACH and succeeded:
            if self._state is _State.IN and self._doubt is Doubt.SILENT:
                self._come_in(now)  # just those whom we asked were dead
            else:
                self._next = Step.RETURN
        elif step is Step.RETURN and succeeded:
            self._come_in(now)
        elif step in (Step.REACH, Step.RETURN):
            if self._state is _State.IN:
                self._state, self._climb_at = _State.OUT, now
            self._is_heard = False
            self._wait_to_reach(now)

    # --- what to do ---

    def on_look(self, now: float, wall: float, *, known: int) -> Step:
        """Called every `look_s`, and after each step. `known`: so many have live seats in our tables."""
        if self.is_late(now, wall):
            self._doubt_it(self._doubt if self._doubt is Doubt.MOVED else Doubt.WOKE, now)
        self._looked = now, wall
        if self._is_busy:
            return Step.REST
        if self._next is Step.REST:
            self._next = self._of_its_own_accord(now, known)
        step, self._next = self._next, Step.REST
        self._is_busy = step is not Step.REST
        return step

    def _of_its_own_accord(self, now: float, known: int) -> Step:
        if self._state is _State.ENTERING and known:
            self._come_in(now)
        if self._state is _State.IN:
            is_silent = self._failures >= self._config.silent_requests and now >= self._reach_at
            if is_silent or not known:
                self._doubt_it(Doubt.SILENT, now)
                self._wait_to_reach(now)
            elif known < self._config.visit_below and now >= self._visit_at:
                self._visit_at = inf
                return Step.VISIT
            return self._next
        if self._state is _State.OUT and self._is_heard:
            self._is_heard = False
            return Step.RETURN
        if now >= self._climb_at:
            return Step.CLIMB
        return Step.REACH if self._state is _State.OUT and now >= self._reach_at else Step.REST

    # --- inside ---

    def _doubt_it(self, doubt: Doubt, now: float) -> None:
        self._doubt = doubt
        self._failures = 0
        if doubt is not Doubt.SILENT:
            # What did not work there or then may work here and now.
            self._climb_s = self._reach_s = self._config.backoff_first_s
        if self._state is _State.ENTERING:
            self._climb_at = now
        else:
            self._next = Step.REACH

    def _come_in(self, now: float) -> None:
        if self._doubt is Doubt.MOVED:
            self._visit_at = now + self._config.visit_s * self._rng.uniform(0.75, 1.25)
        self._state = _State.IN
        self._doubt = None
        self._failures = 0
        self._climb_s = self._reach_s = self._config.backoff_first_s

    def _wait_to_climb(self, now: float) -> None:
        self._climb_at = now + self._climb_s * self._rng.uniform(0.75, 1.25)
        self._climb_s = min(self._config.climb_max_s, 2 * self._climb_s)

    def _wait_to_reach(self, now: float) -> None:
        self._reach_at = now + self._reach_s * self._rng.uniform(0.75, 1.25)
        self._reach_s = min(self._config.reach_max_s, 2 * self._reach_s)
