"""The streams of two peers as two machines that talk: credit, turns, ends, bounds."""

import itertools
from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht_atonce.config import StreamConfig
from dht_atonce.errors import QueueFull, StreamReset, WireError
from dht_atonce.streams.flow import Flow
from dht_atonce.streams.mux import Budget, Mux, Post
from dht_atonce.streams.pace import SMALL_CHUNK, Pace
from dht_atonce.streams.wire import (
    CHUNK,
    FIRST_CREDIT,
    MAX_NAME,
    MAX_OFFSET,
    Credit,
    Data,
    End,
    Open,
    Reset,
    ResetCode,
    StreamMessage,
    read_message,
    write_data,
    write_message,
)

SMALL = StreamConfig(
    max_streams=6,
    max_streams_per_peer=4,
    max_untaken_per_peer=3,
    window_bytes=200_000,
    buffered_bytes=500_000,
    outstanding_min_bytes=100_000,
    outstanding_max_bytes=300_000,
)
WHY = (StreamReset, "a test")


class Mouth:
    """One of two machines, and what is on its way to the other."""

    def __init__(self, first_number: int, config: StreamConfig = SMALL) -> None:
        self.config = config
        self.budget = Budget(config)
        self.counters: Counter[str] = Counter()
        self.mux = Mux(config, self.budget, self.counters, itertools.count(first_number))
        self.wire: deque[Post] = deque()
        self.other: Mouth
        self.written: dict[Flow, bytearray] = {}
        self.heard: dict[Flow, bytearray] = {}
        self.largest = 0

    def send(self) -> None:
        while (post := self.mux.take()) is not None:
            self.wire.append(post)
            if post.size:
                assert len(post.data) <= post.size + 20

    def deliver(self, took_s: float = 0.01, now: float = 0.0) -> bool:
        """The other side gets the next message, and acknowledges it."""
        self.send()
        if not self.wire:
            return False
        post = self.wire.popleft()
        flow, is_new = self.other.mux.on_message(read_message(post.data), 0)
        if is_new:
            assert flow is not None
            self.other.written[flow], self.other.heard[flow] = bytearray(), bytearray()
        if flow is not None:
            assert flow.received <= flow.receive_limit
        self.mux.on_settled(post, took_s, now)
        return True

    def open(self) -> Flow | None:
        try:
            flow = self.mux.open("s")
        except QueueFull:
            return None
        self.written[flow], self.heard[flow] = bytearray(), bytearray()
        return flow

    def write(self, flow: Flow, data: bytes) -> None:
        if flow.error is None and not flow.finished:
            self.mux.write(flow, data)
            self.written[flow] += data

    def read(self, flow: Flow, most: int) -> bytes:
        data = self.mux.read(flow, most)
        self.heard[flow] += data
        return data

    def check(self) -> None:
        assert self.budget.streams == len(self.mux.flows) <= self.config.max_streams_per_peer
        assert self.budget.claimed == sum(flow.receive_limit - flow.consumed for flow in self.mux.flows.values())
        assert 0 <= self.budget.claimed <= self.config.buffered_bytes + FIRST_CREDIT * len(self.mux.flows)
        assert self.mux.pace.outstanding == sum(post.size for post in self.wire)
        assert self.mux.pace.outstanding <= self.mux.pace.limit + CHUNK


def pair(config: StreamConfig = SMALL) -> tuple[Mouth, Mouth]:
    one, other = Mouth(1000, config), Mouth(5_000_000, config)
    one.other, other.other = other, one
    return one, other


def settle(*ends: Mouth) -> None:
    while any(end.deliver() for end in ends):
        pass


