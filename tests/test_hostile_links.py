"""Strangers on real sockets who do what no peer does, while an honest one is talked to.

In each test Alice is the one who is disturbed. She and Bob talk meanwhile: each message is acknowledged, all of them
come, once and in order, and their link is never lost (`Talk`). What is held for the stranger stays within the bounds
that the configuration names, and the counters say what was dropped.
"""

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import replace

import pytest
import zmq
from support_links import WAIT_S, Person, Stranger, Street, Talk, counted, identity, presence, until

from dht_atonce.config import LinkConfig, MessagingConfig
from dht_atonce.errors import AtOnceError, PeerOffline, QueueFull
from dht_atonce.messaging.frames import Bye, ByeCode, Frame, Held, Window, write_frame
from dht_atonce.messaging.inbox import Message
from dht_atonce.messaging.outflow import MESSAGE_OVERHEAD
from dht_atonce.messaging.receipts import Receipt, State

CONFIG, LINK = MessagingConfig(), LinkConfig()
ALICE, BOB, CAROL, MALLORY = range(1, 5)
MAX_SEQ = 1 << 62
SLOW_S = 2.0
"""No honest message may take so long to be acknowledged: idle machines need milliseconds, this is for busy ones."""


async def greeted(street: Street, victim: Person, number: int = MALLORY, **options: int) -> Stranger:
    """A stranger whose link has passed HELLO on both sides."""
    stranger = await (await street.stranger(number, victim, **options).open()).greet()
    await stranger.hear_hello()
    return stranger


def numbers(first: int, count: int) -> list[bytes | None]:
    return [b"%d" % n for n in range(first, first + count)]


# --- bytes that mean nothing ---


async def test_messages_of_many_parts_are_dropped_and_the_link_goes_on() -> None:
    async with Street() as street:
        alice, bob = street.person(ALICE), street.person(BOB)
        async with Talk(bob, alice):
            mallory = await greeted(street, alice)
            frame = mallory.token + write_frame(Frame(0, 1, 0, [b"in parts"], []))
            for parts in ([frame, frame], [frame, b""], [b"", frame], [mallory.token, frame[8:]], [b""] * 500):
                await mallory.sock.send_multipart(parts)
            await mallory.say(Frame(0, 1, 0, [b"whole"], []))
            await until(lambda: alice.heard(mallory.id))
            assert alice.heard(mallory.id) == [b"whole"]
            assert counted(alice.counters, "link.") == {"link.multipart": 5}


async def test_random_bytes_end_the_link_that_they_came_over_and_no_other() -> None:
    rng = random.Random(5)
    good = write_frame(Frame(0, 1, 0, [b"good", None], [Held([(3, 4)]), Window(9)]))
    bodies = [rng.randbytes(rng.choice((1, 9, 60, 1000, 200_000))) for _ in range(15)]
    bodies += [good[:at] for at in range(1, len(good), 2)]
    bodies += [b"\x91" * 2000, b"\xdd\xff\xff\xff\xff" * 99, b"\x95\x00\x01\x00\xdd\xff\xff\xff\xff"]
    async with Street() as street:
        alice, bob = street.person(ALICE), street.person(BOB)
        async with Talk(bob, alice):
            for body in bodies:
                mallory = await greeted(street, alice)
                await mallory.say(body)
                assert await mallory.hear_bye() == Bye(ByeCode.PROTOCOL_ERROR, "unreadable frame")
                mallory.vanish()
            assert alice.counters["messaging.bad_frame"] == len(bodies)
            assert alice.heard(mallory.id) == []


