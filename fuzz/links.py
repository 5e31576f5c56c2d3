"""Frames to a whole messenger, over a link that passed HELLO: windows, gaps, acknowledgements, and requests within.

A stranger sends what the mutator made of good frames, one after another, while the messenger has messages on their way
to it. When the messenger ends the link, the stranger comes back over another one.
"""

import asyncio
import itertools
import random
from collections import Counter
from typing import Any

from atonce_sim.loop import VirtualLoop
from dht_atonce.calls import wire as calls
from dht_atonce.calls.calls import Calls, Request
from dht_atonce.codec import encode
from dht_atonce.config import MessagingConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import QueueFull, WireError
from dht_atonce.identity import PeerId
from dht_atonce.links import OnClosed, OnFrame, OnLink
from dht_atonce.messaging.frames import Bye, Frame, Held, Hello, Kind, Window, read_frame, write_frame
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.records import PresenceRecord, RecordParser
from fuzz.seeds import NETWORK, NOW, Target, identity, vectors

__all__ = ["FuzzedMessenger", "link"]

_CONFIG = MessagingConfig(inbox_messages=600, max_waiting=300)
_MAX_ANSWERS = 600  # frames in answer to one: all that is under way, at most
_TURN = 16  # inputs between two moments in which time goes on
_SMALL = 1000
_BACK_AGAIN = 1 << 8  # inputs after which somebody new comes: a stranger who got far ahead is heard no more


class _Link:
    """The messenger's end of a link in memory, and the stranger's hands on it."""

    remote = None
    outbound = False

    def __init__(self, curve_key: bytes) -> None:
        self.curve_key = curve_key
        self.is_closed = False
        self.answers = 0
        self.hear: OnFrame = lambda _: None

    def start(self, on_frame: OnFrame, on_closed: OnClosed) -> None:
        self.hear = on_frame

    def send(self, *parts: bytes) -> bool:
        if not self.is_closed:
            self.answers += 1
        return not self.is_closed

    def close(self) -> None:
        self.is_closed = True


class _Net:
    """A `LinkNet` over which only the stranger comes."""

    def __init__(self) -> None:
        self.on_link: OnLink = lambda _: None

    def listen(self, bind: Address, on_link: OnLink) -> Any:
        self.on_link = on_link

    async def aclose(self) -> None: ...


