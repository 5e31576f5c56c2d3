"""One run of one scenario, from an empty world to its results."""

import asyncio
import cProfile
import pstats
import random
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from atonce_seed.server import SeedServer
from atonce_sim.ciphers import PassThrough, SharedPairs
from atonce_sim.course import span_s, step_name
from atonce_sim.hostile.underworld import Underworld
from atonce_sim.inspection import Health, Inspector
from atonce_sim.keyspace import as_long
from atonce_sim.latency import mean_rtt_s
from atonce_sim.loop import run as run_world
from atonce_sim.measures import RUN_FIGURES, Measures, mean, quantile, quantiles
from atonce_sim.node_residents import NodeResident
from atonce_sim.peer_residents import ANY4, PeerResident
from atonce_sim.population import Population, Settler
from atonce_sim.replay import Recorder
from atonce_sim.residents import Resident
from atonce_sim.results import Expectation, Invariants, ProfileLine, Run, Sample, Summary
from atonce_sim.scenario import Scenario, condition
from atonce_sim.stock import stock_world
from atonce_sim.stock_residents import StockSettler
from atonce_sim.stopwatch import Stopwatch, peak_rss_bytes, rare_garbage, rss_bytes
from atonce_sim.truth import Truth, Verdict
from atonce_sim.workload import Workload
from atonce_sim.world import EPOCH, VirtualHost, World
from dht_atonce.cipher import CipherFactory, SodiumCipher
from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.endpoints import SeedUrl

__all__ = ["Options", "Progress", "simulate"]

_REPLICA_KEYS = 200  # records whose replicas are counted at the end
_PROFILE_LINES = 14

