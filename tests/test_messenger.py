"""Messages between peers, over the links of the virtual world: who hears what, and what a sender is told."""

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest
from support_peers import NETWORK, Person, Stranger, Town, Wire, identity, now, other_tasks, presence, until, virtual

from dht_atonce.config import MessagingConfig, NetworkConfig
from dht_atonce.endpoints import Address
from dht_atonce.errors import (
    AtOnceError,
    DeliveryUnknown,
    MessageTooLarge,
    PeerClosed,
    PeerOffline,
    PeerUnknown,
    QueueFull,
)
from dht_atonce.messaging.frames import Bye, ByeCode, Frame, Hello, write_frame
from dht_atonce.messaging.inbox import Message
from dht_atonce.messaging.receipts import State
from dht_atonce.records import GONE

CONFIG = MessagingConfig()
ALICE, BOB, CAROL, DAVE, MALLORY = range(1, 6)


def void(_: object) -> None:
    """For handlers, which return nothing."""


# --- the plain case ---


def test_a_message_is_in_the_other_s_queue_when_send_returns() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            await alice.send(bob, b"hello")
            assert bob.got == [Message(alice.id, b"hello")]
            assert alice.counters["messaging.delivered"] == bob.counters["messaging.received"] == 1

    virtual(main())


def test_a_send_takes_a_dial_a_hello_and_a_round_trip_and_later_ones_only_that() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            await alice.send(bob, b"first")
            assert now() == pytest.approx(3 * 0.05)
            await alice.send(bob, b"second")
            assert now() == pytest.approx(4 * 0.05)
            assert town.asked == [(bob.id, False)]

    virtual(main())


def test_the_answer_goes_over_the_same_link() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE, listens=False), town.person(BOB)
            await alice.send(bob, b"question")
            await bob.send(alice, b"answer")
            assert alice.heard == [b"answer"]
            assert town.asked == [(bob.id, False)]  # nobody had to look for Alice, who could not be dialled

    virtual(main())


def test_both_send_at_the_same_time() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            sends = [a.sending(b, b"%d" % n) for n in range(20) for a, b in [(alice, bob), (bob, alice)]]
            await asyncio.gather(*sends)
            assert alice.heard == bob.heard == [b"%d" % n for n in range(20)]

    virtual(main())


def test_a_thousand_messages_arrive_in_order() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            await asyncio.gather(*(alice.sending(bob, b"%d" % n) for n in range(1000)))
            assert bob.heard == [b"%d" % n for n in range(1000)]
            assert alice.counters["messaging.delivered"] == 1000
            assert town.asked == [(bob.id, False)]  # one dial for all
            assert now() < 1

    virtual(main())


def test_everybody_talks_to_everybody() -> None:
    async def main() -> None:
        async with Town() as town:
            people = [town.person(number) for number in range(6)]
            pairs = [(one, other) for one in people for other in people if one is not other]
            await asyncio.gather(*(one.sending(other, str(one.id).encode()) for one, other in pairs))
            for person in people:
                assert sorted(message.sender for message in person.got) == sorted(
                    other.id for other in people if other is not person
                )
                assert all(message.data == str(message.sender).encode() for message in person.got)

    virtual(main())


def test_a_note_to_oneself() -> None:
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE)
            await alice.send(alice, b"buy milk")
            await alice.send(alice, b"and bread")
            assert alice.got == [Message(alice.id, b"buy milk"), Message(alice.id, b"and bread")]

    virtual(main())


def test_the_largest_message_and_the_empty_one() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            largest = bytes(CONFIG.max_message_bytes)
            await asyncio.gather(*(alice.sending(bob, data) for data in [largest, b"", largest]))
            assert bob.heard == [largest, b"", largest]

    virtual(main())


def test_a_cut_that_heals_costs_time_and_no_message() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            await alice.send(bob, b"before")
            bob.vanish()
            sends = [alice.sending(bob, b"%d" % n, timeout_s=60) for n in range(300)]
            await asyncio.sleep(6)
            assert bob.heard == [b"before"]
            bob.come_back()
            await asyncio.gather(*sends)
            assert bob.heard == [b"before", *(b"%d" % n for n in range(300))]
            assert now() < 10

    virtual(main())


# --- what a sender is told ---


def test_nobody_knows_the_peer() -> None:
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE)
            with pytest.raises(PeerUnknown, match=identity(BOB).id.short):
                await alice.send(identity(BOB).id, b"m")

    virtual(main())


def test_the_peer_said_goodbye() -> None:
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE)
            town.fresh[identity(BOB).id] = presence(identity(BOB), status=GONE)
            with pytest.raises(PeerOffline, match="goodbye"):
                await alice.send(identity(BOB).id, b"m")
            assert now() == 0

    virtual(main())


def test_the_peer_cannot_be_dialled() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB, listens=False)
            with pytest.raises(PeerOffline, match="no address"):
                await alice.send(bob, b"m")

    virtual(main())


def test_nobody_is_at_the_address() -> None:
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE)
            nowhere = Address("10.9.9.9", 4000)
            town.fresh[identity(BOB).id] = presence(identity(BOB), nowhere, Address("10.9.9.8", 4001))
            with pytest.raises(PeerOffline, match=r"does not answer at 10\.9\.9\.9:4000, 10\.9\.9\.8:4001$"):
                await alice.send(identity(BOB).id, b"m")
            assert alice.counters["messaging.dial_failed"] == 2
            assert [fresh for _, fresh in town.asked] == [False, True]

    virtual(main())


