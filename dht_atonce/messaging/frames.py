"""What a link between peers carries. docs/wire.md section 6 has the bytes."""

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from dht_atonce.codec import U8, U64, WireStruct, decode, encode
from dht_atonce.errors import WireError
from dht_atonce.links import LARGE
from dht_atonce.records import MAX_RECORD

__all__ = [
    "MAX_FRAME_MESSAGES",
    "Bye",
    "ByeCode",
    "Frame",
    "Held",
    "Hello",
    "Kind",
    "Special",
    "Window",
    "read_frame",
    "write_frame",
    "write_parts",
]

MAX_FRAME_MESSAGES: Final = 256
_MAX_SPECIALS = 16
_MAX_RANGES = 16
_LARGE = 16_384  # bytes of a message that is worth one copy less
_SIX, _ONE_BIN32 = b"\x96", b"\x91\xc6"  # msgpack: an array of six; an array of one byte string, whose length follows
_HELLO, _BYE, _HELD, _WINDOW = range(1, 5)


class Kind:
    """What the messages of a frame are for: all of one frame are of one kind."""

    MESSAGE: Final = 0
    """For the app, as they are."""
    DURABLE: Final = 1
    """For the app, kept on both sides' disks until it is done with them."""
    CALL: Final = 2
    """Requests, replies, and cancellations."""
    STREAM: Final = 3
    """Pieces of streams, and credit for them."""
    ROOM: Final = 4
    """What members of a room say to each other."""


class Frame(WireStruct, frozen=True):
    """A frame, to be written or as it was read."""

    kind: U8
    seq0: U64
    ack: U64
    messages: Annotated[list[bytes | None], Meta(max_length=MAX_FRAME_MESSAGES)]
    specials: Annotated[list[Any], Meta(max_length=_MAX_SPECIALS)]
    """`Special`s; of those that were read only the known ones."""
    unhurried: bool = False
    """Nobody waits for the acknowledgement of these messages: it may come some milliseconds later, with others."""


class _FrameOfViews(Frame, frozen=True):
    """A large frame as it is read: its messages are not copied here, since whoever reads the pieces of streams does."""

    messages: Annotated[list[memoryview | None], Meta(max_length=MAX_FRAME_MESSAGES)]  # type: ignore[assignment]

    def as_frame(self) -> Frame:
        """For streams with the views as they are."""
        messages: list[Any] = list(self.messages)
        if self.kind != Kind.STREAM:
            messages = [view if view is None else bytes(view) for view in messages]
        return Frame(self.kind, self.seq0, self.ack, messages, self.specials, self.unhurried)


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
    NOT_NEEDED: Final = 4


class Bye(WireStruct, tag=_BYE, frozen=True):
    """The link ends."""

    code: U8
    text: Annotated[str, Meta(max_length=128)]


class Held(WireStruct, tag=_HELD, frozen=True):
    """What the sender of this holds behind a gap; it need not come again."""

    ranges: Annotated[list[tuple[U64, U64]], Meta(max_length=_MAX_RANGES)]
    """(first, count)."""


class Window(WireStruct, tag=_WINDOW, frozen=True):
    """The sender of this has room for messages with numbers up to `limit`; one said earlier may be higher."""

    limit: U64


Special = Hello | Bye | Held | Window


_FRAME_DECODER = msgspec.msgpack.Decoder(Frame)
_VIEWS_DECODER = msgspec.msgpack.Decoder(_FrameOfViews)

write_frame: Callable[[Frame], bytes] = encode
"""Gives the frame's bytes."""


def write_parts(frame: Frame) -> tuple[bytes, ...]:
    """The same in parts, of which a large message is one, as it is: a copy of it less."""
    messages = frame.messages
    if len(messages) != 1 or (data := messages[0]) is None or len(data) < _LARGE:
        return (write_frame(frame),)
    head = encode((frame.kind, frame.seq0, frame.ack))[1:]  # an array of three, without saying so
    return _SIX + head + _ONE_BIN32 + len(data).to_bytes(4), data, encode(frame.specials) + encode(frame.unhurried)


def read_frame(data: bytes) -> Frame:
    """Read a frame; specials with a tag that we do not know are left out. Raises `WireError`."""
    frame = decode(_FRAME_DECODER, data) if len(data) < LARGE else decode(_VIEWS_DECODER, data).as_frame()
    if not frame.specials:
        return frame  # all but always
    specials: list[Special] = []
    for fields in frame.specials:
        if not isinstance(fields, list) or not fields or not isinstance(fields[0], int):
            raise WireError("a special without a tag")
        if _HELLO <= fields[0] <= _WINDOW:
            try:
                special = msgspec.convert(fields, Special, builtin_types=(bytes,))
            except (msgspec.ValidationError, RecursionError) as error:
                raise WireError(str(error)) from None
            if isinstance(special, Hello) and len(special.yours) not in (0, 8):
                raise WireError("an incarnation has 8 bytes")
            specials.append(special)
    return Frame(frame.kind, frame.seq0, frame.ack, frame.messages, specials, frame.unhurried)
