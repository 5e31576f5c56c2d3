"""The sending half: how messages are packed, what the windows let through, what is sent again, what a receipt says."""

import asyncio
from dataclasses import replace as changed
from math import inf
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.config import MessagingConfig
from dht_atonce.errors import DeliveryUnknown, NotAccepted, PeerOffline
from dht_atonce.messaging.outflow import MESSAGE_OVERHEAD, Outflow
from dht_atonce.messaging.receipts import Batch, Receipt, State

CONFIG = MessagingConfig()
OFFLINE = (PeerOffline, "gone fishing")


def push(outflow: Outflow, *messages: bytes, deadline: float = inf) -> list[Receipt]:
    return [outflow.push(data, 0, deadline) for data in messages]


def numbers(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % n for n in range(first, first + count)]


class Run(NamedTuple):
    """What one frame carries."""

    kind: int
    seq0: int
    messages: list[bytes | None]

    @classmethod
    def of(cls, batch: Batch) -> "Run":
        return cls(batch.kind, batch.seq0 + batch.settled, batch.messages[batch.settled :])


def batches(outflow: Outflow, now: float = 0.0) -> list[Batch]:
    """All that is to be sent now."""
    taken = []
    while (batch := outflow.take(now)) is not None:
        taken.append(batch)
    return taken


def runs(outflow: Outflow, now: float = 0.0) -> list[Run]:
    """The same as it is put into frames."""
    return [Run.of(batch) for batch in batches(outflow, now)]


def spans(outflow: Outflow, now: float = 0.0) -> list[tuple[int, int]]:
    """The same as (first number, how many)."""
    return [(run.seq0, len(run.messages)) for run in runs(outflow, now)]


def states(receipts: list[Receipt]) -> list[State]:
    return [receipt.state for receipt in receipts]


# --- packing ---


def test_256_messages_travel_together() -> None:
    outflow = Outflow(CONFIG)
    push(outflow, *[b"m"] * 300)
    assert spans(outflow) == [(1, 256), (257, 44)]


def test_a_run_has_60_000_bytes_at_most() -> None:
    # With five bytes of msgpack for each message.
    outflow = Outflow(CONFIG)
    push(outflow, *(bytes(size) for size in [4995] * 13 + [60_000, 0, 59_000]))
    sizes = [[len(m or b"") for m in run.messages] for run in runs(outflow)]
    assert sizes == [[4995] * 12, [4995], [60_000], [0, 59_000]]


def test_what_is_to_be_given_up_at_another_time_or_is_of_another_kind_travels_by_itself() -> None:
    outflow = Outflow(CONFIG)
    for kind, deadline in [(0, inf), (0, inf), (0, 9.0), (1, 9.0), (0, inf)]:
        outflow.push(b"m", kind, deadline)
    assert [(run.kind, len(run.messages)) for run in runs(outflow)] == [(0, 2), (0, 1), (1, 1), (0, 1)]


# --- who waits ---


def test_an_acknowledgement_may_wait_where_nobody_waits_for_it_and_there_is_much_room() -> None:
    outflow = Outflow(CONFIG)
    outflow.on_limit(CONFIG.window_messages)
    push(outflow, b"1")
    assert [batch.unhurried for batch in batches(outflow)] == [True]
    outflow.rewind()
    assert [batch.unhurried for batch in batches(outflow)] == [False]  # it was said before


def test_an_acknowledgement_is_wanted_at_once_where_somebody_waits_for_it() -> None:
    async def main() -> None:
        outflow = Outflow(CONFIG)
        outflow.on_limit(CONFIG.window_messages)
        first, _, third = (outflow.push(b"m", kind, inf) for kind in (0, 1, 2))
        third.batch.is_prompt = True
        waiting = asyncio.ensure_future(first)
        await asyncio.sleep(0)
        assert [batch.unhurried for batch in batches(outflow)] == [False, True, False]
        for batch in outflow.on_ack(1):
            batch.wake()
        await waiting

    asyncio.run(main())


