"""The one way to believe a record: `RecordParser.parse`, and parsing verifies."""

from typing import Final

from dht_atonce.codec import decode
from dht_atonce.config import NetworkConfig
from dht_atonce.errors import PeerIdError, RecordError, WireError
from dht_atonce.identity import PeerId
from dht_atonce.memo import Memo
from dht_atonce.records.membership import MembershipRecord
from dht_atonce.records.presence import PresenceRecord
from dht_atonce.records.record import HEADER, MAJOR, MAX_RECORD, SKEW_S, signed_bytes
from dht_atonce.records.value import ValueRecord

__all__ = ["AnyRecord", "RecordMemo", "RecordParser"]

AnyRecord = PresenceRecord | ValueRecord | MembershipRecord

RecordMemo = Memo[tuple[bytes, bytes], AnyRecord]
"""(Network id and whether it is local, blob) → the record that was verified."""

_REMEMBERED = 512  # verified records, by a parser that has its memo for itself

_KINDS: Final[dict[int, type[PresenceRecord] | type[ValueRecord] | type[MembershipRecord]]] = {
    kind.KIND: kind for kind in (PresenceRecord, ValueRecord, MembershipRecord)
}


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

    def parse(self, blob: bytes, now: float | None) -> AnyRecord:
        """The record in `blob`, believed. `now` is Unix time in seconds; None leaves the expiry to the caller.

        Raises `RecordError`, whose `reason` names a counter.
        """
        seen = (self._scope, blob)
        record = self._memo.get(seen)
        if record is None:
            record = self._verify(blob)
            self._memo.put(seen, record)
        if now is not None:
            self.check_time(record, now)
        return record

    def check_time(self, record: AnyRecord, now: float) -> None:
        """Raises `RecordError` if a record that was parsed is over, or claims to live longer than it may."""
        if record.expires <= now:
            raise RecordError("expired")
        if record.expires > now + record.life_limit_s(self.network.record_life_s) + SKEW_S:
            raise RecordError("lives_too_long")

    def parse_presence(self, blob: bytes, now: float | None) -> PresenceRecord:
        """Like `parse`, and nothing but a presence record will do."""
        record = self.parse(blob, now)
        if not isinstance(record, PresenceRecord):
            raise RecordError("not_presence")
        return record

    def _verify(self, blob: bytes) -> AnyRecord:
        if not HEADER < len(blob) <= MAX_RECORD:
            raise RecordError("bad_size")
        if blob[0] != MAJOR:
            raise RecordError("unknown_major")
        kind, signature, payload = blob[1], blob[2:HEADER], blob[HEADER:]
        known = _KINDS.get(kind)
        if known is None:
            raise RecordError("unknown_kind")
        try:
            fields = decode(known.DECODER, payload)
            peer_id = self._author(fields.identity, kind, signature, payload)
            return known.from_payload(fields, blob, self.network, peer_id)
        except RecordError:
            raise
        except WireError:
            raise RecordError("malformed") from None

    def _author(self, identity: bytes, kind: int, signature: bytes, payload: bytes) -> PeerId:
        try:
            peer_id = PeerId(identity)
        except PeerIdError:
            raise RecordError("bad_identity") from None
        if not peer_id.verify(signature, signed_bytes(self.network, kind, payload)):
            raise RecordError("bad_signature")
        return peer_id
