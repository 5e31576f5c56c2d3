"""Durable messages between two real peers that are killed and started again, each time at other addresses, while
their links are cut: processes, disks, sockets, a seed and a third peer, so that there is a network while both are dead.

The giver keeps numbered messages and says so line by line; after a kill it goes on behind the last one that it said.
The worker says what it gets, calls `done`, and says so. A pipe keeps what was said before a kill, so the judge knows.
"""

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dht_atonce import DurableMessage, DurableReceipt, Peer
from dht_atonce.errors import QueueFull
from dht_atonce.messaging.curve import CurveNet
from soak.cuts import cut_all

__all__ = ["Judge", "act", "restart"]

_HERE = ["127.0.0.1"]
_TOGETHER = 64  # messages that are kept, or done, by one fsync where the disk is slow
_LINE_S = 180.0  # a process that says nothing for so long hangs
_QUIET_S = 10.0  # after the last word of anybody nothing more comes
_AHEAD = 20_000  # messages that the giver keeps beyond those that the worker has


# --- the processes ---


async def bystand(seed_url: str) -> None:
    """A third peer."""
    async with Peer.open(None, seeds=[seed_url], listen=_HERE) as peer:
        print("ready", peer.id, flush=True)
        await asyncio.Event().wait()


async def give(seed_url: str, profile: str, worker: str, run: int, first: int, count: int) -> None:
    """Keep the messages `first` to `count`, not too far ahead of the worker; then stay, since what was kept in earlier
    runs has yet to leave, and receipts end with their run."""
    async with Peer.open(profile, seeds=[seed_url], listen=_HERE) as peer:
        print("ready", flush=True)
        waiting: list[DurableReceipt] = []
        for start in range(first, count, _TOGETHER):
            numbers = range(start, min(count, start + _TOGETHER))
            try:
                receipts = [peer.post(worker, b"%d %d" % (run, number), durable=True) for number in numbers]
            except QueueFull:
                sys.exit("the giver was not to get so far ahead")
            for receipt in receipts:
                await receipt.kept()
            print("kept", numbers[-1], flush=True)
            waiting += receipts
            while len(waiting) > _AHEAD:
                await waiting[0]
                del waiting[:_TOGETHER]
        await asyncio.Event().wait()


async def work(seed_url: str, profile: str, cut_every_s: float) -> None:
    """Get messages, say so, have done with them, say so."""
    async with Peer.open(profile, seeds=[seed_url], listen=_HERE) as peer:
        print("ready", peer.id, flush=True)
        cutter = asyncio.create_task(_cut(peer, cut_every_s))
        async for together in _batches(peer):
            sys.stdout.write("".join(f"got {one.id.hex()} {one.data.decode()}\n" for one in together))
            sys.stdout.flush()
            await asyncio.gather(*(one.done() for one in together))
            sys.stdout.write("".join(f"done {one.id.hex()}\n" for one in together))
            sys.stdout.flush()
        cutter.cancel()


async def _batches(peer: Peer) -> AsyncIterator[list[DurableMessage]]:
    """What is there, up to 64 messages."""
    queue: asyncio.Queue[DurableMessage] = asyncio.Queue(_TOGETHER)

    async def read() -> None:
        async for message in peer.messages():
            if isinstance(message, DurableMessage):
                await queue.put(message)

    reader = asyncio.create_task(read())
    try:
        while True:
            batch = [await queue.get()]
            while len(batch) < _TOGETHER and not queue.empty():
                batch.append(queue.get_nowait())
            yield batch
    finally:
        reader.cancel()


async def _cut(peer: Peer, every_s: float) -> None:
    """Shut the descriptors of all links down below libzmq: neither side is told."""
    links = peer._membership._links
    assert isinstance(links, CurveNet)
    while every_s:
        await asyncio.sleep(every_s)
        cut_all(links)


async def act(name: str, args: list[str]) -> None:
    """Be one of the three, until whoever started us has ended."""
    threading.Thread(target=_end_with_starter, daemon=True).start()
    if name == "bystand":
        await bystand(*args)
    elif name == "work":
        await work(args[0], args[1], float(args[2]))
    else:
        url, profile, worker, run, first, count = args
        await give(url, profile, worker, int(run), int(first), int(count))


def _end_with_starter() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


# --- the judge ---


