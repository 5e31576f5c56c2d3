"""The seed's side of one handshake, as a machine: frames in, decisions out. docs/wire.md section 5.

HELLO_DUE ──HELLO──▶ CHALLENGED ──AUTHENTICATE──▶ ENDED
     └────────────── anything else: NOPE ───────────▲
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from dht_atonce.codec import decode, encode
from dht_atonce.config import NetworkConfig
from dht_atonce.discovery.seed_wire import (
    Authenticate,
    Challenge,
    ChallengeBody,
    Hello,
    Nope,
    NopeCode,
    message_decoder,
    sign_challenge,
    verify_authenticate,
)
from dht_atonce.endpoints import Address, pack_address
from dht_atonce.errors import RecordError, WireError
from dht_atonce.identity import Identity
from dht_atonce.records import PresenceRecord, RecordParser

__all__ = ["Admit", "Handshake", "Reject", "Reply", "SeedFacts"]

_UNKNOWN_PORT = 0xFFFF


@dataclass(frozen=True, slots=True)
class SeedFacts:
    """What a seed tells every newcomer."""

    identity: Identity
    network: NetworkConfig
    node_key: bytes
    udp_ports: tuple[int, int]
    """IPv4, IPv6; 0: not in that family."""
    parser: RecordParser


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this and wait for the next frame."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Admit:
    """The newcomer proved itself: list it, and send it contacts."""

    record: PresenceRecord
    node_key: bytes


@dataclass(frozen=True, slots=True)
class Reject:
    """Send this and close; `counter` says why."""

    data: bytes
    counter: str


class _State(Enum):
    HELLO_DUE = 0
    CHALLENGED = 1
    ENDED = 2


class Handshake:
    """One link's handshake. `is_proved` says whether a node key proved its UDP address to us lately."""

    def __init__(
        self,
        facts: SeedFacts,
        curve_key: bytes,
        remote: Address | None,
        rng: random.Random,
        is_proved: Callable[[bytes], bool],
        now: float,
        life_s: float,
    ) -> None:
        self._facts = facts
        self._curve_key = curve_key
        self._remote = remote
        self._rng = rng
        self._is_proved = is_proved
        self._deadline = now + life_s
        self._state = _State.HELLO_DUE
        self._body = b""

    def on_frame(self, data: bytes, now: float, wall: float) -> Reply | Admit | Reject:
        """What to do about a frame; `now` monotonic, `wall` Unix seconds."""
        if now > self._deadline:
            return self._reject(NopeCode.TOO_LATE, "too late, begin again", "seed.too_late")
        try:
            message = decode(message_decoder, data)
        except WireError:
            return self._reject(NopeCode.NOT_UNDERSTOOD, "not understood", "seed.not_understood")
        if isinstance(message, Hello) and self._state is _State.HELLO_DUE:
            return self._on_hello(message, wall)
        if isinstance(message, Authenticate) and self._state is _State.CHALLENGED:
            return self._on_authenticate(message)
        return self._reject(NopeCode.NOT_UNDERSTOOD, "out of turn", "seed.out_of_turn")

    def _on_hello(self, hello: Hello, wall: float) -> Reply | Reject:
        facts, network = self._facts, self._facts.network
        if hello.network not in ("", network.name):
            return self._reject(
                NopeCode.OTHER_NETWORK, f"this seed serves the network {network.name!r}"[:128], "seed.other_network"
            )
        remote = self._remote or Address("0.0.0.0", 0)  # noqa: S104 - says "not known"
        body = ChallengeBody(
            0,
            self._rng.randbytes(32),
            network.name,
            network.authority_key,
            network.k,
            network.local,
            network.record_life_s,
            int(wall * 1000),
            pack_address(Address(remote.ip, remote.port or _UNKNOWN_PORT)),
            facts.node_key,
            facts.udp_ports,
        )
        self._body = encode(body)
        self._state = _State.CHALLENGED
        return Reply(encode(Challenge(0, self._body, sign_challenge(facts.identity, self._curve_key, self._body))))

    def _on_authenticate(self, message: Authenticate) -> Admit | Reject:
        self._state = _State.ENDED  # one try for each challenge
        facts = self._facts
        try:
            record = facts.parser.parse_presence(message.record, None)
        except RecordError as error:
            return self._reject(NopeCode.PROOF_FAILED, f"record: {error.reason}", "seed.bad_record")
        if record.peer_id.curve_key != self._curve_key:
            return self._reject(NopeCode.PROOF_FAILED, "the record is another's", "seed.foreign_record")
        network_id = facts.network.network_id
        if not verify_authenticate(record.peer_id, network_id, facts.identity.id, message, self._body):
            return self._reject(NopeCode.PROOF_FAILED, "the signature does not hold", "seed.bad_signature")
        if not self._is_proved(message.node_key):
            return self._reject(NopeCode.ADDRESS_NOT_PROVED, "no UDP from you arrived here", "seed.not_proved")
        return Admit(record, message.node_key)

    def _reject(self, code: int, reason: str, counter: str) -> Reject:
        self._state = _State.ENDED
        return Reject(encode(Nope(0, code, reason)), counter)
