"""The page and the tables that are made of runs."""

import csv
import io
import re
from pathlib import Path

import msgspec
import pytest

from atonce_sim.report import write_report
from atonce_sim.report.labels import number
from atonce_sim.results import (
    Expectation,
    Hops,
    Invariants,
    LookupCounts,
    MessageCounts,
    ProfileLine,
    Quantiles,
    Run,
    Sample,
    Summary,
    load_run,
    save_run,
)
from dht_atonce.errors import ConfigError

SUMMARY = Summary(
    scenario="scaling",
    peers=100,
    seed=1,
    node="ours",
    level="node",
    crypto="real",
    sim_s=120.0,
    wall_s=3.2,
    us_per_request=123.4,
    requests=20_000,
    peak_rss_bytes=80 << 20,
    bytes_per_node=20_480.0,
    lookups=LookupCounts(attempted=100, correct=97, stale=2, failed=1, local=40),
    lookup_s=Quantiles(0.08, 0.2, 0.4),
    lookup_rtts=Quantiles(1.1, 2.7, 5.4),
    requests_per_lookup=7.5,
    hops=Hops(1.5, 3),
    publish_s=Quantiles(0.4, 0.5, 0.9),
    replicas_mean=19.2,
    bytes_per_node_s={"mean": 400.0, "p99": 900.0},
    seed_share=0.0001,
    messages=MessageCounts(sent=50, delivered=50),
    invariants=Invariants(10_000, 0),
    trace_digest="abc123",
    held=True,
)


def some_run(**changes: object) -> Run:
    summary = msgspec.structs.replace(SUMMARY, **changes)
    samples = [
        Sample(
            at_s=10.0 * number,
            phase="join" if number < 7 else "lookups",
            live=min(100, 15 * number),
            correct=5 if number >= 7 else 0,
            failed=int(number == 9),
            bytes_sent=10_000,
            seats_mean=40.0 + number,
            dead_seats=0.01 * number,
            neighbours_known=0.97,
        )
        for number in range(1, 13)
    ]
    return Run(
        question="Do lookups stay right while the network grows?",
        world="latency 25 ms one way, everywhere",
        command=f"atonce sim run scaling --peers {summary.peers} --seed 1",
        summary=summary,
        samples=samples,
        lookup_s=[0.01 * number for number in range(1, 98)],
        mean_rtt_s=0.05,
        hops=[1] * 60 + [2] * 37,
        publish_s=[0.4] * 100,
        node_bytes_s=[300.0 + number for number in range(100)],
        seed_bytes_s=[5000.0],
        expectations=[
            Expectation("lookups.correct_share", ">= 0.9", "0.97", held=True),
            Expectation("lookup_rtts.p99", "<= 4", "5.4", held=True, expected_to_fail="repair is not built yet"),
        ],
        profile=[ProfileLine("dht/protocol.py", 0.4), ProfileLine("libsodium and PyNaCl", 0.3)],
    )


def page(folder: Path, *runs: Run) -> str:
    return write_report(list(runs), folder).read_text()


def test_one_run(tmp_path: Path) -> None:
    html = page(tmp_path, some_run())
    assert "Do lookups stay right while the network grows?" in html
    assert "97 of 100 lookups gave the right answer" in html
    assert "held, but for 1 that is known not to hold yet" in html
    assert "repair is not built yet" in html
    assert "atonce sim run scaling --peers 100 --seed 1" in html
    assert "abc123" in html
    assert html.count("<svg") == 6  # all but hops against size
    assert "Encryption was switched off" not in html
    assert not re.search(r"(src|href)=\"?http", html)  # it needs nothing else


def test_several_sizes_are_drawn_against_each_other(tmp_path: Path) -> None:
    runs = [some_run(peers=peers, hops=Hops(mean, 2 * mean)) for peers, mean in ((10, 1.0), (100, 1.4), (1000, 1.9))]
    html = page(tmp_path, *runs)
    assert "What does a larger network cost?" in html
    assert "1,000 peers" in html
    assert "Among 1,000 peers" in html


def test_ours_beside_stock_gives_ratios(tmp_path: Path) -> None:
    stock = some_run(node="stock", us_per_request=400.0, held=False)
    html = page(tmp_path, some_run(), stock)
    assert "Ours over stock kademlia" in html
    assert "0.308" in html  # 123.4 / 400


def test_a_run_that_failed_says_so(tmp_path: Path) -> None:
    bad = msgspec.structs.replace(
        some_run(held=False, invariants=Invariants(10, 3)),
        expectations=[Expectation("lookups.wrong", "== 0", "3", held=False)],
        broken=["12.0 s: lookup 7 gave a forgery"],
    )
    html = page(tmp_path, bad)
    assert "1 expectation did not hold; 3 looks found a rule broken" in html
    assert "lookup 7 gave a forgery" in html


def test_crypto_off_is_marked(tmp_path: Path) -> None:
    assert "Encryption was switched off" in page(tmp_path, some_run(crypto="off"))


def test_a_run_without_lookups_has_no_empty_pictures(tmp_path: Path) -> None:
    bare = msgspec.structs.replace(
        some_run(lookups=LookupCounts(), lookup_s=Quantiles(), lookup_rtts=Quantiles(), hops=Hops(), seed_share=None),
        samples=[],
        lookup_s=[],
        hops=[],
        node_bytes_s=[],
        seed_bytes_s=[],
        profile=[],
        expectations=[],
    )
    html = page(tmp_path, bare)
    assert "<svg" not in html
    assert "no lookup left its node" in html
    assert "it only measures" in html


