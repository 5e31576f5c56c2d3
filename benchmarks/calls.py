"""Requests and replies on real sockets, ours beside asyncio's TLS streams: server and client in a process each.

    python benchmarks/calls.py [--seconds S] [--rounds N] [--json]

Both carry out the same work: a task for each request at the server, which gives back what it was sent; a future for
each at the client, with a time limit. The rival is what one would write by hand: frames with a length and a number over
one connection with TLS 1.3, certificates on both sides. (Ours also lets a request survive its link, cancels it, and
bounds what runs.) Ours and the rival's slices take turns, and only ratios within one run count. CPU is both processes'.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import random
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dht_atonce.calls.calls import Calls, Request
from dht_atonce.config import NetworkConfig
from dht_atonce.endpoints import Address
from dht_atonce.identity import Identity, PeerId
from dht_atonce.membership import CAPABILITIES
from dht_atonce.messaging.curve import system_host
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.records import PresenceRecord, RecordParser

NETWORK = NetworkConfig.local_network("bench")
RESULTS = Path(__file__).resolve().parent / "results"
TIMEOUT_S = 10.0
SHAPES = [(100, 1), (100, 64), (10_000, 64), (60_000, 8)]
"""Bytes each way, and how many requests wait at once."""
HEAD = struct.Struct("!IQ")

Ask = Callable[[bytes], Awaitable[bytes]]
Rival = Callable[[bool, Connection, Path], Awaitable[Ask | None]]


# --- ours ---


async def ours(serves: bool, pipe: Connection, folder: Path) -> Ask | None:
    """A messenger with calls; instead of a DHT, each is told the other's record."""
    identity, other = (Identity.generate(random.Random(number)) for number in ((1, 2) if serves else (2, 1)))
    records: dict[PeerId, PresenceRecord] = {}

    async def find(who: PeerId, fresh: bool) -> PresenceRecord | None:
        return records.get(who)

    counters: Counter[str] = Counter()
    links = system_host().links(identity, counters)
    incarnation = os.urandom(8)
    messenger = Messenger(
        identity.id, links, RecordParser(NETWORK), incarnation, lambda: own.blob, find, counters=counters
    )
    endpoint = messenger.listen(Address("127.0.0.1", 0)).address
    own = PresenceRecord.sign(
        identity,
        NETWORK,
        seq=1,
        incarnation=incarnation,
        expires=int(time.time()) + 3600,
        endpoints=(endpoint,),
        capabilities=CAPABILITIES,
    )
    pipe.send(own.blob)
    records[other.id] = RecordParser(NETWORK).parse_presence(pipe.recv(), None)
    calls = Calls(random.Random(3), counters)
    calls.start(None, messenger)  # type: ignore[arg-type] # the node is not needed

    async def echo(request: Request) -> bytes:
        return request.data

    calls.serve("echo", echo)
    return lambda data: calls.request(other.id, data, TIMEOUT_S, "echo")


# --- what one would write by hand ---


async def tls(serves: bool, pipe: Connection, folder: Path) -> Ask | None:
    """Frames over one TLS connection: length, number, data."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if serves else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.load_verify_locations(folder / "cert.pem")
    if serves:
        server = await asyncio.start_server(_serve_stream, "127.0.0.1", 0, ssl=context)
        pipe.send(server.sockets[0].getsockname()[1])
        asyncio.get_running_loop()._bench_server = server  # type: ignore[attr-defined] # lives as long as the loop
        return None
    reader, writer = await asyncio.open_connection("127.0.0.1", pipe.recv(), ssl=context)
    waiting: dict[int, asyncio.Future[bytes]] = {}
    numbers = iter(range(1 << 62))

    async def read() -> None:
        while True:
            try:
                number, data = await _read_frame(reader)
            except asyncio.IncompleteReadError:
                return
            waiting.pop(number).set_result(data)

    async def ask(data: bytes) -> bytes:
        number = next(numbers)
        future = waiting[number] = asyncio.get_running_loop().create_future()
        writer.write(HEAD.pack(len(data), number) + data)
        await writer.drain()
        async with asyncio.timeout(TIMEOUT_S):
            reply: bytes = await future
        return reply

    ask.task = asyncio.create_task(read())  # type: ignore[attr-defined]
    return ask


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Its number, and what is in it. Raises `asyncio.IncompleteReadError`."""
    size, number = HEAD.unpack(await reader.readexactly(HEAD.size))
    return number, await reader.readexactly(size)


async def _serve_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    tasks: dict[asyncio.Task[None], None] = {}

    async def handle(number: int, data: bytes) -> None:
        writer.write(HEAD.pack(len(data), number) + data)
        await writer.drain()

    while True:
        try:
            number, data = await _read_frame(reader)
        except asyncio.IncompleteReadError:
            return
        task = asyncio.create_task(handle(number, data))
        tasks[task] = None
        task.add_done_callback(tasks.pop)


RIVALS: dict[str, Rival] = {"ours": ours, "tls streams": tls}


# --- both processes ---


def run_process(name: str, serves: bool, pipe: Connection, orders: Connection, folder: Path, fast: bool) -> None:
    """One side of one rival: does what `orders` says until it says None."""
    factory = None
    if fast:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_obey(name, serves, pipe, orders, folder))


