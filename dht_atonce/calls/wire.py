"""What requests and replies are on the wire: messages of `Kind.CALL`. docs/wire.md has the bytes."""

from collections.abc import Callable
from typing import Annotated, Final

from msgspec import Meta

from dht_atonce.codec import U8, U32, U64, Reader, WireStruct, encode

__all__ = [
    "CAPABILITY",
    "MAX_DATA",
    "MAX_NAME",
    "Call",
    "CallMessage",
    "Cancel",
    "Failed",
    "Reply",
    "Why",
    "read",
    "write",
]

CAPABILITY: Final = "call1"
"""In the presence records of those who answer requests."""
MAX_DATA: Final = 60_000
"""Bytes of a request or a reply."""
MAX_NAME: Final = 64
"""Characters of a service's name, and of an error's code."""
MAX_TEXT: Final = 512

Data = Annotated[bytes, Meta(max_length=MAX_DATA)]
Name = Annotated[str, Meta(max_length=MAX_NAME)]


class Call(WireStruct, tag=1, frozen=True):
    """A request."""

    id: U64
    """The sender's number for it, never used again by that process."""
    service: Name
    left_ms: U32
    """How long the sender waits for the reply, from when this was queued."""
    data: Data


class Reply(WireStruct, tag=2, frozen=True):
    """The answer to a request that was carried out."""

    id: U64
    data: Data


class Why:
    """Why a request has no reply."""

    RAISED: Final = 1
    """Its handler said so, with a code and a text."""
    INTERNAL: Final = 2
    """Its handler failed."""
    NO_SERVICE: Final = 3
    BUSY: Final = 4


class Failed(WireStruct, tag=3, frozen=True):
    """The answer to a request that was not carried out, or failed."""

    id: U64
    why: U8
    code: Name
    text: Annotated[str, Meta(max_length=MAX_TEXT)]

    @classmethod
    def saying(cls, number: int, why: int, code: str = "", text: str = "") -> "Failed":
        """With so much of the words as the wire takes: no more of them, and no lone surrogates."""
        return cls(number, why, _plain(code[:MAX_NAME]), _plain(text[:MAX_TEXT]))


class Cancel(WireStruct, tag=4, frozen=True):
    """Whoever asked does not wait any more."""

    id: U64


CallMessage = Call | Reply | Failed | Cancel

read: Reader[CallMessage] = Reader(CallMessage)
"""Raises `WireError`."""
write: Callable[[CallMessage], bytes] = encode


def _plain(text: str) -> str:
    return text.encode(errors="replace").decode()
