"""Requests and replies between peers in the virtual world."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from support_peers import NETWORK, Person, Stranger, Town, Village, Wire, now, other_tasks, until, virtual

from atonce_sim.loop import run
from atonce_sim.world import EPOCH
from dht_atonce.calls.calls import Calls, Request
from dht_atonce.calls.wire import Call, Cancel, Failed, Reply, Why, read
from dht_atonce.codec import encode
from dht_atonce.config import CallConfig, MessagingConfig
from dht_atonce.errors import (
    DeliveryUnknown,
    MessageTooLarge,
    NoSuchService,
    NotAccepted,
    NotSupported,
    PeerBusy,
    PeerClosed,
    PeerOffline,
    PeerUnknown,
    QueueFull,
    ReplyError,
    RequestFailed,
    RequestLost,
    RequestTimeout,
)
from dht_atonce.identity import PeerId
from dht_atonce.messaging.frames import ByeCode, Frame, Kind, write_frame
from dht_atonce.records import PresenceRecord

CONFIG = MessagingConfig()


class Servant:
    """A person who answers requests: what `work` says it was asked, and what became of it."""

    def __init__(self, town: Town, number: int, *, answers: bool = True, **options: Any) -> None:
        self.person = town.person(number, **options)
        self.id = self.person.id
        self.counters = self.person.counters
        self.calls = Calls(random.Random(number), self.counters)
        if answers:
            old = self.person.record
            self.person.record = PresenceRecord.sign(
                self.person.identity,
                NETWORK,
                seq=old.seq,
                incarnation=old.incarnation,
                expires=int(EPOCH) + 3600,
                status="online",
                endpoints=old.endpoints,
                capabilities=("msg1", "call1"),
            )
            town.fresh[self.id] = self.person.record
            self.calls.start(None, self.person.messenger)  # type: ignore[arg-type]
        self.begun: list[Request] = []
        self.done: list[bytes] = []
        self.cancelled: list[tuple[bytes, float]] = []
        self.calls.serve("work", self.work)
        self.calls.serve("echo", self.echo)

    async def echo(self, request: Request) -> bytes:
        return request.data

    async def work(self, request: Request) -> bytes:
        """Takes as many seconds as it is told."""
        self.begun.append(request)
        try:
            await asyncio.sleep(float(request.data))
        except asyncio.CancelledError:
            self.cancelled.append((request.data, now()))
            raise
        self.done.append(request.data)
        return b"done " + request.data

    async def ask(self, to: "Servant | PeerId", data: bytes, timeout_s: float = 10.0, service: str = "work") -> bytes:
        return await self.calls.request(to if isinstance(to, PeerId) else to.id, data, timeout_s, service)

    def asking(self, *args: Any, **options: Any) -> "asyncio.Task[bytes]":
        return asyncio.create_task(self.ask(*args, **options), name="ask")

    async def aclose(self) -> None:
        await self.calls.aclose()
        await self.person.aclose()


def in_town(story: Callable[[Town], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Town() as town:
            await story(town)

    virtual(main())


def in_town_with_bugs(story: Callable[[Town], Awaitable[None]]) -> list[BaseException]:
    """As `in_town`, where handlers fail. Gives what the loop's exception handler was told."""
    problems: list[BaseException] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["exception"]))
        async with Town() as town:
            await story(town)

    run(main())
    return problems


def with_limits(**limits: Any) -> MessagingConfig:
    return replace(CONFIG, calls=replace(CallConfig(), **limits))


# --- the plain case ---


def test_a_peer_asks_another_and_gets_its_reply() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            alice, bob = await village.open_peer(), await village.open_peer()

            @bob.serve("double")
            async def double(request: Request) -> bytes:
                assert request.sender == alice.id
                assert request.service == "double"
                assert 9 < request.deadline - now() <= 10
                return request.data * 2

            async def reverse(request: Request) -> bytes:
                return request.data[::-1]

            assert alice.serve("reverse", reverse) is reverse
            assert await alice.request(bob.id, b"abc", service="double") == b"abcabc"
            assert await bob.request(str(alice.id), b"abc", service="reverse") == b"cba"
            assert await double(Request(alice.id, "double", b"x", now() + 10)) == b"xx"

    virtual(main())


