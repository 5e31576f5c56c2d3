"""The virtual world: its clock, its network, and that one number replays a run."""

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support_peers import Village, identity, listener, now, virtual

from atonce_sim.loop import VirtualLoop, run
from atonce_sim.world import EPOCH, World
from dht_atonce.endpoints import Address
from dht_atonce.errors import Deadlock, LinkError, LinkRefused, MessageTooLarge, PortInUse
from dht_atonce.links import Link, LinkPort

HERE = Path(__file__).resolve().parent
Heard = list[tuple[float, bytes]]


# --- the clock ---


def test_a_day_passes_at_once() -> None:
    async def main() -> float:
        await asyncio.sleep(86_400 * 3)
        return now()

    began = time.monotonic()
    assert run(main()) == pytest.approx(3 * 86_400)
    assert time.monotonic() - began < 5


def test_time_begins_at_zero_and_work_takes_none() -> None:
    async def main() -> None:
        assert now() == 0.0
        for _ in range(100):
            await asyncio.sleep(0)
        assert now() == 0.0

    run(main())


def test_timers_go_off_in_their_order_at_their_time() -> None:
    async def main() -> list[tuple[str, float]]:
        loop, rung = asyncio.get_running_loop(), []
        for name, at in [("late", 5.0), ("early", 1.0), ("between", 2.5)]:
            loop.call_later(at, lambda name=name: rung.append((name, now())))
        await asyncio.sleep(10)
        return rung

    assert run(main()) == [("early", 1.0), ("between", 2.5), ("late", 5.0)]


def test_a_timer_set_while_another_rings_waits_its_turn() -> None:
    async def main() -> list[float]:
        rung: list[float] = []

        def ring(left: int) -> None:
            rung.append(now())
            if left:
                asyncio.get_running_loop().call_later(0.25, ring, left - 1)

        ring(4)
        await asyncio.sleep(1.5)
        return rung

    assert run(main()) == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])


def test_timeouts_work_as_ever() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return now()

    assert run(main()) == pytest.approx(30)


def test_a_deadlock_names_those_who_wait() -> None:
    async def for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        tasks = [asyncio.create_task(for_ever(), name=name) for name in ("the writer", "the reader")]
        await asyncio.gather(*tasks)

    with pytest.raises(Deadlock, match=r"nothing is scheduled.*the reader, the writer"):
        run(main())


def test_there_are_no_threads_and_no_dns() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="no threads"):
            await asyncio.to_thread(print)
        with pytest.raises(RuntimeError, match="no threads"):
            loop.run_in_executor(None, print)
        with pytest.raises(RuntimeError, match="no name resolution"):
            await loop.getaddrinfo("localhost", 80)

    run(main())


def test_each_run_has_a_loop_of_its_own_and_leaves_nothing() -> None:
    left: list[asyncio.Task[None]] = []

    async def main() -> asyncio.AbstractEventLoop:
        left.append(asyncio.create_task(asyncio.sleep(1e9)))
        return asyncio.get_running_loop()

    one, two = run(main()), run(main())
    assert isinstance(one, VirtualLoop)
    assert one is not two
    assert one.is_closed()
    assert all(task.cancelled() for task in left)


def test_what_main_raises_is_raised() -> None:
    async def main() -> None:
        await asyncio.sleep(5)
        raise LookupError("nobody")

    with pytest.raises(LookupError, match="nobody"):
        run(main())


# --- hosts ---


def test_hosts_have_addresses_of_their_own() -> None:
    world = World()
    hosts = [world.host() for _ in range(300)]
    assert len({host.ip for host in hosts}) == 300
    assert world.host("5.6.7.8").ip == "5.6.7.8"


def test_what_a_host_draws_depends_on_the_seed_and_its_number_only() -> None:
    def draws(seed: int, busy: bool) -> list[int]:
        world = World(seed)
        first, second = world.host(), world.host("5.6.7.8")
        if busy:
            first.rng.randbytes(100)
        return [second.rng.randrange(1000) for _ in range(4)]

    assert draws(1, busy=False) == draws(1, busy=True)
    assert draws(1, busy=False) != draws(2, busy=False)


def test_clocks_may_be_wrong() -> None:
    async def main() -> None:
        world = World()
        right, wrong = world.host(), world.host()
        wrong.virtual_clock.skew_s = -90.0
        await asyncio.sleep(10)
        assert right.clock.monotonic() == wrong.clock.monotonic() == 10.0
        assert right.clock.wall() == EPOCH + 10
        assert wrong.clock.wall() == EPOCH - 80

    run(main())


