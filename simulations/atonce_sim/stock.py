"""Stock `kademlia` in the virtual world: the baseline of every claim.

Its code runs as it is installed. What is ours: the names `time`, `random` and `os` in its modules, so that it obeys the
virtual clock and the world's seed; a protocol that counts its requests; keys that are given and not hashed from a name,
so that both kinds of node use the same key space. Nothing of it is mended.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import kademlia.network
import kademlia.protocol
import kademlia.routing
import kademlia.storage
import rpcudp.protocol
from kademlia.crawling import ValueSpiderCrawl
from kademlia.node import Node
from kademlia.protocol import KademliaProtocol

from atonce_sim.world import VirtualHost
from dht_atonce.endpoints import Address

__all__ = ["Budget", "Lookup", "StockNode", "stock_world"]

_RPCS = ("ping", "store", "find_node", "find_value")
_LOGS = ("kademlia", "rpcudp")


class Budget:
    """How many requests all stock nodes of a world may send: they can cause each other without end."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.sent = 0
        self.spent_at_s: float | None = None
        """When the first one was refused; None: none was."""

    def take(self, now: float) -> bool:
        """Whether one more may be sent."""
        if self.sent >= self.limit:
            if self.spent_at_s is None:
                self.spent_at_s = now
            return False
        self.sent += 1
        return True


class Lookup:
    """What one `get` did, seen from outside."""

    def __init__(self, known: Iterable[bytes] = ()) -> None:
        self.requests = 0
        self.hops = 0
        """Length of the referral chain to the first node that had the value; a contact of the own table is 1."""
        # Others name our own contacts too: that does not put them further away.
        self._chain = dict.fromkeys(known, 1)

    def ask(self, node_id: bytes) -> int:
        """A request goes to this node; gives how far it is."""
        self.requests += 1
        return self._chain[node_id]

    def on_answer(self, hops: int, answer: object) -> None:
        """A node that is `hops` away answered with a value, or with others."""
        if isinstance(answer, dict):
            self.hops = self.hops or hops
        else:
            for contact in answer or []:  # type: ignore[attr-defined] # a list of triples
                self._chain.setdefault(contact[0], hops + 1)


# gather() runs requests as tasks of their own; a context variable finds its way into them.
_lookup: ContextVar[Lookup | None] = ContextVar("lookup", default=None)


class _CountingProtocol(KademliaProtocol):
    """Stock's protocol; each request is counted, and none is sent beyond the budget."""

    def __init__(self, source_node: Node, storage: Any, ksize: int, budget: Budget, count: Callable[[], None]) -> None:
        super().__init__(source_node, storage, ksize)
        self._budget = budget
        self._count = count
        self._stopped = False

    def stop(self) -> None:
        """End what waits for an answer, as the end of a process would: no task or timer of this node is left."""
        self._stopped = True
        for future, timer in list(self._outstanding.values()):
            timer.cancel()
            future.cancel()
        self._outstanding.clear()

    def __getattr__(self, name: str) -> Any:
        call = super().__getattr__(name)  # type: ignore[misc] # rpcudp's: an attribute that is missing is a remote call
        return self._counted(call) if name in _RPCS else call

    def _counted(self, call: Any) -> Any:
        def request(address: Any, *args: Any) -> Any:
            loop = self.transport._loop
            if self._stopped:
                dead = loop.create_future()
                dead.cancel()
                return dead
            if not self._budget.take(loop.time()):
                refused = loop.create_future()
                refused.set_result((False, None))
                return refused
            self._count()
            return call(address, *args)

        return request

    async def call_find_value(self, node_to_ask: Any, node_to_find: Any) -> tuple[bool, Any]:
        lookup = _lookup.get()
        if lookup is None:
            return await super().call_find_value(node_to_ask, node_to_find)
        hops = lookup.ask(node_to_ask.id)
        result = await super().call_find_value(node_to_ask, node_to_find)
        if result[0]:
            lookup.on_answer(hops, result[1])
        return result


class _Server(kademlia.network.Server):
    """Stock's; its hourly refresh runs in a task that nobody awaits, and may fail in it."""

    failed_refreshes = 0

    async def _refresh_table(self) -> None:
        try:
            await super()._refresh_table()
        except ValueError:  # max() of nobody, as in `set`; it refreshes again in an hour
            self.failed_refreshes += 1


