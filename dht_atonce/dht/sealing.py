"""Sealed datagrams: from a body to bytes and back. docs/wire.md section 3 has the layout.

The box itself is a cipher's: static X25519 keys on both sides, a key for each direction. Without the directions a
packet could be sent back to its sender, who would believe it. There is no forward secrecy here: what travels in the DHT
is signed, public and short-lived.
"""

from collections.abc import Callable
from enum import IntEnum
from operator import itemgetter
from typing import Final

import msgspec

from dht_atonce.cipher import TAG_SIZE, CipherFactory, SodiumCipher
from dht_atonce.datagrams import MAX_DATAGRAM
from dht_atonce.errors import WireError
from dht_atonce.identity import NodeKey

__all__ = [
    "COOKIE_SIZE",
    "MIN_UNPROVED_FIND",
    "NONCE_SIZE",
    "Opened",
    "PacketType",
    "Sealer",
    "answer_key_request",
    "answer_with_cookie",
    "key_request",
    "nonce_of",
    "read_cookie_answer",
    "read_key_reply",
    "request_header",
    "sender_of",
]

MAJOR: Final = 1
NONCE_SIZE: Final = 24
COOKIE_SIZE: Final = 16
MIN_UNPROVED_FIND: Final = 411
"""Bytes: a FIND without a cookie is padded to this, so that an answer of 1,232 B is within three times of it."""
KEY_REQUEST_SIZE: Final = 96
COOKIE_ANSWER_SIZE: Final = 2 + NONCE_SIZE + COOKIE_SIZE
MIN_DATAGRAM: Final = COOKIE_ANSWER_SIZE
"""Bytes: no packet is shorter."""

_COOKIE_BIT: Final = 0x80
_HEADER: Final = 2 + 32 + NONCE_SIZE
_PREFIX: Final = 3  # type and body length, in the box
_PLAIN: Final = b"\x01"  # version byte of packets that are not sealed


class PacketType(IntEnum):
    REQUEST = 0x01
    REPLY = 0x02
    KEY_REQUEST = 0x03
    KEY_REPLY = 0x04
    COOKIE = 0x05


# Type on the wire → type, and where the box begins
_SEALED: Final[dict[int, tuple[PacketType, int]]] = {
    PacketType.REQUEST: (PacketType.REQUEST, _HEADER),
    PacketType.REQUEST | _COOKIE_BIT: (PacketType.REQUEST, _HEADER + COOKIE_SIZE),
    PacketType.REPLY: (PacketType.REPLY, _HEADER),
}
# Type on the wire → how the datagram begins
_HEADS: Final = {kind: bytes((MAJOR, kind)) for kind in _SEALED}


class Opened(msgspec.Struct, frozen=True, gc=False):
    """A datagram whose box could be opened."""

    type: PacketType
    sender: bytes
    """The sender's node key, 32 B; that it holds the secret is proved."""
    cookie: bytes
    """16 B, or empty."""
    body: bytes


