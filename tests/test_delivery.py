"""Delivery: what is acknowledged was taken, once and in order, whatever becomes of links and processes.

First two machines talk plainly; then a courier that hypothesis drives does its worst to them. What either half does by
itself is in test_outflow.py and test_inflow.py.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from dataclasses import replace as changed
from math import inf
from random import Random

import msgspec
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from dht_atonce.config import MessagingConfig
from dht_atonce.errors import DeliveryUnknown, NotAccepted
from dht_atonce.messaging.delivery import Delivery, Memory
from dht_atonce.messaging.frames import Frame, Held, Hello, Window, read_frame, write_frame
from dht_atonce.messaging.receipts import Receipt, State

CONFIG = MessagingConfig()
ALICE, BOB = b"alice-01", b"bob---01"
PLENTY = 100_000


class Machine(Delivery):
    """A `Delivery` that says which incarnation it is, and an app with so much room."""

    def __init__(self, config: MessagingConfig, own_incarnation: bytes, memory: Memory | None = None) -> None:
        super().__init__(config, own_incarnation, memory)
        self.incarnation = own_incarnation
        self.free = PLENTY

    def say(self, data: bytes) -> Receipt:
        return self.outflow.push(data, 0, inf)

    def frames(self, now: float = 0.0) -> list[Frame]:
        """All that it wants to send now."""
        taken = []
        while (frame := self.take_frame(now, self.free)) is not None:
            taken.append(frame)
        return taken

    def hear(self, frame: Frame) -> list[bytes]:
        """A frame arrives; gives what is new."""
        taken, _ = self.on_frame(read_frame(write_frame(frame)), lambda _: self.free)
        return [data for one in taken for data in one.messages]


def acquainted(config: MessagingConfig = CONFIG) -> tuple[Machine, Machine]:
    """Two that have exchanged HELLOs, with nothing left to say."""
    alice, bob = Machine(config, ALICE), Machine(config, BOB)
    meet(alice, bob)
    while carry(alice, bob) or carry(bob, alice) or alice.inflow.ack_due or bob.inflow.ack_due:
        pass
    return alice, bob


def meet(dialler: Machine, listener: Machine) -> None:
    """A new link: the dialler speaks first."""
    listener.on_hello(dialler.hello(b""), dialler.incarnation)
    dialler.on_hello(listener.hello(b""), listener.incarnation)


def carry(sender: Machine, receiver: Machine, now: float = 0.0) -> list[bytes]:
    """Bring all that the sender has to say; gives what the receiver took."""
    return [data for frame in sender.frames(now) for data in receiver.hear(frame)]


def states(*receipts: Receipt) -> list[State]:
    return [receipt.state for receipt in receipts]


# --- the plain case ---


def test_a_message_goes_over_and_its_acknowledgement_comes_back() -> None:
    alice, bob = acquainted()
    message = alice.say(b"hello")
    assert message.state is State.QUEUED
    (sent,) = alice.frames()
    assert sent == Frame(0, 1, 0, [b"hello"], [], unhurried=True)
    assert message.state is State.SENT
    assert bob.hear(sent) == [b"hello"]
    (reply,) = bob.frames()
    assert reply == Frame(0, 0, 1, [], [])  # nothing to say: the acknowledgement goes alone
    assert alice.hear(reply) == []
    assert message.state is State.DELIVERED
    assert alice.frames() == []  # an acknowledgement is not acknowledged
    assert alice.outflow.queued == 0
    assert alice.outflow.deadline == inf


def test_acknowledgements_ride_along() -> None:
    alice, bob = acquainted()
    ping = alice.say(b"ping")
    assert carry(alice, bob) == [b"ping"]
    bob.say(b"pong")
    (frame,) = bob.frames()
    assert (frame.ack, frame.messages) == (1, [b"pong"])
    assert alice.hear(frame) == [b"pong"]
    assert ping.state is State.DELIVERED


def test_both_speak_at_the_same_time() -> None:
    alice, bob = acquainted()
    to_bob, to_alice = alice.say(b"to bob"), bob.say(b"to alice")
    (from_alice,), (from_bob,) = alice.frames(), bob.frames()
    assert bob.hear(from_alice) == [b"to bob"]
    assert alice.hear(from_bob) == [b"to alice"]
    assert carry(alice, bob) == carry(bob, alice) == []
    assert states(to_bob, to_alice) == [State.DELIVERED] * 2
    assert alice.frames() == bob.frames() == []


def test_one_acknowledgement_is_enough_for_many() -> None:
    alice, bob = acquainted()
    messages = [alice.say(b"%d" % n) for n in range(700)]
    assert carry(alice, bob) == [b"%d" % n for n in range(700)]
    (ack,) = bob.frames()
    alice.hear(ack)
    assert set(states(*messages)) == {State.DELIVERED}


def test_what_was_withdrawn_travels_as_nothing() -> None:
    alice, bob = acquainted()
    one, two, three = alice.say(b"1"), alice.say(b"2"), alice.say(b"3")
    assert alice.outflow.withdraw(two)
    (frame,) = alice.frames()
    assert (frame.seq0, frame.messages) == (1, [b"1", None, b"3"])
    assert bob.hear(frame) == [b"1", b"3"]
    carry(bob, alice)
    assert states(one, two, three) == [State.DELIVERED, State.EXPIRED, State.DELIVERED]


def test_each_kind_has_its_own_frames_and_all_have_one_order() -> None:
    alice, bob = acquainted()
    for number, kind in enumerate([0, 0, 7, 0]):
        alice.outflow.push(b"%d" % number, kind, inf)
    sent = alice.frames()
    assert [(f.kind, f.seq0, f.messages) for f in sent] == [(0, 1, [b"0", b"1"]), (7, 3, [b"2"]), (0, 4, [b"3"])]
    assert [bob.hear(frame) for frame in sent] == [[b"0", b"1"], [b"2"], [b"3"]]


# --- loss and what has no room ---


def test_what_is_not_acknowledged_is_sent_again_and_taken_once() -> None:
    alice, bob = acquainted()
    message = alice.say(b"m")
    assert carry(alice, bob, now=10.0) == [b"m"]
    bob.frames()  # the acknowledgement is lost
    alice.outflow.on_timer(10.0 + CONFIG.retransmit_s)
    (again,) = alice.frames(10.0 + CONFIG.retransmit_s)
    assert (again.seq0, again.messages) == (1, [b"m"])
    assert bob.hear(again) == []
    assert carry(bob, alice) == []
    assert message.state is State.DELIVERED


def test_hello_over_a_new_link_acknowledges_what_had_arrived() -> None:
    alice, bob = acquainted()
    arrived, lost = alice.say(b"arrived"), alice.say(b"lost")
    (frame,) = alice.frames()
    bob.hear(msgspec.structs.replace(frame, messages=frame.messages[:1]))
    meet(alice, bob)
    assert states(arrived, lost) == [State.DELIVERED, State.SENT]
    assert carry(alice, bob) == [b"lost"]
    carry(bob, alice)
    assert lost.state is State.DELIVERED


def test_a_frame_from_an_older_link_that_comes_late_is_a_duplicate() -> None:
    alice, bob = acquainted()
    alice.say(b"m")
    (old,) = alice.frames()
    meet(alice, bob)
    assert carry(alice, bob) == [b"m"]
    assert bob.hear(old) == []


def test_a_gap_is_named_and_only_the_gap_is_sent_again() -> None:
    alice, bob = acquainted(changed(CONFIG, frame_messages=1))
    for n in range(4):
        alice.say(b"%d" % n)
    sent = alice.frames()
    assert bob.hear(sent[0]) == [b"0"]
    assert bob.hear(sent[2]) == bob.hear(sent[3]) == []  # sent[1] found no way
    (reply,) = bob.frames()
    assert (reply.ack, reply.specials) == (1, [Held([(3, 1), (4, 1)])])
    alice.hear(reply)
    alice.outflow.rewind()
    (again,) = alice.frames(1.0)
    assert again.messages == [b"1"]
    assert bob.hear(again) == [b"1", b"2", b"3"]
    carry(bob, alice)
    assert alice.outflow.queued == 0


def test_what_finds_no_room_is_not_acknowledged_and_comes_again() -> None:
    alice, bob = acquainted()
    messages = [alice.say(b"%d" % n) for n in range(5)]
    bob.free = 2
    assert carry(alice, bob) == [b"0", b"1"]
    carry(bob, alice)
    assert states(*messages) == [State.DELIVERED] * 2 + [State.SENT] * 3
    bob.free = 0
    alice.frames(1.0)
    for now in (2.0, 3.0):
        alice.outflow.on_timer(now)
        assert carry(alice, bob, now) == []
        carry(bob, alice, now)
    bob.free = PLENTY
    alice.outflow.on_timer(6.0)
    assert carry(alice, bob, 6.0) == [b"2", b"3", b"4"]


def test_a_frame_for_which_a_link_has_no_room_is_taken_again() -> None:
    alice, bob = acquainted()
    alice.say(b"m")
    bob.say(b"n")
    carry(bob, alice)
    frame = alice.take_frame(0.0, PLENTY)
    assert frame is not None
    alice.untake_frame(frame)
    again = alice.take_frame(0.0, PLENTY)
    assert again is not None
    assert (again.seq0, again.ack, again.messages) == (1, 1, [b"m"])


# --- windows ---

NARROW = changed(CONFIG, frame_messages=4, first_window=8, window_step=4)


def blocked(alice: Machine, bob: Machine) -> None:
    """Alice has said as much as the first window lets her, and Bob has no more room."""
    bob.free = 0
    for n in range(20):
        alice.say(b"%d" % n)
    sent = alice.frames()
    assert sum(len(frame.messages) for frame in sent) == 8
    bob.free = 8
    for frame in sent:
        bob.hear(frame)
        bob.free -= len(frame.messages)
    carry(bob, alice)
    assert alice.frames() == []
    assert alice.outflow.queued == 12


def test_who_has_no_room_is_sent_no_more_until_he_says_so() -> None:
    alice, bob = Machine(NARROW, ALICE), Machine(NARROW, BOB)
    bob.free = 0
    meet(alice, bob)
    blocked(alice, bob)
    carry(bob, alice)
    assert alice.frames() == []
    bob.free = 5
    (word,) = bob.frames()
    assert word.specials == [Window(13)]
    alice.hear(word)
    assert carry(alice, bob) == [b"8", b"9", b"10", b"11"]
    bob.free = 1
    carry(bob, alice)
    assert alice.frames() == []  # a whole frame goes, or none


def test_who_has_no_room_says_so_over_each_new_link() -> None:
    alice, bob = Machine(NARROW, ALICE), Machine(NARROW, BOB)
    bob.free = 0
    meet(alice, bob)
    (word,) = bob.frames()
    assert word.specials == [Window(0)]
    alice.hear(word)
    alice.frames()
    receipt = alice.say(b"m")
    assert alice.frames(1.0) == []
    alice.outflow.on_timer(alice.outflow.deadline)
    assert [frame.messages for frame in alice.frames(2.0)] == [[b"m"]]  # one, to see whether it is so
    assert receipt.state is State.SENT


def test_what_found_no_room_is_sent_again_when_there_is_some_and_nothing_else() -> None:
    alice, bob = Machine(NARROW, ALICE), Machine(NARROW, BOB)
    meet(alice, bob)
    carry(bob, alice)  # room for all
    for n in range(40):
        alice.say(b"%d" % n)
    bob.free = 10
    heard = []
    for frame in alice.frames():
        new = bob.hear(frame)
        heard += new
        bob.free -= len(new)
    bob.inflow.untell()  # as the messenger has it when not all is taken
    assert heard == [b"%d" % n for n in range(10)]
    carry(bob, alice)
    assert alice.frames() == []
    bob.free = 6
    carry(bob, alice)
    (again,) = alice.frames()
    assert again.messages == [b"10", b"11"]  # the next ones he holds
    assert bob.hear(again) == [b"%d" % n for n in range(10, 16)]


def test_room_is_told_again_over_a_new_link() -> None:
    # It was said over the old one, and lost with it.
    alice, bob = Machine(NARROW, ALICE), Machine(NARROW, BOB)
    bob.free = 0
    meet(alice, bob)
    blocked(alice, bob)
    bob.free = 12
    assert [frame.specials for frame in bob.frames()] == [[Window(20)]]  # lost
    alice.outflow.on_link_lost()
    meet(alice, bob)
    carry(bob, alice)
    assert carry(alice, bob) == [b"%d" % n for n in range(8, 20)]


def test_room_is_told_again_when_another_link_takes_over() -> None:
    alice, bob = Machine(NARROW, ALICE), Machine(NARROW, BOB)
    bob.free = 0
    meet(alice, bob)
    blocked(alice, bob)
    bob.free = 12
    assert [frame.specials for frame in bob.frames()] == [[Window(20)]]  # lost
    alice.on_switched()
    bob.on_switched()
    carry(bob, alice)
    assert carry(alice, bob) == [b"%d" % n for n in range(8, 20)]


def test_who_forgot_a_pair_tells_its_room_anew() -> None:
    alice, bob = Machine(NARROW, ALICE), Machine(NARROW, BOB)
    bob.free = 0
    meet(alice, bob)
    blocked(alice, bob)
    alice.outflow.on_link_lost()
    forgetful = Machine(NARROW, BOB, bob.memory())
    forgetful.free = 6  # less than its first window, of which Alice knows nothing
    meet(alice, forgetful)
    carry(forgetful, alice)
    assert carry(alice, forgetful) == [b"8", b"9", b"10", b"11"]


def test_a_frame_for_which_there_is_never_room_as_a_whole_is_taken_in_parts() -> None:
    # The receiver's frames are smaller than ours: waiting for room for all of one would be for ever.
    alice, bob = Machine(NARROW, ALICE), Machine(NARROW, BOB)
    bob.free = 0
    meet(alice, bob)
    blocked(alice, bob)
    took: list[bytes] = []
    now = 0.0
    while alice.outflow.queued and now < 60:
        bob.free = 2
        carry(bob, alice, now)
        alice.frames(now) or alice.outflow.on_timer(now)
        for frame in alice.frames(now):
            new = bob.hear(frame)
            bob.free -= len(new)
            took += new
        now += 0.25
    assert took == [b"%d" % n for n in range(8, 20)]


# --- processes and memories ---


def test_the_first_hello_remembers_nobody() -> None:
    assert Machine(CONFIG, ALICE).hello(b"record") == Hello(0, b"record", b"", 0, 0)


def test_a_later_hello_says_where_we_were() -> None:
    alice, bob = acquainted()
    alice.say(b"1")
    carry(alice, bob)
    carry(bob, alice)
    alice.say(b"2")
    assert alice.hello(b"record") == Hello(0, b"record", BOB, 2, 1)
    assert bob.hello(b"record") == Hello(0, b"record", ALICE, 1, 2)


def test_a_new_process_begins_at_one_and_the_old_one_s_messages_are_unknown() -> None:
    alice, bob = acquainted()
    done = alice.say(b"done")
    carry(alice, bob)
    carry(bob, alice)
    lost = alice.say(b"lost")
    alice.frames()
    never_left = alice.say(b"never left")
    reborn = Machine(CONFIG, b"bob---02")
    meet(alice, reborn)
    assert states(done, lost, never_left) == [State.DELIVERED, State.UNKNOWN, State.QUEUED]
    assert alice.their_incarnation == b"bob---02"
    assert carry(alice, reborn) == [b"never left"]
    carry(reborn, alice)
    assert states(lost, never_left) == [State.UNKNOWN, State.DELIVERED]


def test_what_a_new_process_sends_is_not_taken_for_the_old_one_s() -> None:
    alice, bob = acquainted()
    bob.say(b"before")
    assert carry(bob, alice) == [b"before"]
    reborn = Machine(CONFIG, b"bob---02")
    reborn.say(b"after")
    meet(reborn, alice)
    assert carry(reborn, alice) == [b"after"]


@pytest.mark.parametrize("who_dials", ["the one that forgot", "the one that remembers"])
def test_one_side_may_forget_a_pair_that_was_idle(who_dials: str) -> None:
    alice, bob = acquainted()
    for sender, receiver in [(alice, bob), (bob, alice)]:
        sender.say(b"early")
        carry(sender, receiver)
        carry(receiver, sender)
    carry(alice, bob)
    carry(bob, alice)
    forgetful = Machine(CONFIG, ALICE)
    if who_dials == "the one that forgot":
        meet(forgetful, bob)
    else:
        meet(bob, forgetful)
    forgetful.say(b"to bob")
    bob.say(b"to alice")
    assert carry(forgetful, bob) == [b"to bob"]
    assert carry(bob, forgetful) == [b"to alice"]


def test_a_hello_that_speaks_of_another_incarnation_says_nothing_of_ours() -> None:
    alice, _ = acquainted()
    message = alice.say(b"m")
    alice.frames()
    stale = Hello(0, b"", b"alice-00", 5, 2)  # it would acknowledge, and skip
    assert alice.on_hello(stale, BOB) == []
    assert alice.hello(b"") == Hello(0, b"", BOB, 1, 1)
    assert message.state is State.SENT


# Who forgets a pair keeps its memory: else it would take the other's unacknowledged messages for new ones.
def test_a_message_is_not_taken_twice_after_the_receiver_forgot_the_pair() -> None:
    alice, bob = acquainted()
    alice.say(b"m")
    assert carry(alice, bob) == [b"m"]
    bob.frames()  # the acknowledgement is lost with the link
    alice.outflow.on_link_lost()
    bob.outflow.on_link_lost()
    assert bob.is_idle  # so `Messenger` may forget the pair
    forgetful = Machine(CONFIG, BOB, bob.memory())
    meet(alice, forgetful)
    assert carry(alice, forgetful) == []
    assert alice.outflow.queued == 0


# --- what a stranger may say ---

huge = st.sampled_from([0, 1, 2, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 257, 2**64 - 1]) | st.integers(
    0, 2**64 - 1
)
strange_hellos = st.builds(Hello, st.just(0), st.just(b""), st.sampled_from([b"", ALICE, BOB, b"1"]), huge, huge)
strange_specials = st.builds(Window, huge) | st.builds(Held, st.lists(st.tuples(huge, huge), max_size=3))
strange_frames = st.builds(
    Frame,
    st.integers(0, 1),
    huge,
    huge,
    st.lists(st.sampled_from([b"m", None]), max_size=3),
    st.lists(strange_specials, max_size=2),
)


def test_an_acknowledgement_of_what_was_never_sent_is_ignored() -> None:
    alice, _ = acquainted()
    message = alice.say(b"m")
    alice.hear(Frame(0, 0, 1, [], []))
    assert message.state is State.QUEUED
    alice.frames()
    for ack in [2, 3, 2**63, 2**64 - 1]:
        alice.hear(Frame(0, 0, ack, [], []))
        assert alice.on_hello(Hello(0, b"", ALICE, 1, min(ack + 1, 2**64 - 1)), BOB) == []
        alice.frames()
        assert message.state is State.SENT
    alice.hear(Frame(0, 0, 1, [], []))
    assert message.state is State.DELIVERED


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 100, 2**64 - 1])
def test_whoever_claims_to_be_at_the_end_of_all_numbers_does_not_take_us_there(number: int) -> None:
    for base, expect in [(number, 1), (1, number), (number, number)]:
        alice = Machine(CONFIG, ALICE)
        alice.on_hello(Hello(0, b"", ALICE, base, expect), BOB)
        alice.hear(Frame(0, base, 0, [b"m"] * 256, [Window(number)]))
        for _ in range(600):
            alice.say(b"m")
        sent = alice.frames()
        # Nothing is sent to who says that he has room up to a number that lies behind us.
        has_room = alice.outflow.base + 600 <= min(number, 2**63)
        assert sum(len(read_frame(write_frame(frame)).messages) for frame in sent) == (600 if has_room else 0)
        hello = alice.hello(b"")
        assert read_frame(write_frame(Frame(0, 0, 0, [], [hello]))).specials == [hello]


@given(st.lists(strange_hellos | strange_frames, max_size=12), st.integers(0, 3))
def test_no_number_of_a_stranger_makes_us_raise_or_count_beyond_64_bits(said: list[Hello | Frame], pushed: int) -> None:
    alice = Machine(CONFIG, ALICE)
    alice.on_hello(Hello(0, b"", b"", 0, 0), BOB)
    now = 0.0
    for _ in range(pushed):
        alice.say(b"m")
    for word in said:
        if isinstance(word, Hello):
            alice.on_hello(word, BOB)
        else:
            taken, _ = alice.on_frame(word, lambda _: PLENTY)
            assert sum(len(one.messages) for one in taken) <= 12 * 3
        alice.say(b"m")
        for frame in alice.frames(now):
            assert read_frame(write_frame(frame)) == frame
        hello = alice.hello(b"")
        assert read_frame(write_frame(Frame(0, 0, 0, [], [hello]))).specials == [hello]
        if alice.outflow.deadline < inf:
            now = alice.outflow.deadline
            alice.outflow.on_timer(now)


# --- the courier ---

SMALL = changed(
    CONFIG,
    window_messages=6,
    window_bytes=60,
    first_window=5,
    window_step=2,
    max_held=2,
    frame_messages=3,
    frame_bytes=30,
    max_waiting=12,
)
MAX_ROOM = 6
PLAIN, DURABLE = 0, 1
"""Kinds."""


@dataclass(eq=False)
class Line:
    """A link. What is under way in it comes out in order, or never."""

    dialler: int
    generations: tuple[int, int]
    """Which process stands at each end."""
    under_way: tuple[deque[bytes], deque[bytes]] = field(default_factory=lambda: (deque(), deque()))
    """Frames on their way to end 0 and to end 1."""
    full: set[int] = field(default_factory=set)
    """Ends at which its queue takes nothing more now."""
    ended: bool = False
    """Nothing more goes in."""
    left: set[int] = field(default_factory=set)
    """Ends that know that it has ended."""


class Side:
    """A peer with its inbox and what `Messenger` and `Linking` do for a pair: which links it has, when it greets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.generation = 0
        self.next_number = 0
        self.taken: list[int] = []
        """All that any process of this side ever took."""
        self.begin()

    @property
    def incarnation(self) -> bytes:
        return f"{self.name}{self.generation:07}".encode()

    def begin(self) -> None:
        """A new process."""
        self.generation += 1
        self.lines: list[Line] = []
        """Those that passed HELLO; the last one is used."""
        self.receipts: dict[int, Receipt] = {}
        self.states: dict[int, State] = {}
        """As they were when last looked at."""
        self.lost: set[int] = set()
        """What went to a process that is gone."""
        self.room = {PLAIN: MAX_ROOM, DURABLE: MAX_ROOM}
        """How much there would be with nothing in the inbox."""
        self.inbox: dict[int, list[int]] = {PLAIN: [], DURABLE: []}
        self.last: dict[bytes, int] = {}
        """The last number that this process took from each of theirs."""
        self.meet(None)

    def meet(self, memory: Memory | None) -> None:
        """Begin with the other, knowing this of it."""
        self.delivery = Delivery(SMALL, self.incarnation, memory)
        self.their_generation = 0

    def free(self, kind: int) -> int:
        return self.room[kind] - len(self.inbox[kind])

    def count(self, *states: State) -> int:
        return sum(1 for receipt in self.receipts.values() if receipt.state in states)