class FuzzedMessenger:
    """A messenger that also answers requests, and the stranger who talks to it."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.unhandled: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.unhandled.append(context))
        self.net: Any = _Net()
        self.number = itertools.count()
        self.link = _Link(b"")
        self.stranger = identity(0)
        self.fed = 0
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        own = identity(1)
        record = _record(1, b"our life")

        async def find(_who: PeerId, _fresh: bool) -> PresenceRecord | None:
            return None

        counters: Counter[str] = Counter()
        self.messenger = Messenger(
            own.id,
            self.net,
            RecordParser(NETWORK),
            record.incarnation,
            lambda: record.blob,
            find,
            config=_CONFIG,
            counters=counters,
        )
        self.messenger.listen(Address("10.0.0.2", 0))
        self.calls = Calls(random.Random(1), counters)
        self.calls.start(None, self.messenger)  # type: ignore[arg-type]
        self.calls.serve("echo", _echo)

    async def come(self) -> None:
        """The stranger has a new link, and greets as he did before, or as somebody new."""
        if self.fed % _BACK_AGAIN == 0:
            self.stranger = identity(100 + next(self.number))
        self.link = _Link(self.stranger.id.curve_key)
        self.net.on_link(self.link)
        record = PresenceRecord.sign(self.stranger, NETWORK, seq=1, incarnation=b"stranger", expires=NOW + 3600)
        hello = Hello(0, record.blob, b"our life", 1, 1)
        self.link.hear(write_frame(Frame(0, 0, 0, [], [hello, Window(1 << 20)])))

    async def hear(self, data: bytes) -> None:
        if self.link.is_closed or self.fed % _BACK_AGAIN == 0:
            self.link.close()
            await self.come()
        try:
            self.messenger.post(self.stranger.id, b"for you", 5.0)
        except QueueFull:
            self.link.hear(write_frame(Frame(0, 0, self.messenger.pair(self.stranger.id).outflow.base + 99, [], [])))
        before = self.link.answers
        self.link.hear(self._in_time(data))
        await asyncio.sleep(0.3 if self.fed % _TURN == 0 else 0)
        assert self.link.answers - before <= _MAX_ANSWERS, f"{self.link.answers - before} answers to one frame"
        inbox = self.messenger.inbox
        assert len(inbox) <= _CONFIG.inbox_messages + _CONFIG.frame_messages, f"{len(inbox)} messages in the inbox"
        if len(inbox) > _CONFIG.inbox_messages // 3:
            messages = self.messenger.messages()
            for _ in range(len(inbox)):
                await anext(messages)
        self.fed += 1

    def _in_time(self, data: bytes) -> bytes:
        """A frame with its small numbers put right: those of the corpus are old news after the first message."""
        try:
            frame = read_frame(data)
        except WireError:
            return data
        here = self.messenger.pair(self.stranger.id).delivery.hello(b"")
        seq0 = frame.seq0 + here.expect - 1 if 0 < frame.seq0 < _SMALL else frame.seq0
        ack = frame.ack + here.base - 1 if 0 < frame.ack < _SMALL else frame.ack
        specials = [
            Window(special.limit + here.base) if isinstance(special, Window) and special.limit < 1 << 32 else special
            for special in frame.specials
        ]
        return write_frame(Frame(frame.kind, seq0, ack, frame.messages, specials))

    def feed(self, data: bytes) -> None:
        """One frame of the stranger's."""
        self.loop.run_until_complete(self.hear(data))
        if self.unhandled:
            context = self.unhandled.pop()
            raise context.get("exception") or AssertionError(context["message"])

    def close(self) -> None:
        self.loop.run_until_complete(self._end())
        self.loop.close()

    async def _end(self) -> None:
        await self.calls.aclose()
        await self.messenger.aclose()


def _record(number: int, incarnation: bytes) -> PresenceRecord:
    return PresenceRecord.sign(identity(number), NETWORK, seq=1, incarnation=incarnation, expires=NOW + 3600)


async def _echo(request: Request) -> bytes:
    return request.data


def link() -> Target:
    """Frames of a stranger whose link passed HELLO."""
    fed = FuzzedMessenger()
    specials: list[list[Any]] = [
        [Window(0)],
        [Window(1024)],
        [Window((1 << 64) - 1), Window(1)],
        [Held([(2, 1)])],
        [Held([(1, 1), (3, 2), (200, 256)]), Held([(0, 0)])],
        [Held([((1 << 64) - 1, (1 << 64) - 1)] * 16)],
        [Held([(2, 3)]), Window(400), Bye(4, "")],
    ]
    said: list[list[bytes | None]] = [[b"one"], [b"one", None, b"three"], [None] * 256, [b""] * 256, [bytes(3000)]]
    frames = [Frame(Kind.MESSAGE, 0, ack, [], some) for some in specials for ack in (0, 1, 7)]
    frames += [Frame(Kind.MESSAGE, seq0, 1, some, []) for some in said for seq0 in (1, 2, 40, 300)]
    frames += [
        Frame(kind, seq0, 3, [b"one", b"two"], [Window(90), Held([(5, 1)])]) for kind in range(6) for seq0 in (1, 2)
    ]
    asked = (
        calls.Call(1, "echo", 1000, b"?"),
        calls.Call(2, "nothing", 1000, b"?"),
        calls.Cancel(1),
        calls.Reply(1, b"!"),
        calls.Failed(1, 1, "code", "text"),
    )
    frames += [Frame(Kind.CALL, seq0, 0, [encode(one)], []) for one in asked for seq0 in (1, 2, 3)]
    frames += [Frame(Kind.CALL, 1, 0, [encode(one) for one in asked], [])]
    return Target(fed.feed, [*map(write_frame, frames), *vectors("frames", "frame")], fed.close)
