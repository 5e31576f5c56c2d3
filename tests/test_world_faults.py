"""What may go wrong in the virtual world: cuts of one or both ways, dead machines, machines that run again, sleep."""

import asyncio
from pathlib import Path

import pytest
from support_peers import now, virtual
from test_world import House, Mailbox, linked

from atonce_sim.world import EPOCH, VirtualHost, World
from dht_atonce.config import LinkConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import LinkError, PortInUse

TIMEOUT_S = LinkConfig().timeout_s


async def hears(one: Mailbox, other: Mailbox) -> bool:
    """Whether a datagram of `one` reaches `other`."""
    before = len(other.heard)
    one.socket.send(b"hello", other.address)
    await asyncio.sleep(1)
    return len(other.heard) > before


# --- cuts ---


def test_nothing_passes_between_the_sides_of_a_partition() -> None:
    async def main() -> None:
        world = World()
        boxes = [Mailbox(world) for _ in range(5)]
        a, b, c, d, nowhere = boxes
        world.partition([[a.host], [b.host, c.host], [d.host]])
        passes = {(one, two): await hears(boxes[one], boxes[two]) for one in range(5) for two in range(5) if one != two}
        assert {pair for pair, passed in passes.items() if passed} == {(0, 4), (4, 0), (1, 2), (2, 1)}
        newcomer = Mailbox(world)  # who is on no side is on the first
        assert await hears(newcomer, a)
        assert not await hears(newcomer, b)
        assert world.delivers(a.host.ip, nowhere.host.ip)
        world.heal()
        assert [await hears(one, two) for one in boxes for two in boxes if one is not two] == [True] * 20

    virtual(main())


def test_a_partition_of_one_way_lets_the_later_side_be_heard_and_hear_nothing() -> None:
    async def main() -> None:
        world = World()
        first, second = Mailbox(world), Mailbox(world)
        world.partition([[first.host], [second.host]], one_way=True)
        assert await hears(second, first)
        assert not await hears(first, second)
        world.heal()
        assert await hears(first, second)

    virtual(main())


def test_another_partition_takes_the_place_of_the_one_before() -> None:
    async def main() -> None:
        world = World()
        a, b, c = Mailbox(world), Mailbox(world), Mailbox(world)
        world.partition([[a.host], [b.host, c.host]])
        world.partition([[a.host, b.host], [c.host]])
        assert await hears(a, b)
        assert not await hears(b, c)

    virtual(main())


@pytest.mark.parametrize("one_way", [False, True])
def test_no_link_is_made_through_a_cut_of_either_way(one_way: bool) -> None:
    async def main() -> None:
        world = World()
        one, two = House(world, 1), House(world, 2)
        ports = one.listen(), two.listen()
        world.partition([[one.host], [two.host]], one_way=one_way)
        for who, whom, port in [(one, two, ports[1]), (two, one, ports[0])]:
            began = now()
            with pytest.raises(LinkError, match="does not answer"):
                await who.dial(whom, port, timeout_s=2.0)
            assert now() - began == pytest.approx(2.0)
        world.heal()
        await one.dial(two, ports[1])

    virtual(main())


@pytest.mark.parametrize("one_way", [False, True])
def test_links_through_a_cut_end_on_both_sides_when_heartbeats_would_have_been_missed(one_way: bool) -> None:
    async def main() -> None:
        world = World()
        one, two, ours, theirs = await linked(world)
        await asyncio.sleep(100)
        world.partition([[one.host], [two.host]], one_way=one_way)
        await asyncio.sleep(TIMEOUT_S - 0.1)
        assert not ours.link.is_closed
        assert not theirs.link.is_closed
        await asyncio.sleep(0.2)
        assert ours.closed == theirs.closed == ["the other side is silent"]
        assert not ours.link.send(b"is anybody there?")
        assert world.links == {}

    virtual(main())


