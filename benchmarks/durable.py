"""Durable messages between two real peers on loopback, on real disks, beside plain ones.

    make bench-durable
    python -m benchmarks.durable --messages 20000 --size 100 --folder /where/the/disk/is --json

Both peers, and a seed, run in this process on one loop, so all figures hold the work of both sides. The disk is the one
of `--folder` (default: the system's temporary folder, which may be in memory). Loopback only; ends within two minutes.
"""

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from atonce_seed.server import SeedServer
from dht_atonce import DurableMessage, NetworkConfig, Peer, QueueFull
from dht_atonce.disk import FolderDisk
from dht_atonce.durable.store import Store

NETWORK = NetworkConfig.local_network("bench durable")
RESULTS = Path(__file__).parent / "results"
SINGLES = 200


async def read(peer: Peer, got: asyncio.Queue[int]) -> None:
    """Reads all, and is done with what is durable without waiting for each."""
    finishing: set[asyncio.Task[None]] = set()
    async for message in peer.messages():
        if isinstance(message, DurableMessage):
            task = asyncio.ensure_future(message.done())
            finishing.add(task)
            task.add_done_callback(finishing.discard)
        got.put_nowait(1)


async def take(got: asyncio.Queue[int], count: int) -> None:
    for _ in range(count):
        await got.get()


async def stream(
    alice: Peer, bob: Peer, got: asyncio.Queue[int], count: int, size: int, durable: bool
) -> dict[str, Any]:
    """Post `count` messages as fast as the queue takes them; until all are acknowledged and read."""
    data = bytes(size)
    began, cpu = time.perf_counter(), time.process_time()
    receipts: list[Any] = []
    for _ in range(count):
        while True:
            try:
                receipts.append(alice.post(bob.id, data, durable=True) if durable else alice.post(bob.id, data, 60.0))
                break
            except QueueFull:
                await receipts[-1]
        if len(receipts) % 256 == 0:
            await asyncio.sleep(0)
    await receipts[-1]
    acknowledged_s = time.perf_counter() - began
    await take(got, count)
    passed_s = time.perf_counter() - began
    return {
        "messages": count,
        "bytes": size,
        "acknowledged_per_s": round(count / acknowledged_s),
        "read_per_s": round(count / passed_s),
        "cpu_us_per_message": round((time.process_time() - cpu) / count * 1e6, 1),
    }


async def singles(alice: Peer, bob: Peer, got: asyncio.Queue[int], size: int, durable: bool) -> dict[str, float]:
    """One after another: milliseconds until each is acknowledged, and, durable, until it is on our own disk."""
    acknowledged, kept = list[float](), list[float]()
    for _ in range(SINGLES):
        began = time.perf_counter()
        if durable:
            receipt = await alice.send(bob.id, bytes(size), durable=True)
            kept.append((time.perf_counter() - began) * 1000)
            await receipt
        else:
            await alice.send(bob.id, bytes(size))
        acknowledged.append((time.perf_counter() - began) * 1000)
        await take(got, 1)
    return {**percentiles("acknowledged", acknowledged), **(percentiles("kept", kept) if kept else {})}


def percentiles(what: str, times: list[float]) -> dict[str, float]:
    times.sort()
    return {
        f"{what}_p50_ms": round(times[len(times) // 2], 2),
        f"{what}_p99_ms": round(times[len(times) * 99 // 100], 2),
    }


def bare_disk(folder: Path, size: int) -> dict[str, float]:
    """What the disk and SQLite take without us: commits of one row, and of 1,000."""
    disk = FolderDisk(folder / "bare")
    store = Store.open(disk)
    row = (bytes(32), bytes(16), 1, bytes(size))
    began = time.perf_counter()
    for _ in range(SINGLES):
        store.perform([lambda store: store.add_outgoing([row])])
    one_ms = (time.perf_counter() - began) / SINGLES * 1000
    began = time.perf_counter()
    for _ in range(20):
        store.perform([lambda store: store.add_outgoing([row] * 1000)])
    many_us = (time.perf_counter() - began) / 20_000 * 1e6
    path = folder / "plain"
    with path.open("wb") as file:
        began = time.perf_counter()
        for _ in range(SINGLES):
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        fsync_ms = (time.perf_counter() - began) / SINGLES * 1000
    store.close()
    disk.close()
    return {"fsync_ms": round(fsync_ms, 3), "commit_ms": round(one_ms, 3), "row_of_1000_us": round(many_us, 1)}


async def measure(folder: Path, count: int, size: int) -> dict[str, Any]:
    listen = ("127.0.0.1",)
    result: dict[str, Any] = {"python": platform.python_version(), "load": round(os.getloadavg()[0], 1)}
    result["disk"] = bare_disk(folder, size)
    seed = await SeedServer.open(folder / "seed", network=NETWORK, listen=listen)
    urls = [seed.url()]
    async with (
        Peer.open(folder / "alice", seeds=urls, listen=listen) as alice,
        Peer.open(folder / "bob", seeds=urls, listen=listen) as bob,
    ):
        got: asyncio.Queue[int] = asyncio.Queue()
        reader = asyncio.create_task(read(bob, got))
        await alice.send(bob.id, b"a link")
        await take(got, 1)
        for kind, durable in (("plain", False), ("durable", True)):
            result[f"{kind} stream"] = await stream(alice, bob, got, count, size, durable)
            result[f"{kind} singles"] = await singles(alice, bob, got, size, durable)
        reader.cancel()
        began = time.perf_counter()
        await asyncio.sleep(0.5)  # what is done is written
    result["closed_ms"] = round((time.perf_counter() - began - 0.5) * 1000)
    await seed.aclose()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=100, help="bytes of each")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        result = asyncio.run(measure(Path(folder), min(given.messages, 90_000), given.size))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "durable.json").write_text(json.dumps(result, indent=1) + "\n")
    if given.json:
        print(json.dumps(result))
        return
    table = Table("what", "figures")
    for name, figures in result.items():
        table.add_row(
            name, ", ".join(f"{k} {v}" for k, v in figures.items()) if isinstance(figures, dict) else str(figures)
        )
    Console().print(table)


if __name__ == "__main__":
    main()
