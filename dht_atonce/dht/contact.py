"""A contact: a DHT node's key and one address of it."""

from dataclasses import dataclass, field
from typing import Final

from dht_atonce.endpoints import Address, Family, is_acceptable, pack_address, unpack_address
from dht_atonce.errors import WireError
from dht_atonce.identity import node_id

__all__ = [
    "KEY_SIZE",
    "Contact",
    "contact_at",
    "known_at",
    "pack_contact",
    "share_contacts",
    "shared_contact",
    "stranger_at",
    "unpack_contact",
    "unpack_contacts",
]

KEY_SIZE: Final = 32
_SIZE: Final = {Family.IPV4: KEY_SIZE + 6, Family.IPV6: KEY_SIZE + 18}
# A bit for each (family, whether the network is local) in which an address may be acceptable.
_FITS: Final = {
    (Family.IPV4, False): 1,
    (Family.IPV4, True): 2,
    (Family.IPV6, False): 4,
    (Family.IPV6, True): 8,
}


@dataclass(frozen=True, slots=True, eq=False)
class Contact:
    """Where a node can be asked. Immutable, so that tables, lookups and replies may share one object.

    Takes the place of `kademlia.node.Node` and keeps its names `id`, `ip`, `port` and `long_id`; the node key is what
    it lacks, and its attributes can be changed.
    """

    key: bytes
    """X25519 public key, 32 B."""
    address: Address
    id: bytes = field(init=False, repr=False)
    """`NodeId`, 20 B."""
    long_id: int = field(init=False, repr=False)
    packed: bytes = field(init=False, repr=False)
    """As on the wire: 38 B (IPv4) or 50 B (IPv6)."""
    fits: int = field(init=False, repr=False)
    """Where its address is acceptable, in the bits of `_FITS`."""

    def __post_init__(self) -> None:
        own_id = node_id(self.key)
        object.__setattr__(self, "id", own_id)
        object.__setattr__(self, "long_id", int.from_bytes(own_id, "big"))
        try:
            address, fits = pack_address(self.address), _fits(self.address)
        except (OSError, OverflowError, ValueError):
            # A host name or a scope: it can be asked, and it cannot be told.
            address, fits = str(self.address).encode(errors="replace"), 0
        object.__setattr__(self, "packed", self.key + address)
        object.__setattr__(self, "fits", fits)

    # Nearly always the same object: all tables of a process share it, and the bytes keep their hash.

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Contact) and self.packed == other.packed)

    def __hash__(self) -> int:
        return hash(self.packed)

    @property
    def ip(self) -> str:
        return self.address.ip

    @property
    def port(self) -> int:
        return self.address.port

    def __str__(self) -> str:
        return f"{self.id.hex()[:8]}@{self.address}"


def _fits(address: Address) -> int:
    family = address.family
    return sum(_FITS[family, local] for local in (False, True) if is_acceptable(address, local=local))


class _Pool:
    """Contacts by their bytes, so that each is made once: its id is a hash, its address is to be judged, and the same
    ones come again and again.

    Two generations: when the young one has half of what is allowed the old one is forgotten.
    """

    __slots__ = ("half", "old", "young")

    def __init__(self, limit: int) -> None:
        self.half = limit // 2
        self.young: dict[bytes, Contact] = {}
        self.old: dict[bytes, Contact] = {}

    def keep(self, contact: Contact) -> Contact:
        """The one that is shared, maybe `contact` itself from now on."""
        packed = contact.packed
        contact = self.old.pop(packed, contact)
        if len(self.young) >= self.half:
            self.young, self.old = {}, self.young
        return self.young.setdefault(packed, contact)


_POOL = _Pool(1 << 16)


def share_contacts(limit: int) -> None:
    """Share up to `limit` contacts within this process; a process with very many nodes wants more than 65,536."""
    _POOL.half = max(1, limit // 2)


def contact_at(key: bytes, address: Address) -> Contact:
    """`Contact(key, address)`, maybe one that was made before."""
    packed = key + pack_address(address)
    return _POOL.young.get(packed) or _POOL.keep(_POOL.old.get(packed) or Contact(key, address))


def known_at(packed: bytes) -> Contact | None:
    """The contact with these bytes, if it is in use."""
    return _POOL.young.get(packed)


def stranger_at(key: bytes, address: Address) -> Contact:
    """`Contact(key, address)`, which is not shared if it is new: whoever has proved nothing shall not have those that
    are in use forgotten."""
    packed = key + pack_address(address)
    return _POOL.young.get(packed) or _POOL.old.get(packed) or Contact(key, address)


def shared_contact(contact: Contact) -> Contact:
    """The one that stands for all that are equal to `contact`: what is to be kept for long."""
    return _POOL.young.get(contact.packed) or _POOL.keep(contact)


def pack_contact(contact: Contact) -> bytes:
    """38 B (IPv4) or 50 B (IPv6)."""
    return contact.packed


def unpack_contact(data: bytes, family: Family, *, local: bool) -> Contact:
    """Read a contact of `family`. Raises `WireError` if it has another length or an unacceptable address."""
    if len(data) != _SIZE[family]:
        raise WireError("a contact of another length")
    contact = _POOL.young.get(data) or contact_at(data[:KEY_SIZE], unpack_address(data[KEY_SIZE:]))
    if not contact.fits & _FITS[family, local]:
        raise WireError("a contact at an address that is not acceptable")
    return contact


def unpack_contacts(raw: list[bytes], family: Family, *, local: bool) -> list[Contact]:
    """Read contacts of `family`, and leave out those that `unpack_contact` refuses."""
    fits = _FITS[family, local]
    # Nearly always all of them are known: this is the inner loop of each lookup.
    contacts = [contact for contact in map(_POOL.young.get, raw) if contact is not None and contact.fits & fits]
    if len(contacts) == len(raw):
        return contacts
    contacts = []
    for data in raw:
        try:
            contacts.append(unpack_contact(data, family, local=local))
        except WireError:
            continue
    return contacts
