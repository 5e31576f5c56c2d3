"""What members of a room say to each other, and how a statement is signed. docs/wire.md has the bytes.

A *statement* is signed by its author and travels through any hands: a shout, or news of a member. All else is said over
a link, which proves who says it.
"""

from collections.abc import Callable
from typing import Annotated, Final

from msgspec import Meta

from dht_atonce.codec import U8, U16, U32, U64, Bytes20, Bytes32, Bytes64, Reader, WireStruct, encode
from dht_atonce.errors import WireError

__all__ = [
    "AskRoster",
    "Digest",
    "Disconnect",
    "Entry",
    "ForwardJoin",
    "Have",
    "Join",
    "Mode",
    "Neighbour",
    "NeighbourReply",
    "Past",
    "Prune",
    "Range",
    "RoomMessage",
    "Say",
    "Shuffle",
    "ShuffleReply",
    "Statement",
    "Stream",
    "Want",
    "Welcome",
    "Whisper",
    "Why",
    "here_data",
    "here_of",
    "read_message",
    "signed_bytes",
    "suspect_data",
    "suspect_of",
    "write_message",
]

_CONTEXT = b"atonce room 1"
MAX_ENTRIES: Final = 512
MAX_STATEMENTS: Final = 256
MAX_PEERS: Final = 16


class Stream:
    """What a statement is."""

    SHOUT: Final = 0
    """`seq` counts the author's shouts of this session from 1; `data` is the app's."""
    HERE: Final = 1
    """`seq` is the author's time in µs; `data` is how many shouts it made, u64 big-endian, and its name."""
    GONE: Final = 2
    """It has left; `seq` as for HERE."""
    SUSPECT: Final = 3
    """The author cannot reach the member in `data`."""


class Mode:
    """How an author's shouts travel."""

    DIRECT: Final = 0
    TREE: Final = 1


class Why:
    """Why a statement is said to us."""

    TREE: Final = 0
    """Through the tree: whoever has it already prunes."""
    DIRECT: Final = 1
    """By its author, to each member that it knows: nobody passes it on."""
    ASKED: Final = 2
    """It was asked for."""


class Statement(WireStruct, frozen=True):
    """Something that its author signed."""

    author: Bytes32
    session: U64
    """When the author came into the room, Unix µs: a later session ends an earlier one."""
    stream: U8
    seq: U64
    data: Annotated[bytes, Meta(max_length=59_000)]
    signature: Bytes64


class Range(WireStruct, frozen=True):
    """Statements `first` to `first + count - 1` of one stream. Of a suspicion: about whom, not by whom."""

    author: Bytes32
    session: U64
    stream: U8
    first: U64
    count: U16


class Entry(WireStruct, frozen=True):
    """How far an author has come, as far as the sender knows."""

    author: Bytes32
    session: U64
    highest: U64


Peers = Annotated[list[Bytes32], Meta(max_length=MAX_PEERS)]


class Join(WireStruct, tag=0, frozen=True):
    """Let me in."""

    room: Bytes20
    guest: bool
    """I am here for a moment, and nobody's neighbour."""
    last: U16
    """So many of the latest shouts, please."""


class ForwardJoin(WireStruct, tag=1, frozen=True):
    """Somebody came in; the walk goes on for `ttl` steps."""

    room: Bytes20
    newcomer: Bytes32
    ttl: U8


class Neighbour(WireStruct, tag=2, frozen=True):
    """Be my neighbour; `high`: I have none."""

    room: Bytes20
    high: bool


class NeighbourReply(WireStruct, tag=3, frozen=True):
    """Whether I am."""

    room: Bytes20
    accepted: bool


class Disconnect(WireStruct, tag=4, frozen=True):
    """We are neighbours no longer; `leaving`: and I am about to go."""

    room: Bytes20
    leaving: bool


class Shuffle(WireStruct, tag=5, frozen=True):
    """Some members whom `origin` knows, for some whom you know."""

    room: Bytes20
    origin: Bytes32
    ttl: U8
    peers: Peers


