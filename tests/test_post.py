"""Posting: what receipts say, who is accepted, how many links there are, and what happens when nobody reads."""

import asyncio
from dataclasses import replace

import pytest
from support_peers import Person, Town, identity, now, until, virtual

from dht_atonce.config import MessagingConfig
from dht_atonce.errors import DeliveryUnknown, NotAccepted, PeerClosed, PeerOffline, PeerUnknown, QueueFull
from dht_atonce.messaging.frames import Bye, ByeCode, Frame, write_parts
from dht_atonce.messaging.receipts import Receipt, State

CONFIG = MessagingConfig()
ALICE, BOB, CAROL, DAVE = range(1, 5)


def post(sender: Person, to: Person, *messages: bytes, timeout_s: float | None = None) -> list[Receipt]:
    return [sender.messenger.post(to.id, data, timeout_s) for data in messages]


def states(receipts: list[Receipt]) -> set[State]:
    return {receipt.state for receipt in receipts}


def nobody(_: object) -> bool:
    return False


# --- states ---


def test_a_message_is_queued_then_sent_then_delivered() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            (receipt,) = post(alice, bob, b"m")
            seen = [receipt.state]
            while receipt.state is not State.DELIVERED:
                await asyncio.sleep(0.01)
                if receipt.state is not seen[-1]:
                    seen.append(receipt.state)
            assert seen == [State.QUEUED, State.SENT, State.DELIVERED]
            assert bob.heard == [b"m"]

    virtual(main())


def test_what_was_never_sent_has_expired() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            bob.vanish()
            (late,) = post(alice, bob, b"late", timeout_s=1)
            unreachable = alice.messenger.post(identity(CAROL).id, b"m")
            with pytest.raises(PeerUnknown):
                await unreachable
            assert (late.state, unreachable.state) == (State.QUEUED, State.EXPIRED)
            with pytest.raises(PeerOffline):
                await late
            assert late.state is State.EXPIRED
            assert now() == pytest.approx(1)

    virtual(main())


def test_what_was_sent_and_not_acknowledged_is_unknown_until_it_is() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            await alice.send(bob, b"before")
            bob.vanish()
            (receipt,) = post(alice, bob, b"m", timeout_s=1)
            with pytest.raises(DeliveryUnknown):
                await receipt
            assert receipt.state is State.UNKNOWN
            bob.come_back()
            await until(lambda: receipt.state is State.DELIVERED)
            await receipt
            assert bob.heard == [b"before", b"m"]

    virtual(main())


def test_whoever_is_not_accepted_is_refused() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            bob.messenger.set_accept(nobody)
            receipts = post(alice, bob, b"1", b"2")
            for receipt in receipts:
                with pytest.raises(NotAccepted):
                    await receipt
            assert states(receipts) == {State.REFUSED}
            assert bob.got == []

    virtual(main())


def test_closing_leaves_no_receipt_open() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob, carol = town.person(ALICE), town.person(BOB), town.person(CAROL)
            await alice.send(bob, b"before")
            bob.vanish()
            carol.vanish()
            (sent,), (waits,) = post(alice, bob, b"m"), post(alice, carol, b"m")
            await asyncio.sleep(1)
            await alice.aclose()
            assert (sent.state, waits.state) == (State.UNKNOWN, State.EXPIRED)
            with pytest.raises(PeerClosed):
                post(alice, bob, b"m")

    virtual(main())


# --- waiting for a receipt ---


def test_a_receipt_can_be_waited_for_more_than_once() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            (receipt,) = post(alice, bob, b"m")

            async def wait() -> float:
                await receipt
                return now()

            assert await asyncio.gather(wait(), wait()) == pytest.approx([0.15, 0.15])
            assert await wait() == pytest.approx(0.15)

    virtual(main())


def test_a_send_that_is_cancelled_is_not_sent_and_one_that_left_is() -> None:
    async def main() -> None:
        async with Town() as town:
            narrow = replace(CONFIG, window_messages=1, frame_messages=1)
            alice, bob = town.person(ALICE, config=narrow), town.person(BOB)
            await alice.send(bob, b"0")
            left, waits, last = (alice.sending(bob, b"%d" % n) for n in (1, 2, 3))
            await asyncio.sleep(0.01)
            left.cancel()
            waits.cancel()
            await last
            assert bob.heard == [b"0", b"1", b"3"]

    virtual(main())


