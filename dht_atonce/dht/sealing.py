"""Sealed datagrams: from a body to bytes and back. docs/wire.md section 3 has the layout.

Static X25519 keys on both sides, a key for each direction. Without the directions a packet could be sent back to its
sender, who would believe it. There is no forward secrecy here: what travels in the DHT is signed, public and
short-lived.
"""

import hashlib
from collections import OrderedDict
from enum import IntEnum
from typing import Final, NamedTuple

import nacl.bindings as sodium
import nacl.exceptions

from dht_atonce.datagrams import MAX_DATAGRAM
from dht_atonce.errors import WireError
from dht_atonce.identity import NodeKey

__all__ = ["COOKIE_SIZE", "MIN_UNPROVED_FIND", "NONCE_SIZE", "Opened", "PacketType", "Sealer"]

MAJOR: Final = 1
NONCE_SIZE: Final = 24
COOKIE_SIZE: Final = 16
MIN_UNPROVED_FIND: Final = 411
"""Bytes: a FIND without a cookie is padded to this, so that an answer of 1,232 B is within three times of it."""
KEY_REQUEST_SIZE: Final = 96

_COOKIE_BIT: Final = 0x80
_HEADER: Final = 2 + 32 + NONCE_SIZE
_MAC: Final = 16
_PREFIX: Final = 3  # type and body length, in the box
_PLAIN: Final = b"\x01"  # version byte of packets that are not sealed


class PacketType(IntEnum):
    REQUEST = 0x01
    REPLY = 0x02
    KEY_REQUEST = 0x03
    KEY_REPLY = 0x04
    COOKIE = 0x05


class Opened(NamedTuple):
    """A datagram whose box could be opened."""

    type: PacketType
    sender: bytes
    """The sender's node key, 32 B; that it holds the secret is proved."""
    cookie: bytes
    """16 B, or empty."""
    body: bytes


class Sealer:
    """Seals and opens for one node key in one network. Raises `WireError` for what cannot be opened."""

    def __init__(self, node_key: NodeKey, network_id: bytes, max_pairs: int) -> None:
        self._own = node_key
        self._network_id = network_id
        self._max_pairs = max_pairs
        # Node key of the other side → (key towards it, key from it); the longest unused goes first.
        self._pairs: OrderedDict[bytes, tuple[bytes, bytes]] = OrderedDict()

    def seal(
        self, kind: PacketType, to: bytes, body: bytes, nonce: bytes, cookie: bytes = b"", min_size: int = 0
    ) -> bytes:
        """A datagram to the node key `to`, padded to at least `min_size` bytes. Raises `WireError` beyond 1,232 B."""
        wire_type = kind | _COOKIE_BIT if cookie else int(kind)
        size = _HEADER + len(cookie) + _MAC + _PREFIX + len(body)
        if size > MAX_DATAGRAM:
            raise WireError("a body too large for a datagram")
        content = bytes((kind,)) + len(body).to_bytes(2, "big") + body + bytes(max(0, min_size - size))
        box = sodium.crypto_box_easy_afternm(content, nonce, self._pair(to)[0])
        return bytes((MAJOR, wire_type)) + self._own.public + nonce + cookie + box

    def open(self, data: bytes) -> Opened:
        """Open a REQUEST or a REPLY."""
        wire_type = data[1]
        has_cookie = wire_type & _COOKIE_BIT
        kind = wire_type & ~_COOKIE_BIT
        if kind not in (PacketType.REQUEST, PacketType.REPLY) or (has_cookie and kind == PacketType.REPLY):
            raise WireError("unknown type")
        start = _HEADER + (COOKIE_SIZE if has_cookie else 0)
        if len(data) < start + _MAC + _PREFIX:
            raise WireError("too short")
        sender = data[2:34]
        if sender == self._own.public:
            raise WireError("our own key")
        try:
            content = sodium.crypto_box_open_easy_afternm(data[start:], data[34:_HEADER], self._pair(sender)[1])
        except nacl.exceptions.CryptoError:
            raise WireError("box does not open") from None
        end = _PREFIX + int.from_bytes(content[1:_PREFIX], "big")
        if content[0] != kind or end > len(content):
            raise WireError("box and header differ")
        return Opened(PacketType(kind), sender, data[_HEADER:start], content[_PREFIX:end])

    def _pair(self, other: bytes) -> tuple[bytes, bytes]:
        keys = self._pairs.get(other)
        if keys is not None:
            self._pairs.move_to_end(other)
            return keys
        try:
            pair = sodium.crypto_box_beforenm(other, self._own.secret)
        except (nacl.exceptions.CryptoError, RuntimeError):  # an all-zero shared key: a point of small order
            raise WireError("unusable key") from None
        keys = (
            self._directional(pair, self._own.public, other),
            self._directional(pair, other, self._own.public),
        )
        self._pairs[other] = keys
        if len(self._pairs) > self._max_pairs:
            self._pairs.popitem(last=False)
        return keys

    def _directional(self, pair: bytes, sender: bytes, recipient: bytes) -> bytes:
        return hashlib.blake2b(pair + sender + recipient + self._network_id, digest_size=32).digest()


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