@pytest.mark.parametrize("fault", ["cut", "crash of who dials", "crash of who is dialled"])
def test_what_happens_while_a_link_is_made_ends_the_making(fault: str) -> None:
    async def main() -> None:
        world = World(latency_s=0.5)
        one, two = House(world, 1), House(world, 2)
        dial = asyncio.create_task(one.dial(two, two.listen(), timeout_s=3.0))
        await asyncio.sleep(0.6)
        match fault:
            case "cut":
                world.partition([[one.host], [two.host]])
            case "crash of who dials":
                world.crash(one.host)
            case _:
                world.crash(two.host)
        with pytest.raises(LinkError, match="does not answer"):
            await dial
        assert now() == pytest.approx(3.0)
        assert (world.links, two.ends) == ({}, [])

    virtual(main())


def test_who_is_too_far_away_does_not_answer_in_time() -> None:
    async def main() -> None:
        one, two = House(world := World(latency_s=2.0), 1), House(world, 2)
        with pytest.raises(LinkError, match="does not answer"):
            await one.dial(two, two.listen(), timeout_s=3.0)
        assert now() == 3.0

    virtual(main())


def test_a_cut_that_heals_in_time_ends_nothing_and_what_was_under_way_is_lost() -> None:
    async def main() -> None:
        world = World()
        one, two, ours, theirs = await linked(world)
        ours.link.send(b"under way")
        world.partition([[one.host], [two.host]])
        ours.link.send(b"into the void")
        await asyncio.sleep(TIMEOUT_S - 1)
        world.heal()
        await asyncio.sleep(TIMEOUT_S * 2)
        ours.link.send(b"heard")
        await asyncio.sleep(1)
        assert theirs.frames == [b"heard"]
        assert ours.closed == theirs.closed == []
        # The next cut has its full time again.
        world.partition([[one.host], [two.host]])
        await asyncio.sleep(TIMEOUT_S - 0.1)
        assert not ours.link.is_closed

    virtual(main())


def test_links_elsewhere_do_not_notice() -> None:
    async def main() -> None:
        world = World()
        _, _, ours, theirs = await linked(world)
        far, side = House(world, 3), House(world, 4)
        beside = await far.dial(side, side.listen())
        world.partition([[], [far.host, side.host]])
        world.crash(world.host())
        await asyncio.sleep(TIMEOUT_S * 3)
        for end in (ours, theirs, beside):
            assert not end.link.is_closed

    virtual(main())


# --- crashes ---


def test_a_crash_says_nothing_and_silences_all() -> None:
    async def main() -> None:
        world = World()
        one, _, ours, theirs = await linked(world)
        box, other, beyond = Mailbox(world), Mailbox(world), list[bytes]()
        one_s_box = one.host.datagrams.open(Address("0.0.0.0", 0), lambda data, _: beyond.append(data))
        sent = world.datagrams
        ours.link.send(b"last words")  # still in its buffers when the machine dies
        world.crash(one.host)
        assert one.host.is_down
        assert world.datagrams == sent
        one_s_box.send(b"from beyond", box.address)
        box.socket.send(b"to beyond", one_s_box.address)
        await asyncio.sleep(1)
        assert box.heard == beyond == []
        assert await hears(other, box)
        assert theirs.frames == []
        assert theirs.closed == []  # nobody told it
        await asyncio.sleep(TIMEOUT_S)
        assert theirs.closed == ["the other side is silent"]

    virtual(main())


def test_links_to_the_dead_end_at_the_time_of_heartbeats() -> None:
    async def main() -> None:
        world = World()
        one, _, _, theirs = await linked(world)
        await asyncio.sleep(50)
        world.crash(one.host)
        await asyncio.sleep(TIMEOUT_S - 0.1)
        assert not theirs.link.is_closed
        assert theirs.link.send(b"are you there?")
        await asyncio.sleep(0.2)
        assert theirs.closed == ["the other side is silent"]

    virtual(main())


