"""Peers' messengers on the loopback, and a stranger with a ZeroMQ socket and no manners."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import zmq
import zmq.asyncio

from dht_atonce.config import LinkConfig, MessagingConfig, NetworkConfig
from dht_atonce.endpoints import Address
from dht_atonce.identity import Identity, PeerId
from dht_atonce.messaging.curve import CurveNet
from dht_atonce.messaging.frames import Bye, Frame, Hello, read_frame, write_frame
from dht_atonce.messaging.inbox import Message
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.records import PresenceRecord, RecordParser

NETWORK = NetworkConfig.local_network("test")
LOCAL = Address("127.0.0.1", 0)
WAIT_S = 5.0
OPEN = b"\x01"


def identity(number: int) -> Identity:
    return Identity.generate(random.Random(f"hostile {number}"))


def presence(who: Identity, *endpoints: Address, seq: int = 1, incarnation: bytes = bytes(8)) -> PresenceRecord:
    return PresenceRecord.sign(
        who,
        NETWORK,
        seq=seq,
        incarnation=incarnation,
        expires=int(time.time()) + 3600,
        status="online",
        endpoints=endpoints,
    )


async def until(holds: Callable[[], object], within_s: float = WAIT_S) -> None:
    """For what has no event of its own: ask once in each turn of the loop."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


class Person:
    """A messenger over real links, and an app that is called with what comes."""

    def __init__(
        self, street: "Street", number: int, *, link: LinkConfig, config: MessagingConfig, reads: bool
    ) -> None:
        self.identity = identity(number)
        self.id = self.identity.id
        self.counters: Counter[str] = Counter()
        self.got: list[Message] = []
        self.messenger = Messenger(
            self.id,
            CurveNet(self.identity, link, self.counters, rng=random.Random(number)),
            RecordParser(NETWORK),
            b"%08d" % number,
            lambda: self.record.blob,
            street.find,
            config=config,
            counters=self.counters,
        )
        self.address = self.messenger.listen(LOCAL).address
        self.record = presence(self.identity, self.address, incarnation=b"%08d" % number)
        if reads:
            self.messenger.on_message(self.got.append)

    def heard(self, sender: PeerId) -> list[bytes]:
        """What came from one sender, in order."""
        return [message.data for message in self.got if message.sender == sender]


class Street:
    """Everybody who lives on this loopback, and strangers who come by. All of them are gone at the end."""

    def __init__(self) -> None:
        self._people: dict[PeerId, Person] = {}
        self._strangers: list[Stranger] = []
        self._context: zmq.asyncio.Context = zmq.asyncio.Context()

    async def __aenter__(self) -> "Street":
        return self

    async def __aexit__(self, *_: object) -> None:
        async with AsyncExitStack() as stack:
            stack.callback(self._context.destroy, linger=0)
            for person in self._people.values():
                stack.push_async_callback(person.messenger.aclose)
            for stranger in self._strangers:
                stack.callback(stranger.vanish)

    async def find(self, who: PeerId, _fresh: bool) -> PresenceRecord | None:
        person = self._people.get(who)
        return person.record if person is not None else None

    def person(
        self,
        number: int,
        *,
        link: LinkConfig | None = None,
        config: MessagingConfig | None = None,
        reads: bool = True,
    ) -> Person:
        person = Person(self, number, link=link or LinkConfig(), config=config or MessagingConfig(), reads=reads)
        self._people[person.id] = person
        return person

    def stranger(self, number: int, victim: Person, **options: int) -> "Stranger":
        """Somebody who has dialled `victim` and said nothing yet. `options`: of his socket, by name."""
        stranger = Stranger(self._context, number, victim, options)
        self._strangers.append(stranger)
        return stranger