def test_requests_to_oneself_need_no_link() -> None:
    async def story(town: Town) -> None:
        alice = Servant(town, 1)
        assert await alice.ask(alice, b"1") == b"done 1"
        with pytest.raises(NoSuchService):
            await alice.ask(alice, b"", service="none")

    in_town(story)


def test_many_requests_at_once_are_carried_out_side_by_side() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        began = now()
        tasks = [alice.asking(bob, b"%d" % (number % 3 + 1)) for number in range(200)]
        replies = await asyncio.gather(*tasks)
        assert replies == [b"done %d" % (number % 3 + 1) for number in range(200)]
        assert now() - began < 4
        assert len(bob.done) == 200

    in_town(story)


def test_60_000_bytes_go_each_way_and_no_more() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        most = bytes(60_000)
        assert await alice.ask(bob, most, service="echo") == most
        with pytest.raises(MessageTooLarge, match=r"at most 60000 bytes, this has 60001; streams"):
            await alice.ask(bob, most + b"x", service="echo")

    in_town(story)


@pytest.mark.parametrize("service", ["", "x" * 65])
def test_a_name_out_of_bounds_is_the_caller_s_mistake(service: str) -> None:
    async def story(town: Town) -> None:
        alice = Servant(town, 1)
        with pytest.raises(ValueError, match="1 to 64 characters"):
            await alice.ask(alice, b"", service=service)
        with pytest.raises(ValueError, match="1 to 64 characters"):
            alice.calls.serve(service, alice.echo)

    in_town(story)


@pytest.mark.parametrize("timeout_s", [0, -1, 3601, float("nan"), float("inf")])
def test_a_time_out_of_bounds_is_the_caller_s_mistake(timeout_s: float) -> None:
    async def story(town: Town) -> None:
        alice = Servant(town, 1)
        with pytest.raises(ValueError, match="timeout_s is between"):
            await alice.ask(alice, b"", timeout_s=timeout_s)

    in_town(story)


def test_a_name_is_served_by_one_handler_until_that_is_stopped() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        with pytest.raises(ValueError, match="'echo' is served already"):
            bob.calls.serve("echo", bob.work)
        bob.calls.stop_serving("echo")
        with pytest.raises(NoSuchService):
            await alice.ask(bob, b"1", service="echo")
        bob.calls.serve("echo", bob.work)
        assert await alice.ask(bob, b"1", service="echo") == b"done 1"

    in_town(story)


# --- errors of the other side ---


def test_what_a_handler_says_of_its_failure_reaches_whoever_asked() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)

        async def refuse(request: Request) -> bytes:
            raise ReplyError(
                "no-money" if request.data else "c" * 100, "come back on Friday" if request.data else "t" * 999
            )

        bob.calls.serve("buy", refuse)
        with pytest.raises(RequestFailed, match="no-money: come back on Friday") as caught:
            await alice.ask(bob, b"bread", service="buy")
        assert (caught.value.code, caught.value.text) == ("no-money", "come back on Friday")
        with pytest.raises(RequestFailed) as caught:
            await alice.ask(bob, b"", service="buy")
        assert (caught.value.code, caught.value.text) == ("c" * 64, "t" * 512)

    in_town(story)


async def _raises(_: Request) -> bytes:
    raise KeyError("the password is 1234")


async def _gives_text(_: Request) -> bytes:
    return "text"  # type: ignore[return-value]


async def _gives_too_much(_: Request) -> bytes:
    return bytes(60_001)


async def _cancels_itself(_: Request) -> bytes:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (_raises, KeyError),
        (_gives_text, TypeError),
        (_gives_too_much, MessageTooLarge),
        (_cancels_itself, RuntimeError),
    ],
)
def test_of_any_other_failure_only_that_there_was_one_is_told(handler: Any, problem: type[Exception]) -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        bob.calls.serve("bug", handler)
        with pytest.raises(RequestFailed) as caught:
            await alice.ask(bob, b"", service="bug")
        assert caught.value.code == "internal"
        assert caught.value.text == f"{bob.id.short}… failed to carry it out"
        assert bob.counters["calls.handler_failed"] == 1

    (told,) = in_town_with_bugs(story)
    assert isinstance(told, problem)


