"""msgpack of strangers: what is read, and that all else is one kind of error."""

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.codec import (
    U8,
    U32,
    U64,
    AddressBytes,
    Bytes8,
    Bytes20,
    Bytes32,
    Bytes64,
    Reader,
    WireStruct,
    decode,
    encode,
    read_each,
)
from dht_atonce.errors import AtOnceError, WireError


class Point(WireStruct, frozen=True):
    x: U8
    y: U64
    name: str


class Sizes(WireStruct, frozen=True):
    eight: Bytes8
    twenty: Bytes20
    thirty_two: Bytes32
    sixty_four: Bytes64


class Older(WireStruct, frozen=True):
    x: U8


class Ask(WireStruct, tag=1, frozen=True):
    number: U8


class Tell(WireStruct, tag=2, frozen=True):
    text: str


read: Reader[Ask | Tell] = Reader(Ask | Tell)

POINT = msgspec.msgpack.Decoder(Point)
SIZES = msgspec.msgpack.Decoder(Sizes)
ANYTHING: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()


@given(st.builds(Point, st.integers(0, 255), st.integers(0, 2**64 - 1), st.text()))
def test_there_and_back(point: Point) -> None:
    assert decode(POINT, encode(point)) == point


def test_a_structure_is_an_array() -> None:
    assert encode(Point(1, 2, "a")) == b"\x93\x01\x02\xa1a"


def test_fields_of_a_later_minor_version_are_ignored() -> None:
    newer = encode([7, 8, "name", b"new", {"even": ["this"]}])
    assert decode(POINT, newer) == Point(7, 8, "name")
    assert decode(msgspec.msgpack.Decoder(Older), newer) == Older(7)


def test_a_structure_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Point(1, 2, "a").x = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "value",
    [
        [1, 2],
        [],
        {"x": 1, "y": 2, "name": "a"},
        [256, 2, "a"],
        [-1, 2, "a"],
        [1, -1, "a"],
        [1.0, 2, "a"],
        [True, 2, "a"],
        [None, 2, "a"],
        ["1", 2, "a"],
        [1, 2, b"a"],
    ],
    ids=repr,
)
def test_a_field_of_another_type_or_range_is_refused(value: object) -> None:
    with pytest.raises(WireError):
        decode(POINT, encode(value))


@pytest.mark.parametrize("field", range(4))
@pytest.mark.parametrize("change", [-1, 1])
def test_bytes_of_another_length_are_refused(field: int, change: int) -> None:
    right = [bytes(8), bytes(20), bytes(32), bytes(64)]
    assert decode(SIZES, encode(right)) == Sizes(*right)
    right[field] = bytes(len(right[field]) + change)
    with pytest.raises(WireError):
        decode(SIZES, encode(right))


def test_an_address_has_6_to_18_bytes() -> None:
    decoder: msgspec.msgpack.Decoder[bytes] = msgspec.msgpack.Decoder(AddressBytes)
    for length in (6, 18):
        assert decode(decoder, encode(bytes(length))) == bytes(length)
    for length in (0, 5, 19):
        with pytest.raises(WireError):
            decode(decoder, encode(bytes(length)))


@pytest.mark.parametrize(("kind", "largest"), [(U8, 2**8 - 1), (U32, 2**32 - 1), (U64, 2**64 - 1)])
def test_integers_have_their_width(kind: Any, largest: int) -> None:
    decoder: msgspec.msgpack.Decoder[int] = msgspec.msgpack.Decoder(kind)
    assert decode(decoder, encode(largest)) == largest
    assert decode(decoder, encode(0)) == 0
    for wrong in (-1, largest + 1):
        # 2**64 cannot be encoded as an integer at all; as a float it is another type.
        with pytest.raises(WireError):
            decode(decoder, encode(wrong if wrong < 2**64 else float(wrong)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x93\x01\x02",
        b"\x93\x01\x02\xa1a\x00",
        b"\x93\x01\x02\xa1\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    ],
    ids=["empty", "no such type", "cut", "something follows", "not UTF-8", "4 G items", "4 G pairs", "4 GiB"],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(POINT, data)
    if data != b"\x93\x01\x02\xa1a\x00":
        with pytest.raises(WireError):
            decode(ANYTHING, data)


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\x01", b"\x81"], ids=["arrays", "maps", "maps as keys"])
def test_deep_nesting_is_refused(opening: bytes) -> None:
    with pytest.raises(WireError):
        decode(ANYTHING, opening * 100_000)


@given(st.binary(max_size=64))
def test_whatever_is_read_nothing_else_is_raised(data: bytes) -> None:
    for decoder in (POINT, SIZES, ANYTHING):
        try:
            decode(decoder, data)
        except AtOnceError as error:
            assert isinstance(error, WireError)  # noqa: PT017 - not every input is refused


@given(st.builds(Point, st.integers(0, 255), st.integers(0, 2**64 - 1), st.text()), st.data())
def test_a_cut_message_is_refused(point: Point, data: st.DataObject) -> None:
    whole = encode(point)
    with pytest.raises(WireError):
        decode(POINT, whole[: data.draw(st.integers(0, len(whole) - 1))])


@pytest.mark.parametrize("message", [Ask(7), Tell("seven")])
def test_messages_are_told_apart_by_their_tags(message: Ask | Tell) -> None:
    assert read(encode(message)) == message


@pytest.mark.parametrize("value", [[3, 7], [1, 256], [7], [], {"number": 7}])
def test_a_message_of_another_protocol_is_an_error(value: object) -> None:
    with pytest.raises(WireError):
        read(encode(value))


def test_what_cannot_be_read_is_dropped_and_counted() -> None:
    counters: Counter[str] = Counter()
    said = [encode(Ask(1)), b"\xc1", encode([3, 7]), encode(Tell("two")), b""]
    assert list(read_each(read, said, counters, "bad")) == [Ask(1), Tell("two")]
    assert counters == {"bad": 3}
