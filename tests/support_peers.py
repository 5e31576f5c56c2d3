"""People who meet in the virtual world: what the tests of messengers, peers and seeds share."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from atonce_seed.server import SeedServer
from atonce_sim.loop import run
from atonce_sim.world import EPOCH, VirtualHost, World
from dht_atonce.codec import decode, encode
from dht_atonce.config import MessagingConfig, NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.discovery.seed_wire import Challenge, SeedMessage, message_decoder, sign_challenge
from dht_atonce.endpoints import Address, SeedUrl
from dht_atonce.errors import LinkError
from dht_atonce.identity import Identity, NodeKey, PeerId
from dht_atonce.links import Link
from dht_atonce.messaging.frames import Bye, Frame, Hello, read_frame, write_frame
from dht_atonce.messaging.inbox import Message
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.peer import Peer
from dht_atonce.records import PresenceRecord, RecordParser

T = TypeVar("T")

NETWORK = NetworkConfig.local_network("test")
ANY4 = ("0.0.0.0",)
"""The virtual world has IPv4 only."""


def identity(number: int) -> Identity:
    return Identity.generate(random.Random(number))


def now() -> float:
    """Virtual seconds since the world began."""
    return asyncio.get_running_loop().time()


# --- virtual time ---


def virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in virtual time. What a task or a callback raised behind everybody's back fails the test too."""
    problems: list[dict[str, Any]] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        return await main

    result = run(watched())
    assert not problems, problems
    return result


def other_tasks() -> list[str]:
    """The names of all tasks but the one that asks."""
    return sorted(task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task())


async def until(condition: Callable[[], object], within_s: float = 60.0) -> None:
    """Wait, in virtual time, until `condition` holds."""
    end = now() + within_s
    while not condition():
        assert now() < end, f"in {within_s:g} s this did not come about"
        await asyncio.sleep(0.01)


# --- messengers ---


def presence(
    who: Identity,
    *endpoints: Address,
    network: NetworkConfig = NETWORK,
    seq: int = 1,
    incarnation: bytes = bytes(8),
    expires: int = int(EPOCH) + 3600,
    status: str = "online",
    capabilities: tuple[str, ...] = (),
) -> PresenceRecord:
    return PresenceRecord.sign(
        who,
        network,
        seq=seq,
        incarnation=incarnation,
        expires=expires,
        status=status,
        endpoints=endpoints,
        capabilities=capabilities,
    )


