"""Delivery: what is acknowledged was enqueued, once and in order, whatever becomes of links and processes.

First two machines talk plainly; then a courier that hypothesis drives does its worst to them.
"""

from collections import deque
from dataclasses import dataclass, field
from dataclasses import replace as changed

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from dht_atonce.config import MessagingConfig
from dht_atonce.messaging.delivery import Delivery, Memory, Outcome, Outgoing, Settled
from dht_atonce.messaging.frames import Frame, Hello, MessageFrame, read_frame, write_frame

CONFIG = MessagingConfig()
ALICE, BOB = b"alice-01", b"bob---01"
PLENTY = 10_000


class Machine(Delivery):
    """A `Delivery` that says which incarnation it is."""

    def __init__(self, config: MessagingConfig, own_incarnation: bytes, memory: Memory | None = None) -> None:
        super().__init__(config, own_incarnation, memory)
        self.incarnation = own_incarnation


def as_read(frame: Frame) -> MessageFrame:
    """The frame after its journey."""
    return read_frame(write_frame(frame))


def frames(delivery: Delivery, now: float = 0.0) -> list[Frame]:
    """All that it wants to send now."""
    taken = []
    while (frame := delivery.take_frame(now)) is not None:
        taken.append(frame)
    return taken


def acquainted(config: MessagingConfig = CONFIG) -> tuple[Machine, Machine]:
    """Two that have exchanged HELLOs, with nothing left to say."""
    alice, bob = Machine(config, ALICE), Machine(config, BOB)
    meet(alice, bob)
    frames(alice)
    frames(bob)
    return alice, bob


def meet(dialler: Machine, listener: Machine) -> list[Settled]:
    """A new link: the dialler speaks first. Gives what was settled at the dialler's."""
    listener.on_hello(dialler.hello(b""), dialler.incarnation)
    return dialler.on_hello(listener.hello(b""), listener.incarnation)


def carry(sender: Delivery, receiver: Delivery, now: float = 0.0, room: int = PLENTY) -> list[bytes]:
    """Bring all that the sender has to say; gives what the receiver enqueued."""
    return [data for frame in frames(sender, now) for data in receiver.on_frame(as_read(frame), room)[0]]


def delivered(*messages: Outgoing) -> list[Settled]:
    return [Settled(message, Outcome.DELIVERED) for message in messages]


def unknown(*messages: Outgoing) -> list[Settled]:
    return [Settled(message, Outcome.UNKNOWN) for message in messages]


# --- the plain case ---


def test_a_message_goes_over_and_its_acknowledgement_comes_back() -> None:
    alice, bob = acquainted()
    message = alice.push(b"hello")
    assert (alice.queued, alice.has_unsent, message.was_sent) == (1, True, False)
    (sent,) = frames(alice)
    assert sent == Frame(0, 1, 0, [b"hello"], [])
    assert (alice.queued, alice.has_unsent, message.was_sent) == (1, False, True)
    assert bob.on_frame(as_read(sent), PLENTY) == ([b"hello"], [])
    (reply,) = frames(bob)
    assert reply == Frame(0, 0, 1, [], [])  # nothing to say: the acknowledgement goes alone
    assert alice.on_frame(as_read(reply), PLENTY) == ([], delivered(message))
    assert alice.queued == 0
    assert frames(alice) == []  # an acknowledgement is not acknowledged
    assert alice.deadline is None


def test_acknowledgements_ride_along() -> None:
    alice, bob = acquainted()
    alice.push(b"ping")
    assert carry(alice, bob) == [b"ping"]
    bob.push(b"pong")
    (frame,) = frames(bob)
    assert (frame.ack, frame.messages) == (1, [b"pong"])
    enqueued, settled = alice.on_frame(as_read(frame), PLENTY)
    assert enqueued == [b"pong"]
    assert [s.outcome for s in settled] == [Outcome.DELIVERED]


