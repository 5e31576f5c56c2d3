"""What one process runs: a node on loopback, told by JSON lines what to do. It ends when nobody tells it any more."""

import asyncio
import os
import random
import socket

import msgspec

from atonce_sim.reality.member import Member
from atonce_sim.reality.procedure import Lookup, Plan
from dht_atonce.datagrams import DatagramSocket, OnDatagram, UdpNet
from dht_atonce.dht.contact import Contact
from dht_atonce.endpoints import Address
from dht_atonce.errors import AtOnceError
from dht_atonce.host import Host

__all__ = ["MAX_LINE", "Answer", "BeginMeasuring", "Command", "Find", "Start", "TellRoundTrips", "Where", "become_node"]

_LOOPBACK = "127.0.0.1"
MAX_LINE = 4 << 20  # bytes; the longest is a list of round trips

Where = tuple[bytes, str, int]
"""A contact: node key, IP, port."""


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Come in and publish. Answered with `where`."""

    plan: Plan
    number: int
    entries: list[Where]


class Find(msgspec.Struct, frozen=True, tag="find"):
    """Look up a presence. Answered with `lookup`."""

    key: bytes


class BeginMeasuring(msgspec.Struct, frozen=True, tag="measure"):
    """Round trips count from now on."""


class TellRoundTrips(msgspec.Struct, frozen=True, tag="round trips"):
    """Answered with `round_trips_s`."""


Command = Start | Find | BeginMeasuring | TellRoundTrips


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """To one command."""

    error: str = ""
    """What went wrong; all else is empty then."""
    pid: int = 0
    where: Where | None = None
    lookup: Lookup | None = None
    round_trips_s: list[float] = []


def become_node(channel: socket.socket) -> None:
    """Run a node until `channel` is closed at the other end."""
    asyncio.run(_serve(channel))


async def _serve(channel: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=channel, limit=MAX_LINE)
    commands = msgspec.json.Decoder(Command)
    node = _Node()
    try:
        while line := await reader.readline():
            try:
                answer = await node.do(commands.decode(line))
            except AtOnceError as error:
                answer = Answer(error=str(error))
            writer.write(msgspec.json.encode(answer) + b"\n")
            await writer.drain()
    finally:
        await node.aclose()
        writer.close()


class _LongWay:
    """Real UDP, but what is sent leaves later: after anything between nothing and twice the mean."""

    def __init__(self, mean_s: float, rng: random.Random) -> None:
        self._net = UdpNet()
        self._mean_s = mean_s
        self._rng = rng

    def open(self, bind: Address, on_datagram: OnDatagram) -> DatagramSocket:
        return _LongWaySocket(self._net.open(bind, on_datagram), self._mean_s, self._rng)


class _LongWaySocket:
    def __init__(self, socket: DatagramSocket, mean_s: float, rng: random.Random) -> None:
        self._socket = socket
        self._mean_s = mean_s
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self.address = socket.address

    def send(self, data: bytes, to: Address) -> None:
        self._loop.call_later(self._rng.uniform(0, 2 * self._mean_s), self._socket.send, data, to)

    def close(self) -> None:
        self._socket.close()


class _Node:
    """The member that lives here, once it was started."""

    def __init__(self) -> None:
        self._member: Member | None = None

    async def do(self, command: Command) -> Answer:
        if isinstance(command, Start):
            identity, node_key = command.plan.keys(command.number)
            host = Host()
            if command.plan.way_ms:
                host.datagrams = _LongWay(command.plan.way_ms / 1000, host.rng)
            self._member = Member(host, command.plan.network, identity, node_key)
            entries = [Contact(key, Address(ip, port)) for key, ip, port in command.entries]
            contact = await self._member.start(_LOOPBACK, entries)
            return Answer(pid=os.getpid(), where=(contact.key, *contact.address))
        assert self._member is not None, "it was not started"
        match command:
            case Find():
                return Answer(lookup=await self._member.find(command.key))
            case BeginMeasuring():
                self._member.forget_round_trips()
                return Answer()
            case TellRoundTrips():
                return Answer(round_trips_s=self._member.round_trips_s)

    async def aclose(self) -> None:
        if self._member is not None:
            await self._member.aclose()