def test_another_peer_is_at_the_address() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, carol = town.person(ALICE), town.person(CAROL)
            town.fresh[identity(BOB).id] = presence(identity(BOB), carol.endpoint)
            with pytest.raises(PeerOffline, match="does not answer"):
                await alice.send(identity(BOB).id, b"m")
            assert carol.heard == []

    virtual(main())


def test_if_the_first_record_leads_nowhere_the_fresh_one_is_waited_for() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            town.first[bob.id] = presence(bob.identity, Address("10.9.9.9", 4000))
            await alice.send(bob, b"m")
            assert bob.heard == [b"m"]
            assert town.asked == [(bob.id, False), (bob.id, True)]

    virtual(main())


def test_an_address_that_stands_in_both_records_is_tried_once() -> None:
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE)
            town.fresh[identity(BOB).id] = presence(identity(BOB), Address("10.9.9.9", 4000))
            with pytest.raises(PeerOffline):
                await alice.send(identity(BOB).id, b"m")
            assert alice.counters["messaging.dial_failed"] == 1

    virtual(main())


def test_a_peer_that_left_in_between_is_offline() -> None:
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE)
            town.first[identity(BOB).id] = presence(identity(BOB), Address("10.9.9.9", 4000))
            town.fresh[identity(BOB).id] = presence(identity(BOB), status=GONE, seq=2)
            with pytest.raises(PeerOffline, match="goodbye"):
                await alice.send(identity(BOB).id, b"m")

    virtual(main())


def test_a_record_that_lapsed_in_between_leaves_the_peer_offline() -> None:
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE)
            town.first[identity(BOB).id] = presence(identity(BOB), Address("10.9.9.9", 4000))
            town.fresh[identity(BOB).id] = None
            with pytest.raises(PeerOffline, match=r"10\.9\.9\.9:4000"):
                await alice.send(identity(BOB).id, b"m")
            assert now() < 5

    virtual(main())


def test_an_old_goodbye_is_not_the_last_word() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB, run=1)
            town.first[bob.id] = presence(bob.identity, status=GONE, seq=1)
            await alice.send(bob, b"m")
            assert bob.heard == [b"m"]

    virtual(main())


def test_a_peer_that_cannot_be_reached_in_time_is_offline() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            bob.vanish()
            with pytest.raises(PeerOffline, match="could not be sent in its time"):
                await alice.send(bob, b"m", timeout_s=1)
            assert now() == pytest.approx(1)
            await asyncio.sleep(3)  # that dial has ended
            bob.come_back()
            await alice.send(bob, b"n")
            assert bob.heard == [b"n"]  # who was told that it failed is not surprised later

    virtual(main())


def test_a_receiver_that_vanishes_leaves_the_outcome_unknown() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            await alice.send(bob, b"before")
            began = now()
            bob.vanish()
            with pytest.raises(DeliveryUnknown, match="was not acknowledged in its time"):
                await alice.send(bob, b"m")
            assert now() - began == pytest.approx(10)

    virtual(main())


def test_a_link_that_breaks_for_good_leaves_the_outcome_unknown_and_drops_what_never_left() -> None:
    async def main() -> None:
        async with Town() as town:
            one_by_one = replace(CONFIG, window_messages=1, frame_messages=1)
            alice, bob = town.person(ALICE, config=one_by_one), town.stranger(BOB)
            bob.listen()
            sent, waiting = (alice.sending(bob.id, data) for data in (b"sent", b"waiting"))
            await until(lambda: bob.wires)
            bob.wires[0].say(hello=bob.hello())
            await until(lambda: bob.wires[0].messages)
            await bob.links.aclose()
            with pytest.raises(DeliveryUnknown):
                await sent
            with pytest.raises(PeerOffline, match="does not answer"):
                await waiting
            assert now() < 5

    virtual(main())


@pytest.mark.parametrize("reason", ["broke", "started again", "closed"])
def test_a_sender_is_told_why_the_outcome_is_unknown(reason: str) -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            bob.listen()
            sent = alice.sending(bob.id, b"m")
            await until(lambda: bob.wires)
            bob.wires[0].say(hello=bob.hello())
            await until(lambda: bob.wires[0].messages)
            if reason == "broke":
                await bob.links.aclose()
            elif reason == "started again":
                (await bob.dial(alice)).say(hello=bob.hello(run=1))
            else:
                await alice.aclose()
            with pytest.raises(DeliveryUnknown, match=reason):
                await sent

    virtual(main())


def test_a_message_too_large_is_refused() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            with pytest.raises(MessageTooLarge, match=r"60000 bytes.*60001"):
                await alice.send(bob, bytes(60_001))
            assert town.asked == []

    virtual(main())


def test_when_too_much_waits_more_is_refused() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE, config=replace(CONFIG, max_waiting=3)), town.person(BOB)
            sends = [alice.sending(bob, b"%d" % n) for n in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFull, match="3 messages"):
                await alice.send(bob, b"3")
            await asyncio.gather(*sends)
            await alice.send(bob, b"4")
            assert bob.heard == [b"0", b"1", b"2", b"4"]

    virtual(main())


