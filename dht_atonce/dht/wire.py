"""What stands in the box of a datagram: requests and replies. docs/wire.md section 3 has the bytes."""

from enum import IntEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dht_atonce.codec import U8, U16, U32, U64, AddressBytes, Bytes8, Bytes20, Bytes32, WireStruct
from dht_atonce.records import MAX_RECORD, Record

__all__ = [
    "FLAG_NO_SEAT",
    "FLAG_UNSURE",
    "MAX_CONTACTS",
    "MAX_PAGE",
    "MAX_WATCHES",
    "MIN_CONTACTS_BESIDE_RECORD",
    "NEARER",
    "WATCHED",
    "FindMembers",
    "FindNode",
    "FindValue",
    "Found",
    "Members",
    "NeedCookie",
    "NoteOutcome",
    "Noted",
    "Notify",
    "Ping",
    "Pong",
    "Refusal",
    "Refused",
    "Reply",
    "Request",
    "Store",
    "StoreOutcome",
    "Stored",
    "Watch",
    "Watching",
    "pack_watch",
    "reply_decoder",
    "request_decoder",
    "unpack_watch",
]

FLAG_NO_SEAT: Final = 1
FLAG_UNSURE: Final = 2
"""Of FOUND: the record may be old, since we are not among those whom its owner tells of a newer one."""
MAX_CONTACTS: Final = 16
"""In one reply and family."""
MIN_CONTACTS_BESIDE_RECORD: Final = 8
MAX_PAGE: Final = 16
"""Membership records in one reply; no more than seven of the smallest fit."""
MAX_WATCHES: Final = 32
"""In one request: with a cookie it is as long as a datagram may be."""
WATCHED: Final = 0x01
"""Bit of an outcome: what changes there will be pushed."""
NEARER: Final = 0x02
"""Bit of an outcome: enough others are nearer to the key."""

ContactBytes = Annotated[bytes, Meta(min_length=38, max_length=58)]
ContactList = Annotated[list[ContactBytes], Meta(max_length=MAX_CONTACTS)]
RecordBytes = Annotated[bytes, Meta(max_length=MAX_RECORD)]
Cookie = Annotated[bytes, Meta(max_length=16)]
WatchList = Annotated[list[Bytes32], Meta(max_length=MAX_WATCHES)]
Outcomes = Annotated[bytes, Meta(max_length=MAX_WATCHES)]
RecordList = Annotated[list[RecordBytes], Meta(max_length=MAX_WATCHES)]


class StoreOutcome(IntEnum):
    """What became of a record."""

    STORED = 0
    """Stored, or the same record was there already."""
    NEWER_HELD = 1
    PASSED_OVER = 2
    """The topic has more members than the node keeps, and this one is not in its sample."""


class NoteOutcome(IntEnum):
    """What became of what was pushed."""

    NOTED = 0
    NOT_WATCHED = 1
    """Nobody there watches this key (any more)."""


class Refusal(IntEnum):
    """Why a request was not served."""

    NOT_HERE = 1
    BAD_RECORD = 2
    FULL = 3


class _Request(WireStruct, frozen=True):
    minor: U8
    request_id: Bytes8
    flags: U8


class Ping(_Request, tag=1, frozen=True):
    """Is anybody there?"""


class FindNode(_Request, tag=2, frozen=True):
    """Who is nearest to `target`?"""

    target: Bytes20
    want: U8


class FindValue(_Request, tag=3, frozen=True):
    """Have you the record of `key`, and who is nearest to it?"""

    key: Bytes20
    want: U8


class Store(_Request, tag=4, frozen=True):
    """Keep this record."""

    record: RecordBytes


class Watch(_Request, tag=5, frozen=True):
    """Push to me what changes at these keys."""

    lease_s: U16
    """Seconds from now; 0 ends them."""
    watches: WatchList
    """Each as `pack_watch` makes it."""


class Notify(_Request, tag=6, frozen=True):
    """A key that you watch has a newer record here, or (empty) has lost its record to time."""

    key: Bytes20
    record: RecordBytes


class FindMembers(_Request, tag=7, frozen=True):
    """Who is a member of the topic with this `key`, in the order of `seed`?"""

    key: Bytes20
    want: U8
    seed: Bytes8
    start: U64
    """Only those whose place in that order is here or behind; 0: from the beginning, and who is nearest to `key`?"""


class _Reply(WireStruct, frozen=True):
    minor: U8
    request_id: Bytes8
    flags: U8
    cookie: Cookie
    """16 B, or empty: the one you used is good for another epoch."""
    you: AddressBytes
    """Where your request came from."""
    time_ms: U64
    """Our wall clock, Unix milliseconds."""


class Pong(_Reply, tag=1, frozen=True):
    """I am here."""


class Found(_Reply, tag=2, frozen=True):
    """Contacts, nearest first, and the record if one was asked for and is held."""

    contacts: ContactList
    other: ContactList
    record: RecordBytes


class Stored(_Reply, tag=3, frozen=True):
    """The record is kept, or a newer one is, which is sent along."""

    outcome: U8
    record: RecordBytes


class NeedCookie(_Reply, tag=4, frozen=True):
    """Prove your address first: ask again with this cookie."""


class Refused(_Reply, tag=5, frozen=True):
    """No."""

    reason: U8


class Watching(_Reply, tag=6, frozen=True):
    """So long we shall push what changes, and this is newer than what you hold."""

    lease_s: U16
    outcomes: Outcomes
    """One byte for each watch, of `WATCHED` and `NEARER`."""
    records: RecordList


class Noted(_Reply, tag=7, frozen=True):
    """I have heard it."""

    outcome: U8


class Members(_Reply, tag=8, frozen=True):
    """A page of a topic's members; contacts only where the page is the first."""

    contacts: ContactList
    other: ContactList
    total: U32
    """Members held that have not left."""
    next: U64
    """Where the following page starts; 0 if there is none."""
    records: Annotated[list[RecordBytes], Meta(max_length=MAX_PAGE)]


Request = Ping | FindNode | FindValue | Store | Watch | Notify | FindMembers
Reply = Pong | Found | Stored | NeedCookie | Refused | Watching | Noted | Members

request_decoder: "msgspec.msgpack.Decoder[Request]" = msgspec.msgpack.Decoder(Request)
reply_decoder: "msgspec.msgpack.Decoder[Reply]" = msgspec.msgpack.Decoder(Reply)


def pack_watch(key: bytes, held: Record | None) -> bytes:
    """A watch, 32 B: the key and what of it is held already."""
    return key + (bytes(12) if held is None else held.seq.to_bytes(8, "big") + held.tie_hash[:4])


def unpack_watch(data: bytes) -> tuple[bytes, int, bytes]:
    """The key of a watch, and the seq and the mark of what its watcher holds (zeros: nothing)."""
    return data[:20], int.from_bytes(data[20:28], "big"), data[28:]
