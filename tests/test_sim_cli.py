"""`atonce sim` as its users have it: what it prints, and when it says that all is well."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from cli_support import Process, at_once, atonce

from atonce_sim.results import load_run
from atonce_sim.scenario_file import library

pytestmark = pytest.mark.process

TOWN = """\
question = "Are they found?"
level = "node"
peers = 24
sample_s = 5

[network]
k = 4

[[steps]]
do = "join"
name = "coming"
over_s = 10

[[steps]]
do = "lookups"
count = 10
over_s = 10

[[expect]]
that = "entered_share"
is = "== 1"
"""

FAILS = '[[expect]]\nthat = "lookups.attempted"\nis = ">= 1000"\n'
QUANTILES = {"p50", "p90", "p99"}
PROMISED: dict[str, Any] = {
    "scenario": str,
    "peers": int,
    "seed": int,
    "node": str,
    "level": str,
    "crypto": str,
    "sim_s": float,
    "wall_s": float,
    "us_per_request": float,
    "requests": int,
    "peak_rss_bytes": int,
    "bytes_per_node": float,
    "lookups": {"attempted", "correct", "stale", "wrong", "failed", "local", "local_stale"},
    "lookup_s": QUANTILES,
    "lookup_rtts": QUANTILES,
    "requests_per_lookup": float,
    "hops": {"mean", "p99"},
    "publish_s": QUANTILES,
    "replicas_mean": float,
    "bytes_per_node_s": {"mean", "p99"},
    "seed_share": None,
    "messages": {"sent", "delivered", "lost", "doubled", "unknown"},
    "invariants": {"checked", "broken"},
    "trace_digest": str,
    "held": bool,
    "expectations": list,
    "broken": list,
    "replay": str,
}
"""Field of the summary → its type, the keys of its object, or None for null."""


@pytest.fixture
def town(tmp_path: Path) -> Path:
    return write(tmp_path, TOWN)


def write(folder: Path, text: str, name: str = "town") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


# --- list ---


def test_list_names_the_scenarios_and_their_questions() -> None:
    for_people, for_programs = at_once(lambda: atonce("sim", "list"), lambda: atonce("sim", "list", "--json"))
    assert (for_people.code, for_programs.code) == (0, 0)
    assert [entry["name"] for entry in for_programs.objects] == list(library())
    assert all(set(entry) == {"name", "question", "peers", "level"} for entry in for_programs.objects)
    words = " ".join(for_people.text.split())
    for entry in for_programs.objects:
        assert f"{entry['name']} {entry['question']}" in words


# --- run ---


def test_the_last_line_of_a_run_is_the_summary(town: Path) -> None:
    outcome = atonce("sim", "run", town, "--seed", "7", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    *steps, summary = outcome.objects
    assert [step["step"] for step in steps] == ["coming", "lookups"]
    assert all(step["event"] == "step" and step["up"] > 0 for step in steps)
    assert set(summary) == set(PROMISED)
    for name, kind in PROMISED.items():
        if isinstance(kind, set):
            assert set(summary[name]) == kind, name
        elif kind is None:
            assert summary[name] is None, name
        else:
            assert isinstance(summary[name], kind), name
    assert (summary["scenario"], summary["peers"], summary["seed"]) == ("town", 24, 7)
    assert (summary["node"], summary["level"], summary["crypto"], summary["held"]) == ("ours", "node", "real", True)
    lookups = summary["lookups"]
    assert lookups["attempted"] == sum(lookups[verdict] for verdict in ("correct", "stale", "wrong", "failed")) > 3
    assert summary["invariants"]["checked"] > 100
    assert summary["sim_s"] >= 20 > summary["wall_s"]
    assert summary["expectations"] == [
        {"what": "entered_share", "wanted": "== 1", "measured": "1", "held": True, "expected_to_fail": ""}
    ]
    assert summary["replay"] == f"atonce sim run {town} --peers 24 --seed 7"
    assert len(summary["trace_digest"]) == 32


def test_one_number_replays_a_run_and_another_is_another(town: Path) -> None:
    summaries = [
        outcome.objects[-1]
        for outcome in at_once(
            *(lambda seed=seed: atonce("sim", "run", town, "--seed", seed, "--json") for seed in ("3", "3", "4"))
        )
    ]
    digests = [summary["trace_digest"] for summary in summaries]
    assert digests[0] == digests[1] != digests[2]
    costs = {"wall_s", "us_per_request", "peak_rss_bytes", "bytes_per_node"}
    one, two = ({key: value for key, value in summary.items() if key not in costs} for summary in summaries[:2])
    assert one == two


def test_people_are_told_the_verdict_and_how_to_see_it_again(tmp_path: Path) -> None:
    holds, fails = write(tmp_path, TOWN), write(tmp_path, TOWN + FAILS, "fails")
    good, bad = at_once(lambda: atonce("sim", "run", holds), lambda: atonce("sim", "run", fails))
    assert (good.code, good.err) == (0, "")
    assert "Are they found?" in good.text
    assert "✓ entered_share == 1: 1" in good.text
    assert "✓ it holds" in good.text
    assert f"atoncesimrun{holds}--peers24--seed1" in "".join(good.text.split())  # however its lines are broken
    assert (bad.code, bad.err) == (1, "")
    assert "✓ entered_share == 1: 1" in bad.text
    assert "✗ lookups.attempted >= 1000: " in bad.text
    assert "✗ it does not hold" in bad.text


def test_options_are_obeyed(town: Path) -> None:
    outcome = atonce("sim", "run", town, "--peers", "9", "--level", "peer", "--crypto", "off", "--json")
    assert outcome.code == 0
    summary = outcome.objects[-1]
    assert (summary["peers"], summary["level"], summary["crypto"]) == (9, "peer", "off")
    assert summary["replay"] == f"atonce sim run {town} --peers 9 --seed 1 --level peer --crypto off"
    assert summary["seed_share"] is not None


def test_a_run_can_be_saved(town: Path, tmp_path: Path) -> None:
    runs = tmp_path / "deep" / "runs"
    outcome = atonce("sim", "run", town, "--seed", "2", "--save", runs, "--json")
    assert outcome.code == 0
    (path,) = runs.iterdir()
    assert path.name == "town-24-2-ours.json"
    run = load_run(path)
    assert run.summary.trace_digest == outcome.objects[-1]["trace_digest"]
    assert run.samples[0].phase == "coming"
    assert run.samples[-1].live == 24


# --- what is expected ---


def test_an_expectation_that_does_not_hold_gives_1(tmp_path: Path) -> None:
    outcome = atonce("sim", "run", write(tmp_path, TOWN + FAILS), "--json")
    assert outcome.code == 1
    summary = outcome.objects[-1]
    assert summary["held"] is False
    assert summary["invariants"]["broken"] == 0
    assert [expectation["held"] for expectation in summary["expectations"]] == [True, False]


def test_what_was_not_measured_does_not_hold(tmp_path: Path) -> None:
    text = TOWN + '[[expect]]\nthat = "messages.delivered_share"\nis = ">= 0"\n'
    outcome = atonce("sim", "run", write(tmp_path, text), "--json")
    assert outcome.code == 1
    assert outcome.objects[-1]["expectations"][1]["measured"] == "not measured"


MARK = 'known_to_fail = [{{ peers = {peers}, seed = {seed}, issue = "nobody built it yet" }}]\n'


@pytest.mark.parametrize(
    ("expects", "peers", "seed", "code", "held"),
    [
        ('"lookups.attempted"\nis = ">= 1000"\n', 24, 1, 0, True),  # it fails, as it is marked
        ('"lookups.attempted"\nis = ">= 1"\n', 24, 1, 1, False),  # it does not fail, and the mark must go
        ('"lookups.attempted"\nis = ">= 1000"\n', 24, 2, 1, False),  # it fails, and is marked for another seed
        ('"lookups.attempted"\nis = ">= 1000"\n', 25, 1, 1, False),  # for another size
        ('"lookups.attempted"\nis = ">= 1"\n', 24, 2, 0, True),  # it holds; the mark is for another seed
    ],
)
def test_marks_of_known_failures(tmp_path: Path, expects: str, peers: int, seed: int, code: int, held: bool) -> None:
    text = TOWN + f"[[expect]]\nthat = {expects}" + MARK.format(peers=peers, seed=seed)
    outcome = atonce("sim", "run", write(tmp_path, text), "--json")
    assert outcome.code == code
    expectation = outcome.objects[-1]["expectations"][1]
    assert expectation["held"] is held
    applies = (peers, seed) == (24, 1)
    assert expectation["expected_to_fail"] == ("nobody built it yet" if applies else "")
    assert ("remove the mark" in expectation["measured"]) is (applies and not held)


def test_people_see_a_known_failure_as_one(tmp_path: Path) -> None:
    text = TOWN + FAILS + MARK.format(peers=24, seed=1)
    outcome = atonce("sim", "run", write(tmp_path, text))
    assert outcome.code == 0
    assert "○ lookups.attempted >= 1000: " in outcome.text
    assert "known not to hold yet: nobody built it yet" in " ".join(outcome.text.split())


# --- mistakes ---


def test_mistakes_are_told_in_one_line(tmp_path: Path) -> None:
    wrong = write(tmp_path, TOWN.replace('"join"', '"jion"'), "wrong")
    talks = write(tmp_path, TOWN.replace("[[steps]]", '[[steps]]\ndo = "messages"\ncount = 1\n\n[[steps]]', 1), "talks")
    unknown, missing, mistake, level, stock, hostile = at_once(
        lambda: atonce("sim", "run", "mass-deth"),
        lambda: atonce("sim", "run", tmp_path / "nowhere.toml", "--json"),
        lambda: atonce("sim", "run", wrong, "--json"),
        lambda: atonce("sim", "run", talks),
        lambda: atonce("sim", "run", "scaling", "--node", "stock", "--peers", "5000"),
        lambda: atonce("sim", "run", "forgers", "--node", "stock"),
    )
    for outcome in (unknown, missing, mistake, level, stock, hostile):
        assert (outcome.code, outcome.out) == (1, b"")
    assert unknown.error.startswith("there is no scenario 'mass-deth'; there are ")
    assert all(name in unknown.error for name in library())
    assert missing.error == f"{tmp_path}/nowhere.toml cannot be read: No such file or directory"
    line = TOWN.split("\n").index('do = "join"') + 1
    assert mistake.error.startswith(f"{wrong}, line {line} (steps.1.do): Invalid value 'jion': Expected one of `join`")
    assert 'Expected `level = "peer"`' in level.error
    assert "at most 1000 peers" in stock.error
    assert "hostile peers" in hostile.error


def test_a_scenario_with_messages_cannot_be_run_by_nodes_alone() -> None:
    outcome = atonce("sim", "run", "loss", "--level", "node")
    assert outcome.code == 1
    assert outcome.error.startswith("loss sends messages")


def test_usage_mistakes() -> None:
    both, neither, none = at_once(
        lambda: atonce("sim", "replay", "loss", "--host", "1", "--lookup", "1"),
        lambda: atonce("sim", "replay", "loss"),
        lambda: atonce("sim", "run", "loss", "--peers", "0"),
    )
    for outcome in (both, neither, none):
        assert outcome.code == 2
        assert outcome.error.endswith(" --help")
    assert "give one of --host and --lookup" in both.error
    assert "give one of --host and --lookup" in neither.error


# --- replay ---


def test_replay_of_a_host_and_of_a_lookup(town: Path) -> None:
    host, lookup, people, nobody, never = at_once(
        lambda: atonce("sim", "replay", town, "--host", "5", "--json"),
        lambda: atonce("sim", "replay", town, "--lookup", "2", "--json"),
        lambda: atonce("sim", "replay", town, "--lookup", "2"),
        lambda: atonce("sim", "replay", town, "--host", "999"),
        lambda: atonce("sim", "replay", town, "--lookup", "999"),
    )
    assert (host.code, lookup.code, people.code) == (0, 0, 0)
    of_host = [line for line in host.objects if "event" not in line]
    assert {line["host"] for line in of_host} == {5}
    assert {"sent", "arrived", "joined", "published"} <= {line["what"] for line in of_host}
    assert [line["at_s"] for line in of_host] == sorted(line["at_s"] for line in of_host)
    of_lookup = [line for line in lookup.objects if "event" not in line]
    assert of_lookup[0]["words"].startswith("2 begins ")
    assert any(line["words"].startswith("2 ends correct ") for line in of_lookup)
    assert set(of_lookup[0]) == {"at_s", "host", "what", "other", "words"}
    # For people: a line for each event, and what proves that it was the same run.
    lines = people.text.splitlines()
    assert len(lines) == len(of_lookup) + 1
    assert "2 begins " in lines[0]
    assert lines[-1].startswith("digest of the whole run: ")
    assert nobody.error == "host 999 did nothing in this run"
    assert never.error == "there was no lookup 999 in this run"


def test_replay_is_of_the_very_run(town: Path) -> None:
    ran, seen, other = at_once(
        lambda: atonce("sim", "run", town, "--seed", "5", "--peers", "10", "--json"),
        lambda: atonce("sim", "replay", town, "--seed", "5", "--peers", "10", "--host", "1"),
        lambda: atonce("sim", "replay", town, "--seed", "6", "--peers", "10", "--host", "1"),
    )
    digest = ran.objects[-1]["trace_digest"]
    assert seen.text.splitlines()[-1].endswith(digest)
    assert not other.text.splitlines()[-1].endswith(digest)


# --- interrupted ---


@pytest.mark.parametrize("command", ["run", "replay"])
def test_an_interrupt_ends_it_at_once_with_130(tmp_path: Path, command: str) -> None:
    for_ever = TOWN.replace("[[expect]]", '[[steps]]\ndo = "wait"\ns = 600000\n\n[[expect]]')
    path = write(tmp_path, for_ever)
    with Process("sim", command, path, "--json", *(["--host", "1"] if command == "replay" else [])) as process:
        while json.loads(process.line())["step"] != "wait":
            pass
        process.signal(signal.SIGINT)
        outcome = process.ends(within_s=5)
    assert outcome.code == 130
    assert outcome.error.startswith("interrupted; it begins anew with: atonce sim run ")
    assert all(line.get("event") == "step" for line in outcome.objects)


def test_a_stock_run_alone_is_judged_as_any_other(tmp_path: Path) -> None:
    text = TOWN + '[[expect]]\nthat = "lookups.attempted"\nis = "< 0"\n'
    assert atonce("sim", "run", write(tmp_path, text), "--node", "stock", "--json").code == 1


def test_a_comparison_that_cannot_be_made_is_refused_before_its_first_half_runs() -> None:
    ended = atonce("sim", "run", "loss", "--node", "both", "--json")
    assert ended.code == 1
    assert "nodes of the DHT alone do neither" in ended.err
    assert ended.out == b""