def test_who_is_full_towards_one_can_send_to_others() -> None:
    async def main() -> None:
        async with Town() as town:
            config = replace(CONFIG, max_waiting=1)
            alice, bob, carol = town.person(ALICE, config=config), town.person(BOB), town.person(CAROL)
            bob.vanish()
            waits = alice.sending(bob, b"m", timeout_s=100)
            await asyncio.sleep(0)
            await alice.send(carol, b"m")
            assert now() < 1
            await asyncio.gather(waits, return_exceptions=True)

    virtual(main())


# --- nobody waits any more ---


def test_the_same_is_said_to_many() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob, carol = (town.person(number) for number in (ALICE, BOB, CAROL))
            for _ in range(2):  # without links, and with them
                receipts = alice.messenger.post_many([carol.id, bob.id, alice.id], b"all of you")
                await asyncio.gather(*receipts)
            for person in (alice, bob, carol):
                assert person.heard == [b"all of you"] * 2

    virtual(main())


def test_what_is_said_to_many_in_one_turn_travels_together() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            bob.listen(lambda wire: wire.say(hello=bob.hello()))
            receipts = [alice.messenger.post_many([bob.id], b"%d" % n)[0] for n in range(100)]
            await until(lambda: bob.wires and bob.wires[0].messages)
            assert [frame.messages for frame in bob.wires[0].heard if frame.messages] == [
                [b"%d" % n for n in range(100)]
            ]
            assert {receipt.state for receipt in receipts} == {State.SENT}

    virtual(main())


def test_who_said_much_in_one_turn_waits_for_company_with_the_next_and_who_said_one_thing_does_not() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            bob.listen(lambda wire: wire.say(hello=bob.hello()))

            def post(*messages: bytes) -> None:
                for data in messages:
                    alice.messenger.post(bob.id, data)

            async def said(count: int) -> list[list[bytes | None]]:
                """What frames it took to say so much; it is acknowledged."""
                await until(lambda: bob.wires and len(bob.wires[0].messages) == count)
                bob.wires[0].say(ack=count)
                await asyncio.sleep(0.1)
                return [frame.messages for frame in bob.wires[0].heard if frame.messages]

            post(b"1")
            await said(1)
            post(b"2", b"3")
            assert (await said(3))[1:] == [[b"2"], [b"3"]]  # as if a lone one would follow a lone one
            post(b"4")
            await said(4)
            post(b"5")
            await until(lambda: len(bob.wires[0].messages) == 5)
            post(b"6", b"7")
            await said(7)
            post(b"8", b"9")
            assert (await said(9))[-2:] == [[b"6", b"7"], [b"8", b"9"]]

    virtual(main())


def test_the_other_side_may_begin_while_we_go_on_talking() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            bob.listen(lambda wire: wire.say(hello=bob.hello()))
            said = 0
            for count in (1, 3, 80):  # the first waits for the link, the next make company likely
                said += count
                for _ in range(count):
                    alice.messenger.post(bob.id, b"m")
                await until(lambda said=said: bob.wires and len(bob.wires[0].messages) == said)
                bob.wires[0].say(ack=said)
                await asyncio.sleep(0.1)
            assert [len(frame.messages) for frame in bob.wires[0].heard if frame.messages][-2:] == [32, 48]

    virtual(main())


def test_of_many_one_with_a_full_queue_holds_up_nobody() -> None:
    async def main() -> None:
        async with Town() as town:
            config = replace(CONFIG, max_waiting=1)
            alice, bob, carol = town.person(ALICE, config=config), town.person(BOB), town.person(CAROL)
            alice.messenger.post(bob.id, b"first")
            full, fine = alice.messenger.post_many([bob.id, carol.id], b"second")
            assert full.state is State.EXPIRED
            with pytest.raises(QueueFull, match=bob.id.short):
                await full
            await fine
            assert (bob.heard, carol.heard) == ([b"first"], [b"second"])

    virtual(main())


def test_who_is_closed_or_says_too_much_says_nothing_to_many() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            with pytest.raises(MessageTooLarge):
                alice.messenger.post_many([bob.id], bytes(CONFIG.max_message_bytes + 1))
            await alice.aclose()
            for post in (alice.messenger.post_many, lambda to, data: alice.messenger.post(to[0], data)):
                with pytest.raises(PeerClosed):
                    post([bob.id], b"m")

    virtual(main())


def test_an_app_may_be_called_instead_of_reading() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            called: list[Message] = []
            bob.messenger.on_message(called.append)
            await alice.send(bob, b"one")
            assert (called, bob.got) == ([Message(alice.id, b"one")], [])
            bob.messenger.on_message(None)
            await alice.send(bob, b"two")
            assert (called, bob.heard) == ([Message(alice.id, b"one")], [b"two"])
            assert bob.counters["messaging.received"] == 2

    virtual(main())


def test_an_answer_from_within_a_handler_travels_with_the_acknowledgement() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.stranger(ALICE), town.person(BOB)
            bob.messenger.on_message(lambda message: void(bob.messenger.post(message.sender, message.data[::-1])))
            wire = await alice.dial(bob)
            wire.say(hello=alice.hello())
            await until(lambda: wire.hellos)
            before = len(wire.heard)
            wire.say(b"ping")
            await until(lambda: wire.messages)
            (frame,) = wire.heard[before:]
            assert (frame.ack, frame.messages) == (1, [b"gnip"])

    virtual(main())


