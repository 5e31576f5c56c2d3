"""Signed records: what an identity says of itself, and the one way to believe it.

A foreign record can be had only from `RecordParser.parse`, and parsing verifies (mainline's `mutable.rs` does the
same). The signature and the order of two records cover the payload's bytes as they were received, never a
re-encoding: msgpack allows several encodings of one value, and a later minor version appends fields that we do not
know.

docs/wire.md section 2 has the bytes. Floor 2: no I/O, no clock.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Self

import msgspec
from msgspec import Meta

from dht_atonce.codec import U8, U64, AddressBytes, Bytes8, Bytes32, WireStruct, decode, encode
from dht_atonce.config import NetworkConfig
from dht_atonce.endpoints import Address, is_acceptable, pack_address, unpack_address
from dht_atonce.errors import MessageTooLarge, PeerIdError, RecordError, WireError
from dht_atonce.identity import Identity, PeerId
from dht_atonce.memo import Memo

__all__ = [
    "GONE",
    "MAX_RECORD",
    "ONLINE",
    "PresenceRecord",
    "Record",
    "RecordMemo",
    "RecordParser",
    "ValueRecord",
    "is_newer",
    "presence_key",
    "value_key",
]

MAX_RECORD: Final = 512
"""Bytes: with a record this large a FOUND reply still has room for eight contacts of either family."""
SKEW_S: Final = 120
"""How far two honest clocks may differ; also how long a goodbye outlives what it ended."""
ONLINE: Final = "online"
GONE: Final = "gone"

_MAJOR = 1
_KIND_PRESENCE = 1
_KIND_VALUE = 2
_HEADER = 2 + 64
_CONTEXT = b"atonce record v1"
_REMEMBERED = 512  # verified records, by a parser that has its memo for itself

Status = Annotated[str, Meta(min_length=1, max_length=32)]
Capability = Annotated[str, Meta(min_length=1, max_length=16)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]


class _PresencePayload(WireStruct, frozen=True):
    minor: U8
    identity: Bytes32
    seq: U64
    incarnation: Bytes8
    expires: U64
    status: Status
    endpoints: Annotated[list[AddressBytes], Meta(max_length=4)]
    capabilities: Annotated[list[Capability], Meta(max_length=8)]


class _ValuePayload(WireStruct, frozen=True):
    minor: U8
    identity: Bytes32
    seq: U64
    incarnation: Bytes8
    expires: U64
    name: Name
    value: bytes


_PRESENCE_DECODER = msgspec.msgpack.Decoder(_PresencePayload)
_VALUE_DECODER = msgspec.msgpack.Decoder(_ValuePayload)


def presence_key(network: NetworkConfig, peer_id: PeerId) -> bytes:
    """Where in the DHT a peer's presence lies, 20 B."""
    return hashlib.blake2b(network.network_id + b"\x01" + peer_id.key, digest_size=20).digest()


