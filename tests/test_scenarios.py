"""Each scenario of the library at a small size: what it expects holds, or is marked as known not to hold yet."""

import pytest

from atonce_sim.scenario_file import library, load_scenario
from atonce_sim.simulation import Options, simulate

SIZES = {
    "scaling": [60],
    "churn": [30],
    "mass-death": [60],
    "loss": [40],
    "partition-heal": [40],
    "seed-dies": [40],
    "clock-skew": [40],
    "cold-start-1-2-3": [1, 2, 3],
    "flash-crowd": [60],
    "restart-everyone": [40],
}


def test_every_scenario_is_tried() -> None:
    assert set(SIZES) == set(library())


@pytest.mark.parametrize(("name", "peers"), [(name, peers) for name, sizes in SIZES.items() for peers in sizes])
def test_a_scenario_holds_at_a_small_size(name: str, peers: int) -> None:
    _, scenario = load_scenario(name)
    run = simulate(Options(name, name, scenario, peers, level=scenario.level))
    assert run.broken == []
    assert [expectation for expectation in run.expectations if not expectation.held] == []
    assert run.summary.held
    assert run.summary.invariants.checked > 100 or peers < 3
    assert run.summary.lookups.attempted >= 10 or peers < 3