def test_names_are_addresses_and_slow_calls_are_made_in_line() -> None:
    async def main() -> None:
        host = World().host()
        assert await host.resolver.resolve("10.1.2.3") == ["10.1.2.3"]
        assert await host.offload.run(lambda: 42) == 42

    run(main())


# --- datagrams ---


class Mailbox:
    """A bound socket and what came in."""

    def __init__(self, world: World, port: int = 0, ip: str | None = None) -> None:
        self.host = world.host(ip)
        self.heard: list[tuple[float, bytes, Address]] = []
        self.socket = self.host.datagrams.open(Address("0.0.0.0", port), self._on_datagram)
        self.address = self.socket.address

    def _on_datagram(self, data: bytes, source: Address) -> None:
        self.heard.append((now(), data, source))


def test_a_datagram_takes_the_latency() -> None:
    async def main() -> None:
        world = World(latency_s=0.04)
        one, two = Mailbox(world), Mailbox(world, ip="5.6.7.8")
        one.socket.send(b"hello", two.address)
        await asyncio.sleep(1)
        world.latency_s = 0.5
        two.socket.send(b"slowly", one.address)
        await asyncio.sleep(1)
        assert two.heard == [(0.04, b"hello", one.address)]
        assert one.heard == [(1.5, b"slowly", two.address)]
        assert two.address.ip == "5.6.7.8"
        assert world.datagrams == 2

    run(main())


def test_a_share_of_all_datagrams_is_lost() -> None:
    async def main() -> None:
        world = World(7, loss=0.2)
        one, two = Mailbox(world), Mailbox(world)
        for _ in range(2000):
            one.socket.send(b"m", two.address)
        await asyncio.sleep(1)
        assert 1540 < len(two.heard) < 1660
        assert world.datagrams == 2000
        world.loss = 0.0
        one.socket.send(b"last", two.address)
        await asyncio.sleep(1)
        assert two.heard[-1][1] == b"last"

    run(main())


def test_whoever_is_cut_off_hears_nothing_and_is_not_heard() -> None:
    async def main() -> None:
        world = World()
        one, two = Mailbox(world), Mailbox(world)
        world.unreachable.add(one.host.ip)
        assert not world.delivers(one.host.ip, two.host.ip)
        assert not world.delivers(two.host.ip, one.host.ip)
        one.socket.send(b"from within", two.address)
        two.socket.send(b"from without", one.address)
        await asyncio.sleep(1)
        assert one.heard == two.heard == []
        world.unreachable.clear()
        one.socket.send(b"again", two.address)
        await asyncio.sleep(1)
        assert [data for _, data, _ in two.heard] == [b"again"]

    run(main())


def test_a_closed_socket_neither_sends_nor_hears() -> None:
    async def main() -> None:
        world = World()
        one, two = Mailbox(world), Mailbox(world)
        two.socket.send(b"under way", one.address)
        one.socket.close()
        one.socket.close()
        one.socket.send(b"too late", two.address)
        one.socket.send(b"to nobody", Address("10.9.9.9", 4000))
        await asyncio.sleep(1)
        assert one.heard == two.heard == []
        assert world.datagrams == 1

    run(main())


def test_ports_are_taken_and_given_back() -> None:
    async def main() -> None:
        world = World()
        box = Mailbox(world, port=5000)
        assert box.address == Address(box.host.ip, 5000)
        with pytest.raises(PortInUse):
            box.host.datagrams.open(Address("0.0.0.0", 5000), lambda *_: None)
        assert Mailbox(world, port=5000).address.port == 5000  # another machine's
        some = [box.host.datagrams.open(Address("0.0.0.0", 0), lambda *_: None).address for _ in range(5)]
        assert len(set(some)) == 5
        box.socket.close()
        assert box.host.datagrams.open(Address("0.0.0.0", 5000), lambda *_: None).address.port == 5000

    run(main())


# --- links ---


