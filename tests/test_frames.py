"""What peers say to each other over a link, byte by byte: docs/wire.md section 6."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dht_atonce.codec import encode
from dht_atonce.config import MessagingConfig
from dht_atonce.errors import WireError
from dht_atonce.messaging.frames import (
    Bye,
    ByeCode,
    Frame,
    Held,
    Hello,
    Kind,
    Special,
    Window,
    read_frame,
    write_frame,
    write_parts,
)
from dht_atonce.records import MAX_RECORD

LETTERS = "az09 \x00\n\x7fé\u4e2d\U0001f600\uffff"
u64 = st.integers(0, 2**64 - 1)
hellos = st.builds(
    Hello,
    st.integers(0, 255),
    st.binary(max_size=80),
    st.sampled_from([b"", bytes(8), b"incarnat"]),
    u64,
    u64,
)
byes = st.builds(Bye, st.integers(0, 255), st.text(LETTERS, max_size=40))
helds = st.builds(Held, st.lists(st.tuples(u64, u64), max_size=16))
specials_of_all_sorts = st.lists(hellos | byes | helds | st.builds(Window, u64), max_size=4)
message_lists = st.lists(st.binary(max_size=64) | st.none(), max_size=12)
plain = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(LETTERS), st.binary()
)
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain, inner, max_size=3), max_leaves=6
)
"""Any value that msgpack can carry, nearly."""

HELLO = Hello(0, b"a record", b"", 0, 0)


def frame_of(*specials: Any, messages: Any = (), kind: Any = 0, seq0: Any = 0, ack: Any = 0) -> bytes:
    """A frame's bytes, right or wrong."""
    return encode([kind, seq0, ack, list(messages), list(specials)])


# --- there and back ---


@given(st.integers(0, 255), u64, u64, message_lists, specials_of_all_sorts)
def test_a_frame_and_back(
    kind: int, seq0: int, ack: int, messages: list[bytes | None], specials: list[Special]
) -> None:
    read = read_frame(write_frame(Frame(kind, seq0, ack, messages, list(specials))))
    assert read == Frame(kind, seq0, ack, messages, specials)


@pytest.mark.parametrize("size", [0, 16_383, 16_384, 250_000])
@pytest.mark.parametrize("count", [1, 2])
def test_a_frame_in_parts_is_the_same_frame(size: int, count: int) -> None:
    hello = Hello(0, b"record", bytes(8), 1, 2)
    frame = Frame(3, 2**40, 2**63, [bytes(size)] * count, [hello, Window(9)], unhurried=True)
    parts = write_parts(frame)
    assert read_frame(b"".join(parts)) == frame
    assert any(part is frame.messages[0] for part in parts) == (size >= 16_384 and count == 1)
    of_the_app = read_frame(write_frame(Frame(Kind.MESSAGE, 1, 2, frame.messages, [])))
    assert [type(data) for data in of_the_app.messages] == [bytes] * count  # and no views of what was read
    nothing = Frame(0, 1, 2, [None], [])
    assert write_parts(nothing) == (write_frame(nothing),)


def test_a_frame_is_as_specified() -> None:
    # docs/wire.md section 6, spelt out: what another implementation would write.
    hello = Hello(0, b"\x01\x02", b"8 bytes!", 7, 9)
    bye = Bye(ByeCode.GOING_AWAY, "so long")
    data = write_frame(Frame(0, 3, 5, [b"one", b"", None], [hello, bye, Held([(9, 2)]), Window(77)], unhurried=True))
    specials = [[1, 0, b"\x01\x02", b"8 bytes!", 7, 9], [2, 2, "so long"], [3, [[9, 2]]], [4, 77]]
    assert data == msgspec.msgpack.encode([0, 3, 5, [b"one", b"", None], specials, True])


def test_the_largest_message_fits_into_what_a_link_carries() -> None:
    largest = bytes(MessagingConfig().max_message_bytes)
    hello = Hello(0, bytes(MAX_RECORD), bytes(8), 2**64 - 1, 2**64 - 1)
    assert len(write_frame(Frame(0, 2**64 - 1, 2**64 - 1, [largest], [hello]))) <= 61_440


def test_a_full_frame_of_small_messages_fits_too() -> None:
    config = MessagingConfig()
    size = config.frame_bytes // config.frame_messages
    assert len(write_frame(Frame(0, 1, 1, [bytes(size)] * config.frame_messages, []))) <= 61_440


# --- what later versions may add ---


@given(st.integers(5, 2**64 - 1) | st.integers(-(2**63), 0), st.lists(anything, max_size=4))
def test_a_special_that_we_do_not_know_is_left_out(tag: int, fields: list[Any]) -> None:
    read = read_frame(frame_of([tag, *fields], [2, 1, "no"], [tag], messages=[b"m"], seq0=1))
    assert read.specials == [Bye(1, "no")]
    assert read.messages == [b"m"]


@given(st.lists(anything, min_size=1, max_size=3))
def test_fields_that_a_later_minor_version_appends_are_ignored(more: list[Any]) -> None:
    hello = [1, 9, b"record", bytes(8), 1, 2, *more]
    read = read_frame(encode([0, 1, 2, [b"m"], [hello, [2, 3, "x", *more]], True, *more]))
    assert read == Frame(0, 1, 2, [b"m"], [Hello(9, b"record", bytes(8), 1, 2), Bye(3, "x")], unhurried=True)


