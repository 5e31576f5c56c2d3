"""What both networks do, the real one and the simulated one: who they are, whom they join through, what they look up.

Nodes have the same keys on both sides and come in in the same order through the same others, so that the ids are the
same and only behaviour can differ.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from dht_atonce.config import NetworkConfig
from dht_atonce.errors import ControlError
from dht_atonce.identity import Identity, NodeKey
from dht_atonce.records import presence_key

__all__ = ["Lookup", "Network", "OnProgress", "Outcome", "Plan", "conduct"]

MAX_ENTRIES = 16  # contacts that a newcomer is given, as by a seed
_JOIN_EVERY_S = 0.1  # on both sides: hand-offs take real time, and virtual joins would take next to none
_SETTLE_S = 2.5  # for hand-offs that the last joins caused
_MOST_DRAWS = (
    20  # of pairs for each lookup that is wanted: in a small network most records are in the asker's own store
)

OnProgress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that both sides share."""

    peers: int
    lookups: int
    k: int
    seed: int
    way_ms: float = 0.0
    """So long, on average, real datagrams are held up beyond what loopback takes: answers then come one by one, as from
    far away, and not in bundles."""

    @property
    def network(self) -> NetworkConfig:
        return NetworkConfig(name="compare", k=self.k, local=True)

    def keys(self, number: int) -> tuple[Identity, NodeKey]:
        """Of node `number`, counted from 0 in the order in which they join."""
        rng = random.Random(f"{self.seed}/keys {number}")
        return Identity.generate(rng), NodeKey.generate(rng)

    def key(self, number: int) -> bytes:
        """Under which node `number` publishes its presence, 20 B."""
        return presence_key(self.network, self.keys(number)[0].id)

    def entries(self, number: int) -> list[int]:
        """Through whom node `number` joins: some of those before it."""
        rng = random.Random(f"{self.seed}/entries {number}")
        return rng.sample(range(number), min(MAX_ENTRIES, number))

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Who looks up whom."""
        rng = random.Random(f"{self.seed}/pairs")
        for _ in range(self.lookups * _MOST_DRAWS):
            asker, owner = rng.sample(range(self.peers), 2)
            yield asker, owner


@dataclass(frozen=True, slots=True)
class Lookup:
    """What came of one."""

    found: bool
    local: bool
    """From the own store: nobody was asked."""
    hops: int
    asked: int
    """Requests sent when the record was there."""
    requests: int
    """Requests in all: after the first answer a lookup goes on behind, until the nearest have answered."""
    elapsed_s: float
    """Until the record was there."""


class Network(Protocol):
    """One of the two."""

    async def start(self, number: int, entries: list[int]) -> None:
        """Node `number` comes in through others, and publishes its presence. Raises `AtOnceError`."""

    async def find(self, asker: int, key: bytes) -> Lookup:
        """One lookup, to its very end. Raises `AtOnceError`."""

    async def begin_measuring(self) -> None:
        """Round trips before this do not count."""

    async def round_trips_s(self) -> list[float]:
        """How long answers took, of all nodes."""


@dataclass(slots=True)
class Outcome:
    """What was seen on one side."""

    lookups: list[Lookup] = field(default_factory=list)
    """Those that left their node."""
    local: int = 0
    """So many more did not."""
    round_trips_s: list[float] = field(default_factory=list)
    """Of answers that came during the lookups."""


async def conduct(plan: Plan, network: Network, on_progress: OnProgress) -> Outcome:
    """All of it, in the time of the running loop. Raises `AtOnceError`."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(plan.peers):
        on_progress("join", number, plan.peers)
        await asyncio.sleep(began + number * _JOIN_EVERY_S - loop.time())
        await network.start(number, plan.entries(number))
    on_progress("join", plan.peers, plan.peers)
    await asyncio.sleep(_SETTLE_S)
    await network.begin_measuring()
    outcome = Outcome()
    for asker, owner in plan.pairs():
        if len(outcome.lookups) == plan.lookups:
            break
        on_progress("lookups", len(outcome.lookups), plan.lookups)
        lookup = await network.find(asker, plan.key(owner))
        if lookup.local:
            outcome.local += 1
        else:
            outcome.lookups.append(lookup)
    if len(outcome.lookups) < plan.lookups:
        raise ControlError(
            f"of {outcome.local + len(outcome.lookups)} lookups only {len(outcome.lookups)} had to leave their node; "
            "take more peers or a smaller k"
        )
    on_progress("lookups", plan.lookups, plan.lookups)
    outcome.round_trips_s = await network.round_trips_s()
    return outcome
