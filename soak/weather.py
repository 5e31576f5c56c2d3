"""Delivery in bad weather, in the virtual world: what a receipt says is true, and nothing comes twice or out of order.

Three peers write to each other for minutes while links break, machines are cut off, move to other addresses, fall
asleep, or crash and are started again from their profiles; loss, delays and the weather come from the seed alone.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

from atonce_seed.server import SeedServer
from atonce_sim.ciphers import PassThrough
from atonce_sim.latency import Uniform
from atonce_sim.loop import run
from atonce_sim.wires import Conditions
from atonce_sim.world import VirtualHost, World
from dht_atonce import AtOnceError, NetworkConfig, Peer, Receipt, State
from dht_atonce.endpoints import SeedUrl
from dht_atonce.errors import QueueFull

__all__ = ["Outcome", "weather"]

NETWORK = NetworkConfig.local_network("weather")
PEERS = 3
STORMS_S = 60.0
CALM_S = 60.0
TERMINAL = {State.DELIVERED, State.EXPIRED, State.REFUSED, State.UNKNOWN}


@dataclass(slots=True)
class Outcome:
    """What became of all messages of one run."""

    states: Counter[str] = field(default_factory=Counter)
    weather: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Sent:
    """A message, and what its sender knows of it."""

    number: int
    sender: int
    to: int
    receipt: Receipt


class Actor:
    """A peer on a machine of its own, over all its lives, and what its app got in each of them."""

    def __init__(self, world: World, number: int, url: SeedUrl) -> None:
        self.world = world
        self.number = number
        self.host: VirtualHost = world.host()
        self.peer: Peer | None = None
        self.id = ""
        self.lives: list[list[tuple[str, int]]] = []
        self._url = url
        self._readers: list[asyncio.Task[None]] = []
        self._remains: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self.peer = await Peer.open(
            f"peer-{self.number}", seeds=[self._url], listen=["0.0.0.0"], host=self.host, keep_trying=True
        )
        self.id = str(self.peer.id)
        got: list[tuple[str, int]] = []
        self.lives.append(got)
        self._readers.append(asyncio.create_task(self._read(self.peer, got), name=f"app {self.number}"))

    async def _read(self, peer: Peer, got: list[tuple[str, int]]) -> None:
        async for message in peer.messages():
            entry = (str(message.sender), int(message.data[:8]))
            got.append(entry)

    def crash(self) -> None:
        assert self.peer is not None
        peer, self.peer = self.peer, None
        self.world.crash(self.host)
        self._remains.append(asyncio.create_task(peer.aclose(), name=f"remains {self.number}"))

    async def restart(self) -> None:
        self.host = self.world.restart(self.host)
        await self.start()

    async def aclose(self) -> None:
        if self.peer is not None:
            await self.peer.aclose()
        await asyncio.gather(*self._remains, *self._readers)


class Storm:
    """Does its worst, one blow after another, until it is told to stop."""

    def __init__(self, world: World, actors: list[Actor], rng: random.Random, outcome: Outcome) -> None:
        self._world = world
        self._actors = actors
        self._rng = rng
        self._outcome = outcome
        self._moved = 0

    async def blow(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            await asyncio.sleep(self._rng.uniform(0.2, 6.0))
            actor = self._rng.choice(self._actors)
            if actor.peer is None:
                continue
            kind = self._rng.choices(["cut", "away", "move", "crash", "partition"], [8, 3, 2, 1, 2])[0]
            self._outcome.weather[kind] += 1
            match kind:
                case "cut":
                    for link in list(self._world.links):
                        if link._host is actor.host and self._rng.random() < 0.7:
                            link._end("cut")
                            link.other.on_cut()  # whose heartbeats find out
                case "away":
                    self._world.unreachable.add(actor.host.ip)
                    await asyncio.sleep(self._rng.choice([0.3, 2.0, 12.0]))
                    self._world.unreachable.discard(actor.host.ip)
                case "move":
                    self._moved += 1
                    self._world.move(actor.host, f"10.200.{self._moved >> 8}.{self._moved & 255}")
                case "crash":
                    actor.crash()
                    await asyncio.sleep(self._rng.choice([0.1, 3.0, 15.0]))
                    await actor.restart()
                case "partition":
                    others = [other.host for other in self._actors if other is not actor]
                    self._world.partition([[actor.host], others], one_way=self._rng.random() < 0.3)
                    await asyncio.sleep(self._rng.choice([1.0, 5.0, 20.0]))
                    self._world.heal()


async def chat(actor: Actor, actors: list[Actor], rng: random.Random, sent: list[Sent], until: float) -> None:
    """Write to the others, now one message, now many at once."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        await asyncio.sleep(rng.expovariate(2.0))
        if actor.peer is None:
            continue
        to = rng.choice([other for other in actors if other is not actor])
        for _ in range(rng.choice([1, 1, 1, 5, 40])):
            number = len(sent)
            size = rng.choice([8, 100, 3000])
            try:
                receipt = actor.peer.post(to.id, b"%08d" % number + bytes(size), rng.choice([3.0, 10.0, 30.0]))
            except (QueueFull, AtOnceError):
                break
            sent.append(Sent(number, len(actor.lives) * 10 + actor.number, to.number, receipt))