_has_run = False  # in this process


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is told beside its scenario."""

    name: str
    source: str
    """What the scenario was asked for by: its name, or the path of its file."""
    scenario: Scenario
    peers: int
    seed: int = 1
    node: Literal["ours", "stock"] = "ours"
    level: Literal["node", "peer"] = "node"
    crypto: Literal["real", "off"] = "real"
    profile: bool = False

    @property
    def command(self) -> str:
        """Replays it."""
        words = [f"atonce sim run {shlex.quote(self.source)} --peers {self.peers} --seed {self.seed}"]
        if self.node != "ours":
            words.append(f"--node {self.node}")
        if self.level != self.scenario.level and self.node == "ours":
            words.append(f"--level {self.level}")
        if self.crypto != "real":
            words.append(f"--crypto {self.crypto}")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    step: str
    now_s: float
    end_s: float
    """About."""
    up: int
    lookups: int


@dataclass(slots=True)
class _Bytes:
    """At the last sample."""

    sent: int = 0
    datagrams: int = 0
    seeds: int = 0


@dataclass(slots=True)
class _Outcome:
    """What is known at the end of the virtual part."""

    sim_s: float = 0.0
    built_bytes: int = 0
    requests: int = 0
    replicas: list[float] = field(default_factory=list)
    node_bytes_s: list[float] = field(default_factory=list)
    seed_bytes_s: list[float] = field(default_factory=list)
    seed_share: float | None = None
    health: dict[str, float | None] = field(default_factory=dict)


def simulate(
    options: Options,
    on_progress: Callable[[Progress], None] = lambda _: None,
    recorder: Recorder | None = None,
) -> Run:
    """Run to the end. `recorder` hears of everything that happens."""
    global _has_run
    watch = Stopwatch()
    simulation = _Simulation(options, on_progress, recorder)
    profiler = cProfile.Profile() if options.profile else None
    with rare_garbage(), profiler or nullcontext(), simulation.stock_world():
        outcome = run_world(simulation.run())
    if _has_run:
        outcome.built_bytes = 0  # built in memory that the run before had left: how much, nobody knows
    _has_run = True
    return simulation.result(outcome, watch, _profile_lines(profiler))


class _Simulation:
    def __init__(
        self,
        options: Options,
        on_progress: Callable[[Progress], None],
        recorder: Recorder | None,
    ) -> None:
        scenario = options.scenario
        self._options = options
        self._on_progress = on_progress
        self._network = NetworkConfig(
            name="simulated",
            k=scenario.network.k,
            local=scenario.network.local,
            record_life_s=scenario.network.record_life_s,
        )
        conditions = msgspec.structs.replace(scenario.world)
        cipher: CipherFactory = PassThrough()
        if options.crypto == "real":
            cipher = SharedPairs() if scenario.cpu is None else SodiumCipher
        if recorder is not None:
            cipher = recorder.cipher(cipher)
        self._world = World(
            options.seed,
            conditions=conditions,
            cipher=cipher,
            public=not scenario.network.local,
            effort=scenario.cpu,
        )
        if recorder is not None:
            self._world.trace.listener = recorder.on_seen
        self._truth = Truth(skew_s=2 * scenario.skew_s)
        self._measures = Measures()
        self._inspector = Inspector(scenario.network.k, random.Random(f"{options.seed}/inspector"))
        self._seeds: list[SeedServer] = []
        self._seed_hosts: list[VirtualHost] = []
        self._population: Population
        self._underworld: Underworld
        self._samples: list[Sample] = []
        self._bytes = _Bytes()
        self._step = ""
        self._ends_s = 0.0
        self._stock: StockSettler | None = None

    def stock_world(self) -> AbstractContextManager[None]:
        """What stock kademlia needs round a run."""
        if self._options.node == "ours":
            return nullcontext()
        return stock_world(random.Random(f"{self._options.seed}/stock"), lambda: self._world.loop.time())

    async def run(self) -> _Outcome:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_problem)
        scenario, outcome = self._options.scenario, _Outcome()
        before = rss_bytes()
        self._population = Population(self._world, await self._settler(), scenario.skew_s, scenario.skewed)
        self._underworld = Underworld(self._world, self._population, self._network)
        workload = Workload(
            self._world,
            self._population,
            self._truth,
            self._measures,
            self._inspector,
            self._underworld,
            peers=self._options.peers,
            kill_seeds=self._kill_seeds,
            has_stormed=lambda: self._stock is not None and self._stock.budget.spent_at_s is not None,
        )
        sampler = loop.create_task(self._sample_regularly(), name="sampler")
        try:
            for number, step in enumerate(scenario.steps):
                self._step = step_name(step)
                self._ends_s = loop.time() + sum(span_s(s, self._options.peers) for s in scenario.steps[number:])
                await workload.do(number, step)
                if number == 0:
                    outcome.built_bytes = rss_bytes() - before
        finally:
            sampler.cancel()
        self._sample()
        outcome.sim_s = loop.time()
        self._look_back(outcome)
        await workload.end()
        for server in self._seeds:
            await server.aclose()
        await asyncio.sleep(1.0)
        self._look_for_remains()
        return outcome

    # --- building ---

    async def _settler(self) -> Settler:
        options = self._options
        if options.node == "stock":
            self._stock = StockSettler(self._world, self._network, options.peers)
            return self._stock
        if options.level == "node":
            return _NodeSettler(self._world, self._network, options.scenario.node_config)
        for _ in range(options.scenario.seeds):
            host = self._world.host()
            host.is_seed = True
            self._seed_hosts.append(host)
            self._seeds.append(await SeedServer.open(network=self._network, listen=ANY4, host=host))
        return _PeerSettler(self._world, self._network, [server.url() for server in self._seeds])

    def _kill_seeds(self) -> None:
        for host in self._seed_hosts:
            self._world.crash(host)

    def _on_problem(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Something raised behind everybody's back."""
        error = context.get("exception")
        self._inspector.check(False, f"{context.get('message')}: {type(error).__name__}: {error}")

    # --- looking ---

    async def _sample_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._options.scenario.sample_s)
            self._sample()

    def _sample(self) -> None:
        now = self._world.loop.time()
        residents = self._population.residents
        self._inspector.look(residents, now)
        health = self._health()
        self._underworld.look(residents)
        sent = sum(life.all_bytes_sent for life in self._population.lives)
        sent += sum(host.bytes_sent for host in self._seed_hosts)
        interval = self._measures.interval
        self._samples.append(
            Sample(
                at_s=now,
                phase=self._step,
                live=len(residents),
                correct=interval[Verdict.CORRECT],
                stale=interval[Verdict.STALE],
                wrong=interval[Verdict.WRONG],
                failed=interval[Verdict.FAILED],
                bytes_sent=sent - self._bytes.sent,
                datagrams=self._world.datagrams - self._bytes.datagrams,
                seed_bytes=self._world.seed_bytes - self._bytes.seeds,
                seats_mean=health.seats,
                dead_seats=health.dead_seats,
                neighbours_known=health.neighbours_known,
            )
        )
        interval.clear()
        self._bytes = _Bytes(sent, self._world.datagrams, self._world.seed_bytes)
        counts = self._measures.all
        done = sum(counts.verdicts.values()) + counts.local
        self._on_progress(Progress(self._step, now, self._ends_s, len(residents), done))

    def _health(self) -> Health:
        population = self._population
        return self._inspector.health(population.residents, population.space, self._underworld.standing)

    def _look_back(self, outcome: _Outcome) -> None:
        now = self._world.loop.time()
        population = self._population
        lives = population.lives
        outcome.requests = sum(life.resident.requests for life in lives)
        outcome.requests += sum(server.counters["dht.sent"] for server in self._seeds)
        outcome.node_bytes_s = [life.all_bytes_sent / span for life in lives if (span := life.span_s(now)) > 1]
        outcome.seed_bytes_s = [host.bytes_sent / now for host in self._seed_hosts] if now else []
        sent = sum(life.all_bytes_sent for life in lives) + sum(host.bytes_sent for host in self._seed_hosts)
        outcome.seed_share = self._world.unasked_seed_bytes / sent if sent and self._seed_hosts else None
        health = self._health()
        outcome.health = {
            "seats_mean": health.seats,
            "dead_seats": health.dead_seats,
            "neighbours_known": health.neighbours_known,
            "evicted_share_h": self._inspector.evicted_share_h,
            **self._underworld.figures(),
        }
        outcome.replicas = self._count_replicas()
        if self._stock is not None:
            budget = self._stock.budget
            self._inspector.check(
                budget.spent_at_s is None,
                f"all {budget.limit} requests that the nodes may send were spent after {budget.spent_at_s} s: they go "
                "on causing each other",
            )

    def _count_replicas(self) -> list[float]:
        """How many of the true k closest hold the newest record, for a sample of records that are live."""
        population, k = self._population, self._network.k
        now = self._world.loop.time()
        keys = [life.resident.key for life in population.lives if self._truth.is_live(life.resident.key, EPOCH + now)]
        step = max(1.0, len(keys) / _REPLICA_KEYS)
        keys = [keys[int(index * step)] for index in range(int(len(keys) / step))]
        by_id = {as_long(resident.node_id): resident for resident in population.residents}
        held: dict[int, dict[bytes, int]] = {}
        counts = []
        for key in keys:
            said = self._truth.newest(key)
            nearest = population.space.nearest(as_long(key), k)
            count = 0
            for node_id in nearest:
                if node_id not in held:
                    held[node_id] = {record.key: record.seq for record in by_id[node_id].held()}
                count += said is not None and held[node_id].get(key, -1) >= said.seq
            counts.append(float(count))
        return counts

    def _look_for_remains(self) -> None:
        """No task, no timer, no socket is left when all have stopped."""
        tasks = sorted(task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task())
        self._inspector.check(not tasks, f"tasks are left: {', '.join(tasks[:10])}")
        pending = self._world.loop.pending()
        self._inspector.check(not pending, f"{pending} timers are left")
        self._inspector.check(not self._world.sockets, f"{len(self._world.sockets)} sockets are left")
        self._inspector.check(not self._world.links, f"{len(self._world.links)} ends of links are left")

    # --- results ---

    def result(self, outcome: _Outcome, watch: Stopwatch, profile: list[ProfileLine]) -> Run:
        options, scenario, counts = self._options, self._options.scenario, self._measures.all
        rtt_s = mean_rtt_s(self._world.wires.between, len(self._world.hosts))
        expectations = self._expectations(outcome, rtt_s)
        invariants = Invariants(self._inspector.checked, self._inspector.broken)
        built = max(1, len(self._population.lives))
        rtts = [seconds / rtt_s for seconds in counts.lookup_s] if rtt_s else []
        summary = Summary(
            scenario=options.name,
            peers=options.peers,
            seed=options.seed,
            node=options.node,
            level=options.level,
            crypto=options.crypto if options.node == "ours" else "off",
            sim_s=outcome.sim_s,
            wall_s=watch.wall_s,
            us_per_request=watch.cpu_s / outcome.requests * 1e6 if outcome.requests else None,
            requests=outcome.requests,
            peak_rss_bytes=peak_rss_bytes(),
            bytes_per_node=outcome.built_bytes / built if outcome.built_bytes > 0 else None,
            lookups=counts.lookups(),
            lookup_s=quantiles(counts.lookup_s),
            lookup_rtts=quantiles(rtts),
            requests_per_lookup=mean(counts.requests),
            hops=counts.hop_counts(),
            publish_s=quantiles(counts.publish_s),
            replicas_mean=mean(outcome.replicas),
            bytes_per_node_s={
                "mean": mean(outcome.node_bytes_s),
                "p99": quantile(outcome.node_bytes_s, 0.99),
            },
            seed_share=outcome.seed_share,
            messages=counts.messages(),
            invariants=invariants,
            trace_digest=self._world.trace.digest,
            held=not invariants.broken and all(expectation.held for expectation in expectations),
        )
        return Run(
            question=scenario.question,
            world=str(self._world.conditions),
            command=options.command,
            summary=summary,
            samples=self._samples,
            lookup_s=counts.lookup_s,
            mean_rtt_s=rtt_s,
            hops=counts.hops,
            publish_s=counts.publish_s,
            node_bytes_s=outcome.node_bytes_s,
            seed_bytes_s=outcome.seed_bytes_s,
            expectations=expectations,
            broken=self._inspector.words,
            profile=profile,
        )

    def _expectations(self, outcome: _Outcome, rtt_s: float) -> list[Expectation]:
        """What the scenario wanted beside what was. A known failure that does not fail is one too: its mark must go."""
        options = self._options
        figures = self._measures.all.figures(rtt_s) | outcome.health
        figures["seed_share"] = outcome.seed_share
        figures["replicas_mean"] = mean(outcome.replicas)
        figures["bytes_per_node_s.mean"] = mean(outcome.node_bytes_s)
        figures["bytes_per_node_s.p50"] = quantile(outcome.node_bytes_s, 0.5)
        for name, measures in self._measures.steps.items():
            figures |= {f"{name}.{what}": figure for what, figure in measures.figures(rtt_s).items()}
        assert set(figures) >= RUN_FIGURES
        expectations = []
        for expect in options.scenario.expect:
            measured = figures.get(expect.that)
            holds = condition(expect.is_).holds(measured)
            marks = [
                mark
                for mark in expect.known_to_fail
                if (mark.peers, mark.seed, mark.node) == (options.peers, options.seed, options.node)
                and (mark.level or options.scenario.level) == options.level
            ]
            words = "not measured" if measured is None else f"{measured:.6g}"
            if marks and holds:
                words += ", and it was marked as known to fail: remove the mark"
            expectations.append(
                Expectation(
                    expect.that,
                    expect.is_,
                    words,
                    held=holds != bool(marks),
                    expected_to_fail=marks[0].issue if marks else "",
                )
            )
        return expectations


