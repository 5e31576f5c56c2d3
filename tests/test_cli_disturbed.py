"""Running processes that strangers, their user or their machine disturb: it is counted or said, and they go on."""

import json
import os
import random
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from cli_support import (
    END_S,
    NOISE_S,
    WAIT_S,
    Member,
    Net,
    Process,
    ask,
    atonce,
    control,
    converse,
    is_up,
    net,
    peer,
    seed,
    until,
)

from dht_atonce.endpoints import Address
from dht_atonce.identity import Identity, PeerId
from dht_atonce.messaging.curve import CurveNet

pytestmark = pytest.mark.process

RNG = random.Random("strangers")
KEY_REQUEST = 3  # the one kind of datagram that a stranger may send without knowing anything


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """A seed, alice and bob, who outlive all that is done to them here."""
    with net(tmp_path_factory.mktemp("net")) as made:
        yield made


@pytest.fixture(params=["peer", "seed"])
def victim(request: pytest.FixtureRequest, running: Net) -> Iterator[Member]:
    """A peer and a seed in turn. Afterwards the network must be as it was."""
    yield running.alice if request.param == "peer" else running.seed
    assert running.bob.ask("lookup", peer=running.alice.id, fresh=True)["record"]["status"] == "online"
    assert running.bob.ask("send", peer=running.alice.id, data="")["ok"]
    running.alice.process.event("message")
    assert running.seed.status()["admitted"] >= 2


# --- the network's side ---


def garbage() -> list[bytes]:
    """Datagrams that nobody can read, of each length and of each type."""
    noise = [RNG.randbytes(size) for size in (0, 1, 2, 33, 34, 58, 74, 75, 100, 411, 1000, 1231, 1232, 1233, 9000)]
    headed = [
        bytes([1, kind | cookie]) + RNG.randbytes(size)
        for kind in range(8)
        for cookie in (0, 0x80)
        for size in (0, 40, 56, 72, 73, 89, 409, 1230)
        if kind != KEY_REQUEST
    ]
    return noise + headed


def test_datagrams_that_nobody_can_read(victim: Member) -> None:
    names = ("dht.short", "dht.long", "dht.unknown_major", "dht.unreadable", "dht.unasked")
    before, sent = victim.counts(*names), garbage()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for data in sent:
            sock.sendto(data, victim.udp)
    until(lambda: victim.counts(*names) - before == len(sent), f"{len(sent)} datagrams are counted")