def test_a_handler_that_raises_is_told_of_and_called_again() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            told: list[object] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
            error, called = ValueError("no"), list[bytes]()

            def callback(message: Message) -> None:
                called.append(message.data)
                raise error

            bob.messenger.on_message(callback)
            await asyncio.gather(alice.sending(bob, b"one"), alice.sending(bob, b"two"))
            assert (called, told) == ([b"one", b"two"], [error, error])

    virtual(main())


def test_a_send_that_is_cancelled_before_it_left_is_dropped() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            first, second, third = (alice.sending(bob, data) for data in (b"1", b"2", b"3"))
            await asyncio.sleep(0.01)  # still dialling
            second.cancel()
            await asyncio.gather(first, third)
            assert second.cancelled()
            assert bob.heard == [b"1", b"3"]

    virtual(main())


def test_a_send_that_is_cancelled_after_it_left_arrives() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            await alice.send(bob, b"1")
            second = alice.sending(bob, b"2")
            await asyncio.sleep(0.01)
            second.cancel()
            await alice.send(bob, b"3")
            assert bob.heard == [b"1", b"2", b"3"]

    virtual(main())


def test_a_timeout_and_a_failed_dial_at_the_same_moment() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            bob.vanish()
            town.find_s = 0.5
            failing = alice.sending(bob, b"m")  # two lookups and the dial between them: over after 4 s
            await asyncio.sleep(3.75)
            with pytest.raises(PeerOffline):
                await alice.send(bob, b"n", timeout_s=0.25)
            with pytest.raises(PeerOffline):
                await failing

    virtual(main())


# --- the end ---


def test_closing_fails_what_waits_and_ends_the_reading() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob, carol = town.person(ALICE), town.person(BOB), town.person(CAROL)
            await alice.send(bob, b"before")
            bob.vanish()
            carol.vanish()
            sent, never_left = alice.sending(bob, b"sent"), alice.sending(carol, b"never left")
            await asyncio.sleep(1)
            reader = asyncio.ensure_future(anext(alice.messenger.messages()))
            await alice.aclose()
            with pytest.raises(DeliveryUnknown):
                await sent
            with pytest.raises(PeerClosed, match="closed"):
                await never_left
            with pytest.raises(PeerClosed):
                await alice.send(bob, b"after")
            with pytest.raises(StopAsyncIteration):
                await reader
            assert now() < 2

    virtual(main())


def test_closing_tells_those_whom_we_are_linked_to() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, mallory = town.person(ALICE), town.stranger(MALLORY)
            wire = await mallory.dial(alice)
            wire.say(hello=mallory.hello())
            await until(lambda: wire.hellos)
            await alice.aclose()
            await until(lambda: wire.closed)
            assert wire.byes == [Bye(ByeCode.GOING_AWAY, "going away")]
            assert (await mallory.dial_or_none(alice)) is None

    virtual(main())


def test_nothing_is_left_behind() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob, carol = (town.person(n) for n in (ALICE, BOB, CAROL))
            await alice.send(bob, b"m")
            carol.vanish()
            waits = alice.sending(carol, b"m")
            await asyncio.sleep(1)
            await asyncio.gather(alice.aclose(), bob.aclose(), carol.aclose(), waits, return_exceptions=True)
            assert other_tasks() == []

    virtual(main())


# --- a process goes, another comes ---


def test_a_new_process_gets_new_messages_and_the_old_one_s_are_unknown() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            await alice.send(bob, b"before")
            again = await bob.start_again()
            lost = alice.sending(bob, b"lost")
            await asyncio.sleep(1)
            await again.send(alice, b"I am back")
            with pytest.raises(DeliveryUnknown):
                await lost
            await alice.send(again, b"after")
            await again.send(alice, b"yes")
            assert (bob.heard, again.heard, alice.heard) == ([b"before"], [b"after"], [b"I am back", b"yes"])

    virtual(main())


def test_what_waited_while_the_process_was_started_again_is_delivered() -> None:
    async def main() -> None:
        async with Town() as town:
            config = replace(CONFIG, window_messages=1)
            alice, bob = town.person(ALICE, config=config), town.person(BOB)
            await alice.send(bob, b"before")
            again = await bob.start_again()
            lost, waited = alice.sending(bob, b"lost"), alice.sending(bob, b"waited")
            await asyncio.sleep(1)
            await again.send(alice, b"I am back")
            with pytest.raises(DeliveryUnknown):
                await lost
            await waited
            assert again.heard == [b"waited"]

    virtual(main())


def test_an_old_process_s_link_is_refused_after_a_newer_one() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            newer, older = await bob.dial(alice), await bob.dial(alice)
            newer.say(b"from the new one", hello=bob.hello(run=1))
            await until(lambda: alice.got)
            older.say(b"from the old one", hello=bob.hello(run=0))
            await until(lambda: older.closed)
            assert older.byes == [Bye(ByeCode.PROTOCOL_ERROR, "a newer process of yours is here")]
            assert alice.counters["hello.old_incarnation"] == 1
            newer.say(b"and again", seq0=2)
            await until(lambda: len(alice.got) == 2)
            assert alice.heard == [b"from the new one", b"and again"]
            assert not newer.closed

    virtual(main())


