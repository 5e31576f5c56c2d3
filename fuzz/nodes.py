"""Datagrams: a node in a world of its own, and a stranger who has a key.

What an input sets off later is run too, and what it raises there counts.
"""

import asyncio
import itertools
import random
import zlib
from typing import Any

from atonce_sim.loop import VirtualLoop
from atonce_sim.world import World
from dht_atonce.codec import encode
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.cookies import CookieIssuer
from dht_atonce.dht.crawl import Crawl
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.sealing import PacketType, Sealer
from dht_atonce.dht.wire import FindNode, FindValue, Found, Ping, Pong, Store, Stored
from dht_atonce.endpoints import Address, pack_address
from dht_atonce.errors import (
    WireError,
)
from dht_atonce.identity import NodeKey
from fuzz.seeds import NETWORK, NOW, Target, identity, presence, value, vectors

__all__ = ["REQUESTS", "FuzzedNode", "datagram", "reply", "request"]

ID = b"requestI"
_TURN = 64  # inputs between two turns of the loop: timers and answers cost more than the input itself


class FuzzedNode:
    """A node in a world of its own, fed by hand: anything may be put into its hands."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(self._on_unhandled)
        self.unhandled: list[dict[str, Any]] = []
        self.world = World(1)
        self.stranger = Contact(NodeKey.generate(random.Random(2)).public, Address("10.0.0.9", 4000))
        self.sealer = Sealer(NodeKey.generate(random.Random(2)), NETWORK.network_id, 10)
        self.node = self.loop.run_until_complete(self._start())
        self.server = next(iter(self.node.servers.values()))
        self.key = self.node.shared.node_key.public
        self._fed = 0
        self._cookies: CookieIssuer = self.node.shared.cookies

    async def _start(self) -> DhtNode:
        node = DhtNode(identity(50), host=self.world.host(), network=NETWORK)
        await node.listen()
        for number in range(30):
            key = NodeKey.generate(random.Random(f"node {number}")).public
            server = next(iter(node.servers.values()))
            server.router.on_proved(Contact(key, Address(f"10.1.{number}.1", 4000)), 0.0)
        node.shared.store.keep(value(), NOW)
        return node

    def receive(self, datagram: bytes) -> None:
        """A datagram comes from the stranger's address."""
        self.loop.run_until_complete(self._hear(datagram))
        self._fed += 1
        if self._fed % _TURN == 0:
            self.loop.run_until_complete(asyncio.sleep(0.05))
        self.check()

    async def _hear(self, datagram: bytes) -> None:
        self.server.protocol.datagram_received(datagram, self.stranger.address)

    def seal(self, kind: PacketType, body: bytes, *, proved: bool = False) -> bytes | None:
        """A datagram of the stranger's; None if there is no room for the body."""
        shared = self.node.shared
        where = pack_address(self.stranger.address)
        cookie = self._cookies.issue(where, self.stranger.key, shared.now()) if proved else b""
        try:
            return self.sealer.seal(kind, self.key, body, bytes(24), cookie)
        except WireError:
            return None

    def close(self) -> None:
        """End the node and its loop."""
        self.loop.run_until_complete(self.node.aclose())
        self.loop.close()

    def check(self) -> None:
        """Raise what was raised behind our back."""
        if self.unhandled:
            context = self.unhandled.pop()
            raise context.get("exception") or AssertionError(context["message"])

    def _on_unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.unhandled.append(context)


REQUESTS = [
    Ping(0, ID, 0),
    FindNode(0, ID, 0, bytes(20), 3),
    FindValue(0, ID, 1, value().key, 0),
    Store(0, ID, 0, presence().blob),
]


def datagram() -> Target:
    node = FuzzedNode()
    sealed = [node.seal(PacketType.REQUEST, encode(request), proved=True) for request in REQUESTS]
    cookie = bytes([1, PacketType.COOKIE]) + bytes(40)
    corpus = [data for data in sealed if data is not None] + vectors("datagrams", "datagram", "request", "reply")
    return Target(node.receive, [*corpus, cookie], node.close)


def request() -> Target:
    node = FuzzedNode()

    def feed(body: bytes) -> None:
        datagram = node.seal(PacketType.REQUEST, body, proved=zlib.crc32(body) & 1 == 1)
        if datagram is not None:
            node.receive(datagram)

    return Target(
        feed, [encode(request) for request in REQUESTS] + vectors("bodies", "body", within="requests"), node.close
    )


_PING, _STORE, _LOOKUP = b"the ping", b"a store.", b"a lookup"


def reply() -> Target:
    """Answers to a ping, a store and a lookup that wait for one; the bytes of the request id are put right.

    Which of the three, an input's own bytes say: so it does alone what it did among others.
    """
    node = FuzzedNode()
    protocol = node.server.protocol
    others = itertools.count(1 << 32)
    ours = [b""]
    crawls: list[Crawl] = []

    def request_id() -> bytes:
        # The first request of a turn is the one that inputs answer; whom a lookup asks next is another's.
        return ours.pop() if ours else next(others).to_bytes(8, "big")

    protocol.request_id = request_id  # type: ignore[method-assign]

    async def ask(kind: bytes) -> None:
        ours[:] = [kind]
        if kind == _PING:
            protocol.ping(node.stranger, lambda _: None)
        elif kind == _STORE:
            protocol.store(node.stranger, value().blob, lambda _: None)
        else:
            for crawl in crawls:
                crawl.stop()
            crawls[:] = [node.server.crawl(value().key, start=[node.stranger], wants_record=True, want=2)]

    def feed(body: bytes) -> None:
        kind = (_PING, _STORE, _LOOKUP, _LOOKUP)[zlib.crc32(body) % 4]
        if kind not in protocol._outstanding:
            node.loop.run_until_complete(ask(kind))
        if body[3:5] == b"\xc4\x08":
            body = body[:5] + kind + body[13:]
        datagram = node.seal(PacketType.REPLY, body)
        if datagram is not None:
            node.receive(datagram)

    head = (0, ID, 0, bytes(16), pack_address(Address("10.0.0.9", 4000)), NOW * 1000)
    contacts = [node.stranger.packed, bytes(range(32)) + pack_address(Address("10.5.5.5", 4000))]
    replies = [Found(*head, contacts, [], value().blob), Found(*head, contacts, [], b""), Pong(*head)]
    stored = Stored(*head, 1, value().blob)
    return Target(
        feed, [encode(reply) for reply in [*replies, stored]] + vectors("bodies", "body", within="replies"), node.close
    )
