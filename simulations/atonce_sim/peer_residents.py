"""Residents that are whole peers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from atonce_sim.node_residents import OnOurNode
from atonce_sim.residents import Found, Resident
from atonce_sim.truth import Said
from atonce_sim.world import VirtualHost, World
from dht_atonce.config import NetworkConfig
from dht_atonce.durable.receiving import DurableMessage
from dht_atonce.endpoints import SeedUrl
from dht_atonce.identity import Identity
from dht_atonce.peer import Peer
from dht_atonce.records import ONLINE, presence_key

__all__ = ["ANY4", "PeerResident"]

OnMessage = Callable[["Resident", bytes], None]
OnDurable = Callable[["Resident", DurableMessage], Awaitable[None]]

ANY4 = ("0.0.0.0",)  # noqa: S104 # the virtual world has IPv4 only


class PeerResident(OnOurNode):
    """A whole `Peer`: a profile on the host's disk, the ladder, a seed, links and messages."""

    def __init__(
        self, world: World, host: VirtualHost, network: NetworkConfig, seeds: Sequence[SeedUrl], *, alone: bool
    ) -> None:
        super().__init__(world, host, network)
        self._seeds = seeds
        self._alone = alone
        self._peer: Peer | None = None
        self._closing: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self.on_message: OnMessage | None = None
        self.on_durable: OnDurable | None = None
        self._identity: Identity | None = None
        self._node_id = b""
        self.key = b""

    @property
    def peer(self) -> Peer:
        """It, which must be there."""
        assert self._peer is not None
        return self._peer

    @property
    def identity(self) -> Identity:
        assert self._identity is not None
        return self._identity

    @property
    def node_id(self) -> bytes:
        return self._node_id

    async def start(self, entries: Sequence[Resident]) -> None:
        loop = asyncio.get_running_loop()
        times: dict[str, float] = {}

        def on_event(event: str, _: dict[str, Any]) -> None:
            times.setdefault(event, loop.time())

        self._peer = peer = await Peer.open(
            profile=f"peer-{self.host.number}",
            seeds=self._seeds,
            network=self.network if self._alone else None,
            listen=ANY4,
            alone=self._alone,
            host=self.host,
            on_event=on_event,
        )
        self.key = presence_key(self.network, peer.id)
        self.adopt(peer.node)
        self._identity, self._node_id = peer.node.identity, peer.node.shared.node_key.id
        self.host.has_joined = True
        self.is_up = True
        # The first publish was over before there was anybody to tell.
        if self.on_published is not None and peer.record is not None:
            said = Said(peer.record.seq, float(peer.record.expires))
            self.on_published(self, said, times.get("published", 0.0) - times.get("entered", 0.0))
        self._reader = loop.create_task(self._read(peer), name=f"app of host {self.host.number}")

    async def _read(self, peer: Peer) -> None:
        async for message in peer.messages():
            if isinstance(message, DurableMessage):
                if self.on_durable is not None and not self.host.is_down:
                    await self.on_durable(self, message)
            elif self.on_message is not None and not self.host.is_down:
                self.on_message(self, message.data)

    async def update(self) -> None:
        await self.peer.set_status(ONLINE)

    async def find(self, key: bytes, owner: Resident | None, *, fresh: bool = False) -> Found:
        return self.found(await self.running.find(key, fresh=fresh), owner)

    async def send(self, to: Resident, data: bytes) -> None:
        assert isinstance(to, PeerResident)
        await self.peer.send(to.peer.id, data)

    async def keep(self, to: Resident, data: bytes) -> None:
        """Send a durable message; returns when it is on our disk. Raises `AtOnceError`."""
        assert isinstance(to, PeerResident)
        await self.peer.send(to.peer.id, data, durable=True)

    async def leave(self) -> None:
        self.is_up = False
        await self.peer.aclose()
        self.world.crash(self.host)  # nothing of it is left that could speak

    def crash(self) -> None:
        self.is_up = False
        self.world.crash(self.host)
        # What still runs of it speaks to nobody: it is only cleared away.
        self._closing = asyncio.get_running_loop().create_task(
            self.peer.aclose(), name=f"remains of host {self.host.number}"
        )

    async def aclose(self) -> None:
        self.is_up = False
        if self._closing is not None:
            await self._closing
        if self._peer is not None:
            await self._peer.aclose()
        if self._reader is not None:
            await self._reader
