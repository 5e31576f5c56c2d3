"""Membership: an identity takes part in a topic, and can be reached there.

All members of a topic lie under one key. The topic's name stands in each record, so those that keep it can read it;
whoever knows the name can list the members. A name that nobody can guess keeps out everybody else.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Self

import msgspec
from msgspec import Meta

from dht_atonce.config import NetworkConfig
from dht_atonce.endpoints import Address
from dht_atonce.identity import Identity, PeerId
from dht_atonce.records.record import (
    ONLINE,
    Endpoints,
    Name,
    Payload,
    Status,
    StatusRecord,
    acceptable,
    checked,
    packed,
    sign,
)

__all__ = ["MAX_MEMBER_DATA", "MembershipRecord", "topic_key"]

MAX_MEMBER_DATA: Final = 128
"""Bytes that an app may say in a membership: three members still travel in one reply beside eight contacts."""


class _MembershipPayload(Payload, frozen=True):
    topic: Name
    status: Status
    endpoints: Endpoints
    data: Annotated[bytes, Meta(max_length=MAX_MEMBER_DATA)]


def topic_key(network: NetworkConfig, topic: str) -> bytes:
    """Where in the DHT the members of a topic lie, 20 B."""
    return hashlib.blake2b(network.network_id + b"\x03" + topic.encode(), digest_size=20).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipRecord(StatusRecord):
    """One member of a topic."""

    topic: str
    data: bytes
    """What the app says of this member, at most 128 B."""

    KIND: ClassVar[int] = 3
    DECODER: ClassVar[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(_MembershipPayload)

    @classmethod
    def sign(
        cls,
        identity: Identity,
        network: NetworkConfig,
        *,
        seq: int,
        incarnation: bytes,
        expires: int,
        topic: str,
        status: str = ONLINE,
        endpoints: tuple[Address, ...] = (),
        data: bytes = b"",
    ) -> Self:
        """A new membership of our own. Raises `MessageTooLarge` if it does not fit into 512 B, ValueError for a field
        out of its bounds (docs/wire.md)."""
        payload = _MembershipPayload(
            0,
            identity.id.key,
            seq,
            incarnation,
            expires,
            topic,
            status,
            [packed(endpoint) for endpoint in endpoints],
            data,
        )
        blob = sign(identity, network, cls.KIND, checked(payload, cls.DECODER))
        return cls.from_payload(payload, blob, network, identity.id)

    @classmethod
    def from_payload(cls, payload: _MembershipPayload, blob: bytes, network: NetworkConfig, peer_id: PeerId) -> Self:
        """The record of a payload that was verified. Raises `WireError` for an endpoint that is no address."""
        return cls(
            peer_id=peer_id,
            seq=payload.seq,
            incarnation=payload.incarnation,
            expires=payload.expires,
            key=topic_key(network, payload.topic),
            blob=blob,
            topic=payload.topic,
            status=payload.status,
            endpoints=acceptable(payload.endpoints, network),
            data=payload.data,
        )
