"""What happens to what is under way: loss, doubles, delays, uplinks."""

import asyncio
from statistics import fmean

import pytest
from support_peers import now, virtual
from test_world import linked

from atonce_sim.latency import Constant, Uniform
from atonce_sim.wires import Conditions, Wires
from atonce_sim.world import World

MANY = 5000


def wires(seed: int = 1, **conditions: float) -> Wires:
    return Wires(Conditions(latency=Constant(20.0), **conditions), seed)  # type: ignore[arg-type]


def fates(on: Wires, source: int = 1, to: int = 2, count: int = MANY) -> list[tuple[float, ...]]:
    """Of as many datagrams on one link."""
    return [on.arrivals(source, to, 100, 0.0) for _ in range(count)]


def test_where_nothing_is_wrong_all_arrive_once_after_the_latency() -> None:
    assert set(fates(wires(), count=100)) == {(0.02,)}
    of_pairs = Wires(Conditions(latency=Uniform(5.0, 65.0)), 1)
    assert of_pairs.arrivals(1, 2, 9, 0.0) == of_pairs.arrivals(2, 1, 9, 7.0) != of_pairs.arrivals(1, 3, 9, 0.0)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.9])
def test_a_share_of_the_datagrams_of_each_link_is_lost(share: float) -> None:
    on = wires(loss=share)
    for to in (2, 3, 4):
        lost = sum(not arrivals for arrivals in fates(on, 1, to)) / MANY
        assert lost == pytest.approx(share, abs=4 * (share * (1 - share) / MANY) ** 0.5)
    assert set(fates(wires(loss=1.0), count=100)) == {()}


def test_what_is_lost_on_a_link_does_not_depend_on_what_travels_elsewhere() -> None:
    quiet, busy = wires(loss=0.3, reordering=0.3, duplication=0.3), wires(loss=0.3, reordering=0.3, duplication=0.3)
    alone = fates(quiet, count=300)
    beside = []
    for number in range(300):
        for other in range(number % 4):
            busy.arrivals(1, 10 + other, 100, 0.0)
            busy.arrivals(10 + other, 2, 100, 0.0)
        busy.arrivals(2, 1, 100, 0.0)  # the way back is another link
        beside.append(busy.arrivals(1, 2, 100, 0.0))
    assert alone == beside
    assert alone != fates(wires(loss=0.3, reordering=0.3, duplication=0.3), 2, 1, count=300)
    assert alone != fates(wires(2, loss=0.3, reordering=0.3, duplication=0.3), count=300)


def test_a_share_arrives_twice_the_second_time_a_little_later() -> None:
    twice = [arrivals for arrivals in fates(wires(duplication=0.1)) if len(arrivals) == 2]
    assert len(twice) / MANY == pytest.approx(0.1, abs=0.02)
    assert all(first < second < first + 0.01 for first, second in twice)


def test_a_share_is_held_up_and_overtaken() -> None:
    delays = [delay for (delay,) in fates(wires(reordering=0.25, reordering_ms=50.0))]
    held_up = [delay - 0.02 for delay in delays if delay > 0.02]
    assert len(held_up) / MANY == pytest.approx(0.25, abs=0.03)
    assert 0.045 < max(held_up) <= 0.05
    assert fmean(held_up) == pytest.approx(0.025, rel=0.1)


def test_the_three_chances_of_a_datagram_are_drawn_apart() -> None:
    all_three = fates(wires(loss=0.5, duplication=0.5, reordering=0.5))
    arrived = [arrivals for arrivals in all_three if arrivals]
    late_and_double = [arrivals for arrivals in arrived if len(arrivals) == 2 and arrivals[0] > 0.02]
    assert len(arrived) / MANY == pytest.approx(0.5, abs=0.03)
    assert len(late_and_double) / len(arrived) == pytest.approx(0.25, abs=0.03)


def test_conditions_may_change_while_a_world_runs() -> None:
    on = wires()
    on.conditions.loss = 1.0
    assert on.arrivals(1, 2, 100, 0.0) == ()
    on.conditions.loss = 0.0
    assert on.arrivals(1, 2, 100, 0.0) == (0.02,)


# --- uplinks ---


