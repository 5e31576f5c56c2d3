"""What messages of each kind hold, for `make_vectors`: durable messages, requests, streams, files and rooms."""

from typing import Any

import msgspec
from support import INCARNATION, NOW, identity

from dht_atonce.calls import wire as calls
from dht_atonce.codec import WireStruct, encode
from dht_atonce.config import NetworkConfig, RoomsConfig
from dht_atonce.durable import wire as durable
from dht_atonce.identity import Identity
from dht_atonce.records import topic_key
from dht_atonce.rooms import wire as rooms
from dht_atonce.rooms.roster import Roster
from dht_atonce.streams import files, wire

Vector = dict[str, Any]

LATER = [["later"], 7, b"\xff"]
"""What a later minor version might append."""

ALICE, BOB = identity(1), identity(2)
NETWORK = NetworkConfig(name="vectors")
TOPIC = "a room"
ROOM = topic_key(NETWORK, TOPIC)
SESSION = NOW * 1_000_000


def plain(message: WireStruct) -> dict[str, Any]:
    """Its fields by name: bytes in hex, structures within as arrays."""

    def one(field: Any) -> Any:
        if isinstance(field, list | tuple):
            return [one(item) for item in field]
        if isinstance(field, msgspec.Struct):
            return [one(getattr(field, name)) for name in field.__struct_fields__]
        return field.hex() if isinstance(field, bytes) else field

    return {name: one(getattr(message, name)) for name in message.__struct_fields__}


def _examples(messages: list[tuple[str, Any]]) -> list[Vector]:
    return [
        {"title": title, "type": type(message).__name__, "fields": plain(message), "message": encode(message).hex()}
        for title, message in messages
    ]


def _later(message: Any) -> list[Vector]:
    fields = msgspec.msgpack.decode(encode(message))
    return [
        {
            "title": "appended fields",
            "message": encode([*fields, *LATER]).hex(),
            "same_as": encode(message).hex(),
        }
    ]


def _refused(messages: list[tuple[str, list[Any]]]) -> list[Vector]:
    return [{"title": title, "message": encode(fields).hex()} for title, fields in messages]


def durable_notes() -> dict[str, list[Vector]]:
    """Durable messages: what messages of kind 1 hold."""
    round_ = bytes(range(8))
    examples: list[tuple[str, durable.Note]] = [
        ("a message", durable.Parcel(round_, 5, bytes(range(16)), 1_800_000_000_000, b"hello")),
        ("an empty one", durable.Parcel(round_, 0, bytes(16), 0, b"")),
        ("acknowledged", durable.Stored(round_, 6)),
        ("refused", durable.Refused(round_, durable.Why.FULL)),
        ("never again", durable.Settled(round_, 2**32 - 1)),
    ]
    return {
        "notes": [
            {"title": title, "type": type(note).__name__, **plain(note), "note": durable.pack(note).hex()}
            for title, note in examples
        ],
        "later notes": [
            {
                "title": "an appended field",
                "note": encode([2, round_, 6, *LATER]).hex(),
                "same_as": durable.pack(durable.Stored(round_, 6)).hex(),
            }
        ],
    }


def call_messages() -> dict[str, list[Vector]]:
    """Requests and replies: what messages of kind 2 hold."""
    call = calls.Call(2**64 - 1, "time", 10_000, b"where I am")
    return {
        "messages": _examples(
            [
                ("a request", call),
                ("an empty one", calls.Call(1, "", 0, b"")),
                ("a reply", calls.Reply(2**64 - 1, b"noon")),
                ("the service says no", calls.Failed(7, calls.Why.RAISED, "lost", "nobody knows ✓")),
                ("there is no such service", calls.Failed(7, calls.Why.NO_SERVICE, "", "")),
                ("nobody waits any more", calls.Cancel(7)),
            ]
        ),
        "later messages": _later(call),
        "refused messages": _refused(
            [
                ("a tag that nobody knows", [5, 7]),
                ("a name of 65 characters", [1, 7, "n" * 65, 0, b""]),
                ("a text of 513 characters", [3, 7, 1, "", "t" * 513]),
                ("a field too few", [1, 7, "time", 0]),
            ]
        ),
    }


def stream_messages() -> dict[str, list[Vector]]:
    """Streams: what messages of kind 3 hold."""
    number = int.from_bytes(INCARNATION[:6], "big") << 16
    opened = wire.Open(0, number, "backup")
    vectors = _examples(
        [
            ("a new stream", opened),
            ("the longest name", wire.Open(0, 1, "ü" * 64)),
            ("bytes from who opened it", wire.Data(True, number, b"hello")),
            ("credit from the other side", wire.Credit(False, number, 1 << 20)),
            ("the highest limit", wire.Credit(True, 2**64 - 1, 1 << 62)),
            ("one direction has ended", wire.End(True, number)),
            ("it is over", wire.Reset(False, number, wire.ResetCode.REFUSED, "nobody took it")),
        ]
    )
    long_form = wire.Data(True, number, b"hello")
    vectors.append(
        {
            "title": "bytes whose length is written in four bytes, as this code writes it",
            "type": "Data",
            "fields": plain(long_form),
            "message": wire.write_data(True, number, [b"hel", b"lo"], 5).hex(),
        }
    )
    return {
        "messages": vectors,
        "later messages": _later(opened),
        "refused messages": _refused(
            [
                ("a tag that nobody knows", [6, True, 7]),
                ("no name", [1, 0, 7, ""]),
                ("a name of 129 B", [1, 0, 7, "ü" * 64 + "n"]),
                ("no bytes", [2, True, 7, b""]),
                ("a limit beyond 2^62", [3, True, 7, (1 << 62) + 1]),
                ("a number for a bool", [4, 1, 7]),
                ("a text of 129 characters", [5, True, 7, 0, "t" * 129]),
            ]
        ),
    }


