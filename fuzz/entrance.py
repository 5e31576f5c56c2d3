"""The handshake with a seed, from both sides."""

import random
from collections.abc import Callable
from typing import Any

from atonce_seed.handshake import Handshake, SeedFacts
from atonce_sim.loop import VirtualLoop
from atonce_sim.world import World
from dht_atonce.codec import encode
from dht_atonce.discovery.seed_client import SeedSession
from dht_atonce.discovery.seed_wire import Challenge, Hello, sign_challenge
from dht_atonce.endpoints import Address, SeedUrl
from dht_atonce.errors import (
    EntryFailed,
    NetworkMismatch,
)
from dht_atonce.identity import Identity, NodeKey
from dht_atonce.records import RecordParser
from fuzz.seeds import NETWORK, NOW, Target, identity, presence, vectors

__all__ = ["challenge", "handshake"]


def handshake() -> Target:
    """What newcomers send to a seed: first in an answer to nothing, then to its challenge."""
    seed = identity(60)
    facts = SeedFacts(seed, NETWORK, NodeKey.generate(random.Random(3)).public, (4000, 0), RecordParser(NETWORK))
    curve_key, rng = identity(0).id.curve_key, random.Random(4)

    def feed(data: bytes) -> None:
        for before in ([], [encode(Hello(0, ""))]):
            handshake = Handshake(facts, curve_key, Address("10.0.0.1", 5000), rng, lambda _: True, 0.0, 30.0)
            for said in [*before, data]:
                handshake.on_frame(said, 1.0, NOW)

    return Target(feed, vectors("seed", "message"))


class _Seed:
    """A link to a seed that has lost its mind and not its key."""

    remote = Address("10.0.0.2", 4710)

    def __init__(self, body: bytes, client: Identity, seed: Identity) -> None:
        signature = sign_challenge(seed, client.id.curve_key, body)
        self._answers = [body, encode(Challenge(0, body[:600], signature))]
        self._hear: Callable[[bytes], None] = lambda _: None

    async def dial(self, *_: object) -> "_Seed":
        return self

    def start(self, hear: Callable[[bytes], None], _closed: object) -> None:
        self._hear = hear

    def send(self, _data: bytes) -> None:
        if self._answers:
            self._hear(self._answers.pop())

    def close(self) -> None: ...


def challenge() -> Target:
    """What a seed sends to a newcomer: a challenge with any body, well signed, and then any answer."""
    loop, client, seed = VirtualLoop(), identity(0), identity(60)
    host, node_key, url = World(1).host(), NodeKey.generate(random.Random(3)), SeedUrl(seed.id, "10.0.0.2", 4710)

    async def visit(body: bytes) -> None:
        link: Any = _Seed(body, client, seed)
        session = await SeedSession.open(url, host, link, client, None, 1.0)
        async with session:
            await session.authenticate(node_key, presence().blob)

    def feed(body: bytes) -> None:
        try:
            loop.run_until_complete(visit(body))
        except (EntryFailed, NetworkMismatch):
            return

    return Target(feed, vectors("seed", "body", "message"), loop.close)