def test_a_peer_that_cannot_be_reached_was_not_asked() -> None:
    async def story(town: Town) -> None:
        alice, bob, carol = Servant(town, 1), Servant(town, 2), Servant(town, 3)
        carol.person.messenger.set_accept(lambda who: False)
        bob.person.vanish()
        with pytest.raises(PeerOffline):
            await alice.ask(bob, b"0")
        with pytest.raises(NotAccepted):
            await alice.ask(carol, b"0")
        with pytest.raises(PeerUnknown):
            await alice.ask(Stranger(town, 9).id, b"0")
        assert not other_tasks_of_calls()

    in_town(story)


def other_tasks_of_calls() -> list[str]:
    return [name for name in other_tasks() if name in ("ask", "request")]


def test_a_program_that_answers_no_requests_is_told_apart_from_a_service_that_is_not_there() -> None:
    async def story(town: Town) -> None:
        alice, old = Servant(town, 1), Servant(town, 2, answers=False)
        for _ in range(2):  # without a link, and with one
            with pytest.raises(NotSupported, match="does not answer requests"):
                await alice.ask(old, b"0")
        assert not old.counters["messaging.unknown_kind"]

    in_town(story)


# --- deadlines and cancelling ---


def test_the_deadline_ends_the_request_on_both_sides() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        await alice.ask(bob, b"0")
        began = now()
        with pytest.raises(RequestTimeout, match="may have been carried out") as caught:
            await alice.ask(bob, b"9", timeout_s=2)
        assert caught.value.may_have_run
        assert now() - began == pytest.approx(2, abs=0.01)
        await until(lambda: bob.cancelled, within_s=0.5)
        assert bob.cancelled[0][0] == b"9"
        assert not other_tasks_of_calls()

    in_town(story)


def test_a_handler_is_cancelled_at_the_deadline_even_if_nobody_says_so() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        await alice.ask(bob, b"0")
        began = now()
        task = alice.asking(bob, b"9", timeout_s=3)
        await until(lambda: len(bob.begun) == 2)
        alice.person.vanish()
        await until(lambda: bob.cancelled)
        assert now() - began == pytest.approx(3, abs=0.2)
        assert bob.counters["calls.overdue"] == 1
        with pytest.raises(RequestTimeout):
            await task

    in_town(story)


def test_a_request_that_never_left_was_not_carried_out() -> None:
    async def story(town: Town) -> None:
        town.find_s = 5.0
        alice, bob = Servant(town, 1), Servant(town, 2)
        with pytest.raises(RequestTimeout, match="it was not carried out") as caught:
            await alice.ask(bob, b"0", timeout_s=1)
        assert not caught.value.may_have_run
        await asyncio.sleep(30)
        assert not bob.begun

    in_town(story)


def test_who_is_cancelled_cancels_the_handler() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        task = alice.asking(bob, b"9")
        await until(lambda: bob.begun)
        task.cancel()
        await until(lambda: bob.cancelled, within_s=0.5)
        assert bob.counters["calls.cancelled"] == 1
        assert task.cancelled()
        assert await alice.ask(bob, b"1") == b"done 1"

    in_town(story)


def test_who_is_cancelled_before_the_request_left_takes_it_back() -> None:
    async def story(town: Town) -> None:
        town.find_s = 1.0
        alice, bob = Servant(town, 1), Servant(town, 2)
        tasks = [alice.asking(bob, b"0"), alice.asking(bob, b"1")]
        await asyncio.sleep(0.5)
        tasks[0].cancel()
        assert await tasks[1] == b"done 1"
        assert [request.data for request in bob.begun] == [b"1"]
        assert not bob.counters["calls.cancelled"]

    in_town(story)


def test_a_reply_that_comes_too_late_is_dropped() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)

        async def stubborn(request: Request) -> bytes:
            try:
                await asyncio.sleep(3)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
            return b"anyway"

        bob.calls.serve("stubborn", stubborn)
        with pytest.raises(RequestTimeout):
            await alice.ask(bob, b"", timeout_s=1, service="stubborn")
        await asyncio.sleep(5)
        assert await alice.ask(bob, b"0") == b"done 0"
        assert not alice.counters["calls.late_reply"]  # nobody was there to reply to

    in_town(story)


# --- links and processes that come and go ---


def test_a_link_that_breaks_and_comes_back_costs_no_request() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        task = alice.asking(bob, b"4")
        await until(lambda: bob.begun)
        pair = bob.person.messenger.pair(alice.id)
        assert pair.link is not None
        bob.person.messenger.linking.end(pair, ByeCode.PROTOCOL_ERROR, "a cable was pulled")
        assert await task == b"done 4"
        assert len(bob.begun) == 1

    in_town(story)


