"""A broker that runs for the time of one trial, on a port of its own. Ends with whoever began it."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
from abc import ABC, abstractmethod

from benchmarks.messages.rival import Channel, Info, Skipped

__all__ = ["OverBroker"]

_STARTS_S = 5.0

# Ends the broker when standard input does: it must not outlive a trial that was killed.
_WITH_US = 'program=$1; shift; "$program" "$@" >/dev/null 2>&1 </dev/null & cat >/dev/null; kill $!'


async def _start_broker(program: str, *arguments: str) -> int:
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


class OverBroker(ABC):
    """Two processes whose messages go through a broker, which the far one starts."""

    command: tuple[str, ...]
    """The broker's; "PORT" stands for its port."""

    def __init__(self) -> None:
        self._far: Channel | None = None

    async def listen(self) -> Info:
        port = await _start_broker(*self.command)
        self._far = await self.open(port, "to-far", "to-near")
        return {"port": port}

    async def accept(self) -> Channel:
        assert self._far is not None
        return self._far

    async def dial(self, info: Info) -> Channel:
        return await self.open(info["port"], "to-near", "to-far")

    @abstractmethod
    async def open(self, port: int, own: str, to: str) -> Channel:
        """What is said to `own` comes in, and what is sent is said to `to`."""