def test_both_speak_at_the_same_time() -> None:
    alice, bob = acquainted()
    to_bob, to_alice = alice.push(b"to bob"), bob.push(b"to alice")
    from_alice, from_bob = frames(alice), frames(bob)
    assert bob.on_frame(as_read(from_alice[0]), PLENTY) == ([b"to bob"], [])
    assert alice.on_frame(as_read(from_bob[0]), PLENTY) == ([b"to alice"], [])
    assert alice.on_frame(as_read(frames(bob)[0]), PLENTY)[1] == delivered(to_bob)
    assert bob.on_frame(as_read(frames(alice)[0]), PLENTY)[1] == delivered(to_alice)
    assert frames(alice) == frames(bob) == []


def test_one_acknowledgement_is_enough_for_many() -> None:
    alice, bob = acquainted()
    messages = [alice.push(b"%d" % n) for n in range(700)]
    assert carry(alice, bob) == [b"%d" % n for n in range(700)]
    assert alice.on_frame(as_read(frames(bob)[-1]), PLENTY)[1] == delivered(*messages)


# --- packing ---


def test_256_messages_travel_in_one_frame() -> None:
    alice, _ = acquainted()
    for _ in range(300):
        alice.push(b"m")
    assert [(f.seq0, len(f.messages)) for f in frames(alice)] == [(1, 256), (257, 44)]


def test_a_frame_has_60_000_bytes_at_most() -> None:
    # With five bytes of msgpack for each message.
    alice, _ = acquainted()
    for size in [4995] * 13 + [60_000, 0, 59_000]:
        alice.push(bytes(size))
    sizes = [[len(m) for m in f.messages] for f in frames(alice)]
    assert sizes == [[4995] * 12, [4995], [60_000], [0, 59_000]]


def test_1024_messages_wait_for_their_acknowledgement_and_no_more() -> None:
    alice, bob = acquainted()
    for n in range(1030):
        alice.push(b"%d" % n)
    sent = frames(alice)
    assert sum(len(f.messages) for f in sent) == 1024
    assert alice.has_unsent
    bob.on_frame(as_read(sent[0]), PLENTY)
    alice.on_frame(as_read(frames(bob)[0]), PLENTY)
    assert [(f.seq0, len(f.messages)) for f in frames(alice)] == [(1025, 6)]


def test_the_window_has_a_bound_in_bytes_too() -> None:
    alice, _ = acquainted(changed(CONFIG, window_bytes=100_000))
    for _ in range(5):
        alice.push(bytes(40_000))
    assert sum(len(f.messages) for f in frames(alice)) == 2


def test_what_is_acknowledged_leaves_the_window() -> None:
    alice, bob = acquainted(changed(CONFIG, window_bytes=100_000))
    for n in range(20):
        alice.push(bytes(40_000))
        alice.push(bytes(40_000))
        assert len(carry(alice, bob)) == 2, f"at turn {n} there is no room"
        alice.on_frame(as_read(frames(bob)[0]), PLENTY)


def test_a_message_larger_than_the_window_goes_alone() -> None:
    alice, bob = acquainted(changed(CONFIG, window_bytes=1000))
    alice.push(bytes(5000))
    alice.push(b"next")
    assert carry(alice, bob) == [bytes(5000)]
    alice.on_frame(as_read(frames(bob)[0]), PLENTY)
    assert carry(alice, bob) == [b"next"]


# --- loss and retransmission ---


def test_what_is_not_acknowledged_is_sent_again_and_enqueued_once() -> None:
    alice, bob = acquainted()
    alice.push(b"m")
    assert carry(alice, bob, now=10.0) == [b"m"]
    frames(bob)  # the acknowledgement is lost
    assert alice.deadline == 10.0 + CONFIG.retransmit_s
    alice.on_timer(10.0 + CONFIG.retransmit_s)
    (again,) = frames(alice, 10.0 + CONFIG.retransmit_s)
    assert (again.seq0, again.messages) == (1, [b"m"])
    assert bob.on_frame(as_read(again), PLENTY)[0] == []
    (ack,) = frames(bob)
    assert ack.ack == 1
    assert len(alice.on_frame(as_read(ack), PLENTY)[1]) == 1


