"""Starts `atonce` commands by fork from a process that has everything imported: a hundredth of the usual time.

They are real processes all the same: own pid, own descriptors, own signals, own exit code. With ATONCE_FRESH=1 in the
environment the tests start every command as a user does, and take three times as long.
"""

import atexit
import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import IO

__all__ = ["Forked"]


class Forked:
    """A command, with as much of `subprocess.Popen` as the tests need; standard error is a pipe."""

    def __init__(
        self,
        args: list[str],
        *,
        stdin: int | IO[bytes],
        stdout: int | IO[bytes],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.returncode: int | None = None
        err, status = os.pipe(), os.pipe()
        if stdin == subprocess.PIPE:
            into, end = os.pipe()
            self.stdin = os.fdopen(end, "wb")
        else:
            into = os.open(os.devnull, os.O_RDONLY) if stdin == subprocess.DEVNULL else _duplicate(stdin)
        if stdout == subprocess.PIPE:
            end, out = os.pipe()
            self.stdout = os.fdopen(end, "rb")
        else:
            out = _duplicate(stdout)
        given = [into, out, err[1], status[1]]
        request = json.dumps({"args": args, "env": dict(env or {}), "cwd": os.getcwd()})
        socket.send_fds(_server(), [request.encode()], given)
        for fd in given:
            os.close(fd)
        self.stderr = os.fdopen(err[0], "rb")
        self._status = os.fdopen(status[0], "rb", buffering=0)
        self.pid = int(self._status.read(8))

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("atonce", timeout)
            self.returncode = os.waitstatus_to_exitcode(int(self._status.read(8)))
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended just now
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _duplicate(file: int | IO[bytes]) -> int:
    return os.dup(file if isinstance(file, int) else file.fileno())


_starting = threading.Lock()
_servers: list[tuple[socket.socket, "subprocess.Popen[bytes]"]] = []
"""One at most, made when first needed."""


def _end() -> None:
    ours, process = _servers.pop()
    ours.close()
    process.wait(10)


def _server() -> socket.socket:
    """Our end of the socket; the server ends when it is closed, with this process at the latest."""
    with _starting:
        if not _servers:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                command = [sys.executable, __file__, str(theirs.fileno())]
                _servers.append((ours, subprocess.Popen(command, pass_fds=[theirs.fileno()])))
            atexit.register(_end)
        return _servers[0][0]


# --- the server ---


def _serve(requests: socket.socket) -> None:
    for name in ("dht_atonce.cli.main", "rich.console", "rich.table", "uvloop", "typer._adapters"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the tests; we end with them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those in between
    while True:
        request, fds, _, _ = socket.recv_fds(requests, 1 << 16, 4)
        if not request:
            return
        if os.fork() == 0:
            requests.close()
            _supervise(json.loads(request), fds)
        for fd in fds:
            os.close(fd)


def _supervise(request: dict[str, object], fds: list[int]) -> None:
    """Fork once more, and tell the pid and then how that ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, status = fds
    pid = os.fork()
    if pid == 0:
        os.close(status)
        _become(request, standard)
    for fd in standard:
        os.close(fd)
    os.write(status, b"%8d" % pid)
    _, code = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(status, b"%8d" % code)
    os._exit(0)


def _become(request: dict[str, object], standard: list[int]) -> None:
    """The command itself."""
    from dht_atonce.cli.main import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, fd in enumerate(standard):
        os.dup2(fd, number)
    for fd in standard:
        if fd > 2:
            os.close(fd)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    os.chdir(str(request["cwd"]))
    os.environ.update(request["env"])  # type: ignore[call-overload]
    sys.argv = ["atonce", *request["args"]]  # type: ignore[misc]
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
