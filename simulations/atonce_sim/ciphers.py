"""Ciphers of a world that is made up, where both ends of each datagram live in one process.

Either is a `Host.cipher` for all hosts of one world.
"""

from typing import Final

from dht_atonce.cipher import TAG_SIZE, Cipher, directional_keys, open_box, seal_box
from dht_atonce.errors import WireError
from dht_atonce.identity import NodeKey

__all__ = ["PassThrough", "SharedPairs"]

_KEY_SIZE: Final = 32
_PRIME: Final = 2**255 - 19
_SMALL_ORDER: Final = (
    0,
    1,
    _PRIME - 1,
    _PRIME,
    _PRIME + 1,
    0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
)
_UNUSABLE: Final = frozenset(
    (point | top_bit).to_bytes(_KEY_SIZE, "little") for point in _SMALL_ORDER for top_bit in (0, 1 << 255)
)
"""Keys of small order, which libsodium refuses; X25519 ignores the top bit."""
_MARK: Final = b"open"
_PART: Final = 4  # bytes of each key: it is random, and nobody in a made-up world looks for another with the same ones


class SharedPairs:
    """The real thing, byte for byte, but each pair's X25519 and its two keys are computed once for both ends.

    At most `max_pairs` pairs are kept for the whole world, about 300 B each, whatever the hosts' own bounds. They are
    kept in two generations: when the young one has half of them the old one is forgotten. That is nearly what
    forgetting the longest unused would be, and neither a hit nor a miss has to look for it.
    """

    def __init__(self, max_pairs: int = 1 << 20) -> None:
        self._half = max(1, max_pairs // 2)
        # Network id, lower and higher node key → the key from the lower to the higher one, and that back, 64 B
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self.computed = 0
        """How many pairs were computed so far."""

    def __call__(self, own: NodeKey, network_id: bytes, max_pairs: int) -> Cipher:
        return _Shared(self, own, network_id)

    def __len__(self) -> int:
        """How many pairs are kept."""
        return len(self._young) + len(self._old)

    def keys(self, own: NodeKey, other: bytes, network_id: bytes) -> bytes:
        """Both directional keys of a pair, that of the lower node key first. Raises `WireError` if `other` cannot be
        used."""
        is_lower = own.public < other
        pair = network_id + own.public + other if is_lower else network_id + other + own.public
        keys = self._young.get(pair)
        if keys is None:
            keys = self._old.pop(pair, None)
            if keys is None:
                towards, back = directional_keys(own, other, network_id)
                keys = towards + back if is_lower else back + towards
                self.computed += 1
            if len(self._young) >= self._half:
                self._young, self._old = {}, self._young
            self._young[pair] = keys
        return keys


class _Shared:
    __slots__ = ("_network_id", "_own", "_pairs")

    def __init__(self, pairs: SharedPairs, own: NodeKey, network_id: bytes) -> None:
        self._pairs = pairs
        self._own = own
        self._network_id = network_id

    def seal(self, content: bytes, nonce: bytes, to: bytes) -> bytes:
        keys = self._pairs.keys(self._own, to, self._network_id)
        return seal_box(content, nonce, keys[:_KEY_SIZE] if self._own.public < to else keys[_KEY_SIZE:])

    def open(self, box: bytes, nonce: bytes, sender: bytes) -> bytes:
        keys = self._pairs.keys(self._own, sender, self._network_id)
        return open_box(box, nonce, keys[_KEY_SIZE:] if self._own.public < sender else keys[:_KEY_SIZE])


class PassThrough:
    """No encryption, for runs whose subject is size: contents are legible, and nobody notices if one was changed.

    In place of the MAC there are 16 B that say from whom, to whom and in which network. So a datagram opens exactly
    where it would with real crypto: at its recipient, as its sender's, in its network.
    """

    def __init__(self) -> None:
        # All nodes of a network share one object.
        self._middles: dict[bytes, bytes] = {}

    def __call__(self, own: NodeKey, network_id: bytes, max_pairs: int) -> Cipher:
        return _Plain(own.public, self._middles.setdefault(network_id, _MARK + network_id[:4]))


class _Plain:
    """Under 100 B per node."""

    __slots__ = ("_middle", "_own")

    def __init__(self, own: bytes, middle: bytes) -> None:
        self._own = own[:_PART]
        self._middle = middle

    def seal(self, content: bytes, nonce: bytes, to: bytes) -> bytes:
        if len(to) != _KEY_SIZE or to in _UNUSABLE:
            raise WireError("unusable key")
        return self._own + self._middle + to[:_PART] + content

    def open(self, box: bytes, nonce: bytes, sender: bytes) -> bytes:
        if len(sender) != _KEY_SIZE or sender in _UNUSABLE:
            raise WireError("unusable key")
        if not box.startswith(sender[:_PART] + self._middle + self._own):
            raise WireError("box does not open")
        return box[TAG_SIZE:]
