"""A broker that runs for the time of one trial, on a port of its own. Ends with whoever began it."""

import asyncio
import contextlib
import shutil
import socket
import subprocess

from benchmarks.messages.rival import Skipped

__all__ = ["start_broker"]

_STARTS_S = 5.0

# Ends the broker when standard input does: it must not outlive a trial that was killed.
_WITH_US = 'program=$1; shift; "$program" "$@" >/dev/null 2>&1 </dev/null & cat >/dev/null; kill $!'


async def start_broker(program: str, *arguments: str) -> int:
    """Run `program`; "PORT" in its arguments stands for the port, which is returned. Raises `Skipped`."""
    path = shutil.which(program, path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if path is None:
        raise Skipped(f"{program} is not installed: make bench-rivals")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    given = [argument.replace("PORT", str(port)) for argument in arguments]
    subprocess.Popen(["sh", "-c", _WITH_US, "sh", path, *given], stdin=subprocess.PIPE)  # noqa: ASYNC220
    for _ in range(int(_STARTS_S / 0.05)):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return port
        await asyncio.sleep(0.05)
    raise Skipped(f"{program} does not start")