class House:
    """Links of one identity, and what happens on each that comes in."""

    def __init__(self, world: World, number: int, *, starts: bool = True) -> None:
        self.world = world
        self.host = world.host()
        self.identity = identity(number)
        self.net = self.host.links(self.identity)
        self.starts = starts
        self.ends: list[End] = []

    def listen(self, port: int = 0) -> LinkPort:
        return self.net.listen(Address(self.host.ip, port), lambda link: self.ends.append(End(link, self.starts)))

    async def dial(self, other: "House", port: LinkPort, timeout_s: float = 3.0) -> "End":
        return End(await self.net.dial(port.address, other.identity.id.curve_key, timeout_s))


class End:
    """One end of a link."""

    def __init__(self, link: Link, starts: bool = True) -> None:
        self.link = link
        self.heard: Heard = []
        self.closed: list[str] = []
        if starts:
            self.start()

    def start(self) -> None:
        self.link.start(lambda data: self.heard.append((now(), data)), self.closed.append)

    @property
    def frames(self) -> list[bytes]:
        return [data for _, data in self.heard]


async def linked(world: World) -> tuple[House, House, End, End]:
    one, two = House(world, 1), House(world, 2)
    ours = await one.dial(two, two.listen())
    return one, two, ours, two.ends[0]


def test_a_dial_takes_a_round_trip_and_both_know_the_other_s_key() -> None:
    async def main() -> None:
        one, two, ours, theirs = await linked(World(latency_s=0.05))
        assert now() == pytest.approx(0.1)
        assert ours.link.curve_key == two.identity.id.curve_key
        assert theirs.link.curve_key == one.identity.id.curve_key
        assert (ours.link.outbound, theirs.link.outbound) == (True, False)
        assert ours.link.remote is not None
        assert ours.link.remote.ip == two.host.ip
        assert theirs.link.remote == Address(one.host.ip, 0)
        ours.link.send(b"there")
        theirs.link.send(b"and back")
        await asyncio.sleep(1)
        assert theirs.heard == [(pytest.approx(0.15), b"there")]
        assert ours.frames == [b"and back"]

    run(main())


@pytest.mark.parametrize("at_once", [2, 5, 50])
def test_frames_that_are_sent_at_one_moment_arrive_in_order(at_once: int) -> None:
    async def main() -> None:
        _, _, ours, theirs = await linked(World())
        for number in range(at_once):
            ours.link.send(b"%d" % number)
        await asyncio.sleep(1)
        assert theirs.frames == [b"%d" % number for number in range(at_once)]

    run(main())


def test_frames_that_come_before_the_link_is_in_use_are_kept() -> None:
    async def main() -> None:
        world = World()
        one, two = House(world, 1), House(world, 2, starts=False)
        ours = await one.dial(two, two.listen())
        ours.link.send(b"early")
        await asyncio.sleep(1)
        (theirs,) = two.ends
        assert theirs.heard == []
        theirs.start()
        assert theirs.frames == [b"early"]

    run(main())


def test_who_closes_is_not_told_and_the_other_is_told_once() -> None:
    async def main() -> None:
        _, _, ours, theirs = await linked(World())
        ours.link.send(b"last words")
        ours.link.close()
        ours.link.close()
        assert ours.link.is_closed
        assert not ours.link.send(b"more")
        assert not theirs.link.is_closed
        theirs.link.send(b"crossing")
        await asyncio.sleep(1)
        assert theirs.frames == [b"last words"]
        assert theirs.link.is_closed
        assert len(theirs.closed) == 1
        assert (ours.closed, ours.heard) == ([], [])
        assert not theirs.link.send(b"to nobody")

    virtual(main())


def test_a_frame_has_a_size_that_a_link_can_carry() -> None:
    async def main() -> None:
        _, _, ours, theirs = await linked(World())
        assert ours.link.send(bytes(253_952))
        with pytest.raises(MessageTooLarge):
            ours.link.send(bytes(253_953))
        await asyncio.sleep(1)
        assert [len(frame) for frame in theirs.frames] == [253_952]

    run(main())


def test_where_nobody_listens_a_dial_fails_at_once() -> None:
    async def main() -> None:
        world = World()
        one, two = House(world, 1), House(world, 2)
        port = two.listen()
        port.close()
        with pytest.raises(LinkError, match="nobody listens") as caught:
            await one.dial(two, port)
        assert not isinstance(caught.value, LinkRefused)
        assert now() < 0.1

    run(main())


def test_whoever_holds_another_key_is_not_linked_to() -> None:
    async def main() -> None:
        world = World()
        one, two = House(world, 1), House(world, 2)
        with pytest.raises(LinkRefused):
            await one.net.dial(two.listen().address, identity(3).id.curve_key, 3.0)
        assert two.ends == []

    run(main())