def test_who_withdraws_a_message_tells_all_who_wait_for_it() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            one, two = post(alice, bob, b"1", b"2")
            waits = asyncio.ensure_future(two)
            await asyncio.sleep(0.01)
            assert alice.messenger.withdraw(bob.id, two)
            with pytest.raises(PeerOffline, match="withdrawn"):
                await waits
            await one
            assert not alice.messenger.withdraw(bob.id, one)
            assert not alice.messenger.withdraw(bob.id, two)
            assert (one.state, two.state, bob.heard) == (State.DELIVERED, State.EXPIRED, [b"1"])
            assert alice.counters["messaging.delivered"] == 1

    virtual(main())


# --- who is accepted ---


def test_who_is_not_accepted_hears_that_and_not_who_we_are() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, stranger = town.person(ALICE), town.stranger(BOB)
            alice.messenger.set_accept(nobody)
            wire = await stranger.dial(alice)
            wire.say(b"let me in", hello=stranger.hello())
            await until(lambda: wire.closed)
            assert wire.byes == [Bye(ByeCode.NOT_ACCEPTED, "")]
            assert wire.hellos == []
            assert alice.got == []
            assert alice.counters["hello.not_accepted"] == 1

    virtual(main())


def test_who_is_refused_now_may_be_accepted_later() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            alice.messenger.set_accept(nobody)
            began = now()
            with pytest.raises(NotAccepted):
                await bob.send(alice, b"1")
            assert now() - began < 1  # no second try
            alice.messenger.set_accept(lambda who: who == bob.id)
            await bob.send(alice, b"2")
            assert alice.heard == [b"2"]

    virtual(main())


def test_who_is_accepted_no_longer_loses_its_link_and_others_keep_theirs() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob, carol = town.person(ALICE), town.stranger(BOB), town.stranger(CAROL)
            wires = []
            for who in (bob, carol):
                wire = await who.dial(alice)
                wire.say(b"m", hello=who.hello())
                await until(lambda wire=wire: wire.hellos)
                wires.append(wire)
            alice.messenger.set_accept(lambda who: who != bob.id)
            await until(lambda: wires[0].closed)
            assert wires[0].byes == [Bye(ByeCode.NOT_ACCEPTED, "")]
            await asyncio.sleep(5)
            assert not wires[1].closed
            assert wires[1].byes == []

    virtual(main())


def test_who_is_accepted_no_longer_is_told_so_when_it_sends() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            await bob.send(alice, b"1")
            alice.messenger.set_accept(nobody)
            await asyncio.sleep(1)
            with pytest.raises(NotAccepted):
                await bob.send(alice, b"2")
            assert alice.heard == [b"1"]

    virtual(main())


# --- how many links ---


def test_of_too_many_links_the_one_that_was_least_used_is_ended() -> None:
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE, config=replace(CONFIG, max_links=2))
            bob, carol, dave = (town.person(n) for n in (BOB, CAROL, DAVE))
            for number, who in enumerate([bob, carol, bob, dave]):
                await who.send(alice, b"%d" % number)
                await asyncio.sleep(1)
            linked = [who for who in (bob, carol, dave) if alice.messenger.record_of(who.id) is not None]
            assert linked == [bob, dave]
            assert alice.counters["messaging.idle_closed"] == 1
            await alice.send(carol, b"come back")
            assert carol.heard == [b"come back"]
            assert alice.messenger.record_of(bob.id) is None

    virtual(main())


def test_a_link_over_which_something_is_on_its_way_is_not_ended_for_others() -> None:
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE, config=replace(CONFIG, max_links=1))
            silent, carol = town.stranger(BOB), town.person(CAROL)
            wire = await silent.dial(alice)
            wire.say(hello=silent.hello())
            await until(lambda: wire.hellos)
            receipt = alice.messenger.post(silent.id, b"m", 60)
            await asyncio.sleep(1)
            await carol.send(alice, b"me too")
            assert not wire.closed
            wire.say(ack=1)
            await receipt
            assert alice.counters["messaging.idle_closed"] == 0

    virtual(main())


def test_the_second_of_two_links_that_has_to_take_over_stays() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            bob.listen()
            receipt = alice.messenger.post(bob.id, b"m", 60)
            await until(lambda: bob.wires and bob.wires[0].heard)
            two, one = await bob.dial(alice), bob.wires[0]
            two.say(hello=bob.hello())
            one.say(hello=bob.hello())
            await until(lambda: one.messages or two.messages)
            used, other = (one, two) if one.messages else (two, one)
            used.link.close()
            await until(lambda: other.messages)
            other.say(ack=1)
            await receipt
            await asyncio.sleep(10)
            assert not other.closed

    virtual(main())


