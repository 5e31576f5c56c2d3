"""Rooms as the command has them, and the examples: real processes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import ATONCE, Net, Process, atonce, net

from dht_atonce.identity import PeerId

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parent.parent
BINARY = bytes(range(256)) * 8


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """A seed, alice and bob; no test ends one of them."""
    with net(tmp_path_factory.mktemp("net")) as made:
        yield made


def test_a_script_tells_those_who_listen(running: Net, tmp_path: Path) -> None:
    """Alice listens through her running peer, carol with a peer of her own; bob's running peer and a passer-by tell."""
    url = ("--seed", running.seed.url)
    own = ("--profile", tmp_path / "carol", "--listen", "127.0.0.1", *url)
    with (
        Process("listen", "builds", "--json", "--profile", running.alice.profile) as alice,
        Process("listen", "builds", "--json", *own) as carol,
    ):
        assert alice.event("listening_to")["through"] == "running"
        assert carol.event("listening_to")["through"] == "own"
        assert alice.event("entered")
        told = atonce("notify", "builds", "green", "--json", "--profile", running.bob.profile).object
        assert (told["notified"], told["topic"], told["members"]) == (True, "builds", 2)
        for listener in (alice, carol):
            said = listener.event("said")
            assert (said["sender"], said["data"], said["past"]) == (running.bob.id, "Z3JlZW4=", False)
        passing = atonce(
            "notify", "builds", "--json", "--profile", tmp_path / "dave", "--listen", "127.0.0.1", *url, data=BINARY
        ).object
        assert passing["members"] == 2
        for listener in (alice, carol):
            said = listener.event("said")
            assert PeerId.parse(said["sender"])
            assert len(said["data"]) == 4 * -(-len(BINARY) // 3)
        for listener in (alice, carol):
            listener.signal(signal.SIGINT)
            assert listener.ends().code == 0


def test_a_command_gets_the_message_and_not_a_shell(running: Net, tmp_path: Path) -> None:
    script = tmp_path / "note.py"
    script.write_text(
        "import os, pathlib, sys\n"
        f"name = pathlib.Path({str(tmp_path)!r}) / ('got-' + os.environ['ATONCE_SEQ'])\n"
        "said = sys.stdin.buffer.read()\n"
        "name.write_bytes(b'|'.join([os.environ['ATONCE_SENDER'].encode(), os.environ['ATONCE_TOPIC'].encode(),"
        " repr(sys.argv[1:]).encode(), said]))\n"
        "sys.exit(3)\n"
    )
    command = f"{sys.executable} '{script}' 'a; touch b' $HOME"
    hostile = b"$(touch /tmp/never) `id`; \x00\xff\n--help"
    args = ("listen", "deploys", "--json", "--exec", command, "--profile", running.alice.profile)
    with Process(*args) as listener:
        listener.event("listening_to")
        atonce("notify", "deploys", "--json", "--profile", running.bob.profile, data=hostile)
        ran = listener.event("ran")
        assert (ran["sender"], ran["code"]) == (running.bob.id, 3)
    sender, topic, argv, said = (tmp_path / f"got-{ran['seq']}").read_bytes().split(b"|", 3)
    assert (sender.decode(), topic, said) == (running.bob.id, b"deploys", hostile)
    assert argv.decode() == repr(["a; touch b", "$HOME"])


def test_a_command_that_cannot_be_run_or_does_not_end(running: Net) -> None:
    for command, problem in (("/no/such/program", "No such file"), (f"{sys.executable} -c 'while 1: pass'", "ended")):
        args = ("--exec", command, "--timeout", "0.3", "--profile", running.alice.profile)
        with Process("listen", "errors", "--json", *args) as listener:
            listener.event("listening_to")
            atonce("notify", "errors", "x", "--profile", running.bob.profile)
            assert problem in listener.event("ran")["problem"]


def test_to_tell_nobody_fails(running: Net) -> None:
    outcome = atonce("notify", "empty", "x", "--profile", running.bob.profile)
    assert outcome.code == 1
    assert "nobody is in the room 'empty'" in outcome.error


def test_what_cannot_be_a_room(running: Net) -> None:
    assert "1 to 64 characters" in atonce("notify", "x" * 65, "y", "--profile", running.bob.profile).error
    wrong = atonce("listen", "room", "--exec", "echo 'x", "--profile", running.bob.profile)
    assert "--exec cannot be read: no closing quotation" in wrong.error


def test_the_chat(running: Net) -> None:
    chat = [sys.executable, str(ROOT / "examples" / "chat.py"), running.seed.url, "lobby"]

    with Process("Ann", command=chat, stdin=subprocess.PIPE) as ann:
        with Process("Ben", command=chat, stdin=subprocess.PIPE) as ben:
            assert ben.line() == b"* Ann is here\n"
            assert ann.line() == b"* Ben is here\n"
            ben.feed("Grüße\n".encode())
            assert ann.line() == "Ben: Grüße\n".encode()
            assert ann.line() == b"* Ben has gone (left)\n"
            assert ben.ends().code == 0
        ann.feed(b"")
        assert ann.ends().code == 0


def test_the_script_that_tells_how_a_command_ended(running: Net, tmp_path: Path) -> None:
    with Process("listen", "cron", "--json", "--profile", running.alice.profile) as listener:
        listener.event("listening_to")
        env = {"SEED": running.seed.url, "PROFILE": str(tmp_path / "cron"), "ATONCE": " ".join(ATONCE)}
        script = [str(ROOT / "examples" / "notify.sh"), "cron", "false"]
        with Process(command=script, env=env) as job:
            assert job.ends().code == 1
        assert listener.event("said")["data"]