def test_what_a_file_says_is_not_obeyed(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    hostile = msgspec.structs.replace(
        some_run(scenario=evil),
        question=evil,
        world=evil,
        command=evil,
        broken=[evil],
        expectations=[Expectation(evil, evil, evil, held=False, expected_to_fail=evil)],
        profile=[ProfileLine(evil, 1.0)],
        samples=[Sample(at_s=1.0, phase=evil, live=1), Sample(at_s=200.0, phase=evil, live=1)],
    )
    html = page(tmp_path, hostile, some_run())
    assert "<script" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("name", ["a $x{ $ b", "日本 🦊", "a\x00\x1b\u202eb"])
def test_any_name_can_be_drawn(tmp_path: Path, name: str) -> None:
    run = some_run(scenario=name)
    samples = [msgspec.structs.replace(sample, phase=name) for sample in run.samples]
    run = msgspec.structs.replace(run, samples=samples, profile=[ProfileLine(name, 0.5)])
    assert page(tmp_path, run, some_run()).count("<svg") == 6


def test_pictures_do_not_disturb_each_other_or_the_page(tmp_path: Path) -> None:
    html = page(tmp_path, some_run(), some_run(peers=1000))
    names = re.findall(r'\bid="([^"]+)"', html)
    assert len(names) == len(set(names))
    assert html.count("<style") == 1
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= set(names)


def test_a_picture_without_figures_is_left_out(tmp_path: Path) -> None:
    run = some_run()
    samples = [
        msgspec.structs.replace(sample, seats_mean=None, dead_seats=None, neighbours_known=None)
        for sample in run.samples
    ]
    assert "routing tables?" not in page(tmp_path, msgspec.structs.replace(run, samples=samples))


def test_runs_need_not_have_the_same_figures(tmp_path: Path) -> None:
    page(tmp_path, some_run(bytes_per_node_s={}), some_run(peers=1000, bytes_per_node_s={"p50": 2.0}))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "summary.csv").read_text())))
    assert [row["bytes_per_node_s.p50"] for row in rows] == ["", "2.0"]
    assert [row["run"] for row in rows] == ["100 peers", "1,000 peers"]


def test_tables_without_rows_still_name_their_columns(tmp_path: Path) -> None:
    page(tmp_path, msgspec.structs.replace(some_run(), samples=[], lookup_s=[]))
    assert (tmp_path / "samples.csv").read_text().startswith("run,at_s,phase,live,")
    assert (tmp_path / "lookups.csv").read_text() == "run,seconds\n"


def test_a_bad_small_run_does_not_hide_behind_a_good_large_one(tmp_path: Path) -> None:
    html = page(tmp_path, some_run(peers=10, lookups=LookupCounts(100, 3, failed=97)), some_run(peers=1000))
    assert "10 peers with seed 1: 3 of 100" in html


def test_every_scenario_has_its_answer(tmp_path: Path) -> None:
    html = page(tmp_path, some_run(scenario="loss"), some_run(peers=1000))
    assert "loss: Among 100 peers" in html
    assert "scaling: Among 1,000 peers" in html


def test_a_run_that_is_marked_as_not_held_is_never_called_good(tmp_path: Path) -> None:
    html = page(tmp_path, msgspec.structs.replace(some_run(held=False), expectations=[]))
    assert 'class="badge bad"' in html


def test_broken_invariants_that_are_not_listed_are_counted(tmp_path: Path) -> None:
    run = some_run(held=False, invariants=Invariants(1000, 231))
    html = page(tmp_path, msgspec.structs.replace(run, broken=[f"{at} s: a table lies" for at in range(100)]))
    assert html.count("a table lies") == 40
    assert "191 more that are not listed" in html


@pytest.mark.parametrize(("value", "words"), [(999.6, "1,000"), (9.996, "10"), (0.5, "0.5"), (1234.5, "1,234")])
def test_numbers_are_written_for_people(value: float, words: str) -> None:
    assert number(value) == words


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    runs = [some_run(), some_run(peers=1000)]
    assert page(tmp_path / "one", *runs) == page(tmp_path / "two", *runs)


def test_tables_hold_every_figure(tmp_path: Path) -> None:
    write_report([some_run(), some_run(peers=1000, scenario="=evil()")], tmp_path)

    def rows(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO((tmp_path / name).read_text())))

    summary = rows("summary.csv")
    assert [row["peers"] for row in summary] == ["100", "1000"]
    assert summary[0]["lookups.correct"] == "97"
    assert summary[0]["lookup_s.p99"] == "0.4"
    assert summary[1]["scenario"] == "'=evil()"
    assert len(rows("samples.csv")) == 24
    assert len(rows("lookups.csv")) == 2 * 97
    assert {row["kind"] for row in rows("nodes.csv")} == {"peer", "seed"}


def test_no_runs_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one run"):
        write_report([], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_report([some_run()], tmp_path / "file")


def test_a_run_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    run = some_run()
    save_run(run, tmp_path / "run.json")
    assert load_run(tmp_path / "run.json") == run
    for text, words in (("{", "no run of"), ('{"format": 2}', "no run of"), ("[]", "no run of")):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_run(tmp_path / "other.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_run(tmp_path / "missing.json")