ACTIONS = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from(["open", "write", "write", "read", "read", "finish", "deliver", "deliver", "deliver", "reset"]),
        st.integers(0, 7),
        st.integers(0, 300_000),
    ),
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(ACTIONS)
def test_all_that_is_written_is_read_in_order_and_nothing_is_left_over(
    actions: list[tuple[bool, str, int, int]],
) -> None:
    ends = pair()
    for n, (which, action, index, size) in enumerate(actions):
        end = ends[which]
        flows = list(end.written)
        flow = flows[index % len(flows)] if flows else None
        if action == "open":
            end.open()
        elif action == "deliver":
            for _ in range(index):
                end.deliver()
        elif flow is None:
            continue
        elif action == "write":
            end.write(flow, bytes([n]) * size)
        elif action == "read":
            end.read(flow, size)
        elif action == "finish" and flow.error is None:
            end.mux.finish(flow)
        elif action == "reset":
            end.mux.reset(flow, ResetCode.ABORTED, "", WHY)
        for one in ends:
            one.check()
    for _ in range(10_000):
        for end in ends:
            for flow in end.written:
                if flow.error is None and not flow.finished:
                    end.mux.finish(flow)
        busy = [end.deliver() for end in ends]
        got = [end.read(flow, CHUNK) for end in ends for flow in end.written]
        if not any(busy) and not any(got):
            break
    assert all(end.mux.is_idle for end in ends)
    assert all(end.budget.claimed == end.budget.streams == end.mux.pace.outstanding == 0 for end in ends)
    assert not any(end.counters["streams.beyond_credit"] for end in ends)
    for end in ends:
        theirs = {(not flow.is_ours, flow.number): flow for flow in end.other.written}
        for flow, heard in end.heard.items():
            twin = theirs.get((flow.is_ours, flow.number))
            said = end.other.written[twin] if twin is not None else b""
            assert said.startswith(heard)
            if flow.error is None:
                assert heard == said