def value_key(network: NetworkConfig, peer_id: PeerId, name: str) -> bytes:
    """Where in the DHT a value of an identity lies, 20 B."""
    return hashlib.blake2b(network.network_id + b"\x02" + peer_id.key + name.encode(), digest_size=20).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What both kinds share. `blob` is the record as it travels."""

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
        return hashlib.blake2b(self.blob[_HEADER:], digest_size=32).digest()

    def life_limit_s(self, record_life_s: int) -> int:
        """How long after receipt anybody may keep this record."""
        return record_life_s + (SKEW_S if self.is_goodbye else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceRecord(Record):
    """Where a peer can be reached, and how it is."""

    status: str
    """`online`, `away`, `busy` or a word of the app; `gone` is a goodbye."""
    endpoints: tuple[Address, ...]
    """Where it listens for links; those that this network does not accept are left out. Empty: cannot be dialled."""
    capabilities: tuple[str, ...]

    @property
    def is_goodbye(self) -> bool:
        return self.status == GONE

    @classmethod
    def sign(
        cls,
        identity: Identity,
        network: NetworkConfig,
        *,
        seq: int,
        incarnation: bytes,
        expires: int,
        status: str = ONLINE,
        endpoints: tuple[Address, ...] = (),
        capabilities: tuple[str, ...] = (),
    ) -> Self:
        """A new record of our own. Raises `MessageTooLarge` if it does not fit into 512 B, ValueError for a field out
        of its bounds (docs/wire.md)."""
        payload = _PresencePayload(
            0,
            identity.id.key,
            seq,
            incarnation,
            expires,
            status,
            [_packed(endpoint) for endpoint in endpoints],
            list(capabilities),
        )
        blob = _sign(identity, network, _KIND_PRESENCE, _checked(payload, _PRESENCE_DECODER))
        return cls._from_payload(payload, blob, network, identity.id)

    @classmethod
    def _from_payload(cls, payload: _PresencePayload, blob: bytes, network: NetworkConfig, peer_id: PeerId) -> Self:
        endpoints = (unpack_address(endpoint) for endpoint in payload.endpoints)
        return cls(
            peer_id=peer_id,
            seq=payload.seq,
            incarnation=payload.incarnation,
            expires=payload.expires,
            key=presence_key(network, peer_id),
            blob=blob,
            status=payload.status,
            endpoints=tuple(endpoint for endpoint in endpoints if is_acceptable(endpoint, local=network.local)),
            capabilities=tuple(payload.capabilities),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRecord(Record):
    """A small value of an identity, under a name of its own."""

    name: str
    value: bytes

    @classmethod
    def sign(
        cls,
        identity: Identity,
        network: NetworkConfig,
        *,
        seq: int,
        incarnation: bytes,
        expires: int,
        name: str,
        value: bytes,
    ) -> Self:
        """A new value of our own. Raises `MessageTooLarge` if it does not fit into 512 B, ValueError for a name that
        has not 1 to 64 characters."""
        payload = _ValuePayload(0, identity.id.key, seq, incarnation, expires, name, value)
        blob = _sign(identity, network, _KIND_VALUE, _checked(payload, _VALUE_DECODER))
        return cls._from_payload(payload, blob, network, identity.id)

    @classmethod
    def _from_payload(cls, payload: _ValuePayload, blob: bytes, network: NetworkConfig, peer_id: PeerId) -> Self:
        return cls(
            peer_id=peer_id,
            seq=payload.seq,
            incarnation=payload.incarnation,
            expires=payload.expires,
            key=value_key(network, peer_id, payload.name),
            blob=blob,
            name=payload.name,
            value=payload.value,
        )


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


def _signed_bytes(network: NetworkConfig, kind: int, payload: bytes) -> bytes:
    return _CONTEXT + bytes([kind]) + network.network_id + payload


def _packed(endpoint: Address) -> bytes:
    try:
        return pack_address(endpoint)
    except (OSError, OverflowError):
        raise ValueError(f"{endpoint} is no endpoint") from None


def _checked(payload: WireStruct, decoder: "msgspec.msgpack.Decoder[Any]") -> bytes:
    # msgspec checks bounds when it reads, not when it makes: so what we sign we read once ourselves.
    try:
        data = encode(payload)
        decode(decoder, data)
    except (WireError, OverflowError, UnicodeEncodeError) as error:
        raise ValueError(f"not a valid record: {error}") from None
    return data


def _sign(identity: Identity, network: NetworkConfig, kind: int, payload: bytes) -> bytes:
    size = _HEADER + len(payload)
    if size > MAX_RECORD:
        raise MessageTooLarge(f"a record has at most {MAX_RECORD} bytes, this would have {size}")
    return bytes([_MAJOR, kind]) + identity.sign(_signed_bytes(network, kind, payload)) + payload


RecordMemo = Memo[tuple[bytes, bytes], PresenceRecord | ValueRecord]
"""(Network id and whether it is local, blob) → the record that was verified."""


class RecordParser:
    """Reads and verifies records of one network.

    A signature costs 55 µs to verify, and the same record arrives from many replicas: `memo` remembers the latest by
    network and bytes. Parsers of one process that share it verify each record once, and share its object.
    """

    __slots__ = ("_memo", "_scope", "network")

    def __init__(self, network: NetworkConfig, memo: RecordMemo | None = None) -> None:
        self.network = network
        # All that a record, once read, depends on: a local network accepts other endpoints.
        self._scope = network.network_id + bytes([network.local])
        self._memo: RecordMemo = Memo(_REMEMBERED) if memo is None else memo

    def parse(self, blob: bytes, now: float | None) -> PresenceRecord | ValueRecord:
        """The record in `blob`, believed. `now` is Unix time in seconds; None leaves the expiry to the caller.

        Raises `RecordError`, whose `reason` names a counter.
        """
        seen = (self._scope, blob)
        record = self._memo.get(seen)
        if record is None:
            record = self._verify(blob)
            self._memo.put(seen, record)
        if now is not None:
            if record.expires <= now:
                raise RecordError("expired")
            if record.expires > now + record.life_limit_s(self.network.record_life_s) + SKEW_S:
                raise RecordError("lives_too_long")
        return record

    def parse_presence(self, blob: bytes, now: float | None) -> PresenceRecord:
        """Like `parse`, and nothing but a presence record will do."""
        record = self.parse(blob, now)
        if not isinstance(record, PresenceRecord):
            raise RecordError("not_presence")
        return record

    def _verify(self, blob: bytes) -> PresenceRecord | ValueRecord:
        if not _HEADER < len(blob) <= MAX_RECORD:
            raise RecordError("bad_size")
        if blob[0] != _MAJOR:
            raise RecordError("unknown_major")
        kind, signature, payload = blob[1], blob[2:_HEADER], blob[_HEADER:]
        try:
            if kind == _KIND_PRESENCE:
                presence = decode(_PRESENCE_DECODER, payload)
                peer_id = self._author(presence.identity, kind, signature, payload)
                return PresenceRecord._from_payload(presence, blob, self.network, peer_id)
            if kind == _KIND_VALUE:
                value = decode(_VALUE_DECODER, payload)
                peer_id = self._author(value.identity, kind, signature, payload)
                return ValueRecord._from_payload(value, blob, self.network, peer_id)
        except RecordError:
            raise
        except WireError:
            raise RecordError("malformed") from None
        raise RecordError("unknown_kind")

    def _author(self, identity: bytes, kind: int, signature: bytes, payload: bytes) -> PeerId:
        try:
            peer_id = PeerId(identity)
        except PeerIdError:
            raise RecordError("bad_identity") from None
        if not peer_id.verify(signature, _signed_bytes(self.network, kind, payload)):
            raise RecordError("bad_signature")
        return peer_id