def test_the_pause_doubles_up_to_two_seconds_and_each_time_one_frame_knocks() -> None:
    alice, _ = acquainted()
    for n in range(600):
        alice.push(b"%d" % n)
    now, pauses = 0.0, []
    assert len(frames(alice, now)) == 3
    for _ in range(6):
        assert alice.deadline is not None
        pauses.append(alice.deadline - now)
        now = alice.deadline
        alice.on_timer(now)
        assert [(f.seq0, len(f.messages)) for f in frames(alice, now)] == [(1, 256)]
    assert pauses == pytest.approx([0.25, 0.5, 1.0, 2.0, 2.0, 2.0])


def test_while_it_knocks_nothing_new_goes_out_and_after_an_answer_all_does() -> None:
    alice, bob = acquainted(changed(CONFIG, frame_messages=2))
    for n in range(4):
        alice.push(b"%d" % n)
    frames(alice)  # lost
    alice.on_timer(9.0)
    alice.push(b"4")
    (probe,) = frames(alice, 9.0)
    assert probe.messages == [b"0", b"1"]
    bob.on_frame(as_read(probe), PLENTY)
    alice.on_frame(as_read(frames(bob)[0]), PLENTY)
    assert [f.messages for f in frames(alice, 9.1)] == [[b"2", b"3"], [b"4"]]
    assert alice.deadline == pytest.approx(9.1 + CONFIG.retransmit_s)


def test_an_answer_makes_it_patient_again() -> None:
    alice, bob = acquainted()
    alice.push(b"m")
    now = 0.0
    for _ in range(5):
        frames(alice, now)
        assert alice.deadline is not None
        now = alice.deadline
        alice.on_timer(now)
    carry(alice, bob, now)
    alice.on_frame(as_read(frames(bob)[0]), PLENTY)
    alice.push(b"n")
    frames(alice, now)
    assert alice.deadline == now + CONFIG.retransmit_s


def test_a_timer_that_comes_early_changes_nothing() -> None:
    alice, _ = acquainted()
    alice.on_timer(5.0)
    assert frames(alice, 5.0) == []
    alice.push(b"m")
    frames(alice, 5.0)
    alice.on_timer(5.2)
    assert frames(alice, 5.2) == []


def test_without_a_link_nothing_is_sent_again_until_the_next_hello() -> None:
    alice, bob = acquainted()
    message = alice.push(b"m")
    frames(alice)
    alice.on_link_lost()
    assert alice.deadline is None
    alice.on_timer(100.0)
    meet(alice, bob)
    assert carry(alice, bob) == [b"m"]
    assert alice.on_frame(as_read(frames(bob)[0]), PLENTY)[1] == delivered(message)


def test_hello_over_a_new_link_acknowledges_what_had_arrived() -> None:
    alice, bob = acquainted()
    arrived, lost = alice.push(b"arrived"), alice.push(b"lost")
    (frame,) = frames(alice)
    bob.on_frame(as_read(frame._replace(messages=frame.messages[:1])), PLENTY)
    assert meet(alice, bob) == delivered(arrived)
    assert carry(alice, bob) == [b"lost"]
    assert alice.on_frame(as_read(frames(bob)[0]), PLENTY)[1] == delivered(lost)


def test_a_frame_from_an_older_link_that_comes_late_is_a_duplicate() -> None:
    alice, bob = acquainted()
    alice.push(b"m")
    (old,) = frames(alice)
    meet(alice, bob)
    assert carry(alice, bob) == [b"m"]
    assert bob.on_frame(as_read(old), PLENTY)[0] == []


def test_what_comes_behind_a_gap_waits_for_the_gap() -> None:
    alice, bob = acquainted(changed(CONFIG, frame_messages=1))
    for n in range(3):
        alice.push(b"%d" % n)
    first, second, third = frames(alice)
    assert bob.on_frame(as_read(third), PLENTY)[0] == []
    assert bob.on_frame(as_read(first), PLENTY)[0] == [b"0"]
    assert bob.on_frame(as_read(third), PLENTY)[0] == []
    assert bob.on_frame(as_read(second), PLENTY)[0] == [b"1"]
    assert bob.on_frame(as_read(third), PLENTY)[0] == [b"2"]