def test_bytes_that_come_one_by_one_take_no_more_room_than_others() -> None:
    alice, bob = pair()
    ours = alice.open()
    assert ours is not None
    alice.deliver()
    (theirs,) = bob.mux.flows.values()
    said = bytes(n % 251 for n in range(FIRST_CREDIT))
    for at in range(0, FIRST_CREDIT, 2):
        bob.mux.on_message(Data(True, theirs.number, said[at : at + 2]), 0)
        alice.write(ours, said[at : at + 2])
    assert bob.read(theirs, 3) == said[:3]
    pieces = [bob.read(theirs, FIRST_CREDIT) for _ in range(FIRST_CREDIT // 8192 + 1)]
    assert b"".join(pieces) == said[3:]
    assert len(ours.take(FIRST_CREDIT)[0]) <= FIRST_CREDIT // 8192


def test_a_stream_without_credit_is_passed_over() -> None:
    alice, bob = pair()
    slow, fast = alice.open(), alice.open()
    assert slow is not None
    assert fast is not None
    alice.write(slow, bytes(400_000))
    alice.write(fast, bytes(400_000))
    settle(alice, bob)
    assert slow.sent == fast.sent == FIRST_CREDIT
    twin = bob.mux.flows[False, fast.number]
    while bob.read(twin, CHUNK):
        settle(alice, bob)
    assert (slow.sent, fast.sent) == (FIRST_CREDIT, 400_000)


def test_of_each_stream_one_short_chunk_is_on_its_way() -> None:
    alice, bob = pair()
    bulk, talk = alice.open(), alice.open()
    assert bulk is not None
    assert talk is not None
    settle(alice, bob)
    for flow in (bulk, talk):
        flow.on_credit(1_000_000)
    alice.mux.pace.limit = 8 * SMALL_CHUNK
    chunk = alice.mux.pace.chunk
    alice.write(bulk, b"a little")
    alice.send()
    alice.write(bulk, bytes(2 * chunk) + b"more")
    alice.write(talk, b"a word")
    alice.send()
    assert [post.size for post in alice.wire] == [len(b"a little"), chunk, len(b"a word"), chunk]
    alice.deliver()
    alice.send()
    assert alice.wire[-1].size == len(b"more")
    alice.write(bulk, b"and more")
    alice.send()
    assert alice.wire[-1].size == len(b"more")
    settle(alice, bob)
    assert bulk.is_drained  # it did not wait for ever
    assert bulk.short_on_way == 0


def test_a_request_in_a_stream_is_said_whole_whatever_its_size() -> None:
    for size in (1, 60_000, 120_000, 300_000, 600_000):
        alice, bob = pair()
        flow = alice.open()
        assert flow is not None
        settle(alice, bob)
        flow.on_credit(1_000_000)
        alice.mux.pace.limit = 1_000_000
        alice.write(flow, bytes(size))
        alice.send()
        assert sum(post.size for post in alice.wire) == size


def test_what_ends_a_stream_waits_for_nothing() -> None:
    alice, bob = pair()
    bulk = alice.open()
    assert bulk is not None
    settle(alice, bob)
    bulk.on_credit(1_000_000)
    alice.mux.pace.limit = 8 * SMALL_CHUNK
    alice.write(bulk, bytes(3 * alice.mux.pace.chunk) + b"the rest")
    alice.mux.finish(bulk)
    alice.send()
    assert alice.wire[-2].size == len(b"the rest")
    assert alice.wire[-1].size == 0  # END


def test_messages_of_no_stream_are_answered_once() -> None:
    alice, bob = pair()
    for message in (Data(True, 7, b"x"), Credit(True, 7, 9), End(True, 7), Reset(True, 8, 0, "")):
        assert bob.mux.on_message(message, 0) == (None, False)
    bob.send()
    assert [read_message(post.data) for post in bob.wire] == [Reset(False, 7, ResetCode.UNKNOWN, "")]
    assert bob.counters["streams.unknown"] == 1
    assert alice.mux.on_message(Open(0, 7, "s"), 0)[1]
    assert alice.mux.on_message(Open(0, 7, "s"), 0) == (None, False)
    assert alice.counters["streams.opened_twice"] == 1


def test_who_sends_beyond_its_credit_or_after_its_end_is_reset() -> None:
    _, bob = pair()
    bob.mux.on_message(Open(0, 1, "s"), 0)
    flow, _ = bob.mux.on_message(Data(True, 1, bytes(FIRST_CREDIT)), 0)
    assert flow is not None
    assert flow.error is None
    bob.mux.on_message(Data(True, 1, b"x"), 0)
    assert flow.error is not None
    bob.mux.on_message(Open(0, 2, "s"), 0)
    bob.mux.on_message(End(True, 2), 0)
    flow, _ = bob.mux.on_message(Data(True, 2, b"x"), 0)
    assert flow is not None
    assert flow.error is not None
    assert bob.counters["streams.beyond_credit"] == 2


def test_who_acknowledges_nothing_is_not_given_credit_for_ever() -> None:
    config = StreamConfig(max_replies=3)
    bob = Mouth(1, config)
    bob.mux.on_message(Open(0, 1, "s"), 0)
    flow = bob.mux.flows[False, 1]
    for _ in range(10):
        bob.mux.on_message(Data(True, 1, bytes(flow.receive_limit - flow.received)[:CHUNK]), 0)
        bob.mux.read(flow, CHUNK)
        bob.send()
    assert len(bob.wire) <= 3


def test_all_messages_are_read_as_they_were_written() -> None:
    messages: list[StreamMessage] = [
        Open(0, 1, "é" * (MAX_NAME // 2)),
        Data(True, 1 << 60, bytes(CHUNK)),
        Credit(False, 3, MAX_OFFSET),
        End(True, 4),
        Reset(False, 5, 255, "x" * 128),
    ]
    for message in messages:
        assert read_message(write_message(message)) == message
    assert read_message(write_data(True, 9, [b"ab", memoryview(b"cd")], 4)) == Data(True, 9, b"abcd")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x90",
        b"\x93\x06\x01\x02",
        write_data(True, 1, [], 0),
        write_data(True, 1, [bytes(CHUNK + 1)], CHUNK + 1),
        write_message(Open(0, 1, "é" * 65)),
        write_message(Open(0, 1, "")),
        write_message(Credit(True, 1, MAX_OFFSET + 1)),
        write_message(Reset(True, 1, 0, "x" * 129)),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        read_message(data)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        read_message(data)
    except WireError:
        return


def test_the_pace_grows_on_a_fast_way_and_shrinks_on_one_that_queues() -> None:
    config = StreamConfig()
    pace = Pace(config)
    now = 0.0

    def chunk(took_s: float) -> None:
        nonlocal now
        now += 0.01
        while pace.has_room:
            pace.on_sent(SMALL_CHUNK)
        pace.on_acknowledged(SMALL_CHUNK, took_s, now)

    for _ in range(200):
        chunk(0.02)
    assert pace.limit == config.outstanding_max_bytes
    assert pace.chunk == CHUNK
    for _ in range(200):
        chunk(0.5)
    assert pace.limit == config.outstanding_min_bytes
    assert pace.chunk == SMALL_CHUNK
    for _ in range(3000):  # a way that has become slow for good is a slow way, not one that queues
        chunk(0.5)
    assert pace.limit == config.outstanding_max_bytes
    pace.on_lost(pace.outstanding)
    assert pace.outstanding == 0