class Town:
    """People with messengers, and what a lookup of each of them finds."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World(1)
        self.first: dict[PeerId, PresenceRecord | None] = {}
        """What is found first, where that is another record than the fresh one."""
        self.fresh: dict[PeerId, PresenceRecord | None] = {}
        self.asked: list[tuple[PeerId, bool]] = []
        self.find_s = 0.0
        """How long a lookup takes."""
        self.people: list[Person] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Town":
        return self

    async def __aexit__(self, *_: object) -> None:
        for person in self.people:
            await person.aclose()

    async def find(self, who: PeerId, fresh: bool) -> PresenceRecord | None:
        self.asked.append((who, fresh))
        await asyncio.sleep(self.find_s)
        return self.fresh.get(who) if fresh or who not in self.first else self.first[who]

    def person(self, number: int, **options: Any) -> "Person":
        """Somebody with a messenger, listening and known."""
        person = Person(self, number, **options)
        self.people.append(person)
        return person

    def stranger(self, number: int) -> "Stranger":
        return Stranger(self, number)


class Person:
    """A messenger, and an app that reads its messages."""

    def __init__(
        self,
        town: Town,
        number: int,
        *,
        run: int = 0,
        host: VirtualHost | None = None,
        config: MessagingConfig | None = None,
        listens: bool = True,
        reads: bool = True,
        capabilities: tuple[str, ...] = (),
    ) -> None:
        self.town = town
        self.identity = identity(number)
        self.id = self.identity.id
        self.incarnation = b"%04d%04d" % (number, run)
        self.host = host or town.world.host()
        self.links = self.host.links(self.identity)
        self.counters: Counter[str] = Counter()
        self.messenger = Messenger(
            self.id,
            self.links,
            RecordParser(NETWORK),
            self.incarnation,
            lambda: self.record.blob,
            town.find,
            config=config,
            counters=self.counters,
        )
        endpoints = (self.messenger.listen(Address(self.host.ip, 0)).address,) if listens else ()
        self.record = presence(
            self.identity, *endpoints, seq=1 + run, incarnation=self.incarnation, capabilities=capabilities
        )
        town.fresh[self.id] = self.record
        self.got: list[Message] = []
        self._reader: asyncio.Task[None] | None = None
        if reads:
            self.read()

    @property
    def endpoint(self) -> Address:
        return self.record.endpoints[0]

    @property
    def heard(self) -> list[bytes]:
        """What was said to us, whoever said it."""
        return [message.data for message in self.got]

    def read(self) -> None:
        """Read messages from now on."""
        self._reader = asyncio.create_task(self._read(), name="reader")

    async def _read(self) -> None:
        async for message in self.messenger.messages():
            self.got.append(message)

    async def send(self, to: "Person | PeerId", data: bytes, timeout_s: float | None = None) -> None:
        await self.messenger.send(to if isinstance(to, PeerId) else to.id, data, timeout_s)

    def sending(self, to: "Person | PeerId", data: bytes, timeout_s: float | None = None) -> "asyncio.Task[None]":
        """`send` as a task."""
        return asyncio.create_task(self.send(to, data, timeout_s), name=f"send {data[:20]!r}")

    def vanish(self) -> None:
        """Cut off: nothing reaches us any more, and nobody is told."""
        self.town.world.unreachable.add(self.host.ip)

    def come_back(self) -> None:
        self.town.world.unreachable.discard(self.host.ip)

    async def aclose(self) -> None:
        await self.messenger.aclose()
        if self._reader is not None:
            await self._reader

    async def start_again(self, run: int = 1) -> "Person":
        """The process dies without a word, and another one begins in its place."""
        self.vanish()
        return self.town.person(int(self.incarnation[:4]), run=run)


class Wire:
    """A link in the hands of somebody who says what he likes."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.heard: list[Frame] = []
        self.closed = False
        link.start(lambda data: self.heard.append(read_frame(data)), lambda _: setattr(self, "closed", True))

    def say(
        self, *messages: bytes, seq0: int = 1, ack: int = 0, hello: Hello | None = None, unhurried: bool = False
    ) -> None:
        specials = [] if hello is None else [hello]
        self.link.send(write_frame(Frame(0, seq0 if messages else 0, ack, list(messages), specials, unhurried)))

    @property
    def byes(self) -> list[Bye]:
        return [special for frame in self.heard for special in frame.specials if isinstance(special, Bye)]

    @property
    def hellos(self) -> list[Hello]:
        return [special for frame in self.heard for special in frame.specials if isinstance(special, Hello)]

    @property
    def messages(self) -> list[bytes]:
        return [data for frame in self.heard for data in frame.messages]


class Stranger:
    """Somebody with a key and no manners."""

    def __init__(self, town: Town, number: int) -> None:
        self.town = town
        self.identity = identity(number)
        self.id = self.identity.id
        self.host = town.world.host()
        self.links = self.host.links(self.identity)
        self.wires: list[Wire] = []

    def hello(self, run: int = 0, yours: bytes = b"", base: int = 0, expect: int = 0, **fields: Any) -> Hello:
        record = presence(self.identity, seq=1 + run, incarnation=b"%08d" % run, **fields)
        return Hello(0, record.blob, yours, base, expect)

    async def dial(self, person: Person) -> Wire:
        wire = Wire(await self.links.dial(person.endpoint, person.id.curve_key, 3.0))
        self.wires.append(wire)
        return wire

    async def dial_or_none(self, person: Person) -> Wire | None:
        try:
            return await self.dial(person)
        except LinkError:
            return None

    def listen(self, on_wire: Callable[[Wire], None] = lambda _: None) -> PresenceRecord:
        """Be found, and take links."""

        def on_link(link: Link) -> None:
            wire = Wire(link)
            self.wires.append(wire)
            on_wire(wire)

        port = self.links.listen(Address(self.host.ip, 0), on_link)
        record = presence(self.identity, port.address, incarnation=b"%08d" % 0)
        self.town.fresh[self.id] = record
        return record


# --- peers and seeds ---


