"""One node and what it does here: the same code in a process of its own and in the virtual world."""

from typing import Any

from atonce_sim.reality.procedure import Lookup
from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.crawl import Crawl
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.peers import KnownAddresses
from dht_atonce.endpoints import Address
from dht_atonce.errors import EntryFailed
from dht_atonce.host import Host
from dht_atonce.identity import Identity, NodeKey
from dht_atonce.records import PresenceRecord, presence_key

__all__ = ["Member"]


class _Listening(KnownAddresses):
    """Keeps each round trip."""

    __slots__ = ("samples_s",)

    def __init__(self, config: DhtConfig) -> None:
        super().__init__(config)
        self.samples_s: list[float] = []

    def on_sample(self, contact: Contact, rtt_s: float) -> None:
        self.samples_s.append(rtt_s)
        super().on_sample(contact, rtt_s)


class Member:
    """A `DhtNode` that says how long its answers took."""

    def __init__(self, host: Host, network: NetworkConfig, identity: Identity, node_key: NodeKey) -> None:
        self.node = DhtNode(identity, host=host, network=network, node_key=node_key)
        shared = self.node.shared
        self._known = _Listening(shared.config)
        shared.known = self._known
        self._crawls: list[Crawl] = []

    @property
    def round_trips_s(self) -> list[float]:
        """Of requests that were sent once, since the last `forget_round_trips`."""
        return self._known.samples_s

    def forget_round_trips(self) -> None:
        """Measure from now on."""
        self._known.samples_s = []

    async def start(self, ip: str, entries: list[Contact]) -> Contact:
        """Listen at `ip`, join through `entries` and publish; gives where others reach it. Raises `AtOnceError`."""
        node = self.node
        address = await node.listen(0, ip)
        (server,) = node.servers.values()
        begin = server.crawl

        def kept(*args: Any, **kwargs: Any) -> Crawl:
            crawl = begin(*args, **kwargs)
            self._crawls.append(crawl)
            return crawl

        server.crawl = kept  # type: ignore[method-assign] # `find` gives its answer before its lookup is over
        if entries and not await node.join(entries):
            raise EntryFailed(f"none of {len(entries)} contacts answered")
        network, identity = node.shared.network, node.identity

        def sign(seq: int, expires: int) -> PresenceRecord:
            return PresenceRecord.sign(identity, network, seq=seq, incarnation=node.incarnation, expires=expires)

        await node.publish(presence_key(network, identity.id), sign)
        return Contact(node.shared.node_key.public, Address(ip, address.port))

    async def find(self, key: bytes) -> Lookup:
        """Look up a presence."""
        self._crawls.clear()
        result = await self.node.find(key)
        requests, target = 0, int.from_bytes(key, "big")
        for crawl in [crawl for crawl in self._crawls if crawl.lookup.target == target]:
            await crawl.done
            requests += crawl.lookup.requests
        return Lookup(result.record is not None, result.local, result.hops, result.requests, requests, result.elapsed_s)

    async def aclose(self) -> None:
        """Stop."""
        await self.node.aclose()
