"""What the tests of records and of the DHT share: identities, records, contacts, and nodes in the virtual world."""

import asyncio
import functools
import hashlib
import random
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from atonce_sim.loop import run
from atonce_sim.world import EPOCH, VirtualHost, World
from dht_atonce.codec import decode, encode
from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.datagrams import DatagramNet, DatagramSocket, OnDatagram
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.sealing import Opened, PacketType, Sealer
from dht_atonce.dht.wire import Reply, Request, reply_decoder, request_decoder
from dht_atonce.endpoints import Address, Family
from dht_atonce.errors import WireError
from dht_atonce.identity import Identity, NodeKey
from dht_atonce.records import MembershipRecord, PresenceRecord, ValueRecord

P = ParamSpec("P")

NOW = int(EPOCH)
"""Unix seconds at which all tests take place: when every virtual world begins."""
LIFE = 7200
"""Record life in seconds of the networks below."""
LOCAL = NetworkConfig.local_network("test", k=4)
PUBLIC = NetworkConfig(name="test", k=4)
"""With all limits on; its addresses must be global ones."""
INCARNATION = b"one life"


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in virtual time, where `asyncio.sleep` costs nothing.

    It fails too if a callback or a background task raised: what a stranger sends must not even do that.
    """

    async def main(*args: P.args, **kwargs: P.kwargs) -> None:
        unhandled: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unhandled.append(context))
        await test(*args, **kwargs)
        await asyncio.sleep(0)
        if unhandled:
            raise AssertionError(f"{len(unhandled)} not handled: {unhandled[0]}") from unhandled[0].get("exception")

    @functools.wraps(test)
    def runs(*args: P.args, **kwargs: P.kwargs) -> None:
        run(main(*args, **kwargs))

    return runs


# --- keys, records, contacts ---


@functools.cache
def identity(number: int) -> Identity:
    """One of many identities, always the same for a number."""
    return Identity.generate(random.Random(f"identity {number}"))


@functools.cache
def node_key(number: int) -> NodeKey:
    """One of many node keys, always the same for a number."""
    return NodeKey.generate(random.Random(f"node {number}"))


def presence(
    who: Identity | None = None,
    network: NetworkConfig = LOCAL,
    *,
    seq: int = 1,
    expires: int = NOW + 3600,
    incarnation: bytes = INCARNATION,
    **says: Any,
) -> PresenceRecord:
    """A presence record, of identity 0 if nobody else is named."""
    return PresenceRecord.sign(who or identity(0), network, seq=seq, expires=expires, incarnation=incarnation, **says)


def value_record(
    name: str = "name",
    value: bytes = b"value",
    who: Identity | None = None,
    network: NetworkConfig = LOCAL,
    *,
    seq: int = 1,
    expires: int = NOW + 3600,
    incarnation: bytes = INCARNATION,
) -> ValueRecord:
    """A value record, of identity 0 if nobody else is named."""
    return ValueRecord.sign(
        who or identity(0), network, seq=seq, expires=expires, incarnation=incarnation, name=name, value=value
    )


def membership(
    who: Identity | None = None,
    topic: str = "a room",
    network: NetworkConfig = LOCAL,
    *,
    seq: int = 1,
    expires: int = NOW + 3600,
    incarnation: bytes = INCARNATION,
    **says: Any,
) -> MembershipRecord:
    """A membership record, of identity 0 if nobody else is named."""
    return MembershipRecord.sign(
        who or identity(0), network, seq=seq, expires=expires, incarnation=incarnation, topic=topic, **says
    )


def signed_by_hand(who: Identity, kind: int, payload: bytes, network: NetworkConfig = LOCAL) -> bytes:
    """A record round any payload whatever, as docs/wire.md section 2 says: what a malicious owner can make."""
    signature = who.sign(b"atonce record v1" + bytes([kind]) + network.network_id + payload)
    return bytes([1, kind]) + signature + payload


def public_ip(number: int) -> str:
    """A global IPv4 address; each in a /24 of its own."""
    return f"51.{number >> 8 & 255}.{number & 255}.1"


def contact(number: int, ip: str | None = None, port: int = 4000) -> Contact:
    """One of many contacts, each in a /24 of its own. Nobody has the secret of its key."""
    key = hashlib.blake2b(f"contact {number}".encode(), digest_size=32).digest()
    return Contact(key, Address(ip or public_ip(number), port))


def contact_at(long_id: int, ip: str = "10.0.0.1", port: int = 4000) -> Contact:
    """A contact with a chosen id. Nobody can have that, since an id is a hash; a table's arithmetic does not know."""
    made = Contact(long_id.to_bytes(32, "big"), Address(ip, port))
    object.__setattr__(made, "id", long_id.to_bytes(20, "big"))
    object.__setattr__(made, "long_id", long_id)
    return made


