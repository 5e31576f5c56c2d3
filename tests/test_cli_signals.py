"""How processes end: Ctrl-C and SIGTERM say goodbye within two seconds, a second one ends at once, and after SIGKILL
the profile is as good as before.
"""

import contextlib
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_support import END_S, NOISE_S, Member, Process, atonce, net, peer, seed, until

from dht_atonce.identity import Identity

pytestmark = pytest.mark.process

NOBODY = Identity.generate(random.Random("nobody here")).id
AT_ONCE_S = 0.2

gentle = pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)


def ends_soon(process: Process, number: signal.Signals, within_s: float = END_S) -> None:
    """A signal ends it, with success, in the time that is promised."""
    signalled = process.signal(number)
    ended = process.ends()
    elapsed_s = time.monotonic() - signalled
    assert (ended.code, ended.err) == (0, "")
    assert elapsed_s < within_s + NOISE_S


@contextlib.contextmanager
def mute_seed() -> Iterator[tuple[str, socket.socket]]:
    """The URL of a seed that accepts connections and never says anything, and its listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield f"atonce://{NOBODY}@127.0.0.1:{listener.getsockname()[1]}", listener


def trying(command: str, profile: Path, url: str) -> Process:
    """A command that tries to get in by `url`."""
    who = [str(NOBODY)] if command in ("lookup", "send") else []
    text = ["hello"] if command == "send" else []
    return Process(command, *who, *text, "--seed", url, "--listen", "127.0.0.1", "--profile", profile, "--json")


# --- the end ---


@gentle
def test_a_signal_ends_a_peer_and_others_know(number: signal.Signals, tmp_path: Path) -> None:
    with net(tmp_path) as (_, alice, bob):
        ends_soon(alice.process, number)
        assert bob.ask("lookup", peer=alice.id)["record"]["status"] == "gone"


def test_what_others_are_told_of_a_peer_that_has_left(tmp_path: Path) -> None:
    with net(tmp_path) as (_, alice, bob):
        ends_soon(alice.process, signal.SIGTERM)
        assert "has said goodbye" in atonce("lookup", alice.id, "--profile", bob.profile, "--json").error
        assert "has said goodbye" in atonce("send", alice.id, "hello", "--profile", bob.profile).error


@gentle
def test_a_signal_ends_a_seed(number: signal.Signals, tmp_path: Path) -> None:
    with seed(tmp_path / "seed") as entry, peer(tmp_path / "alice", entry.url) as alice:
        ends_soon(entry.process, number)
        assert not (entry.profile / "control.sock").exists()
        assert alice.status()["ok"]  # she can do without


@gentle
def test_a_signal_ends_a_peer_that_is_not_in_yet(number: signal.Signals, tmp_path: Path) -> None:
    with mute_seed() as (url, listener), trying("join", tmp_path / "alice", url) as alice, listener.accept()[0]:
        ends_soon(alice, number)


@pytest.mark.parametrize("name", ["unreachable.invalid", "127.0.0.1"])
def test_a_signal_ends_a_peer_that_keeps_trying(name: str, tmp_path: Path) -> None:
    with trying("join", tmp_path / "alice", f"atonce://{NOBODY}@{name}:1") as impatient:
        assert impatient.ends().error
    options = ("--listen", "127.0.0.1", "--seed", f"atonce://{NOBODY}@{name}:1", "--keep-trying", "--json")
    with Process("join", *options, "--profile", tmp_path / "alice") as alice:
        alice.event("still_alone")
        ends_soon(alice, signal.SIGTERM)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["lookup", "send"])
def test_a_signal_is_no_success_for_what_had_something_to_do(
    command: str, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    with mute_seed() as (url, listener), trying(command, tmp_path / "alice", url) as process, listener.accept()[0]:
        process.signal(number)
        ended = process.ends(END_S + NOISE_S)
    assert (ended.code, ended.out, ended.err) == (code, b"", "")


def test_ctrl_c_while_the_message_is_typed(tmp_path: Path) -> None:
    with seed(tmp_path / "seed") as entry:
        out, into = os.pipe()
        with Process(
            "send", str(NOBODY), "--profile", entry.profile, stdin=out, command=waiting_for_stdin()
        ) as process:
            os.close(out)
            assert process.line() == b"waiting\n"
            process.signal(signal.SIGINT)
            ended = process.ends(END_S + NOISE_S)
        os.close(into)
    assert (ended.code, ended.err) == (130, "")


def waiting_for_stdin() -> list[str]:
    """`atonce`, and it tells when it begins to read standard input."""
    lines = ["import os, sys", "from dht_atonce.cli import main", "read = os.read"]
    lines += ["def tell(*args):", "    print('waiting', flush=True)", "    return read(*args)"]
    lines += ["os.read = tell", "main.main()"]
    return [sys.executable, "-c", "\n".join(lines)]


# --- a second signal, and threads that do not end ---


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with net(tmp_path) as (_, alice, bob):
        bob.process.signal(signal.SIGSTOP)  # so that the goodbye takes as long as it may
        alice.process.signal(signal.SIGTERM)
        alice.process.event("leaving")
        again = alice.process.signal(signal.SIGINT)
        ended = alice.process.ends()
        assert (ended.code, ended.err) == (130, "")
        assert time.monotonic() - again < AT_ONCE_S + NOISE_S


def test_a_goodbye_that_nobody_hears_is_given_up(tmp_path: Path) -> None:
    with net(tmp_path) as (_, alice, bob):
        bob.process.signal(signal.SIGSTOP)
        ends_soon(alice.process, signal.SIGTERM)


def test_name_resolution_that_hangs_does_not_hold_up_the_end() -> None:
    # Where DNS servers do not answer, the resolver's thread comes back after half a minute.
    lines = ["import asyncio, time", "from dht_atonce.cli.running import run", "async def main():"]
    lines += ["    asyncio.get_running_loop().run_in_executor(None, time.sleep, 30)", "    print('ready', flush=True)"]
    lines += ["    await asyncio.Event().wait()", "run(main(), until_signal=True)"]
    with Process(command=[sys.executable, "-c", "\n".join(lines)]) as process:
        assert process.line() == b"ready\n"
        ends_soon(process, signal.SIGTERM)


def test_ctrl_c_ends_what_a_script_started_in_the_background(tmp_path: Path) -> None:
    # Shells without job control have their background jobs ignore SIGINT; `kill -INT` shall end ours all the same.
    command = ["sh", "-c", 'trap "" INT; exec "$0" -m dht_atonce.cli.main "$@"', sys.executable]
    options = ("--local", "--listen", "127.0.0.1", "--json", "--profile", tmp_path / "seed")
    with Process("seed", *options, command=command) as process:
        process.event("seed")
        ends_soon(process, signal.SIGINT)


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    command = ["sh", "-c", 'trap "" HUP; exec "$0" -m dht_atonce.cli.main "$@"', sys.executable]
    with Process(
        *("seed", "--local", "--listen", "127.0.0.1", "--json", "--profile", tmp_path / "seed"), command=command
    ) as process:
        entry = Member(process, tmp_path / "seed", process.event("seed"))
        process.signal(signal.SIGHUP)
        assert entry.status()["ok"]
        ends_soon(process, signal.SIGTERM)


# --- SIGKILL ---


def test_after_sigkill_a_peer_comes_back_without_a_seed(tmp_path: Path) -> None:
    with net(tmp_path) as (entry, alice, bob):
        udp = alice.udp
        until(lambda: saved_contacts(alice.profile), "her contacts are saved")
        alice.process.signal(signal.SIGKILL)
        entry.process.signal(signal.SIGKILL)
        assert alice.process.ends().code == -signal.SIGKILL
        assert entry.process.ends().code == -signal.SIGKILL
        with peer(alice.profile, None) as again:
            assert again.id == alice.id
            assert again.status()["entered"] == "saved contacts"
            assert again.udp == udp
            assert bob.ask("send", peer=again.id, data="aGVsbG8=")["ok"]
            assert again.process.event("message")["sender"] == bob.id


def saved_contacts(profile: Path) -> list[object]:
    """Those that are on the disk. What `status` tells comes a moment before they are."""
    state: list[Any] = msgspec.msgpack.decode((profile / "state").read_bytes())
    contacts: list[object] = state[4]
    return contacts


def test_a_killed_process_leaves_nobody_waiting(tmp_path: Path) -> None:
    """Who asks through its control socket at that moment is told."""
    with net(tmp_path) as (_, alice, bob):
        assert bob.ask("send", peer=alice.id, data="")["ok"]
        alice.process.signal(signal.SIGSTOP)
        with Process("send", alice.id, "hello", "--profile", bob.profile) as waiting:
            until(lambda: bob.status()["counters"].get("messaging.retransmits"), "it is on its way")
            bob.process.signal(signal.SIGKILL)
            assert "ended before it answered; start it again" in waiting.ends().error
