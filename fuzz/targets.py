"""Whatever parses bytes of strangers, each as one call that must not raise.

A target is fed one input at a time; what is refused in the way that docs/wire.md says is fine, all else is a find.
Nodes live in the virtual world: what an input sets off later is run too, and what it raises there counts.
"""

import asyncio
import contextlib
import itertools
import json
import random
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from atonce_seed.handshake import Handshake, SeedFacts
from atonce_sim.loop import VirtualLoop
from atonce_sim.world import EPOCH, World
from dht_atonce.access import read_contacts
from dht_atonce.calls import wire as calls
from dht_atonce.codec import decode, encode
from dht_atonce.config import DurableConfig, NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.cookies import CookieIssuer
from dht_atonce.dht.crawl import Crawl
from dht_atonce.dht.node import DhtNode
from dht_atonce.dht.sealing import PacketType, Sealer
from dht_atonce.dht.wire import FindNode, FindValue, Found, Ping, Pong, Store, Stored
from dht_atonce.discovery.seed_client import SeedSession
from dht_atonce.discovery.seed_wire import Challenge, Hello, sign_challenge
from dht_atonce.disk import MemoryDisk
from dht_atonce.durable import wire as durable
from dht_atonce.durable.intake import Intake
from dht_atonce.endpoints import Address, SeedUrl, pack_address, parse_address
from dht_atonce.errors import (
    EndpointError,
    EntryFailed,
    NetworkMismatch,
    PeerIdError,
    ProfileError,
    RecordError,
    SeedUrlError,
    WireError,
)
from dht_atonce.identity import Identity, NodeKey, PeerId
from dht_atonce.messaging import frames
from dht_atonce.profile import Profile, State
from dht_atonce.records import MembershipRecord, PresenceRecord, RecordParser, ValueRecord
from dht_atonce.rooms import wire as rooms
from dht_atonce.rooms.config import RoomsConfig
from dht_atonce.rooms.machine import RoomMachine
from dht_atonce.streams.config import StreamConfig
from dht_atonce.streams.files import TALK, From, No, Offer, Take, Want
from dht_atonce.streams.mux import Budget, Mux
from dht_atonce.streams.wire import Credit, Data, End, Open, Reset, read_message, write_message

__all__ = ["REQUESTS", "TARGETS", "FuzzedNode", "Target", "make"]

VECTORS = Path(__file__).parent.parent / "tests" / "vectors"
NETWORK = NetworkConfig.local_network("test", k=4)
NOW = int(EPOCH)
ID = b"requestI"
_TURN = 64  # inputs between two turns of the loop: timers and answers cost more than the input itself


class Target(NamedTuple):
    """One parser."""

    feed: Callable[[bytes], None]
    """Raises whatever was not to be raised."""
    corpus: list[bytes]
    """Good input to begin from."""
    close: Callable[[], None] = lambda: None
    """Ends what it runs on."""


def make(name: str) -> Target:
    """The target of this name, new."""
    return TARGETS[name]()


def _vectors(file: str, *keys: str, within: str = "") -> list[bytes]:
    """All values of these names in a file of tests/vectors, in its groups that are named so."""
    found: list[bytes] = []

    def look(tree: Any) -> None:
        if isinstance(tree, dict):
            found.extend(bytes.fromhex(tree[key]) for key in keys if isinstance(tree.get(key), str))
            for value in tree.values():
                look(value)
        elif isinstance(tree, list):
            for value in tree:
                look(value)

    groups = json.loads((VECTORS / f"{file}.json").read_text("utf-8"))
    look([groups[name] for name in groups if within in name])
    return list(dict.fromkeys(found))


def _identity(number: int) -> Identity:
    return Identity.generate(random.Random(f"identity {number}"))


def _presence(number: int = 0) -> PresenceRecord:
    endpoints = (Address("10.0.0.1", 4710), Address("fd00::1", 4711))
    says = {"seq": 1, "incarnation": b"one life", "expires": NOW + 3600}
    return PresenceRecord.sign(_identity(number), NETWORK, endpoints=endpoints, capabilities=("room",), **says)


