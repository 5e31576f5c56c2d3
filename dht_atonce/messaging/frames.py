"""What a link between peers carries. docs/wire.md section 6 has the bytes."""

from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from dht_atonce.codec import U8, U64, WireStruct, decode, encode
from dht_atonce.errors import WireError
from dht_atonce.records import MAX_RECORD

__all__ = ["Bye", "ByeCode", "Frame", "Hello", "MessageFrame", "read_frame", "write_frame"]

MAX_FRAME_MESSAGES: Final = 256
_MAX_SPECIALS = 16
_HELLO = 1
_BYE = 2


class Frame(NamedTuple):
    """A frame as it travels: a plain tuple, which msgspec packs fastest."""

    flags: int
    seq0: int
    ack: int
    messages: list[bytes]
    specials: list[Any]


class Hello(WireStruct, tag=_HELLO, frozen=True):
    """Who is speaking, and where the two of us were."""

    minor: U8
    record: Annotated[bytes, Meta(max_length=MAX_RECORD)]
    yours: Annotated[bytes, Meta(max_length=8)]
    """The receiver's incarnation that `base` and `expect` speak of; empty: none is remembered."""
    base: U64
    """The lowest sequence number that the sender may still send."""
    expect: U64
    """The next one that the sender wants."""


class ByeCode:
    """Why a link is ended."""

    NOT_ACCEPTED: Final = 1
    GOING_AWAY: Final = 2
    PROTOCOL_ERROR: Final = 3


class Bye(WireStruct, tag=_BYE, frozen=True):
    """The link ends."""

    code: U8
    text: Annotated[str, Meta(max_length=128)]


class MessageFrame(NamedTuple):
    """A frame as it was read: known specials only."""

    seq0: int
    ack: int
    messages: list[bytes]
    specials: list[Hello | Bye]


class _WireFrame(WireStruct, frozen=True):
    flags: U8
    seq0: U64
    ack: U64
    messages: Annotated[list[bytes], Meta(max_length=MAX_FRAME_MESSAGES)]
    specials: Annotated[list[msgspec.Raw], Meta(max_length=_MAX_SPECIALS)]


_FRAME_DECODER = msgspec.msgpack.Decoder(_WireFrame)
_TAG_DECODER = msgspec.msgpack.Decoder(list[Any])
_SPECIAL_DECODER: "msgspec.msgpack.Decoder[Hello | Bye]" = msgspec.msgpack.Decoder(Hello | Bye)


def write_frame(frame: Frame) -> bytes:
    """The frame's bytes."""
    return encode(frame)


def read_frame(data: bytes) -> MessageFrame:
    """Read a frame; specials with a tag that we do not know are left out. Raises `WireError`."""
    frame = decode(_FRAME_DECODER, data)
    specials: list[Hello | Bye] = []
    for raw in frame.specials:
        fields = decode(_TAG_DECODER, bytes(raw))
        if not fields or not isinstance(fields[0], int):
            raise WireError("a special without a tag")
        if fields[0] in (_HELLO, _BYE):
            special = decode(_SPECIAL_DECODER, bytes(raw))
            if isinstance(special, Hello) and len(special.yours) not in (0, 8):
                raise WireError("an incarnation has 8 bytes")
            specials.append(special)
    return MessageFrame(frame.seq0, frame.ack, frame.messages, specials)
