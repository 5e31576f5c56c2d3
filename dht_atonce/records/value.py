"""Values: what an identity says under a name of its own."""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import msgspec

from dht_atonce.config import NetworkConfig
from dht_atonce.identity import Identity, PeerId
from dht_atonce.records.record import Name, Payload, Record, checked, sign

__all__ = ["ValueRecord", "value_key"]


class _ValuePayload(Payload, frozen=True):
    name: Name
    value: bytes


def value_key(network: NetworkConfig, peer_id: PeerId, name: str) -> bytes:
    """Where in the DHT a value of an identity lies, 20 B."""
    return hashlib.blake2b(network.network_id + b"\x02" + peer_id.key + name.encode(), digest_size=20).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRecord(Record):
    """A small value of an identity, under a name of its own."""

    name: str
    value: bytes

    KIND: ClassVar[int] = 2
    DECODER: ClassVar[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(_ValuePayload)

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
        blob = sign(identity, network, cls.KIND, checked(payload, cls.DECODER))
        return cls.from_payload(payload, blob, network, identity.id)

    @classmethod
    def from_payload(cls, payload: _ValuePayload, blob: bytes, network: NetworkConfig, peer_id: PeerId) -> Self:
        """The record of a payload that was verified."""
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
