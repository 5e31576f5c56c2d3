"""Durable messages between real processes that are killed, on real disks: `examples/durable.py` as its users run it."""

import signal
import sqlite3
import stat
import sys
from pathlib import Path

import pytest
from cli_support import Process, peer, seed

pytestmark = pytest.mark.process

EXAMPLE = [sys.executable, str(Path(__file__).parent.parent / "examples" / "durable.py")]
JOBS = 300


def words(line: bytes) -> list[str]:
    return line.decode().split()


def test_the_example_as_it_is_meant(tmp_path: Path) -> None:
    with seed(tmp_path / "seed") as entry, Process("work", entry.url, tmp_path / "bob", command=EXAMPLE) as worker:
        ready, worker_id = words(worker.line())
        assert ready == "ready"
        with Process("give", entry.url, tmp_path / "alice", worker_id, "wash", "dry", command=EXAMPLE) as giver:
            assert giver.ends().text == "kept 2\ndelivered 2\n"
        lines = [words(worker.line()) for _ in range(4)]
        assert [line[-1] for line in lines if line[0] == "new"] == ["wash", "dry"]
        assert [line[1] for line in lines if line[0] == "done"] == [line[1] for line in lines if line[0] == "new"]
        worker.signal(signal.SIGINT)
        worker.ends()
    for name in ("alice", "bob"):
        path = tmp_path / name / "messages.db"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with sqlite3.connect(path) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            counts = "SELECT (SELECT COUNT(*) FROM outbox), (SELECT COUNT(*) FROM inbox)"
            assert database.execute(counts).fetchone() == (0, 0)
        database.close()


def test_killed_on_both_sides_nothing_kept_is_lost_and_nothing_comes_after_it_was_done(tmp_path: Path) -> None:
    jobs = [f"job-{number}" for number in range(JOBS)]
    seen: dict[str, str] = {}
    done: list[str] = []

    def read(line: bytes) -> None:
        what, message_id, *rest = words(line)
        if what == "done":
            done.append(message_id)
        else:
            assert message_id not in done, f"{rest} came again after it was done"
            seen[message_id] = rest[0]

    # A third peer, so that there is a network while both others are dead.
    with seed(tmp_path / "seed") as entry, peer(tmp_path / "carol", entry.url):
        with Process("work", entry.url, tmp_path / "bob", command=EXAMPLE) as worker:
            _, worker_id = words(worker.line())
            with Process("give", entry.url, tmp_path / "alice", worker_id, *jobs, command=EXAMPLE) as giver:
                read(worker.line())
                for _ in range(20):
                    read(worker.line())
                worker.signal(signal.SIGKILL)
                assert giver.line() == b"kept %d\n" % JOBS
                giver.signal(signal.SIGKILL)
                giver.ends()
            for line in worker.ends().out.splitlines()[22:]:
                read(line)
        with Process("work", entry.url, tmp_path / "bob", command=EXAMPLE) as worker:
            assert words(worker.line()) == ["ready", worker_id]
            with Process("give", entry.url, tmp_path / "alice", worker_id, "last", command=EXAMPLE) as giver:
                while "last" not in seen.values() or done[-1] != list(seen)[-1]:
                    read(worker.line())
                assert giver.ends().text == "kept 1\ndelivered 1\n"
            worker.signal(signal.SIGINT)
            worker.ends()
    assert list(seen.values()) == [*jobs, "last"]  # all, in the order in which they were given
    assert len(done) == len(set(done)) >= JOBS - 1  # one may have been done and not said so
