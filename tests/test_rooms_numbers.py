"""Names of statements: what is said at once of many is what was meant, and hostile ranges stay small."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.errors import WireError
from dht_atonce.rooms.numbers import number_of, numbers_of, pages, ranges_of
from dht_atonce.rooms.wire import Range, Statement, Stream, suspect_data

ANN, BEN = bytes(32), b"\1" * 32

numbers = st.lists(
    st.tuples(
        st.sampled_from([ANN, BEN]), st.integers(1, 2), st.sampled_from([Stream.SHOUT, Stream.HERE]), st.integers(1, 9)
    ),
    max_size=60,
)


def statement(stream: int, data: bytes = b"") -> Statement:
    return Statement(ANN, 5, stream, 7, data, bytes(64))


@given(numbers)
def test_there_and_back(some: list[tuple[bytes, int, int, int]]) -> None:
    assert numbers_of(ranges_of(some)) == some
    assert [one for page in pages(some) for one in page] == ranges_of(some)


def test_those_in_a_row_are_one_range() -> None:
    assert ranges_of((ANN, 5, Stream.SHOUT, seq) for seq in (3, 4, 5, 9)) == [
        Range(ANN, 5, Stream.SHOUT, 3, 3),
        Range(ANN, 5, Stream.SHOUT, 9, 1),
    ]


def test_many_ranges_are_many_messages() -> None:
    assert [len(page) for page in pages((ANN, 5, Stream.SHOUT, 2 * n) for n in range(300))] == [256, 44]


def test_one_message_asks_for_no_more_than_its_share() -> None:
    assert len(numbers_of([Range(ANN, 5, Stream.SHOUT, 1, 1000)] * 3)) == 1024


def test_nobody_makes_us_count_past_64_bits() -> None:
    assert numbers_of([Range(ANN, 5, Stream.SHOUT, (1 << 63) - 2, 9)])[-1][3] == (1 << 63) - 1
    assert numbers_of([Range(ANN, 5, Stream.SHOUT, (1 << 64) - 1, 9)]) == []


def test_a_goodbye_is_news_of_a_member_and_a_suspicion_is_named_after_whom_it_is_of() -> None:
    assert number_of(statement(Stream.SHOUT)) == (ANN, 5, Stream.SHOUT, 7)
    assert number_of(statement(Stream.GONE)) == number_of(statement(Stream.HERE)) == (ANN, 5, Stream.HERE, 7)
    assert number_of(statement(Stream.SUSPECT, suspect_data(BEN, 1, 2))) == (BEN, 1, Stream.SUSPECT, 2)


@pytest.mark.parametrize("wrong", [statement(4), statement(Stream.SUSPECT, b"short")])
def test_what_has_no_name(wrong: Statement) -> None:
    with pytest.raises(WireError):
        number_of(wrong)
