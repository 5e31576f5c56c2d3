"""Forgeries: records that an attacker makes of valid ones, without the key. None of them may be believed.

Each mutant differs from all originals in at least a byte. The same run with the signature check off is the control: it
believes many, so the mutants are not refused merely because they cannot be read.
"""

import random
from collections import Counter
from typing import Any, NamedTuple

import msgspec

from dht_atonce.config import NetworkConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import PeerIdError, RecordError
from dht_atonce.identity import Identity, PeerId
from dht_atonce.memo import Memo
from dht_atonce.records import MembershipRecord, PresenceRecord, RecordParser, ValueRecord

__all__ = ["Forgeries", "Tally", "run"]

NOW = 1_800_000_000
NETWORK, ANOTHER = NetworkConfig(name="test"), NetworkConfig(name="another")
_HEADER = 66
_ORDER = (1 << 252) + 27742317777372353535851937790883648493  # of Ed25519's base point (RFC 8032)


class Tally(NamedTuple):
    """What became of the mutants."""

    mutants: int
    accepted: int
    first_accepted: bytes | None
    refused: Counter[str]
    """Why, by the parser's reasons."""


class _Credulous(RecordParser):
    """The control: believes whoever a record says it is of."""

    __slots__ = ()

    def _author(self, identity: bytes, kind: int, signature: bytes, payload: bytes) -> PeerId:
        try:
            return PeerId(identity)
        except PeerIdError:
            raise RecordError("bad_identity") from None


class Forgeries:
    """Structured mutants of valid records, always the same for one generator."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.originals = [blob for number in range(8) for blob in _originals(number)]
        self._foreign = [blob for number in range(4) for blob in _originals(number, ANOTHER)]
        self._known = frozenset(self.originals)

    def next(self) -> bytes:
        """One that is none of the originals."""
        while True:
            blob = self._mutant(self._rng.choice(self.originals))
            if blob not in self._known:
                return blob

    def _mutant(self, blob: bytes) -> bytes:
        rng = self._rng
        other = rng.choice(self.originals)
        match rng.randrange(9):
            case 0:  # one bit anywhere
                at = rng.randrange(len(blob))
                return blob[:at] + bytes([blob[at] ^ 1 << rng.randrange(8)]) + blob[at + 1 :]
            case 1:  # another's signature, or another's payload
                return blob[:_HEADER] + other[_HEADER:]
            case 2:  # another kind, or a record of another network
                return rng.choice(
                    (
                        blob[:1] + bytes([rng.choice([kind for kind in (1, 2, 3) if kind != blob[1]])]) + blob[2:],
                        rng.choice(self._foreign),
                    )
                )
            case 3:  # the same signature in another form: S and S + L solve the same equation
                scalar = int.from_bytes(blob[34:_HEADER], "little") + _ORDER * rng.choice((1, 2, 3))
                return blob[:34] + (scalar % (1 << 256)).to_bytes(32, "little") + blob[_HEADER:]
            case 4:  # a field more, as a later version might append
                return blob[:_HEADER] + _packed([*_fields(blob), rng.choice((0, b"", [], "more"))])
            case 5:  # something behind, or cut short
                return blob + rng.randbytes(rng.randrange(1, 4)) if rng.random() < 0.5 else blob[: -rng.randrange(1, 9)]
            case 6:  # the same values, packed in another way
                return blob[:_HEADER] + b"\xdc\x00" + bytes([blob[_HEADER] & 0x0F]) + blob[_HEADER + 1 :]
            case 7:  # a signature of somebody else's
                return blob[:2] + _identity(rng.randrange(8)).sign(other[_HEADER:]) + blob[_HEADER:]
            case _:  # what an attacker would have it say
                return blob[:_HEADER] + _packed(self._said(_fields(blob), _fields(other)))

    def _said(self, fields: list[Any], other: list[Any]) -> list[Any]:
        rng = self._rng
        at = rng.randrange(len(fields))
        match at:
            case 1:
                fields[1] = other[1]
            case 2:
                fields[2] = rng.choice((fields[2] + 1, 0, (1 << 64) - 1))
            case 3:
                fields[3] = rng.randbytes(8)
            case 4:
                fields[4] += rng.choice((1, -1, 60, 3600))
            case 5:
                fields[5] = rng.choice(("gone", "online", "away", "another name"))
            case 6 if isinstance(fields[6], list):
                fields[6] = [rng.randbytes(4) + b"\x10\x00"] * rng.randrange(1, 5)
            case 6:
                fields[6] = rng.randbytes(rng.randrange(100))
            case 7:
                fields[7] = ["relay"]
            case _:
                fields[0] = rng.randrange(1, 256)
        return fields


def run(mutants: int, seed: int, *, checks_signatures: bool = True) -> Tally:
    """Parse so many mutants."""
    forgeries = Forgeries(random.Random(f"forgery {seed}"))
    # A memo of one: no mutant shall profit from another that was verified.
    parser = (RecordParser if checks_signatures else _Credulous)(NETWORK, Memo(1))
    for blob in forgeries.originals:
        parser.parse(blob, NOW)
    accepted, first, refused = 0, None, Counter[str]()
    for _ in range(mutants):
        blob = forgeries.next()
        try:
            parser.parse(blob, NOW)
        except RecordError as error:
            refused[error.reason] += 1
        else:
            accepted += 1
            first = first or blob
    return Tally(mutants, accepted, first, refused)


def _identity(number: int) -> Identity:
    return Identity.generate(random.Random(f"identity {number}"))


def _originals(number: int, network: NetworkConfig = NETWORK) -> list[bytes]:
    who, says = _identity(number), {"seq": 5 + number, "incarnation": b"one life", "expires": NOW + 3600}
    at = (Address("51.0.0.1", 4710 + number),)
    return [
        PresenceRecord.sign(who, network, endpoints=at, capabilities=("room",), **says).blob,
        PresenceRecord.sign(who, network, status="gone", **says).blob,
        ValueRecord.sign(who, network, name=f"name {number}", value=b"value", **says).blob,
        MembershipRecord.sign(who, network, topic="a room", endpoints=at, data=b"flute", **says).blob,
    ]


def _fields(blob: bytes) -> list[Any]:
    fields: list[Any] = msgspec.msgpack.decode(blob[_HEADER:])
    return fields


_packed = msgspec.msgpack.encode
