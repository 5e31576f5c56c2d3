"""All streams of one peer, as its app has them: opened, taken, read, written and closed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

from dht_atonce.codec import read_each
from dht_atonce.config import StreamConfig
from dht_atonce.dht.node import DhtNode
from dht_atonce.errors import (
    DeliveryUnknown,
    NotSupported,
    PeerClosed,
    StreamBroken,
    StreamReset,
)
from dht_atonce.identity import PeerId
from dht_atonce.messaging.frames import MAX_FRAME_MESSAGES, Kind
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.records import PresenceRecord
from dht_atonce.streams.flow import Flow, Why
from dht_atonce.streams.sides import Sides
from dht_atonce.streams.stream import Stream
from dht_atonce.streams.wire import MAX_NAME, Open, ResetCode, read_message

__all__ = ["CAPABILITY", "Streams"]

CAPABILITY = "stream1"
"""In presence records of whoever takes streams."""
OUR_NAMES = "atonce."
"""How names of streams begin that are not the app's; if nobody takes them now, nobody will."""


class Streams:
    """All streams of one peer."""

    def __init__(self, first_number: int, config: StreamConfig | None = None) -> None:
        """No two processes of an identity shall begin at the same number."""
        self.config = config or StreamConfig()
        self.write_ahead_bytes = self.config.write_ahead_bytes
        self.sides: Sides
        self._streams: dict[Flow, Stream] = {}
        self._untaken: dict[Stream, asyncio.TimerHandle] = {}
        self._takers: Counter[str | None] = Counter()
        self._arrived = asyncio.Event()
        self._closed = self._attached = False
        self._loop = asyncio.get_running_loop()
        self._messenger: Messenger
        self._counters: Counter[str]
        self._first_number = first_number

    # --- life ---

    def start(self, node: DhtNode, messenger: Messenger) -> None:
        """Of a peer's features."""
        self.attach(messenger)

    def attach(self, messenger: Messenger) -> None:
        """Serve streams."""
        self._attached = True
        self._messenger, self._counters = messenger, messenger.counters
        self.sides = Sides(self.config, self._first_number, messenger, self._wake)
        messenger.serve(Kind.STREAM, self)
        messenger.when_linked.append(self.sides.on_linked)
        messenger.when_unlinked.append(self.sides.on_unlinked)

    async def aclose(self) -> None:
        """End all streams; others are told."""
        self._closed = True
        if self._attached:
            self.sides.close()
        for timer in self._untaken.values():
            timer.cancel()
        self._untaken.clear()
        self._arrived.set()

    # --- the app's side ---

    async def open(self, to: PeerId, name: str, timeout_s: float | None = None) -> Stream:
        """As `Peer.open_stream`."""
        if not name or len(name.encode()) > MAX_NAME:
            raise ValueError(f"the name of a stream has 1 to {MAX_NAME} bytes")
        if self._closed or not self._attached:
            raise PeerClosed("this peer is closed" if self._closed else "this peer is not in a network yet")
        if to == self._messenger.id:
            raise ValueError("a peer opens no streams to itself")
        timeout_s = self.config.open_timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    return await self._open(to, name)
                except StreamBroken:  # the first link showed that it is a new process: it may not have heard of us
                    return await self._open(to, name)
        except TimeoutError:
            raise DeliveryUnknown(f"{to.short}… did not answer within {timeout_s:g} s") from None

    async def incoming(self, name: str | None = None) -> AsyncIterator[Stream]:
        """As `Peer.streams`."""
        self._takers[name] += 1
        try:
            while not self._closed:
                stream = self._pick(name)
                if stream is None:
                    self._arrived.clear()
                    await self._arrived.wait()
                    continue
                self._untaken.pop(stream).cancel()
                self.sides.of(stream.peer).mux.give_credit(stream.flow)
                self.sides.pump_soon(self.sides.of(stream.peer))
                yield stream
        finally:
            self._takers[name] -= 1

    # --- Carrier ---

    def read(self, stream: Stream, most: int) -> bytes:
        side = self.sides.by_peer.get(stream.peer)
        if side is None:
            return stream.flow.read(most)
        data = side.mux.read(stream.flow, most)
        if side.mux.has_first:
            self.sides.pump_soon(side)
        return data

    def write(self, stream: Stream, data: bytes) -> None:
        side = self.sides.of(stream.peer)
        side.mux.write(stream.flow, data)
        self.sides.pump_soon(side)

    def finish(self, stream: Stream) -> None:
        side = self.sides.of(stream.peer)
        side.mux.finish(stream.flow)
        self.sides.pump_soon(side)

    def close(self, stream: Stream) -> None:
        self._end(stream, ResetCode.CLOSED, "")

    def abort(self, stream: Stream, text: str) -> None:
        self._end(stream, ResetCode.ABORTED, text)

    def _end(self, stream: Stream, code: int, text: str) -> None:
        side = self.sides.by_peer.get(stream.peer)
        if side is not None and not self._closed:
            self.sides.reset(side, stream.flow, code, text, (StreamReset, "this stream was closed by ourselves"))

    # --- Service ---

    def room(self, sender: PeerId) -> int:
        """Credit bounds streams: what goes beyond it is dropped, so nobody waits for anybody."""
        return MAX_FRAME_MESSAGES

    def take(self, sender: PeerId, messages: list[bytes]) -> None:
        if self._closed:
            return
        side = self.sides.of(sender)
        mux = side.mux
        for message in read_each(read_message, messages, self._counters, "streams.bad_message"):
            untaken = sum(one.peer == sender for one in self._untaken) if isinstance(message, Open) else 0
            flow, is_new = mux.on_message(message, untaken)
            if flow is not None and is_new and flow.name.startswith(OUR_NAMES) and not self._takers[flow.name]:
                why: Why = (StreamReset, "nobody takes it")
                mux.reset(flow, ResetCode.REFUSED, "nobody there takes what it is for", why)
            elif flow is not None and is_new:
                stream = self._streams[flow] = Stream(self, sender, flow)
                self._untaken[stream] = self._loop.call_later(self.config.untaken_s, self._refuse, stream)
                self._arrived.set()
            elif flow is not None:
                self._wake(flow)
        self.sides.pump_soon(side)

    # --- inside: streams ---

    async def _open(self, to: PeerId, name: str) -> Stream:
        self._check_support(self._messenger.record_of(to))
        side = self.sides.of(to)
        flow = side.mux.open(name)
        stream = self._streams[flow] = Stream(self, to, flow)
        self.sides.pump(side)
        try:
            while flow.unsettled and flow.error is None:
                await stream.changed()
            if flow.error is not None:
                raise flow.error[0](flow.error[1])
            self._check_support(self._messenger.record_of(to))
        except BaseException:
            self.sides.reset(side, flow, ResetCode.ABORTED, "", (StreamReset, "it was not opened"))
            raise
        side.mux.give_credit(flow)
        self.sides.pump_soon(side)
        return stream

    @staticmethod
    def _check_support(record: PresenceRecord | None) -> None:
        if record is not None and CAPABILITY not in record.capabilities:
            raise NotSupported(f"{record.peer_id.short}… takes no streams")

    def _pick(self, name: str | None) -> Stream | None:
        for stream in self._untaken:
            if stream.name == name or (name is None and not self._takers[stream.name]):
                return stream
        return None

    def _refuse(self, stream: Stream) -> None:
        self._counters["streams.untaken"] += 1
        side = self.sides.of(stream.peer)
        self.sides.reset(side, stream.flow, ResetCode.REFUSED, "nobody took it", (StreamReset, "nobody took it"))

    def _wake(self, flow: Flow) -> None:
        """Tell the app of what changed, and forget a stream that is over."""
        stream = self._streams.get(flow)
        if stream is not None:
            if flow.is_over:
                del self._streams[flow]
            if flow.error is not None and (timer := self._untaken.pop(stream, None)) is not None:
                timer.cancel()
            stream.wake()
