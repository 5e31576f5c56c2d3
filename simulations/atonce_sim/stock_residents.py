"""Residents made of stock `kademlia`: the same words as ours, and nothing that it does not have."""

from collections.abc import Sequence

from atonce_sim.residents import Found, Held, OnPublished, Resident
from atonce_sim.stock import Budget, StockNode
from atonce_sim.truth import Answer, Said
from atonce_sim.world import VirtualHost, World
from dht_atonce.config import NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.endpoints import Address
from dht_atonce.errors import EntryFailed
from dht_atonce.identity import Identity, NodeKey
from dht_atonce.records import presence_key

__all__ = ["StockResident", "StockSettler"]

_MAX_VALUES = 100  # each is handed to newcomers by everybody who holds it: with more, it ends in a storm
_REQUESTS_PER_PEER = 500  # twice what ours sends; beyond it is a storm
_LIFE_S = 604_800.0  # of a value in stock's storage
_ENTRIES = 3


class StockSettler:
    """Makes stock residents that share one budget of requests."""

    def __init__(self, world: World, network: NetworkConfig, peers: int) -> None:
        self.budget = Budget(_REQUESTS_PER_PEER * max(peers, 20))
        self._world = world
        self._network = network
        self._made = 0

    def make(self, host: VirtualHost) -> "StockResident":
        self._made += 1
        return StockResident(self._world, host, self._network, self.budget, publishes=self._made <= _MAX_VALUES)


class StockResident:
    """A `kademlia` server and one value of it: the seq of what it says of itself. There is no goodbye."""

    def __init__(
        self, world: World, host: VirtualHost, network: NetworkConfig, budget: Budget, *, publishes: bool
    ) -> None:
        self.host = host
        self.key = presence_key(network, Identity.generate(host.rng).id)
        self.is_up = False
        self.on_published: OnPublished | None = None
        self._world = world
        self._network = network
        self._budget = budget
        self._publishes = publishes
        self._node_id = NodeKey.generate(host.rng).id
        self._node: StockNode | None = None
        self._past_requests = 0
        self._saved: list[tuple[str, int]] = []
        self._port = 0
        self._seq = 0

    @property
    def node(self) -> StockNode:
        """Its server, which must be there."""
        assert self._node is not None
        return self._node

    @property
    def node_id(self) -> bytes:
        return self._node_id

    @property
    def contact(self) -> Contact:
        raise NotImplementedError("a node of stock kademlia has no node key")

    @property
    def requests(self) -> int:
        return self._past_requests + (self._node.requests if self._node is not None else 0)

    async def start(self, entries: Sequence[Resident]) -> None:
        self._past_requests = self.requests
        self._node = node = StockNode(self.host, self._network.k, self._node_id, self._budget)
        self.is_up = True
        self._port = (await node.listen(self._port)).port
        addresses = [entry.node.address for entry in entries if isinstance(entry, StockResident)]
        others = [(address.ip, address.port) for address in addresses[:_ENTRIES]]
        found = await node.bootstrap(self._saved or others)
        if not found and (self._saved or others):
            self.is_up = False
            raise EntryFailed("nobody answered")
        self.host.has_joined = True
        await self.update()

    async def update(self) -> None:
        if not self._publishes:
            return
        loop = self._world.loop
        began = loop.time()
        wall = self.host.clock.wall()
        self._seq = max(self._seq + 1, int(wall * 1_000_000))
        stored = await self.node.set(self.key, self._seq.to_bytes(8, "big"))
        # Alone there is nobody to store it at, and nothing is kept at home: it was not said.
        if stored and self.on_published is not None:
            self.on_published(self, Said(self._seq, wall + _LIFE_S), loop.time() - began)

    async def find(self, key: bytes, owner: Resident | None, *, fresh: bool = False) -> Found:
        began = self._world.loop.time()
        value, local, lookup = await self.node.get(key)
        answer = None
        if value is not None:
            answer = Answer(int.from_bytes(value, "big"), self.host.clock.wall() + _LIFE_S, False, genuine=True)
        return Found(answer, local, lookup.hops, lookup.requests, self._world.loop.time() - began)

    async def send(self, to: Resident, data: bytes) -> None:
        raise NotImplementedError("stock kademlia sends no messages")

    async def leave(self) -> None:
        self.crash()

    def crash(self) -> None:
        self._saved = self.node.neighbours()
        self.is_up = False
        self._world.crash(self.host)
        self.node.stop()

    async def aclose(self) -> None:
        self.is_up = False
        if self._node is not None:
            self._node.stop()

    def forget(self) -> None:
        if not self.is_up:
            self._past_requests = self.requests
            self._node = None

    def seats(self) -> list[tuple[bytes, Address]]:
        return self.node.seats()

    def nearest_known(self, target: bytes, count: int) -> list[bytes]:
        return self.node.nearest_known(target, count)

    def has_failing(self) -> bool:
        return False  # it forgets a contact at the first packet that is lost

    def held(self) -> list[Held]:
        until = self.host.clock.wall() + _LIFE_S
        return [Held(key, int.from_bytes(value, "big"), until) for key, value in self.node.stored()]

    def overfull(self) -> list[str]:
        return []
