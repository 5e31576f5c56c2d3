"""What makes a network, as seeds tell it to newcomers."""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache

from dht_atonce.errors import WireError

__all__ = ["NetworkConfig", "checked_network"]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What all members of a network agree on. A seed tells newcomers."""

    name: str = "atonce"
    """1-64 B in UTF-8."""
    authority_key: bytes = b""
    """32 B in a certified network, else empty."""
    k: int = 20
    """Replicas of a record, and seats in a bucket."""
    local: bool = False
    """All on one machine or LAN: private addresses are accepted, limits per subnet and towards unproved addresses are
    off."""
    record_life_s: int = 7200
    """How long a presence record lives; its owner renews it four times in that span."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.name.encode()) <= 64:
            raise ValueError("a network's name has 1 to 64 bytes")
        if len(self.authority_key) not in (0, 32):
            raise ValueError("an authority key has 32 bytes")
        if not 1 <= self.k <= 64:
            raise ValueError("k is between 1 and 64")
        if not 60 <= self.record_life_s <= 7 * 86400:
            raise ValueError("a record's life is between a minute and a week")

    @classmethod
    def internet(cls, name: str = "atonce") -> "NetworkConfig":
        """Public addresses, k = 20."""
        return cls(name=name)

    @classmethod
    def local_network(cls, name: str = "atonce", k: int = 20) -> "NetworkConfig":
        """One machine or LAN: private addresses are accepted."""
        return cls(name=name, k=k, local=True)

    @property
    def network_id(self) -> bytes:
        """BLAKE2b-128(length of name ‖ name ‖ authority key): everything signed or sealed is bound to it."""
        return _network_id(self.name.encode(), self.authority_key)

    def with_k(self, k: int) -> "NetworkConfig":
        """The same network with another k."""
        return replace(self, k=k)


@lru_cache(maxsize=64)
def _network_id(name: bytes, authority_key: bytes) -> bytes:
    """Asked for with each key and each record."""
    return hashlib.blake2b(bytes([len(name)]) + name + authority_key, digest_size=16).digest()


def checked_network(name: str, authority_key: bytes, k: int, local: bool, record_life_s: int) -> NetworkConfig:
    """A `NetworkConfig` from a stranger's words. Raises `WireError`."""
    try:
        return NetworkConfig(name, authority_key, k, local, record_life_s)
    except ValueError as error:
        raise WireError(str(error)) from None
