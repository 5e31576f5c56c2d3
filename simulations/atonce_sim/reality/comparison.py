"""Both runs and the verdict."""

import asyncio
from collections.abc import Callable

import msgspec

from atonce_sim.latency import Measured
from atonce_sim.loop import run as run_world
from atonce_sim.measures import mean, quantile
from atonce_sim.reality.member import Member
from atonce_sim.reality.procedure import Lookup, OnProgress, Outcome, Plan, conduct
from atonce_sim.reality.processes import Processes
from atonce_sim.wires import Conditions
from atonce_sim.world import VirtualHost, World
from dht_atonce.dht.contact import Contact

__all__ = ["TOLERANCE", "Comparison", "Side", "compare", "judge", "reality", "side", "simulation"]

TOLERANCE = 0.1
"""By so much of what really was the simulation may be off."""


class Side(msgspec.Struct, frozen=True):
    """Figures of one of the two networks."""

    lookups: int
    """That left their node."""
    local: int
    """So many more were answered by the own store."""
    found_share: float | None
    hops: float | None
    """Mean, over those that found."""
    requests_per_lookup: float | None
    """Mean, of whole lookups."""
    asked_per_lookup: float | None
    """Mean of requests that were sent when the record was there. Where answers come in bundles this is more, since a
    process handles all that lie in its socket before it tells its caller of the first; virtual ones come one by one."""
    lookup_s_p50: float | None
    lookup_s_p99: float | None
    round_trip_s_p50: float | None
    round_trip_s_p99: float | None


class Comparison(msgspec.Struct, frozen=True):
    """What really was, what the simulation says, and whether that is near enough."""

    peers: int
    k: int
    seed: int
    way_ms: float
    real: Side
    simulated: Side
    hops_off: float | None
    """By which share of the real figure the simulated one is off; None: there is nothing to compare."""
    requests_off: float | None
    tolerance: float
    held: bool


def compare(plan: Plan, on_progress: Callable[[str], OnProgress]) -> Comparison:
    """Both, one after the other. `on_progress` gives, for "real" and for "simulated", who is told.

    Raises `AtOnceError`.
    """
    real = reality(plan, on_progress("real"))
    simulated = simulation(plan, Measured.of(real.round_trips_s), on_progress("simulated"))
    return judge(plan, side(real), side(simulated))


def reality(plan: Plan, on_progress: OnProgress) -> Outcome:
    """As processes on loopback. Raises `AtOnceError`."""

    async def run(processes: Processes) -> Outcome:
        async with processes.connected():
            return await conduct(plan, processes, on_progress)

    with Processes(plan) as processes:
        return asyncio.run(run(processes))


def simulation(plan: Plan, latency: Measured, on_progress: OnProgress) -> Outcome:
    """In the virtual world, where answers take as long as they really took."""

    async def run() -> Outcome:
        village = _Village(plan, World(plan.seed, conditions=Conditions(latency=latency)))
        try:
            return await conduct(plan, village, on_progress)
        finally:
            await village.aclose()

    return run_world(run())


def side(outcome: Outcome) -> Side:
    """The figures of what was seen."""
    lookups = outcome.lookups
    elapsed_s = [lookup.elapsed_s for lookup in lookups if lookup.found]
    return Side(
        lookups=len(lookups),
        local=outcome.local,
        found_share=mean([float(lookup.found) for lookup in lookups]),
        hops=mean([lookup.hops for lookup in lookups if lookup.found]),
        requests_per_lookup=mean([lookup.requests for lookup in lookups]),
        asked_per_lookup=mean([lookup.asked for lookup in lookups]),
        lookup_s_p50=quantile(elapsed_s, 0.5),
        lookup_s_p99=quantile(elapsed_s, 0.99),
        round_trip_s_p50=quantile(outcome.round_trips_s, 0.5),
        round_trip_s_p99=quantile(outcome.round_trips_s, 0.99),
    )


def judge(plan: Plan, real: Side, simulated: Side) -> Comparison:
    """Held only if hops and requests are both near enough."""
    hops_off = _off(real.hops, simulated.hops)
    requests_off = _off(real.requests_per_lookup, simulated.requests_per_lookup)
    return Comparison(
        peers=plan.peers,
        k=plan.k,
        seed=plan.seed,
        way_ms=plan.way_ms,
        real=real,
        simulated=simulated,
        hops_off=hops_off,
        requests_off=requests_off,
        tolerance=TOLERANCE,
        held=all(off is not None and abs(off) <= TOLERANCE for off in (hops_off, requests_off)),
    )


def _off(real: float | None, simulated: float | None) -> float | None:
    return (simulated - real) / real if real and simulated is not None else None


class _Village:
    """The simulated network."""

    def __init__(self, plan: Plan, world: World) -> None:
        self._plan = plan
        self._world = world
        self._members: list[Member] = []
        self._contacts: list[Contact] = []

    async def start(self, number: int, entries: list[int]) -> None:
        host: VirtualHost = self._world.host()
        member = Member(host, self._plan.network, *self._plan.keys(number))
        self._members.append(member)
        self._contacts.append(await member.start(host.ip, [self._contacts[entry] for entry in entries]))

    async def find(self, asker: int, key: bytes) -> Lookup:
        return await self._members[asker].find(key)

    async def begin_measuring(self) -> None:
        for member in self._members:
            member.forget_round_trips()

    async def round_trips_s(self) -> list[float]:
        return [rtt_s for member in self._members for rtt_s in member.round_trips_s]

    async def aclose(self) -> None:
        await asyncio.gather(*(member.aclose() for member in self._members))
