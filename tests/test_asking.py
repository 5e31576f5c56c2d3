"""The table of what we ask: each request ends once, and with the truth about whether it may have been carried out."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support_peers import identity

from dht_atonce.calls.asking import Asked, Asking
from dht_atonce.config import CallConfig, MessagingConfig
from dht_atonce.errors import DeliveryUnknown, NotAccepted, NotSupported, PeerOffline, RequestLost
from dht_atonce.messaging.frames import Kind
from dht_atonce.messaging.outflow import Outflow
from dht_atonce.messaging.receipts import State

BOB, CAROL = identity(1).id, identity(2).id
ONE, TWO = b"run one.", b"run two."
CONFIG = replace(CallConfig(), max_outstanding=20)


class Way:
    """The table, and the delivery to Bob."""

    def __init__(self) -> None:
        self.asking = Asking(CONFIG, first_id=1 << 40)
        self.outflow = Outflow(MessagingConfig())

    def ask(self, deadline: float = 10.0, incarnation: bytes = ONE) -> Asked:
        asked = self.asking.begin(BOB, incarnation, deadline, None)
        asked.receipt = self.outflow.push(b"?", Kind.CALL, deadline)
        return asked

    def sent(self, deadline: float = 10.0) -> Asked:
        asked = self.ask(deadline)
        assert self.outflow.take(0.0)
        return asked

    def delivered(self, deadline: float = 10.0) -> Asked:
        asked = self.sent(deadline)
        self.outflow.on_ack(self.outflow.base)
        assert asked.state is State.DELIVERED
        return asked


def test_a_reply_ends_the_request_it_names_and_only_the_asked_may_give_it() -> None:
    way = Way()
    first, second = way.delivered(), way.delivered()
    assert second.id == first.id + 1
    assert way.asking.on_reply(CAROL, first.id) is None
    assert way.asking.on_reply(BOB, first.id) is first
    assert way.asking.on_reply(BOB, first.id) is None
    assert len(way.asking) == 1


@pytest.mark.parametrize("why", [PeerOffline, NotAccepted])
def test_what_was_not_sent_ends_with_the_reason_for_it(why: type[PeerOffline]) -> None:
    way = Way()
    way.ask()
    way.outflow.drop_unsent((why, "no way"))
    ((_, error),), shall_connect = way.asking.on_unlinked(BOB, "no way")
    assert isinstance(error, why)
    assert not shall_connect


def test_what_was_sent_and_is_in_doubt_may_have_been_carried_out() -> None:
    way = Way()
    way.sent()
    way.outflow.doubt((DeliveryUnknown, "the link broke"))
    ((_, error),), _ = way.asking.on_unlinked(BOB, "lost")
    assert isinstance(error, RequestLost)
    assert "may have been carried out" in str(error)


def test_who_has_our_request_is_looked_for_once_before_it_is_lost() -> None:
    way = Way()
    asked = way.delivered()
    assert way.asking.on_unlinked(BOB, "lost") == ([], True)
    assert way.asking.on_linked(BOB, ONE, True) == []
    assert way.asking.on_unlinked(BOB, "lost") == ([], True)
    ((ended, error),), shall_connect = way.asking.on_unlinked(BOB, "does not answer")
    assert ended is asked
    assert isinstance(error, RequestLost)
    assert not shall_connect
    assert way.asking.on_unlinked(BOB, "still") == ([], False)


def test_a_new_process_has_nothing_of_what_was_delivered_and_all_that_was_not_sent() -> None:
    way = Way()
    delivered = way.delivered()
    waiting = way.ask()
    ((ended, error),) = way.asking.on_linked(BOB, TWO, True)
    assert ended is delivered
    assert isinstance(error, RequestLost)
    assert way.asking.on_reply(BOB, waiting.id) is waiting


def test_a_process_that_answers_nothing_ends_what_waits_for_it() -> None:
    way = Way()
    way.ask(incarnation=b"")
    ((_, error),) = way.asking.on_linked(BOB, ONE, False)
    assert isinstance(error, NotSupported)
    assert len(way.asking) == 0


class Life(RuleBasedStateMachine):
    """Everything that may happen, in any order: no request is ended twice, and none is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.way = Way()
        self.now = 0.0
        self.open: list[Asked] = []

    @precondition(lambda self: not self.way.asking.is_full)
    @rule(left=st.floats(0.1, 30))
    def ask(self, left: float) -> None:
        self.open.append(self.way.ask(self.now + left))

    @rule()
    def send(self) -> None:
        self.way.outflow.take(self.now)

    @rule()
    def acknowledge(self) -> None:
        self.way.outflow.on_ack(self.way.outflow.base)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def reply(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.open))
        assert self.way.asking.on_reply(BOB, one.id) is one
        self.open.remove(one)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.open))
        assert self.way.asking.end(one)
        assert not self.way.asking.end(one)
        self.open.remove(one)

    @rule(incarnation=st.sampled_from([ONE, TWO]), answers=st.booleans())
    def link(self, incarnation: bytes, answers: bool) -> None:
        ended = self.way.asking.on_linked(BOB, incarnation, answers)
        for one, error in ended:
            self.open.remove(one)
            if isinstance(error, PeerOffline):
                assert one.state is State.EXPIRED
        assert answers or not self.open

    @rule()
    def unlink(self) -> None:
        ended, shall_connect = self.way.asking.on_unlinked(BOB, "lost")
        for one, error in ended:
            self.open.remove(one)
            assert isinstance(error, RequestLost) == (one.state in (State.DELIVERED, State.UNKNOWN))
        assert shall_connect == bool(self.open)

    @rule(passes=st.floats(0, 20))
    def time_passes(self, passes: float) -> None:
        self.now += passes
        self.way.outflow.on_timer(self.now)
        late = self.way.asking.due(self.now)
        assert [one.deadline for one in late] == sorted(one.deadline for one in late)
        for one in late:
            self.open.remove(one)
        assert all(one.deadline > self.now for one in self.open)

    @invariant()
    def the_table_holds_the_open_ones(self) -> None:
        assert len(self.way.asking) == len(self.open)
        assert self.way.asking.deadline <= min((one.deadline for one in self.open), default=float("inf"))


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
