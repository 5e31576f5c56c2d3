"""Each scenario of the library at a small size: its rules hold, and so does what it expects.

What is known not to hold at such a size and seed is marked in the scenario's own file, and must fail there.
"""

import functools
from typing import Any

import msgspec
import pytest

from atonce_sim.results import Run
from atonce_sim.scenario import Invade, Lookups, Scenario, Wait
from atonce_sim.scenario_file import library, load_scenario
from atonce_sim.simulation import Options, simulate

SIZES = {
    "half-dies": [40],
    "long-sessions": [24],  # of 20, one that died minutes ago has more seats than are allowed
    "quick-churn": [16],
    "churn": [30],
    "clock-skew": [30],
    "disks": [24],
    "cold-start-1-2-3": [1, 2, 3],
    "flash-crowd": [40],
    "loss": [40],
    "mass-death": [60],
    "no-faults": [40],
    "partition-heal": [30],
    "restart-everyone": [30],
    "scaling": [60],
    "seed-dies": [30],
}
TRIMMED = {
    "amplification": 12,
    "eclipse": 12,
    "flood": 12,
    "forgers": 16,
    "growth": 16,
    "hostile-blackholes": 16,
    "hostile-hoarders": 16,
    "hostile-liars": 16,
    "liars-at-a-key": 16,
    "loss-eviction": 12,
    "no-faults-10k": 16,
    "redirect": 16,
    "resurrection": 16,
    "skew": 16,
    "skew-of-an-hour": 16,
    "storage-flood": 12,
    "sybils-at-a-key": 16,
}
"""Those whose numbers mean something in a large network only: here fewer replicas and shorter attacks show that they
run, that nothing forged is ever believed, and that they end cleanly."""
RUNS = [(name, peers) for name, sizes in SIZES.items() for peers in sizes]


def trimmed(scenario: Scenario) -> Scenario:
    """The same with four replicas, few attackers and short waits."""
    steps: list[Any] = []
    for step in scenario.steps:
        if isinstance(step, Invade):
            short = {"for_s": 1.0, "per_s": 100.0, "puts": 60, "nodes": 4}
            known = {name: value for name, value in short.items() if hasattr(step.who, name)}
            who, count = msgspec.structs.replace(step.who, **known), step.count and min(step.count, 12)
            steps.append(msgspec.structs.replace(step, who=who, count=count))
        elif isinstance(step, Wait):
            steps.append(msgspec.structs.replace(step, s=min(step.s, 20)))
        elif isinstance(step, Lookups):
            steps.append(msgspec.structs.replace(step, count=None, per_peer=2.0))
        else:
            steps.append(step)
    network = msgspec.structs.replace(scenario.network, k=4)
    node = {name: 30 for name in scenario.node if name == "max_records"}
    return msgspec.structs.replace(scenario, steps=steps, network=network, node=node)


@pytest.mark.parametrize("name", TRIMMED)
def test_each_attack_runs_its_course_and_nothing_forged_is_believed(name: str) -> None:
    _, scenario = load_scenario(name)
    run = simulate(Options(name, name, trimmed(scenario), TRIMMED[name], level=scenario.level))
    assert run.broken == []
    assert run.summary.lookups.wrong == 0
    assert run.summary.lookups.attempted >= TRIMMED[name]
    assert not [mark for mark in run.expectations if mark.measured == "not measured"]
    (forged, *_) = [mark.measured for mark in run.expectations if mark.what == "forged"] or ["0"]
    assert forged == "0"


@functools.cache
def the_run(name: str, peers: int) -> Run:
    _, scenario = load_scenario(name)
    return simulate(Options(name, name, scenario, peers, level=scenario.level))


def test_all_of_the_library_is_here() -> None:
    assert SIZES.keys() | TRIMMED.keys() == set(library())


@pytest.mark.parametrize(("name", "peers"), RUNS)
def test_no_rule_is_broken_and_much_was_looked_at(name: str, peers: int) -> None:
    run = the_run(name, peers)
    assert run.broken == []
    summary = run.summary
    assert summary.invariants.broken == 0
    assert summary.invariants.checked > 50 * peers
    assert summary.lookups.wrong == 0
    assert summary.messages.lost == summary.messages.doubled == 0
    # Of few peers everybody holds everything: only what nobody ever said is asked of others.
    assert summary.lookups.attempted >= (20 if peers <= 3 else peers)


@pytest.mark.parametrize(("name", "peers"), RUNS)
def test_what_it_expects_holds(name: str, peers: int) -> None:
    run = the_run(name, peers)
    assert [expectation for expectation in run.expectations if not expectation.held] == []
    assert run.summary.held


@pytest.mark.parametrize(("peers", "messages"), [(1, 0), (2, 40), (3, 40)])
def test_in_a_network_of_two_or_three_each_step_does_all_that_it_says(peers: int, messages: int) -> None:
    # Who picks a partner picks another one, and never gives up because it picked itself.
    name, scenario = load_scenario("cold-start-1-2-3")
    counts = simulate(Options(name, name, scenario, peers, seed=5, level="peer")).summary.messages
    assert (counts.sent, counts.delivered) == (messages, messages)
