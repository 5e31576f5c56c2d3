"""Residents that are nodes of the DHT, and what they share with whole peers, which stand on one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import nacl.bindings as sodium
from nacl.exceptions import BadSignatureError

from atonce_sim.residents import Found, Held, OnPublished, Resident
from atonce_sim.truth import Answer, Said
from atonce_sim.world import VirtualHost, World
from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.node import DhtNode, FindResult, PublishResult
from dht_atonce.endpoints import Address
from dht_atonce.errors import EntryFailed
from dht_atonce.identity import Identity, NodeKey
from dht_atonce.records import GONE, ONLINE, AnyRecord, PresenceRecord, presence_key

__all__ = ["NodeResident", "OnOurNode"]


class OnOurNode(Resident, ABC):
    """What both kinds share: they stand on a `DhtNode`."""

    host: VirtualHost
    key: bytes
    node: DhtNode | None

    def __init__(self, world: World, host: VirtualHost, network: NetworkConfig) -> None:
        self.world = world
        self.host = host
        self.network = network
        self.node = None
        self.is_up = False
        self.on_published: OnPublished | None = None
        self._past_requests = 0
        self._verified = b""

    @property
    def running(self) -> DhtNode:
        """Its node, which must be there."""
        assert self.node is not None
        return self.node

    @property
    def contact(self) -> Contact:
        """Where others ask it."""
        shared = self.running.shared
        return Contact(shared.node_key.public, Address(self.host.ip, self.running.addresses[0].port))

    @property
    def requests(self) -> int:
        return self._past_requests + (self.node.counters["dht.sent"] if self.node is not None else 0)

    def adopt(self, node: DhtNode) -> None:
        """Make `node` the one that this resident stands on, and hear what it publishes."""
        self._past_requests = self.requests
        self.node = node
        node.on_published = self._on_published

    def _on_published(self, record: AnyRecord, result: PublishResult) -> None:
        if self.on_published is not None:
            said = Said(record.seq, float(record.expires), record.is_goodbye)
            self.on_published(self, said, result.elapsed_s)

    def found(self, result: FindResult, owner: Resident | None) -> Found:
        """A node's answer in the run's words; whether it is genuine is asked of the owner, not of the node."""
        record = result.record
        answer = None
        if record is not None:
            genuine = isinstance(owner, OnOurNode) and owner.signed(record)
            answer = Answer(record.seq, float(record.expires), record.is_goodbye, genuine)
        return Found(answer, result.local, result.hops, result.requests, result.elapsed_s)

    def signed(self, record: AnyRecord) -> bool:
        """Whether this record is under our key and bears our signature, checked by docs/wire.md section 2 and by
        libsodium alone."""
        if record.blob == self._verified:
            return True
        signed = b"atonce record v1" + record.blob[1:2] + self.network.network_id + record.blob[66:]
        try:
            sodium.crypto_sign_open(record.blob[2:66] + signed, self.identity.id.key)
        except BadSignatureError:
            return False
        if record.key != self.key:
            return False
        self._verified = record.blob
        return True

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """Whose presence it publishes."""

    def forget(self) -> None:
        if not self.is_up:
            self._past_requests = self.requests
            self.node = None

    def seats(self) -> list[tuple[bytes, Address]]:
        return [
            (seat.contact.id, seat.contact.address)
            for server in self.running.servers.values()
            for seat in server.router
        ]

    def nearest_known(self, target: bytes, count: int) -> list[bytes]:
        (server,) = self.running.servers.values()
        near = server.router.find_neighbors(int.from_bytes(target, "big"), count, failing=True)
        return [contact.id for contact in near]

    def has_failing(self) -> bool:
        return any(seat.failures for server in self.running.servers.values() for seat in server.router)

    def held(self) -> list[Held]:
        shared = self.running.shared
        wall = shared.host.clock.wall()
        return [
            Held(key, record.seq, float(record.expires))
            for key, record in shared.store
            if shared.store.live(key, wall) is not None
        ]

    def overfull(self) -> list[str]:
        node = self.running
        config, store = node.shared.config, node.shared.store
        words = []
        for server in node.servers.values():
            waiting = len(server.protocol._outstanding)
            if waiting > config.max_outstanding:
                words.append(f"{waiting} requests wait for an answer")
        if store.size > config.max_records:
            words.append(f"{store.size} records are held")
        return words


class NodeResident(OnOurNode):
    """A node of the DHT and nothing else: it joins through contacts, as a seed would name them."""

    def __init__(
        self,
        world: World,
        host: VirtualHost,
        network: NetworkConfig,
        *,
        node_key: NodeKey | None = None,
        config: DhtConfig | None = None,
    ) -> None:
        super().__init__(world, host, network)
        self._identity = Identity.generate(host.rng)
        self._node_key = node_key or NodeKey.generate(host.rng)
        self._config = config
        self._incarnations: tuple[bytes, ...] = ()
        self._saved: list[Contact] = []
        self._port = 0
        self.key = presence_key(network, self._identity.id)

    @property
    def identity(self) -> Identity:
        return self._identity

    @property
    def node_id(self) -> bytes:
        return self._node_key.id

    async def start(self, entries: Sequence[Resident]) -> None:
        await self._enter(entries)
        await self._publish(ONLINE)

    async def _enter(self, entries: Sequence[Resident]) -> None:
        node = DhtNode(
            self._identity,
            host=self.host,
            network=self.network,
            node_key=self._node_key,
            config=self._config,
            past_incarnations=self._incarnations,
        )
        self.adopt(node)
        self._incarnations = (node.incarnation, *self._incarnations)[:8]
        self.is_up = True
        self._port = (await node.listen(self._port)).port
        self.on_listening(node)
        contacts = [entry.contact for entry in entries]
        answered = await node.join(self._saved or contacts)
        if not answered and self._saved:
            answered = await node.join(contacts)
        if not answered and (self._saved or contacts):
            raise EntryFailed(f"none of {len(self._saved or contacts)} contacts answered")
        self.host.has_joined = True

    def on_listening(self, node: DhtNode) -> None:
        """It has its socket, and nobody has spoken to it yet."""

    async def update(self) -> None:
        await self._publish(ONLINE)

    async def find(self, key: bytes, owner: Resident | None, *, fresh: bool = False) -> Found:
        return self.found(await self.running.find(key, fresh=fresh), owner)

    async def send(self, to: Resident, data: bytes) -> None:
        raise NotImplementedError("a node of the DHT sends no messages")

    async def leave(self) -> None:
        try:
            await self._publish(GONE)
        finally:
            self._go()
            await self.aclose()

    def crash(self) -> None:
        self._go()
        self.world.crash(self.host)
        self.running.stop()

    async def aclose(self) -> None:
        self.is_up = False
        if self.node is not None:
            await self.node.aclose()

    def _go(self) -> None:
        self._saved = self.running.live_contacts(50)
        self.is_up = False

    async def _publish(self, status: str) -> None:
        node = self.running

        def sign(seq: int, expires: int) -> PresenceRecord:
            return PresenceRecord.sign(
                self._identity,
                self.network,
                seq=seq,
                incarnation=node.incarnation,
                expires=expires,
                status=status,
            )

        await node.publish(self.key, sign, is_goodbye=status == GONE)