# --- a receiver without room ---


def test_what_finds_no_room_is_not_acknowledged_and_comes_again() -> None:
    alice, bob = acquainted()
    messages = [alice.push(b"%d" % n) for n in range(5)]
    assert carry(alice, bob, room=2) == [b"0", b"1"]
    assert alice.on_frame(as_read(frames(bob)[0]), PLENTY)[1] == delivered(*messages[:2])
    frames(alice, 1.0)
    assert alice.deadline is not None
    alice.on_timer(alice.deadline)
    assert carry(alice, bob, now=2.0, room=0) == []
    assert alice.on_frame(as_read(frames(bob)[0]), PLENTY)[1] == []
    assert alice.deadline is not None
    alice.on_timer(alice.deadline)
    assert carry(alice, bob, now=3.0) == [b"2", b"3", b"4"]


def test_room_that_is_negative_is_no_room() -> None:
    alice, bob = acquainted()
    alice.push(b"m")
    assert carry(alice, bob, room=-3) == []


# --- nobody waits any more ---


def test_a_message_that_never_left_can_be_abandoned() -> None:
    alice, bob = acquainted()
    alice.push(b"1")
    second = alice.push(b"2")
    alice.push(b"3")
    assert alice.abandon(second)
    assert carry(alice, bob) == [b"1", b"3"]


def test_a_message_that_left_keeps_its_place() -> None:
    alice, bob = acquainted()
    first = alice.push(b"1")
    frames(alice)  # lost
    assert not alice.abandon(first)
    alice.push(b"2")
    meet(alice, bob)
    assert carry(alice, bob) == [b"1", b"2"]


def test_giving_up_gives_back_what_never_left() -> None:
    alice, bob = acquainted(changed(CONFIG, window_messages=1))
    sent, waiting = alice.push(b"sent"), alice.push(b"waiting")
    frames(alice)
    assert alice.give_up() == [waiting]
    assert alice.queued == 1
    meet(alice, bob)
    assert carry(alice, bob) == [b"sent"]
    assert alice.on_frame(as_read(frames(bob)[0]), PLENTY)[1] == delivered(sent)


# --- processes and memories ---


def test_the_first_hello_remembers_nobody() -> None:
    assert Machine(CONFIG, ALICE).hello(b"record") == Hello(0, b"record", b"", 0, 0)


def test_a_later_hello_says_where_we_were() -> None:
    alice, bob = acquainted()
    alice.push(b"1")
    carry(alice, bob)
    alice.on_frame(as_read(frames(bob)[0]), PLENTY)
    alice.push(b"2")
    assert alice.hello(b"record") == Hello(0, b"record", BOB, 2, 1)
    assert bob.hello(b"record") == Hello(0, b"record", ALICE, 1, 2)


def test_a_new_process_begins_at_one_and_the_old_one_s_messages_are_unknown() -> None:
    alice, bob = acquainted()
    alice.push(b"done")
    carry(alice, bob)
    alice.on_frame(as_read(frames(bob)[0]), PLENTY)
    lost = alice.push(b"lost")
    frames(alice)
    never_left = alice.push(b"never left")
    reborn = Machine(CONFIG, b"bob---02")
    assert meet(alice, reborn) == unknown(lost)
    assert alice.their_incarnation == b"bob---02"
    assert carry(alice, reborn) == [b"never left"]
    assert alice.on_frame(as_read(frames(reborn)[0]), PLENTY)[1] == delivered(never_left)


def test_what_a_new_process_sends_is_not_taken_for_the_old_one_s() -> None:
    alice, bob = acquainted()
    bob.push(b"before")
    assert carry(bob, alice) == [b"before"]
    reborn = Machine(CONFIG, b"bob---02")
    reborn.push(b"after")
    meet(reborn, alice)
    assert carry(reborn, alice) == [b"after"]