@pytest.mark.parametrize("tight", ["messages", "bytes", "limit"])
def test_an_acknowledgement_is_wanted_at_once_where_the_window_comes_to_its_end(tight: str) -> None:
    frames = {"messages": (256, b"m"), "bytes": (1, bytes(CONFIG.window_bytes // 64)), "limit": (256, b"m")}
    count, data = frames[tight]
    outflow = Outflow(changed(CONFIG, window_messages=64 * count, frame_bytes=100_000))
    outflow.on_limit(1 << 20 if tight != "limit" else 32 * count)
    for _ in range(64):
        push(outflow, *[data] * count)
    unhurried = [batch.unhurried for batch in batches(outflow)]
    assert len(unhurried) == (32 if tight == "limit" else 63 if tight == "bytes" else 64)
    turn = unhurried.index(False)
    assert turn == {"messages": 32, "bytes": 31, "limit": 23}[tight]
    assert not any(unhurried[turn:])


# --- what has left ---


def test_nothing_is_added_to_what_has_left() -> None:
    outflow = Outflow(CONFIG)
    push(outflow, b"1")
    assert spans(outflow) == [(1, 1)]
    push(outflow, b"2")
    assert spans(outflow) == [(2, 1)]


def test_what_waits_is_counted_in_messages_and_bytes_until_it_is_acknowledged() -> None:
    outflow = Outflow(CONFIG)
    push(outflow, b"12345", b"")
    assert (outflow.queued, outflow.queued_bytes) == (2, 5 + 2 * MESSAGE_OVERHEAD)
    assert outflow.has_unsent
    runs(outflow)
    assert not outflow.has_unsent
    assert outflow.queued == 2
    outflow.on_ack(2)
    assert (outflow.queued, outflow.queued_bytes) == (0, 0)


# --- windows ---


def test_1024_messages_go_to_somebody_new_and_no_more_before_he_says_what_room_he_has() -> None:
    outflow = Outflow(CONFIG)
    push(outflow, *[b"m"] * 2000)
    assert spans(outflow) == [(1, 256), (257, 256), (513, 256), (769, 256)]
    outflow.on_ack(1024)
    assert spans(outflow) == []
    outflow.on_limit(1500)
    assert spans(outflow) == [(1025, 256)]  # the next one would be beyond it
    outflow.on_limit(1400)  # old news
    outflow.on_limit(1536)
    assert spans(outflow) == [(1281, 256)]


def test_our_own_window_has_a_bound_in_messages() -> None:
    outflow = Outflow(changed(CONFIG, window_messages=600))
    push(outflow, *[b"m"] * 1000)
    assert spans(outflow) == [(1, 256), (257, 256)]
    outflow.on_ack(100)
    assert spans(outflow) == []  # 412 and 256 would be more than 600
    outflow.on_ack(256)
    assert spans(outflow) == [(513, 256)]


def test_our_own_window_has_a_bound_in_bytes() -> None:
    outflow = Outflow(changed(CONFIG, window_bytes=100_000))
    for n in range(20):
        push(outflow, bytes(40_000), bytes(40_000), bytes(40_000))
        assert spans(outflow) == [(3 * n + 1, 1), (3 * n + 2, 1)]
        outflow.on_ack(3 * n + 2)
        assert spans(outflow) == [(3 * n + 3, 1)], f"at turn {n} there is no room"
        outflow.on_ack(3 * n + 3)


def test_a_message_larger_than_our_window_goes_alone() -> None:
    outflow = Outflow(changed(CONFIG, window_bytes=1000))
    push(outflow, bytes(5000), b"next")
    push(outflow, bytes(59_995))
    assert spans(outflow) == [(1, 2)]
    outflow.on_ack(2)
    assert spans(outflow) == [(3, 1)]


def test_whoever_says_nothing_of_his_room_is_knocked_at() -> None:
    # What he said may be lost, or he may never have room for all of a run.
    outflow = Outflow(CONFIG)
    push(outflow, *[b"m"] * 1024)
    runs(outflow)
    outflow.on_ack(1024)
    push(outflow, *[b"m"] * 600)
    now, pauses = 5.0, []
    assert spans(outflow, now) == []
    for knock in range(3):
        pauses.append(outflow.deadline - now)
        now = outflow.deadline
        outflow.on_timer(now)
        assert spans(outflow, now) == [(1025, 256)], f"at knock {knock}"
    assert pauses == pytest.approx([0.25, 0.5, 1.0])
    outflow.on_ack(1100)  # there was room for some
    assert spans(outflow, now) == []
    assert outflow.deadline == now + CONFIG.retransmit_s
    outflow.on_timer(outflow.deadline)
    assert spans(outflow, now) == [(1101, 180)]


# --- acknowledgements ---


def test_an_acknowledgement_settles_all_up_to_it() -> None:
    outflow = Outflow(changed(CONFIG, frame_messages=2))
    receipts = push(outflow, *numbers(5))
    runs(outflow)
    assert [batch.settled for batch in outflow.on_ack(3)] == [2, 1]
    assert states(receipts) == [State.DELIVERED] * 3 + [State.SENT] * 2
    assert outflow.base == 4
    assert [batch.settled for batch in outflow.on_ack(5)] == [2, 1]
    assert set(states(receipts)) == {State.DELIVERED}


def test_old_acknowledgements_and_those_of_what_was_never_sent_are_ignored() -> None:
    outflow = Outflow(changed(CONFIG, frame_messages=1))
    push(outflow, b"1", b"2")
    assert outflow.on_ack(1) == []  # it has not left
    runs(outflow)
    outflow.on_ack(1)
    for ack in [0, 1, 3, 2**63]:
        assert outflow.on_ack(ack) == []
    assert outflow.base == 2


def test_the_rest_of_what_was_taken_in_part_is_sent_again() -> None:
    outflow = Outflow(CONFIG)
    push(outflow, *numbers(5))
    runs(outflow)
    outflow.on_ack(2)
    assert runs(outflow) == []
    outflow.on_timer(outflow.deadline)
    assert runs(outflow) == [Run(0, 3, numbers(3, first=2))]


# --- sending again ---


def test_the_pause_doubles_up_to_two_seconds_and_each_time_one_run_knocks() -> None:
    outflow = Outflow(CONFIG)
    push(outflow, *[b"m"] * 600)
    now, pauses = 0.0, []
    assert len(spans(outflow, now)) == 3
    for _ in range(6):
        pauses.append(outflow.deadline - now)
        now = outflow.deadline
        outflow.on_timer(now)
        assert spans(outflow, now) == [(1, 256)]
    assert pauses == pytest.approx([0.25, 0.5, 1.0, 2.0, 2.0, 2.0])


def test_while_it_knocks_nothing_new_goes_out_and_after_an_answer_all_does() -> None:
    outflow = Outflow(changed(CONFIG, frame_messages=2))
    push(outflow, *numbers(4))
    runs(outflow)  # lost
    outflow.on_timer(9.0)
    push(outflow, b"4")
    assert spans(outflow, 9.0) == [(1, 2)]
    outflow.on_ack(2)
    assert spans(outflow, 9.1) == [(3, 2), (5, 1)]
    assert outflow.deadline == pytest.approx(9.1 + CONFIG.retransmit_s)


@pytest.mark.parametrize("before", [1023, 5000])
def test_who_says_that_there_is_room_is_sent_the_first_frame_at_once_and_the_others_when_it_is_taken(
    before: int,
) -> None:
    outflow = Outflow(changed(CONFIG, frame_messages=2))
    outflow.on_limit(before)  # he may have said too much
    push(outflow, *numbers(6))
    runs(outflow)
    outflow.on_limit(5000)
    assert spans(outflow) == []  # it may yet be acknowledged
    outflow.on_timer(1.0)
    assert spans(outflow, 1.0) == [(1, 2)]
    outflow.on_limit(5000)
    assert spans(outflow, 1.1) == [(1, 2)]
    outflow.on_ack(2)
    assert spans(outflow, 1.2) == [(3, 2), (5, 2)]


def test_whatever_is_said_of_room_a_frame_that_finds_none_is_sent_once_more_until_the_timer() -> None:
    outflow = Outflow(changed(CONFIG, frame_messages=2))
    push(outflow, *numbers(6))
    runs(outflow)
    now = 0.0
    for _ in range(3):
        now = outflow.deadline
        outflow.on_timer(now)
        sent = spans(outflow, now)
        for limit in range(2000, 2100):
            outflow.on_limit(limit)
            sent += spans(outflow, now)
        assert sent == [(1, 2), (1, 2)]
    assert now == pytest.approx(0.25 + 0.5 + 1.0)


def test_an_answer_makes_it_patient_again() -> None:
    outflow = Outflow(CONFIG)
    push(outflow, b"m")
    now = 0.0
    for _ in range(5):
        runs(outflow, now)
        now = outflow.deadline
        outflow.on_timer(now)
    outflow.on_ack(1)
    push(outflow, b"n")
    runs(outflow, now)
    assert outflow.deadline == now + CONFIG.retransmit_s


def test_a_timer_that_comes_early_changes_nothing() -> None:
    outflow = Outflow(CONFIG)
    assert outflow.on_timer(5.0) == []
    push(outflow, b"m", deadline=8.0)
    runs(outflow, 5.0)
    assert outflow.on_timer(5.2) == []
    assert runs(outflow, 5.2) == []


def test_without_a_link_nothing_is_sent_again_until_there_is_one() -> None:
    outflow = Outflow(CONFIG)
    push(outflow, b"m")
    runs(outflow)
    outflow.on_link_lost()
    assert outflow.deadline == inf
    outflow.on_timer(100.0)
    assert runs(outflow) == []
    outflow.rewind()
    assert spans(outflow) == [(1, 1)]


def test_what_the_receiver_holds_is_not_sent_again_before_he_says_nothing_for_long() -> None:
    outflow = Outflow(changed(CONFIG, frame_messages=2))
    push(outflow, *numbers(8))
    runs(outflow)
    outflow.on_held([(3, 2), (6, 1), (7, 2)])  # half of the third run is not all of it
    outflow.rewind()
    assert spans(outflow) == [(1, 2), (5, 2)]
    outflow.on_timer(outflow.deadline)
    assert spans(outflow) == [(1, 2)]  # it knocks
    outflow.on_ack(2)
    assert spans(outflow) == [(3, 2), (5, 2), (7, 2)]  # what he said is forgotten


def test_a_run_that_could_not_be_sent_is_taken_again() -> None:
    outflow = Outflow(changed(CONFIG, frame_messages=1))
    push(outflow, b"1", b"2")
    outflow.take(0.0)
    second = outflow.take(0.0)
    outflow.untake()
    assert outflow.take(0.0) is second
    assert second is not None
    assert Run.of(second) == Run(0, 2, [b"2"])


# --- nobody waits any more ---


def test_what_never_left_can_be_withdrawn_and_its_number_goes_without_it() -> None:
    outflow = Outflow(CONFIG)
    receipts = push(outflow, b"1", b"2", b"3")
    assert outflow.withdraw(receipts[1])
    assert not outflow.withdraw(receipts[1])
    assert runs(outflow) == [Run(0, 1, [b"1", None, b"3"])]
    outflow.on_ack(3)
    assert states(receipts) == [State.DELIVERED, State.EXPIRED, State.DELIVERED]
    assert outflow.queued == outflow.queued_bytes == 0


def test_what_left_cannot_be_withdrawn_nor_what_is_settled() -> None:
    outflow = Outflow(changed(CONFIG, first_window=1, frame_messages=1))
    sent, waiting = push(outflow, b"1", b"2")
    runs(outflow)
    assert not outflow.withdraw(sent)
    outflow.on_ack(1)
    assert not outflow.withdraw(sent)
    outflow.drop_unsent(OFFLINE)
    assert not outflow.withdraw(waiting)


def test_at_its_deadline_what_left_is_unknown_and_what_did_not_has_expired() -> None:
    outflow = Outflow(changed(CONFIG, first_window=2, frame_messages=2))
    sent, waiting = push(outflow, b"1", b"2", deadline=5.0), push(outflow, b"3", deadline=5.0)
    patient = push(outflow, b"4")
    runs(outflow)
    outflow.on_link_lost()
    assert outflow.deadline == 5.0
    assert len(outflow.on_timer(5.0)) == 2
    assert states([*sent, *waiting, *patient]) == [State.UNKNOWN] * 2 + [State.EXPIRED, State.QUEUED]
    assert outflow.deadline == inf
    assert isinstance(sent[0].batch.error(0), DeliveryUnknown)
    assert isinstance(waiting[0].batch.error(0), PeerOffline)
    outflow.on_ack(2)
    assert states(sent) == [State.DELIVERED] * 2  # late, and yet
    assert sent[0].batch.error(0) is None
    outflow.on_limit(10)
    assert runs(outflow) == [Run(0, 3, [b"4"])]  # what expired leaves no gap


@pytest.mark.parametrize(("why", "state"), [(OFFLINE, State.EXPIRED), ((NotAccepted, "no"), State.REFUSED)])
def test_when_nobody_can_be_reached_what_never_left_is_given_up(
    why: tuple[type[PeerOffline], str], state: State
) -> None:
    outflow = Outflow(changed(CONFIG, first_window=1, frame_messages=1))
    sent, waiting = push(outflow, b"1", b"2")
    runs(outflow)
    assert outflow.drop_unsent(why) == [waiting.batch]
    assert states([sent, waiting]) == [State.SENT, state]
    assert isinstance(waiting.batch.error(0), why[0])
    assert outflow.queued == 1
    assert outflow.doubt((DeliveryUnknown, "who knows")) == [sent.batch]
    assert outflow.doubt((DeliveryUnknown, "who knows")) == []
    assert sent.state is State.UNKNOWN
    outflow.rewind()
    assert spans(outflow) == [(1, 1)]  # it keeps its place, and may yet arrive
    (late,) = push(outflow, b"3")
    outflow.on_ack(1)
    assert states([sent, late]) == [State.DELIVERED, State.QUEUED]


# --- the other process ---


def test_when_the_other_process_is_gone_what_left_is_unknown_and_the_rest_begins_at_one() -> None:
    outflow = Outflow(changed(CONFIG, first_window=4, frame_messages=2))
    receipts = push(outflow, *numbers(6))
    runs(outflow)
    outflow.on_ack(1)
    assert len(outflow.lose("it died")) == 2
    assert states(receipts) == [State.DELIVERED] + [State.UNKNOWN] * 3 + [State.QUEUED] * 2
    assert runs(outflow) == [Run(0, 1, numbers(2, first=4))]
    outflow.on_ack(2)
    assert states(receipts)[4:] == [State.DELIVERED] * 2
    assert outflow.queued == outflow.queued_bytes == 0


def test_who_forgot_a_pair_goes_on_where_the_other_is() -> None:
    outflow = Outflow(CONFIG)
    outflow.skip_to(5000)
    push(outflow, *[b"m"] * 1100)
    assert [first for first, _ in spans(outflow)] == [5000, 5256, 5512, 5768]
    outflow.skip_to(9000)  # too late: something is on its way
    assert outflow.base == 5000


# --- whatever happens ---

steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 40)),
        st.tuples(st.sampled_from(["invite", "add", "add"]), st.integers(0, 40)),
        st.tuples(st.sampled_from(["take", "untake"]), st.just(0)),
        st.tuples(st.sampled_from(["ack", "limit", "held", "withdraw"]), st.integers(0, 30)),
        st.tuples(st.sampled_from(["timer", "rewind", "lose", "drop"]), st.just(0)),
    ),
    max_size=60,
)
TINY = changed(
    CONFIG, window_messages=6, window_bytes=120, first_window=5, frame_messages=3, frame_bytes=60, max_waiting=20
)