# --- nodes in the virtual world ---


class Tap:
    """A `DatagramNet` that notes what its host sends and hears, and when (seconds)."""

    def __init__(self, host: VirtualHost) -> None:
        self.sent: list[tuple[float, bytes, Address]] = []
        self.heard: list[tuple[float, bytes, Address]] = []
        self._net = host.datagrams
        host.datagrams = self

    def open(self, bind: Address, on_datagram: OnDatagram) -> DatagramSocket:
        def hears(data: bytes, source: Address) -> None:
            self.heard.append((asyncio.get_running_loop().time(), data, source))
            on_datagram(data, source)

        return _TappedSocket(self, self._net.open(bind, hears))


class _TappedSocket:
    def __init__(self, tap: Tap, socket: DatagramSocket) -> None:
        self._tap = tap
        self._socket = socket
        self.address = socket.address

    def send(self, data: bytes, to: Address) -> None:
        self._tap.sent.append((asyncio.get_running_loop().time(), data, to))
        self._socket.send(data, to)

    def close(self) -> None:
        self._socket.close()


class BothFamilies:
    """A `DatagramNet` for a host that has an address in each family: two virtual hosts with one name."""

    def __init__(self, ipv4: DatagramNet, ipv6: DatagramNet) -> None:
        self._nets = {Family.IPV4: ipv4, Family.IPV6: ipv6}

    def open(self, bind: Address, on_datagram: OnDatagram) -> DatagramSocket:
        return self._nets[bind.family].open(bind, on_datagram)