@pytest.mark.parametrize("who_dials", ["the one that forgot", "the one that remembers"])
def test_one_side_may_forget_a_pair_that_was_idle(who_dials: str) -> None:
    alice, bob = acquainted()
    for sender, receiver in [(alice, bob), (bob, alice)]:
        sender.push(b"early")
        carry(sender, receiver)
        sender.on_frame(as_read(frames(receiver)[0]), PLENTY)
    carry(alice, bob)
    carry(bob, alice)
    forgetful = Machine(CONFIG, ALICE)
    if who_dials == "the one that forgot":
        meet(forgetful, bob)
    else:
        meet(bob, forgetful)
    forgetful.push(b"to bob")
    bob.push(b"to alice")
    assert carry(forgetful, bob) == [b"to bob"]
    assert carry(bob, forgetful) == [b"to alice"]


def test_a_hello_that_speaks_of_another_incarnation_says_nothing_of_ours() -> None:
    alice, _ = acquainted()
    message = alice.push(b"m")
    frames(alice)
    stale = Hello(0, b"", b"alice-00", 5, 2)  # it would acknowledge, and skip
    assert alice.on_hello(stale, BOB) == []
    assert alice.hello(b"") == Hello(0, b"", BOB, 1, 1)
    assert not alice.abandon(message)


# Who forgets a pair keeps its memory: else it would take the other's unacknowledged messages for new ones.
def test_a_message_is_not_enqueued_twice_after_the_receiver_forgot_the_pair() -> None:
    alice, bob = acquainted()
    alice.push(b"m")
    assert carry(alice, bob) == [b"m"]
    frames(bob)  # the acknowledgement is lost with the link
    alice.on_link_lost()
    bob.on_link_lost()
    assert not bob.queued  # so `Messenger` may forget the pair
    forgetful = Machine(CONFIG, BOB, bob.memory())
    meet(alice, forgetful)
    assert carry(alice, forgetful) == []
    assert not alice.queued


# --- what a stranger may say ---

huge = st.sampled_from([0, 1, 2, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 257, 2**64 - 1]) | st.integers(
    0, 2**64 - 1
)
strange_hellos = st.builds(Hello, st.just(0), st.just(b""), st.sampled_from([b"", ALICE, BOB, b"1"]), huge, huge)
strange_frames = st.builds(MessageFrame, huge, huge, st.lists(st.just(b"m"), max_size=3), st.just([]))


def test_an_acknowledgement_of_what_was_never_sent_is_ignored() -> None:
    alice, _ = acquainted()
    message = alice.push(b"m")
    assert alice.on_frame(MessageFrame(0, 1, [], []), PLENTY)[1] == []  # it has not left yet
    frames(alice)
    for ack in [2, 3, 2**63, 2**64 - 1]:
        assert alice.on_frame(MessageFrame(0, ack, [], []), PLENTY)[1] == []
        assert alice.on_hello(Hello(0, b"", ALICE, 1, min(ack + 1, 2**64 - 1)), BOB) == []
        frames(alice)
    assert alice.on_frame(MessageFrame(0, 1, [], []), PLENTY)[1] == delivered(message)


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 100, 2**64 - 1])
def test_whoever_claims_to_be_at_the_end_of_all_numbers_does_not_take_us_there(number: int) -> None:
    for base, expect in [(number, 1), (1, number), (number, number)]:
        alice = Machine(CONFIG, ALICE)
        alice.on_hello(Hello(0, b"", ALICE, base, expect), BOB)
        alice.on_frame(MessageFrame(base, 0, [b"m"] * 256, []), PLENTY)
        for _ in range(600):
            alice.push(b"m")
        assert sum(len(as_read(frame).messages) for frame in frames(alice)) == 600
        assert as_read(Frame(0, 0, 0, [], [alice.hello(b"")])).specials == [alice.hello(b"")]