def judge(actors: list[Actor], sent: list[Sent], outcome: Outcome) -> None:
    """Hold what the receipts say against what the apps got."""
    got: Counter[int] = Counter()
    for actor in actors:
        for life in actor.lives:
            last: dict[str, int] = {}
            for sender, number in life:
                got[number] += 1
                if number <= last.get(sender, -1):
                    outcome.problems.append(f"{number} came to {actor.number} after {last[sender]}")
                last[sender] = max(number, last.get(sender, -1))
    for message in sent:
        state = message.receipt.state
        outcome.states[state.value] += 1
        times = got[message.number]
        if times > 1:
            outcome.problems.append(f"{message.number} came {times} times")
        if state not in TERMINAL:
            outcome.problems.append(f"{message.number} is still {state.value}")
        elif state in (State.EXPIRED, State.REFUSED) and times:
            outcome.problems.append(f"{message.number} came, and its sender was told that it is {state.value}")
        elif state is State.DELIVERED and not times:
            outcome.problems.append(f"{message.number} is called delivered, and never came")


async def _run(seed: int) -> Outcome:
    outcome, rng = Outcome(), random.Random(seed)
    low, high = rng.choice([(1, 5), (5, 65), (50, 150)])
    conditions = Conditions(latency=Uniform(low, high), loss=rng.choice([0.0, 0.0, 0.02, 0.1]))
    world = World(seed, conditions=conditions, cipher=PassThrough())
    server = await SeedServer.open("seed", host=world.host(), network=NETWORK, listen=["0.0.0.0"])
    actors = [Actor(world, number, server.url()) for number in range(PEERS)]
    for actor in actors:
        await actor.start()
    sent: list[Sent] = []
    ends = asyncio.get_running_loop().time() + STORMS_S
    storm = Storm(world, actors, random.Random(seed + 1), outcome)
    await asyncio.gather(
        storm.blow(ends),
        *(chat(actor, actors, random.Random(f"{seed}/{actor.number}"), sent, ends) for actor in actors),
    )
    await asyncio.sleep(CALM_S)
    # In calm weather everybody reaches everybody.
    for actor in actors:
        for other in actors:
            if other is not actor:
                assert actor.peer is not None
                try:
                    await actor.peer.send(other.id, b"%08d" % 99_999_999)
                except AtOnceError as error:
                    outcome.problems.append(f"afterwards {actor.number} does not reach {other.number}: {error}")
    for actor in actors:
        await actor.aclose()
    await server.aclose()
    judge(actors, sent, outcome)
    return outcome


def weather(seed: int) -> Outcome:
    """One run."""
    return run(_run(seed))