@dataclass(slots=True)
class Judge:
    """What was said, held against what docs/guide/durable.md promises."""

    kept: int = -1
    """The highest number that the giver said to be kept."""
    numbers: dict[int, str] = field(default_factory=dict)
    """Number → id of the message that the worker got last with it."""
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Id → run and number, of all that the worker got."""
    done: set[str] = field(default_factory=set)
    again: int = 0
    """Messages that came once more, since the worker died before it had done with them."""
    resent: int = 0
    """Numbers that came under two ids, since the giver died after keeping and before it said so."""
    last: tuple[int, int] = (0, -1)
    this_life: set[str] = field(default_factory=set)
    last_heard: float = 0.0
    problems: list[str] = field(default_factory=list)
    kills: int = 0

    def on_worker_started(self) -> None:
        """A new process."""
        self.this_life = set()

    def hear(self, line: str) -> None:
        """Any line of either."""
        self.last_heard = time.monotonic()
        what, *rest = line.split()
        if what == "kept":
            self.kept = max(self.kept, int(rest[0]))
        elif what == "done":
            self.done.add(rest[0])
        elif what == "got":
            self._on_got(rest[0], int(rest[1]), int(rest[2]))

    def _on_got(self, message_id: str, run: int, number: int) -> None:
        if message_id in self.done:
            self.problems.append(f"{number} came again after it was done")
        if message_id in self.this_life:
            self.problems.append(f"{number} came twice to one process")
        self.this_life.add(message_id)
        if message_id in self.seen:
            self.again += 1
            return
        if (run, number) <= self.last:
            self.problems.append(f"{number} of run {run} came behind {self.last}")
        elif run == self.last[0] and number != self.last[1] + 1:
            self.problems.append(f"{self.last[1] + 1} of run {run} is missing before {number}")
        self.last = (run, number)
        self.seen[message_id] = (run, number)
        self.resent += number in self.numbers
        self.numbers[number] = message_id

    @property
    def unsaid(self) -> int:
        """Messages that came and of which it was not said that they are done."""
        return len(self.seen.keys() - self.done)

    def close(self, count: int) -> None:
        """All is said and done: what was not done would have come again to the last worker."""
        missing = [number for number in range(count) if number not in self.numbers]
        if missing:
            self.problems.append(f"{len(missing)} never came, {missing[0]} the first of them")
        if self.unsaid > _TOGETHER * self.kills:
            self.problems.append(f"{self.unsaid} were not done")


class _Actor:
    """A process that is killed now and then, and what it says."""

    def __init__(self, judge: Judge, name: str) -> None:
        self.judge = judge
        self.name = name
        self.process: asyncio.subprocess.Process | None = None
        self.first_line: asyncio.Future[str] | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self, *args: object) -> str:
        """Gives its first line."""
        self.first_line = asyncio.get_running_loop().create_future()
        command = (sys.executable, "-m", "soak", "actor", self.name, *map(str, args))
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        self._reader = asyncio.create_task(self._read())
        return await asyncio.wait_for(asyncio.shield(self.first_line), _LINE_S)

    async def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        assert self.first_line is not None
        async for raw in self.process.stdout:
            if not raw.endswith(b"\n"):
                break  # it died within a word
            line = raw.decode().strip()
            if not self.first_line.done():
                self.first_line.set_result(line)
            self.judge.hear(line)
        if not self.first_line.done():
            self.first_line.set_result("")

    async def end(self, number: int = signal.SIGKILL) -> None:
        """Kill it, and hear what it had said."""
        assert self.process is not None
        assert self._reader is not None
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        await self.process.wait()
        await self._reader

    @property
    def has_ended(self) -> bool:
        return self.process is not None and self.process.returncode is not None


async def restart(
    count: int, kill_every_s: float, cut_every_s: float, say: Callable[[Judge], None], seed: int = 1
) -> Judge:
    """Carry `count` durable messages from one to the other, one of them killed about every `kill_every_s` seconds."""
    rng = random.Random(seed)
    judge = Judge()
    with tempfile.TemporaryDirectory(prefix="atonce-soak-") as folder:
        home = Path(folder)
        entry = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dht_atonce.cli.main", "seed", "--local", "--json"),
            *("--profile", home / "seed", "--listen", _HERE[0], "--public-host", _HERE[0]),
            stdout=asyncio.subprocess.PIPE,
        )
        assert entry.stdout is not None
        bystander, worker, giver = _Actor(judge, "bystand"), _Actor(judge, "work"), _Actor(judge, "give")
        try:
            url = str(json.loads(await asyncio.wait_for(entry.stdout.readline(), _LINE_S))["url"])
            await bystander.start(url)
            where = (url, home / "worker", cut_every_s)
            worker_id = (await worker.start(*where)).split()[1]
            run = 1
            await giver.start(url, home / "giver", worker_id, run, 0, count)
            progress = time.monotonic()
            while len(judge.numbers) < count:
                before = len(judge.done)
                await asyncio.sleep(kill_every_s * rng.uniform(0.5, 1.5))
                say(judge)
                if len(judge.done) > before:
                    progress = time.monotonic()
                elif time.monotonic() - progress > 2 * _LINE_S:
                    judge.problems.append(f"nothing was done for {2 * _LINE_S:.0f} s")
                    break
                which = rng.choice(("worker", "giver", "both", "nobody"))
                if which in ("worker", "both"):
                    judge.kills += 1
                    await worker.end()
                    judge.on_worker_started()
                if which in ("giver", "both"):
                    judge.kills += 1
                    await giver.end()
                if worker.has_ended and not await worker.start(*where):
                    judge.problems.append("the worker did not start again")
                    break
                if giver.has_ended:
                    run += 1
                    if not await giver.start(url, home / "giver", worker_id, run, judge.kept + 1, count):
                        judge.problems.append("the giver did not start again")
                        break
            while (wait_s := judge.last_heard + _QUIET_S - time.monotonic()) > 0:  # noqa: ASYNC110 # it is of real time
                await asyncio.sleep(wait_s)
        finally:
            for actor in (giver, worker, bystander):
                if actor.process is not None and not actor.has_ended:
                    await actor.end()
            if entry.returncode is None:
                entry.terminate()
            await entry.wait()
    judge.close(count)
    return judge