@given(st.lists(strange_hellos | strange_frames, max_size=12), st.integers(0, 3))
def test_no_number_of_a_stranger_makes_us_raise_or_count_beyond_64_bits(
    said: list[Hello | MessageFrame], pushed: int
) -> None:
    alice = Machine(CONFIG, ALICE)
    alice.on_hello(Hello(0, b"", b"", 0, 0), BOB)
    now = 0.0
    for _ in range(pushed):
        alice.push(b"m")
    for word in said:
        if isinstance(word, Hello):
            alice.on_hello(word, BOB)
        else:
            accepted, _ = alice.on_frame(word, PLENTY)
            assert len(accepted) <= len(word.messages)
        alice.push(b"m")
        for frame in frames(alice, now):
            assert read_frame(write_frame(frame)).messages == frame.messages
        hello = alice.hello(b"")
        assert read_frame(write_frame(Frame(0, 0, 0, [], [hello]))).specials == [hello]
        now = alice.deadline or now
        alice.on_timer(now)


# --- the courier ---

SMALL = changed(
    CONFIG, window_messages=6, window_bytes=40, frame_messages=3, frame_bytes=30, inbox_messages=5, max_waiting=12
)


@dataclass(eq=False)
class Line:
    """A link. What is under way in it comes out in order, or never."""

    dialler: int
    generations: tuple[int, int]
    """Which process stands at each end."""
    under_way: tuple[deque[bytes], deque[bytes]] = field(default_factory=lambda: (deque(), deque()))
    """Frames on their way to end 0 and to end 1."""
    ended: bool = False
    """Nothing more goes in."""
    left: set[int] = field(default_factory=set)
    """Ends that know that it has ended."""