# --- too much ---


@pytest.mark.parametrize("bound", [{"max_waiting": 3}, {"max_waiting_bytes": 1300}], ids=str)
def test_when_too_much_waits_more_is_refused_until_some_of_it_is_settled(bound: dict[str, int]) -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE, config=replace(CONFIG, **bound)), town.person(BOB)
            receipts = post(alice, bob, *[bytes(500)] * 3)
            with pytest.raises(QueueFull, match="3 messages"):
                post(alice, bob, b"m")
            await asyncio.gather(*map(asyncio.ensure_future, receipts))
            post(alice, bob, b"m")
            await until(lambda: len(bob.got) == 4)

    virtual(main())


class Carried:
    """How many frames with messages, and messages, all messengers gave to their links."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames = self.messages = 0
        monkeypatch.setattr("dht_atonce.messaging.flusher.write_parts", self._write)

    def _write(self, frame: Frame) -> tuple[bytes, ...]:
        self.frames += bool(frame.messages)
        self.messages += len(frame.messages)
        return write_parts(frame)


def test_while_nobody_reads_one_frame_knocks_every_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Town() as town:
            carried = Carried(monkeypatch)
            alice, bob = town.person(ALICE), town.person(BOB, config=replace(CONFIG, inbox_messages=2048), reads=False)
            receipts = post(alice, bob, *(b"%d" % n for n in range(10_000)), timeout_s=3600)
            await asyncio.sleep(10)
            taken = sum(receipt.state is State.DELIVERED for receipt in receipts)
            assert taken == 1024
            before = carried.frames
            await asyncio.sleep(100)
            assert 45 <= carried.frames - before <= 51
            assert sum(receipt.state is State.DELIVERED for receipt in receipts) == taken
            bob.read()
            began = now()
            await until(lambda: len(bob.got) == 10_000)
            assert now() - began < 2
            assert bob.heard == [b"%d" % n for n in range(10_000)]

    virtual(main())


def test_to_a_slow_reader_little_is_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Town() as town:
            carried = Carried(monkeypatch)
            alice, bob = town.person(ALICE), town.person(BOB, config=replace(CONFIG, inbox_messages=4096), reads=False)
            receipts = post(alice, bob, *(b"%d" % n for n in range(20_000)), timeout_s=3600)
            reader = bob.messenger.messages()
            heard = []
            while len(heard) < 20_000:
                for _ in range(100):
                    heard.append((await anext(reader)).data)
                await asyncio.sleep(0.05)
            assert heard == [b"%d" % n for n in range(20_000)]
            await asyncio.sleep(1)
            assert states(receipts) == {State.DELIVERED}
            assert carried.messages <= 20_000 * 1.05
            assert bob.counters["messaging.not_taken"] <= 20_000 * 0.05

    virtual(main())


def test_a_link_whose_queue_is_full_is_tried_twenty_times_a_second_whatever_is_posted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            await alice.send(bob, b"0")
            peer_link = alice.messenger.pair(bob.id).link
            assert peer_link is not None
            tries: list[float] = []

            def full(*_: object) -> bool:
                tries.append(now())
                return False

            with monkeypatch.context() as context:
                context.setattr(type(peer_link.link), "send", full)
                receipts = []
                for number in range(1, 101):
                    receipts += post(alice, bob, b"%d" % number)
                    await asyncio.sleep(0.013)
                tries.clear()
                await asyncio.sleep(1)
                assert 18 <= len(tries) <= 22
            await asyncio.gather(*map(asyncio.ensure_future, receipts))
            assert bob.heard == [b"%d" % n for n in range(101)]

    virtual(main())


# --- to oneself ---


def test_notes_to_oneself_wait_until_there_is_room_for_them() -> None:
    async def main() -> None:
        async with Town() as town:
            small = replace(CONFIG, inbox_messages=20, frame_messages=10)
            alice = town.person(ALICE, config=small, reads=False)
            receipts = post(alice, alice, *(b"%d" % n for n in range(100)), timeout_s=60)
            (late,) = post(alice, alice, b"late", timeout_s=1)
            await asyncio.sleep(5)
            assert sum(receipt.state is State.DELIVERED for receipt in receipts) == 10
            assert late.state is State.EXPIRED
            alice.read()
            await asyncio.gather(*map(asyncio.ensure_future, receipts))
            assert alice.heard == [b"%d" % n for n in range(100)]
            assert town.asked == []

    virtual(main())
