"""Signed records: what an identity says of itself, and the one way to believe it.

A foreign record can be had only from `RecordParser.parse`, and parsing verifies (mainline's `mutable.rs` does the
same). The signature and the order of two records cover the payload's bytes as they were received, never a
re-encoding: msgpack allows several encodings of one value, and a later minor version appends fields that we do not
know.

docs/wire.md section 2 has the bytes. Floor 2: no I/O, no clock.
"""

from dht_atonce.records.membership import MAX_MEMBER_DATA, MembershipRecord, topic_key
from dht_atonce.records.parser import AnyRecord, RecordMemo, RecordParser
from dht_atonce.records.presence import PresenceRecord, presence_key
from dht_atonce.records.record import GONE, MAX_RECORD, ONLINE, SKEW_S, Record, is_newer
from dht_atonce.records.value import ValueRecord, value_key

__all__ = [
    "GONE",
    "MAX_MEMBER_DATA",
    "MAX_RECORD",
    "ONLINE",
    "SKEW_S",
    "AnyRecord",
    "MembershipRecord",
    "PresenceRecord",
    "Record",
    "RecordMemo",
    "RecordParser",
    "ValueRecord",
    "is_newer",
    "presence_key",
    "topic_key",
    "value_key",
]
