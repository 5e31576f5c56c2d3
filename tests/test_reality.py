"""`atonce sim compare`: the same network as processes and simulated, and that no process is left."""

import asyncio
import io
import json
import signal
from collections import Counter

import msgspec
import psutil
import pytest
from cli_support import END_S, NOISE_S, Process, until
from rich.console import Console

from atonce_sim.latency import Measured, mean_rtt_s, one_way
from atonce_sim.loop import run as run_world
from atonce_sim.measures import quantile
from atonce_sim.reality.comparison import Side, judge, reality, side, simulation
from atonce_sim.reality.procedure import Lookup, Outcome, Plan, conduct
from atonce_sim.reality.processes import Processes
from atonce_sim.wires import Conditions, Wires
from atonce_sim.world import World
from dht_atonce.cli.compare_view import show_comparison
from dht_atonce.cli.output import Output
from dht_atonce.endpoints import Address
from dht_atonce.errors import ControlError

SMALL = Plan(peers=8, lookups=20, k=3, seed=1)


# --- the verdict ---


def seen(hops: int = 2, requests: int = 10, asked: int = 6, found: bool = True) -> Side:
    """Ten lookups, all alike."""
    lookup = Lookup(found=found, local=False, hops=hops, asked=asked, requests=requests, elapsed_s=0.004)
    return side(Outcome([lookup] * 10, local=3, round_trips_s=[0.003, 0.001, 0.002]))


@pytest.mark.parametrize(
    ("simulated", "held"),
    [
        (seen(requests=10), True),
        (seen(requests=11), True),
        (seen(requests=9), True),
        (seen(requests=12), False),
        (seen(requests=8), False),
        (seen(hops=3), False),
        (seen(hops=1), False),
        (seen(found=False), False),  # no hops to compare
        (seen(asked=1), True),
    ],
)
def test_it_holds_if_hops_and_requests_are_off_by_a_tenth_at_most(simulated: Side, held: bool) -> None:
    assert judge(SMALL, seen(), simulated).held is held


def test_how_far_off_is_a_share_of_what_really_was() -> None:
    comparison = judge(SMALL, seen(hops=2, requests=10), seen(hops=1, requests=11))
    assert (comparison.hops_off, comparison.requests_off) == (-0.5, pytest.approx(0.1))


def test_a_side_is_summed_up() -> None:
    missed = Lookup(found=False, local=False, hops=0, asked=8, requests=20, elapsed_s=9.0)
    hit = Lookup(found=True, local=False, hops=2, asked=4, requests=10, elapsed_s=0.5)
    assert side(Outcome([hit, hit, hit, missed], local=7, round_trips_s=[0.1, 0.3, 0.2])) == Side(
        lookups=4,
        local=7,
        found_share=0.75,
        hops=2.0,
        requests_per_lookup=12.5,
        asked_per_lookup=5.0,
        lookup_s_p50=0.5,
        lookup_s_p99=0.5,
        round_trip_s_p50=0.2,
        round_trip_s_p99=0.3,
    )


@pytest.mark.parametrize(("simulated", "verdict"), [(seen(), "✓"), (seen(hops=4), "✗ not:")])
def test_people_see_both_sides_and_the_verdict(simulated: Side, verdict: str) -> None:
    shown, output = io.StringIO(), Output(as_json=False)
    output._console = Console(file=shown, width=80, highlight=False)
    show_comparison(judge(SMALL, seen(), simulated), output)
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.split() == ["requests", "per", "lookup", "10.00", "10.00", "+0.0%"] for line in lines)
    assert lines[-1].startswith(f"{verdict} hops and requests within 10%")


# --- the procedure ---


def test_everybody_joins_through_some_before_it_under_keys_of_the_seed() -> None:
    plan, other = Plan(40, 100, 8, seed=1), Plan(40, 100, 8, seed=2)
    for number in range(plan.peers):
        entries = plan.entries(number)
        assert len(set(entries)) == len(entries) == min(16, number)
        assert all(entry < number for entry in entries)
    ids = [plan.keys(number)[1].id for number in range(plan.peers)]
    assert ids == [Plan(40, 100, 8, seed=1).keys(number)[1].id for number in range(plan.peers)]
    assert len(set(ids)) == 40
    assert list(plan.pairs()) == list(plan.pairs()) != list(other.pairs())
    assert all(asker != owner for asker, owner in plan.pairs())


