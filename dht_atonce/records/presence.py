"""Presence: where a peer can be reached, and how it is."""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import msgspec
from msgspec import Meta

from dht_atonce.config import NetworkConfig
from dht_atonce.endpoints import Address
from dht_atonce.identity import Identity, PeerId
from dht_atonce.records.record import (
    ONLINE,
    Endpoints,
    Payload,
    Status,
    StatusRecord,
    acceptable,
    checked,
    packed,
    sign,
)

__all__ = ["PresenceRecord", "presence_key"]

Capability = Annotated[str, Meta(min_length=1, max_length=16)]


class _PresencePayload(Payload, frozen=True):
    status: Status
    endpoints: Endpoints
    capabilities: Annotated[list[Capability], Meta(max_length=8)]


def presence_key(network: NetworkConfig, peer_id: PeerId) -> bytes:
    """Where in the DHT a peer's presence lies, 20 B."""
    return hashlib.blake2b(network.network_id + b"\x01" + peer_id.key, digest_size=20).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceRecord(StatusRecord):
    """Where a peer can be reached, and how it is."""

    capabilities: tuple[str, ...]

    KIND: ClassVar[int] = 1
    DECODER: ClassVar[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(_PresencePayload)

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
            [packed(endpoint) for endpoint in endpoints],
            list(capabilities),
        )
        blob = sign(identity, network, cls.KIND, checked(payload, cls.DECODER))
        return cls.from_payload(payload, blob, network, identity.id)

    @classmethod
    def from_payload(cls, payload: _PresencePayload, blob: bytes, network: NetworkConfig, peer_id: PeerId) -> Self:
        """The record of a payload that was verified. Raises `WireError` for an endpoint that is no address."""
        return cls(
            peer_id=peer_id,
            seq=payload.seq,
            incarnation=payload.incarnation,
            expires=payload.expires,
            key=presence_key(network, peer_id),
            blob=blob,
            status=payload.status,
            endpoints=acceptable(payload.endpoints, network),
            capabilities=tuple(payload.capabilities),
        )