class StockNode:
    """A `kademlia.network.Server` on one virtual host."""

    def __init__(self, host: VirtualHost, ksize: int, node_id: bytes, budget: Budget) -> None:
        self.host = host
        self.requests = 0
        self._is_stopped = False
        self.server = _Server(ksize=ksize, node_id=node_id)
        self.server.protocol_class = lambda node, storage, k: _CountingProtocol(node, storage, k, budget, self._on_sent)
        self.address = Address(host.ip, 0)

    def _on_sent(self) -> None:
        self.requests += 1

    @property
    def node_id(self) -> bytes:
        return self.server.node.id

    async def listen(self, port: int = 0) -> Address:
        """Bind. Raises `PortInUse`."""
        self.host.world.enter()
        await self.server.listen(port, self.host.ip)
        self.address = Address(*self.server.transport.get_extra_info("sockname"))
        return self.address

    async def bootstrap(self, addresses: list[tuple[str, int]]) -> int:
        """Join through these. Gives how many nodes were found."""
        try:
            return len(await self.server.bootstrap(addresses))
        except asyncio.CancelledError:
            self._unless_stopped()
            return 0

    def neighbours(self) -> list[tuple[str, int]]:
        """Where to join again after a restart."""
        return self.server.bootstrappable_neighbors()

    async def set(self, key: bytes, value: bytes) -> bool:
        """`Server.set` without its hash of the name. False: nobody stored it."""
        try:
            return bool(await self.server.set_digest(key, value))
        except ValueError:  # max() of nobody: all whom it asked are dead
            return False
        except asyncio.CancelledError:
            self._unless_stopped()
            return False

    async def get(self, key: bytes) -> tuple[bytes | None, bool, Lookup]:
        """`Server.get` without its hash of the name: the value, whether it was in the own store, and how it went."""
        held = self.server.storage.get(key)
        if held is not None:
            return held, True, Lookup()
        node = Node(key)
        nearest: list[Node] = self.server.protocol.router.find_neighbors(node)
        lookup = Lookup(contact.id for contact in nearest)
        if not nearest:
            return None, False, lookup
        token = _lookup.set(lookup)
        try:
            crawl = ValueSpiderCrawl(self.server.protocol, node, nearest, self.server.ksize, self.server.alpha)
            return await crawl.find(), False, lookup
        except asyncio.CancelledError:
            self._unless_stopped()
            return None, False, lookup
        finally:
            _lookup.reset(token)

    def stop(self) -> None:
        """Close the socket; whoever waits for a lookup gets nothing. No task or timer of it is left."""
        self._is_stopped = True
        self.server.stop()
        if self.server.protocol is not None:
            self.server.protocol.stop()

    def _unless_stopped(self) -> None:
        """Called while a cancellation is handled: let it pass if it was meant for the caller and not for this node."""
        task = asyncio.current_task()
        if not self._is_stopped or (task is not None and task.cancelling()):
            raise asyncio.CancelledError

    def seats(self) -> list[tuple[bytes, Address]]:
        """Whom its table holds."""
        buckets = self.server.protocol.router.buckets
        return [(node.id, Address(node.ip, node.port)) for bucket in buckets for node in bucket.nodes.values()]

    def nearest_known(self, target: bytes, count: int) -> list[bytes]:
        """Whom its table calls nearest."""
        return [node.id for node in self.server.protocol.router.find_neighbors(Node(target), count)]

    def stored(self) -> list[tuple[bytes, bytes]]:
        """What it holds."""
        return list(self.server.storage)


class _Time:
    def __init__(self, clock: Callable[[], float]) -> None:
        self.monotonic = self.time = clock


class _Os:
    def __init__(self, rng: random.Random) -> None:
        self.urandom = rng.randbytes


@contextmanager
def stock_world(rng: random.Random, clock: Callable[[], float]) -> Iterator[None]:
    """While this lasts, stock's modules draw from `rng` and read `clock`. Raises RuntimeError if it lasts already."""
    names: list[tuple[Any, str, object]] = [
        (kademlia.network, "random", rng),
        (kademlia.protocol, "random", rng),
        (kademlia.routing, "time", _Time(clock)),
        (kademlia.storage, "time", _Time(clock)),
        (rpcudp.protocol, "os", _Os(rng)),
    ]
    before = [getattr(module, name) for module, name, _ in names]
    if not all(hasattr(value, "__spec__") for value in before):
        raise RuntimeError("stock kademlia is in another virtual world already")
    levels = [logging.getLogger(name).level for name in _LOGS]
    try:
        for module, name, value in names:
            setattr(module, name, value)
        for log in _LOGS:
            logging.getLogger(log).setLevel(logging.CRITICAL)
        yield
    finally:
        for (module, name, _), value in zip(names, before, strict=True):
            setattr(module, name, value)
        for log, level in zip(_LOGS, levels, strict=True):
            logging.getLogger(log).setLevel(level)
