"""What peers say over links: frames, and messages of each kind, by themselves and to the machines that take them."""

import contextlib
import itertools
import random
from collections import Counter

from dht_atonce.calls import wire as calls
from dht_atonce.codec import decode, encode
from dht_atonce.config import DurableConfig, RoomsConfig, StreamConfig
from dht_atonce.durable import wire as durable
from dht_atonce.durable.intake import Intake
from dht_atonce.errors import (
    PeerIdError,
    RecordError,
    WireError,
)
from dht_atonce.identity import PeerId
from dht_atonce.messaging import frames
from dht_atonce.records import RecordParser
from dht_atonce.rooms import wire as rooms
from dht_atonce.rooms.machine import RoomMachine
from dht_atonce.streams.files import TALK, From, No, Offer, Take, Want
from dht_atonce.streams.mux import Budget, Mux
from dht_atonce.streams.wire import Credit, Data, End, Open, Reset, read_message, write_message
from fuzz.seeds import NETWORK, NOW, Target, identity, presence, vectors

__all__ = ["call", "durable_note", "frame", "room", "stream"]


def frame() -> Target:
    parser = RecordParser(NETWORK)

    def feed(data: bytes) -> None:
        try:
            frame = frames.read_frame(data)
            for special in frame.specials:
                if isinstance(special, frames.Hello):
                    parser.parse_presence(special.record, None)
        except (WireError, RecordError):
            return

    hello = frames.Hello(0, presence().blob, b"", 1, 1)
    ours = frames.write_frame(frames.Frame(0, 1, 0, [b"message", b""], [hello]))
    return Target(feed, [ours, *vectors("frames", "frame")])


def call() -> Target:
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
    return Target(feed, [*map(encode, said), *vectors("calls", "message")])


def durable_note() -> Target:
    """What peers say of durable messages, and what is taken of it."""
    intake, someone = Intake(DurableConfig()), identity(0).id

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
    return Target(feed, [*map(durable.pack, notes), *vectors("durable", "note")])


def stream() -> Target:
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
    more = [*vectors("streams", "message"), *(word[2:] for word in vectors("files", "word"))]
    return Target(feed, [*words, *map(write_message, said), *more])


def room() -> Target:
    """What a neighbour says in a room, as if all signatures held; and what that sets off later."""
    room, peers = bytes(20), [identity(number).id.key for number in range(4)]
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
    return Target(feed, [*map(rooms.write_message, messages), *vectors("rooms", "message")])