class Side:
    """A peer with its inbox and what `Messenger` does for a pair: which links it has, and when it greets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.generation = 0
        self.next_number = 0
        self.inbox: deque[int] = deque()
        self.enqueued: list[tuple[bytes, int]] = []
        """(incarnation of the sender, number) of all that this incarnation took."""
        self.history: dict[bytes, list[tuple[bytes, int]]] = {}
        """`enqueued` of each incarnation."""
        self.begin()

    @property
    def incarnation(self) -> bytes:
        return f"{self.name}{self.generation:07}".encode()

    def begin(self) -> None:
        """A new process."""
        self.generation += 1
        self.lines: list[Line] = []
        """Those that passed HELLO; the last one is used."""
        self.pending: dict[Outgoing, int] = {}
        self.sent_to: dict[Outgoing, bytes] = {}
        """To which incarnation a message went first."""
        self.outcomes: dict[int, Outcome] = {}
        self.inbox.clear()
        self.enqueued = self.history[self.incarnation] = []
        self.meet(None)

    def meet(self, memory: Memory | None) -> None:
        """Begin with the other, knowing this of it."""
        self.delivery = Delivery(SMALL, self.incarnation, memory)
        self.their_generation = 0

    @property
    def unacknowledged(self) -> int:
        return sum(1 for message in self.pending if message.was_sent)


class Courier:
    """Carries frames between two sides, badly, and holds every step against what was promised."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sides = (Side("a"), Side("b"))
        self.lines: list[Line] = []
        self.dropped: set[int] = set()
        """Messages that were abandoned or given up: they must never arrive."""

    # --- what may happen ---

    def push(self, who: int) -> None:
        side = self.sides[who]
        if side.delivery.queued >= SMALL.max_waiting:
            return
        number = side.next_number
        side.next_number += 1
        side.pending[side.delivery.push(b"%d" % number)] = number
        self.flush(who)

    def abandon(self, which: int) -> None:
        """Nobody waits for one of the messages any more."""
        who = which % 2
        side = self.sides[who]
        if side.pending:
            message = list(side.pending)[which // 2 % len(side.pending)]
            if side.delivery.abandon(message):
                self.dropped.add(self.unique(who, side.pending.pop(message)))

    def give_up(self, who: int) -> None:
        """Dialling led nowhere."""
        side = self.sides[who]
        if not side.lines:
            for message in side.delivery.give_up():
                self.dropped.add(self.unique(who, side.pending.pop(message)))

    def dial(self, who: int) -> None:
        if len(self.lines) < 4:
            line = Line(who, (self.sides[0].generation, self.sides[1].generation))
            self.lines.append(line)
            self.greet(line, who)

    def deliver(self, which: int) -> None:
        """The next frame of a line arrives."""
        if self.lines:
            self.arrive(self.lines[which // 2 % len(self.lines)], which % 2)

    def cut(self, which: int) -> None:
        """A line breaks; what was under way is lost. Both will notice, each in its time."""
        if self.lines:
            self.end(self.lines[which % len(self.lines)], 0, 1)

    def notice(self, who: int) -> None:
        for line in [line for line in self.lines if line.ended and who not in line.left]:
            self.leave(line, who)

    def tick(self, who: int) -> None:
        """Time passes until this side's timer runs out."""
        side = self.sides[who]
        deadline = side.delivery.deadline
        if deadline is not None:
            self.now = max(self.now, deadline)
            side.delivery.on_timer(self.now)
            self.flush(who)

    def read(self, who: int) -> None:
        """The app takes what is in its inbox."""
        self.sides[who].inbox.clear()

    def restart(self, who: int) -> None:
        """The process dies, and another begins. What the old one said last may still arrive."""
        for line in self.lines:
            if line.generations[who] == self.sides[who].generation:
                self.end(line, who)
                line.left.add(who)
        self.sides[who].begin()
        self.sweep()

    def forget(self, who: int) -> None:
        """As `Messenger` does: of a pair without links and with nothing queued, only its memory is kept."""
        if self.is_idle(who):
            self.sides[who].meet(self.sides[who].delivery.memory())

    def forget_all(self, who: int) -> None:
        """Of more peers than can be remembered, nothing is kept. What the other had sent by then may come twice."""
        if self.is_idle(who) and not self.sides[1 - who].unacknowledged:
            self.sides[who].meet(None)

    def is_idle(self, who: int) -> bool:
        side = self.sides[who]
        dialling = any(line.dialler == who and who not in line.left for line in self.lines)
        return not (side.lines or dialling or side.delivery.queued)

    # --- how it happens ---

    @staticmethod
    def unique(who: int, number: int) -> int:
        return 2 * number + who

    def greet(self, line: Line, who: int) -> None:
        hello = self.sides[who].delivery.hello(self.sides[who].incarnation)
        self.send(line, who, Frame(0, 0, 0, [], [hello]))

    def send(self, line: Line, who: int, frame: Frame) -> None:
        if not line.ended:
            line.under_way[1 - who].append(write_frame(frame))

    def flush(self, who: int) -> None:
        side = self.sides[who]
        if not side.lines:
            return
        while (frame := side.delivery.take_frame(self.now)) is not None:
            assert len(frame.messages) <= SMALL.frame_messages
            size = sum(len(data) + 5 for data in frame.messages)
            assert size <= SMALL.frame_bytes or len(frame.messages) == 1
            self.send(side.lines[-1], who, frame)
        for message in side.pending:
            if message.was_sent:
                side.sent_to.setdefault(message, side.delivery.their_incarnation)
        assert side.unacknowledged <= SMALL.window_messages
        assert side.delivery.queued <= SMALL.max_waiting

    def arrive(self, line: Line, to: int) -> None:
        if to in line.left or not line.under_way[to]:
            return
        frame = read_frame(line.under_way[to].popleft())
        side = self.sides[to]
        for special in frame.specials:
            assert isinstance(special, Hello)
            if not self.greeted(line, to, special):
                return
        room = SMALL.inbox_messages - len(side.inbox)
        accepted, settled = side.delivery.on_frame(frame, room)
        assert len(accepted) <= room
        for data in accepted:
            self.enqueue(to, int(data))
        self.settle(to, settled)
        self.flush(to)

    def greeted(self, line: Line, to: int, hello: Hello) -> bool:
        """A HELLO came; False if it is that of an old process, after a newer one's."""
        side = self.sides[to]
        generation = int(hello.record[1:])
        if generation < side.their_generation:
            self.leave(line, to)
            return False
        if generation > side.their_generation:
            for old in list(side.lines):
                self.leave(old, to)
        side.their_generation = generation
        side.lines.append(line)
        self.settle(to, side.delivery.on_hello(hello, hello.record))
        if line.dialler != to:
            self.greet(line, to)
        return True

    def enqueue(self, to: int, number: int) -> None:
        side = self.sides[to]
        sender = side.delivery.their_incarnation
        assert (sender, number) not in side.enqueued, "enqueued twice"
        assert self.unique(1 - to, number) not in self.dropped, "what was dropped arrived"
        earlier = [n for incarnation, n in side.enqueued if incarnation == sender]
        assert not earlier or earlier[-1] < number, "out of order"
        side.enqueued.append((sender, number))
        side.inbox.append(number)
        assert len(side.inbox) <= SMALL.inbox_messages

    def settle(self, who: int, settled: list[Settled]) -> None:
        side, other = self.sides[who], self.sides[1 - who]
        for message, outcome in settled:
            number = side.pending.pop(message)
            side.outcomes[number] = outcome
            receiver = side.sent_to[message]
            if outcome is Outcome.DELIVERED:
                took = other.history[receiver]
                assert took.count((side.incarnation, number)) == 1, "acknowledged, but not enqueued once"
            else:
                assert receiver != other.incarnation, "unknown, though the receiver was not started again"

    def end(self, line: Line, *lost: int) -> None:
        """Nothing more goes into the line, and what was on its way to `lost` never arrives."""
        line.ended = True
        for to in lost:
            line.under_way[to].clear()

    def leave(self, line: Line, who: int) -> None:
        """This side has done with the line."""
        self.end(line, who)
        line.left.add(who)
        side = self.sides[who]
        if line in side.lines:
            side.lines.remove(line)
            if not side.lines:
                side.delivery.on_link_lost()
        self.sweep()

    def sweep(self) -> None:
        self.lines = [line for line in self.lines if len(line.left) < 2]

    # --- the weather clears ---

    def clear_up(self) -> None:
        """No more restarts, no more cuts, everybody reads: all that is pending must come to an end."""
        for line in list(self.lines):
            self.leave(line, 0)
            self.leave(line, 1)
        self.dial(0)
        for _ in range(40):
            while any(self.lines[0].under_way):
                for who in (0, 1):
                    self.read(who)
                    self.arrive(self.lines[0], who)
            if not any(side.pending for side in self.sides):
                break
            self.tick(0)
            self.tick(1)
        for side in self.sides:
            assert not side.pending, f"{side.name} still waits for {list(side.pending.values())}"
            assert side.delivery.queued == 0
            assert side.delivery.deadline is None


WEIGHTS = {
    "deliver": 50,
    "push": 18,
    "tick": 8,
    "dial": 6,
    "notice": 6,
    "read": 6,
    "cut": 3,
    "forget": 4,
    "forget_all": 2,
    "abandon": 2,
    "give_up": 1,
    "restart": 1,
}
STEPS = [step for step, weight in WEIGHTS.items() for _ in range(weight)]
journeys = st.binary(min_size=600, max_size=600)
"""Two bytes are one step: what happens, and to whom or what."""


def travel(courier: Courier, journey: bytes, never: str = "") -> None:
    for what, which in zip(journey[::2], journey[1::2], strict=True):
        name = STEPS[what % len(STEPS)]
        step = getattr(courier, name)
        whom = which if name in ("deliver", "cut", "abandon") else which % 2
        if name == never or (name in ("deliver", "cut") and not courier.lines):
            continue
        note(f"{name} {whom}")
        step(whom)


@settings(max_examples=200)
@given(journeys)
def test_whatever_the_courier_does_nothing_is_lost_doubled_or_reordered(journey: bytes) -> None:
    courier = Courier()
    travel(courier, journey)
    courier.clear_up()


@settings(max_examples=100)
@given(journeys)
def test_without_restarts_everything_is_delivered(journey: bytes) -> None:
    courier = Courier()
    travel(courier, journey, never="restart")
    courier.clear_up()
    for side in courier.sides:
        assert set(side.outcomes.values()) <= {Outcome.DELIVERED}