@pytest.mark.parametrize(
    "frame",
    [
        Frame(0, 1, 0, [b""] * 257, []),
        Frame(0, 1, 0, [], [Window(1)] * 17),
        Frame(0, 1, 0, [], [Held([(1, 1)] * 17)]),
        Frame(0, 1, 0, [], [Bye(1, "x" * 129)]),
        Frame(256, 1, 0, [b"m"], []),
        Frame(0, -1, 0, [b"m"], []),
    ],
    ids=["messages", "specials", "ranges", "text", "kind", "number"],
)
async def test_a_frame_with_more_in_it_than_is_allowed_is_not_read(frame: Frame) -> None:
    async with Street() as street:
        alice, bob = street.person(ALICE), street.person(BOB)
        async with Talk(bob, alice):
            mallory = await greeted(street, alice)
            await mallory.say(frame)
            assert (await mallory.hear_bye()).code == ByeCode.PROTOCOL_ERROR
            assert alice.counters["messaging.bad_frame"] == 1
            assert alice.heard(mallory.id) == []


async def test_what_is_too_large_is_dropped_or_ends_the_connection() -> None:
    async with Street() as street:
        alice, bob = street.person(ALICE), street.person(BOB)
        async with Talk(bob, alice):
            mallory = await greeted(street, alice)
            for _ in range(10):
                await mallory.say(bytes(LINK.max_body_bytes + 1))
            await mallory.say(Frame(0, 1, 0, [b"small"], []))
            await until(lambda: alice.heard(mallory.id))
            assert counted(alice.counters, "link.", "messaging.bad") == {"link.too_large": 10}
            await mallory.say(bytes(LINK.max_message_bytes))  # libzmq itself does not take it in
            assert await mallory.hung_up() == zmq.EVENT_DISCONNECTED
            await until(lambda: alice.messenger.record_of(mallory.id) is None)
            assert alice.heard(mallory.id) == [b"small"]


# --- floods ---


async def test_a_flood_of_small_frames_slows_nobody_else_down() -> None:
    async with Street() as street:
        alice, bob = street.person(ALICE), street.person(BOB)
        async with Talk(bob, alice) as talk:
            mallory = await greeted(street, alice)
            before = talk.count
            for n in range(10_000):
                await mallory.say(Frame(0, 1 + n, 0, [b"%d" % n], []))
            await until(lambda: Message(mallory.id, b"9999") in alice.got[-200:])
            assert talk.count > before + 20
            assert alice.heard(mallory.id) == numbers(0, 10_000)
        assert talk.slowest_s < SLOW_S


async def test_a_flood_of_what_was_said_before_is_nothing() -> None:
    async with Street() as street:
        alice, bob = street.person(ALICE), street.person(BOB)
        async with Talk(bob, alice) as talk:
            mallory = await greeted(street, alice)
            await mallory.say(Frame(0, 1, 0, numbers(1, 10), []))
            for _ in range(5000):  # and none of the answers is read
                await mallory.say(Frame(0, 1, 0, numbers(1, 10), []))
            await mallory.say(Frame(0, 11, 0, [b"11"], []))
            await until(lambda: len(alice.heard(mallory.id)) > 10)
            assert alice.heard(mallory.id) == numbers(1, 11)
        assert talk.slowest_s < SLOW_S


