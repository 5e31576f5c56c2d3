"""People whose machines die and come back, and what the tests of durable messages share."""

import asyncio
import contextlib
from typing import Any

from support_peers import Village, until

from atonce_sim.world import VirtualHost, World
from dht_atonce.config import DurableConfig, MessagingConfig
from dht_atonce.durable.receiving import DurableMessage
from dht_atonce.errors import StoreError
from dht_atonce.identity import PeerId
from dht_atonce.peer import Peer

FILE = "messages.db"


def config(**bounds: Any) -> MessagingConfig:
    """The usual one, with other bounds for durable messages."""
    return MessagingConfig(durable=DurableConfig(**bounds))


class Resident:
    """Somebody with a machine and a profile; an app reads, and is done with a message at once unless `keeps`."""

    def __init__(self, village: Village, name: str, *, keeps: bool = False, **options: Any) -> None:
        self.village = village
        self.name = name
        self.keeps = keeps
        self.options = options
        self.host: VirtualHost = village.world.host()
        self.peer: Peer
        self.got: list[DurableMessage] = []
        """In all runs."""
        self.finished: list[bytes] = []
        """Ids with which the app is done: `done` returned."""
        self.after_done: list[DurableMessage] = []
        """What came though the app was done with it: must stay empty."""
        self._reader: asyncio.Task[None] | None = None

    @property
    def world(self) -> World:
        return self.village.world

    @property
    def id(self) -> PeerId:
        return self.peer.id

    @property
    def heard(self) -> list[bytes]:
        return [message.data for message in self.got]

    async def start(self) -> "Resident":
        """Begin a run."""
        options = {"host": self.host, "profile": self.name, **self.options}
        self.peer = await self.village.open_peer(**options)
        self._reader = asyncio.create_task(self._read(self.peer, self.host), name=f"app of {self.name}")
        await asyncio.sleep(0)  # it asks for messages
        return self

    async def _read(self, peer: Peer, host: VirtualHost) -> None:
        async for message in peer.messages():
            if host.is_down:
                return
            if isinstance(message, DurableMessage):
                if message.id in self.finished:
                    self.after_done.append(message)
                self.got.append(message)
                if not self.keeps:
                    with contextlib.suppress(StoreError):  # a full disk: it will come again
                        await message.done()
                        if not host.is_down:
                            self.finished.append(message.id)

    def crash(self) -> None:
        """The machine dies."""
        self.world.crash(self.host)
        assert self._reader is not None
        self._reader.cancel()

    async def close(self) -> None:
        await self.peer.aclose()
        self.world.crash(self.host)

    async def start_again(self) -> "Resident":
        self.host = self.world.restart(self.host)
        return await self.start()

    @property
    def warnings(self) -> list[str]:
        return [event["message"] for event in self.village.events[self.peer].of("warning")]

    @property
    def counters(self) -> dict[str, int]:
        return {name: n for name, n in self.peer.counters.items() if name.startswith("durable.") and n}


async def two(village: Village, **options: Any) -> tuple[Resident, Resident]:
    """Alice and Bob, with a seed and a neighbour who is always there."""
    await village.open_seed()
    await village.open_peer()
    alice = await Resident(village, "alice", **options).start()
    bob = await Resident(village, "bob", **options).start()
    return alice, bob


async def heard(who: Resident, *data: bytes, within_s: float = 300.0) -> None:
    """Wait until that is what was heard, in this order, and nothing else."""
    await until(lambda: len(who.got) >= len(data), within_s)
    assert who.heard == list(data)
