"""A laptop that sleeps, moves, loses its network and comes back; and one that does nothing, and should cost nothing."""

import asyncio
import random
from typing import Any

import pytest
from support_peers import NETWORK, Village, host_of, listener, now, seated, until, virtual

from atonce_sim.world import VirtualHost, World
from dht_atonce.config import NetworkConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import AtOnceError
from dht_atonce.host import SystemRoutes
from dht_atonce.peer import Peer

HOUR = 3600.0


async def with_laptop(village: Village, others: int, **options: Any) -> tuple[Peer, VirtualHost, list[Peer]]:
    """A settled network, and a laptop in it."""
    await village.open_seed()
    peers = [await village.open_peer() for _ in range(others)]
    host = village.world.host()
    laptop = await host.start(village.open_peer(host=host, **options))
    await asyncio.sleep(60)
    return laptop, host, peers


async def finds(by: Peer, who: Peer, ip: str) -> bool:
    """Whether the network at large, not just `by`'s store, says that `who` is at `ip`."""
    try:
        record = await by.lookup(who.id, fresh=True)
    except AtOnceError:
        return False
    return [address.ip for address in record.endpoints] == [ip]


async def is_back(laptop: Peer, host: VirtualHost, other: Peer, newer_than: int) -> None:
    """Wait until others find the laptop's new record at its address, and it finds them."""
    for _ in range(2000):
        await asyncio.sleep(0.05)
        is_found = await finds(other, laptop, host.ip) and (await other.lookup(laptop.id, fresh=True)).seq > newer_than
        if is_found and await host.start(finds(laptop, other, host_of(other))):
            return
    raise AssertionError("it does not come back")


def seq_of(laptop: Peer) -> int:
    assert laptop.record is not None
    return laptop.record.seq


# --- sleep ---


@pytest.mark.parametrize("others", [1, 3, 12])
@pytest.mark.parametrize("ip", [None, "10.9.9.9"], ids=["the same address", "another address"])
def test_a_laptop_that_slept_an_hour_is_back_within_three_seconds(others: int, ip: str | None) -> None:
    async def main() -> None:
        async with Village() as village:
            laptop, host, peers = await with_laptop(village, others)
            before = seq_of(laptop)
            village.world.sleep(host)
            await asyncio.sleep(HOUR)
            assert seq_of(laptop) == before  # nothing ran
            village.world.wake(host, ip)
            async with asyncio.timeout(3):
                await is_back(laptop, host, peers[0], before)
            got = await listener(laptop)
            await peers[-1].send(laptop.id, b"good morning")
            assert [message.data for message in got] == [b"good morning"]
            assert [details["after"] for details in village.events[laptop].of("back")] == ["moved" if ip else "woke"]

    virtual(main())


@pytest.mark.parametrize("ip", [None, "10.9.9.9"], ids=["the same address", "another address"])
def test_it_is_so_although_half_of_those_whom_it_knew_died_meanwhile(ip: str | None) -> None:
    async def main() -> None:
        async with Village() as village:
            laptop, host, peers = await with_laptop(village, 16)
            village.world.sleep(host)
            await asyncio.sleep(600)
            dead = random.Random(1).sample(peers, 8)
            village.crash(village.seed, *dead)
            await asyncio.sleep(600)
            before = seq_of(laptop)
            village.world.wake(host, ip)
            alive = next(peer for peer in peers if peer not in dead)
            async with asyncio.timeout(3):
                await is_back(laptop, host, alive, before)

    virtual(main())


def test_whoever_has_nobody_left_comes_in_by_the_seed() -> None:
    async def main() -> None:
        async with Village() as village:
            laptop, host, peers = await with_laptop(village, 4)
            village.world.sleep(host)
            await asyncio.sleep(HOUR)
            village.crash(*peers)
            late = [await village.open_peer() for _ in range(3)]
            await asyncio.sleep(60)
            before = seq_of(laptop)
            village.world.wake(host)
            began = now()
            await is_back(laptop, host, late[0], before)
            assert now() - began < 10
            assert laptop.entry is not None
            assert laptop.entry.way == "seed"

    virtual(main())


def test_short_naps_and_slow_moments_do_not_matter() -> None:
    async def main() -> None:
        async with Village() as village:
            laptop, host, _ = await with_laptop(village, 3)
            for _ in range(10):
                village.world.sleep(host)
                await asyncio.sleep(2)
                village.world.wake(host)
                await asyncio.sleep(5)
            assert "doubt" not in village.events[laptop].names

    virtual(main())


# --- another network ---


