"""What a user may do wrong, and what may be wrong around them: each ends, not with success, and with one line that says
what to do. The cases are in cli_cases.py.
"""

import re
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from cli_cases import CASES, NO_ANSWER, Around, closed_port, deaf_seed, mute_listener
from cli_support import Outcome, atonce, net, seed

pytestmark = pytest.mark.process

QUICK_S = 10.0
"""For what is found out without waiting for anybody; nearly all of it is Python's start on a busy machine."""
NO_ANSWER_S = 15.0
"""For what is found out because somebody does not answer: the seed handshake waits 5 s."""


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """All cases that are tested in this run, some at a time: most of them wait, and none disturbs another."""
    wanted = {item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")}
    with ExitStack() as stack:
        running = stack.enter_context(net(tmp_path_factory.mktemp("net")))
        stopped = stack.enter_context(seed(tmp_path_factory.mktemp("stopped") / "seed"))
        stopped.process.signal(signal.SIGSTOP)
        given = mute_listener(stack), closed_port(stack), deaf_seed(running.seed, stack), stopped

        def run(case: str) -> Outcome:
            around = Around(running, tmp_path_factory.mktemp("case"), *given)
            return atonce(*CASES[case][0](around), within_s=60)

        pool = stack.enter_context(ThreadPoolExecutor(6))
        # The slowest first
        yield {
            case: pool.submit(run, case)
            for case in sorted(CASES, key=lambda case: case not in NO_ANSWER)
            if case in wanted
        }


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case: str, outcomes: dict[str, Future[Outcome]]) -> None:
    outcome = outcomes[case].result()
    assert re.search(CASES[case][1], outcome.error), outcome.error
    assert "Traceback" not in outcome.err
    assert "internal" not in outcome.err
    assert outcome.code in (1, 2)
    assert outcome.elapsed_s < (NO_ANSWER_S if case in NO_ANSWER else QUICK_S)
