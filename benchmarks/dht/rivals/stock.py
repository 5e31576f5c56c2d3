"""Stock `kademlia`, as it is installed: nothing sealed, nothing signed."""

import logging

import kademlia.network
from kademlia.utils import digest

from benchmarks.dht.rival import Rival

__all__ = ["make"]


class _Stock(Rival):
    def __init__(self) -> None:
        self._nodes: list[kademlia.network.Server] = []

    async def join(self, entry: int | None) -> None:
        node = kademlia.network.Server()
        await node.listen(0, "127.0.0.1")
        self._nodes.append(node)
        if entry is not None:
            await node.bootstrap([self._nodes[entry].transport.get_extra_info("sockname")])

    async def put(self, owner: int, number: int, value: bytes) -> None:
        await self._nodes[owner].set(f"value {number}", value)

    async def get(self, node: int, owner: int, number: int) -> bytes | None:
        value: bytes | None = await self._nodes[node].get(f"value {number}")
        return value

    def holds(self, node: int, owner: int, number: int) -> bool:
        return self._nodes[node].storage.get(digest(f"value {number}")) is not None

    async def silence(self, node: int) -> None:
        self._nodes[node].stop()

    async def close(self) -> None:
        for node in self._nodes:
            node.stop()


def make() -> Rival:
    """A network of `Server`s. What it logs about nodes that do not answer costs it nothing here."""
    for name in ("kademlia", "rpcudp"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return _Stock()
