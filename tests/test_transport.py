"""Endpoints that are opened through the loop: asyncio's words over a virtual socket."""

import asyncio

import pytest

from atonce_sim.loop import run
from atonce_sim.world import World
from dht_atonce.errors import Escape, PortInUse


class Ear(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.heard: list[tuple[bytes, tuple[str, int]]] = []
        self.transport: asyncio.BaseTransport | None = None
        self.ended = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.append((data, addr))

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended += 1


def test_two_endpoints_talk() -> None:
    async def main() -> None:
        world, loop = World(), asyncio.get_running_loop()
        world.enter()
        one, other = world.host(), world.host()
        ours, ear = await loop.create_datagram_endpoint(Ear, local_addr=(one.ip, 0))
        theirs, other_ear = await loop.create_datagram_endpoint(Ear, local_addr=(other.ip, 7000))
        assert ear.transport is ours
        assert theirs.get_extra_info("sockname") == (other.ip, 7000)
        assert theirs.get_extra_info("peername", "none") == "none"
        ours.sendto(bytearray(b"hello"), (other.ip, 7000))
        await asyncio.sleep(1)
        assert other_ear.heard == [(b"hello", ours.get_extra_info("sockname"))]

    run(main())


def test_a_closed_endpoint_is_told_once_and_neither_sends_nor_hears() -> None:
    async def main() -> None:
        world, loop = World(), asyncio.get_running_loop()
        world.enter()
        host = world.host()
        ours, ear = await loop.create_datagram_endpoint(Ear, local_addr=(host.ip, 7000))
        other, other_ear = await loop.create_datagram_endpoint(Ear, local_addr=(host.ip, 7001))
        other.sendto(b"under way", (host.ip, 7000))
        ours.close()
        ours.abort()
        assert ours.is_closing()
        ours.sendto(b"too late", (host.ip, 7001))
        await asyncio.sleep(1)
        assert (ear.heard, other_ear.heard, ear.ended) == ([], [], 1)
        await loop.create_datagram_endpoint(Ear, local_addr=(host.ip, 7000))  # the port is free again

    run(main())


def test_a_port_in_use_and_a_loop_without_a_world() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(Escape):
            await loop.create_datagram_endpoint(Ear, local_addr=("127.0.0.1", 0))
        world = World()
        world.enter()
        host = world.host()
        await loop.create_datagram_endpoint(Ear, local_addr=(host.ip, 7000))
        with pytest.raises(PortInUse):
            await loop.create_datagram_endpoint(Ear, local_addr=(host.ip, 7000))

    run(main())
