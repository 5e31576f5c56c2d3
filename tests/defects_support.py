"""What the tests of stock's defects share: one form for all of them, and both sides in one vocabulary.

Each row of docs/security.md is one check that is made on both sides: its promise must hold for ours, and must not hold
for stock `kademlia`. So each test is its own control. Stock runs as it is installed; in the virtual world it draws from
the world's chance and reads its clock (`atonce_sim.stock.stock_world`).
"""

import asyncio
import functools
import inspect
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest
import umsgpack
from kademlia.network import Server
from kademlia.node import Node
from kademlia.protocol import KademliaProtocol
from kademlia.routing import RoutingTable as StockRoutingTable
from kademlia.storage import ForgetfulStorage
from support import LOCAL, NOW, Tap, contact_at

from atonce_sim.loop import run
from atonce_sim.stock import stock_world
from atonce_sim.world import VirtualHost, World
from dht_atonce.config import DhtConfig
from dht_atonce.dht.routing import RoutingTable
from dht_atonce.dht.wire import Request
from dht_atonce.endpoints import Address, pack_address
from dht_atonce.host import Host

STOCK, OURS = "stock", "ours"
Kept = bool | dict[str, bool]
"""Whether a promise holds; where a row has several cases, in which of them."""
Check = Callable[[str], Kept | Awaitable[Kept]]

PORT = 4000
NOTHING = object()
"""What a stranger says who does not answer."""


ID = b"requestI"
"""A request's id."""
HERE = pack_address(Address("10.0.0.1", PORT))


def head(request: Request) -> tuple[Any, ...]:
    """The first fields of a reply of ours to `request`."""
    return (0, request.request_id, 0, b"", HERE, NOW * 1000)


def promise(check: Check) -> Callable[[str], None]:
    """A test in the virtual world: `check(side)` must hold, in each case, for ours, and in no case for stock."""

    def made(side: str) -> Kept:
        world = stock_world(random.Random(1), lambda: asyncio.get_running_loop().time())
        with world if side == STOCK else nullcontext():
            return run(_watched(check, side))

    return _test(check, made)


