"""The demo: what it shows to people and to programs, and that it leaves nothing behind."""

import asyncio
import io
import json
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_support import END_S, NOISE_S, WAIT_S, Outcome, Process, until
from demo_support import PHASES, FakeNetwork, Silence, trial_of
from rich.console import Console

from dht_atonce.cli import output as output_module
from dht_atonce.cli.demo import conduct, report
from dht_atonce.cli.demo_network import DemoNetwork, SeedGrave
from dht_atonce.cli.demo_trial import Phase, Trial
from dht_atonce.cli.demo_view import LinesView, TableView, view_for
from dht_atonce.cli.output import Output
from dht_atonce.errors import AtOnceError, ControlError

# --- for people ---


def told(console_width: int = 80, terminal: bool = True) -> tuple[Output, io.StringIO]:
    """An output for people, and what it shows."""
    shown, output = io.StringIO(), Output(as_json=False)
    output._console = Console(file=shown, width=console_width, force_terminal=terminal, highlight=False)
    return output, shown


async def test_the_report_for_people() -> None:
    output, shown = told(terminal=False)
    trial = await trial_of(FakeNetwork())
    report(trial, 8, 7.5, output)
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    text = shown.getvalue()
    assert all(f"✓  {name} " in text for name in PHASES)
    assert "sent to the seed by peers that knew others already: 0 datagrams, 0 messages" in text
    assert lines[-1].startswith("✓ everything held in 7.5 s")
    assert "✗" not in text


async def test_the_report_names_ten_problems_and_counts_the_rest() -> None:
    output, shown = told(terminal=False)
    network = FakeNetwork()
    network.lookup = lambda asker, wanted: {"record": None, "local": False, "elapsed_ms": 1.0}
    trial = await trial_of(network)
    report(trial, 8, 7.5, output)
    problems = [line for line in shown.getvalue().splitlines() if line.startswith("✗ ")]
    assert len(problems) == 12
    assert problems[-2:] == ["✗ and 30 more", "✗ not everything held in 7.5 s; times: one question or message"]
    assert "✗  lookups, seed alive " in shown.getvalue()


async def test_lines_where_there_is_no_terminal() -> None:
    output, shown = told(terminal=False)
    view = view_for(output)
    assert isinstance(view, LinesView)
    with view:
        await trial_of(FakeNetwork(), view)
    assert "\x1b" not in shown.getvalue()
    assert "lookups, seed killed: as before" in shown.getvalue()
    assert "  20 of 20 right, p50 1.0 ms, max 1.0 ms" in shown.getvalue()


async def test_a_table_that_grows_on_a_terminal() -> None:
    output, shown = told()
    view = view_for(output)
    assert isinstance(view, TableView)
    with view:
        trial = Trial(FakeNetwork(), view)
        await trial.join(8)
        view.begin(Phase("lookups", 20, "what it shows"))
        view.refresh()
    text = shown.getvalue()
    assert "join" in text
    assert "what it shows" in text
    assert text.endswith("\x1b[?25h") or "\x1b[?25h" in text  # the cursor is back


# --- for programs ---


async def test_what_cannot_go_on_is_a_problem_in_the_summary(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    network = FakeNetwork()

    async def kill_seed() -> SeedGrave:
        raise ControlError("nobody can be counted at the dead seed's ports: Permission denied")

    network.kill_seed = kill_seed  # type: ignore[method-assign]
    assert await conduct(network, 8, 5, 5, Output(as_json=True)) == 1
    summary = json.loads(capfdbinary.readouterr().out.splitlines()[-1])
    assert (summary["event"], summary["held"]) == ("summary", False)
    assert summary["problems"] == ["nobody can be counted at the dead seed's ports: Permission denied"]


async def test_a_reader_that_goes_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, given = os.pipe()
    os.close(reader)
    with os.fdopen(given, "w") as stdout:
        monkeypatch.setattr(output_module, "sys", SimpleNamespace(stdout=stdout))
        with pytest.raises(AtOnceError, match="whoever read the output has gone"):
            await conduct(FakeNetwork(), 8, 5, 5, Output(as_json=True))


# --- the real one ---


class Demo(Process):
    """`atonce demo`, all of whose processes can be told by a mark in their environment."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.mark = f"ATONCE_TEST_MARK={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        command = [sys.executable, "-m", "dht_atonce.cli.main"]
        super().__init__("demo", *args, command=command, env={name: value, "TMPDIR": str(folder)})
        self.folder = folder

    def processes(self) -> list[int]:
        """Pids of all that run, the demo itself included."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if self.mark.encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue  # ended meanwhile, or not ours to see
        return found

    def leaves_no_process(self) -> None:
        until(lambda: not self.processes(), f"all processes have ended: {self.processes()}")

    def leaves_nothing(self) -> None:
        """No process, and no file."""
        self.leaves_no_process()
        assert list(self.folder.iterdir()) == []


@pytest.mark.process
def test_a_demo_as_a_process(tmp_path: Path) -> None:
    with Demo(tmp_path, "--peers", "8", "--json") as demo:
        outcome: Outcome = demo.ends(90)
        assert (outcome.code, outcome.err) == (0, ""), outcome.out[-3000:]
        demo.leaves_nothing()
    *steps, summary = outcome.objects
    assert {step["event"] for step in steps} == {"step", "progress", "phase"}
    assert (summary["event"], summary["peers"], summary["held"], summary["problems"]) == ("summary", 8, True, [])
    assert summary["to_seed"] == {"datagrams": 0, "messages": 0}
    assert [phase["phase"] for phase in summary["phases"]] == PHASES
    assert [phase["asked"] for phase in summary["phases"]] == [8, 56, 56, 56, 56, 1, 8]
    for phase in summary["phases"]:
        assert phase["right"] == phase["asked"]
        assert 0 < phase["p50_ms"] <= phase["p99_ms"] <= phase["max_ms"]
    assert [step for step in steps if step["event"] == "phase"] == [
        {"event": "phase", **phase} for phase in summary["phases"]
    ]


@pytest.mark.process
@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_leaves_nothing_behind(signals: int, tmp_path: Path) -> None:
    with Demo(tmp_path, "--json") as demo:
        demo.event("step")  # the seed runs, and the first peers are about to
        until(lambda: len(demo.processes()) >= 3, "a peer is starting")
        signalled = time.monotonic()
        for _ in range(signals):
            demo.signal(signal.SIGINT)
        ended = demo.ends()
        assert (ended.code, ended.err) == (130, "")
        if signals == 1:
            demo.leaves_nothing()
        else:  # who is impatient waits for nobody, and a peer that was just being born may yet make its folder
            demo.leaves_no_process()
        assert time.monotonic() - signalled < 2 * END_S + NOISE_S


@pytest.mark.process
async def test_a_dead_peer_is_noticed() -> None:
    """Real processes, one of which is killed behind the trial's back."""
    async with asyncio.timeout(3 * WAIT_S), DemoNetwork(2) as network:
        trial = Trial(network, Silence())
        await trial.join(2)
        pids = [one.pid for one in (network.seed, *network.peers)]
        victim = network.peers[0]
        victim.kill_at_once()
        await trial.messages("messages", 4)
    assert not trial.held
    phase = trial.phases[-1]
    assert (phase.right, phase.done) == (0, 4)
    assert all(victim.folder.name in problem for problem in trial.problems), trial.problems
    assert None not in pids
    for pid in filter(None, pids):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