class Told:
    """A network in which every lookup but each third is answered by the own store."""

    def __init__(self) -> None:
        self.finds = 0
        self.started: list[int] = []

    async def start(self, number: int, entries: list[int]) -> None:
        self.started.append(number)

    async def find(self, asker: int, key: bytes) -> Lookup:
        self.finds += 1
        return Lookup(True, self.finds % 3 != 0, 1, 4, 4, 0.001)

    async def begin_measuring(self) -> None:
        assert self.finds == 0
        assert len(self.started) == 8

    async def round_trips_s(self) -> list[float]:
        return [0.001]


def test_local_lookups_are_left_out_and_others_drawn_in_their_place() -> None:
    told, steps = Told(), Counter[str]()

    async def run() -> Outcome:
        return await conduct(SMALL, told, lambda step, done, of: steps.update([f"{step} {done}/{of}"]))

    outcome = run_world(run())
    assert (len(outcome.lookups), outcome.local, told.finds) == (20, 40, 60)
    assert {"join 0/8", "join 8/8", "lookups 0/20", "lookups 20/20"} <= set(steps)


def test_a_network_so_small_that_nobody_has_to_ask_is_an_error() -> None:
    with pytest.raises(ControlError, match="more peers or a smaller k"):
        simulation(Plan(peers=4, lookups=3, k=8, seed=1), Measured((1.0,)), lambda *_: None)


def test_the_simulated_side_is_the_same_twice_and_finds_everybody() -> None:
    latency = Measured((0.5, 1.0, 8.0))
    one, other = (simulation(SMALL, latency, lambda *_: None) for _ in range(2))
    assert one == other
    assert len(one.lookups) == 20
    assert all(lookup.found and not lookup.local for lookup in one.lookups)
    assert all(1 <= lookup.asked <= lookup.requests for lookup in one.lookups)
    assert min(one.round_trips_s) >= 0.0005
    assert max(one.round_trips_s) <= 0.008


# --- measured latency ---


def test_round_trips_come_out_as_they_were_measured() -> None:
    measured_s = [0.001] * 500 + [0.002] * 400 + [0.010 + 0.001 * step for step in range(100)]
    wires = Wires(Conditions(latency=Measured.of(list(reversed(measured_s)))), seed=3)
    trips_s = []
    for number in range(20_000):
        one, other = (4, 7) if number % 2 else (7, 4)  # whoever asks
        (there_s,), (back_s,) = wires.arrivals(one, other, 100, 0.0), wires.arrivals(other, one, 100, 0.0)
        trips_s.append(there_s + back_s)
    for share in (0.1, 0.3, 0.7, 0.95, 0.99):
        assert quantile(trips_s, share) == pytest.approx(quantile(measured_s, share), rel=0.05), share
    assert sum(trips_s) / len(trips_s) == pytest.approx(sum(measured_s) / len(measured_s), rel=0.05)
    assert min(trips_s) == pytest.approx(0.001)
    assert max(trips_s) <= 0.109


def test_a_datagrams_time_depends_on_its_link_its_number_and_the_seed_alone() -> None:
    latency = Measured(tuple(float(ms) for ms in range(100)))

    def times(seed: int, busy: bool) -> list[tuple[float, ...]]:
        wires, found = Wires(Conditions(latency=latency), seed), []
        for _ in range(20):
            if busy:
                wires.arrivals(1, 3, 100, 0.0)
                wires.arrivals(2, 1, 100, 0.0)
            found.append(wires.arrivals(1, 2, 100, 0.0))
        return found

    assert times(1, busy=False) == times(1, busy=True)
    assert times(1, busy=False) != times(2, busy=False)
    assert len(set(times(1, busy=False))) == 20


def test_quantiles_of_few_and_of_many_samples() -> None:
    assert Measured.of([0.25]).rtt_ms == (250.0,)
    assert Measured.of([0.25]).rtt_s(0.7) == 0.25
    assert Measured.of([0.5, 0.25]).rtt_s(0.5) == 0.375
    many = Measured.of([number / 1000 for number in range(100_001)])
    assert len(many.rtt_ms) == 1001
    assert (many.rtt_ms[0], many.rtt_ms[-1]) == (0.0, 100_000.0)
    assert many.rtt_s(0.999) == pytest.approx(99.9)


