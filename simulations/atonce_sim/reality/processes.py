"""The real network: starts one process for each node, drives them, ends them."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import msgspec

from atonce_sim.reality.node_process import (
    MAX_LINE,
    Answer,
    BeginMeasuring,
    Command,
    Find,
    Start,
    TellRoundTrips,
    Where,
)
from atonce_sim.reality.procedure import Lookup, Plan
from dht_atonce.errors import ControlError

__all__ = ["Processes"]

_ANSWER_S = 30.0  # of a loaded machine; a lookup gives up after 15 s
_END_S = 10.0  # until all are killed


class Processes:
    """A process for each node, from `__enter__` to `__exit__`; whatever happens, none is left behind."""

    def __init__(self, plan: Plan) -> None:
        self.pids: list[int] = []
        """Of those that were started as nodes."""
        self._plan = plan
        self._where: list[Where] = []
        self._sockets: list[socket.socket] = []
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._answers = msgspec.json.Decoder(Answer)
        self._nursery: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        theirs: list[socket.socket] = []
        try:
            for _ in range(self._plan.peers):
                ours, other = socket.socketpair()
                self._sockets.append(ours)
                theirs.append(other)
            fds = [other.fileno() for other in theirs]
            command = [sys.executable, "-m", "atonce_sim.reality.nursery", *map(str, fds)]
            self._nursery = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=fds, process_group=0)  # noqa: S603 # ourselves
        except OSError as error:
            self._end()
            raise ControlError(f"{self._plan.peers} processes cannot be started here: {error.strerror}") from None
        finally:
            for other in theirs:
                other.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for ours in self._sockets:
            ours.close()
        if self._nursery is None:
            return
        assert self._nursery.stdin is not None
        self._nursery.stdin.close()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._nursery.wait(_END_S)
        finally:
            self._nursery.kill()  # does nothing if it has ended
            self._nursery.wait()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """In the running loop they can be told what to do."""
        try:
            for ours in self._sockets:
                self._streams.append(await asyncio.open_connection(sock=ours, limit=MAX_LINE))
            yield
        finally:
            for _, writer in self._streams:
                writer.close()
            self._streams.clear()

    # --- what a network does ---

    async def start(self, number: int, entries: list[int]) -> None:
        answer = await self._ask(number, Start(self._plan, number, [self._where[entry] for entry in entries]))
        assert answer.where is not None
        self._where.append(answer.where)
        self.pids.append(answer.pid)

    async def find(self, asker: int, key: bytes) -> Lookup:
        answer = await self._ask(asker, Find(key))
        assert answer.lookup is not None
        return answer.lookup

    async def begin_measuring(self) -> None:
        for number in range(self._plan.peers):
            await self._ask(number, BeginMeasuring())

    async def round_trips_s(self) -> list[float]:
        samples_s: list[float] = []
        for number in range(self._plan.peers):
            samples_s += (await self._ask(number, TellRoundTrips())).round_trips_s
        return samples_s

    # --- inside ---

    async def _ask(self, number: int, command: Command) -> Answer:
        """What process `number` answers. Raises `ControlError`."""
        reader, writer = self._streams[number]
        try:
            async with asyncio.timeout(_ANSWER_S):
                writer.write(msgspec.json.encode(command) + b"\n")
                await writer.drain()
                line = await reader.readline()
        except TimeoutError:
            raise ControlError(f"process {number} did not answer within {_ANSWER_S:g} s") from None
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise ControlError(f"process {number} has ended")
        answer = self._answers.decode(line)
        if answer.error:
            raise ControlError(f"process {number}: {answer.error}")
        return answer
