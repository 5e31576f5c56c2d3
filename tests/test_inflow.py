"""The receiving half: order, duplicates, what waits behind a gap, what is acknowledged, what room is told."""

from collections.abc import Callable
from dataclasses import replace as changed

from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.config import MessagingConfig
from dht_atonce.messaging.inflow import Inflow, Taken

CONFIG = MessagingConfig()


def room(count: int) -> Callable[[int], int]:
    return lambda _: count


PLENTY = room(100_000)


def numbers(first: int, count: int) -> list[bytes | None]:
    """Messages that say their own numbers."""
    return [b"%d" % number for number in range(first, first + count)]


def hear(inflow: Inflow, first: int, count: int, free: Callable[[int], int] = PLENTY) -> list[int]:
    """The numbers of what is taken."""
    taken = inflow.on_messages(0, first, numbers(first, count), free)
    return [int(data) for one in taken for data in one.messages]


# --- acknowledgements ---


def test_an_acknowledgement_for_which_nobody_waits_waits_for_seven_more() -> None:
    inflow = Inflow(CONFIG)
    late = []
    for number in range(1, 18):
        inflow.on_messages(0, number, [b"m"], PLENTY, unhurried=True)
        assert inflow.ack_due
        late.append(inflow.ack_is_urgent)
        if inflow.ack_is_urgent:
            inflow.tell()
            assert (inflow.ack_due, inflow.ack_is_urgent) == (False, False)
    assert late == ([False] * 7 + [True]) * 2 + [False]


def test_an_acknowledgement_does_not_wait_for_what_helps_the_sender() -> None:
    def is_late(first: int, count: int, free: int = 100, unhurried: bool = True) -> bool:
        inflow = Inflow(CONFIG, expected=5)
        inflow.on_messages(0, first, numbers(first, count), room(free), unhurried)
        assert inflow.ack_due
        return inflow.ack_is_urgent

    assert not is_late(5, 3)
    assert is_late(5, 3, unhurried=False)  # somebody waits
    assert is_late(6, 3)  # a gap
    assert is_late(4, 3)  # said before
    assert is_late(5, 3, free=2)  # no room


# --- order ---


def test_what_comes_in_order_is_taken_and_acknowledged() -> None:
    inflow = Inflow(CONFIG)
    assert (inflow.ack, inflow.ack_due) == (0, False)
    assert inflow.on_messages(0, 1, [b"1", b"2"], PLENTY) == [Taken(0, [b"1", b"2"])]
    assert (inflow.ack, inflow.ack_due, inflow.expected) == (2, True, 3)
    assert inflow.on_messages(5, 3, [b"3"], PLENTY) == [Taken(5, [b"3"])]


def test_what_is_here_already_is_not_taken_again_and_yet_acknowledged() -> None:
    inflow = Inflow(CONFIG)
    hear(inflow, 1, 4)
    inflow.ack_due = False
    assert hear(inflow, 2, 2) == []
    assert inflow.ack_due  # the sender does not know
    assert hear(inflow, 3, 4) == [5, 6]
    assert hear(inflow, 0, 3) == []  # there is no number 0


def test_withdrawn_messages_have_numbers_and_nothing_else() -> None:
    inflow = Inflow(CONFIG)
    assert inflow.on_messages(0, 1, [b"1", None, b"3"], PLENTY) == [Taken(0, [b"1", b"3"])]
    assert inflow.on_messages(0, 4, [None, None], PLENTY) == []
    assert inflow.ack == 5


def test_no_messages_are_nothing_to_answer() -> None:
    inflow = Inflow(CONFIG)
    assert inflow.on_messages(0, 7, [], PLENTY) == []
    assert not inflow.ack_due


# --- gaps ---


def test_what_comes_behind_a_gap_waits_for_it_and_is_named() -> None:
    inflow = Inflow(CONFIG)
    assert hear(inflow, 6, 2) == hear(inflow, 3, 2) == []
    assert inflow.held == [(3, 2), (6, 2)]
    assert inflow.ack == 0
    assert hear(inflow, 1, 2) == [1, 2, 3, 4]
    assert inflow.held == [(6, 2)]
    assert hear(inflow, 4, 2) == [5, 6, 7]
    assert (inflow.held, inflow.ack) == ([], 7)


def test_what_is_held_keeps_its_kind() -> None:
    inflow = Inflow(CONFIG)
    inflow.on_messages(1, 2, [b"2"], PLENTY)
    assert inflow.on_messages(0, 1, [b"1"], PLENTY) == [Taken(0, [b"1"]), Taken(1, [b"2"])]


def test_what_is_held_keeps_nothing_else_of_its_frame() -> None:
    inflow = Inflow(CONFIG)
    frame = b"a piece, and much else"
    inflow.on_messages(3, 2, [memoryview(frame)[:7]], PLENTY)  # type: ignore[list-item]
    assert [type(one) for _, messages in inflow.behind_gap.values() for one in messages] == [bytes]
    assert inflow.on_messages(3, 1, [b"first"], PLENTY) == [Taken(3, [b"first"]), Taken(3, [b"a piece"])]