def test_when_the_caller_is_lost_its_requests_are_cancelled() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        task = alice.asking(bob, b"99", timeout_s=100)
        await until(lambda: bob.begun)
        gone = now()
        alice.person.vanish()
        await until(lambda: bob.cancelled)
        assert now() - gone < 9 + 5 + 1  # until the link is known to be dead, and what it is given to come back
        with pytest.raises(RequestLost):
            await task

    in_town(story)


def test_when_the_caller_was_started_again_what_its_last_process_asked_is_cancelled() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        task = alice.asking(bob, b"99", timeout_s=100)
        await until(lambda: bob.begun)
        alice.person.vanish()
        began = now()
        again = Servant(town, 1, run=1)
        assert await again.ask(bob, b"1") == b"done 1"
        assert [data for data, _ in bob.cancelled] == [b"99"]
        assert now() - began < 3
        with pytest.raises(RequestLost):
            await task

    in_town(story)


@pytest.mark.parametrize("comes_back", [True, False])
def test_when_the_other_side_is_lost_whoever_waits_is_told(comes_back: bool) -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        task = alice.asking(bob, b"99", timeout_s=100)
        await until(lambda: bob.begun)
        bob.person.vanish()
        if comes_back:
            again = Servant(town, 2, run=1)
            assert await again.ask(alice, b"1") == b"done 1"
        began = now()
        with pytest.raises(RequestLost, match="may have been carried out"):
            await task
        assert now() - began < 30
        if comes_back:
            assert await alice.ask(bob.id, b"2") == b"done 2"
            assert [request.data for request in again.begun] == [b"2"]

    in_town(story)


def test_a_request_whose_arrival_is_unknown_may_have_been_carried_out() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        await alice.ask(bob, b"0")
        bob.person.vanish()
        with pytest.raises(RequestLost) as caught:
            await alice.ask(bob, b"1", timeout_s=60)
        assert not isinstance(caught.value, DeliveryUnknown)
        assert "may have been carried out" in str(caught.value)

    in_town(story)


def test_who_closes_cancels_what_it_carries_out_and_waits_for_no_reply() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        to_bob, to_alice = alice.asking(bob, b"99", timeout_s=100), bob.asking(alice, b"98", timeout_s=100)
        await until(lambda: alice.begun and bob.begun)
        await bob.aclose()
        with pytest.raises(PeerClosed, match="before a reply came"):
            await to_alice
        with pytest.raises(RequestLost):
            await to_bob
        assert [data for data, _ in bob.cancelled] == [b"99"]
        with pytest.raises(PeerClosed):
            await bob.ask(alice, b"0")
        await until(lambda: alice.cancelled)
        town.people.remove(bob.person)

    in_town(story)


def test_a_handler_that_will_not_end_holds_up_no_closing() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        release = asyncio.Event()

        async def deaf(_: Request) -> bytes:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return b""

        bob.calls.serve("deaf", deaf)
        task = alice.asking(bob, b"", service="deaf")
        await until(lambda: bob.counters["calls.served"])
        began = now()
        await bob.calls.aclose()
        assert now() - began == pytest.approx(0.5)
        assert bob.counters["calls.handler_stays"] == 1
        release.set()
        task.cancel()
        await asyncio.sleep(1)
        assert not other_tasks_of_calls()

    in_town(story)


