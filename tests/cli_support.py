"""What the tests of the command share: `atonce` as a real process, and a small network of such processes."""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from cli_forks import Forked

ATONCE = [sys.executable, "-m", "dht_atonce.cli.main"]

WAIT_S = 20.0
"""For what must come: on a busy machine Python alone may take seconds to start."""
END_S = 2.0
"""Within this a signal ends a process: README and architecture promise it."""
NOISE_S = 1.5
"""What a busy machine may add to a time that is promised."""


class Outcome(NamedTuple):
    """What came of a command that has ended."""

    code: int
    out: bytes
    err: str
    elapsed_s: float

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output, where each line must be one JSON object."""
        return [json_object(line) for line in self.out.splitlines()]

    @property
    def object(self) -> dict[str, Any]:
        """The one JSON object of standard output, of a command that succeeded."""
        assert self.code == 0, self
        assert self.out.endswith(b"\n"), self
        (only,) = self.objects
        return only

    @property
    def error(self) -> str:
        """The one line of standard error, of a command that failed."""
        assert self.code != 0, self
        lines = self.err.splitlines()
        assert len(lines) == 1, self
        assert lines[0].startswith("error: "), self
        assert self.err.endswith("\n"), self
        return lines[0].removeprefix("error: ")


def json_object(line: bytes) -> dict[str, Any]:
    value = json.loads(line)
    assert isinstance(value, dict), line
    return value


class Process:
    """`atonce ARGS`, running. A context manager: it is gone afterwards, whatever happened."""

    def __init__(
        self,
        *args: str | Path,
        command: list[str] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """With `command`, that in place of `atonce`, in a fresh process; `env` is added to the environment."""
        self.began = time.monotonic()
        words = list(map(str, args))
        self._popen: subprocess.Popen[bytes] | Forked
        if command is None and not os.environ.get("ATONCE_FRESH"):
            self._popen = Forked(words, stdin=stdin, stdout=stdout, env=env)
        else:
            self._popen = subprocess.Popen(
                [*(command or ATONCE), *words],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env={**os.environ, **(env or {})},
            )
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._seen: list[bytes] = []
        self._err = b""
        self._readers = [threading.Thread(target=self._read_err, daemon=True)]
        if self._popen.stdout is not None:
            self._readers.append(threading.Thread(target=self._read_out, daemon=True))
        else:
            self._lines.put(b"")
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGCONT)
            self._popen.kill()
        self._popen.wait(WAIT_S)
        for reader in self._readers:
            reader.join(WAIT_S)
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def line(self) -> bytes:
        """The next line of standard output."""
        try:
            line = self._lines.get(timeout=WAIT_S)
        except queue.Empty:
            raise AssertionError(f"nothing came after {self._seen}; standard error: {self._err!r}") from None
        assert line, f"it ended after {self._seen}; standard error: {self._err!r}"
        self._seen.append(line)
        return line

    def event(self, name: str) -> dict[str, Any]:
        """The next event of this name; those before it are passed over."""
        while (event := json_object(self.line()))["event"] != name:
            pass
        return event

    def signal(self, number: signal.Signals) -> float:
        """Send a signal; gives the time."""
        self._popen.send_signal(number)
        return time.monotonic()

    def feed(self, data: bytes) -> None:
        """All that there is on its standard input."""
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has read enough of it
            self._popen.stdin.write(data)
            self._popen.stdin.close()

    def ends(self, within_s: float = WAIT_S) -> Outcome:
        """Wait for its end."""
        try:
            code = self._popen.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within_s} s; {self._seen}; {self._err!r}") from None
        elapsed_s = time.monotonic() - self.began
        for reader in self._readers:
            reader.join(WAIT_S)
        rest = list(iter(self._lines.get_nowait, b""))
        return Outcome(code, b"".join([*self._seen, *rest]), self._err.decode(), elapsed_s)

    def _read_out(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def _read_err(self) -> None:
        assert self._popen.stderr is not None
        self._err = self._popen.stderr.read()


def atonce(*args: str | Path, data: bytes | None = None, within_s: float = WAIT_S, **how: Any) -> Outcome:
    """Run `atonce ARGS` to its end, with `data` on its standard input."""
    if data is not None:
        how["stdin"] = subprocess.PIPE
    with Process(*args, **how) as process:
        if data is not None:
            process.feed(data)
        return process.ends(within_s)


def at_once(*commands: Callable[[], Outcome]) -> list[Outcome]:
    """The outcomes of commands that run side by side."""
    with ThreadPoolExecutor(4) as pool:
        return [future.result() for future in [pool.submit(command) for command in commands]]


# --- a network ---


class Member(NamedTuple):
    """A running peer or seed."""

    process: Process
    profile: Path
    said: dict[str, Any]
    """What it said when it was ready: `url` of a seed, `peer` of a peer."""

    @property
    def id(self) -> str:
        return str(self.said["peer"])

    @property
    def url(self) -> str:
        return str(self.said["url"])

    @property
    def udp(self) -> tuple[str, int]:
        """Where it hears datagrams, in its first family."""
        return split(self.status()["udp"][0] if "peer" in self.said else self.said["udp"][0])

    @property
    def tcp(self) -> tuple[str, int]:
        """Where it accepts links, in its first family."""
        return split(self.status()["endpoints"][0] if "peer" in self.said else self.said["tcp"])

    def ask(self, op: str, **details: Any) -> dict[str, Any]:
        """The answer of its control socket."""
        return ask(self.profile, op, **details)

    def status(self) -> dict[str, Any]:
        return self.ask("status")

    def counts(self, *names: str) -> int:
        """What its counters of these names add up to."""
        counters = self.status()["counters"]
        return sum(counters.get(name, 0) for name in names)


def split(address: str) -> tuple[str, int]:
    """`IP:PORT` or `[IP]:PORT`."""
    ip, _, port = address.rpartition(":")
    return ip.strip("[]"), int(port)


def ask(profile: Path, op: str, **details: Any) -> dict[str, Any]:
    """What the process of `profile` answers through its control socket."""
    return converse(profile, json.dumps({"op": op, **details}).encode() + b"\n")


def converse(profile: Path, data: bytes) -> dict[str, Any]:
    """What it answers to these bytes; {} if it hangs up."""
    with control(profile) as sock, sock.makefile("rb") as file:
        sock.sendall(data)
        line = file.readline()
        return json_object(line) if line else {}


def is_up(profile: Path) -> bool:
    """Whether a process of `profile` answers."""
    try:
        return bool(ask(profile, "status")["ok"])
    except (OSError, KeyError):  # it is not there yet, or hangs up
        return False


def control(profile: Path) -> socket.socket:
    """A connection to its control socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(WAIT_S)
    try:
        sock.connect(str(profile / "control.sock"))
    except OSError:
        sock.close()
        raise
    return sock


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that tells nobody when it comes about."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"never came about: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def seed(profile: Path, *args: str | Path, listen: Sequence[str] = ("127.0.0.1",)) -> Iterator[Member]:
    """`atonce seed`, local, once it has told its URL."""
    options = [option for ip in listen for option in ("--listen", ip)]
    with Process("seed", "--local", "--k", "4", *options, "--json", "--profile", profile, *args) as process:
        yield Member(process, profile, process.event("seed"))


@contextlib.contextmanager
def peer(profile: Path, url: str | None, *args: str | Path, listen: Sequence[str] = ("127.0.0.1",)) -> Iterator[Member]:
    """`atonce join`, once it is in."""
    options = [option for ip in listen for option in ("--listen", ip)] + (["--seed", url] if url else [])
    with Process("join", *options, "--json", "--profile", profile, *args) as process:
        yield Member(process, profile, process.event("ready"))


class Net(NamedTuple):
    """A seed and two peers that know each other."""

    seed: Member
    alice: Member
    bob: Member


@contextlib.contextmanager
def net(folder: Path) -> Iterator[Net]:
    """The whole of it."""
    with (
        seed(folder / "seed") as entry,
        peer(folder / "alice", entry.url) as alice,
        peer(folder / "bob", entry.url) as bob,
    ):
        until(lambda: alice.status()["live_contacts"], "alice knows bob")  # her event comes up to a second later
        yield Net(entry, alice, bob)
