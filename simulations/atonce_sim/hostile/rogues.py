"""The members of a gang: nodes as they run in production, of which only what they answer is another's."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from atonce_sim.hostile.gang import Gang, Plan
from atonce_sim.node_residents import NodeResident
from atonce_sim.residents import Resident
from atonce_sim.world import VirtualHost
from dht_atonce.datagrams import DatagramNet, DatagramSocket, OnDatagram
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.operations import Asked, Operations
from dht_atonce.dht.protocol import SealedProtocol
from dht_atonce.dht.sealing import PacketType
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.wire import Ping, Reply, Stored, StoreOutcome
from dht_atonce.endpoints import Address, Family
from dht_atonce.errors import RecordError
from dht_atonce.identity import NodeKey
from dht_atonce.records import RecordParser

__all__ = ["Puppet", "Rogue", "RogueNode"]

_REPLIES = (PacketType.REPLY, PacketType.COOKIE)


class Rogue(Protocol):
    """One hostile member."""

    host: VirtualHost
    is_up: bool

    @property
    def node_id(self) -> bytes:
        """`NodeId`, 20 B."""

    @property
    def contact(self) -> Contact:
        """Where it is asked."""

    @property
    def protocol(self) -> SealedProtocol:
        """Asks in its name."""

    def honest(self, asked: Asked, wall: float) -> Reply:
        """What an honest node in its place would answer."""

    def taken(self, asked: Asked, wall: float) -> Reply:
        """An answer to STORE that says "stored", whatever becomes of the record; the gang sees it, nobody keeps it."""

    def stop(self) -> None:
        """Close its socket."""


class _Mouth:
    """A host's datagrams; what its nodes would rather not answer does not leave it."""

    def __init__(self, net: DatagramNet) -> None:
        self._net = net
        self.is_shut = False

    def open(self, bind: Address, on_datagram: OnDatagram) -> DatagramSocket:
        def hears(data: bytes, source: Address) -> None:
            self.is_shut = False
            on_datagram(data, source)
            self.is_shut = False

        return _Lips(self, self._net.open(bind, hears))


class _Lips:
    def __init__(self, mouth: _Mouth, socket: DatagramSocket) -> None:
        self._mouth = mouth
        self._socket = socket
        self.address = socket.address

    def send(self, data: bytes, to: Address) -> None:
        if not (self._mouth.is_shut and data[1] in _REPLIES):
            self._socket.send(data, to)

    def close(self) -> None:
        self._socket.close()


class _Mask:
    """Stands in a protocol where its `Operations` stood, and asks the plan what to answer."""

    def __init__(self, me: "RogueNode | Puppet", operations: Operations, mouth: _Mouth) -> None:
        self._me = me
        self._operations = operations
        self._mouth = mouth

    def answer(self, asked: Asked, wall: float) -> Reply:
        me = self._me
        if not me.gang.is_awake:
            return self._operations.answer(asked, wall)
        reply = me.plan.answer(me, asked, wall)
        if reply is None:
            self._mouth.is_shut = True  # until this datagram has been dealt with
            return self._operations.answer(
                msgspec.structs.replace(asked, request=Ping(0, asked.request.request_id, 0)), wall
            )
        return reply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operations, name)


class _Masked:
    """What both sorts of member share."""

    gang: Gang
    plan: Plan
    host: VirtualHost
    protocol: SealedProtocol
    _operations: Operations

    def mask(self, protocol: SealedProtocol, mouth: _Mouth) -> None:
        """From now on the plan answers in its place."""
        assert isinstance(self, RogueNode | Puppet)
        self.protocol = protocol
        self._operations = protocol.operations
        protocol.operations = _Mask(self, self._operations, mouth)  # type: ignore[assignment] # all that is asked of it

    def honest(self, asked: Asked, wall: float) -> Reply:
        return self._operations.answer(asked, wall)

    def taken(self, asked: Asked, wall: float) -> Reply:
        pong = self._operations.answer(
            msgspec.structs.replace(asked, request=Ping(0, asked.request.request_id, 0)), wall
        )
        head = msgspec.structs.asdict(pong)  # a PONG is nothing else
        record = getattr(asked.request, "record", b"")
        try:
            parsed = RecordParser(self.gang.network, self.host.memo).parse(record, wall)
        except RecordError:
            return self.honest(asked, wall)
        self.gang.on_record(parsed.key, record)
        return Stored(**head, outcome=StoreOutcome.STORED, record=b"")


class RogueNode(_Masked, NodeResident):
    """A whole node: it joins, keeps its tables and its place as any other does, and publishes nothing."""

    def __init__(self, gang: Gang, plan: Plan, host: VirtualHost, node_key: NodeKey) -> None:
        super().__init__(gang.world, host, gang.network, node_key=node_key)
        self.gang = gang
        self.plan = plan
        self._mouth = _Mouth(host.datagrams)
        host.datagrams = self._mouth

    async def start(self, entries: Sequence[Resident]) -> None:
        await self._enter(entries)

    def on_listening(self, node: DhtNode) -> None:
        (server,) = node.servers.values()
        self.mask(server.protocol, self._mouth)

    def stop(self) -> None:
        self.is_up = False
        if self.node is not None:
            self.node.stop()


class Puppet(_Masked):
    """A key and a socket, and no life of its own: for gangs of very many ids."""

    def __init__(self, gang: Gang, plan: Plan, host: VirtualHost, node_key: NodeKey) -> None:
        self.gang = gang
        self.plan = plan
        self.host = host
        self.is_up = True
        self._node_key = node_key
        mouth = host.datagrams if isinstance(host.datagrams, _Mouth) else _Mouth(host.datagrams)
        host.datagrams = mouth
        protocol = SealedProtocol(Shared(host, gang.network, node_key), Family.IPV4, {})
        self._port = protocol.open(Address("0.0.0.0", 0)).port  # noqa: S104 # all of its made-up machine
        self.mask(protocol, mouth)

    @property
    def node_id(self) -> bytes:
        return self._node_key.id

    @property
    def contact(self) -> Contact:
        return Contact(self._node_key.public, Address(self.host.ip, self._port))

    def stop(self) -> None:
        self.is_up = False
        self.protocol.close()
