"""The bytes of requests and replies, as docs/wire.md has them."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.calls.wire import Call, Cancel, Failed, Reply, Why, read
from dht_atonce.codec import encode
from dht_atonce.config import MessagingConfig
from dht_atonce.errors import WireError

VECTORS: list[tuple[Any, str]] = [
    (Call(7, "price", 10_000, b"bread"), "950107a57072696365cd2710c4056272656164"),
    (Call(2**64 - 1, "x", 0, b""), "9501cfffffffffffffffffa17800c400"),
    (Reply(7, b"4"), "930207c40134"),
    (Failed(7, Why.RAISED, "not-sold", "none"), "95030701a86e6f742d736f6c64a46e6f6e65"),
    (Failed(7, Why.BUSY, "", ""), "95030704a0a0"),
    (Cancel(7), "920407"),
]


@pytest.mark.parametrize(("message", "data"), VECTORS)
def test_each_message_is_these_bytes(message: Any, data: str) -> None:
    assert encode(message).hex() == data
    assert read(bytes.fromhex(data)) == message


@pytest.mark.parametrize(("message", "data"), VECTORS)
def test_fields_that_later_versions_append_are_ignored(message: Any, data: str) -> None:
    fields = msgspec.msgpack.decode(bytes.fromhex(data))
    assert read(encode([*fields, ["later"], 7])) == message
    with pytest.raises(WireError):
        read(encode(fields[:-1]))


def test_the_largest_request_is_a_message_of_a_service() -> None:
    largest = Call(2**64 - 1, "\U0001f600" * 64, 2**32 - 1, bytes(60_000))
    assert read(encode(largest)) == largest
    assert len(encode(largest)) <= MessagingConfig().max_service_bytes


@given(st.binary(max_size=80))
def test_nothing_else_is_raised_whatever_the_bytes(data: bytes) -> None:
    try:
        read(data)
    except WireError:
        return
