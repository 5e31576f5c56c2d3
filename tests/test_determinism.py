"""One number replays a run, byte for byte: in another process, and whatever PYTHONHASHSEED is."""

import os
import subprocess
import sys

import pytest

from atonce_sim.scenario_file import load_scenario
from atonce_sim.simulation import Options, simulate

_RUN = """
import sys
from atonce_sim.scenario_file import load_scenario
from atonce_sim.simulation import Options, simulate
name, level, crypto, seed = sys.argv[1:]
_, scenario = load_scenario(name)
run = simulate(Options(name, name, scenario, 12, int(seed), "ours", level, crypto))
print(run.summary.trace_digest, run.summary.requests)
"""


def digest(name: str, level: str, crypto: str, *, seed: int = 1, hash_seed: str = "0") -> str:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", _RUN, name, level, crypto, str(seed)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize(
    ("name", "level", "crypto"), [("seed-dies", "peer", "real"), ("churn", "node", "off"), ("loss", "peer", "off")]
)
def test_a_run_is_the_same_in_another_process(name: str, level: str, crypto: str) -> None:
    one = digest(name, level, crypto, hash_seed="1")
    assert one == digest(name, level, crypto, hash_seed="4242")
    assert int(one.split()[1]) > 100


def test_a_run_is_the_same_twice_in_one_process_and_another_with_another_seed() -> None:
    _, scenario = load_scenario("loss")

    def run(seed: int) -> str:
        return simulate(Options("loss", "loss", scenario, 12, seed, level="peer")).summary.trace_digest

    assert run(1) == run(1)
    assert run(1) != run(2)
