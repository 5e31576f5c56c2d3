"""@Once: sealed datagrams, signed records."""

import asyncio
from collections.abc import Callable
from typing import Any

from benchmarks.dht.rival import Rival, Skipped
from dht_atonce.config import NetworkConfig
from dht_atonce.dht.node import DhtNode
from dht_atonce.endpoints import Address
from dht_atonce.records import value_key

__all__ = ["make"]


class _Ours(Rival):
    def __init__(self) -> None:
        self._network = NetworkConfig.local_network("benchmark")
        self._nodes: list[DhtNode] = []
        self._addresses: list[Address] = []
        self._hearing: list[asyncio.Task[None]] = []

    async def join(self, entry: int | None) -> None:
        node = DhtNode(network=self._network)
        self._addresses.append(await node.listen(interface="127.0.0.1"))
        self._nodes.append(node)
        if entry is not None:
            await node.bootstrap([(*self._addresses[entry], self._nodes[entry].shared.node_key.public)])

    async def put(self, owner: int, number: int, value: bytes) -> None:
        await self._nodes[owner].set(f"value {number}", value)

    async def get(self, node: int, owner: int, number: int) -> bytes | None:
        value: bytes | None = await self._nodes[node].get(f"{self._nodes[owner].identity.id}/value {number}")
        return value

    def holds(self, node: int, owner: int, number: int) -> bool:
        key = value_key(self._network, self._nodes[owner].identity.id, f"value {number}")
        return key in self._nodes[node].shared.store

    async def watch(self, node: int, owner: int, number: int, heard: Callable[[], None]) -> None:
        watch: Any = getattr(self._nodes[node], "watch", None)
        if watch is None:
            raise Skipped("DhtNode has no watch yet")
        watching = watch(value_key(self._network, self._nodes[owner].identity.id, f"value {number}"))
        await watching.start()
        self._hearing.append(asyncio.create_task(_hear(watching, heard)))

    async def silence(self, node: int) -> None:
        self._nodes[node].stop()

    async def close(self) -> None:
        for hearing in self._hearing:
            hearing.cancel()
        for node in self._nodes:
            await node.aclose()


async def _hear(watching: Any, heard: Callable[[], None]) -> None:
    async for _ in watching:
        heard()


def make() -> Rival:
    """A network of `DhtNode`s."""
    return _Ours()