def promise_on_sockets(check: Check) -> Callable[[str], None]:
    """Like `promise`, over the sockets of this machine: for what asyncio and the system do."""

    def made(side: str) -> Kept:
        for name in ("kademlia", "rpcudp"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            return asyncio.run(_watched(check, side))
        finally:
            for name in ("kademlia", "rpcudp"):
                logging.getLogger(name).setLevel(logging.NOTSET)

    return _test(check, made)


def _test(check: Check, made: Callable[[str], Kept]) -> Callable[[str], None]:
    @pytest.mark.parametrize("side", [STOCK, OURS])
    def test(side: str) -> None:
        kept = made(side)
        cases = kept if isinstance(kept, dict) else {"": kept}
        assert cases == dict.fromkeys(cases, side == OURS), cases

    functools.update_wrapper(test, check, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    del test.__wrapped__  # type: ignore[attr-defined] # whose coroutine pytest-asyncio would take for the test
    return test


async def _watched(check: Check, side: str) -> Kept:
    """The check; of ours no callback and no task may raise. (That stock's do is what some rows are about.)"""
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    result = check(side)
    kept = await result if inspect.isawaitable(result) else result
    await asyncio.sleep(0)
    if side == OURS and unhandled:
        raise AssertionError(f"{len(unhandled)} not handled: {unhandled[0]}") from unhandled[0].get("exception")
    return kept


async def outcome(doing: Awaitable[Any]) -> Any:
    """What it gives, or the exception that it ends with."""
    try:
        return await doing
    except Exception as error:
        return error


async def until(condition: Callable[[], object], within_s: float = 0.3) -> bool:
    """Wait until `condition` holds; whether it came to that."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not condition():
        if loop.time() >= end:
            return False
        await asyncio.sleep(0.005)
    return True


# --- stock in the virtual world ---


class Stock(NamedTuple):
    """A stock server on a host of its own."""

    server: Server
    address: Address
    tap: Tap
    """What it sends and hears."""

    @property
    def table(self) -> StockRoutingTable:
        return self.server.protocol.router

    def seats(self) -> dict[bytes, Address]:
        """Whom its table holds, and where."""
        nodes = [node for bucket in self.table.buckets for node in bucket.nodes.values()]
        return {node.id: Address(node.ip, node.port) for node in nodes}


async def stock_server(
    world: World,
    *,
    node_id: bytes | None = None,
    k: int = 4,
    via: Stock | None = None,
    host: VirtualHost | None = None,
    ip: str | None = None,
    storage: ForgetfulStorage | None = None,
    made: Callable[..., Server] = Server,
) -> Stock:
    """Stock's server, listening; joined through `via` if somebody is named."""
    host = host or world.host(ip)
    tap = Tap(host)
    server = made(ksize=k, node_id=node_id or host.rng.randbytes(20), storage=storage)
    world.enter()
    await server.listen(PORT, host.ip)
    if via is not None:
        await server.bootstrap([tuple(via.address)])
    return Stock(server, Address(host.ip, PORT), tap)


class StockStranger:
    """Somebody who speaks stock's RPC and follows no rule.

    `answers`, if set, is handed the name and the arguments of each request, and what it gives is sent back.
    """

    def __init__(self, world: "World | Loopback", number: int = 1000, ip: str | None = None, port: int = 0) -> None:
        self._rng = random.Random(number)
        self.id = self._rng.randbytes(20)
        self.answers: Callable[[str, list[Any]], Any] | None = None
        self.heard: list[tuple[bytes, Address]] = []
        self.requests: list[tuple[str, list[Any]]] = []
        self._socket = world.host(ip).datagrams.open(Address("0.0.0.0", port), self._on_datagram)

    @property
    def address(self) -> Address:
        return self._socket.address

    def contact(self) -> list[Any]:
        """As it stands in a reply."""
        return [self.id, *self.address]

    def send(self, data: bytes, to: Address) -> None:
        """Anything at all."""
        self._socket.send(data, to)

    def ask(self, to: Address, name: str, *args: Any) -> int:
        """Send a request; gives its size."""
        data = b"\x00" + self._rng.randbytes(20) + umsgpack.packb([name, list(args)])
        self.send(data, to)
        return len(data)

    async def asks(self, to: Address, name: str, *args: Any) -> Any:
        """Send a request and wait for what comes back; `NOTHING` if nothing does."""
        before = len(self.replies)
        self.ask(to, name, *args)
        await until(lambda: len(self.replies) > before)
        return self.replies[before] if len(self.replies) > before else NOTHING

    @property
    def replies(self) -> list[Any]:
        """What was replied to it."""
        return [umsgpack.unpackb(data[21:]) for data, _ in self.heard if data[:1] == b"\x01"]

    def close(self) -> None:
        self._socket.close()

    def _on_datagram(self, data: bytes, source: Address) -> None:
        self.heard.append((data, source))
        if data[:1] != b"\x00":
            return
        name, args = umsgpack.unpackb(data[21:])
        self.requests.append((name, args))
        answer = self.answers(name, args) if self.answers is not None else NOTHING
        if answer is not NOTHING:
            self.send(b"\x01" + data[1:21] + umsgpack.packb(answer), source)


class Loopback:
    """This machine, in place of a `World`."""

    def host(self, _ip: str | None = None) -> Host:
        return Host()


# --- both tables in one vocabulary ---

FAR = 1 << 159
"""The half of all ids that the tables' own ids, which are small, are not in."""


def far(number: int) -> int:
    """Ids so near to each other that neither side parts 0, 1, 4, 5, … of them: the ids that they share begin with 155
    bits, where stock's rule says that a bucket is split no further."""
    return FAR | number << 2


class StockTable:
    """Stock's table, with the protocol that tells it of contacts."""

    def __init__(self, own: int, k: int) -> None:
        self.protocol = KademliaProtocol(Node(own.to_bytes(20, "big")), ForgetfulStorage(), k)
        self.protocol.transport = _Nowhere()
        self.table: StockRoutingTable = self.protocol.router

    def hears(self, long_id: int, port: int = PORT) -> None:
        """A message came from a contact."""
        self.protocol.welcome_if_new(self._node(long_id, port))

    def unanswered(self, long_id: int, port: int = PORT) -> None:
        """A contact did not answer a request."""
        self.protocol.handle_call_response((False, None), self._node(long_id, port))

    def nearest(self, target: int, count: int) -> list[int]:
        return [node.long_id for node in self.table.find_neighbors(self._node(target, 0), count)]

    def port_of(self, long_id: int) -> int | None:
        """Where the contact has its seat; None if it has none."""
        nodes = {node.long_id: node for bucket in self.table.buckets for node in bucket.nodes.values()}
        return nodes[long_id].port if long_id in nodes else None

    def ids(self) -> list[int]:
        return [node.long_id for bucket in self.table.buckets for node in bucket.nodes.values()]

    def index_of(self, long_id: int) -> int | None:
        return self.table.get_bucket_for(self._node(long_id, 0))

    def longest_silent(self, long_id: int) -> int:
        """Who is the first to be pinged of the bucket of this id."""
        return self.table.buckets[self.table.get_bucket_for(self._node(long_id, 0))].head().long_id

    @staticmethod
    def _node(long_id: int, port: int) -> Node:
        return Node(long_id.to_bytes(20, "big"), "10.0.0.1", port)


class OurTable:
    """Ours, told by its inputs; a second passes between any two."""

    def __init__(self, own: int, k: int) -> None:
        self.now = 0.0
        self.table = RoutingTable(contact_at(own), k, DhtConfig(), local=True, now=0.0)

    def hears(self, long_id: int, port: int = PORT) -> None:
        """A contact proved that it is there: what is less is not even told to the table."""
        self.now += 1
        self.table.on_proved(contact_at(long_id, port=port), self.now)

    def unanswered(self, long_id: int, port: int = PORT) -> None:
        self.now += 1
        self.table.on_failure(contact_at(long_id, port=port), self.now)

    def nearest(self, target: int, count: int) -> list[int]:
        return [contact.long_id for contact in self.table.find_neighbors(target, count)]

    def port_of(self, long_id: int) -> int | None:
        seat = self.table.seat_of(long_id.to_bytes(20, "big"))
        return seat.contact.port if seat is not None else None

    def ids(self) -> list[int]:
        return [seat.contact.long_id for seat in self.table]

    def index_of(self, long_id: int) -> int | None:
        return self.table.get_bucket_for(contact_at(long_id))

    def longest_silent(self, long_id: int) -> int:
        nodes = self.table.buckets[self.table.get_bucket_for(contact_at(long_id))].nodes
        return next(iter(nodes.values())).contact.long_id


def table(side: str, own: int = 0, k: int = LOCAL.k) -> StockTable | OurTable:
    """An empty table."""
    return StockTable(own, k) if side == STOCK else OurTable(own, k)


class _Nowhere:
    """A transport that loses everything."""

    def sendto(self, _data: bytes, _address: object) -> None: ...