def _membership() -> MembershipRecord:
    endpoints = (Address("10.0.0.1", 4710), Address("fd00::1", 4710))
    says = {"seq": 1, "incarnation": b"one life", "expires": NOW + 3600}
    return MembershipRecord.sign(_identity(0), NETWORK, topic="a room", endpoints=endpoints, data=b"flute", **says)


def _value(number: int = 0) -> ValueRecord:
    says = {"seq": 1, "incarnation": b"one life", "expires": NOW + 3600}
    return ValueRecord.sign(_identity(number), NETWORK, name="name", value=b"value", **says)


# --- a node and a stranger who has a key ---


class FuzzedNode:
    """Anything may be put into its hands."""

    """A node in a world of its own, fed by hand."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(self._on_unhandled)
        self.unhandled: list[dict[str, Any]] = []
        self.world = World(1)
        self.stranger = Contact(NodeKey.generate(random.Random(2)).public, Address("10.0.0.9", 4000))
        self.sealer = Sealer(NodeKey.generate(random.Random(2)), NETWORK.network_id, 10)
        self.node = self.loop.run_until_complete(self._start())
        self.server = next(iter(self.node.servers.values()))
        self.key = self.node.shared.node_key.public
        self._fed = 0
        self._cookies: CookieIssuer = self.node.shared.cookies

    async def _start(self) -> DhtNode:
        node = DhtNode(_identity(50), host=self.world.host(), network=NETWORK)
        await node.listen()
        for number in range(30):
            key = NodeKey.generate(random.Random(f"node {number}")).public
            server = next(iter(node.servers.values()))
            server.router.on_proved(Contact(key, Address(f"10.1.{number}.1", 4000)), 0.0)
        node.shared.store.keep(_value(), NOW)
        return node

    def receive(self, datagram: bytes) -> None:
        """A datagram comes from the stranger's address."""
        self.loop.run_until_complete(self._hear(datagram))
        self._fed += 1
        if self._fed % _TURN == 0:
            self.loop.run_until_complete(asyncio.sleep(0.05))
        self.check()

    async def _hear(self, datagram: bytes) -> None:
        self.server.protocol.datagram_received(datagram, self.stranger.address)

    def seal(self, kind: PacketType, body: bytes, *, proved: bool = False) -> bytes | None:
        """A datagram of the stranger's; None if there is no room for the body."""
        shared = self.node.shared
        cookie = (
            self._cookies.issue(pack_address(self.stranger.address), self.stranger.key, shared.now()) if proved else b""
        )
        try:
            return self.sealer.seal(kind, self.key, body, bytes(24), cookie)
        except WireError:
            return None

    def close(self) -> None:
        """End the node and its loop."""
        self.loop.run_until_complete(self.node.aclose())
        self.loop.close()

    def check(self) -> None:
        """Raise what was raised behind our back."""
        if self.unhandled:
            context = self.unhandled.pop()
            raise context.get("exception") or AssertionError(context["message"])

    def _on_unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.unhandled.append(context)


REQUESTS = [
    Ping(0, ID, 0),
    FindNode(0, ID, 0, bytes(20), 3),
    FindValue(0, ID, 1, _value().key, 0),
    Store(0, ID, 0, _presence().blob),
]


def _datagram() -> Target:
    node = FuzzedNode()
    sealed = [node.seal(PacketType.REQUEST, encode(request), proved=True) for request in REQUESTS]
    cookie = bytes([1, PacketType.COOKIE]) + bytes(40)
    corpus = [data for data in sealed if data is not None] + _vectors("datagrams", "datagram", "request", "reply")
    return Target(node.receive, [*corpus, cookie], node.close)


def _request() -> Target:
    node = FuzzedNode()

    def feed(body: bytes) -> None:
        datagram = node.seal(PacketType.REQUEST, body, proved=zlib.crc32(body) & 1 == 1)
        if datagram is not None:
            node.receive(datagram)

    return Target(
        feed, [encode(request) for request in REQUESTS] + _vectors("bodies", "body", within="requests"), node.close
    )


_PING, _STORE, _LOOKUP = b"the ping", b"a store.", b"a lookup"