def test_so_many_frames_are_held_and_no_more() -> None:
    inflow = Inflow(changed(CONFIG, max_held=2))
    for first in (9, 5, 3):
        hear(inflow, first, 1)
    assert inflow.held == [(5, 1), (9, 1)]
    hear(inflow, 5, 1)
    assert inflow.held == [(5, 1), (9, 1)]


def test_so_many_bytes_are_held_and_no_more() -> None:
    inflow = Inflow(changed(CONFIG, window_bytes=100))
    for first, size in [(3, 60), (5, 60), (7, 40)]:
        inflow.on_messages(0, first, [bytes(size)], PLENTY)
    assert inflow.held == [(3, 1), (7, 1)]
    inflow.on_messages(0, 1, [b"1", b"2"], PLENTY)
    inflow.on_messages(0, 9, [bytes(60)], PLENTY)  # there is room again
    assert inflow.held == [(7, 1), (9, 1)]


def test_16_ranges_are_named_and_they_are_the_first() -> None:
    inflow = Inflow(CONFIG)
    for first in range(60, 2, -2):
        hear(inflow, first, 1)
    assert inflow.held == [(first, 1) for first in range(4, 36, 2)]


# --- room ---


def test_what_finds_no_room_is_not_acknowledged_and_comes_again() -> None:
    inflow = Inflow(CONFIG)
    assert hear(inflow, 1, 5, room(2)) == [1, 2]
    assert inflow.ack == 2
    assert hear(inflow, 3, 3, room(0)) == hear(inflow, 3, 3, room(-3)) == []
    assert inflow.ack_due
    assert hear(inflow, 3, 3) == [3, 4, 5]


def test_what_was_held_finds_as_much_room_as_is_left_by_what_fills_the_gap() -> None:
    inflow = Inflow(CONFIG)
    hear(inflow, 3, 4)
    assert hear(inflow, 1, 2, room(4)) == [1, 2, 3, 4]
    assert inflow.held == [(3, 4)]  # it was named to the sender, so it is kept
    assert hear(inflow, 5, 2, room(1)) == [5]
    assert hear(inflow, 6, 1) == [6]
    assert inflow.held == []


def test_each_kind_has_its_own_room() -> None:
    inflow = Inflow(CONFIG)
    free = {0: 2, 1: 3}
    inflow.on_messages(1, 3, numbers(3, 4), free.__getitem__)
    taken = inflow.on_messages(0, 1, numbers(1, 2), free.__getitem__)
    assert [(one.kind, len(one.messages)) for one in taken] == [(0, 2), (1, 3)]


def test_more_room_is_told_when_it_is_worth_it() -> None:
    inflow = Inflow(changed(CONFIG, first_window=10, window_step=8))
    assert inflow.limit(10) is None  # the sender knows
    assert inflow.limit(17) is None
    assert inflow.limit(18) == 18
    assert inflow.limit(18) is None
    hear(inflow, 1, 18)
    assert inflow.limit(0) is None
    assert inflow.limit(1) == 19  # to whom has no room at all, any is news
    hear(inflow, 19, 1)
    assert inflow.limit(6) == 25
    assert inflow.limit(8) is None
    assert inflow.limit(12) == 31  # half of all


def test_room_that_shrinks_is_not_told() -> None:
    inflow = Inflow(CONFIG)
    assert inflow.limit(5000) == 5000
    assert inflow.limit(3) is None
    assert inflow.limit(5000) is None


def test_what_may_not_have_been_heard_is_said_again() -> None:
    inflow = Inflow(CONFIG)
    hear(inflow, 1, 3)
    assert inflow.limit(5000) == 5003
    inflow.ack_due = False
    inflow.untell()
    assert inflow.ack_due
    assert inflow.limit(2) == 5


# --- the other process ---


def test_a_new_process_of_the_sender_begins_at_one() -> None:
    inflow = Inflow(CONFIG)
    hear(inflow, 1, 3)
    hear(inflow, 9, 1)
    inflow.restart()
    assert (inflow.ack, inflow.held) == (0, [])
    assert hear(inflow, 1, 2) == [1, 2]


def test_who_forgot_a_pair_skips_to_where_the_sender_is() -> None:
    inflow = Inflow(CONFIG)
    hear(inflow, 3, 2)
    hear(inflow, 6, 3)
    inflow.skip_to(7)
    assert inflow.held == [(6, 3)]
    assert hear(inflow, 7, 1) == [7, 8]
    inflow.skip_to(2)
    assert inflow.expected == 9


# --- whatever comes ---

SMALL = changed(CONFIG, max_held=3, window_bytes=20)


@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 4), st.integers(-1, 6)), max_size=50))
def test_whatever_comes_each_number_is_taken_once_and_in_order(said: list[tuple[int, int, int]]) -> None:
    inflow = Inflow(SMALL)
    heard: list[int] = []
    for first, count, free in said:
        new = hear(inflow, first, count, room(free))
        assert len(new) <= max(0, free)
        heard += new
        assert heard == list(range(1, len(heard) + 1))
        assert inflow.ack == len(heard)
        assert len(inflow.held) <= SMALL.max_held
        assert sum(len(str(n)) for one, size in inflow.held for n in range(one, one + size)) <= SMALL.window_bytes
    assert hear(inflow, len(heard) + 1, 40)[:40] == list(range(len(heard) + 1, len(heard) + 41))
    assert inflow.held == []