def test_a_new_process_s_link_ends_those_of_the_old_one() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            older, newer = await bob.dial(alice), await bob.dial(alice)
            older.say(b"1", hello=bob.hello(run=0))
            await until(lambda: alice.got)
            newer.say(b"1", hello=bob.hello(run=1))
            await until(lambda: older.closed)
            await until(lambda: len(alice.got) == 2)
            assert not newer.closed

    virtual(main())


def test_the_same_process_may_come_back_over_another_link() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            first = await bob.dial(alice)
            first.say(b"1", b"2", hello=bob.hello())
            await until(lambda: len(alice.got) == 2)
            first.link.close()
            second = await bob.dial(alice)
            second.say(b"2", b"3", seq0=2, hello=bob.hello(yours=alice.incarnation, base=2, expect=1))
            await until(lambda: len(alice.got) == 3 and second.hellos)
            assert alice.heard == [b"1", b"2", b"3"]
            assert [hello.expect for hello in second.hellos] == [3]

    virtual(main())


@pytest.mark.parametrize("lower", [True, False])
def test_of_two_links_dialled_in_the_same_moment_the_lower_peer_id_s_stays(lower: bool) -> None:
    async def main() -> None:
        async with Town() as town:
            first, second = sorted((ALICE, BOB), key=lambda number: identity(number).id)
            alice, bob = town.person(first if lower else second), town.stranger(second if lower else first)
            bob.listen()
            sent = alice.sending(bob.id, b"m")
            await until(lambda: bob.wires and bob.wires[0].heard)
            ours = await bob.dial(alice)
            theirs = bob.wires[0]
            ours.say(hello=bob.hello())
            theirs.say(hello=bob.hello())
            await until(lambda: theirs.messages or ours.messages)
            stays, goes = (theirs, ours) if lower else (ours, theirs)
            await until(lambda: goes.closed)
            assert b"m" in stays.messages
            stays.say(ack=1)
            await sent
            assert not stays.closed

    virtual(main())


def test_while_there_are_two_links_one_may_break() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            bob.listen()
            sent = alice.sending(bob.id, b"m")
            await until(lambda: bob.wires and bob.wires[0].heard)
            two = await bob.dial(alice)
            one = bob.wires[0]
            two.say(hello=bob.hello())
            one.say(hello=bob.hello())
            await until(lambda: one.messages or two.messages)
            used, other = (one, two) if one.messages else (two, one)
            used.link.close()
            await until(lambda: other.messages)
            other.say(ack=1)
            await sent

    virtual(main())


def test_a_link_that_the_other_side_dials_later_takes_the_place_of_ours() -> None:
    # It dials because it lost the one that was there, though we have not heard of that.
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            bob.listen()
            first = alice.sending(bob.id, b"first")
            await until(lambda: bob.wires and bob.wires[0].heard)
            one = bob.wires[0]
            one.say(hello=bob.hello())
            await until(lambda: one.messages)
            one.say(ack=1)
            await first
            await asyncio.sleep(2)
            two = await bob.dial(alice)
            two.say(hello=bob.hello())
            await until(lambda: one.closed)
            sent = alice.sending(bob.id, b"m")
            await until(lambda: two.messages)
            two.say(ack=2)
            await sent

    virtual(main())


def test_a_newer_link_of_the_same_process_replaces_the_older() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            for number in range(3):
                wire = await bob.dial(alice)
                wire.say(b"%d" % number, seq0=1 + number, hello=bob.hello(yours=alice.incarnation, base=1 + number))
                await until(lambda number=number: len(alice.got) == 1 + number)
            await asyncio.sleep(1)
            assert [wire.closed for wire in bob.wires] == [True, True, False]

    virtual(main())


def test_a_link_that_ends_right_after_hello_is_dialled_again() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            bob.listen()
            sent = alice.sending(bob.id, b"m")
            await until(lambda: bob.wires and bob.wires[0].heard)
            bob.wires[0].say(hello=bob.hello())
            bob.wires[0].link.close()
            await until(lambda: len(bob.wires) == 2, within_s=5)
            sent.cancel()

    virtual(main())


# --- what strangers do ---


@pytest.mark.parametrize("garbage", [b"\xc1", b"", b"\x95\x00\x00", bytes(1000)], ids=len)
def test_garbage_ends_its_link_and_no_other(garbage: bytes) -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob, mallory = town.person(ALICE), town.person(BOB), town.stranger(MALLORY)
            await bob.send(alice, b"before")
            wire = await mallory.dial(alice)
            wire.say(hello=mallory.hello())
            await until(lambda: wire.hellos)
            wire.link.send(garbage)
            await until(lambda: wire.closed)
            assert wire.byes == [Bye(ByeCode.PROTOCOL_ERROR, "unreadable frame")]
            assert alice.counters["messaging.bad_frame"] == 1
            await bob.send(alice, b"after")
            assert alice.heard == [b"before", b"after"]

    virtual(main())


async def refused(town: Town, hello: Hello) -> tuple[Person, Wire]:
    """Mallory says this HELLO and a message with it, and is shown the door."""
    alice, mallory = town.person(ALICE), town.stranger(MALLORY)
    wire = await mallory.dial(alice)
    wire.say(b"believe me", hello=hello)
    await until(lambda: wire.closed)
    assert alice.got == []
    assert wire.hellos == []
    assert wire.byes[0].code == ByeCode.PROTOCOL_ERROR
    return alice, wire