def _reply() -> Target:
    """Answers to a ping, a store and a lookup that wait for one; the bytes of the request id are put right.

    Which of the three, an input's own bytes say: so it does alone what it did among others.
    """
    node = FuzzedNode()
    protocol = node.server.protocol
    others = itertools.count(1 << 32)
    ours = [b""]
    crawls: list[Crawl] = []

    def request_id() -> bytes:
        # The first request of a turn is the one that inputs answer; whom a lookup asks next is another's.
        return ours.pop() if ours else next(others).to_bytes(8, "big")

    protocol.request_id = request_id  # type: ignore[method-assign]

    async def ask(kind: bytes) -> None:
        ours[:] = [kind]
        if kind == _PING:
            protocol.ping(node.stranger, lambda _: None)
        elif kind == _STORE:
            protocol.store(node.stranger, _value().blob, lambda _: None)
        else:
            for crawl in crawls:
                crawl.stop()
            crawls[:] = [node.server.crawl(_value().key, start=[node.stranger], wants_record=True, want=2)]

    def feed(body: bytes) -> None:
        kind = (_PING, _STORE, _LOOKUP, _LOOKUP)[zlib.crc32(body) % 4]
        if kind not in protocol._outstanding:
            node.loop.run_until_complete(ask(kind))
        if body[3:5] == b"\xc4\x08":
            body = body[:5] + kind + body[13:]
        datagram = node.seal(PacketType.REPLY, body)
        if datagram is not None:
            node.receive(datagram)

    head = (0, ID, 0, bytes(16), pack_address(Address("10.0.0.9", 4000)), NOW * 1000)
    contacts = [node.stranger.packed, bytes(range(32)) + pack_address(Address("10.5.5.5", 4000))]
    replies = [Found(*head, contacts, [], _value().blob), Found(*head, contacts, [], b""), Pong(*head)]
    stored = Stored(*head, 1, _value().blob)
    return Target(
        feed, [encode(reply) for reply in [*replies, stored]] + _vectors("bodies", "body", within="replies"), node.close
    )


# --- parsers alone ---


def _record() -> Target:
    parser = RecordParser(NETWORK)

    def feed(data: bytes) -> None:
        try:
            parser.parse(data, NOW)
        except RecordError:
            return

    return Target(feed, [_presence().blob, _value().blob, _membership().blob, *_vectors("records", "record")])


def _signed_record() -> Target:
    """What a malicious owner can make: any payload under a signature that holds."""
    parser, who = RecordParser(NETWORK), _identity(0)

    def feed(payload: bytes) -> None:
        for kind in (b"\x01", b"\x02", b"\x03"):
            signature = who.sign(b"atonce record v1" + kind + NETWORK.network_id + payload)
            try:
                parser.parse(b"\x01" + kind + signature + payload, NOW)
            except RecordError:
                continue

    blobs = (_presence().blob, _value().blob, _membership().blob, *_vectors("records", "record"))
    return Target(feed, [blob[66:] for blob in blobs])


def _frame() -> Target:
    parser = RecordParser(NETWORK)

    def feed(data: bytes) -> None:
        try:
            frame = frames.read_frame(data)
            for special in frame.specials:
                if isinstance(special, frames.Hello):
                    parser.parse_presence(special.record, None)
        except (WireError, RecordError):
            return

    hello = frames.Hello(0, _presence().blob, b"", 1, 1)
    ours = frames.write_frame(frames.Frame(0, 1, 0, [b"message", b""], [hello]))
    return Target(feed, [ours, *_vectors("frames", "frame")])


def _call() -> Target:
    """Requests, replies and cancellations."""

    def feed(data: bytes) -> None:
        try:
            calls.read(data)
        except WireError:
            return

    said = [
        calls.Call(1, "name", 1000, b"?"),
        calls.Reply(1, b"!"),
        calls.Failed(1, 1, "code", "text"),
        calls.Cancel(1),
    ]
    return Target(feed, [encode(message) for message in said])


def _contacts() -> Target:
    """What the profile keeps of whom the user knows."""

    def feed(data: bytes) -> None:
        try:
            read_contacts(data)
        except ProfileError:
            return

    return Target(feed, [encode((1, [(_identity(number).id.key, "Alice") for number in range(2)]))])


