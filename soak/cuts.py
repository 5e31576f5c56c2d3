"""Delivery over real sockets whose TCP connections are cut: two processes, CURVE, the kernel's loopback.

The receiver cuts, by shutting descriptors down below libzmq; neither side is told. `far` is the receiver's process.
"""

import asyncio
import random
import sys
from collections import deque
from dataclasses import dataclass

import msgspec

from dht_atonce import NetworkConfig, PeerId, PresenceRecord, Receipt, State
from dht_atonce.config import LinkConfig
from dht_atonce.endpoints import Address
from dht_atonce.identity import Identity
from dht_atonce.messaging.curve import CurveNet
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.records import RecordParser

__all__ = ["Report", "cut_all", "cut_regularly", "far", "redial"]

NETWORK = NetworkConfig.local_network("cuts")
LOOPBACK = "127.0.0.1"
NEAR, FAR = Identity(bytes([1] * 32)), Identity(bytes([2] * 32))
OUTSTANDING = 4096
PATIENCE_S = 60.0
_BURST = 64


class Report(msgspec.Struct):
    """What the receiver saw."""

    received: int = 0
    out_of_order: int = 0
    cuts: int = 0


@dataclass(slots=True)
class End:
    """A messenger with sockets of its own, and where it listens."""

    messenger: Messenger
    net: CurveNet
    address: Address


def _open(identity: Identity, other: PeerId, other_address: Address | None) -> End:
    rng = random.SystemRandom()
    incarnation = rng.randbytes(8)

    def record(who: Identity, *endpoints: Address) -> PresenceRecord:
        return PresenceRecord.sign(
            who, NETWORK, seq=1, incarnation=incarnation, expires=1 << 40, status="online", endpoints=endpoints
        )

    known = record(FAR, other_address) if other_address is not None else None

    async def find(who: PeerId, fresh: bool) -> PresenceRecord | None:
        return known if who == other else None

    net = CurveNet(identity, LinkConfig(), rng=rng)
    own = record(identity).blob
    messenger = Messenger(identity.id, net, RecordParser(NETWORK), incarnation, lambda: own, find)
    return End(messenger, net, messenger.listen(Address(LOOPBACK, 0)).address)


def cut_all(net: CurveNet) -> int:
    """Cut all links that others dialled; gives how many."""
    connections = [(listener, one) for listener in net._listeners for one in listener._connections.values()]
    for listener, connection in connections:
        listener._cut(connection)
    return len(connections)


async def far(every_s: float, each: int) -> None:
    """The receiver: prints its port, then cuts every `every_s` seconds, or after `each` messages, until it is told to
    stop by an empty message; prints its report."""
    end, report = _open(FAR, NEAR.id, None), Report()
    print(end.address.port, flush=True)

    def cut() -> None:
        report.cuts += cut_all(end.net)

    async def regularly() -> None:
        while every_s:
            await asyncio.sleep(every_s)
            cut()

    cutter = asyncio.create_task(regularly())
    async for message in end.messenger.messages():
        if not message.data:
            break
        number = int.from_bytes(message.data[:8], "big")
        if number != report.received:
            report.out_of_order += 1
        report.received += 1
        if each and report.received % each == 0:
            cut()
    cutter.cancel()
    await asyncio.sleep(0.2)  # the last acknowledgement leaves
    await end.messenger.aclose()
    print(msgspec.json.encode(report).decode(), flush=True)


async def _begin(every_s: float, each: int) -> tuple[End, asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "soak", "far", str(every_s), str(each), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    return _open(NEAR, FAR.id, Address(LOOPBACK, port)), process


async def _finish(end: End, process: asyncio.subprocess.Process) -> Report:
    await end.messenger.send(FAR.id, b"", PATIENCE_S)
    assert process.stdout is not None
    report = msgspec.json.decode(await process.stdout.readline(), type=Report)
    await process.wait()
    await end.messenger.aclose()
    return report


async def cut_regularly(messages: int, every_s: float, each: int = 0) -> tuple[dict[str, int], Report]:
    """Send so many messages while the link is cut every `every_s` seconds, or at each so many messages; gives the
    receipts' states and the other's report."""
    end, process = await _begin(every_s, each)
    states: dict[str, int] = {}
    waiting: deque[Receipt] = deque()

    async def settle() -> None:
        receipt = waiting.popleft()
        try:
            await receipt
        except Exception as error:
            print(error, file=sys.stderr)
        states[receipt.state.value] = states.get(receipt.state.value, 0) + 1

    for number in range(messages):
        waiting.append(end.messenger.post(FAR.id, number.to_bytes(8, "big") + bytes(92), PATIENCE_S))
        if number % _BURST == 0:
            await asyncio.sleep(0)
        if len(waiting) >= OUTSTANDING:
            for _ in range(OUTSTANDING // 2):
                await settle()
    while waiting:
        await settle()
    return states, await _finish(end, process)


async def redial(links: int) -> tuple[int, Report]:
    """Send one message over each of so many links, each cut when it came; gives how many were not delivered."""
    end, process = await _begin(0.0, 1)
    lost = 0
    for number in range(links):
        receipt = end.messenger.post(FAR.id, number.to_bytes(8, "big"), PATIENCE_S)
        try:
            await receipt
        except Exception as error:
            print(f"{number}: {error}", file=sys.stderr)
        lost += receipt.state is not State.DELIVERED
    return lost, await _finish(end, process)