def test_a_hello_of_another_peer_is_refused() -> None:
    # Bob's own record, which everybody can look up: Mallory has no link that proves Bob's key.
    async def main() -> None:
        async with Town() as town:
            alice, _ = await refused(town, Stranger(town, BOB).hello())
            assert alice.counters["hello.not_of_this_link"] == 1
            bob = town.person(BOB)
            await bob.send(alice, b"it is me")
            assert [message.sender for message in alice.got] == [bob.id]

    virtual(main())


def test_a_hello_that_was_overheard_cannot_be_replayed() -> None:
    async def main() -> None:
        async with Town() as town:
            bob, mallory = town.person(BOB), town.stranger(MALLORY)
            mallory.listen()
            sends = bob.sending(mallory.id, b"m", timeout_s=1)
            await until(lambda: mallory.wires and mallory.wires[0].hellos)
            alice, _ = await refused(town, mallory.wires[0].hellos[0])
            assert alice.counters["hello.not_of_this_link"] == 1
            await asyncio.gather(sends, return_exceptions=True)

    virtual(main())


def test_a_hello_with_a_record_that_is_none_is_refused() -> None:
    async def main() -> None:
        mallory = identity(MALLORY)
        good = presence(mallory).blob
        elsewhere = presence(mallory, network=NetworkConfig.local_network("elsewhere")).blob
        for blob, reason in [
            (b"", "bad_size"),
            (good[:-1], "malformed"),
            (good[:2] + bytes(64) + good[66:], "bad_signature"),
            (elsewhere, "bad_signature"),
            (b"\x02" + good[1:], "unknown_major"),
        ]:
            async with Town() as town:
                alice, _ = await refused(town, Hello(0, blob, b"", 0, 0))
                assert alice.counters[f"hello.{reason}"] == 1

    virtual(main())


def test_a_record_that_lapsed_still_says_who() -> None:
    # docs/wire.md section 6: a HELLO proves who, the DHT proves since when.
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            wire = await bob.dial(alice)
            wire.say(b"m", hello=bob.hello(expires=1))
            await until(lambda: alice.got)
            assert alice.got == [Message(bob.id, b"m")]

    virtual(main())


def test_who_speaks_before_hello_is_shown_the_door() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, mallory = town.person(ALICE), town.stranger(MALLORY)
            wire = await mallory.dial(alice)
            wire.say(b"no time for manners")
            await until(lambda: wire.closed)
            assert wire.byes == [Bye(ByeCode.PROTOCOL_ERROR, "HELLO comes first")]
            assert alice.counters["messaging.before_hello"] == 1
            assert alice.got == []

    virtual(main())


def test_who_says_no_hello_is_shown_the_door_after_three_seconds() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, mallory = town.person(ALICE), town.stranger(MALLORY)
            wire = await mallory.dial(alice)
            began = now()
            await until(lambda: wire.closed)
            assert 3.0 <= now() - began < 3.1
            assert wire.byes == [Bye(ByeCode.PROTOCOL_ERROR, "no HELLO")]
            assert alice.counters["messaging.no_hello"] == 1

    virtual(main())


def test_who_says_hello_in_time_stays() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            wire = await bob.dial(alice)
            await asyncio.sleep(2.9)
            wire.say(hello=bob.hello())
            await asyncio.sleep(60)
            assert not wire.closed
            wire.say(b"m")
            await until(lambda: alice.got)

    virtual(main())


def test_a_dialled_peer_that_says_nothing_does_not_answer() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, mallory = town.person(ALICE), town.stranger(MALLORY)
            endpoint = mallory.listen().endpoints[0]
            with pytest.raises(PeerOffline, match=f"does not answer at {endpoint}"):
                await alice.send(mallory.id, b"m")
            assert 3 < now() < 4
            assert mallory.wires[0].messages == []  # nothing is said to whom has not proved who he is

    virtual(main())


def test_messages_for_which_nobody_waits_are_acknowledged_together() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            wire = await bob.dial(alice)
            wire.say(hello=bob.hello())
            await until(lambda: wire.hellos)
            began, before = now(), len(wire.heard)
            for number in range(1, 5):
                wire.say(b"%d" % number, seq0=number, unhurried=True)
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.025)
            assert len(alice.messenger._flusher._unhurried) == 1  # however many frames came
            await until(lambda: len(wire.heard) > before)
            assert [frame.ack for frame in wire.heard[before:]] == [4]
            assert 0.055 <= now() - began <= 0.065

            for number in (5, 6):  # and so the next ones
                began = now()
                wire.say(b"%d" % number, seq0=number, unhurried=True)
                await until(lambda number=number: wire.heard[-1].ack == number)
                assert 0.055 <= now() - began <= 0.065

            began = now()
            wire.say(b"7", seq0=7, unhurried=True)
            wire.say(b"8", seq0=8)  # somebody waits for this one
            await until(lambda: wire.heard[-1].ack == 8)
            assert 0.050 <= now() - began <= 0.060
            await asyncio.sleep(0.1)
            assert wire.heard[-1].ack == 8  # and it is said once
            assert len(wire.heard) == before + 4

    virtual(main())