def _durable() -> Target:
    """What peers say of durable messages, and what is taken of it."""
    intake, someone = Intake(DurableConfig()), _identity(0).id

    def feed(data: bytes) -> None:
        try:
            note = durable.unpack(data)
        except WireError:
            return
        if isinstance(note, durable.Parcel):
            intake.on_parcel(someone, note, int(NOW * 1000))
        elif isinstance(note, durable.Settled):
            intake.on_settled(someone, note.round, note.count)

    parcel = durable.Parcel(bytes(8), 0, bytes(16), int(NOW * 1000), b"message")
    notes = (parcel, durable.Stored(bytes(8), 1), durable.Refused(bytes(8), 1), durable.Settled(bytes(8), 1))
    return Target(feed, [durable.pack(note) for note in notes])


def _stream() -> Target:
    """Messages of streams, one after another to one machine that also answers; and words about files."""
    config = StreamConfig()
    mux = Mux(config, Budget(config), Counter(), itertools.count(1))
    ours = mux.open("ours")
    acknowledged = itertools.count()

    def feed(data: bytes) -> None:
        with contextlib.suppress(WireError):
            decode(TALK, data)
        with contextlib.suppress(WireError):
            flow, _ = mux.on_message(read_message(data), 0)
            if flow is not None:
                mux.read(flow, 1000)
        while (post := mux.take()) is not None:
            mux.on_settled(post, 0.01, next(acknowledged))

    offer = Offer(0, "photo.jpg", 1000, bytes(32))
    words = [encode(word) for word in (offer, Want(0, "photo.jpg"), Take(10, bytes(32)), From(10), No("no"))]
    said = [
        Open(0, 7, "s"),
        Data(True, 7, b"data"),
        Credit(False, ours.number, 1 << 20),
        End(True, 7),
        Reset(True, 7, 0, "x"),
    ]
    return Target(feed, [*words, *map(write_message, said)])


def _room() -> Target:
    """What a neighbour says in a room, as if all signatures held; and what that sets off later."""
    room, peers = bytes(20), [_identity(number).id.key for number in range(4)]
    own, neighbour, *others = peers

    def verify(key: bytes, _signature: bytes, _message: bytes) -> bool:
        try:
            return bool(PeerId(key))
        except PeerIdError:
            return False

    def machine() -> RoomMachine:
        made = RoomMachine(
            own,
            room,
            NETWORK.network_id,
            session=NOW * 1_000_000,
            name="",
            last=9,
            guest=False,
            config=RoomsConfig(),
            rng=random.Random(1),
            sign=lambda _: bytes(64),
            verify=verify,
            counters=Counter(),
        )
        made.on_candidates([neighbour], 0.0, NOW)
        made.on_message(neighbour, rooms.Welcome(room, [], [], False), 0.0, NOW)
        made.on_message(neighbour, rooms.NeighbourReply(room, True), 0.0, NOW)
        return made

    machines = [machine()]

    def feed(data: bytes) -> None:
        try:
            message = rooms.read_message(data)
        except WireError:
            return
        if len(machines[0].gossip.authors._authors) > 50:
            machines[0] = machine()
        fed, now = machines[0], machines[0].deadline
        fed.on_message(neighbour, message, now, NOW)
        fed.outbox.take()
        fed.on_time(fed.deadline, NOW)
        fed.outbox.take()
        fed.take_events()

    statements = [
        rooms.Statement(others[0], NOW * 1_000_000, stream, 1, data, bytes(64))
        for stream, data in ((0, b"said"), (1, rooms.here_data(0, "name")), (3, rooms.suspect_data(others[1], 1, 1)))
    ]
    ranges, entries = [rooms.Range(others[0], 1, 0, 1, 3)], [rooms.Entry(others[0], 1, 2)]
    messages: list[rooms.RoomMessage] = [
        rooms.Join(room, False, 3),
        rooms.ForwardJoin(room, others[0], 3),
        rooms.Neighbour(room, True),
        rooms.Disconnect(room, False),
        rooms.Shuffle(room, others[0], 3, others),
        rooms.ShuffleReply(room, others),
        rooms.Welcome(room, [(statements[1], 4)], entries, True),
        *(rooms.Say(room, statement, why, 1) for statement in statements for why in range(3)),
        rooms.Have(room, ranges, 1, False),
        rooms.Have(room, ranges, 1, True),
        rooms.Want(room, ranges, True),
        rooms.Prune(room),
        rooms.Digest(room, 1, 3, 4, entries),
        rooms.AskRoster(room),
        rooms.Past(room, statements),
        rooms.Whisper(room, b"psst"),
    ]
    return Target(feed, [rooms.write_message(message) for message in messages])


