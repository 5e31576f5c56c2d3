"""The messages of the seed handshake and what is signed in them. docs/wire.md section 5 has the bytes."""

import hashlib
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dht_atonce.codec import U8, U32, U64, AddressBytes, Bytes32, Bytes64, WireStruct
from dht_atonce.identity import Identity, PeerId
from dht_atonce.records import MAX_RECORD

__all__ = [
    "Authenticate",
    "Challenge",
    "ChallengeBody",
    "Hello",
    "Nope",
    "NopeCode",
    "Ok",
    "body_decoder",
    "message_decoder",
    "sign_authenticate",
    "sign_challenge",
    "verify_authenticate",
    "verify_challenge",
]

MAX_SEED_CONTACTS: Final = 16
_CHALLENGE_CONTEXT = b"atonce challenge v1"
_AUTHENTICATE_CONTEXT = b"atonce authenticate v1"

NetworkName = Annotated[str, Meta(max_length=64)]
Port = Annotated[int, Meta(ge=0, le=0xFFFF)]
ContactBytes = Annotated[bytes, Meta(min_length=38, max_length=58)]
ContactList = Annotated[list[ContactBytes], Meta(max_length=MAX_SEED_CONTACTS)]


class NopeCode:
    """Why a seed says no."""

    OTHER_NETWORK: Final = 1
    NOT_UNDERSTOOD: Final = 2
    PROOF_FAILED: Final = 3
    ADDRESS_NOT_PROVED: Final = 4
    BUSY: Final = 5
    TOO_LATE: Final = 6


class Hello(WireStruct, tag=1, frozen=True):
    """A newcomer; empty name: any network will do."""

    minor: U8
    network: NetworkName


class ChallengeBody(WireStruct, frozen=True):
    """What the seed says of itself and of the network."""

    minor: U8
    nonce: Bytes32
    network: NetworkName
    authority_key: Annotated[bytes, Meta(max_length=32)]
    k: U8
    local: bool
    record_life_s: U32
    time_ms: U64
    you: AddressBytes
    node_key: Bytes32
    udp_ports: tuple[Port, Port]


class Challenge(WireStruct, tag=2, frozen=True):
    """The body and the seed identity's signature over it and the client's curve key."""

    minor: U8
    body: Annotated[bytes, Meta(max_length=512)]
    signature: Bytes64


class Authenticate(WireStruct, tag=3, frozen=True):
    """The newcomer proves its identity."""

    minor: U8
    node_key: Bytes32
    record: Annotated[bytes, Meta(max_length=MAX_RECORD)]
    signature: Bytes64


class Ok(WireStruct, tag=4, frozen=True):
    """Live contacts; none if the newcomer is the first."""

    minor: U8
    ipv4: ContactList
    ipv6: ContactList


class Nope(WireStruct, tag=5, frozen=True):
    """No, and why."""

    minor: U8
    code: U8
    reason: Annotated[str, Meta(max_length=128)]


SeedMessage = Hello | Challenge | Authenticate | Ok | Nope

message_decoder: "msgspec.msgpack.Decoder[SeedMessage]" = msgspec.msgpack.Decoder(SeedMessage)
body_decoder = msgspec.msgpack.Decoder(ChallengeBody)


def sign_challenge(seed: Identity, client_curve_key: bytes, body: bytes) -> bytes:
    """The seed's signature, 64 B."""
    return seed.sign(_CHALLENGE_CONTEXT + client_curve_key + body)


def verify_challenge(seed: PeerId, client_curve_key: bytes, challenge: Challenge) -> bool:
    """Whether the pinned seed signed this for us."""
    return seed.verify(challenge.signature, _CHALLENGE_CONTEXT + client_curve_key + challenge.body)


def _authenticated(network_id: bytes, seed: PeerId, client_curve_key: bytes, node_key: bytes, body: bytes) -> bytes:
    digest = hashlib.blake2b(body, digest_size=32).digest()
    return _AUTHENTICATE_CONTEXT + network_id + seed.key + client_curve_key + node_key + digest


def sign_authenticate(client: Identity, network_id: bytes, seed: PeerId, node_key: bytes, body: bytes) -> bytes:
    """The client's signature, 64 B, over the challenge that it answers."""
    return client.sign(_authenticated(network_id, seed, client.id.curve_key, node_key, body))


def verify_authenticate(client: PeerId, network_id: bytes, seed: PeerId, message: Authenticate, body: bytes) -> bool:
    """Whether `client` answered this very challenge of ours."""
    signed = _authenticated(network_id, seed, client.curve_key, message.node_key, body)
    return client.verify(message.signature, signed)