@dataclass(frozen=True, slots=True)
class _NodeSettler:
    world: World
    network: NetworkConfig
    config: DhtConfig

    def make(self, host: VirtualHost) -> Resident:
        return NodeResident(self.world, host, self.network, config=self.config)


@dataclass(frozen=True, slots=True)
class _PeerSettler:
    world: World
    network: NetworkConfig
    seeds: list[SeedUrl]

    def make(self, host: VirtualHost) -> Resident:
        return PeerResident(self.world, host, self.network, self.seeds, alone=not self.seeds)


def _profile_lines(profiler: cProfile.Profile | None) -> list[ProfileLine]:
    """CPU time by file, the greatest first."""
    if profiler is None:
        return []
    by_file: dict[str, float] = {}
    total = 0.0
    for (file, _, function), (_, _, own_s, _, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined] # documented in pstats' source only
        path = Path(file)
        if "dht_atonce" in path.parts or "atonce_sim" in path.parts or "atonce_seed" in path.parts:
            where = "/".join(path.parts[-2:])
        elif "sodium" in function or "nacl" in path.parts:
            where = "libsodium and PyNaCl"
        elif file == "~":
            where = "Python's own built-ins"
        else:
            where = f"library {path.parts[-2]}" if len(path.parts) > 1 else file
        by_file[where] = by_file.get(where, 0.0) + own_s
        total += own_s
    ranked = sorted(by_file.items(), key=lambda item: -item[1])[:_PROFILE_LINES]
    return [ProfileLine(where, own_s / total) for where, own_s in ranked]
