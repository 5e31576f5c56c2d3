"""A stream of @Once beside a TLS stream of asyncio: two processes on loopback, the same bytes, in turn, in one run.

    make bench-streams
    python benchmarks/streams.py [--megabytes N] [--rounds N] [--uvloop]

Only ratios of one run count: what else the machine does slows both. The TLS stream is written as the manual has it,
64 KiB and a drain() at a time, and read by read(64 KiB); its certificate is made for the run (by the openssl command)
and not verified. During one more transfer a message is sent every 20 ms, and its acknowledgement timed.
"""

import argparse
import asyncio
import json
import os
import platform
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from atonce_seed.server import SeedServer
from dht_atonce import NetworkConfig, Peer, PeerId

RESULTS = Path(__file__).parent / "results"
NETWORK = NetworkConfig.local_network("bench streams")
PIECE = 1 << 16
MEGABYTE = 1_000_000
MESSAGE_EVERY_S = 0.02

Transfer = Callable[[int], Awaitable[dict[str, float]]]


def run(main: Coroutine[Any, Any, None], with_uvloop: bool) -> None:
    factory = None
    if with_uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


# --- the other process ---


async def serve(folder: Path) -> None:
    """Reads streams of both kinds, and answers each with the bytes that it read and the CPU seconds that it took."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    server = await asyncio.start_server(on_tls, "127.0.0.1", 0, ssl=context)
    seed = await SeedServer.open(network=NETWORK, listen=["127.0.0.1"])
    async with Peer.open(seeds=[seed.url()], listen=["127.0.0.1"]) as peer:
        tls = server.sockets[0].getsockname()[1]
        print(json.dumps({"seed": str(seed.url()), "peer": str(peer.id), "tls": tls}), flush=True)
        reading = asyncio.create_task(read_messages(peer))
        async for stream in peer.streams():
            count, began = 0, time.process_time()
            async for chunk in stream:
                count += len(chunk)
            await stream.write(json.dumps([count, time.process_time() - began]).encode())
            await stream.aclose()
        await reading


async def read_messages(peer: Peer) -> None:
    async for _ in peer.messages():
        pass


async def on_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    wanted = int.from_bytes(await reader.readexactly(8))
    count, began = 0, time.process_time()
    while count < wanted:
        count += len(await reader.read(PIECE))
    writer.write(json.dumps([count, time.process_time() - began]).encode())
    await writer.drain()
    writer.close()


# --- this process ---


def timed(size: int, began: tuple[float, float], answer: bytes) -> dict[str, float]:
    elapsed_s, cpu_s = time.perf_counter() - began[0], time.process_time() - began[1]
    count, their_cpu_s = json.loads(answer)
    assert count == size
    return {"mb_per_s": size / MEGABYTE / elapsed_s, "cpu_ms_per_mb": (cpu_s + their_cpu_s) * 1e3 / (size / MEGABYTE)}


async def over_tls(port: int, piece: bytes, size: int) -> dict[str, float]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    began = time.perf_counter(), time.process_time()
    writer.write(size.to_bytes(8))
    for _ in range(size // PIECE):
        writer.write(piece)
        await writer.drain()
    answer = await reader.read()
    writer.close()
    return timed(size, began, answer)


async def over_stream(peer: Peer, to: PeerId, piece: bytes, size: int) -> dict[str, float]:
    async with await peer.open_stream(to, "bench") as stream:
        began = time.perf_counter(), time.process_time()
        for _ in range(size // PIECE):
            await stream.write(piece)
        await stream.write_eof()
        answer = b"".join([chunk async for chunk in stream])
        return timed(size, began, answer)


async def messages_meanwhile(peer: Peer, to: PeerId, transfer: Awaitable[Any]) -> list[float]:
    """Milliseconds until messages were acknowledged that were sent while `transfer` ran."""
    took_ms: list[float] = []
    running = asyncio.ensure_future(transfer)
    while not running.done():
        began = time.perf_counter()
        await peer.send(to, b"a message")
        took_ms.append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(MESSAGE_EVERY_S)
    await running
    return took_ms


def quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[int(len(ordered) * 0.99)], "count": len(ordered)}


async def compare(where: dict[str, Any], megabytes: int, rounds: int, report: dict[str, Any]) -> None:
    size = megabytes * MEGABYTE // PIECE * PIECE
    piece, to = os.urandom(PIECE), PeerId.parse(where["peer"])
    async with Peer.open(seeds=[where["seed"]], listen=["127.0.0.1"]) as peer:
        ways: dict[str, Transfer] = {
            "tls": lambda size: over_tls(where["tls"], piece, size),
            "stream": lambda size: over_stream(peer, to, piece, size),
        }
        for way in ways.values():
            await way(PIECE * 64)  # what happens only once
        idle = await messages_meanwhile(peer, to, asyncio.sleep(1.0))
        for number in range(rounds):
            trial = {}
            for name in sorted(ways, reverse=bool(number % 2)):
                trial[name] = await ways[name](size)
            ratio = trial["stream"]["mb_per_s"] / trial["tls"]["mb_per_s"]
            report["rounds"].append({**trial, "ratio": ratio})
            told = ", ".join(f"{name} {one['mb_per_s']:.0f} MB/s" for name, one in trial.items())
            print(f"round {number + 1}: {told}; ratio {ratio:.2f}", file=sys.stderr)
        busy = await messages_meanwhile(peer, to, ways["stream"](size))
        report["message_ms"] = {"idle": quantiles(idle), "during_transfer": quantiles(busy)}


def main() -> None:
    parser = argparse.ArgumentParser(description="A stream of @Once beside a TLS stream of asyncio.")
    parser.add_argument("--megabytes", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        run(serve(args.serve), args.uvloop)
        return
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "uvloop": args.uvloop,
        "megabytes": args.megabytes,
        "rounds": [],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 1 -nodes -subj /CN=bench"
        files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
        subprocess.run([*make.split(), *files], check=True, capture_output=True)
        words = [sys.executable, __file__, "--serve", str(folder), *(["--uvloop"] if args.uvloop else [])]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            try:
                where = json.loads(other.stdout.readline())
                run(compare(where, args.megabytes, args.rounds, report), args.uvloop)
            finally:
                other.terminate()
    trials = report["rounds"]
    report["median_ratio"] = statistics.median(trial["ratio"] for trial in trials)
    least = {name: min(trial[name]["cpu_ms_per_mb"] for trial in trials) for name in ("tls", "stream")}
    report["least_cpu_ms_per_mb"] = least
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"streams-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "rounds"}, indent=1))
    print(f"all of it: {path}")


if __name__ == "__main__":
    main()
