"""How stock begins, saves and ends, each beside ours. docs/security.md has the rows."""

import asyncio
import pickle
import random
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from defects_support import (
    STOCK,
    Kept,
    Loopback,
    StockStranger,
    outcome,
    promise,
    promise_on_sockets,
    stock_server,
    until,
)
from kademlia.network import Server
from kademlia.node import Node
from support import LOCAL, Stranger, contact, contact_of, start_node, tasks_left
from support_peers import Village

from atonce_sim.world import World
from dht_atonce.dht.node import DhtNode
from dht_atonce.disk import FolderDisk, MemoryDisk
from dht_atonce.endpoints import Address
from dht_atonce.errors import ProfileError
from dht_atonce.host import Host
from dht_atonce.identity import node_id
from dht_atonce.profile import Profile

SILENT = Node(b"n" * 20, "10.99.0.1", 4000)
"""A contact of stock's that does not answer."""


@promise_on_sockets
async def test_an_id_comes_from_a_key_and_no_chance_that_can_be_guessed(side: str) -> Kept:
    before = random.getstate()
    ids = []
    try:
        for _ in range(2):
            random.seed(7)  # as whoever has seen enough of its output can
            if side == STOCK:
                ids.append(Server().node.id)
            else:
                key = DhtNode().shared.node_key
                assert key.id == node_id(key.public)
                ids.append(key.id)
    finally:
        random.setstate(before)
    return ids[0] != ids[1]


# --- the end ---


@promise
async def test_after_the_end_nothing_waits_and_nothing_runs(side: str) -> Kept:
    world = World()
    loop = world.loop
    if side == STOCK:
        stock = await stock_server(world)
        stock.server.protocol.welcome_if_new(SILENT)
        calls = [asyncio.ensure_future(stock.server.get("name")), asyncio.ensure_future(stock.server._refresh_table())]
        await asyncio.sleep(0.1)
        stock.server.stop()
    else:
        node = await start_node(world)
        next(iter(node.servers.values())).router.on_proved(Stranger(world).contact, 0.0)
        calls = [asyncio.ensure_future(node.find(bytes(20))), asyncio.ensure_future(node.refresh(bytes(20)))]
        await asyncio.sleep(0.1)
        await node.aclose()
    for _ in range(10):
        await asyncio.sleep(0)
    ended = all(call.done() for call in calls)
    for call in calls:
        call.cancel()
    return {"calls": ended, "tasks and timers": not tasks_left() and not loop.pending()}


# --- what is done again and again ---


class FullDisk(MemoryDisk):
    """A disk that is full at times."""

    is_full = False

    def write(self, name: str, data: bytes) -> None:
        if self.is_full:
            raise ProfileError("no space left")
        super().write(name, data)


@promise
async def test_one_error_does_not_end_what_is_done_regularly(side: str) -> Kept:
    world = World()
    if side == STOCK:
        first = await stock_server(world)
        stock = await stock_server(world, via=first)
        with (
            TemporaryDirectory() as folder,
            mock.patch("pickle.dump", side_effect=[None, OSError(), None, None]) as dump,
        ):
            stock.server.save_state_regularly(f"{folder}/state", frequency=30)
            await asyncio.sleep(100)
            return dump.call_count > 2
    async with Village(world) as village:
        await village.open_seed()
        await village.open_peer()
        host, disk = world.host(), FullDisk()
        host.disk = lambda _path: disk
        peer = await village.open_peer(Path("profile"), host=host)
        disk.is_full = True
        await village.open_peer()
        await asyncio.sleep(100)
        refused = peer.counters["profile.not_saved"]
        disk.is_full = False
        before = dict(disk.files)
        await asyncio.sleep(100)
        return refused > 1 and disk.files != before


# --- what is saved ---


class Payload:
    """What a pickle does to whoever reads it."""

    ran = 0

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return (run_payload, ())


def run_payload() -> None:
    Payload.ran += 1


@promise_on_sockets
async def test_saved_state_runs_no_code_survives_a_crash_and_keeps_keys(side: str) -> Kept:
    Payload.ran = 0
    with TemporaryDirectory() as folder:
        return await (stock_state if side == STOCK else our_state)(Path(folder) / "profile")


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


async def stock_state(path: Path) -> dict[str, bool]:
    async def load() -> Any:
        return await outcome(Server.load_state(path, 0, "127.0.0.1"))

    write(path, pickle.dumps(Payload()))
    await load()
    runs = Payload.ran
    server = Server()
    await server.listen(0, "127.0.0.1")
    server.protocol.router.add_contact(SILENT)
    server.save_state(path)
    whole = read(path)
    with mock.patch("pickle.dump", side_effect=OSError("no space left")):
        await outcome(asyncio.to_thread(server.save_state, path))
    survives = read(path) == whole
    write(path, whole[:20])
    damaged = await load()
    saved = pickle.loads(whole)
    server.stop()
    return {
        "no code": not runs,
        "the old one after a crash": survives,
        "damage is said": path.name in str(damaged),
        "keys": SILENT.id in str(saved["neighbors"]).encode(),
    }


async def our_state(path: Path) -> dict[str, bool]:
    async def load() -> Any:
        return await outcome(asyncio.to_thread(Profile.open, path, Host()))

    profile = Profile.open(path, Host())
    profile.state.contacts = (friend := contact(1),)
    await profile.save()
    profile.close()
    state = path / "state"
    whole = read(state)
    with mock.patch("os.fsync", side_effect=OSError("no space left")):
        disk = FolderDisk(path)
        with pytest.raises(ProfileError):
            disk.write("state", b"another")
        disk.close()
    survives = read(state) == whole
    again = await load()
    kept = again.state.contacts == (friend,) and again.state.contacts[0].key == friend.key
    again.close()
    write(state, whole[:20])
    damaged = await load()
    write(state, pickle.dumps(Payload()))
    pickled = await load()
    return {
        "no code": isinstance(pickled, ProfileError) and not Payload.ran,
        "the old one after a crash": survives,
        "damage is said": state.name in str(damaged),
        "keys": kept,
    }


# --- address families ---


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@promise_on_sockets
async def test_a_node_in_both_families_reaches_ipv4_and_calls_it_by_its_name(side: str) -> Kept:
    if side == STOCK:
        server, other = Server(ksize=4), StockStranger(Loopback())
        await server.listen(0, "::")
        port = server.transport.get_extra_info("sockname")[1]
        calling = asyncio.ensure_future(server.protocol.ping(("127.0.0.1", other.address.port), b"i" * 20))
        reached = await until(lambda: other.requests)
        other.ask(Address("127.0.0.1", port), "ping", b"s" * 20)
        await until(lambda: other.replies)
        calling.cancel()
        seats = [node.ip for bucket in server.protocol.router.buckets for node in bucket.nodes.values()]
        server.stop()
        other.close()
        return {"reached": reached, "its name": seats == ["127.0.0.1"]}
    node, friend = DhtNode(network=LOCAL), DhtNode(network=LOCAL)
    port = (await node.listen(0, "::1")).port
    await node.listen(port, "127.0.0.1")
    await friend.listen(0, "127.0.0.1")
    reached = await node.prove_address(contact_of(friend))
    seats = [seat.ip for seat in friend.live_contacts(9)]
    await node.aclose()
    await friend.aclose()
    return {"reached": reached, "its name": seats == ["127.0.0.1"]}