def test_a_frame_that_does_not_say_whether_somebody_waits_is_waited_for() -> None:
    assert read_frame(encode([0, 1, 2, [b"m"], []])) == Frame(0, 1, 2, [b"m"], [], unhurried=False)


# --- what is refused ---


def test_the_largest_fields_are_read() -> None:
    specials: list[Special] = [
        Hello(255, bytes(MAX_RECORD), bytes(8), 2**64 - 1, 2**64 - 1),
        Bye(255, "\U0001f600" * 128),
        Held([(2**64 - 1, 2**64 - 1)] * 16),
        Window(2**64 - 1),
    ]
    frame = Frame(255, 2**64 - 1, 2**64 - 1, [bytes(60_000)], list(specials))
    assert read_frame(write_frame(frame)) == Frame(255, 2**64 - 1, 2**64 - 1, [bytes(60_000)], specials)


def test_256_messages_are_read_and_257_are_not() -> None:
    assert len(read_frame(frame_of(messages=[b""] * 256, seq0=1)).messages) == 256
    with pytest.raises(WireError):
        read_frame(frame_of(messages=[b""] * 257, seq0=1))


def test_16_specials_are_read_and_17_are_not() -> None:
    assert read_frame(frame_of(*[[77]] * 16)).specials == []
    with pytest.raises(WireError):
        read_frame(frame_of(*[[77]] * 17))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",  # the one byte that msgpack never uses
        encode([]),
        encode([0, 1, 2, []]),
        encode({}),
        encode(b"bytes"),
        encode([0, 1, 2, [], []]) + b"\x00",
        frame_of(kind=256),
        frame_of(kind=-1),
        frame_of(kind=True),
        frame_of(seq0=-1),
        frame_of(seq0=1.0),
        frame_of(ack="1"),
        frame_of(ack=None),
        frame_of(messages=["text"]),
        frame_of(messages=[7]),
        encode([0, 0, 0, b"messages", []]),
        encode([0, 0, 0, [], {}]),
        frame_of([]),
        frame_of("hello"),
        frame_of({"tag": 1}),
        frame_of(["1", b""]),
        frame_of([None]),
        frame_of([1]),
        frame_of([1, 0, b"", b"", 0]),
        frame_of([1, 0, "record", b"", 0, 0]),
        frame_of([1, 0, bytes(MAX_RECORD + 1), b"", 0, 0]),
        frame_of([1, 0, b"", bytes(9), 0, 0]),
        frame_of([1, 0, b"", b"", -1, 0]),
        frame_of([1, 256, b"", b"", 0, 0]),
        frame_of([2]),
        frame_of([2, 1]),
        frame_of([2, "1", "text"]),
        frame_of([2, 1, "x" * 129]),
        frame_of([2, 1, b"text"]),
        frame_of([3]),
        frame_of([3, [[1]]]),
        frame_of([3, [[1, -1]]]),
        frame_of([3, [[1, 1]] * 17]),
        frame_of([4]),
        frame_of([4, -1]),
        frame_of([4, None]),
        frame_of([True, 1, "text"]),
        frame_of([2.0, 1, "text"]),
        frame_of(messages=[b"cut", b"short"])[:-1],
    ],
    ids=lambda data: data[:24].hex() or "empty",
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        read_frame(data)


@pytest.mark.parametrize("length", [1, 4, 7])
def test_an_incarnation_has_8_bytes_or_none(length: int) -> None:
    with pytest.raises(WireError):
        read_frame(frame_of([1, 0, b"record", bytes(length), 0, 0]))


def test_nesting_without_end_is_refused() -> None:
    deep = b"\x91" * 50_000 + b"\x00"
    with pytest.raises(WireError):
        read_frame(deep)
    with pytest.raises(WireError):
        read_frame(b"\x95\x00\x00\x00\x90\x91" + deep)  # as a special


@given(st.binary(max_size=200))
@example(b"\x95\x00\x00\x00\x90\x91\x92\x05\x81\x80\x01")  # an unknown special with a map as the key of a map
@example(b"\x95\x00\x00\x00\x90\x91\x92\x05\xd7\xff" + b"\xff" * 8)  # … and with a time that is none
@example(b"\x95\x00\x00\x00\x90\x91\x92\x05\xa1\xff")  # … and with a str that is not UTF-8
def test_bytes_are_read_or_refused_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(read_frame(data), Frame)


@given(st.lists(anything, min_size=4, max_size=6))
def test_msgpack_of_anything_is_read_or_refused(fields: list[Any]) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(read_frame(encode(fields)), Frame)


@given(message_lists, specials_of_all_sorts, st.data())
def test_a_frame_with_a_byte_changed_is_read_or_refused(
    messages: list[bytes | None], specials: list[Special], data: st.DataObject
) -> None:
    raw = bytearray(write_frame(Frame(0, 1, 1, messages, list(specials))))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        assert isinstance(read_frame(bytes(raw)), Frame)


def test_text_in_a_special_is_not_taken_for_the_bytes_that_it_may_stand_for() -> None:
    with pytest.raises(WireError):
        read_frame(frame_of([1, 0, "AAAA", b"", 0, 0]))