def test_before_and_after_its_life_a_peer_asks_nobody() -> None:
    async def story(town: Town) -> None:
        alice, unborn = Servant(town, 1), Servant(town, 2, answers=False)
        with pytest.raises(PeerClosed, match="not in a network yet"):
            await unborn.ask(alice, b"0")
        await unborn.calls.aclose()
        with pytest.raises(PeerClosed, match="closed"):
            await unborn.ask(alice, b"0")

    in_town(story)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_links_do_a_request_is_carried_out_once_or_not_at_all(seed: int) -> None:
    rng = random.Random(seed)

    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        runs: Counter[bytes] = Counter()

        async def count(request: Request) -> bytes:
            await asyncio.sleep(rng.choice([0, 0.01, 1.0]))
            runs[request.data] += 1
            return request.data

        for one in (alice, bob):
            one.calls.serve("count", count)
        outcomes: dict[bytes, BaseException | bytes] = {}

        async def ask(one: Servant, other: Servant, data: bytes) -> None:
            try:
                outcomes[data] = await one.ask(other, data, timeout_s=rng.choice([0.5, 5.0]), service="count")
            except (RequestLost, RequestTimeout) as error:
                outcomes[data] = error

        asking = []
        for number in range(200):
            one, other = rng.sample([alice, bob], 2)
            asking.append(asyncio.create_task(ask(one, other, b"%d" % number), name="ask"))
            await asyncio.sleep(rng.choice([0, 0.002, 0.05]))
            if rng.random() < 0.1:
                breaker = rng.choice([alice, bob])
                other = alice if breaker is bob else bob
                breaker.person.messenger.linking.end(
                    breaker.person.messenger.pair(other.id), ByeCode.PROTOCOL_ERROR, "a cable was pulled"
                )
        await asyncio.gather(*asking)
        await asyncio.sleep(10)
        assert max(runs.values()) == 1
        replied = [data for data, outcome in outcomes.items() if outcome == data]
        assert len(replied) > 100
        assert all(runs[data] for data in replied)
        never = [data for data, outcome in outcomes.items() if not getattr(outcome, "may_have_run", True)]
        assert not any(runs[data] for data in never)

    in_town(story)


# --- limits ---


def test_who_asks_too_much_is_told_and_others_still_find_room() -> None:
    async def story(town: Town) -> None:
        bob = Servant(town, 1, config=with_limits(max_running=40, max_running_per_sender=100))
        greedy, modest = Servant(town, 2), Servant(town, 3)
        tasks = [greedy.asking(bob, b"50", timeout_s=100) for _ in range(60)]
        await until(lambda: bob.counters["calls.busy"])
        assert len(bob.begun) == 20  # half of all
        assert await modest.ask(bob, b"1") == b"done 1"
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results.count(b"done 50") == 20
        assert sum(isinstance(result, PeerBusy) for result in results) == 40

    in_town(story)


def test_room_is_free_again_when_replies_have_arrived() -> None:
    async def story(town: Town) -> None:
        bob = Servant(town, 1, config=with_limits(max_running=4))
        for number in range(2, 22):  # each is somebody else, who never asks again
            asker = Servant(town, number)
            assert await asker.ask(bob, b"0") == b"done 0"
        last = Servant(town, 22)
        assert await asyncio.gather(last.ask(bob, b"0"), last.ask(bob, b"1")) == [b"done 0", b"done 1"]

    in_town(story)


def test_of_too_many_requests_of_our_own_the_last_is_refused_here() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1, config=with_limits(max_outstanding=2)), Servant(town, 2)
        tasks = [alice.asking(bob, b"1") for _ in range(2)]
        await asyncio.sleep(0.1)
        with pytest.raises(QueueFull, match="2 requests wait"):
            await alice.ask(bob, b"1")
        await asyncio.gather(*tasks)
        assert await alice.ask(bob, b"1") == b"done 1"

    in_town(story)


# --- strangers ---


async def met(town: Town, person: Person) -> tuple[Stranger, Wire]:
    stranger = Stranger(town, 9)
    wire = await stranger.dial(person)
    wire.say(hello=stranger.hello())
    await until(lambda: wire.hellos)
    return stranger, wire


def says(wire: Wire, *messages: bytes, seq0: int = 1, ack: int = 0) -> None:
    wire.link.send(write_frame(Frame(Kind.CALL, seq0, ack, list(messages), [])))


def test_what_cannot_be_read_is_dropped_and_counted() -> None:
    async def story(town: Town) -> None:
        bob = Servant(town, 1)
        _, wire = await met(town, bob.person)
        bad = [b"", b"\xff", encode([9, 1]), encode([1, 1, "work", -1, b"1"]), encode([1, 1, "x" * 65, 1000, b"1"])]
        bad += [encode([2, 5, bytes(60_001)]), encode([3, 1, 1, "c", "t" * 513]), encode([4])]
        says(wire, *bad)
        await until(lambda: bob.counters["calls.unreadable"] == len(bad))
        assert not wire.closed
        says(wire, encode(Call(1, "echo", 1000, b"good")), seq0=len(bad) + 1)
        await until(lambda: wire.messages)
        assert read(wire.messages[0]) == Reply(1, b"good")

    in_town(story)


