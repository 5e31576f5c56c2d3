"""A contact: a DHT node's key and one address of it."""

from dataclasses import dataclass, field
from functools import lru_cache

from dht_atonce.endpoints import Address, Family, is_acceptable, pack_address, unpack_address
from dht_atonce.errors import WireError
from dht_atonce.identity import node_id

__all__ = ["Contact", "contact_at", "pack_contact", "unpack_contact"]

_KEY_SIZE = 32
_ADDRESS_SIZE = {Family.IPV4: 6, Family.IPV6: 18}


@dataclass(frozen=True, slots=True)
class Contact:
    """Where a node can be asked. Immutable, so that tables, lookups and replies may share one object.

    Takes the place of `kademlia.node.Node` and keeps its names `id`, `ip`, `port` and `long_id`; the node key is what
    it lacks, and its attributes can be changed.
    """

    key: bytes
    """X25519 public key, 32 B."""
    address: Address
    id: bytes = field(init=False, repr=False, compare=False)
    """`NodeId`, 20 B."""
    long_id: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        own_id = node_id(self.key)
        object.__setattr__(self, "id", own_id)
        object.__setattr__(self, "long_id", int.from_bytes(own_id, "big"))

    @property
    def ip(self) -> str:
        return self.address.ip

    @property
    def port(self) -> int:
        return self.address.port

    def __str__(self) -> str:
        return f"{self.id.hex()[:8]}@{self.address}"


# A contact's id is a hash, and the same contacts come again and again: a hit costs a tenth, and all tables of a process
# (in a simulation: thousands) share one object.
@lru_cache(maxsize=1 << 16)
def contact_at(key: bytes, address: Address) -> Contact:
    """`Contact(key, address)`, maybe one that was made before."""
    return Contact(key, address)


@lru_cache(maxsize=1 << 16)
def pack_contact(contact: Contact) -> bytes:
    """38 B (IPv4) or 50 B (IPv6)."""
    return contact.key + pack_address(contact.address)


@lru_cache(maxsize=1 << 16)
def unpack_contact(data: bytes, family: Family, *, local: bool) -> Contact:
    """Read a contact of `family`. Raises `WireError` if it has another length or an unacceptable address."""
    if len(data) != _KEY_SIZE + _ADDRESS_SIZE[family]:
        raise WireError("a contact of another length")
    address = unpack_address(data[_KEY_SIZE:])
    if not is_acceptable(address, local=local):
        raise WireError("a contact at an address that is not acceptable")
    return contact_at(data[:_KEY_SIZE], address)
