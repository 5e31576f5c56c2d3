"""Durable messages of a run: who kept what for whom, and what of it came."""

import asyncio
import contextlib

from atonce_sim.measures import StepMeasures
from atonce_sim.peer_residents import PeerResident
from atonce_sim.residents import Resident
from atonce_sim.scenario import Disks
from atonce_sim.virtual_disks import DiskFaults
from atonce_sim.world import World
from dht_atonce.durable.receiving import DurableMessage
from dht_atonce.durable.store import FILE
from dht_atonce.errors import AtOnceError

__all__ = ["Letters"]


class Letters:
    """All of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kept: dict[bytes, None] = {}
        self._seen: dict[bytes, None] = {}
        self._done: dict[bytes, None] = {}
        """Ids of those with which a reader was done."""
        self._doubled = 0
        self._came = asyncio.Event()

    async def keep(self, who: Resident, to: Resident, data: bytes) -> None:
        """Somebody writes to somebody; a disk that is full takes nothing, and nothing is promised."""
        assert isinstance(who, PeerResident)
        try:
            await who.keep(to, data)
        except AtOnceError as error:
            self._world.trace.event(self._world.loop.time(), "not kept", who.host.number, str(error))
        else:
            self._kept[data] = None

    async def on_durable(self, who: Resident, message: DurableMessage) -> None:
        """Somebody reads one, and is done with it."""
        self._seen[message.data] = None
        self._came.set()
        self._doubled += message.id in self._done
        try:
            await message.done()
        except AtOnceError:
            return  # it will come again
        if not who.host.is_down:
            self._done[message.id] = None

    async def arrive(self, within_s: float, counts: list[StepMeasures]) -> None:
        """Wait for all that were kept."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self._kept.keys() <= self._seen.keys():
                    self._came.clear()
                    await self._came.wait()
        arrived = len(self._kept.keys() & self._seen.keys())
        for measures in counts:
            measures.sent += len(self._kept)
            measures.delivered += arrived
            measures.lost += len(self._kept) - arrived
            measures.doubled += self._doubled

    def change_disk(self, resident: Resident, step: Disks) -> None:
        """Its disk is slow, full or damaged from now on, or is none of it any more."""
        faults: DiskFaults = resident.host.disk_faults
        faults.commit_s, faults.full = step.commit_s, step.full
        path = f"peer-{resident.host.number}"
        if step.damaged and FILE in self._world.disks.databases(path):
            self._world.disks.damage(path, FILE)