@pytest.mark.parametrize(
    ("size", "count", "held"),
    [(10, 100, CONFIG.max_held), (250_000, 1, CONFIG.window_bytes // 250_000)],
    ids=["many", "large"],
)
async def test_what_comes_behind_a_gap_is_held_up_to_a_bound(size: int, count: int, held: int) -> None:
    async with Street() as street:
        alice, bob = street.person(ALICE), street.person(BOB)
        async with Talk(bob, alice) as talk:
            mallory = await greeted(street, alice)
            for n in range(100):
                await mallory.say(Frame(0, 2 + n * count, 0, [bytes(size)] * count, []))
            await mallory.hear(lambda frame: any(isinstance(special, Held) for special in frame.specials))
            await mallory.say(Frame(0, 1, 0, [b"fills the gap"], []))
            await until(lambda: alice.heard(mallory.id))
            assert alice.heard(mallory.id) == [b"fills the gap"] + [bytes(size)] * (held * count)
            told = await mallory.hear(lambda frame: frame.ack > 1)
            assert told.ack == 1 + held * count
            ranges = [one.ranges for frame in mallory.heard for one in frame.specials if isinstance(one, Held)]
            assert max(map(len, ranges)) <= 16
        assert talk.slowest_s < SLOW_S


async def test_a_flood_that_nobody_reads_gets_half_of_the_inbox_at_most() -> None:
    config = replace(CONFIG, inbox_messages=2000)
    async with Street() as street:
        alice, bob = street.person(ALICE, config=config, reads=False), street.person(BOB)
        async with Talk(alice, bob, both_ways=False) as talk:
            mallory = await greeted(street, alice)
            for n in range(100):
                await mallory.say(Frame(0, 1 + 100 * n, 0, numbers(1 + 100 * n, 100), []))
            await until(lambda: alice.counters["messaging.not_taken"] >= 100)
            # Bob, who comes later, finds room, and Mallory gets no more by saying it again.
            receipts = [bob.messenger.post(alice.id, b"%d" % n) for n in range(200)]
            for _ in range(10):
                await mallory.say(Frame(0, 1, 0, numbers(1, 256), []))
                await mallory.say(Frame(0, 901, 0, numbers(901, 256), []))
            await asyncio.gather(*receipts)
            await talk.go_on()
            waiting = len(alice.messenger.inbox)
            assert 256 < waiting - 200 <= 1000
            messages = alice.messenger.messages()
            read = [await anext(messages) for _ in range(waiting)]
            assert [one.data for one in read if one.sender == bob.id] == numbers(0, 200)
            assert [one.data for one in read if one.sender == mallory.id] == numbers(1, waiting - 200)
        assert talk.slowest_s < SLOW_S


# --- one that never reads ---


def post_until_full(sender: Person, to: Stranger, data: bytes, timeout_s: float = 60.0) -> list[Receipt]:
    receipts = []
    with suppress(QueueFull):
        while True:
            receipts.append(sender.messenger.post(to.id, data, timeout_s))
    return receipts


def count_sent(receipts: list[Receipt]) -> int:
    return [receipt.state for receipt in receipts].count(State.SENT)


DEAF = {"RCVHWM": 1, "RCVBUF": 4096}
"""Options of a socket that takes next to nothing in as long as its owner does not read."""


@pytest.mark.parametrize("size", [10, 59_000])
@pytest.mark.parametrize("window", [CONFIG.first_window, MAX_SEQ], ids=["first window", "all the world"])
async def test_for_who_never_reads_little_is_sent_and_no_more_is_queued_than_may_be(window: int, size: int) -> None:
    config = replace(CONFIG, max_waiting=20_000, max_waiting_bytes=16 << 20)
    most = min(window, CONFIG.window_messages, CONFIG.window_bytes // (size + MESSAGE_OVERHEAD))
    async with Street() as street:
        alice, bob = street.person(ALICE, config=config), street.person(BOB)
        async with Talk(bob, alice) as talk:
            mallory = await greeted(street, alice, **DEAF)
            await mallory.say(Frame(0, 1, 0, [b"I have room"], [Window(window)]))
            await until(lambda: alice.heard(mallory.id))
            receipts = post_until_full(alice, mallory, bytes(size))
            assert len(receipts) <= 20_000
            assert (len(receipts) - 1) * size < 16 << 20
            await talk.go_on(100)
            assert most - CONFIG.frame_messages < count_sent(receipts) <= most
            with pytest.raises(QueueFull):
                alice.messenger.post(mallory.id, bytes(size))
        assert talk.slowest_s < SLOW_S


async def test_what_was_for_who_never_read_is_not_kept_beyond_its_time() -> None:
    config = replace(CONFIG, max_waiting=5000)
    async with Street() as street:
        alice, bob = street.person(ALICE, config=config), street.person(BOB)
        async with Talk(bob, alice):
            mallory = await greeted(street, alice, **DEAF)
            receipts = post_until_full(alice, mallory, bytes(1000), timeout_s=0.3)
            outcomes = await asyncio.gather(*receipts, return_exceptions=True)
            assert all(isinstance(outcome, AtOnceError) for outcome in outcomes)
            assert {receipt.state for receipt in receipts} == {State.UNKNOWN, State.EXPIRED}
            assert [receipt.state for receipt in receipts].count(State.UNKNOWN) <= CONFIG.first_window
            assert alice.messenger.post(mallory.id, b"there is room again", 0.1).state in (State.QUEUED, State.SENT)


# --- one that claims to be another ---


async def test_nobody_gets_in_with_the_record_of_somebody_else() -> None:
    async with Street() as street:
        alice, bob = street.person(ALICE), street.person(BOB)
        of_old = presence(bob.identity, seq=0, incarnation=b"long ago")
        of_carol = presence(identity(CAROL))
        async with Talk(bob, alice):
            record = alice.messenger.record_of(bob.id)
            for claimed in [bob.record, of_old, of_carol] * 5:
                mallory = await street.stranger(MALLORY, alice).open()
                await mallory.greet(b"I am he", record=claimed)
                assert await mallory.hear_bye() == Bye(ByeCode.PROTOCOL_ERROR, "record: not_of_this_link")
                assert len(mallory.heard) == 1  # we did not say who we are
                mallory.vanish()
            assert counted(alice.counters, "hello.") == {"hello.not_of_this_link": 15}
            assert alice.messenger.record_of(bob.id) is record
            assert {message.sender for message in alice.got} == {bob.id}


async def test_an_older_record_of_one_s_own_does_not_bring_an_older_process_back() -> None:
    async with Street() as street:
        alice, bob = street.person(ALICE), street.person(BOB)
        async with Talk(bob, alice):
            now = presence(identity(MALLORY), seq=5, incarnation=b"the new1")
            mallory = await (await street.stranger(MALLORY, alice).open()).greet(b"new", record=now)
            await mallory.hear_hello()
            for _ in range(5):
                old = await street.stranger(MALLORY, alice).open()
                await old.greet(b"old", record=presence(identity(MALLORY), seq=4, incarnation=b"the old1"))
                assert (await old.hear_bye()).code == ByeCode.PROTOCOL_ERROR
            assert alice.counters["hello.old_incarnation"] == 5
            await mallory.say(Frame(0, 2, 0, [b"still new"], []))
            await until(lambda: len(alice.heard(mallory.id)) == 2)
            assert alice.heard(mallory.id) == [b"new", b"still new"]


# --- many who say nothing ---


async def test_many_links_without_a_hello_end_and_make_room() -> None:
    link, config = replace(LINK, max_links=20), replace(CONFIG, hello_timeout_s=0.4)
    async with Street() as street:
        alice = street.person(ALICE, link=link, config=config)
        bob, carol = street.person(BOB), street.person(CAROL)
        async with Talk(bob, alice) as talk:
            silent = [street.stranger(100 + n, alice) for n in range(19)]
            await asyncio.gather(*(one.open() for one in silent))
            late = [street.stranger(200 + n, alice) for n in range(10)]
            events = await asyncio.gather(*(one.hung_up() for one in late))
            assert set(events) == {zmq.EVENT_HANDSHAKE_FAILED_AUTH}
            with pytest.raises(PeerOffline):
                await carol.messenger.send(alice.id, b"let me in")
            byes = await asyncio.gather(*(one.hear_bye() for one in silent))
            assert {bye.text for bye in byes} == {"no HELLO"}
            assert alice.counters["messaging.no_hello"] == 19
            assert alice.counters["link.refused_full"] >= 11
            for one in silent:
                one.vanish()
            await talk.go_on()
            async with asyncio.timeout(WAIT_S):
                while not alice.heard(carol.id):
                    with suppress(PeerOffline):
                        await carol.messenger.send(alice.id, b"now there is room")
        assert talk.slowest_s < SLOW_S


async def test_of_many_who_greet_and_then_say_nothing_the_oldest_make_room() -> None:
    config = replace(CONFIG, max_links=10)
    async with Street() as street:
        alice, bob = street.person(ALICE, config=config), street.person(BOB)
        async with Talk(bob, alice) as talk:
            idle = [await greeted(street, alice, 100 + n) for n in range(30)]
            assert sum(alice.messenger.record_of(one.id) is not None for one in idle) == 9
            assert alice.counters["messaging.idle_closed"] == 21
            for one in idle[:21]:
                assert (await one.hear_bye()).code == ByeCode.NOT_NEEDED
            await talk.go_on()
        assert talk.slowest_s < SLOW_S


async def test_many_connections_that_say_nothing_at_all_are_none_of_an_honest_peer_s_business() -> None:
    async with Street() as street:
        alice = street.person(ALICE, link=replace(LINK, handshake_s=0.3, max_links=20))
        bob, carol = street.person(BOB), street.person(CAROL)
        async with Talk(bob, alice) as talk:
            opened = [await asyncio.open_connection(*alice.address) for _ in range(100)]
            await carol.messenger.send(alice.id, b"there is room for who logs in")
            for reader, writer in opened:  # each is ended
                while await asyncio.wait_for(reader.read(1024), 5):
                    pass
                writer.close()
                await writer.wait_closed()
            await until(lambda: alice.counters["link.never_opened"] >= 100)
        assert talk.slowest_s < SLOW_S
        assert alice.heard(carol.id) == [b"there is room for who logs in"]


# --- lies, and many names ---


async def test_what_is_said_of_gaps_costs_no_more_than_reading_it() -> None:
    async with Street() as street:
        alice, bob = street.person(ALICE), street.person(BOB)
        mallory = await greeted(street, alice)
        async with Talk(bob, alice) as talk:
            for n in range(1000):  # each in a batch of its own, as answers to questions are
                alice.messenger.post(mallory.id, b"answer", 60 + n)
            await talk.go_on()
            lies = write_frame(Frame(0, 0, 0, [], [Held([(MAX_SEQ, 1)] * 16)] * 16))
            assert len(lies) < 4096
            began = time.process_time()
            for _ in range(20):
                await mallory.say(lies)
            await mallory.say(Frame(0, 1, 0, [b"that was all"], []))
            await until(lambda: alice.heard(mallory.id))
            assert time.process_time() - began < 0.1


async def test_many_identities_cannot_fill_the_inbox_without_bound() -> None:
    config = replace(CONFIG, inbox_messages=512)
    async with Street() as street:
        alice, bob = street.person(ALICE, config=config, reads=False), street.person(BOB)
        async with Talk(alice, bob, both_ways=False):
            for n in range(20):
                mallory = await street.stranger(100 + n, alice).open()
                await mallory.greet(*[b"m"] * CONFIG.frame_messages)
                await mallory.hear_hello()
                mallory.vanish()
            assert len(alice.messenger.inbox) <= 2 * config.inbox_messages


async def test_who_acknowledges_what_he_never_read_is_held_no_more_for() -> None:
    async with Street() as street:
        alice, bob = street.person(ALICE), street.person(BOB)
        async with Talk(bob, alice) as talk:
            mallory = await greeted(street, alice, **DEAF)
            await mallory.say(Frame(0, 0, 0, [], [Window(MAX_SEQ)]))
            receipts: list[Receipt] = []
            for ack in range(1, 1001):
                receipts.append(alice.messenger.post(mallory.id, bytes(59_000), 60))
                if ack > 10:  # what alice sent some turns ago, but for what is in the kernel not read by anybody
                    await mallory.say(Frame(0, 0, ack - 10, [], []))
                await asyncio.sleep(0)
            await talk.go_on()
            delivered = [receipt.state for receipt in receipts].count(State.DELIVERED)
            assert delivered * 59_000 <= 8 * CONFIG.window_bytes