def test_where_a_world_asks_for_one_figure_it_gets_the_mean() -> None:
    latency = Measured((10.0, 20.0, 60.0))
    assert one_way(latency, seed=1)(0, 1) == pytest.approx(0.015)
    assert mean_rtt_s(one_way(latency, seed=1), hosts=10) == pytest.approx(0.030)


def test_what_was_measured_can_stand_in_a_scenario() -> None:
    conditions = msgspec.toml.decode(b'latency = { model = "measured", rtt_ms = [1, 2.5] }', type=Conditions)
    assert conditions.latency == Measured((1.0, 2.5))
    assert str(conditions) == "latency round trips as measured, median 1.75 ms, p99 2.48 ms"
    with pytest.raises(msgspec.ValidationError):
        msgspec.toml.decode(b'latency = { model = "measured", rtt_ms = [] }', type=Conditions)


def test_a_datagram_of_a_world_takes_its_own_time() -> None:
    async def main() -> list[float]:
        world = World(conditions=Conditions(latency=Measured((10.0, 20.0))))
        one, other = world.host(), world.host()
        came: list[float] = []
        there = other.datagrams.open(Address(other.ip, 0), lambda *_: came.append(world.loop.time()))
        here = one.datagrams.open(Address(one.ip, 0), lambda *_: None)
        for _ in range(3):
            here.send(b"\x01\x01", there.address)
        await world.loop.create_task(_pause(1.0))
        return came

    came = run_world(main())
    assert len(set(came)) == 3
    assert all(0.010 <= at <= 0.020 for at in came)


async def _pause(seconds: float) -> None:
    await asyncio.sleep(seconds)


# --- real processes ---


def below(pid: int) -> list[psutil.Process]:
    """All descendants."""
    return psutil.Process(pid).children(recursive=True)


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.process
def test_processes_and_simulated_nodes_do_the_same_and_none_is_left() -> None:
    known = {process.pid for process in below(psutil.Process().pid)}
    running: list[psutil.Process] = []

    def on_progress(step: str, done: int, of: int) -> None:
        if (step, done) == ("lookups", 0):
            running[:] = [process for process in below(psutil.Process().pid) if process.pid not in known]

    real = reality(SMALL, on_progress)
    assert len(running) == 9  # with the one that forks them
    assert not [process for process in running if lives(process)]
    simulated = simulation(SMALL, Measured.of(real.round_trips_s), lambda *_: None)
    for outcome in (real, simulated):
        assert len(outcome.lookups) == 20
        assert all(lookup.found and lookup.hops and lookup.requests for lookup in outcome.lookups)
    assert len(real.round_trips_s) > 20
    comparison = judge(SMALL, side(real), side(simulated))
    assert comparison.real.local == pytest.approx(comparison.simulated.local, rel=0.5)


@pytest.mark.process
def test_a_process_that_dies_is_told_and_the_others_end() -> None:
    plan, pids = Plan(3, 1, 2, 1), []

    async def main(processes: Processes) -> None:
        async with processes.connected():
            await processes.start(0, [])
            pids.extend(processes.pids)
            psutil.Process(pids[0]).kill()
            await processes.find(0, bytes(20))

    processes = Processes(plan)
    with pytest.raises(ControlError, match="process 0 has ended"), processes:
        asyncio.run(main(processes))
    assert not psutil.pid_exists(pids[0])


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_however_it_is_ended_no_process_is_left(number: signal.Signals, code: int) -> None:
    with Process("sim", "compare", "--peers", "5", "--lookups", "5", "--k", "2", "--json") as command:
        assert json.loads(command.line()) == {"event": "step", "side": "real", "step": "join", "of": 5}
        until(lambda: len(below(command.pid)) == 6, "five processes, and the one that forks them")
        running = below(command.pid)
        command.signal(number)
        outcome = command.ends(END_S + NOISE_S)
        assert outcome.code == code
        if number == signal.SIGINT:
            assert outcome.error == "interrupted; all processes have been ended"
        until(lambda: not [process for process in running if lives(process)], "all have ended")