def file_words() -> dict[str, list[Vector]]:
    """Files: what the two sides of a transfer say in its stream, each word with its length."""
    digest = bytes(range(32))
    offer = files.Offer(0, "photo.jpg", 1 << 50, digest)
    words = [
        ("wanted", files.Want(0, "photo.jpg")),
        ("offered", offer),
        ("taken, with some of it there already", files.Take(70_000, digest)),
        ("from there on", files.From(70_000)),
        ("whole", files.Done()),
        ("it comes to nothing", files.No("no space left")),
    ]
    return {
        "words": [
            {
                "title": title,
                "type": type(word).__name__,
                "fields": plain(word),
                "word": (len(encode(word)).to_bytes(2, "big") + encode(word)).hex(),
            }
            for title, word in words
        ],
        "later words": _later(offer),
    }


def _statement(who: Identity, stream: int, seq: int, data: bytes) -> rooms.Statement:
    signed = rooms.signed_bytes(NETWORK.network_id, ROOM, who.id.key, SESSION, stream, seq, data)
    return rooms.Statement(who.id.key, SESSION, stream, seq, data, who.sign(signed))


def room_messages() -> dict[str, list[Vector]]:
    """Rooms: statements and their signatures, and what messages of kind 4 hold."""
    here = _statement(ALICE, rooms.Stream.HERE, SESSION + 5, rooms.here_data(2, "Alice ✓"))
    bobs = _statement(BOB, rooms.Stream.HERE, SESSION + 9, rooms.here_data(0, ""))
    shout = _statement(ALICE, rooms.Stream.SHOUT, 2, b"hello")
    alice, bob = ALICE.id.key, BOB.id.key
    gone = _statement(ALICE, rooms.Stream.GONE, SESSION + 7, rooms.here_data(2, "Alice ✓"))
    suspicion = rooms.suspect_data(alice, SESSION, SESSION + 5)
    statements: list[tuple[str, Identity, rooms.Statement, Vector]] = [
        ("a shout", ALICE, shout, {}),
        ("an empty one", ALICE, _statement(ALICE, rooms.Stream.SHOUT, 1, b""), {}),
        ("here, with two shouts made", ALICE, here, {"said": 2, "name": "Alice ✓"}),
        ("here, without a name", BOB, bobs, {"said": 0, "name": ""}),
        ("gone", ALICE, gone, {"said": 2, "name": "Alice ✓"}),
        (
            "cannot be reached",
            BOB,
            _statement(BOB, rooms.Stream.SUSPECT, SESSION + 8, suspicion),
            {"about": alice.hex(), "its_session": SESSION, "its_seq": SESSION + 5},
        ),
    ]
    roster = Roster(RoomsConfig())
    roster.on_here(here)
    roster.on_here(bobs)
    entry = rooms.Entry(alice, SESSION, 2)
    ranges = [rooms.Range(alice, SESSION, rooms.Stream.SHOUT, 1, 2), rooms.Range(bob, SESSION, 3, SESSION + 5, 1)]
    digest = rooms.Digest(ROOM, rooms.Mode.TREE, 2, roster.sum, [entry])
    examples = _examples(
        [
            ("let me in", rooms.Join(ROOM, False, 256)),
            ("somebody came in", rooms.ForwardJoin(ROOM, bob, 6)),
            ("be my neighbour", rooms.Neighbour(ROOM, True)),
            ("whether I am", rooms.NeighbourReply(ROOM, False)),
            ("no neighbours any more", rooms.Disconnect(ROOM, True)),
            ("some members for some", rooms.Shuffle(ROOM, alice, 6, [bob, bytes(range(32))])),
            ("some of mine", rooms.ShuffleReply(ROOM, [bob])),
            ("who is here", rooms.Welcome(ROOM, [(here, 2), (bobs, 0)], [entry], False)),
            ("a shout through the tree", rooms.Say(ROOM, shout, rooms.Why.TREE, 3)),
            ("what I have", rooms.Have(ROOM, ranges, 2, False)),
            ("what I want", rooms.Want(ROOM, ranges[:1], True)),
            ("only what I have", rooms.Prune(ROOM)),
            ("where we are", digest),
            ("the list, please", rooms.AskRoster(ROOM)),
            ("the latest shouts", rooms.Past(ROOM, [shout])),
            ("for the receiver alone", rooms.Whisper(ROOM, b"psst")),
        ]
    )
    return {
        "statements": [
            {
                "title": title,
                "secret_seed": who.secret_seed.hex(),
                "network": NETWORK.name,
                "topic": TOPIC,
                "room": ROOM.hex(),
                **plain(one),
                **means,
            }
            for title, who, one, means in statements
        ],
        "sums": [
            {
                "title": "of two members",
                "members": [[one.author.hex(), one.session, one.seq] for one in (here, bobs)],
                "sum": roster.sum,
            }
        ],
        "messages": examples,
        "later messages": _later(digest),
        "refused messages": _refused(
            [
                ("a tag that nobody knows", [16, ROOM]),
                ("a room of 19 B", [11, ROOM[:19]]),
                ("17 peers", [6, ROOM, [bob] * 17]),
                ("a signature of 63 B", [8, ROOM, [alice, SESSION, 0, 2, b"hello", bytes(63)], 0, 1]),
                ("a count beyond 16 bits", [10, ROOM, [[alice, SESSION, 0, 1, 65_536]], False]),
            ]
        ),
    }
