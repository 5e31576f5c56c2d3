"""The cipher seam, and the real cipher behind it: what makes a box that only its recipient can open.

docs/wire.md section 3 has the construction. A world that is made up may share work between its nodes, or do without
encryption; what stands round a box is `dht/sealing.py`'s, and the same everywhere.
"""

import hashlib
from typing import Any, Final, Protocol

import nacl.bindings as sodium
import nacl.exceptions
from nacl._sodium import ffi, lib  # what nacl.bindings calls: its own checks take longer than the cipher

from dht_atonce.errors import WireError
from dht_atonce.identity import NodeKey
from dht_atonce.memo import Memo

__all__ = ["TAG_SIZE", "Cipher", "CipherFactory", "SodiumCipher", "directional_keys", "open_box", "seal_box"]

TAG_SIZE: Final = 16
"""Bytes by which a box is longer than its content."""
_NONCE_SIZE: Final = 24
_KEY_SIZE: Final = 32
_BYTES: Final = ffi.typeof("unsigned char[]")
_ROOM: Final = 1232  # bytes: no datagram has more


class Cipher(Protocol):
    """Seals and opens boxes for one node key in one network. Both raise `WireError` for a key that cannot be used."""

    def seal(self, content: bytes, nonce: bytes, to: bytes) -> bytes:
        """A box that the holder of the node key `to` can open; `nonce` has 24 B and is used once."""

    def open(self, box: bytes, nonce: bytes, sender: bytes) -> bytes:
        """The content of a box that the holder of the node key `sender` sealed for us in this network. Raises
        `WireError` for any other."""


class CipherFactory(Protocol):
    """Ciphers are made per node: its key is what they prove."""

    def __call__(self, own: NodeKey, network_id: bytes, max_pairs: int) -> Cipher:
        """`max_pairs` bounds what is remembered of others' keys."""


class SodiumCipher:
    """X25519 between static keys, a key for each direction, XSalsa20-Poly1305."""

    __slots__ = ("_latest", "_latest_keys", "_network_id", "_own", "_pairs", "_room", "_written")

    def __init__(self, own: NodeKey, network_id: bytes, max_pairs: int) -> None:
        self._own = own
        self._network_id = network_id
        # Node key of the other side → (key towards it, key from it)
        self._pairs: Memo[bytes, tuple[bytes, bytes]] = Memo(max_pairs)
        # Whose box was opened last: most likely the next one is sealed for it
        self._latest: bytes | None = None
        self._latest_keys = (b"", b"")
        # Where libsodium writes, over and over: new room for each box costs as much as the box. Each node has its own,
        # since cffi lets other threads run meanwhile; and only once it speaks with somebody.
        self._room: Any = None
        self._written: Any = None

    def seal(self, content: bytes, nonce: bytes, to: bytes) -> bytes:
        if to == self._latest:
            keys = self._latest_keys
        else:
            found = self._pairs.get(to)
            if found is None:
                found = directional_keys(self._own, to, self._network_id)
                self._remember(to, found)
            keys = found
        size, key = len(content), keys[0]
        if size + TAG_SIZE > _ROOM or len(nonce) != _NONCE_SIZE:
            return seal_box(content, nonce, key)
        lib.crypto_box_easy_afternm(self._room, content, size, nonce, key)
        sealed: bytes = self._written[: size + TAG_SIZE]
        return sealed

    def open(self, box: bytes, nonce: bytes, sender: bytes) -> bytes:
        keys = self._pairs.get(sender)
        if keys is not None:
            self._latest, self._latest_keys = sender, keys
            size, key = len(box), keys[1]
            if not TAG_SIZE <= size <= _ROOM or len(nonce) != _NONCE_SIZE:
                return open_box(box, nonce, key)
            if lib.crypto_box_open_easy_afternm(self._room, box, size, nonce, key):
                raise WireError("box does not open")
            opened: bytes = self._written[: size - TAG_SIZE]
            return opened
        keys = directional_keys(self._own, sender, self._network_id)
        content = open_box(box, nonce, keys[1])
        # Only now: whoever writes any key whatever on a packet shall not push out the keys of those who speak with us.
        self._remember(sender, keys)
        return content

    def _remember(self, other: bytes, keys: tuple[bytes, bytes]) -> None:
        if self._room is None:
            self._room = ffi.new(_BYTES, _ROOM)
            self._written = ffi.buffer(self._room)
        self._pairs.put(other, keys)


def directional_keys(own: NodeKey, other: bytes, network_id: bytes) -> tuple[bytes, bytes]:
    """The key towards the holder of the node key `other`, and the one from it. Raises `WireError` if it cannot be
    used."""
    try:
        pair = sodium.crypto_box_beforenm(other, own.secret)
    except (nacl.exceptions.CryptoError, RuntimeError):  # an all-zero shared key: a point of small order
        raise WireError("unusable key") from None
    towards = hashlib.blake2b(pair + own.public + other + network_id, digest_size=32).digest()
    return towards, hashlib.blake2b(pair + other + own.public + network_id, digest_size=32).digest()


def seal_box(content: bytes, nonce: bytes, key: bytes) -> bytes:
    """A box under a directional key; `nonce` has 24 B, `key` 32 B."""
    _check_sizes(nonce, key)
    size = len(content)
    box = ffi.new(_BYTES, size + TAG_SIZE)
    lib.crypto_box_easy_afternm(box, content, size, nonce, key)
    return bytes(ffi.buffer(box))


def open_box(box: bytes, nonce: bytes, key: bytes) -> bytes:
    """What is in a box under a directional key; `nonce` has 24 B, `key` 32 B. Raises `WireError` if it does not
    open."""
    _check_sizes(nonce, key)
    size = len(box)
    if size < TAG_SIZE:
        raise WireError("too short for a box")
    content = ffi.new(_BYTES, size - TAG_SIZE)
    if lib.crypto_box_open_easy_afternm(content, box, size, nonce, key):
        raise WireError("box does not open")
    return bytes(ffi.buffer(content))


def _check_sizes(nonce: bytes, key: bytes) -> None:
    """libsodium reads as many bytes as it needs, wherever they lie."""
    if len(nonce) != _NONCE_SIZE or len(key) != _KEY_SIZE:
        raise ValueError("a nonce has 24 bytes, a key 32")
