"""Commands that are run for what is said in a room: never through a shell, and nothing that strangers say on their
command line."""

import asyncio
import contextlib
import os
import shlex
from collections.abc import Callable
from typing import Any

import typer

from dht_atonce.tasks import TaskGroup

__all__ = ["Commands", "parsed"]

_END_S = 0.5  # between SIGTERM and SIGKILL


def parsed(command: str) -> list[str]:
    """The words of a command line, as a shell would split them. Raises `typer.BadParameter`."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise typer.BadParameter(f"--exec cannot be read: {str(error).lower()}") from None
    if not words:
        raise typer.BadParameter("--exec takes a command")
    return words


class Commands:
    """Runs `words` once for each message, at most `limit` at a time; each ends within `timeout_s` or is ended.

    The message is the command's standard input. `ATONCE_SENDER`, `ATONCE_TOPIC` and `ATONCE_SEQ` tell of it.
    """

    def __init__(
        self,
        words: list[str],
        topic: str,
        limit: int,
        timeout_s: float,
        on_end: Callable[[dict[str, Any]], None],
        *,
        is_quiet: bool,
    ) -> None:
        self._words = words
        self._topic = topic
        self._timeout_s = timeout_s
        self._on_end = on_end
        self._stdout = asyncio.subprocess.DEVNULL if is_quiet else None
        self._free = asyncio.Semaphore(limit)
        self._tasks = TaskGroup()

    async def start(self, sender: str, seq: int, data: bytes) -> None:
        """Run it for a message; waits while as many as may be are running."""
        await self._free.acquire()
        if self._tasks.start(self._run(sender, seq, data), f"command for {sender[:8]}") is None:
            self._free.release()

    async def aclose(self) -> None:
        """End those that are running."""
        await self._tasks.aclose()

    async def _run(self, sender: str, seq: int, data: bytes) -> None:
        details: dict[str, Any] = {"sender": sender, "seq": seq, "code": None}
        try:
            env = {**os.environ, "ATONCE_SENDER": sender, "ATONCE_TOPIC": self._topic, "ATONCE_SEQ": str(seq)}
            process = await asyncio.create_subprocess_exec(
                *self._words, stdin=asyncio.subprocess.PIPE, stdout=self._stdout, env=env
            )
            try:
                async with asyncio.timeout(self._timeout_s):
                    await process.communicate(data)
            except TimeoutError:
                details["problem"] = f"ended after {self._timeout_s:g} s"
            finally:
                await _end(process)
            details["code"] = process.returncode
        except OSError as error:
            details["problem"] = error.strerror or str(error)
        finally:
            self._free.release()
        self._on_end(details)


async def _end(process: asyncio.subprocess.Process) -> None:
    """See to it that it is gone."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(_END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
