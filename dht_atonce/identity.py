"""Who somebody is: identities, their public `PeerId`, node keys and `NodeId`s.

docs/wire.md section 1 has the bytes.
"""

import base64
import hashlib
import random
from functools import lru_cache

import msgspec
import nacl.bindings as sodium
import nacl.exceptions

from dht_atonce.errors import PeerIdError

__all__ = ["NODE_ID_SIZE", "Identity", "NodeKey", "PeerId", "node_id"]

PEER_ID_VERSION = 1
PEER_ID_TEXT_LENGTH = 56
NODE_ID_SIZE = 20
_CHECKSUM_CONTEXT = b"atonce peer id"


@lru_cache(maxsize=4096)
def _is_valid_key(key: bytes) -> bool:
    # 119 µs each; the same few keys are parsed again and again.
    return sodium.crypto_core_ed25519_is_valid_point(key)


@lru_cache(maxsize=4096)
def _curve_key(key: bytes) -> bytes:
    return sodium.crypto_sign_ed25519_pk_to_curve25519(key)


def _checksum(key: bytes) -> bytes:
    data = _CHECKSUM_CONTEXT + key + bytes([PEER_ID_VERSION])
    return hashlib.blake2b(data, digest_size=2).digest()


class PeerId(msgspec.Struct, frozen=True, order=True, gc=False, cache_hash=True):
    """The public key of an identity, 32 B; `str()` gives the 56 characters by which people pass it on.

    Raises `PeerIdError` for keys that are no canonical point of the prime-order subgroup.
    """

    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) != 32 or not _is_valid_key(self.key):
            raise PeerIdError("these bytes are not a valid Ed25519 public key")

    @classmethod
    def parse(cls, text: str) -> "PeerId":
        """Read the text form. Raises `PeerIdError`, which says whether it looks like a typo."""
        text = text.strip()
        if len(text) != PEER_ID_TEXT_LENGTH:
            raise PeerIdError(f"a PeerId has {PEER_ID_TEXT_LENGTH} characters, this has {len(text)}")
        try:
            if not text.isascii() or "=" in text:
                raise ValueError  # upper() makes ASCII letters of some that are none; padding stands for no byte
            raw = base64.b32decode(text.upper())
        except ValueError:
            raise PeerIdError("a PeerId has only the letters a-z and the digits 2-7") from None
        key, checksum, version = raw[:32], raw[32:34], raw[34]
        if version != PEER_ID_VERSION:
            raise PeerIdError(
                f"this PeerId is of version {version}, which this program does not know; or it has a typo"
            )
        if checksum != _checksum(key):
            raise PeerIdError("this PeerId has a typo: its checksum does not fit")
        return cls(key)

    @property
    def curve_key(self) -> bytes:
        """The X25519 form of the key, 32 B: what ZeroMQ CURVE uses. That of −A is the same as that of A."""
        return _curve_key(self.key)

    @property
    def short(self) -> str:
        """The first eight characters: for people's eyes, never for comparing."""
        return str(self)[:8]

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this identity's over `message`; one of another length than 64 B is nobody's."""
        if len(signature) != 64:
            return False
        try:
            sodium.crypto_sign_open(signature + message, self.key)
        except nacl.exceptions.CryptoError:
            return False
        return True

    def __str__(self) -> str:
        raw = self.key + _checksum(self.key) + bytes([PEER_ID_VERSION])
        return base64.b32encode(raw).decode().lower()

    def __repr__(self) -> str:
        return f"PeerId({self.short}…)"


class Identity:
    """An Ed25519 key pair, from its 32 B secret seed."""

    __slots__ = ("_secret", "id", "secret_seed")

    def __init__(self, secret_seed: bytes) -> None:
        if len(secret_seed) != 32:
            raise PeerIdError(f"a secret seed has 32 bytes, this has {len(secret_seed)}")
        public, self._secret = sodium.crypto_sign_seed_keypair(secret_seed)
        self.secret_seed = secret_seed
        self.id = PeerId(public)

    @classmethod
    def generate(cls, rng: random.Random) -> "Identity":
        """A new identity. In production `rng` is a `random.SystemRandom`."""
        return cls(rng.randbytes(32))

    @property
    def curve_secret(self) -> bytes:
        """The X25519 secret, 32 B, that belongs to `id.curve_key`."""
        return sodium.crypto_sign_ed25519_sk_to_curve25519(self._secret)

    def sign(self, message: bytes) -> bytes:
        """The detached signature over `message`, 64 B."""
        return sodium.crypto_sign(message, self._secret)[:64]

    def __repr__(self) -> str:
        return f"Identity({self.id.short}…)"


class NodeKey:
    """The X25519 key pair of a DHT node: apart from the identity's, so that one can be changed without the other."""

    __slots__ = ("id", "public", "secret")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise ValueError(f"a node key has 32 bytes, this has {len(secret)}")
        self.secret = secret
        self.public = sodium.crypto_scalarmult_base(secret)
        self.id = node_id(self.public)

    @classmethod
    def generate(cls, rng: random.Random) -> "NodeKey":
        """A new node key. In production `rng` is a `random.SystemRandom`."""
        return cls(rng.randbytes(32))

    def __repr__(self) -> str:
        return f"NodeKey({self.id.hex()[:8]}…)"


def node_id(public: bytes, salt: bytes = b"") -> bytes:
    """The `NodeId` of a node public key (and the salt of its certificate): BLAKE2b-160, 20 B."""
    return hashlib.blake2b(public + salt, digest_size=NODE_ID_SIZE).digest()
