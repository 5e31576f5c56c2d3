"""The table of what others ask: room is bounded, fair, and given back whatever happens."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support_peers import identity

from dht_atonce.calls.serving import Refusal, Running, Serving
from dht_atonce.config import CallConfig

CONFIG = replace(CallConfig(), max_running=12, max_running_per_sender=8, lost_link_s=5.0)
SENDERS = [identity(number).id for number in range(4)]
ONE, TWO = b"run one.", b"run two."


def begun(serving: Serving, number: int, sender: int = 0, deadline: float = 10.0) -> Running:
    running = serving.begin(SENDERS[sender], number, deadline, lambda: ONE)
    assert isinstance(running, Running)
    return running


def test_each_of_many_greedy_senders_leaves_room_for_the_next() -> None:
    serving = Serving(CONFIG)
    held = []
    for sender in SENDERS:
        number = 0
        while isinstance(serving.begin(sender, number, 10.0, lambda: ONE), Running):
            number += 1
        held.append(serving.held_by(sender))
    assert held == [6, 3, 2, 1]
    assert serving.held == 12


def test_a_link_that_comes_back_gives_a_request_its_time_again() -> None:
    serving = Serving(CONFIG)
    running = begun(serving, 1, deadline=100.0)
    serving.on_unlinked(SENDERS[0], 20.0, for_good=False)
    assert serving.deadline == 25.0
    assert serving.on_linked(SENDERS[0], ONE) == []
    assert serving.due(99.0) == []
    assert serving.due(100.0) == [running]


def test_a_link_that_stays_away_ends_it() -> None:
    serving = Serving(CONFIG)
    lost, other = begun(serving, 1, deadline=100.0), begun(serving, 1, sender=1, deadline=100.0)
    serving.on_unlinked(SENDERS[0], 20.0, for_good=False)
    assert serving.due(25.0) == [lost]
    assert lost.is_cancelled
    assert not other.is_cancelled


def test_whoever_left_or_is_refused_waits_for_nothing_any_more() -> None:
    serving = Serving(CONFIG)
    over = begun(serving, 1, deadline=100.0)
    serving.on_unlinked(SENDERS[0], 20.0, for_good=False)
    serving.on_unlinked(SENDERS[0], 21.0, for_good=True)
    assert serving.due(21.0) == [over]


def test_to_hear_twice_that_it_is_gone_gives_no_more_time() -> None:
    serving = Serving(CONFIG)
    lost = begun(serving, 1, deadline=100.0)
    serving.on_unlinked(SENDERS[0], 20.0, for_good=False)
    serving.on_unlinked(SENDERS[0], 24.0, for_good=False)
    assert serving.due(25.0) == [lost]


def test_a_new_process_ends_what_the_old_one_asked() -> None:
    serving = Serving(CONFIG)
    old = begun(serving, 1)
    assert serving.on_linked(SENDERS[0], TWO) == [old]
    new = serving.begin(SENDERS[0], 1, 10.0, lambda: TWO)
    assert isinstance(new, Running)
    serving.on_ended(old)
    assert serving.begin(SENDERS[0], 1, 10.0, lambda: TWO) is Refusal.DOUBLED  # the old one's end is not the new one's
    assert serving.on_linked(SENDERS[0], TWO) == []


class Life(RuleBasedStateMachine):
    """Everything that may happen, in any order, beside a list of what holds room."""

    def __init__(self) -> None:
        super().__init__()
        self.serving = Serving(CONFIG)
        self.now = 0.0
        self.running: list[Running] = []
        """Handlers that have not ended."""
        self.untaken: list[Running] = []
        """Replies that are not acknowledged."""
        self.links = dict.fromkeys(SENDERS, ONE)

    @rule(sender=st.sampled_from(SENDERS), number=st.integers(0, 9), left=st.floats(0, 30))
    def call(self, sender: object, number: int, left: float) -> None:
        who = next(one for one in SENDERS if one is sender)
        doubled = any(r.sender == who and r.id == number and not r.is_cancelled for r in self.running)
        held = len(self.running) + len(self.untaken)
        result = self.serving.begin(who, number, self.now + left, lambda: self.links[who])
        if isinstance(result, Running):
            assert not doubled
            assert held < CONFIG.max_running
            self.running.append(result)
        else:
            assert (result is Refusal.DOUBLED) == doubled

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def handler_ends(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.running))
        self.running.remove(one)
        if not one.is_cancelled:
            self.serving.reply(one)
            self.untaken.append(one)
        self.serving.on_ended(one)

    @precondition(lambda self: self.untaken)
    @rule(data=st.data())
    def reply_arrives(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.untaken))
        self.untaken.remove(one)
        self.serving.on_taken(one)

    @rule(sender=st.integers(0, 3), number=st.integers(0, 9))
    def cancel(self, sender: int, number: int) -> None:
        one = self.serving.on_cancel(SENDERS[sender], number)
        expected = [
            r
            for r in self.running
            if r.sender == SENDERS[sender] and r.id == number and (r is one or not r.is_cancelled)
        ]
        assert [one] == expected if one is not None else not expected

    @rule(sender=st.integers(0, 3), incarnation=st.sampled_from([ONE, TWO]))
    def link(self, sender: int, incarnation: bytes) -> None:
        who = SENDERS[sender]
        self.links[who] = incarnation
        for one in self.serving.on_linked(who, incarnation):
            assert one in self.running
            assert one.is_cancelled

    @rule(sender=st.integers(0, 3), for_good=st.booleans())
    def unlink(self, sender: int, for_good: bool) -> None:
        self.serving.on_unlinked(SENDERS[sender], self.now, for_good=for_good)

    @rule(passes=st.floats(0, 20))
    def time_passes(self, passes: float) -> None:
        self.now += passes
        for one in self.serving.due(self.now):
            assert one in self.running
        assert all(one.is_cancelled for one in self.running if one.deadline <= self.now)

    @invariant()
    def room_is_what_is_held(self) -> None:
        assert self.serving.held == len(self.running) + len(self.untaken) <= CONFIG.max_running
        for sender in SENDERS:
            held = sum(one.sender == sender for one in [*self.running, *self.untaken])
            assert self.serving.held_by(sender) == held <= CONFIG.max_running_per_sender


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