FOLLOWS = {
    State.QUEUED: set(State),
    State.SENT: {State.SENT, State.UNKNOWN, State.DELIVERED},
    State.UNKNOWN: {State.UNKNOWN, State.DELIVERED},
    State.DELIVERED: {State.DELIVERED},
    State.EXPIRED: {State.EXPIRED},
    State.REFUSED: {State.REFUSED},
}
"""What a state may have become when it is looked at again."""


class Courier:
    """Carries frames between two sides, badly, and holds every step against what was promised."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sides = (Side("a"), Side("b"))
        self.lines: list[Line] = []
        self.dropped: tuple[set[int], set[int]] = (set(), set())
        """Messages of each side that never left: they must never arrive."""

    # --- what may happen ---

    def push(self, which: int) -> None:
        who = which % 2
        side = self.sides[who]
        if side.delivery.outflow.queued >= SMALL.max_waiting:
            return
        number = side.next_number
        side.next_number += 1
        life_s = (inf, inf, 5.0, 0.3)[which // 2 % 4]
        kind = DURABLE if which // 8 % 4 == 0 else PLAIN
        side.receipts[number] = side.delivery.outflow.push(b"%d" % number, kind, self.now + life_s)
        if which // 32 % 2:  # else others may join it
            self.flush(who)

    def flush(self, who: int) -> None:
        side = self.sides[who]
        while side.lines and (frame := side.delivery.take_frame(self.now, side.free(PLAIN))) is not None:
            assert len(frame.messages) <= SMALL.frame_messages
            size = sum(len(data or b"") + 5 for data in frame.messages)
            assert size <= SMALL.frame_bytes or len(frame.messages) == 1
            if not self.send(side.lines[-1], who, frame):
                side.delivery.untake_frame(frame)
                break

    def withdraw(self, which: int) -> None:
        """Nobody waits for one of the messages any more."""
        who = which % 2
        side = self.sides[who]
        if side.receipts:
            number, receipt = list(side.receipts.items())[-1 - which // 2 % min(8, len(side.receipts))]
            was_queued = receipt.state is State.QUEUED
            assert side.delivery.outflow.withdraw(receipt) == was_queued
            if was_queued:
                assert receipt.state is State.EXPIRED
                self.dropped[who].add(number)

    def give_up(self, who: int) -> None:
        """Dialling led nowhere."""
        side = self.sides[who]
        if not side.lines:
            side.delivery.outflow.drop_unsent((NotAccepted, "go away"))
            side.delivery.outflow.doubt((DeliveryUnknown, "nobody there"))

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

    def fill(self, which: int) -> None:
        """The queue of a line has no room, or has room again."""
        if self.lines:
            self.lines[which // 2 % len(self.lines)].full ^= {which % 2}
            self.flush(which % 2)

    def tick(self, who: int) -> None:
        """Time passes until this side's timer runs out."""
        side = self.sides[who]
        deadline = side.delivery.outflow.deadline
        if deadline < inf:
            self.now = max(self.now, deadline)
            side.delivery.outflow.on_timer(self.now)
            self.flush(who)

    def read(self, which: int) -> None:
        """The app takes some of what is in its inbox."""
        side = self.sides[which % 2]
        for inbox in side.inbox.values():
            del inbox[: 1 + which // 2 % MAX_ROOM]
        self.flush(which % 2)

    def squeeze(self, which: int) -> None:
        """Others fill the inbox, or leave it."""
        side = self.sides[which % 2]
        side.room = {PLAIN: which // 2 % (MAX_ROOM + 1), DURABLE: which // 16 % (MAX_ROOM + 1)}
        self.flush(which % 2)

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
        if self.is_idle(who) and not self.sides[1 - who].delivery.outflow.queued:
            self.sides[who].meet(None)

    def is_idle(self, who: int) -> bool:
        side = self.sides[who]
        dialling = any(line.dialler == who and who not in line.left for line in self.lines)
        return not (side.lines or dialling) and side.delivery.is_idle

    # --- how it happens ---

    def greet(self, line: Line, who: int) -> None:
        hello = self.sides[who].delivery.hello(self.sides[who].incarnation)
        line.full.discard(who)  # a new one has room
        self.send(line, who, Frame(0, 0, 0, [], [hello]))

    def send(self, line: Line, who: int, frame: Frame) -> bool:
        if line.ended or who in line.full:
            return False
        line.under_way[1 - who].append(write_frame(frame))
        return True

    def arrive(self, line: Line, to: int) -> None:
        if to in line.left or not line.under_way[to]:
            return
        frame = read_frame(line.under_way[to].popleft())
        side = self.sides[to]
        for special in frame.specials:
            if isinstance(special, Hello) and not self.greeted(line, to, special):
                return
        free = {PLAIN: side.free(PLAIN), DURABLE: side.free(DURABLE)}
        taken, _ = side.delivery.on_frame(frame, free.__getitem__)
        for kind, room in free.items():
            assert sum(len(one.messages) for one in taken if one.kind == kind) <= max(0, room), "more than fits"
        for one in taken:
            for data in one.messages:
                self.enqueue(to, one.kind, int(data))
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
        if line.dialler == 1 and any(other.dialler == 0 for other in side.lines):
            side.lines.insert(0, line)  # it is the spare one
        else:
            side.lines.append(line)
            before = side.delivery.their_incarnation
            batches = side.delivery.on_hello(hello, hello.record)
            if before not in (b"", hello.record):
                gone = {n for n, receipt in side.receipts.items() if receipt.batch in batches}
                side.lost |= {n for n in gone if side.receipts[n].state is State.UNKNOWN}
        if line.dialler != to:
            self.greet(line, to)
        return True

    def enqueue(self, to: int, kind: int, number: int) -> None:
        side, other = self.sides[to], self.sides[1 - to]
        assert number not in side.taken, "taken twice"
        assert number not in self.dropped[1 - to], "what never left arrived"
        assert number < other.next_number
        sender = side.delivery.their_incarnation
        assert side.last.get(sender, -1) < number, "out of order"
        side.last[sender] = number
        side.taken.append(number)
        side.inbox[kind].append(number)

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
            was_used = line is side.lines[-1]
            side.lines.remove(line)
            if not side.lines:
                side.delivery.outflow.on_link_lost()
            elif was_used:
                side.delivery.on_switched()
        self.sweep()

    def sweep(self) -> None:
        self.lines = [line for line in self.lines if len(line.left) < 2]

    # --- what has to be true ---

    def check(self) -> None:
        for who, side in enumerate(self.sides):
            other = self.sides[1 - who]
            outflow, inflow = side.delivery.outflow, side.delivery.inflow
            for number, receipt in side.receipts.items():
                state = receipt.state
                assert state in FOLLOWS[side.states.get(number, State.QUEUED)]
                side.states[number] = state
                if state is State.DELIVERED:
                    assert number in other.taken, "acknowledged, but not taken"
                elif state in (State.QUEUED, State.EXPIRED, State.REFUSED):
                    assert number not in other.taken, f"taken, though it is {state}"
                    if state is not State.QUEUED:
                        self.dropped[who].add(number)
                        assert receipt.batch.error(receipt.index) is not None
            in_flight = side.count(State.SENT, State.UNKNOWN) - len(side.lost)
            assert in_flight <= SMALL.window_messages
            assert side.count(State.QUEUED) + in_flight <= outflow.queued <= SMALL.max_waiting
            assert outflow.queued_bytes <= SMALL.max_waiting * 10
            assert len(inflow.held) <= SMALL.max_held

    # --- the weather clears ---

    def clear_up(self) -> None:
        """No more restarts, no more cuts, everybody reads: all that is pending must come to an end."""
        for line in list(self.lines):
            self.leave(line, 0)
            self.leave(line, 1)
        for side in self.sides:
            side.room = {PLAIN: MAX_ROOM, DURABLE: MAX_ROOM}
        self.dial(0)
        line = self.lines[0]
        for _ in range(60):
            while any(line.under_way) or any(any(side.inbox.values()) for side in self.sides):
                for who in (0, 1):
                    self.arrive(line, who)
                    self.read(who + 2 * (MAX_ROOM - 1))
            if not any(side.delivery.outflow.queued for side in self.sides):
                break
            self.tick(0)
            self.tick(1)
        self.check()
        for side in self.sides:
            assert side.delivery.outflow.queued == side.delivery.outflow.queued_bytes == 0
            assert side.count(State.QUEUED, State.SENT) == 0
            unknown = {n for n, receipt in side.receipts.items() if receipt.state is State.UNKNOWN}
            assert unknown == side.lost, "the other process lives, and yet nothing is known"
            side.delivery.outflow.on_timer(self.now + 10.0)
            assert side.delivery.outflow.deadline == inf


WEIGHTS = {
    "deliver": 50,
    "push": 20,
    "tick": 8,
    "dial": 6,
    "notice": 6,
    "read": 6,
    "squeeze": 4,
    "fill": 4,
    "cut": 3,
    "forget": 4,
    "forget_all": 2,
    "withdraw": 3,
    "give_up": 1,
    "restart": 1,
}
STEPS = [step for step, weight in WEIGHTS.items() for _ in range(weight)]
WIDE = {"deliver", "push", "read", "squeeze", "fill", "cut", "withdraw"}
"""Steps that are told more than a side."""
journeys = st.binary(min_size=600, max_size=600)
"""Two bytes are one step: what happens, and to whom or what."""


def travel(courier: Courier, journey: bytes, *never: str, tell: Callable[[str], None] = note) -> None:
    for what, which in zip(journey[::2], journey[1::2], strict=True):
        name = STEPS[what % len(STEPS)]
        if name in never or (name in ("deliver", "cut", "fill") and not courier.lines):
            continue
        whom = which if name in WIDE else which % 2
        tell(f"{name} {whom}")
        getattr(courier, name)(whom)
        courier.check()


@settings(max_examples=200)
@given(journeys)
def test_whatever_the_courier_does_nothing_is_lost_doubled_or_reordered(journey: bytes) -> None:
    courier = Courier()
    travel(courier, journey)
    courier.clear_up()


@settings(max_examples=100)
@given(journeys)
def test_without_restarts_and_with_patience_everything_is_delivered(journey: bytes) -> None:
    courier = Courier()
    travel(courier, journey, "restart", "give_up", "withdraw")
    courier.clear_up()
    for side in courier.sides:
        patient = [receipt for receipt in side.receipts.values() if receipt.batch.deadline == inf]
        assert {receipt.state for receipt in patient} <= {State.DELIVERED}


def test_the_courier_brings_about_all_that_it_should() -> None:
    # A courier that got lost on the way would find nothing wrong.
    rng = Random(5)
    seen: Counter[str] = Counter()
    for _ in range(30):
        courier = Courier()
        travel(courier, rng.randbytes(600), tell=lambda _: None)
        for side in courier.sides:
            seen.update(receipt.state for receipt in side.receipts.values())
            seen["taken"] += len(side.taken)
            seen["lost"] += len(side.lost)
            seen["restarted"] += side.generation - 1
            seen["held"] += bool(side.delivery.inflow.held)
            seen["cannot be sent"] += side.delivery.outflow.has_unsent
    assert set(seen) == {*State, "taken", "lost", "restarted", "held", "cannot be sent"}
    assert seen["taken"] > 300