@given(steps)
def test_whatever_happens_counts_are_right_and_numbers_go_on(said: list[tuple[str, int]]) -> None:
    outflow = Outflow(TINY)
    receipts: list[Receipt] = []
    sizes: list[int] = []
    now, top = 0.0, 0
    for what, number in said:
        if what in ("push", "add"):
            data = bytes(number)
            deadline = now + 1 + number % 3 if number % 2 else inf
            one = outflow.add(data) if what == "add" else outflow.push(data, 0, deadline)
            if one is not None:
                receipts.append(one)
                sizes.append(number + MESSAGE_OVERHEAD)
        elif what == "invite":
            if receipts and receipts[-1].state is State.QUEUED:
                outflow.invite(max(0, min(number, TINY.frame_messages - receipts[-1].index - 1)))
        elif what in ("take", "untake"):
            before = top
            batch = outflow.take(now)
            if batch is not None:
                run = Run.of(batch)
                assert outflow.base <= run.seq0 <= top + 1
                assert len(run.messages) <= TINY.frame_messages
                top = max(top, run.seq0 + len(run.messages) - 1)
                if what == "untake":
                    outflow.untake()
                    again = outflow.take(now)
                    assert again is not None
                    assert Run.of(again) == run
                if top > before:
                    assert top - outflow.base < max(TINY.window_messages, TINY.frame_messages)
        elif what == "ack":
            outflow.on_ack(outflow.base - 1 + number % 8)
        elif what == "limit":
            outflow.on_limit(outflow.base + number)
        elif what == "held":
            outflow.on_held([(outflow.base + number % 6, 1 + number // 6)])
        elif what == "withdraw" and receipts:
            outflow.withdraw(receipts[number % len(receipts)])
        elif what == "timer" and outflow.deadline < inf:
            now = max(now, outflow.deadline)
            outflow.on_timer(now)
            assert outflow.deadline > now
        elif what == "rewind":
            outflow.rewind()
        elif what == "lose":
            outflow.lose("it died")
            top = 0
        elif what == "drop":
            outflow.drop_unsent(OFFLINE)
        waiting = {id(one.batch): one.batch for one in receipts if one.batch.messages}
        assert outflow.queued == sum(len(batch.messages) for batch in waiting.values())
        assert outflow.queued_bytes == sum(
            size for size, one in zip(sizes, receipts, strict=True) if one.batch.messages
        )
        assert outflow.has_unsent == any(not batch.was_sent for batch in waiting.values())
