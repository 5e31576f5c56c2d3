"""What a scenario's steps do: when peers come and go, look each other up and send messages."""

import asyncio
from collections.abc import Callable

from atonce_sim.course import Course, count_of, span_s
from atonce_sim.hostile.underworld import Underworld
from atonce_sim.inspection import Inspector
from atonce_sim.letters import Letters
from atonce_sim.measures import Measures
from atonce_sim.peer_residents import PeerResident
from atonce_sim.population import Life, Population
from atonce_sim.residents import Resident
from atonce_sim.scenario import (
    Arrive,
    Churn,
    Crash,
    Disks,
    Heal,
    Invade,
    Join,
    KillSeeds,
    Leave,
    Lookups,
    Messages,
    Partition,
    Restart,
    Set,
    Step,
    Update,
    Wait,
)
from atonce_sim.searches import Searches
from atonce_sim.truth import Said, Truth
from atonce_sim.world import World
from dht_atonce.errors import AtOnceError, DeliveryUnknown

__all__ = ["Workload"]

_TRIES = 5  # of one who wants to come in
_FIRST_PAUSE_S = 2.0  # between two tries, doubled each time
_CLEAR_S = 30.0  # what was under way when all ended has arrived or failed by then
_SEEN_S = 5.0  # after the last message, for the last one to be seen


