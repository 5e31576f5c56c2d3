"""Standard output of a process that has more to do than to wait for whoever reads it."""

import asyncio
import os
import select
import sys
import threading
from types import TracebackType
from typing import Any, Self

from dht_atonce.cli.output import Output, count, outlet_lost
from dht_atonce.errors import AtOnceError

__all__ = ["LiveOutput"]

_ROOM_BYTES = 256 * 1024
"""Above it `room` waits: what a reader does not read stays where it came from."""
_MAX_BYTES = 1 << 20
"""Above it events are left out, and counted: they come from inside, where nobody can wait."""
_LOOK_S = 1.0
"""After so long without a word, whether anybody is there to read the next one."""
_FLUSH_S = 0.3  # for a slow reader; one that has stopped reading does not hold up the end


class LiveOutput(Output):
    """Output written by a thread, so that a full pipe or a stopped terminal stops neither the peer nor its signals.

    `async with` it around all that prints. If it cannot be written any more, the block is cancelled and `AtOnceError`
    raised.
    """

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(as_json=as_json)
        self._change = threading.Condition()  # guards the next three
        self._waiting: list[bytes] = []
        self._bytes = 0  # waiting, or being written at the moment
        self._ended = False
        self._left_out = 0
        self._has_room = asyncio.Event()
        self._problem: AtOnceError | None = None
        self._has_cancelled = False
        self._thread = threading.Thread(target=self._write_all, name="standard output", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[Any]

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._loop, self._task = asyncio.get_running_loop(), task
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._change:
            self._ended = True
            self._change.notify()
        await self._loop.run_in_executor(None, self._thread.join, _FLUSH_S)
        if self._has_cancelled and self._task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            assert self._problem is not None
            raise self._problem from None

    async def room(self) -> None:
        """Wait until most of what was written has been read."""
        while self._bytes > _ROOM_BYTES:
            self._has_room.clear()
            await self._has_room.wait()

    def _write(self, data: bytes) -> None:
        with self._change:
            if self._bytes + len(data) > _MAX_BYTES:
                self._left_out += 1
                return
            self._waiting.append(data)
            self._bytes += len(data)
            self._change.notify()

    # --- the thread ---

    def _write_all(self) -> None:
        to = sys.stdout.fileno()
        while True:
            try:
                with self._change:
                    while not self._waiting and not self._ended:
                        if not self._change.wait(_LOOK_S):
                            _check_reader(to)
                    data, self._waiting = b"".join(self._waiting), []
                if not data:
                    return
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(to, rest) :]
            except OSError as error:
                self._tell_loop(self._on_lost, error)
                return
            with self._change:
                self._bytes -= len(data)
            self._tell_loop(self._on_written)

    def _tell_loop(self, callback: Any, *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            return  # the loop has ended, and the process is about to

    # --- the loop ---

    def _on_written(self) -> None:
        self._has_room.set()
        left_out, self._left_out = self._left_out, 0
        if left_out:
            words = f"[yellow]{count(left_out, 'event')} left out: nobody read them in time[/]"
            self.event("left_out", {"events": left_out}, lambda _: words)

    def _on_lost(self, error: OSError) -> None:
        self._problem = outlet_lost(error)
        if not self._task.cancelling():  # else it is ending anyway, and shall do so undisturbed
            self._has_cancelled = True
            self._task.cancel()


def _check_reader(fd: int) -> None:
    """Raises `BrokenPipeError` if the other end of a pipe is closed: a peer with nothing to say would never notice."""
    poll = select.poll()
    poll.register(fd, 0)  # errors are told unasked
    if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        raise BrokenPipeError
