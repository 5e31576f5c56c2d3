"""A real node on loopback, asked by honest nodes while 20,000 spoofed packets a second come in.

    make bench-flood
    python benchmarks/flood.py --rate 20000 --seconds 5 --json

Three processes: the node, the flood, and the honest (this one). Each packet of the flood has a key and a source address
(in 127.0.0.0/8) of its own, and is a FIND_NODE in size. Two kinds of honest nodes ask: one that the node knows, and
newcomers that it has never heard of. All is bounded: `--seconds` at most 30, `--rate` at most 50,000, loopback only.
"""

import argparse
import asyncio
import json
import multiprocessing
import platform
import random
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.wire import FindNode
from dht_atonce.endpoints import Address, Family

NETWORK = NetworkConfig.local_network("bench flood")
NEIGHBOURS = 40
"""Contacts in the node's table, so that its answers have their usual length."""
ASK_EVERY_S = 0.01
NEWCOMER_EVERY_S = 0.05
BATCH_S = 0.001
FLOODED_BEFORE_S = 0.5
"""The flood runs so long before anybody asks, and ends that much and more after it."""
_IP_PKTINFO = 8  # Linux; Python names it from 3.14 on
PACKET_BYTES = 411
TURN = 16
"""Packets that a node serves in one turn of its loop, whoever they are from."""
RESULTS = Path(__file__).parent / "results"


# --- the node ---


def node_process(pipe: Connection) -> None:
    asyncio.run(run_node(pipe))


async def run_node(pipe: Connection) -> None:
    """Says where it is; to each word it answers with its counters and the CPU seconds that it used; None ends it."""
    node = DhtNode(network=NETWORK)
    address = await node.listen(0, "127.0.0.1")
    router, rng = node.servers[Family.IPV4].router, random.Random(1)
    for _ in range(NEIGHBOURS):
        router.on_proved(Contact(rng.randbytes(32), Address("127.0.0.1", rng.randrange(1024, 65536))), 1e18)
    pipe.send((node.shared.node_key.public, tuple(address)))
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def on_word() -> None:
        if pipe.recv() is None:
            ended.set()
        else:
            pipe.send((dict(node.counters), time.process_time()))

    loop.add_reader(pipe.fileno(), on_word)
    await ended.wait()
    await node.aclose()


# --- the flood ---


def flood_process(pipe: Connection, target: tuple[str, int], rate: int, seconds: float) -> None:
    """Sends `rate` packets a second for `seconds`; says 0 when it begins, and then how many it sent. Nothing that comes
    back is read."""
    rng = random.Random(2)
    noise = rng.randbytes(1 << 20)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", 0))
    sent = 0
    pipe.send(sent)
    began = time.monotonic()
    while (passed_s := time.monotonic() - began) < seconds:
        for _ in range(int(passed_s * rate) - sent):
            at = rng.randrange(len(noise) - PACKET_BYTES)
            # struct in_pktinfo: the interface's index, the source address, and one that is not used here
            source = struct.pack("=I4s4s", 0, bytes((127, *rng.randbytes(2), rng.randrange(2, 250))), bytes(4))
            packet = b"\x01\x01" + noise[at : at + PACKET_BYTES - 2]
            sock.sendmsg([packet], [(socket.IPPROTO_IP, _IP_PKTINFO, source)], 0, target)
            sent += 1
        time.sleep(BATCH_S)
    pipe.send(sent)


# --- the honest ---


async def ask(node: DhtNode, contact: Contact) -> float | None:
    """Milliseconds until the answer to one FIND_NODE; None if there is none."""
    protocol = node.servers[Family.IPV4].protocol
    began = time.perf_counter()
    request = FindNode(0, protocol.request_id(), protocol.flags, random.randbytes(20), 0)
    answer = await node.servers[Family.IPV4].ask(contact, request)
    return (time.perf_counter() - began) * 1000 if answer is not None else None


async def new_node() -> DhtNode:
    # Short-lived askers take no seat.
    node = DhtNode(network=NETWORK, config=DhtConfig(), no_seat=True)
    await node.listen(0, "127.0.0.1")
    return node


async def known_asks(contact: Contact, until: float) -> list[float | None]:
    node, times = await new_node(), list[float | None]()
    for _ in range(2):
        await ask(node, contact)
    while time.monotonic() < until:
        times.append(await ask(node, contact))
        await asyncio.sleep(ASK_EVERY_S)
    await node.aclose()
    return times


async def newcomers_ask(contact: Contact, until: float) -> list[float | None]:
    times = list[float | None]()
    while time.monotonic() < until:
        node = await new_node()
        times.append(await ask(node, contact))
        await node.aclose()
        await asyncio.sleep(NEWCOMER_EVERY_S)
    return times