def test_a_dial_into_the_void_takes_its_whole_timeout() -> None:
    async def main() -> None:
        world = World()
        one, two = House(world, 1), House(world, 2)
        port = two.listen()
        world.unreachable.add(two.host.ip)
        with pytest.raises(LinkError, match="does not answer"):
            await one.dial(two, port, timeout_s=2.5)
        assert now() == pytest.approx(2.5)

    run(main())


def test_a_cut_swallows_frames_and_does_not_tell() -> None:
    async def main() -> None:
        world = World()
        _, two, ours, theirs = await linked(world)
        world.unreachable.add(two.host.ip)
        assert ours.link.send(b"swallowed")
        assert theirs.link.send(b"swallowed too")
        await asyncio.sleep(5)
        assert not ours.link.is_closed
        assert ours.heard == theirs.heard == []
        world.unreachable.clear()
        ours.link.send(b"heard")
        await asyncio.sleep(1)
        assert theirs.frames == [b"heard"]

    run(main())


@pytest.mark.parametrize("gone", ["cut off", "closed meanwhile"])
def test_a_link_whose_other_end_is_gone_ends_as_heartbeats_would_end_it(gone: str) -> None:
    async def main() -> None:
        world = World()
        _, two, ours, theirs = await linked(world)
        world.unreachable.add(two.host.ip)
        ours.link.send(b"anybody there?")
        if gone == "closed meanwhile":
            theirs.link.close()
            await asyncio.sleep(5)
            world.unreachable.clear()
            ours.link.send(b"anybody there now?")
        await asyncio.sleep(15)
        assert ours.link.is_closed
        assert len(ours.closed) == 1

    run(main())


def test_through_a_cut_nobody_hears_that_a_link_was_closed() -> None:
    async def main() -> None:
        world = World()
        _, two, ours, theirs = await linked(world)
        world.unreachable.add(two.host.ip)
        theirs.link.close()
        await asyncio.sleep(1)
        assert ours.closed == []

    run(main())


def test_a_port_that_closes_takes_its_links_along() -> None:
    async def main() -> None:
        world = World()
        one, two = House(world, 1), House(world, 2)
        port = two.listen(6000)
        ours = await one.dial(two, port)
        with pytest.raises(PortInUse):
            two.listen(6000)
        port.close()
        await asyncio.sleep(1)
        assert ours.link.is_closed
        assert two.listen(6000).address.port == 6000

    run(main())


def test_closing_a_link_net_ends_what_it_dialled_and_what_it_accepted() -> None:
    async def main() -> None:
        one, two, ours, theirs = await linked(World())
        back = await two.dial(one, one.listen())
        await two.net.aclose()
        await asyncio.sleep(1)
        assert ours.link.is_closed
        assert theirs.link.is_closed
        assert back.link.is_closed
        assert one.ends[0].closed

    run(main())


# --- one number replays a run ---


def digest(seed: int) -> str:
    """What happened in a little village, as a number."""

    async def main() -> str:
        happened: list[Any] = []
        async with Village(World(seed, loss=0.05)) as village:
            await village.open_seed()
            for _ in range(3):
                await village.open_peer()
            got = [await listener(peer) for peer in village.peers]
            for peer in village.peers:
                for other in village.peers:
                    if other is not peer:
                        await peer.send(other.id, str(peer.id).encode())
            await asyncio.sleep(1200)
            for peer in village.peers:
                happened.append((str(peer.id), sorted(peer.counters.items()), village.events[peer].all))
            happened.append([(str(message.sender), message.data) for heard in got for message in heard])
            happened.append((now(), village.world.datagrams, village.seed.status()))
        return hashlib.blake2b(repr(happened).encode(), digest_size=16).hexdigest()

    return virtual(main())


def test_the_same_seed_gives_the_same_run_and_another_gives_another() -> None:
    assert digest(5) == digest(5)
    assert digest(5) != digest(6)


def test_it_does_so_in_any_process() -> None:
    # The order of a set of bytes or str changes with PYTHONHASHSEED.
    def elsewhere(hash_seed: str) -> str:
        result = subprocess.run(
            [sys.executable, "-c", "import test_world; print(test_world.digest(5))"],
            cwd=HERE,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout.strip()

    assert elsewhere("1") == elsewhere("2")
