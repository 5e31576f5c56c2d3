"""What messages of the kind DURABLE are. docs/wire.md has the bytes, docs/guide/durable.md what they are for."""

from collections.abc import Callable
from typing import Annotated, Final

from msgspec import Meta

from dht_atonce.codec import U8, U32, U64, Bytes8, Reader, WireStruct, encode

__all__ = ["MAX_DATA", "Note", "Parcel", "Refused", "Settled", "Stored", "Why", "pack", "unpack"]

MAX_DATA: Final = 59_900
"""Bytes of a durable message: with its envelope it fits into a message."""

Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]


class Why:
    """Why a receiver refuses."""

    FULL: Final = 1
    """Its inbox, or the sender's share of it, is full."""
    DISK: Final = 2
    """Its disk fails."""
    AGAIN: Final = 3
    """It does not know where in the round it is."""
    INVALID: Final = 4
    """The message breaks a bound of the protocol."""


class Parcel(WireStruct, tag=1, frozen=True):
    """A message, to be stored. Those of a round are numbered from 0 on, in the order in which the app sent them."""

    round: Bytes8
    """Drawn anew whenever the sender begins again with the oldest that is not acknowledged."""
    index: U32
    id: Bytes16
    expires_ms: U64
    """Unix milliseconds."""
    data: Annotated[bytes, Meta(max_length=MAX_DATA)]


class Stored(WireStruct, tag=2, frozen=True):
    """The acknowledgement: the first `count` of the round are on the disk of the sender of this."""

    round: Bytes8
    count: U32


class Refused(WireStruct, tag=3, frozen=True):
    """Nothing more of the round is stored: begin another one later."""

    round: Bytes8
    why: U8


class Settled(WireStruct, tag=4, frozen=True):
    """The first `count` of the round are off the sender's disk and never come again: their ids may be forgotten."""

    round: Bytes8
    count: U32


Note = Parcel | Stored | Refused | Settled

unpack: Reader[Note] = Reader(Note)
"""Raises `WireError`."""
pack: Callable[[Note], bytes] = encode