@dataclass(frozen=True, slots=True)
class Asked:
    """How those of one kind fared; milliseconds."""

    asked: int
    unanswered: int
    p50: float
    p99: float

    @classmethod
    def of(cls, times: list[float | None]) -> "Asked":
        # Without an answer it took longer than any that was answered.
        known = sorted(float("inf") if ms is None else ms for ms in times) or [float("inf")]
        return cls(
            len(times),
            times.count(None),
            round(known[len(known) // 2], 2),
            round(known[min(len(known) - 1, len(known) * 99 // 100)], 2),
        )


@dataclass(frozen=True, slots=True)
class Phase:
    """So many seconds with or without a flood."""

    known: Asked
    newcomers: Asked
    received_per_s: int
    """Datagrams that the node read; the kernel may have dropped others."""
    cpu_share: float
    """Of one core, the node's."""
    counters: dict[str, int]


async def phase(pipe: Connection, contact: Contact, seconds: float) -> Phase:
    began, before, cpu = time.monotonic(), *answer_of(pipe)
    known, newcomers = await asyncio.gather(
        known_asks(contact, began + seconds), newcomers_ask(contact, began + seconds)
    )
    after, cpu_after = answer_of(pipe)
    passed_s = time.monotonic() - began
    counted = {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}
    return Phase(
        Asked.of(known),
        Asked.of(newcomers),
        round(counted.get("dht.received", 0) / passed_s),
        round((cpu_after - cpu) / passed_s, 3),
        counted,
    )


async def costs_us() -> dict[str, float]:
    """Microseconds of CPU for a spoofed packet, by what becomes of it; without the kernel's part of receiving it."""
    plenty = 1_000_000
    kinds = {
        "opened in vain": DhtConfig(new_keys_per_s=plenty),
        "answered with a cookie": DhtConfig(new_keys_per_s=1, cookie_answers_per_s=plenty),
        "dropped": DhtConfig(new_keys_per_s=1, cookie_answers_per_s=1),
    }
    rng, costs = random.Random(3), dict[str, float]()
    packets = [b"\x01\x01" + rng.randbytes(PACKET_BYTES - 2) for _ in range(5000)]
    sources = [Address(f"127.{rng.randrange(256)}.{rng.randrange(256)}.2", 4000) for _ in packets]
    for kind, config in kinds.items():
        node = DhtNode(network=NETWORK, config=config)
        await node.listen(0, "127.0.0.1")
        hears = node.servers[Family.IPV4].protocol.datagram_received
        began = time.process_time()
        for at, (packet, source) in enumerate(zip(packets, sources, strict=True)):
            if at % TURN == 0:
                await asyncio.sleep(0)
            hears(packet, source)
        costs[kind] = round((time.process_time() - began) / len(packets) * 1e6, 1)
        await node.aclose()
    return costs


def answer_of(pipe: Connection) -> tuple[dict[str, int], float]:
    pipe.send("how are you")
    counters, cpu_s = pipe.recv()
    return counters, cpu_s


async def measure(rate: int, seconds: float) -> dict[str, Any]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    node = spawn.Process(target=node_process, args=(theirs,), daemon=True)
    node.start()
    key, address = ours.recv()
    contact = Contact(key, Address(*address))
    calm = await phase(ours, contact, seconds)
    told, telling = spawn.Pipe(duplex=False)
    flood = spawn.Process(target=flood_process, args=(telling, tuple(address), rate, seconds + 2), daemon=True)
    flood.start()
    await asyncio.to_thread(told.recv)
    await asyncio.sleep(FLOODED_BEFORE_S)
    flooded = await phase(ours, contact, seconds)
    sent = told.recv() if told.poll(10) else 0
    flood.join()
    ours.send(None)
    node.join()
    costs = await costs_us()
    extra_cpu_s = (flooded.cpu_share - calm.cpu_share) * seconds
    return {
        "rate": rate,
        "seconds": seconds,
        "python": platform.python_version(),
        "flood_sent_per_s": round(sent / (seconds + 2)),
        "calm": asdict(calm),
        "flooded": asdict(flooded),
        "known_p99_ratio": round(flooded.known.p99 / calm.known.p99, 2),
        "newcomers_p99_ratio": round(flooded.newcomers.p99 / calm.newcomers.p99, 2),
        "costs_us": costs,
        "us_per_packet": round(extra_cpu_s / max(1, (flooded.received_per_s - calm.received_per_s) * seconds) * 1e6, 1),
    }


def show(result: dict[str, Any]) -> None:
    table = Table("", "calm", "flooded", title=f"A node under {result['flood_sent_per_s']:,} spoofed packets a second")
    for kind in ("known", "newcomers"):
        for what in ("asked", "unanswered", "p50", "p99"):
            unit = ", ms" if what.startswith("p") else ""
            table.add_row(f"{kind}: {what}{unit}", *(str(result[when][kind][what]) for when in ("calm", "flooded")))
    for what in ("received_per_s", "cpu_share"):
        table.add_row(what.replace("_", " "), *(str(result[when][what]) for when in ("calm", "flooded")))
    console = Console()
    console.print(table)
    for name, count in sorted(result["flooded"]["counters"].items()):
        console.print(f"  {name} {count:,}")
    for kind, us in result["costs_us"].items():
        console.print(f"  {kind}: {us} µs of CPU")
    console.print(
        f"p99 × {result['known_p99_ratio']} for the known, × {result['newcomers_p99_ratio']} for newcomers; "
        f"{result['us_per_packet']} µs of CPU for each flooded packet"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a flood costs a node and those who ask it.")
    parser.add_argument("--rate", type=int, default=20_000, help="packets a second, at most 50,000")
    parser.add_argument("--seconds", type=float, default=5.0, help="each of two phases, at most 30")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    if not 1 <= options.rate <= 50_000 or not 1 <= options.seconds <= 30:
        parser.error("a rate is between 1 and 50,000, and a phase between 1 and 30 seconds")
    if sys.platform != "linux":
        parser.error("only Linux lets a socket choose its source address within 127.0.0.0/8")
    result = asyncio.run(measure(options.rate, options.seconds))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "flood.json").write_text(json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