class Stranger:
    """A DEALER that does as it likes, over a CURVE connection of its own."""

    def __init__(self, context: zmq.asyncio.Context, number: int, victim: Person, options: dict[str, int]) -> None:
        self.identity = identity(number)
        self.id = self.identity.id
        self.token = b""
        self.heard: list[Frame] = []
        """Frames that came and were read."""
        self.sock: zmq.asyncio.Socket = context.socket(zmq.DEALER)
        for name, value in {"LINGER": 0, "RECONNECT_IVL": -1, **options}.items():
            self.sock.set(getattr(zmq, name), value)
        self.sock.set(zmq.CURVE_SERVERKEY, victim.id.curve_key)
        self.sock.set(zmq.CURVE_PUBLICKEY, self.identity.id.curve_key)
        self.sock.set(zmq.CURVE_SECRETKEY, self.identity.curve_secret)
        self._monitor = self.sock.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        self.sock.connect(f"tcp://{victim.address}")

    async def open(self) -> "Stranger":
        """Open a link as docs/wire.md says."""
        await self.sock.send(OPEN)
        opened = await asyncio.wait_for(self.sock.recv(), WAIT_S)
        assert opened[8:] == OPEN
        self.token = opened[:8]
        return self

    async def say(self, body: bytes | Frame) -> None:
        """A body over the link."""
        await self.sock.send(self.token + (write_frame(body) if isinstance(body, Frame) else body))

    async def greet(self, *messages: bytes, record: PresenceRecord | None = None) -> "Stranger":
        """HELLO, with a record of our own unless another is given, and the first messages behind it."""
        hello = Hello(0, (record or presence(self.identity, incarnation=b"stranger")).blob, b"", 0, 0)
        await self.say(Frame(0, 1 if messages else 0, 0, list(messages), [hello]))
        return self

    async def hear(self, wanted: Callable[[Frame], object]) -> Frame:
        """Read until a frame comes that is `wanted`."""
        async with asyncio.timeout(WAIT_S):
            while True:
                frame = read_frame((await self.sock.recv())[8:])
                self.heard.append(frame)
                if wanted(frame):
                    return frame

    async def hear_hello(self) -> Frame:
        return await self.hear(lambda frame: any(isinstance(special, Hello) for special in frame.specials))

    async def hear_bye(self) -> Bye:
        frame = await self.hear(lambda frame: any(isinstance(special, Bye) for special in frame.specials))
        return next(special for special in frame.specials if isinstance(special, Bye))

    async def hung_up(self) -> int:
        """Wait until the other side has ended the connection, or refused it; gives the event."""
        head, _ = await asyncio.wait_for(self._monitor.recv_multipart(), WAIT_S)
        return int.from_bytes(head[:2], "little")

    def vanish(self) -> None:
        if not self.sock.closed:
            self.sock.disable_monitor()
            self.sock.close(0)


class Talk:
    """Two people who talk for as long as the block lasts: each message is acknowledged, and the next one follows.

    At the end it is checked that all of them came, once and in order, and that the link they use was never lost.
    """

    def __init__(self, one: Person, other: Person, *, both_ways: bool = True) -> None:
        self._ways = [(one, other), (other, one)] if both_ways else [(one, other)]
        self._said = [0 for _ in self._ways]
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []
        self._lost: list[PeerId] = []
        self.slowest_s = 0.0
        """The longest that one acknowledgement took."""

    async def __aenter__(self) -> "Talk":
        (one, other), *_ = self._ways
        await one.messenger.send(other.id, b"0")
        self._said[0] = 1
        for who, whom in ((one, other), (other, one)):
            who.messenger.when_unlinked.append(lambda peer_id, _, whom=whom: self._on_unlinked(peer_id, whom))
        for way in range(len(self._ways)):
            self._tasks.append(asyncio.create_task(self._go(way)))
        return self

    def _on_unlinked(self, peer_id: PeerId, whom: Person) -> None:
        if peer_id == whom.id and not self._over:
            self._lost.append(peer_id)

    async def _go(self, way: int) -> None:
        sender, receiver = self._ways[way]
        while not self._over:
            began = time.monotonic()
            await sender.messenger.send(receiver.id, b"%d" % self._said[way], WAIT_S)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self._said[way] += 1

    @property
    def count(self) -> int:
        """How much was said."""
        return sum(self._said)

    async def go_on(self, more: int = 20) -> None:
        """Until so much more was said."""
        wanted = [said + more for said in self._said]
        await until(lambda: self._failed or all(a >= b for a, b in zip(self._said, wanted, strict=True)))
        for task in self._failed:
            task.result()

    @property
    def _failed(self) -> list[asyncio.Task[None]]:
        return [task for task in self._tasks if task.done()]

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                await self.go_on()
        finally:
            self._over = True
            results = await asyncio.gather(*self._tasks, return_exceptions=kind is not None)
        if kind is None:
            assert results == [None] * len(self._ways)
            for (sender, receiver), said in zip(self._ways, self._said, strict=True):
                assert receiver.heard(sender.id) == [b"%d" % n for n in range(said)]
            assert self._lost == []


def counted(counters: Counter[str], *prefixes: str) -> dict[str, int]:
    """Those whose names begin so, and that are not 0."""
    return {name: n for name, n in counters.items() if n and name.startswith(prefixes)}
