"""Group commit: what is asked for in one turn of the loop, or while the disk is busy, becomes one transaction."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from dht_atonce.disk import Disk
from dht_atonce.durable.store import Store
from dht_atonce.errors import PeerClosed, StoreError
from dht_atonce.host import Host
from dht_atonce.tasks import TaskGroup

__all__ = ["Writer"]

T = TypeVar("T")


class Writer:
    """Owns the store; opens it when something is first asked of it. `on_open` is told once that it is open."""

    def __init__(self, host: Host, disk: Disk, on_open: Callable[[Store], None]) -> None:
        self.error: StoreError | None = None
        """Why the last transaction failed; None: it did not."""
        self.is_closed = False
        self._host = host
        self._disk = disk
        self._on_open = on_open
        self._store: Store | None = None
        self._jobs: list[tuple[Callable[[Store], Any], Callable[[Any], None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._tasks = TaskGroup()

    def submit(self, job: Callable[[Store], T], then: Callable[[T | StoreError], None]) -> None:
        """Have `job` done in the next transaction; `then` is called with its result when that is on the disk, or with
        the error for which nothing of it is. Calls are made in the order in which they were submitted.

        Raises `PeerClosed`.
        """
        if self.is_closed:
            raise PeerClosed("this peer is closed")
        self._jobs.append((job, then))
        if self._task is None:
            self._task = self._tasks.start(self._write(), "write messages")

    async def aclose(self, within_s: float) -> None:
        """Write what was asked for and close the file; what takes longer than that goes on in its thread."""
        self.is_closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                if self._task is not None:
                    await asyncio.wait([self._task])
                if self._store is not None:
                    await self._host.offload.run(self._store.close)
        await self._tasks.aclose()
        jobs, self._jobs = self._jobs, []
        for _, then in jobs:
            then(StoreError("the peer was closed before this was on the disk"))

    async def _write(self) -> None:
        try:
            while self._jobs:
                jobs, self._jobs = self._jobs, []
                try:
                    if self._store is None:
                        self._store = await self._host.offload.run(partial(Store.open, self._disk))
                        self._on_open(self._store)
                    results = await self._host.offload.run(partial(self._store.perform, [job for job, _ in jobs]))
                except StoreError as error:
                    self.error = error
                    results = [error] * len(jobs)
                else:
                    self.error = None
                for (_, then), result in zip(jobs, results, strict=True):
                    then(result)
        finally:
            self._task = None