def _handshake() -> Target:
    """What newcomers send to a seed: first in an answer to nothing, then to its challenge."""
    seed = _identity(60)
    facts = SeedFacts(seed, NETWORK, NodeKey.generate(random.Random(3)).public, (4000, 0), RecordParser(NETWORK))
    curve_key, rng = _identity(0).id.curve_key, random.Random(4)

    def feed(data: bytes) -> None:
        for before in ([], [encode(Hello(0, ""))]):
            handshake = Handshake(facts, curve_key, Address("10.0.0.1", 5000), rng, lambda _: True, 0.0, 30.0)
            for said in [*before, data]:
                handshake.on_frame(said, 1.0, NOW)

    return Target(feed, _vectors("seed", "message"))


class _Seed:
    """A link to a seed that has lost its mind and not its key."""

    remote = Address("10.0.0.2", 4710)

    def __init__(self, body: bytes, client: Identity, seed: Identity) -> None:
        signature = sign_challenge(seed, client.id.curve_key, body)
        self._answers = [body, encode(Challenge(0, body[:600], signature))]
        self._hear: Callable[[bytes], None] = lambda _: None

    async def dial(self, *_: object) -> "_Seed":
        return self

    def start(self, hear: Callable[[bytes], None], _closed: object) -> None:
        self._hear = hear

    def send(self, _data: bytes) -> None:
        if self._answers:
            self._hear(self._answers.pop())

    def close(self) -> None: ...


def _challenge() -> Target:
    """What a seed sends to a newcomer: a challenge with any body, well signed, and then any answer."""
    loop, client, seed = VirtualLoop(), _identity(0), _identity(60)
    host, node_key, url = World(1).host(), NodeKey.generate(random.Random(3)), SeedUrl(seed.id, "10.0.0.2", 4710)

    async def visit(body: bytes) -> None:
        link: Any = _Seed(body, client, seed)
        session = await SeedSession.open(url, host, link, client, None, 1.0)
        async with session:
            await session.authenticate(node_key, _presence().blob)

    def feed(body: bytes) -> None:
        try:
            loop.run_until_complete(visit(body))
        except (EntryFailed, NetworkMismatch):
            return

    return Target(feed, _vectors("seed", "body", "message"), loop.close)


def _state() -> Target:
    host = World(1).host()
    disk = MemoryDisk()
    disk.files = {"identity.key": bytes(range(32)), "node.key": bytes(range(32))}
    profile = Profile(disk, host)
    contacts = (Contact(bytes(32), Address("10.0.0.1", 4000)), Contact(bytes(32), Address("fd00::1", 4000)))
    profile.state = State(NETWORK, (4000, 4001), 4710, contacts, (b"one life",))
    loop = VirtualLoop()
    loop.run_until_complete(profile.save())
    loop.close()

    def feed(data: bytes) -> None:
        disk.files["state"] = data
        try:
            Profile(disk, host)
        except ProfileError:
            return

    return Target(feed, [disk.files["state"]])


def _text() -> Target:
    """What people type or copy: PeerIds, seed URLs, addresses."""

    def feed(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        for read, error in ((PeerId.parse, PeerIdError), (SeedUrl.parse, SeedUrlError), (parse_address, EndpointError)):
            try:
                read(text)
            except error:
                continue

    peer_id = str(_identity(0).id)
    texts = [
        peer_id,
        f"atonce://{peer_id}@example.com:4710",
        f"atonce://{peer_id}@[fd00::1]:1",
        "10.0.0.1:1",
        "[::1]:2",
    ]
    return Target(feed, [text.encode() for text in texts])


TARGETS: dict[str, Callable[[], Target]] = {
    "datagram": _datagram,
    "request": _request,
    "reply": _reply,
    "record": _record,
    "signed-record": _signed_record,
    "frame": _frame,
    "call": _call,
    "contacts": _contacts,
    "durable": _durable,
    "stream": _stream,
    "room": _room,
    "handshake": _handshake,
    "challenge": _challenge,
    "state": _state,
    "text": _text,
}
"""All of them, by name."""
