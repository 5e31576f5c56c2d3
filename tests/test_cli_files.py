"""`atonce push` and `atonce pull` as real processes: killed in the middle, they go on where they were."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cli_support import Member, Process, atonce, peer, seed, until

CONTENT = random.Random(5).randbytes(40 << 20)


class Desk(NamedTuple):
    """Bob, who takes and gives files, and somebody with a profile that no process uses."""

    bob: Member
    inbox: Path
    shelf: Path
    home: Path
    options: list[str]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    inbox, shelf, home = (tmp_path / name for name in ("inbox", "shelf", "home"))
    for folder in (inbox, shelf, home):
        folder.mkdir()
    for folder in (shelf, home):
        (folder / "film.bin").write_bytes(CONTENT)
    with (
        seed(tmp_path / "seed") as entry,
        peer(tmp_path / "bob", entry.url, "--receive", inbox, "--serve", shelf, "--max-size", "64") as bob,
    ):
        options = ["--profile", str(tmp_path / "alice"), "--seed", entry.url, "--listen", "127.0.0.1", "--json"]
        yield Desk(bob, inbox, shelf, home, options)


def part_of(folder: Path) -> int:
    """Bytes of what is there of the film."""
    part = folder / ".film.bin.part"
    return part.stat().st_size if part.exists() else 0


def kill_in_the_middle(folder: Path, *command: str | Path) -> None:
    with Process(*command) as process:
        until(lambda: part_of(folder) > 1 << 20, "a part is there")
        process.signal(signal.SIGKILL)
        process.ends()
    assert not (folder / "film.bin").exists(), "it was faster than the test"


def test_a_push_that_was_killed_goes_on_where_it_was(desk: Desk) -> None:
    command = ["push", desk.home / "film.bin", desk.bob.id, *desk.options]
    kill_in_the_middle(desk.inbox, *command)
    done = atonce(*command)
    assert done.code == 0, done
    events = done.objects
    assert events[-1]["event"] == "complete"
    assert events[-1]["size_bytes"] == events[-1]["done_bytes"] == len(CONTENT)
    assert events[-1]["resumed_bytes"] > 1 << 20
    assert (desk.inbox / "film.bin").read_bytes() == CONTENT
    assert [path.name for path in desk.inbox.iterdir()] == ["film.bin"]
    said = desk.bob.process.event("file")
    assert said["error"]  # of the one that was killed
    said = desk.bob.process.event("file")
    assert (said["name"], said["size"], said["pushed"], said["error"]) == ("film.bin", len(CONTENT), True, "")
    again = atonce(*command)
    assert "nothing is overwritten" in again.error


def test_a_pull_that_was_killed_goes_on_where_it_was(desk: Desk) -> None:
    into = desk.home / "new"
    into.mkdir()
    command = ["pull", "film.bin", desk.bob.id, "--to", into, *desk.options]
    kill_in_the_middle(into, *command)
    had = part_of(into)
    assert had > 1 << 20
    done = atonce(*command)
    assert done.code == 0, done
    assert (into / "film.bin").read_bytes() == CONTENT
    assert [path.name for path in into.iterdir()] == ["film.bin"]
    assert done.objects[-1]["resumed_bytes"] == had
    assert "No such file" in atonce("pull", "none.bin", desk.bob.id, *desk.options).error


def test_what_is_wrong_is_said_in_one_line(desk: Desk, tmp_path: Path) -> None:
    assert "is no file" in atonce("push", desk.home, desk.bob.id, *desk.options).error
    assert "is no folder" in atonce("pull", "film.bin", desk.bob.id, "--to", desk.home / "none", *desk.options).error
    assert "takes a folder" in atonce("join", "--receive", tmp_path / "none", *desk.options).error
    # Through the running process of a profile; nobody serves alice's files.
    with peer(tmp_path / "alice", desk.options[3]) as alice:
        small = desk.home / "small.txt"
        small.write_text("a few words")
        done = atonce("push", small, desk.bob.id, "--profile", tmp_path / "alice", "--json")
        assert done.object["size_bytes"] == 11
        assert (desk.inbox / "small.txt").read_text() == "a few words"
        refused = atonce("push", small, alice.id, "--profile", tmp_path / "bob")
        assert "nobody there takes what it is for; it has to run: atonce join --receive DIR" in refused.error


def test_ctrl_c_ends_a_push_and_leaves_what_came(desk: Desk) -> None:
    with Process("push", desk.home / "film.bin", desk.bob.id, *desk.options) as process:
        until(lambda: part_of(desk.inbox) > 1 << 20, "a part is there")
        process.signal(signal.SIGINT)
        outcome = process.ends()
    assert outcome.code == 130, outcome
    assert "Traceback" not in outcome.err
    until(lambda: part_of(desk.inbox) > 1 << 20, "the part stays")