def test_another_address_is_noticed_and_published_within_seconds() -> None:
    async def main() -> None:
        async with Village() as village:
            laptop, host, peers = await with_laptop(village, 10)
            before = seq_of(laptop)
            village.world.move(host, "10.9.9.9")
            began = now()
            await is_back(laptop, host, peers[0], before)
            assert now() - began < 6
            # It has its seats, at the new address, with those who are near it.
            await until(lambda: sum(host.ip in {c.ip for c in seated(peer)} for peer in peers) >= 8, within_s=5)

    virtual(main())


def test_a_newcomer_finds_a_small_network_all_of_which_has_moved_since_its_seed_saw_it() -> None:
    # The two know each other, so they need no seed; but nobody else would ever find them again.
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            hosts = [village.world.host(), village.world.host()]
            peers = [await host.start(village.open_peer(host=host)) for host in hosts]
            await asyncio.sleep(60)
            for number, host in enumerate(hosts):
                village.world.move(host, f"10.9.9.{number}")
                await asyncio.sleep(60)
            newcomer = await village.open_peer(keep_trying=True)
            await until(lambda: newcomer.node.known_nodes == 2, within_s=10)
            assert all([await newcomer.lookup(peer.id) for peer in peers])

    virtual(main())


def test_a_network_that_went_away_and_came_back_is_noticed() -> None:
    async def main() -> None:
        async with Village() as village:
            laptop, host, _ = await with_laptop(village, 5)

            class Gone:
                def source(self, to: Address) -> str | None:
                    return None

            routes, host.routes = host.routes, Gone()
            await asyncio.sleep(30)
            assert "doubt" not in village.events[laptop].names  # there is no way to ask anybody
            host.routes = routes
            await asyncio.sleep(5)
            assert village.events[laptop].of("back") == [{"after": "moved", "answered": 5}]

    virtual(main())


def test_whoever_is_seen_elsewhere_says_so() -> None:
    async def main() -> None:
        async with Village() as village:
            laptop, host, peers = await with_laptop(village, 5)
            for port in laptop._membership._ports:  # a router gave us another address outside
                port.move("10.8.8.8")  # type: ignore[attr-defined]
            await asyncio.sleep(10)
            assert await finds(peers[0], laptop, "10.8.8.8")
            assert "doubt" not in village.events[laptop].names
            assert host.ip != "10.8.8.8"

    virtual(main())


@pytest.mark.parametrize("away_s", [60.0, 600.0])
def test_when_the_network_comes_back_so_does_everybody(away_s: float) -> None:
    async def main() -> None:
        async with Village() as village:
            laptop, host, peers = await with_laptop(village, 8)
            village.world.unreachable.update([host_of(peer) for peer in [*peers, laptop]])
            await laptop.find(peers[0].id, fresh=True)  # nobody answers
            await asyncio.sleep(away_s)
            before = seq_of(laptop)
            village.world.unreachable.clear()
            began = now()
            await is_back(laptop, host, peers[0], before)
            assert now() - began < 45
            pauses = [details["again_s"] for details in village.events[laptop].of("still_alone")]
            assert max(pauses) <= 300

    virtual(main())


# --- rest ---


def test_an_idle_peer_says_little() -> None:
    async def main() -> None:
        async with Village() as village:
            laptop, host, _ = await with_laptop(village, 10)
            sent, events = host.bytes_sent, len(village.events[laptop].all)
            await asyncio.sleep(HOUR)
            assert len(village.events[laptop].all) == events
            assert (host.bytes_sent - sent) / HOUR < 50  # bytes a second

    virtual(main())


def test_it_works_on_the_open_internet_too() -> None:
    async def main() -> None:
        network = NetworkConfig("test", k=4)
        village = Village(World(1), network)
        async with village:
            await village.open_seed(host=village.world.host("51.0.0.1"))
            peers = [await village.open_peer(host=village.world.host(f"51.0.{n}.1")) for n in range(1, 12)]
            host = village.world.host("51.1.1.1")
            laptop = await host.start(village.open_peer(host=host))
            await asyncio.sleep(60)
            before = seq_of(laptop)
            village.world.sleep(host)
            await asyncio.sleep(HOUR)
            village.world.wake(host, "51.2.2.2")
            async with asyncio.timeout(3):
                await is_back(laptop, host, peers[0], before)

    virtual(main())


def test_the_kernel_says_which_address_it_would_use() -> None:
    assert SystemRoutes().source(Address("127.0.0.1", 4000)) == "127.0.0.1"
    assert SystemRoutes().source(Address("127.0.0.1", 70000)) is None
    assert NETWORK.local