async def _obey(name: str, serves: bool, pipe: Connection, orders: Connection, folder: Path) -> None:
    loop = asyncio.get_running_loop()
    ask = await RIVALS[name](serves, pipe, folder)
    received: asyncio.Queue[Any] = asyncio.Queue()
    loop.add_reader(orders.fileno(), lambda: received.put_nowait(orders.recv()))
    while (order := await received.get()) is not None:
        if order == "cpu":
            orders.send(time.process_time())
        else:
            assert ask is not None
            orders.send(await _slice(ask, *order))
    os._exit(0)  # nothing of a benchmark is worth a goodbye


async def _slice(ask: Ask, size: int, at_once: int, seconds: float) -> tuple[int, float, list[float]]:
    """Calls in a slice, how long it took, and each one's milliseconds."""
    data = bytes(size)
    took: list[float] = []
    began = time.perf_counter()
    ends = began + seconds

    async def client() -> None:
        while (at := time.perf_counter()) < ends:
            assert len(await ask(data)) == size
            took.append((time.perf_counter() - at) * 1000)

    await asyncio.gather(*(client() for _ in range(at_once)))
    return len(took), time.perf_counter() - began, took


class Rivalry:
    """A server and a client of one rival."""

    def __init__(self, name: str, folder: Path, fast: bool) -> None:
        here, there = multiprocessing.Pipe()
        self._orders: list[Connection] = []
        self._processes = []
        for serves, pipe in ((True, here), (False, there)):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=run_process, args=(name, serves, pipe, theirs, folder, fast))
            process.start()
            self._orders.append(ours)
            self._processes.append(process)

    def cpu_s(self) -> float:
        """Of both processes, so far."""
        total = 0.0
        for orders in self._orders:
            orders.send("cpu")
            total += orders.recv()
        return total

    def slice(self, size: int, at_once: int, seconds: float) -> dict[str, Any]:
        """Measure for so many seconds."""
        before = self.cpu_s()
        self._orders[1].send((size, at_once, seconds))
        count, elapsed_s, took = self._orders[1].recv()
        cpu_us = (self.cpu_s() - before) / count * 1e6
        took.sort()
        return {
            "calls_per_s": count / elapsed_s,
            "p50_ms": took[count // 2],
            "p99_ms": took[min(count - 1, count * 99 // 100)],
            "cpu_us_per_call": cpu_us,
        }

    def end(self) -> None:
        for orders, process in zip(self._orders, self._processes, strict=True):
            orders.send(None)
            process.join(5)


def make_certificate(folder: Path) -> None:
    """A certificate for both sides of the rival."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=bench"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)


def measure(seconds: float, rounds: int) -> list[dict[str, Any]]:
    """All slices, the rivals by turns."""
    slices = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificate(folder)
        for fast in (False, True):
            rivals = {name: Rivalry(name, folder, fast) for name in RIVALS}
            for number in range(rounds + 1):
                for size, at_once in SHAPES:
                    for rival in sorted(rivals, reverse=number % 2 == 0):
                        figures = rivals[rival].slice(size, at_once, seconds if number else 0.2)
                        if number:  # the first round only warms up
                            loop = "uvloop" if fast else "asyncio"
                            slices.append({"rival": rival, "loop": loop, "bytes": size, "at_once": at_once, **figures})
            for rivalry in rivals.values():
                rivalry.end()
    return slices


def summary(slices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each shape: medians of the slices, of CPU the lowest; and ours over the rival's."""
    rows = []
    for loop in ("asyncio", "uvloop"):
        for size, at_once in SHAPES:
            row: dict[str, Any] = {"loop": loop, "bytes": size, "at_once": at_once}
            for key in ("calls_per_s", "p50_ms", "p99_ms", "cpu_us_per_call"):
                middle = min if key.startswith("cpu") else statistics.median
                shape = [s for s in slices if (s["loop"], s["bytes"], s["at_once"]) == (loop, size, at_once)]
                mine, theirs = (middle(s[key] for s in shape if s["rival"] == rival) for rival in RIVALS)
                row[key] = [round(mine, 3), round(theirs, 3), round(mine / theirs, 2)]
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each slice")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    load = os.getloadavg()
    slices = measure(options.seconds, options.rounds)
    rows = summary(slices)
    result = {
        "machine": platform.platform(),
        "python": sys.version,
        "cpus": os.cpu_count(),
        "load_before": load,
        "load_after": os.getloadavg(),
        "summary": rows,
        "slices": slices,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("calls-%Y%m%d-%H%M%S.json")
    path.write_text(json.dumps(result, indent=1))
    if options.json:
        print(json.dumps(result))
        return
    print("ours, asyncio's TLS streams, ours over theirs (medians; CPU of both processes: the lowest slice)")
    for row in rows:
        print(f"\n{row['loop']}, {row['bytes']} B each way, {row['at_once']} at once")
        for key in ("calls_per_s", "p50_ms", "p99_ms", "cpu_us_per_call"):
            mine, theirs, ratio = row[key]
            print(f"  {key:16} {mine:10.2f} {theirs:10.2f} {ratio:6.2f}")
    print(f"\nall figures: {path}")


if __name__ == "__main__":
    main()