def test_a_send_is_acknowledged_at_once_whatever_was_posted_before_it() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            await alice.send(bob, b"first")
            for posted in (0, 1, 30, 31, 32, 300):  # with the 32nd of a turn what is there leaves at once
                began = now()
                for _ in range(posted):
                    alice.messenger.post(bob.id, b"m")
                await alice.send(bob, b"m")
                assert now() - began == pytest.approx(0.05)
                await asyncio.sleep(1)

    virtual(main())


def test_an_acknowledgement_that_waits_goes_along_with_bye() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.person(BOB)
            await alice.send(bob, b"1")
            (receipt,) = alice.messenger.post_many([bob.id], b"2")
            await asyncio.sleep(0.026)
            assert bob.heard == [b"1", b"2"]
            assert bob.messenger.pair(alice.id).delivery.inflow.ack_due
            bob.messenger.disconnect(alice.id)
            await asyncio.sleep(0.026)
            assert receipt.state is State.DELIVERED
            assert not alice.messenger.pair(bob.id).is_linked()

    virtual(main())


def test_a_second_hello_changes_nothing() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            wire = await bob.dial(alice)
            wire.say(b"1", hello=bob.hello())
            wire.say(b"2", seq0=2, hello=bob.hello(run=1))
            await until(lambda: len(alice.got) == 2)
            await asyncio.sleep(1)
            assert len(wire.hellos) == 1

    virtual(main())


def test_whoever_says_bye_is_not_kept() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = town.person(ALICE), town.stranger(BOB)
            wire = await bob.dial(alice)
            wire.say(hello=bob.hello())
            await until(lambda: wire.hellos)
            wire.link.send(write_frame(Frame(0, 0, 0, [], [Bye(ByeCode.GOING_AWAY, "")])))
            await until(lambda: wire.closed)
            with pytest.raises(PeerUnknown):
                await alice.send(bob.id, b"m")

    virtual(main())


def test_a_peer_that_lies_about_its_numbers_hurts_nobody() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob, mallory = town.person(ALICE), town.person(BOB), town.stranger(MALLORY)
            wire = await mallory.dial(alice)
            wire.say(hello=mallory.hello(yours=alice.incarnation, base=2**64 - 1, expect=2**64 - 1))
            wire.say(b"m", seq0=2**64 - 1, ack=2**64 - 1)
            await until(lambda: wire.hellos)
            sent = alice.sending(mallory.id, b"m", timeout_s=2)
            await bob.send(alice, b"m")
            with pytest.raises(DeliveryUnknown):
                await sent
            assert alice.heard == [b"m"]

    virtual(main())


# --- a slow reader ---


def test_a_slow_reader_slows_its_senders_and_nobody_else() -> None:
    async def main() -> None:
        async with Town() as town:
            bob = town.person(BOB, config=replace(CONFIG, inbox_messages=5, frame_messages=5), reads=False)
            alice, carol, dave = (town.person(n) for n in (ALICE, CAROL, DAVE))
            to_bob = [alice.sending(bob, b"%d" % n, timeout_s=600) for n in range(40)]
            await asyncio.sleep(60)
            assert sum(send.done() for send in to_bob) == 5
            assert bob.counters["messaging.not_taken"] > 0
            also = dave.sending(bob, b"from Dave", timeout_s=600)
            began = now()
            await alice.send(carol, b"to Carol")
            await carol.send(dave, b"to Dave")
            assert now() - began < 1
            assert also.done()  # who has nothing in his queue has room for a frame
            bob.read()
            await asyncio.gather(*to_bob, also)
            assert [data for data in bob.heard if data != b"from Dave"] == [b"%d" % n for n in range(40)]
            assert bob.heard.count(b"from Dave") == 1

    virtual(main())


def test_while_nobody_reads_little_is_sent() -> None:
    async def main() -> None:
        async with Town() as town:
            bob = town.person(BOB, config=replace(CONFIG, inbox_messages=1), reads=False)
            alice = town.person(ALICE)
            sends = [alice.sending(bob, bytes(10_000), timeout_s=600) for _ in range(100)]
            await asyncio.sleep(10)
            before = bob.counters["messaging.not_taken"]
            await asyncio.sleep(100)
            # One frame of six such messages every two seconds.
            assert bob.counters["messaging.not_taken"] - before <= 55 * 6
            bob.read()
            await asyncio.gather(*sends)

    virtual(main())


def test_who_was_told_of_more_room_than_there_was_hears_when_there_is_some() -> None:
    # Rooms are counted in messages of the size that came before; then larger ones come.
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE)
            bob = town.person(BOB, config=replace(CONFIG, inbox_bytes=1_000_000), reads=False)
            receipts = [alice.messenger.post(bob.id, bytes(50_000), 600.0) for _ in range(200)]
            waits, count = [], 0
            began = now()
            async for _ in bob.messenger.messages():
                waits.append(now() - began)
                await asyncio.sleep(0.02)
                began, count = now(), count + 1
                if count == len(receipts):
                    break
            assert bob.counters["messaging.not_taken"] > 0
            assert max(waits[1:]) < 0.15  # not until the sender looks again by itself

    virtual(main())


# --- bad weather ---