class Stranger:
    """Somebody with a socket and a node key who follows no rule.

    `answers`, if set, is asked for each request that comes, and what it gives is sent back.
    """

    def __init__(
        self, world: World, number: int = 1000, network: NetworkConfig = LOCAL, ip: str | None = None, port: int = 0
    ) -> None:
        self.node_key = node_key(number)
        self.sealer = Sealer(self.node_key, network.network_id, 1000)
        self.heard: list[tuple[bytes, Address]] = []
        self.answers: Callable[[Request, Address], Reply | None] | None = None
        self._rng = random.Random(number)
        self._socket = world.host(ip).datagrams.open(Address("0.0.0.0", port), self._on_datagram)

    @property
    def address(self) -> Address:
        return self._socket.address

    @property
    def contact(self) -> Contact:
        return Contact(self.node_key.public, self.address)

    @property
    def way_in(self) -> tuple[str, int, bytes]:
        """What `bootstrap` takes."""
        return (*self.address, self.node_key.public)

    def send(self, data: bytes, to: Address) -> None:
        """Anything at all."""
        self._socket.send(data, to)

    def ask(self, node: DhtNode, request: Request | bytes, cookie: bytes = b"", min_size: int = 0) -> int:
        """Send a sealed request, or whatever bytes in place of its body. Gives the datagram's size."""
        body = request if isinstance(request, bytes) else encode(request)
        key = node.shared.node_key.public
        sealed = self.sealer.seal(PacketType.REQUEST, key, body, self._rng.randbytes(24), cookie, min_size)
        self.send(sealed, node.addresses[0])
        return len(sealed)

    def reply(self, node: DhtNode, reply: Reply | bytes) -> None:
        """Send a sealed reply, asked for or not, or whatever bytes in place of its body."""
        body = reply if isinstance(reply, bytes) else encode(reply)
        key = node.shared.node_key.public
        self.send(self.sealer.seal(PacketType.REPLY, key, body, self._rng.randbytes(24)), node.addresses[0])

    async def asks(self, node: DhtNode, request: Request, cookie: bytes = b"", min_size: int = 0) -> Reply | None:
        """Send a request and wait for what comes back within a second; None if nothing does."""
        before = len(self.heard)
        self.ask(node, request, cookie, min_size)
        await asyncio.sleep(1)
        replies = [reply for data, _ in self.heard[before:] if (reply := self.read_reply(data)) is not None]
        assert len(replies) <= 1
        return replies[0] if replies else None

    def read_reply(self, data: bytes) -> Reply | None:
        """The reply in a datagram; None if there is none."""
        try:
            opened = self.sealer.open(data)
            return decode(reply_decoder, opened.body) if opened.type is PacketType.REPLY else None
        except WireError:
            return None

    def close(self) -> None:
        self._socket.close()

    def _on_datagram(self, data: bytes, source: Address) -> None:
        self.heard.append((data, source))
        if self.answers is None:
            return
        opened: Opened = self.sealer.open(data)
        if opened.type is PacketType.REQUEST:
            reply = self.answers(decode(request_decoder, opened.body), source)
            if reply is not None:
                nonce = self._rng.randbytes(24)
                self.send(self.sealer.seal(PacketType.REPLY, opened.sender, encode(reply), nonce), source)


async def start_node(
    world: World,
    network: NetworkConfig = LOCAL,
    *,
    via: DhtNode | Stranger | None = None,
    ip: str | None = None,
    tap: bool = False,
    config: DhtConfig | None = None,
    host: VirtualHost | None = None,
    **details: Any,
) -> DhtNode:
    """A node that listens on a host of its own, and has joined through `via` if somebody is named.

    With `tap`, its `shared.host.datagrams` is a `Tap`.
    """
    host = host or world.host(ip)
    if tap:
        Tap(host)
    node = DhtNode(host=host, network=network, config=config, **details)
    await node.listen(interface="::" if ":" in host.ip else "0.0.0.0")
    if via is not None:
        # Where packets are lost, a way in is tried again, as Peer does.
        for _ in range(5 if world.loss else 1):
            if await node.bootstrap([way_in(via) if isinstance(via, DhtNode) else via.way_in]):
                break
    return node


async def start_nodes(world: World, count: int, network: NetworkConfig = LOCAL, **details: Any) -> list[DhtNode]:
    """So many nodes in one network; each joined through one of those that came before."""
    rng = random.Random(world.seed)
    nodes: list[DhtNode] = []
    for number in range(count):
        ip = None if network.local else public_ip(number)
        via = rng.choice(nodes) if nodes else None
        nodes.append(await start_node(world, network, via=via, ip=ip, **details))
    return nodes


def way_in(node: DhtNode) -> tuple[str, int, bytes]:
    """What `bootstrap` takes to join through `node`."""
    return (*node.addresses[0], node.shared.node_key.public)


def contact_of(node: DhtNode) -> Contact:
    return Contact(node.shared.node_key.public, node.addresses[0])


def tap_of(node: DhtNode) -> Tap:
    """The tap of a node that was started with one."""
    assert isinstance(node.shared.host.datagrams, Tap)
    return node.shared.host.datagrams


async def close(*nodes: DhtNode) -> None:
    for node in nodes:
        await node.aclose()


def tasks_left() -> list[str]:
    """Names of the tasks that still run beside the test's own."""
    return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
