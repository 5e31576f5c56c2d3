"""@Once's messengers over CURVE links, with delivery on, through what an app uses: `post`, `send`, `messages`."""

import asyncio
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from benchmarks.messages.plan import ROWS, Plan
from benchmarks.messages.rival import Figures, Info, Skipped
from benchmarks.messages.workload import CHUNK, DONE, ECHO, END, STREAM, Clock, latencies, message
from dht_atonce.config import MessagingConfig, NetworkConfig
from dht_atonce.endpoints import Address
from dht_atonce.identity import Identity, PeerId
from dht_atonce.messaging.curve import CurveNet
from dht_atonce.messaging.curve_link import VERSION
from dht_atonce.messaging.frames import Frame, Hello, read_frame, write_frame
from dht_atonce.messaging.inbox import Message
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.records import PresenceRecord, RecordParser

__all__ = ["far", "near"]

_NETWORK = NetworkConfig.local_network("bench")
_PARSER = RecordParser(_NETWORK)
_HERE = Address("127.0.0.1", 0)
_STRIDE = 512  # messages that the sender of a stream posts in one turn of the loop
_AHEAD = 32  # strides between the last one and the one whose acknowledgement is waited for


class _Person:
    """A messenger that is listening. It finds those whose `known` records it was given."""

    def __init__(self, known: dict[PeerId, PresenceRecord], config: MessagingConfig | None = None) -> None:
        rng = random.SystemRandom()
        self.identity = Identity.generate(rng)
        self.links = CurveNet(self.identity, rng=rng)
        self._known = known
        incarnation = rng.randbytes(8)
        self.messenger = Messenger(
            self.identity.id,
            self.links,
            _PARSER,
            incarnation,
            lambda: self.record.blob,
            self._find,
            config=config,
        )
        address = self.messenger.listen(_HERE).address
        self.record = _presence(self.identity, incarnation, address)

    async def _find(self, peer_id: PeerId, fresh: bool) -> PresenceRecord | None:
        return self._known.get(peer_id)


def _presence(identity: Identity, incarnation: bytes, *endpoints: Address) -> PresenceRecord:
    expires = int(time.time()) + 3600
    return PresenceRecord.sign(identity, _NETWORK, seq=1, incarnation=incarnation, expires=expires, endpoints=endpoints)


# --- the far end ---


async def far(plan: Plan, say: Callable[[Info], None]) -> None:
    """One messenger for each link."""
    people = [_Person({}) for _ in range(plan.links if plan.row.startswith("fan") else 1)]
    say({"records": [person.record.blob.hex() for person in people], "pid": os.getpid()})
    if plan.row == "ping-handler":
        messenger = people[0].messenger

        def answer(one: Message) -> None:
            messenger.post(one.sender, one.data)

        messenger.on_message(answer)
        await asyncio.Event().wait()
    await asyncio.gather(*(_serve(person.messenger) for person in people))


async def _serve(messenger: Messenger) -> None:
    async for one in messenger.messages():
        data = one.data
        what = data[0]
        if what == STREAM:
            continue
        messenger.post(one.sender, data if what == ECHO else DONE)


# --- the near end ---


async def near(plan: Plan, info: Info) -> Figures:
    """One messenger; it dials the others."""
    row = ROWS[plan.row]
    if row.name == "memory":
        return await _memory(plan, info)
    records = [_PARSER.parse_presence(bytes.fromhex(blob), None) for blob in info["records"]]
    messenger = _Person({record.peer_id: record for record in records}).messenger
    peers = [record.peer_id for record in records]
    await asyncio.gather(*(messenger.send(peer, message(STREAM, 1)) for peer in peers))
    if row.name.startswith("one-way"):
        return await _one_way(plan, messenger, peers[0], message(STREAM, row.size))
    if row.name.startswith("acked"):
        return await _acked(plan, messenger, peers[0], message(STREAM, row.size), row.in_flight)
    if row.name.startswith("fan"):
        return await _fan_out(plan, messenger, peers, message(STREAM, row.size), row.burst)
    if row.name == "ping":
        return await _ping(plan, messenger, peers[0], message(ECHO, row.size))
    return await _ping_handler(plan, messenger, peers[0], message(ECHO, row.size))