class Weather:
    """People who talk at random, vanish for a while, and are started again; and what became of each message."""

    def __init__(self, town: Town, rng: random.Random) -> None:
        self.town = town
        self.rng = rng
        self.now_living = [town.person(number) for number in (ALICE, BOB, CAROL)]
        self.processes = list(self.now_living)
        self.outcomes: dict[bytes, BaseException | None] = {}
        self.sends: list[asyncio.Task[None]] = []

    async def send(self, sender: Person, to: Person, data: bytes, timeout_s: float) -> None:
        try:
            await sender.send(to, data, timeout_s)
        except AtOnceError as error:
            self.outcomes[data] = error
        else:
            self.outcomes[data] = None

    async def blow(self, seconds: float) -> None:
        rng = self.rng
        number = 0
        while now() < seconds:
            await asyncio.sleep(rng.expovariate(20))
            what = rng.random()
            someone = rng.choice(self.now_living)
            if what < 0.01:
                again = await someone.start_again(len(self.processes))
                self.now_living[self.now_living.index(someone)] = again
                self.processes.append(again)
            elif what < 0.03:
                someone.vanish()
            elif what < 0.10:
                someone.come_back()
            else:
                to = rng.choice([person for person in self.now_living if person.id != someone.id])
                for _ in range(rng.choice([1, 1, 3, 30])):
                    number += 1
                    data = b"%d" % number
                    timeout_s = rng.choice([0.3, 2.0, 60.0])
                    self.sends.append(asyncio.create_task(self.send(someone, to, data, timeout_s)))
        for person in self.now_living:
            person.come_back()
        await asyncio.gather(*self.sends)
        await asyncio.sleep(10)

    def check(self) -> None:
        for process in self.processes:
            for sender in {message.sender for message in process.got}:
                numbers = [int(message.data) for message in process.got if message.sender == sender]
                assert numbers == sorted(set(numbers))
        heard = Counter(message.data for process in self.processes for message in process.got)
        for data, outcome in self.outcomes.items():
            if outcome is None:
                assert heard[data] == 1, f"{data!r} was acknowledged and came {heard[data]} times"
            elif isinstance(outcome, DeliveryUnknown):
                assert heard[data] <= 1, f"{data!r} came {heard[data]} times"
            else:
                assert heard[data] == 0, f"{data!r} came, though its sender was told {outcome!r}"


@pytest.mark.parametrize("seed", range(3))
def test_in_bad_weather_nothing_is_lost_doubled_or_untold(seed: int) -> None:
    async def main() -> None:
        async with Town() as town:
            weather = Weather(town, random.Random(seed))
            await weather.blow(40.0)
            weather.check()
            told = Counter(type(outcome) for outcome in weather.outcomes.values())
            assert told[type(None)] > 200
            assert told[DeliveryUnknown] > 0
            assert told[PeerOffline] > 0

    virtual(main())


# --- many peers ---


def test_one_dial_at_a_time_if_so_configured() -> None:
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE, config=replace(CONFIG, max_dials=1))
            bob, carol = town.person(BOB), town.person(CAROL)
            bob.vanish()
            failing, waiting = alice.sending(bob, b"m"), alice.sending(carol, b"m")
            with pytest.raises(PeerOffline):
                await failing
            assert not waiting.done()
            await waiting
            assert now() == pytest.approx(3.15)

    virtual(main())


def test_pairs_that_are_idle_are_forgotten_and_may_talk_again() -> None:
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE, config=replace(CONFIG, max_pairs=1))
            strangers = [town.stranger(10 + number) for number in range(4)]
            for turn in range(3):
                for stranger in strangers:
                    wire = await stranger.dial(alice)
                    said = b"%d" % turn
                    known = stranger.hello(yours=alice.incarnation, base=1 + turn, expect=1)
                    wire.say(said, seq0=1 + turn, hello=known if turn else stranger.hello())
                    await until(lambda wire=wire: any(frame.ack for frame in wire.heard))
                    wire.link.close()
                    await asyncio.sleep(1)
            for stranger in strangers:
                assert [m.data for m in alice.got if m.sender == stranger.id] == [b"0", b"1", b"2"]

    virtual(main())


@pytest.mark.parametrize(("memories", "taken"), [(1, 1), (0, 2)])
def test_what_is_remembered_of_others_has_a_bound(memories: int, taken: int) -> None:
    # A pair that is remembered takes nothing twice; one of which not even the numbers are remembered does.
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE, config=replace(CONFIG, max_pairs=2, max_memories=memories))
            strangers = [town.stranger(10 + number) for number in range(3)]
            for stranger in [*strangers, strangers[2], strangers[0]]:
                wire = await stranger.dial(alice)
                wire.say(b"m", hello=stranger.hello())
                await until(lambda wire=wire: any(frame.ack for frame in wire.heard))
                wire.link.close()
                await asyncio.sleep(1)
            assert [[m.sender for m in alice.got].count(stranger.id) for stranger in strangers] == [taken, 1, 1]

    virtual(main())


def test_a_peer_too_many_is_still_talked_to() -> None:
    async def main() -> None:
        async with Town() as town:
            alice = town.person(ALICE, config=replace(CONFIG, max_pairs=1))
            bob, carol = town.person(BOB), town.person(CAROL)
            await alice.send(bob, b"m")
            await alice.send(carol, b"m")
            assert carol.heard == [b"m"]

    virtual(main())


def test_the_network_of_the_tests_takes_private_addresses() -> None:
    # Else endpoints of these records would be left out, and nobody could be dialled.
    assert NETWORK.local