def test_nobody_is_linked_to_the_dead() -> None:
    async def main() -> None:
        world = World()
        one, two = House(world, 1), House(world, 2)
        port = two.listen()
        world.crash(two.host)
        with pytest.raises(LinkError, match="does not answer"):
            await one.dial(two, port, timeout_s=3.0)
        assert now() == 3.0
        world.restart(two.host)
        with pytest.raises(LinkError, match="nobody listens"):  # the machine answers, and nothing runs there yet
            await one.dial(two, port)

    virtual(main())


# --- machines that run again ---


def test_a_machine_that_runs_again_has_its_address_clock_and_disk_and_another_generator() -> None:
    async def main() -> None:
        world = World(3)
        host, other = world.host(skew_s=-7.0), world.host()
        host.disk(Path("alice")).write("key", b"hers")
        world.crash(host)
        again = world.restart(host)
        assert (again.ip, again.number, again.boot, again.skew_s) == (host.ip, host.number, 1, -7.0)
        assert not again.is_down
        assert again.disk(Path("alice")).read("key") == b"hers"
        assert world.hosts == {again.ip: again, other.ip: other}
        assert (again.bytes_sent, again.has_joined) == (0, False)
        thrice = world.restart(again)
        generators = [VirtualHost(world, host.ip, 0, boot, 0.0).rng for boot in range(3)]
        assert [host.rng.random(), again.rng.random(), thrice.rng.random()] == [rng.random() for rng in generators]
        assert len({rng.random() for rng in generators}) == 3

    virtual(main())


def test_after_a_restart_it_hears_and_is_heard_on_the_same_port() -> None:
    async def main() -> None:
        world = World()
        box, other = Mailbox(world, port=5000), Mailbox(world)
        world.crash(box.host)
        heard: list[bytes] = []
        again = world.restart(box.host)
        socket = again.datagrams.open(Address("0.0.0.0", 5000), lambda data, _: heard.append(data))
        assert socket.address == box.address
        other.socket.send(b"welcome back", box.address)
        socket.send(b"thank you", other.address)
        await asyncio.sleep(1)
        assert heard == [b"welcome back"]
        assert [(data, source) for _, data, source in other.heard] == [(b"thank you", box.address)]
        assert box.heard == []

    virtual(main())


def test_what_still_runs_of_a_dead_process_reaches_nobody_after_the_restart() -> None:
    async def main() -> None:
        world = World()
        one, two, ours, theirs = await linked(world)
        port, box = two.listen(), Mailbox(world)
        ghost_port = one.listen(7000)
        world.crash(one.host)
        again = world.restart(one.host)

        # Datagrams: neither through an old socket nor through one that it opens now, which takes no port either.
        ghost = one.host.datagrams.open(Address("0.0.0.0", 6000), lambda *_: pytest.fail("a ghost hears"))
        ghost.send(b"boo", box.address)
        real = again.datagrams.open(Address("0.0.0.0", 6000), lambda *_: None)
        box.socket.send(b"hello", real.address)
        ghost.close()
        with pytest.raises(PortInUse):
            again.datagrams.open(Address("0.0.0.0", 6000), lambda *_: None)

        # Links: neither the old one nor a new one.
        ours.link.send(b"boo")
        theirs.link.send(b"hello?")
        with pytest.raises(LinkError, match="does not answer"):
            await one.dial(two, port, timeout_s=2.0)
        assert two.ends == [theirs]
        one.listen(7001)
        with pytest.raises(LinkError, match="nobody listens"):
            await two.net.dial(Address(one.host.ip, 7001), one.identity.id.curve_key, 2.0)
        again.links(one.identity).listen(Address(again.ip, 7000), lambda _: None)
        ghost_port.close()
        assert Address(again.ip, 7000) in world.ports
        await asyncio.sleep(TIMEOUT_S)
        assert box.heard == []
        assert ours.frames == theirs.frames == []
        assert theirs.link.is_closed

    virtual(main())


# --- clocks ---