class Workload:
    """Does the steps of one scenario, one after another."""

    def __init__(
        self,
        world: World,
        population: Population,
        truth: Truth,
        measures: Measures,
        inspector: Inspector,
        underworld: Underworld,
        *,
        peers: int,
        kill_seeds: Callable[[], None],
        has_stormed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._world = world
        self._population = population
        self._truth = truth
        self._measures = measures
        self._inspector = inspector
        self._underworld = underworld
        self._peers = peers
        self._kill_seeds = kill_seeds
        self._course = Course(world, has_stormed)
        self._searches = Searches(self._course, population, truth, measures, inspector, underworld)
        self._seen: dict[bytes, int] = {}
        self._letters = Letters(world)

    async def do(self, number: int, step: Step) -> None:
        """Step `number` of the scenario, from its first to its last moment."""
        self._course.begin(number, step)
        match step:
            case Join():
                await self._join(step)
            case Wait():
                await asyncio.sleep(step.s)
            case Update():
                picked = self._population.pick(self._population.present, step.share, self._course.rng)
                await self._course.over(step.over_s, picked, self._update)
            case Lookups():
                await self._lookups(step)
            case Messages():
                await self._messages(step)
            case Arrive():
                await self._letters.arrive(step.within_s, self._measures.of(step.name))
            case Disks():
                for life in self._population.pick(self._population.present, step.share, self._course.rng):
                    self._letters.change_disk(life.resident, step)
            case Crash():
                for life in self._population.pick(self._population.present, step.share, self._course.rng):
                    self._crash(life)
            case Leave():
                picked = self._population.pick(self._population.present, step.share, self._course.rng)
                await self._course.over(step.over_s, picked, self._leave)
            case Restart():
                gone = [*self._population.crashed, *self._population.left]
                picked = self._population.pick(gone, step.share, self._course.rng)
                await self._course.over(step.over_s, picked, self._come_back)
            case KillSeeds():
                self._kill_seeds()
            case Churn():
                await self._churn(step)
            case Partition():
                picked = self._population.pick(self._population.present, step.share, self._course.rng)
                second = [life.resident.host for life in picked]
                self._course.say("partition", -1, f"{len(second)} on the second side")
                self._world.partition([[], second], one_way=step.one_way)
            case Heal():
                self._course.say("heal", -1, "")
                self._world.heal()
            case Set():
                self._set(step)
            case Invade():
                await self._underworld.invade(step, self._course.rng)
        self._course.end()

    async def end(self) -> None:
        """The lights go out: nothing is said any more; then nobody may be left."""
        for life in list(self._population.up):
            self._world.crash(life.resident.host)
        await self._underworld.end()
        await asyncio.gather(*(life.resident.aclose() for life in self._population.lives))
        await asyncio.sleep(_CLEAR_S)

    # --- coming and going ---

    async def _join(self, step: Join) -> None:
        newcomers = [self._population.newcomer() for _ in range(max(1, round(step.share * self._peers)))]
        over_s = span_s(step, self._peers)
        if not self._population.up:
            await self._enter(newcomers.pop(0))
        await self._course.over(over_s, newcomers, self._enter)

    async def _enter(self, life: Life) -> bool:
        """Come in, trying again as an app would. False: nobody let it in."""
        loop, resident = asyncio.get_running_loop(), life.resident
        resident.on_published = self._on_published
        if isinstance(resident, PeerResident):
            resident.on_message = self._on_message
            resident.on_durable = self._letters.on_durable
        began = loop.time()
        for measures in self._measures.of(self._course.step):
            measures.wanted += 1
        for attempt in range(_TRIES):
            entries = self._population.entries(self._course.rng)
            try:
                await resident.start(entries)
            except AtOnceError as error:
                self._course.say("refused", resident.host.number, str(error))
                await resident.aclose()
                await asyncio.sleep(_FIRST_PAUSE_S * 2**attempt)
                continue
            self._population.on_up(life, loop.time())
            self._course.say("joined", resident.host.number, resident.node_id.hex())
            for measures in self._measures.of(self._course.step):
                measures.entered += 1
                measures.enter_s.append(loop.time() - began)
            return True
        return False

    async def _come_back(self, life: Life) -> None:
        self._population.reboot(life)
        await self._enter(life)

    async def _leave(self, life: Life) -> None:
        if life not in self._population.up:
            return
        self._population.on_down(life, asyncio.get_running_loop().time(), said_goodbye=True)
        self._course.say("leaves", life.resident.host.number, "")
        await life.resident.leave()
        life.resident.forget()

    def _crash(self, life: Life) -> None:
        self._population.on_down(life, asyncio.get_running_loop().time(), said_goodbye=False)
        life.resident.crash()

    async def _update(self, life: Life) -> None:
        if life in self._population.up:
            await life.resident.update()

    def _on_published(self, resident: Resident, said: Said, elapsed_s: float) -> None:
        self._truth.on_published(resident.key, said)
        self._course.say("published", resident.host.number, f"{resident.key.hex()} {said.seq}")
        for measures in self._measures.of(self._course.step):
            measures.publish_s.append(elapsed_s)

    async def _churn(self, step: Churn) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + step.for_s

        async def live_out(life: Life) -> None:
            """One session after another in one seat, until the step ends."""
            while True:
                serial = life.serial
                at = loop.time() + step.session.draw(self._course.rng)
                if at >= ends:
                    return
                await asyncio.sleep(at - loop.time())
                if life.serial == serial and life in self._population.up:
                    if self._course.rng.random() < step.goodbyes:
                        await self._leave(life)
                    else:
                        self._crash(life)
                        await life.resident.aclose()
                        life.resident.forget()
                life = self._population.newcomer()
                if loop.time() >= ends or not await self._enter(life):
                    return

        lookups = round(step.lookups_per_s * step.for_s)
        await asyncio.gather(
            *(live_out(life) for life in list(self._population.up)),
            self._course.over(
                step.for_s, range(lookups), lambda _: self._searches.look_up_somebody("live", "anybody", fresh=False)
            ),
        )

    # --- looking up ---

    async def _lookups(self, step: Lookups) -> None:
        count = count_of(step, self._peers)
        over_s = span_s(step, self._peers)
        updates = [self._course.any_of(self._population.present) for _ in range(round(step.updates_per_s * over_s))]
        await asyncio.gather(
            self._course.over(
                over_s, range(count), lambda _: self._searches.look_up_somebody(step.of, step.by, fresh=step.fresh)
            ),
            self._course.over(over_s, [life for life in updates if life is not None], self._update),
        )

    # --- messages ---

    async def _messages(self, step: Messages) -> None:
        self._seen = {}
        sent: dict[bytes, tuple[Life, int]] = {}

        async def send(number: int) -> None:
            who = self._course.any_of(self._population.present)
            to = self._course.any_of(self._population.present, other_than=who)
            if who is None or to is None:
                return
            data = b"message %d of step %s" % (number, step.name.encode())
            counts = self._measures.of(step.name)
            if step.durable:
                await self._letters.keep(who.resident, to.resident, data)
                return
            for measures in counts:
                measures.sent += 1
            try:
                await who.resident.send(to.resident, data)
            except DeliveryUnknown:
                for measures in counts:
                    measures.unknown += 1
                return
            except AtOnceError as error:
                self._course.say("not sent", who.resident.host.number, str(error))
                return
            sent[data] = (to, to.serial)
            for measures in counts:
                measures.delivered += 1

        await self._course.over(step.over_s, range(count_of(step, self._peers)), send)
        await asyncio.sleep(_SEEN_S)
        # An acknowledged message is in the queue of a process: it is lost with that, and nothing else is promised.
        lost = sum(1 for data, (to, serial) in sent.items() if data not in self._seen and to.serial == serial)
        doubled = sum(1 for times in self._seen.values() if times > 1)
        for measures in self._measures.of(step.name):
            measures.lost += lost
            measures.doubled += doubled
        self._inspector.check(not lost, f"{lost} acknowledged messages were never seen by the receiver's app")
        self._inspector.check(not doubled, f"{doubled} messages were seen twice")

    def _on_message(self, _: Resident, data: bytes) -> None:
        self._seen[data] = self._seen.get(data, 0) + 1

    # --- inside ---

    def _set(self, step: Set) -> None:
        conditions = self._world.conditions
        for name in ("loss", "duplication", "reordering"):
            value = getattr(step, name)
            if value is not None:
                setattr(conditions, name, value)