async def _one_way(plan: Plan, messenger: Messenger, to: PeerId, data: bytes) -> Figures:
    post, clock, end, replies = messenger.post, Clock(plan), message(END, 1), aiter(messenger.messages())
    strides = CHUNK // _STRIDE * 5
    while True:
        receipts = []
        for at in range(strides):
            for _ in range(_STRIDE):
                receipt = post(to, data)
            receipts.append(receipt)
            if at >= _AHEAD:
                await receipts[at - _AHEAD]
            await asyncio.sleep(0)
        post(to, end)
        await anext(replies)
        if clock.is_over(strides * _STRIDE):
            return clock.rate


async def _acked(plan: Plan, messenger: Messenger, to: PeerId, data: bytes, in_flight: int) -> Figures:
    clock, count, is_over, slice_ = Clock(plan), 0, False, CHUNK // 4

    async def worker() -> None:
        nonlocal count, is_over
        while not is_over:
            await messenger.send(to, data)
            count += 1
            if count == slice_:
                count = 0
                is_over |= clock.is_over(slice_)

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return clock.rate


async def _fan_out(plan: Plan, messenger: Messenger, peers: list[PeerId], data: bytes, burst: int) -> Figures:
    post_many, clock, end, replies = messenger.post_many, Clock(plan), message(END, 1), aiter(messenger.messages())
    bursts = max(1, 2 * CHUNK // len(peers) // burst)
    while True:
        receipts: list[Any] = []
        for at in range(bursts):
            for _ in range(burst):
                posted = post_many(peers, data)
            receipts.append(posted)
            if at * burst >= 1024:
                await receipts[at - 1024 // burst][-1]
            await asyncio.sleep(0)
        post_many(peers, end)
        for _ in peers:
            await anext(replies)
        if clock.is_over(bursts * burst * len(peers)):
            return clock.rate


async def _ping(plan: Plan, messenger: Messenger, to: PeerId, data: bytes) -> Figures:
    post, clock, replies, now = messenger.post, Clock(plan), aiter(messenger.messages()), time.perf_counter
    took = []
    while True:
        for _ in range(100):
            began = now()
            post(to, data)
            await anext(replies)
            took.append(now() - began)
        if clock.is_over(100):
            return latencies(took, plan) | clock.cpu


async def _ping_handler(plan: Plan, messenger: Messenger, to: PeerId, data: bytes) -> Figures:
    """Both ends answer from within a handler."""
    post, clock, now = messenger.post, Clock(plan), time.perf_counter
    took: list[float] = []
    began = 0.0
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_reply(_: Any) -> None:
        nonlocal began
        took.append(now() - began)
        if len(took) % 100 == 0 and clock.is_over(100):
            over.set_result(None)
            return
        began = now()
        post(to, data)

    messenger.on_message(on_reply)
    began = now()
    post(to, data)
    await over
    return latencies(took, plan) | clock.cpu


# --- memory ---


async def _memory(plan: Plan, info: Info) -> Figures:
    """What a link that somebody dialled costs the far process, once a message came over it."""
    record = _PARSER.parse_presence(bytes.fromhex(info["records"][0]), None)
    context: zmq.Context[Any] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, plan.memory_links + 1)
    dialled = [_greet(context, record)]
    before = _memory_of(info["pid"])
    # Not faster than a listener of strangers takes them, one after the other.
    dialled += [_greet(context, record) for _ in range(plan.memory_links - 1)]
    link_bytes = (_memory_of(info["pid"]) - before) / (plan.memory_links - 1)
    return {"link_kib": link_bytes / 1024}


def _greet(context: "zmq.Context[Any]", record: PresenceRecord) -> Any:
    """A link of somebody new, as bare as can be: 1,000 real peers would not fit into this process. Returns when its
    message was acknowledged."""
    identity = Identity.generate(random.SystemRandom())
    dealer = context.socket(zmq.DEALER)
    dealer.curve_publickey, dealer.curve_secretkey = identity.id.curve_key, identity.curve_secret
    dealer.curve_serverkey = record.peer_id.curve_key
    dealer.rcvtimeo = 10_000
    dealer.connect(f"tcp://{record.endpoints[0]}")
    dealer.send(VERSION)
    token = dealer.recv()[: -len(VERSION)]
    hello = Hello(0, _presence(identity, bytes(8)).blob, b"", 0, 0)
    dealer.send(token + write_frame(Frame(0, 1, 0, [message(STREAM, 100)], [hello])))
    while not read_frame(dealer.recv()[len(token) :]).ack:
        pass
    return dealer


def _memory_of(pid: int) -> int:
    """Bytes that are resident. Raises `Skipped`."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        raise Skipped("memory is read from /proc, which is not here") from None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