def test_an_uplink_carries_so_many_bytes_in_a_second() -> None:
    on = wires(uplink_bytes_s=10_000)
    # To whomever it sends, it is one uplink.
    delays = [on.arrivals(1, 2 + number % 3, 1000, 0.0)[0] for number in range(5)]
    assert delays == pytest.approx([0.12, 0.22, 0.32, 0.42, 0.52])
    assert on.arrivals(2, 1, 1000, 0.0)[0] == pytest.approx(0.12)  # another host has another one
    assert on.arrivals(1, 2, 1000, 0.3)[0] == pytest.approx(0.32)  # 0.2 s of them wait still
    assert on.arrivals(1, 2, 1000, 60.0)[0] == pytest.approx(0.12)  # it was idle for long


def test_what_waits_for_an_uplink_is_bounded_and_the_rest_is_dropped() -> None:
    on = wires(uplink_bytes_s=10_000)
    arrivals = [on.arrivals(1, 2, 1000, 0.0) for _ in range(100)]
    delays = [delay for some in arrivals for delay in some]
    assert len(delays) == 11
    assert max(delays) <= 0.02 + 1.0 + 0.1
    assert arrivals[11:] == [()] * 89
    assert on.arrivals(1, 2, 1000, 0.1) != ()  # one has gone, so there is room for one
    assert on.arrivals(1, 2, 1000, 0.1) == ()
    # In the long run a host that sends more than its uplink carries sends as much as that.
    sent = sum(len(on.arrivals(1, 3, 100, 10 + step / 1000)) for step in range(10_000))
    assert sent * 100 == pytest.approx(10_000 * 11, rel=0.02)


# --- frames of links ---


def frame_delays(on: Wires, count: int = 2000) -> list[float]:
    return [on.frame_delay_s(1, 2, 100, number, 0.0) for number in range(count)]


def test_a_frame_takes_the_latency() -> None:
    assert set(frame_delays(wires(), 50)) == {0.02}


def test_a_lost_frame_costs_time_instead_and_is_never_lost() -> None:
    delays = frame_delays(wires(loss=0.25))
    at_once = sum(delay == 0.02 for delay in delays) / len(delays)
    once_more = sum(delay == pytest.approx(0.22) for delay in delays) / len(delays)
    assert at_once == pytest.approx(0.75, abs=0.04)
    assert once_more == pytest.approx(0.1875, abs=0.04)
    # Each time the pause is twice as long; after six the simulation has seen enough.
    assert frame_delays(wires(loss=1.0), 50) == pytest.approx([0.02 + 0.2 * 63] * 50)
    # A connection waits for a round trip at least before it sends again.
    far = Wires(Conditions(latency=Constant(500.0), loss=1.0), 1)
    assert far.frame_delay_s(1, 2, 100, 1, 0.0) == pytest.approx(0.5 + 63)


def test_frames_share_the_uplink_with_datagrams_and_wait_for_their_turn() -> None:
    on = wires(uplink_bytes_s=10_000)
    assert on.frame_delay_s(1, 2, 20_000, 1, 0.0) == pytest.approx(2.02)
    assert on.arrivals(1, 2, 1000, 0.0) == ()  # the datagram is dropped
    assert on.frame_delay_s(1, 2, 1000, 2, 0.0) == pytest.approx(2.12)  # the frame is not


def test_frames_arrive_all_and_in_order_however_many_are_lost_under_way() -> None:
    async def main() -> None:
        _, _, ours, theirs = await linked(World(loss=0.3, latency_s=0.02))
        sent_at = {}
        for number in range(200):
            sent_at[b"%d" % number] = now()
            ours.link.send(b"%d" % number)
            await asyncio.sleep(0.05)
        await asyncio.sleep(60)
        assert theirs.frames == list(sent_at)
        delays = [came_at - sent_at[frame] for came_at, frame in theirs.heard]
        assert min(delays) == pytest.approx(0.02)
        late = sum(delay > 0.03 for delay in delays) / len(delays)
        assert late > 0.3  # those that were lost, and those that waited for them
        assert max(delays) > 0.2

    virtual(main())


def test_conditions_are_told_in_words() -> None:
    words = str(Conditions(latency=Constant(20.0), loss=0.05, duplication=0.01, reordering=0.02, uplink_bytes_s=9000))
    assert words == (
        "latency 20 ms one way, everywhere; 5.0% of datagrams lost; 1.0% doubled; 2.0% held up by at most 50 ms; "
        "9000 B/s uplink"
    )
    assert str(Conditions()) == "latency 25 ms one way, everywhere"
