"""What the hostile peers of one step share: whom they aim at, who they are, and what they have seen."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from atonce_sim.hostile.decoys import Decoys
from atonce_sim.keyspace import KeySpace, as_long
from atonce_sim.residents import Resident
from atonce_sim.world import VirtualHost, World
from dht_atonce.config import NetworkConfig
from dht_atonce.dht.operations import Asked
from dht_atonce.dht.wire import Reply
from dht_atonce.endpoints import Address, subnet
from dht_atonce.tasks import TaskGroup

if TYPE_CHECKING:
    from atonce_sim.hostile.rogues import Rogue

__all__ = ["Aim", "Gang", "Plan"]

_MOST = 16  # contacts that a reply may have
_LOOKED_AT = 64  # members, the nearest, of whom some may share a subnet
_PER_SUBNET = 2  # of one reply's contacts, honest nodes ask no more of one subnet


@dataclass(frozen=True, slots=True)
class Aim:
    """A key that is attacked, and how near to it the nearest honest node was when they came."""

    key: bytes
    owner: Resident
    reach: int
    """Distance of that node."""

    @property
    def target(self) -> int:
        return as_long(self.key)

    def concerns(self, target: bytes) -> bool:
        """Whether somebody who looks for `target` looks into the neighbourhood of the key."""
        return as_long(target) ^ self.target < 8 * self.reach


@dataclass(slots=True, eq=False)
class Gang:
    """One gang. It knows all who are honest, as the strongest attacker would by crawling the network."""

    world: World
    network: NetworkConfig
    rng: random.Random
    honest: Sequence[Resident] = ()
    """All who were up when it came."""
    aims: list[Aim] = field(default_factory=list)
    victims: list[Resident] = field(default_factory=list)
    outsider: Address | None = None
    """Where somebody is who has no part in this network."""
    is_awake: bool = False
    """Before that, its members behave like anybody."""
    members: "list[Rogue]" = field(default_factory=list)
    tasks: TaskGroup = field(default_factory=TaskGroup)
    seen: dict[bytes, list[bytes]] = field(default_factory=dict)
    """Key → all genuine records of it that any member was given, the oldest first."""
    _decoys: Decoys | None = None
    _space: KeySpace = field(default_factory=KeySpace)
    _by_id: "dict[int, Rogue]" = field(default_factory=dict)

    def admit(self, rogue: "Rogue") -> None:
        """It is a member from now on."""
        self.members.append(rogue)
        long_id = as_long(rogue.node_id)
        self._by_id[long_id] = rogue
        self._space.add(long_id)

    @property
    def decoys(self) -> Decoys:
        """Ids of nobody, made when they are first wanted."""
        if self._decoys is None:
            self._decoys = Decoys(self.rng, local=self.network.local)
        return self._decoys

    def aim_at(self, target: bytes) -> Aim | None:
        """The aim that a search for `target` concerns."""
        return next((aim for aim in self.aims if aim.concerns(target)), None)

    def fellows(self, target: bytes, other_than: "Rogue", count: int = _MOST) -> list[bytes]:
        """Members nearest to `target`, packed, nearest first; no more of one subnet than honest nodes take."""
        named, subnets = list[bytes](), dict[bytes, int]()
        for long_id in self._space.nearest(as_long(target), _LOOKED_AT):
            rogue = self._by_id[long_id]
            contact = rogue.contact
            net = subnet(contact.ip)
            if rogue is other_than or (not self.network.local and subnets.get(net, 0) >= _PER_SUBNET):
                continue
            subnets[net] = subnets.get(net, 0) + 1
            named.append(contact.packed)
            if len(named) == count:
                break
        return named

    def on_record(self, key: bytes, blob: bytes) -> None:
        """A member was given a genuine record."""
        known = self.seen.setdefault(key, [])
        if blob not in known:
            known.append(blob)

    async def pause(self, pause_s: float) -> None:
        """A wait in the world's time."""
        await asyncio.sleep(pause_s)


class Plan:
    """What the members of one gang do: the interface of all kinds."""

    def __init__(self, gang: Gang) -> None:
        self.gang = gang

    def answer(self, me: "Rogue", asked: Asked, wall: float) -> Reply | None:
        """What `me` answers; None: nothing at all. As long as they are not awake, nobody asks this."""
        return me.honest(asked, wall)

    async def act(self, me: "Rogue") -> None:
        """What a member does of its own accord, from when they are awake to the end."""

    async def rage(self, host: VirtualHost) -> None:
        """What one that is no node does, on a machine of its own, from when they are awake."""
