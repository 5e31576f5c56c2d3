"""What all kinds of records share: the header, the signature, the time, and which of two is newer."""

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from dht_atonce.codec import U8, U64, AddressBytes, Bytes8, Bytes32, WireStruct, decode, encode
from dht_atonce.config import NetworkConfig
from dht_atonce.endpoints import Address, is_acceptable, pack_address, unpack_address
from dht_atonce.errors import MessageTooLarge, WireError
from dht_atonce.identity import Identity, PeerId

__all__ = [
    "GONE",
    "HEADER",
    "MAJOR",
    "MAX_RECORD",
    "ONLINE",
    "SKEW_S",
    "Endpoints",
    "Name",
    "Payload",
    "Record",
    "Status",
    "StatusRecord",
    "acceptable",
    "checked",
    "is_newer",
    "packed",
    "sign",
    "signed_bytes",
]

MAX_RECORD: Final = 512
"""Bytes: with a record this large a FOUND reply still has room for eight contacts of either family."""
SKEW_S: Final = 120
"""How far two honest clocks may differ; also how long a goodbye outlives what it ended."""
ONLINE: Final = "online"
GONE: Final = "gone"
MAJOR: Final = 1
HEADER: Final = 2 + 64

_CONTEXT = b"atonce record v1"

Status = Annotated[str, Meta(min_length=1, max_length=32)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Endpoints = Annotated[list[AddressBytes], Meta(max_length=4)]


class Payload(WireStruct, frozen=True):
    """How each payload begins."""

    minor: U8
    identity: Bytes32
    seq: U64
    incarnation: Bytes8
    expires: U64


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What all kinds share. `blob` is the record as it travels."""

    peer_id: PeerId
    seq: int
    incarnation: bytes
    expires: int
    """Unix seconds."""
    key: bytes = field(repr=False)
    """In the DHT, 20 B."""
    blob: bytes = field(repr=False)

    @property
    def is_goodbye(self) -> bool:
        return False

    @property
    def tie_hash(self) -> bytes:
        """BLAKE2b-256 of the payload as received: the lower one wins between forks at equal seq."""
        return hashlib.blake2b(self.blob[HEADER:], digest_size=32).digest()

    def life_limit_s(self, record_life_s: int) -> int:
        """How long after receipt anybody may keep this record."""
        return record_life_s + (SKEW_S if self.is_goodbye else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRecord(Record):
    """What the records share that say how their owner is and where it listens: presences and memberships."""

    status: str
    """`online`, `away`, `busy` or a word of the app; `gone` is a goodbye: to the network, or to a topic."""
    endpoints: tuple[Address, ...]
    """Where it listens for links; those that this network does not accept are left out. Empty: cannot be dialled."""

    @property
    def is_goodbye(self) -> bool:
        return self.status == GONE


def is_newer(record: Record, than: Record | None) -> bool:
    """Whether `record` replaces `than` (of the same key): higher seq; at a tie a goodbye, then the lower payload
    hash."""
    if than is None:
        return True
    if record.seq != than.seq:
        return record.seq > than.seq
    if record.is_goodbye != than.is_goodbye:
        return record.is_goodbye
    return record.tie_hash < than.tie_hash


def signed_bytes(network: NetworkConfig, kind: int, payload: bytes) -> bytes:
    return _CONTEXT + bytes([kind]) + network.network_id + payload


def packed(endpoint: Address) -> bytes:
    try:
        return pack_address(endpoint)
    except (OSError, OverflowError):
        raise ValueError(f"{endpoint} is no endpoint") from None


def checked(payload: WireStruct, decoder: "msgspec.msgpack.Decoder[Any]") -> bytes:
    # msgspec checks bounds when it reads, not when it makes: so what we sign we read once ourselves.
    try:
        data = encode(payload)
        decode(decoder, data)
    except (WireError, OverflowError, UnicodeEncodeError) as error:
        raise ValueError(f"not a valid record: {error}") from None
    return data


def sign(identity: Identity, network: NetworkConfig, kind: int, payload: bytes) -> bytes:
    size = HEADER + len(payload)
    if size > MAX_RECORD:
        raise MessageTooLarge(f"a record has at most {MAX_RECORD} bytes, this would have {size}")
    return bytes([MAJOR, kind]) + identity.sign(signed_bytes(network, kind, payload)) + payload


def acceptable(endpoints: list[bytes], network: NetworkConfig) -> tuple[Address, ...]:
    """Those of a payload's endpoints that `network` accepts. Raises `WireError` for what is no address at all."""
    addresses = (unpack_address(endpoint) for endpoint in endpoints)
    return tuple(address for address in addresses if is_acceptable(address, local=network.local))