def test_connections_that_speak_something_else(victim: Member) -> None:
    sent = [b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", RNG.randbytes(70), RNG.randbytes(5000), b"\xff" + bytes(8) + b"\x7f"]
    before = victim.counts("link.never_opened", "link.cut")
    for data in sent:
        with socket.create_connection(victim.tcp) as sock:
            sock.sendall(data)
    until(lambda: victim.counts("link.never_opened", "link.cut") - before >= len(sent), "each is counted")


@pytest.mark.parametrize("secured", [False, True])
def test_zeromq_frames_that_are_no_open(victim: Member, secured: bool) -> None:
    name = "link.not_open" if secured else "link.never_opened"
    before = victim.counts(name)
    key = PeerId.parse(victim.url[9:65] if "url" in victim.said else victim.id).curve_key
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    try:
        if secured:
            us = Identity.generate(RNG)
            dealer.curve_serverkey, dealer.curve_publickey, dealer.curve_secretkey = (
                key,
                us.id.curve_key,
                us.curve_secret,
            )
        dealer.connect(f"tcp://127.0.0.1:{victim.tcp[1]}")
        dealer.send(b"no OPEN")
        until(lambda: victim.counts(name) > before, "it is counted")
    finally:
        dealer.close(0)
        context.term()


async def test_frames_that_are_no_messages(victim: Member) -> None:
    # A link as it should be, and over it what is neither HELLO nor a message.
    name, who = (
        ("seed.not_understood", victim.url[9:65]) if "url" in victim.said else ("messaging.bad_frame", victim.id)
    )
    before = victim.counts(name)
    links = CurveNet(Identity.generate(RNG), rng=RNG)
    try:
        link = await links.dial(Address(*victim.tcp), PeerId.parse(who).curve_key, WAIT_S)
        link.start(lambda _: None, lambda _: None)
        link.send(RNG.randbytes(1000))
        until(lambda: victim.counts(name) > before, "it is counted")
    finally:
        await links.aclose()


# --- the control socket ---


def test_requests_that_are_none(victim: Member) -> None:
    requests = [
        b"garbage",
        b"",
        b"[]",
        b"{}",
        b'{"op": "explode"}',
        b'{"op": "lookup"}',
        b'{"op": "status"',
        b"\xff\xfe",
    ]
    requests += [
        b'{"op": "lookup", "peer": "' + b"a" * 100 + b'"}',
        b'{"op": "send", "peer": "x", "data": "no base64!"}',
    ]
    for request in requests:
        reply = converse(victim.profile, request + b"\n")
        assert (reply["ok"], reply["kind"]) == (False, "ControlError"), request
        assert reply["error"].startswith("not a request: "), request
    huge = converse(victim.profile, b'{"op": "' + b"x" * 300_000 + b"\n")
    assert "at most 262144 bytes" in huge["error"]
    assert victim.status()["ok"]


def test_clients_that_hang_up(running: Net) -> None:
    alice = running.alice
    for data in (
        b"",
        b'{"op": "sta',
        b'{"op": "status"}\n' * 3,
        json.dumps({"op": "lookup", "peer": alice.id}).encode(),
    ):
        with control(alice.profile) as sock:
            sock.sendall(data)
    idle = [control(alice.profile) for _ in range(70)]  # more than are served
    until(lambda: "try again later" in ask(alice.profile, "status").get("error", ""), "there is no room")
    for sock in idle:
        sock.close()
    until(lambda: ask(alice.profile, "status")["ok"], "there is room again")


def test_the_socket_of_a_killed_process(tmp_path: Path) -> None:
    folder = tmp_path / "seed"
    with seed(folder) as entry:
        entry.process.signal(signal.SIGKILL)
        entry.process.ends()
    assert (folder / "control.sock").exists()
    assert "nothing runs with the profile" in atonce("status", "--profile", folder).error
    with seed(folder) as again:
        assert again.url == entry.url  # the same port too
        assert again.status()["ok"]


def test_a_profile_whose_path_is_longer_than_a_socket_may_have(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / "alice"
    with peer(folder, None, "--alone", "--local") as alice:
        assert len(str(folder)) > 108
        assert atonce("status", "--profile", folder, "--json").object["peer"] == alice.id
        alice.process.signal(signal.SIGTERM)
        assert alice.process.ends().code == 0
    assert not (folder / "control.sock").exists()


# --- standard output ---


@pytest.mark.parametrize("form", [("--json",), ()])
def test_the_reader_has_gone(tmp_path: Path, form: tuple[str, ...]) -> None:
    # `atonce join | head -1`
    out, given = os.pipe()
    options = ("--alone", "--local", "--listen", "127.0.0.1", "--profile", tmp_path / "alice")
    with os.fdopen(out, "rb") as reader, Process("join", *options, *form, stdout=given) as alice:
        os.close(given)
        assert b"listening" in reader.readline()
        reader.close()
        ended = alice.ends()
    assert "whoever read the output has gone" in ended.error
    assert "> /dev/null" in ended.error


@pytest.mark.parametrize("command", ["join", "status", "--help"])
def test_output_that_cannot_be_written(command: str, tmp_path: Path, running: Net) -> None:
    options: dict[str, tuple[str | Path, ...]] = {
        "join": ("--alone", "--local", "--listen", "127.0.0.1", "--profile", tmp_path / "alice"),
        "status": ("--profile", running.alice.profile),
        "--help": (),
    }
    with Path("/dev/full").open("wb") as full:
        outcome = atonce(command, *options[command], stdout=full)
    assert "standard output cannot be written: No space left on device" in outcome.error


def test_descriptors_that_the_shell_closed(tmp_path: Path) -> None:
    # `atonce … >&- 2>&-`: what is printed must not end up in whatever socket comes to have the number 1.
    with seed(tmp_path / "seed") as entry:
        script = 'exec "$0" -m dht_atonce.cli.main "$@" <&- >&- 2>&-'
        options = ("--seed", entry.url, "--listen", "127.0.0.1", "--profile", tmp_path / "alice", "--json")
        with Process("join", *options, command=["sh", "-c", script, sys.executable]) as alice:
            until(lambda: entry.status()["admitted"] and is_up(tmp_path / "alice"), "she is in")
            alice.signal(signal.SIGTERM)
            assert alice.ends().code == 0


def python() -> list[str]:
    import sys

    return [sys.executable]


def test_a_reader_that_has_stopped_reading(tmp_path: Path) -> None:
    """A full pipe stops neither the peer nor what ends it."""
    out, given = os.pipe()
    with seed(tmp_path / "seed") as entry, peer(tmp_path / "bob", entry.url) as bob, os.fdopen(out, "rb"):
        options = ("--seed", entry.url, "--listen", "127.0.0.1", "--json", "--profile", tmp_path / "alice")
        with Process("join", *options, stdout=given) as process:
            os.close(given)
            until(lambda: is_up(tmp_path / "alice"), "she is in")
            alice = Member(process, tmp_path / "alice", {"peer": ask(tmp_path / "alice", "status")["peer"]})
            for _ in range(30):
                assert bob.ask("send", peer=alice.id, data="xxxx" * 20_000)["ok"]
            # All is acknowledged, for it is in her queue. And she is as lively as before.
            assert alice.status()["counters"]["messaging.received"] == 30
            assert bob.ask("lookup", peer=alice.id, fresh=True)["record"]["status"] == "online"
            signalled = process.signal(signal.SIGTERM)
            assert process.ends().code == 0
            assert time.monotonic() - signalled < END_S + NOISE_S


# --- the disk ---


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    # A limit of no bytes for a file is what a full disk looks like to the one process that has it.
    with seed(tmp_path / "seed") as entry, peer(tmp_path / "alice", entry.url) as alice:
        resource.prlimit(alice.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        with peer(tmp_path / "bob", entry.url) as bob:
            warning = alice.process.event("warning")
            assert "state cannot be written: File too large" in warning["message"]
            assert bob.ask("send", peer=alice.id, data="aGVsbG8=")["ok"]
            assert alice.process.event("message")["sender"] == bob.id
            assert alice.status()["counters"]["profile.not_saved"] >= 1
            alice.process.signal(signal.SIGTERM)
            assert alice.process.ends().code == 0


def test_a_full_disk_at_the_start(tmp_path: Path) -> None:
    script = 'ulimit -f 0; exec "$0" -m dht_atonce.cli.main "$@"'
    command = ["sh", "-c", script, sys.executable]
    outcome = atonce("id", "new", "--profile", tmp_path / "alice", command=command)
    assert "identity.key cannot be written: File too large" in outcome.error
    assert not (tmp_path / "alice" / "identity.key").exists()


def test_a_profile_that_is_moved_away(tmp_path: Path) -> None:
    with net(tmp_path) as (_, alice, bob):
        shutil.move(alice.profile, tmp_path / "elsewhere")
        assert bob.ask("send", peer=alice.id, data="aGVsbG8=")["ok"]
        assert alice.process.event("message")["sender"] == bob.id
        alice.process.signal(signal.SIGTERM)
        ended = alice.process.ends()
    assert (ended.code, ended.err) == (0, "")
