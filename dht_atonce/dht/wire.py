"""What stands in the box of a datagram: requests and replies. docs/wire.md section 3 has the bytes."""

from enum import IntEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dht_atonce.codec import U8, U32, U64, AddressBytes, Bytes8, Bytes20, WireStruct
from dht_atonce.records import MAX_RECORD

__all__ = [
    "FLAG_NO_SEAT",
    "MAX_CONTACTS",
    "MAX_PAGE",
    "MIN_CONTACTS_BESIDE_RECORD",
    "FindMembers",
    "FindNode",
    "FindValue",
    "Found",
    "Members",
    "NeedCookie",
    "Ping",
    "Pong",
    "Refusal",
    "Refused",
    "Reply",
    "Request",
    "Store",
    "StoreOutcome",
    "Stored",
    "reply_decoder",
    "request_decoder",
]

FLAG_NO_SEAT: Final = 1
MAX_CONTACTS: Final = 16
"""In one reply and family."""
MIN_CONTACTS_BESIDE_RECORD: Final = 8
MAX_PAGE: Final = 16
"""Membership records in one reply; no more than seven of the smallest fit."""

ContactBytes = Annotated[bytes, Meta(min_length=38, max_length=58)]
ContactList = Annotated[list[ContactBytes], Meta(max_length=MAX_CONTACTS)]
RecordBytes = Annotated[bytes, Meta(max_length=MAX_RECORD)]
Cookie = Annotated[bytes, Meta(max_length=16)]


class StoreOutcome(IntEnum):
    """What became of a record."""

    STORED = 0
    """Stored, or the same record was there already."""
    NEWER_HELD = 1
    PASSED_OVER = 2
    """The topic has more members than the node keeps, and this one is not in its sample."""


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


class Members(_Reply, tag=8, frozen=True):
    """A page of a topic's members; contacts only where the page is the first."""

    contacts: ContactList
    other: ContactList
    total: U32
    """Members held that have not left."""
    next: U64
    """Where the following page starts; 0 if there is none."""
    records: Annotated[list[RecordBytes], Meta(max_length=MAX_PAGE)]


Request = Ping | FindNode | FindValue | Store | FindMembers
Reply = Pong | Found | Stored | NeedCookie | Refused | Members

request_decoder: "msgspec.msgpack.Decoder[Request]" = msgspec.msgpack.Decoder(Request)
reply_decoder: "msgspec.msgpack.Decoder[Reply]" = msgspec.msgpack.Decoder(Reply)