def test_a_number_used_twice_is_carried_out_once() -> None:
    async def story(town: Town) -> None:
        bob = Servant(town, 1)
        _, wire = await met(town, bob.person)
        call = encode(Call(7, "work", 60_000, b"2"))
        says(wire, call, call)
        await until(lambda: wire.messages)
        assert bob.counters["calls.doubled"] == 1
        assert bob.done == [b"2"]

    in_town(story)


def test_a_cancelled_number_that_is_used_again_is_another_request() -> None:
    async def story(town: Town) -> None:
        bob = Servant(town, 1)
        _, wire = await met(town, bob.person)
        says(wire, encode(Call(7, "work", 60_000, b"2")), encode(Cancel(7)), encode(Call(7, "work", 60_000, b"1")))
        await until(lambda: wire.messages)
        assert read(wire.messages[0]) == Reply(7, b"done 1")
        assert bob.done == [b"1"]

    in_town(story)


def test_replies_nobody_asked_for_are_dropped() -> None:
    async def story(town: Town) -> None:
        alice, bob = Servant(town, 1), Servant(town, 2)
        task = alice.asking(bob, b"2")
        await until(lambda: bob.begun)
        number = alice.calls._first_id  # what a stranger would have to guess
        _, wire = await met(town, alice.person)
        says(wire, encode(Reply(number, b"false")), encode(Failed(number, 1, "false", "")), encode(Reply(0, b"")))
        assert await task == b"done 2"
        assert alice.counters["calls.late_reply"] == 3

    in_town(story)


def test_a_time_that_is_over_or_for_ever_is_kept_in_bounds() -> None:
    async def story(town: Town) -> None:
        bob = Servant(town, 1)
        _, wire = await met(town, bob.person)
        says(wire, encode(Call(1, "work", 0, b"5")), encode(Call(2, "work", 2**32 - 1, b"9999")))
        await until(lambda: bob.begun)
        assert bob.begun[-1].deadline - now() <= 3600
        await asyncio.sleep(0.1)
        assert b"5" not in bob.done

    in_town(story)


def test_who_takes_no_replies_has_nothing_carried_out_any_more() -> None:
    async def story(town: Town) -> None:
        bob = Servant(town, 1, config=with_limits(max_running=64, max_running_per_sender=8, max_untaken=16))
        _, wire = await met(town, bob.person)
        for number in range(40):  # acknowledges nothing
            says(wire, encode(Call(number, "echo", 60_000, bytes(1000))), seq0=number + 1)
        await until(lambda: bob.counters["calls.dropped"])
        assert bob.counters["calls.served"] == 8
        assert bob.counters["calls.busy"] == 8
        assert bob.counters["calls.dropped"] == 24
        assert bob.person.messenger.pair(Stranger(town, 9).id).outflow.queued == 16

    in_town(story)


def test_codes_from_later_versions_are_failures() -> None:
    async def story(town: Town) -> None:
        alice = Servant(town, 1)
        stranger = Stranger(town, 9)
        wires: list[Wire] = []
        stranger.listen(wires.append)
        task = alice.asking(stranger.id, b"")
        await until(lambda: wires and wires[0].heard)
        record = PresenceRecord.sign(
            stranger.identity,
            NETWORK,
            seq=1,
            incarnation=b"%08d" % 0,
            expires=int(EPOCH) + 3600,
            status="online",
            endpoints=(),
            capabilities=("call1", "later"),
        )
        hello = stranger.hello()
        wires[0].say(hello=type(hello)(0, record.blob, b"", 0, 0))
        await until(lambda: wires[0].messages)
        call = read(wires[0].messages[0])
        assert isinstance(call, Call)
        says(wires[0], encode([3, call.id, 99, "", "", "more"]), ack=1)
        with pytest.raises(RequestFailed, match="internal"):
            await task

    in_town(story)


def test_no_words_are_too_long_for_the_wire() -> None:
    failed = Failed.saying(1, Why.RAISED, "c" * 100, "\U0001f600" * 1000)
    assert read(encode(failed)) == Failed(1, Why.RAISED, "c" * 64, "\U0001f600" * 512)
    assert read(encode(Failed.saying(1, Why.RAISED, "c\ud800", "\udfff"))) == Failed(1, Why.RAISED, "c?", "?")
