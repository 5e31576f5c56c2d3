"""What the two ends of streams say to each other. docs/wire.md, "Streams", has the bytes."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final

from msgspec import Meta

from dht_atonce.codec import U8, U64, Reader, WireStruct, encode
from dht_atonce.errors import WireError

__all__ = [
    "CHUNK",
    "FIRST_CREDIT",
    "MAX_NAME",
    "Credit",
    "Data",
    "End",
    "Open",
    "Reset",
    "ResetCode",
    "StreamMessage",
    "read_message",
    "write_data",
    "write_message",
]

CHUNK: Final = 245_760
"""Bytes of a stream in one message, at most: with what goes around them they fill a frame."""
FIRST_CREDIT: Final = 65_536
"""Bytes that either side may send before the other gave it credit. Part of the protocol."""
MAX_NAME: Final = 128
"""Of a stream, in bytes of UTF-8."""
MAX_TEXT: Final = 128
MAX_OFFSET: Final = 1 << 62  # no stream gets there


class ResetCode:
    """Why a stream is over at once."""

    ABORTED: Final = 0
    """The app of the other side gave it up."""
    REFUSED: Final = 1
    """Nobody took it, or there are too many."""
    UNKNOWN: Final = 2
    """The other side does not have it any more."""
    BEYOND_CREDIT: Final = 3
    CLOSED: Final = 4
    """The other side reads no more, and has said all that it had to say."""


class Open(WireStruct, tag=1, frozen=True):
    """There is a new stream."""

    minor: U8
    number: U64
    """Chosen by who opens it, higher than those before."""
    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]


class Data(WireStruct, tag=2, frozen=True):
    """What comes next in it."""

    mine: bool
    """The sender of this opened the stream; so in all further ones."""
    number: U64
    data: Annotated[bytes, Meta(min_length=1, max_length=CHUNK)]


class Credit(WireStruct, tag=3, frozen=True):
    """The receiver of this may send so much."""

    mine: bool
    number: U64
    limit: Annotated[int, Meta(ge=0, le=MAX_OFFSET)]
    """Bytes from the beginning of the stream."""


class End(WireStruct, tag=4, frozen=True):
    """The sender of this sends nothing more in it."""

    mine: bool
    number: U64


class Reset(WireStruct, tag=5, frozen=True):
    """The stream is over in both directions."""

    mine: bool
    number: U64
    code: U8
    text: Annotated[str, Meta(max_length=MAX_TEXT)]


StreamMessage = Open | Data | Credit | End | Reset

_read: Reader[StreamMessage] = Reader(StreamMessage)
write_message: Callable[[StreamMessage], bytes] = encode


def write_data(mine: bool, number: int, pieces: Sequence[bytes | memoryview], size: int) -> bytes:
    """The bytes of a `Data` of `size` bytes in `pieces`, which are copied once only."""
    head = encode(Data(mine, number, b""))[:-2]  # but for the length of nothing
    return b"".join((head, b"\xc6", size.to_bytes(4), *pieces))


def read_message(data: bytes) -> StreamMessage:
    """Raises `WireError`."""
    message = _read(data)
    if isinstance(message, Open) and len(message.name.encode()) > MAX_NAME:
        raise WireError("the name of a stream is too long")
    return message
