"""msgpack on the wire, through msgspec: the types and the bounds that several structures share."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from dht_atonce.errors import WireError

__all__ = [
    "U8",
    "U16",
    "U32",
    "U64",
    "AddressBytes",
    "Bytes8",
    "Bytes20",
    "Bytes32",
    "Bytes64",
    "Reader",
    "WireStruct",
    "decode",
    "encode",
    "read_each",
]

U8 = Annotated[int, Meta(ge=0, le=0xFF)]
U16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
# msgspec itself refuses integers outside of 64 bits; an upper bound of 2**64 - 1 cannot be given to it.
U64 = Annotated[int, Meta(ge=0)]
Bytes8 = Annotated[bytes, Meta(min_length=8, max_length=8)]
Bytes20 = Annotated[bytes, Meta(min_length=20, max_length=20)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
AddressBytes = Annotated[bytes, Meta(min_length=6, max_length=18)]
"""An address as in docs/wire.md section 1: 6 B or 18 B; `endpoints.unpack_address` checks it."""

_ENCODER = msgspec.msgpack.Encoder()
encode = _ENCODER.encode

T = TypeVar("T")


class WireStruct(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of all structures on the wire: arrays whose later minor versions append fields, which we ignore."""


def decode(decoder: "msgspec.msgpack.Decoder[T]", data: bytes) -> T:
    """Read `data`, or raise `WireError`: the only way in which bytes of strangers become objects."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # ValidationError is a DecodeError. RecursionError: arrays nested a thousand deep.
        raise WireError(str(error)) from None


class Reader(Generic[T]):
    """Reads the messages of one protocol, which their tags tell apart; an unknown tag is a `WireError` like all else
    that is wrong."""

    def __init__(self, messages: Any) -> None:
        """`messages` is the union of the protocol's `WireStruct`s. Whoever keeps the reader says of what it is one, as
        mypy cannot take a type from a union."""
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(messages)

    def __call__(self, data: bytes) -> T:
        """Raises `WireError`."""
        return decode(self._decoder, data)


def read_each(read: Callable[[bytes], T], messages: Iterable[bytes], counters: Counter[str], bad: str) -> Iterator[T]:
    """Those of a peer's messages that can be read. The others are dropped, and counted as `bad`."""
    for data in messages:
        try:
            message = read(data)
        except WireError:
            counters[bad] += 1
        else:
            yield message