class Sealer:
    """Seals and opens for one node key in one network. Raises `WireError` for what cannot be opened."""

    __slots__ = ("_cipher", "_heads", "_public")

    def __init__(
        self, node_key: NodeKey, network_id: bytes, max_pairs: int, cipher: CipherFactory = SodiumCipher
    ) -> None:
        self._public = node_key.public
        self._heads = {kind: head + node_key.public for kind, head in _HEADS.items()}
        self._cipher = cipher(node_key, network_id, max_pairs)

    def seal(
        self, kind: PacketType, to: bytes, body: bytes, nonce: bytes, cookie: bytes = b"", min_size: int = 0
    ) -> bytes:
        """A datagram to the node key `to`, padded to at least `min_size` bytes. Raises `WireError` beyond 1,232 B."""
        length = len(body)
        size = _HEADER + len(cookie) + TAG_SIZE + _PREFIX + length
        if size > MAX_DATAGRAM:
            raise WireError("a body too large for a datagram")
        content = (kind << 16 | length).to_bytes(_PREFIX, "big") + body
        if size < min_size:
            content += bytes(min_size - size)
        return (
            self._heads[kind | _COOKIE_BIT if cookie else kind] + nonce + cookie + self._cipher.seal(content, nonce, to)
        )

    def open(self, data: bytes) -> Opened:
        """Open a REQUEST or a REPLY."""
        kind, start = _SEALED.get(data[1], (None, 0))
        if kind is None:
            raise WireError("unknown type")
        sender = data[2:34]
        return Opened(kind, sender, data[_HEADER:start], self.body(data, kind, sender))

    def body(self, data: bytes, kind: int, sender: bytes) -> bytes:
        """What a REQUEST or a REPLY, as `kind` says, of the node key `sender` says."""
        start = _HEADER + COOKIE_SIZE if data[1] & _COOKIE_BIT else _HEADER
        if len(data) < start + TAG_SIZE + _PREFIX:
            raise WireError("too short")
        if sender == self._public:
            raise WireError("our own key")
        content = self._cipher.open(data[start:], data[34:_HEADER], sender)
        end = _PREFIX + (content[1] << 8 | content[2])
        if content[0] != kind or end > len(content):
            raise WireError("box and header differ")
        return content[_PREFIX:end]


def key_request(nonce: bytes, network_id: bytes) -> bytes:
    """A KEY request, 96 B, in plain text."""
    return (_PLAIN + bytes((PacketType.KEY_REQUEST,)) + nonce + network_id).ljust(KEY_REQUEST_SIZE, b"\0")


def answer_key_request(data: bytes, network_id: bytes, public: bytes) -> bytes:
    """The KEY reply, 58 B. Raises `WireError` if it is not for us."""
    nonce = data[2 : 2 + NONCE_SIZE]
    if len(data) != KEY_REQUEST_SIZE or data[2 + NONCE_SIZE : 2 + NONCE_SIZE + 16] != network_id:
        raise WireError("a KEY request of another network or length")
    return _PLAIN + bytes((PacketType.KEY_REPLY,)) + nonce + public


def read_key_reply(data: bytes) -> tuple[bytes, bytes]:
    """Nonce and node key of a KEY reply. Raises `WireError`."""
    if len(data) != 2 + NONCE_SIZE + 32:
        raise WireError("a KEY reply of another length")
    return data[2 : 2 + NONCE_SIZE], data[2 + NONCE_SIZE :]


sender_of: Callable[[bytes], bytes] = itemgetter(slice(2, 34))
"""The node key, 32 B, that a REQUEST or a REPLY says it is from."""


def nonce_of(data: bytes) -> bytes:
    """The nonce of a REQUEST or a REPLY, 24 B."""
    return data[34:_HEADER]


def request_header(data: bytes) -> tuple[bytes, bytes]:
    """What a REQUEST says before it is opened: the sender's node key, and its cookie or b"". Raises `WireError` if it
    is too short to be one."""
    start = _HEADER + COOKIE_SIZE if data[1] & _COOKIE_BIT else _HEADER
    if len(data) < start + TAG_SIZE + _PREFIX:
        raise WireError("too short")
    return data[2:34], data[_HEADER:start]


def answer_with_cookie(request: bytes, cookie: bytes) -> bytes:
    """The COOKIE packet, 42 B, that answers a REQUEST which was not opened: less than any REQUEST has."""
    return _PLAIN + bytes((PacketType.COOKIE,)) + nonce_of(request) + cookie


def read_cookie_answer(data: bytes) -> tuple[bytes, bytes]:
    """The echoed nonce and the cookie of a COOKIE packet. Raises `WireError`."""
    if len(data) != COOKIE_ANSWER_SIZE:
        raise WireError("a COOKIE of another length")
    return data[2 : 2 + NONCE_SIZE], data[2 + NONCE_SIZE :]