def test_each_clock_may_be_wrong_and_goes_at_the_right_speed() -> None:
    async def main() -> None:
        world = World()
        fast, slow, right = world.host(skew_s=45.0), world.host(skew_s=-45.0), world.host()
        await asyncio.sleep(3600)
        assert [host.clock.wall() - EPOCH for host in (fast, slow, right)] == [3645.0, 3555.0, 3600.0]
        assert {host.clock.monotonic() for host in (fast, slow, right)} == {3600.0}
        fast.virtual_clock.skew_s = 0.0  # somebody set it right
        assert fast.clock.wall() == right.clock.wall()
        assert fast.clock.monotonic() == 3600.0

    virtual(main())


# --- sleep ---


def test_who_sleeps_does_and_hears_nothing_and_its_timers_fire_late() -> None:
    async def main() -> None:
        world = World()
        box, other = Mailbox(world), Mailbox(world)
        ticks: list[float] = []

        async def ticking() -> None:
            loop = asyncio.get_running_loop()
            loop.call_later(15, ticks.append, -1.0)
            loop.call_later(16, ticks.append, -2.0).cancel()
            while True:
                await asyncio.sleep(10)
                ticks.append(now())

        task = box.host.start(ticking(), "ticking")
        await asyncio.sleep(12)
        world.sleep(box.host)
        assert not await hears(other, box)
        await asyncio.sleep(87)
        assert ticks == [10.0]
        world.wake(box.host)
        await asyncio.sleep(30.5)
        assert ticks == [10.0, -1.0, 100.0, 110.0, 120.0, 130.0]
        assert await hears(other, box)
        assert await hears(box, other)
        task.cancel()

    virtual(main())


def test_who_sleeps_does_not_keep_others_awake_or_asleep() -> None:
    async def main() -> None:
        world = World()
        one, two, three = Mailbox(world), Mailbox(world), Mailbox(world)
        done: list[int] = []

        async def waits(number: int) -> None:
            await asyncio.sleep(5)
            done.append(number)

        tasks = [box.host.start(waits(number)) for number, box in enumerate((one, two))]
        world.sleep(one.host)
        world.sleep(two.host)
        assert await hears(three, three)
        world.wake(two.host)
        await asyncio.sleep(10)
        assert done == [1]
        world.wake(one.host)
        await asyncio.gather(*tasks)
        assert done == [1, 0]

    virtual(main())


def test_a_link_to_a_sleeper_ends_for_the_other_and_a_nap_is_not_noticed() -> None:
    async def main() -> None:
        world = World()
        one, _, ours, theirs = await linked(world)
        world.sleep(one.host)
        await asyncio.sleep(TIMEOUT_S / 2)
        world.wake(one.host)
        await asyncio.sleep(TIMEOUT_S * 2)
        assert not theirs.closed
        world.sleep(one.host)
        await asyncio.sleep(TIMEOUT_S + 1)
        assert theirs.closed
        assert not ours.closed
        world.wake(one.host)
        await asyncio.sleep(TIMEOUT_S + 1)
        assert ours.closed

    virtual(main())


def test_who_moves_keeps_its_sockets_and_loses_its_links() -> None:
    async def main() -> None:
        world = World()
        box, other = Mailbox(world, port=5000), Mailbox(world)
        old = box.host.ip
        world.move(box.host, "10.9.9.9")
        assert box.host.routes.source(other.address) == "10.9.9.9"
        assert await hears(box, other)
        assert other.heard[-1][2] == Address("10.9.9.9", 5000)
        other.socket.send(b"to the old one", Address(old, 5000))
        other.socket.send(b"to the new one", Address("10.9.9.9", 5000))
        await asyncio.sleep(1)
        assert [data for _, data, _ in box.heard] == [b"to the new one"]

        one, _, ours, theirs = await linked(world)
        world.move(one.host, "10.9.9.8")
        ours.link.send(b"lost")
        await asyncio.sleep(TIMEOUT_S + 1)
        assert ours.closed
        assert theirs.closed

    virtual(main())