class ShuffleReply(WireStruct, tag=6, frozen=True):
    """Some whom I know."""

    room: Bytes20
    peers: Peers


class Welcome(WireStruct, tag=7, frozen=True):
    """A page of the list of members, with how far each has come; `more`: another page follows."""

    room: Bytes20
    members: Annotated[list[tuple[Statement, U64]], Meta(max_length=MAX_STATEMENTS)]
    authors: Annotated[list[Entry], Meta(max_length=MAX_ENTRIES)]
    """Others who said something."""
    more: bool


class Say(WireStruct, tag=8, frozen=True):
    """A statement."""

    room: Bytes20
    statement: Statement
    why: U8
    hops: U8
    """Over how many links it came, this one included; nobody vouches for it."""


class Have(WireStruct, tag=9, frozen=True):
    """What I have, if you want it."""

    room: Bytes20
    ranges: Annotated[list[Range], Meta(max_length=MAX_ENTRIES)]
    hops: U8
    """Over how many links the first of them would come to the receiver; nobody vouches for it."""
    is_late: bool
    """They did not come through the tree, and nobody need wait whether they do."""


class Want(WireStruct, tag=10, frozen=True):
    """Say these to me; `graft`: and from now on all that comes."""

    room: Bytes20
    ranges: Annotated[list[Range], Meta(max_length=MAX_ENTRIES)]
    graft: bool


class Prune(WireStruct, tag=11, frozen=True):
    """Say to me only what you have: I got it from another."""

    room: Bytes20


class Digest(WireStruct, tag=12, frozen=True):
    """Where we are: how many members with which sum, and who said something lately."""

    room: Bytes20
    mode: U8
    members: U32
    sum: U64
    """XOR of what stands for each member."""
    authors: Annotated[list[Entry], Meta(max_length=MAX_ENTRIES)]


class AskRoster(WireStruct, tag=13, frozen=True):
    """Tell me the list of members."""

    room: Bytes20


class Past(WireStruct, tag=14, frozen=True):
    """The latest shouts, the oldest first."""

    room: Bytes20
    statements: Annotated[list[Statement], Meta(max_length=MAX_STATEMENTS)]


class Whisper(WireStruct, tag=15, frozen=True):
    """Something for the receiver alone."""

    room: Bytes20
    data: Annotated[bytes, Meta(max_length=59_000)]


RoomMessage = (
    Join
    | ForwardJoin
    | Neighbour
    | NeighbourReply
    | Disconnect
    | Shuffle
    | ShuffleReply
    | Welcome
    | Say
    | Have
    | Want
    | Prune
    | Digest
    | AskRoster
    | Past
    | Whisper
)

read_message: Reader[RoomMessage] = Reader(RoomMessage)
"""Raises `WireError`."""
write_message: Callable[[RoomMessage], bytes] = encode


def signed_bytes(
    network_id: bytes, room: bytes, author: bytes, session: int, stream: int, seq: int, data: bytes
) -> bytes:
    """What an author signs. All before `data` has a fixed length."""
    numbers = session.to_bytes(8, "big") + bytes([stream]) + seq.to_bytes(8, "big")
    return b"".join((_CONTEXT, network_id, room, author, numbers, data))


def here_data(said: int, name: str) -> bytes:
    """The `data` of a HERE."""
    return said.to_bytes(8, "big") + name.encode()


def here_of(data: bytes) -> tuple[int, str]:
    """The reverse. Raises `WireError`."""
    if len(data) < 8:
        raise WireError("a HERE has 8 bytes at least")
    return int.from_bytes(data[:8], "big"), data[8:].decode(errors="replace")


def suspect_data(member: bytes, session: int, version: int) -> bytes:
    """The `data` of a SUSPECT: who, and what it had said last of itself."""
    return member + session.to_bytes(8, "big") + version.to_bytes(8, "big")


def suspect_of(data: bytes) -> tuple[bytes, int, int]:
    """The reverse. Raises `WireError`."""
    if len(data) != 48:
        raise WireError("a suspicion has 48 bytes")
    return data[:32], int.from_bytes(data[32:40], "big"), int.from_bytes(data[40:], "big")