class FakeSeed:
    """Something that listens where a seed should, and answers as `script` says: it is given each message."""

    def __init__(
        self,
        world: World,
        number: int,
        script: "Callable[[FakeSeed, SeedMessage], None]",
        *,
        ip: str | None = None,
        network: NetworkConfig = NETWORK,
    ) -> None:
        self.network = network
        self.identity = identity(number)
        self.host = world.host(ip)
        self.heard: list[SeedMessage] = []
        self.link: Link
        self.closed = 0
        self.links = self.host.links(self.identity)
        self.body = b""
        self._script = script
        self._port = self.links.listen(Address(self.host.ip, 0), self._on_link)

    @property
    def url(self) -> SeedUrl:
        return SeedUrl(self.identity.id, self.host.ip, self._port.address.port)

    def _on_link(self, link: Link) -> None:
        self.link = link
        link.start(self._on_frame, self._on_closed)

    def _on_closed(self, _: str) -> None:
        self.closed += 1

    def _on_frame(self, data: bytes) -> None:
        message = decode(message_decoder, data)
        self.heard.append(message)
        self._script(self, message)

    def say(self, message: SeedMessage | bytes) -> None:
        self.link.send(message if isinstance(message, bytes) else encode(message))

    def challenge(self, *, signer: Identity | None = None, client: bytes | None = None, **changes: Any) -> None:
        """Say CHALLENGE, right but for `changes`."""
        network = self.network
        fields = {
            "minor": 0,
            "nonce": bytes(32),
            "network": network.name,
            "authority_key": network.authority_key,
            "k": network.k,
            "local": network.local,
            "record_life_s": network.record_life_s,
            "time_ms": int(self.host.clock.wall() * 1000),
            "you": bytes([10, 0, 0, 9, 255, 255]),
            "node_key": NodeKey(bytes([7] * 32)).public,
            "udp_ports": (5000, 0),
            **changes,
        }
        self.body = encode(list(fields.values()))
        signature = sign_challenge(signer or self.identity, client or self.link.curve_key, self.body)
        self.say(Challenge(0, self.body, signature))


class Events:
    """What a peer or a seed tells, in order, with the time."""

    def __init__(self) -> None:
        self.all: list[tuple[float, str, dict[str, Any]]] = []

    def __call__(self, name: str, details: dict[str, Any]) -> None:
        self.all.append((now(), name, details))

    @property
    def names(self) -> list[str]:
        return [name for _, name, _ in self.all]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [details for _, known, details in self.all if known == name]


class Village:
    """A seed, and peers that came in through it."""

    def __init__(self, world: World | None = None, network: NetworkConfig = NETWORK) -> None:
        self.world = world or World(1)
        self.network = network
        self.seed: SeedServer
        self.peers: list[Peer] = []
        self.events: dict[Peer, Events] = {}
        self._open: list[SeedServer | Peer] = []

    async def __aenter__(self) -> "Village":
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in self._open:
            await one.aclose()

    async def open_seed(self, profile: Path | None = None, **options: Any) -> SeedServer:
        options = {"host": self.world.host(), "network": self.network, "listen": ANY4, **options}
        seed = await SeedServer.open(profile, **options)
        self.seed = seed
        self._open.append(seed)
        return seed

    async def open_peer(self, profile: Path | None = None, **options: Any) -> Peer:
        """A new peer that asks the seed, unless told otherwise."""
        events = Events()
        options = {"host": self.world.host(), "listen": ANY4, "on_event": events, **options}
        if "seeds" not in options:
            options["seeds"] = [self.url]
        peer: Peer = await Peer.open(profile, **options)
        self.peers.append(peer)
        self.events[peer] = events
        self._open.append(peer)
        return peer

    @property
    def url(self) -> SeedUrl:
        return self.seed.url()

    def crash(self, *gone: Peer | SeedServer) -> None:
        """From now on nothing is heard of them."""
        for one in gone:
            self.world.unreachable.add(host_of(one))


def host_of(one: Peer | SeedServer) -> str:
    """The IP of the machine on which it runs."""
    return one.node.addresses[0].ip


def seated(peer: Peer) -> list[Contact]:
    """Everybody whom the peer counts among the living."""
    return peer.node.live_contacts(10_000)


def node_key(one: Peer | SeedServer) -> bytes:
    return one.node.shared.node_key.public


async def listener(peer: Peer) -> list[Message]:
    """A list that grows as messages come."""
    got: list[Message] = []

    async def read() -> None:
        async for message in peer.messages():
            got.append(message)

    asyncio.create_task(read(), name="reader")  # noqa: RUF006 # ends with the peer
    return got
