"""Lookups: who looks whom up, and what the truth says of the answer."""

import asyncio

from atonce_sim.course import Course
from atonce_sim.hostile.underworld import Underworld
from atonce_sim.inspection import Inspector
from atonce_sim.measures import Measures
from atonce_sim.population import Life, Population
from atonce_sim.residents import Resident
from atonce_sim.truth import Truth, Verdict
from atonce_sim.world import EPOCH

__all__ = ["Searches"]

_DRAWS = 32  # of a pair for one lookup
_OWNER_DRAWS = 200  # of somebody who ever published: of stock's peers not all do


class Searches:
    """Those of one run."""

    def __init__(
        self,
        course: Course,
        population: Population,
        truth: Truth,
        measures: Measures,
        inspector: Inspector,
        underworld: Underworld,
    ) -> None:
        self._course = course
        self._population = population
        self._truth = truth
        self._measures = measures
        self._inspector = inspector
        self._underworld = underworld
        self._lookup = 0

    async def look_up_somebody(self, of: str, by: str, *, fresh: bool) -> None:
        """One lookup that leaves its node. In a small network many do not: those are counted apart, and others are
        drawn in their place."""
        for _ in range(_DRAWS):
            who = self._course.any_of(self._askers(by))
            if who is None:
                return
            if of == "nobody":
                key, owner = self._course.rng.randbytes(20), None
            else:
                life = self._owner(of, other_than=who)
                if life is None:
                    return
                key, owner = life.resident.key, life.resident
            if not await self._look_up(who, key, owner, fresh=fresh):
                return

    def _askers(self, by: str) -> list[Life]:
        if by == "anybody":
            return self._population.present
        return [life for life in self._underworld.victims if life in self._population.up]

    def _owner(self, of: str, other_than: Life) -> Life | None:
        """Somebody who said something of itself."""
        owners = self._owners(of)
        for _ in range(_OWNER_DRAWS):
            life = self._course.any_of(owners, other_than)
            if life is None or self._truth.newest(life.resident.key) is not None:
                return life
        return None

    def _owners(self, of: str) -> list[Life]:
        population = self._population
        match of:
            case "live":
                return population.present
            case "crashed":
                return list(population.crashed)
            case "left":
                return list(population.left)
            case "aimed":
                return [life for life in self._underworld.aimed if life in population.up]
            case _:
                return population.lives

    async def _look_up(self, who: Life, key: bytes, owner: Resident | None, *, fresh: bool) -> bool:
        """Whether the own store answered."""
        step = self._course.step
        number = self._lookup = self._lookup + 1
        said, serial = self._truth.newest(key), who.serial
        host = who.resident.host
        self._course.say("lookup", host.number, f"{number} begins {key.hex()}")
        found = await who.resident.find(key, owner, fresh=fresh)
        if who.serial != serial or self._course.has_stormed():
            return False  # it died meanwhile, and nobody is there to be told
        verdict = self._truth.judge(said, found.answer, EPOCH + asyncio.get_running_loop().time())
        words = f"{number} ends {verdict.value} after {found.elapsed_s * 1000:.1f} ms, {found.requests} requests, "
        self._course.say("lookup", host.number, words + (f"{found.hops} hops" if not found.local else "own store"))
        self._measures.on_lookup(step, found, verdict)
        self._inspector.check(
            verdict is not Verdict.WRONG,
            f"{asyncio.get_running_loop().time():.1f} s: lookup {number} of {key.hex()[:8]} by host {host.number} gave "
            f"{found.answer}, and the newest that was said is {said}",
        )
        return found.local
