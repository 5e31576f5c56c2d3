"""Each scenario of the library at a small size: its rules hold, and so does what it expects.

What is known not to hold at such a size and seed is marked in the scenario's own file, and must fail there.
"""

import functools

import pytest

from atonce_sim.results import Run
from atonce_sim.scenario_file import library, load_scenario
from atonce_sim.simulation import Options, simulate

SIZES = {
    "churn": [30],
    "clock-skew": [40],
    "cold-start-1-2-3": [1, 2, 3],
    "flash-crowd": [40],
    "loss": [40],
    "mass-death": [60],
    "no-faults": [40],
    "partition-heal": [40],
    "restart-everyone": [40],
    "scaling": [60],
    "seed-dies": [40],
}
RUNS = [(name, peers) for name, sizes in SIZES.items() for peers in sizes]


@functools.cache
def the_run(name: str, peers: int) -> Run:
    _, scenario = load_scenario(name)
    return simulate(Options(name, name, scenario, peers, level=scenario.level))


def test_all_of_the_library_is_here() -> None:
    assert set(SIZES) == set(library())


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
