"""Places gangs in a world, wakes them, and knows what they have achieved."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from atonce_sim.bystanders import Bystander
from atonce_sim.hostile.floods import FlooderPlan, ReflectorPlan
from atonce_sim.hostile.gang import Aim, Gang, Plan
from atonce_sim.hostile.kinds import (
    Blackhole,
    Eclipse,
    Flooder,
    Forger,
    Hoarder,
    Kind,
    Liar,
    Redirect,
    Reflector,
    Stuffer,
    Sybil,
)
from atonce_sim.hostile.lies import LiarPlan, RedirectPlan
from atonce_sim.hostile.records import ForgerPlan, HoarderPlan, StufferPlan
from atonce_sim.hostile.rogues import Puppet, RogueNode
from atonce_sim.hostile.seats import BlackholePlan, EclipsePlan, SybilPlan
from atonce_sim.keyspace import as_long
from atonce_sim.population import Life, Population
from atonce_sim.residents import Resident
from atonce_sim.scenario import Invade
from atonce_sim.world import VirtualHost, World
from dht_atonce.config import NetworkConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import AtOnceError
from dht_atonce.identity import NodeKey

__all__ = ["Underworld", "plan_of"]

_TRIES: Final = 3  # of one node that wants to come in
_HOSTS_PER_SUBNET: Final = 254
_OUTSIDER: Final = {True: Address("10.254.0.1", 4000), False: Address("66.102.1.1", 4000)}
"""By whether the network is local: where nobody of the world is."""


def plan_of(kind: Kind, gang: Gang) -> Plan:
    """What members of `kind` do."""
    match kind:
        case Sybil():
            return SybilPlan(gang, kind)
        case Eclipse():
            return EclipsePlan(gang, kind)
        case Forger():
            return ForgerPlan(gang, kind)
        case Blackhole():
            return BlackholePlan(gang, kind)
        case Liar():
            return LiarPlan(gang, kind)
        case Hoarder():
            return HoarderPlan(gang, kind)
        case Redirect():
            return RedirectPlan(gang, kind)
        case Flooder():
            return FlooderPlan(gang, kind)
        case Reflector():
            return ReflectorPlan(gang, kind)
        case Stuffer():
            return StufferPlan(gang, kind)


class Underworld:
    """All gangs of a run."""

    def __init__(self, world: World, population: Population, network: NetworkConfig) -> None:
        self.gangs: list[Gang] = []
        self.aimed: list[Life] = []
        """Those at whose presence somebody aims."""
        self.victims: list[Life] = []
        """Those at whose node somebody aims."""
        self.bystander: Bystander | None = None
        """The outsider whom gangs send others to, or in whose name they ask."""
        self.seats_max: int | None = None
        """The most seats that hostile nodes ever held in one honest table."""
        self.records_max: int | None = None
        """The most records that one honest node ever held, since hostile nodes came."""
        self._world = world
        self._population = population
        self._network = network
        # By subnet, the hosts that are there, of all gangs: who shares a subnet shares it with other gangs too.
        self._hosts: dict[int, list[VirtualHost]] = {}

    # --- coming and going ---

    async def invade(self, step: Invade, rng: random.Random) -> None:
        """One gang comes; over when it is there and awake."""
        gang = self._gather(step, rng)
        plan = plan_of(step.who, gang)
        honest = len(self._population.up)
        count = (
            step.count if step.count is not None else round((step.share or 0.0) / (1 - (step.share or 0.0)) * honest)
        )
        gang.is_awake = not step.dormant_s
        self.gangs.append(gang)
        if isinstance(step.who, Flooder | Reflector):
            hosts = [self._host(step, number) for number in range(count)]
            await asyncio.sleep(step.over_s + step.dormant_s)
            gang.is_awake = True
            for host in hosts:
                gang.tasks.start(plan.rage(host), f"rage of host {host.number}")
            return
        makes: Callable[[int], RogueNode | Puppet] = lambda number: self._member(step, gang, plan, number)  # noqa: E731
        began = self._world.loop.time()
        for number, moment in enumerate(sorted(rng.uniform(0, step.over_s) for _ in range(count))):
            await asyncio.sleep(max(0.0, began + moment - self._world.loop.time()))
            await self._enter(gang, plan, makes(number), awake=gang.is_awake)
        await asyncio.sleep(max(0.0, began + step.over_s + step.dormant_s - self._world.loop.time()))
        if not gang.is_awake:
            gang.is_awake = True
            for rogue in gang.members:
                gang.tasks.start(plan.act(rogue), f"plan of host {rogue.host.number}")

    async def end(self) -> None:
        """All are gone."""
        for gang in self.gangs:
            await gang.tasks.aclose()
            for rogue in gang.members:
                rogue.stop()
                if isinstance(rogue, RogueNode):
                    await rogue.aclose()
        self._population.hostile.clear()

    # --- looking ---

    @property
    def standing(self) -> dict[bytes, str]:
        """`NodeId` → IP of all hostile nodes that are up."""
        return {rogue.node_id: rogue.host.ip for gang in self.gangs for rogue in gang.members if rogue.is_up}

    def look(self, residents: Sequence[Resident]) -> None:
        """See how much of honest nodes is taken: those of `residents` that are up."""
        if not self.gangs:
            return
        ids = self.standing
        for resident in residents:
            if ids:
                taken = sum(node_id in ids for node_id, _ in resident.seats())
                self.seats_max = max(self.seats_max or 0, taken)
            self.records_max = max(self.records_max or 0, len(resident.held()))

    def figures(self) -> dict[str, float | None]:
        """What expectations may name."""
        bystander = self.bystander
        return {
            "answered_ratio_max": bystander.largest_ratio if bystander is not None else None,
            "victim_datagrams": bystander.most if bystander is not None else None,
            "hostile_seats_max": self.seats_max,
            "records_max": self.records_max,
        }

    # --- inside ---

    def _gather(self, step: Invade, rng: random.Random) -> Gang:
        gang = Gang(self._world, self._network, random.Random(rng.getrandbits(64)), self._population.residents)
        if isinstance(step.who, Redirect | Reflector):
            gang.outsider = _OUTSIDER[self._network.local]
            if self.bystander is None:
                self.bystander = self._world.bystanders[gang.outsider.ip] = Bystander()
        if step.aim == "nobody":
            return gang
        present = self._population.present
        lives = rng.sample(present, min(step.aims, len(present)))
        if step.aim == "victim":
            gang.victims = [life.resident for life in lives]
            self.victims += lives
        else:
            gang.aims = [self._aim(life.resident) for life in lives]
            self.aimed += lives
        return gang

    def _aim(self, resident: Resident) -> Aim:
        key = as_long(resident.key)
        (nearest,) = self._population.space.nearest(key, 1)
        return Aim(resident.key, resident, nearest ^ key)

    def _member(self, step: Invade, gang: Gang, plan: Plan, number: int) -> RogueNode | Puppet:
        host = self._host(step, number)
        if isinstance(step.who, Eclipse):
            return Puppet(gang, plan, host, NodeKey.generate(gang.rng))
        return RogueNode(gang, plan, host, self._node_key(gang, number))

    def _node_key(self, gang: Gang, number: int) -> NodeKey:
        """Any, or one whose id is nearer to an aimed key than all honest ones are: some N tries (threats.md)."""
        if not gang.aims:
            return NodeKey.generate(gang.rng)
        aim = gang.aims[number % len(gang.aims)]
        while True:
            node_key = NodeKey.generate(gang.rng)
            if as_long(node_key.id) ^ aim.target < aim.reach:
                return node_key

    def _host(self, step: Invade, number: int) -> VirtualHost:
        if step.subnets is None:
            return self._world.host(tireless=True)
        subnet, at = number % step.subnets, number // step.subnets
        hosts = self._hosts.setdefault(subnet, [])
        if at < _HOSTS_PER_SUBNET and at >= len(hosts):
            hosts.append(self._world.host(f"80.{subnet >> 8}.{subnet & 255}.{1 + len(hosts)}", tireless=True))
        return hosts[at % len(hosts)]

    async def _enter(self, gang: Gang, plan: Plan, rogue: RogueNode | Puppet, *, awake: bool) -> None:
        if isinstance(rogue, RogueNode) and not await self._come_in(rogue, gang.rng):
            return
        gang.admit(rogue)
        if isinstance(rogue, RogueNode):
            self._population.hostile.append(rogue)
        if awake:
            gang.tasks.start(plan.act(rogue), f"plan of host {rogue.host.number}")

    async def _come_in(self, rogue: RogueNode, rng: random.Random) -> bool:
        for _ in range(_TRIES):
            entries: Sequence[Resident] = self._population.entries(rng)
            try:
                await rogue.start(entries)
            except AtOnceError:
                await rogue.aclose()
                continue
            return True
        return False
