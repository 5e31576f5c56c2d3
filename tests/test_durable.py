"""Durable messages between whole peers in the virtual world: each promise of docs/guide/durable.md."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support_durable import FILE, Resident, config, heard, two
from support_peers import Village, now, until, virtual

from atonce_sim.world import World
from dht_atonce.codec import encode
from dht_atonce.durable.receiving import DurableMessage
from dht_atonce.durable.wire import Parcel, Refused, Settled, Stored, pack, unpack
from dht_atonce.errors import (
    DeliveryUnknown,
    MessageTooLarge,
    NotSupported,
    PeerClosed,
    PeerOffline,
    QueueFull,
    StoreError,
)
from dht_atonce.messaging.frames import Kind
from dht_atonce.messaging.receipts import State


def in_village(story: Callable[[Village], Awaitable[None]], seed: int = 1) -> None:
    async def main() -> None:
        async with Village(World(seed)) as village:
            await story(village)

    virtual(main())


# --- all is well ---


def test_a_message_is_kept_delivered_and_done() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        receipt = await alice.peer.send(bob.id, b"hello", durable=True)
        assert receipt.is_kept
        await receipt
        assert receipt.state is State.DELIVERED
        await heard(bob, b"hello")
        (message,) = bob.got
        assert (message.sender, message.id, message.again) == (alice.id, receipt.id, False)
        await until(lambda: bob.finished)
        await asyncio.sleep(1)
        assert alice.counters == {"durable.delivered": 1}
        assert bob.counters == {"durable.received": 1, "durable.done": 1}
        # Nothing is left of it on either disk, not even its id.
        for one in (alice, bob):
            database = village.world.disks._databases[one.name][FILE]
            assert database.execute(
                "SELECT (SELECT COUNT(*) FROM outbox), (SELECT COUNT(*) FROM inbox)"
            ).fetchone() == (0, 0)

    in_village(story)


def test_many_messages_come_in_order_beside_plain_ones() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        receipts = []
        for number in range(3000):
            receipts.append(alice.peer.post(bob.id, b"%d" % number, durable=True))
            if number % 100 == 0:
                alice.peer.post(bob.id, b"plain")
        await asyncio.gather(*receipts)
        await until(lambda: len(bob.finished) == 3000)
        assert bob.heard == [b"%d" % number for number in range(3000)]
        assert bob.peer.counters["messaging.received"] == 30

    in_village(story)


def test_what_comes_in_one_turn_is_one_transaction() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        await alice.peer.send(bob.id, b"first", durable=True)
        await heard(bob, b"first")
        commits: list[int] = []
        store = bob.peer._durable._writer._store
        perform = store.perform
        store.perform = lambda jobs: (commits.append(len(jobs)), perform(jobs))[1]  # type: ignore[method-assign]
        bob.keeps = True
        for number in range(200):
            alice.peer.post(bob.id, b"%d" % number, durable=True)
        await until(lambda: len(bob.got) == 201)
        assert len(commits) <= 3  # the messages, and that they are settled

    in_village(story)


def test_a_note_to_oneself_is_kept_too() -> None:
    async def story(village: Village) -> None:
        await village.open_seed()
        alice = await Resident(village, "alice", keeps=True).start()
        receipt = await alice.peer.send(alice.id, b"buy milk", durable=True)
        await receipt
        await heard(alice, b"buy milk")
        alice.crash()
        await alice.start_again()
        await heard(alice, b"buy milk", b"buy milk")
        assert alice.got[1].again
        await alice.peer.done(alice.got[1])
        alice.crash()
        await alice.start_again()
        await asyncio.sleep(60)
        assert len(alice.got) == 2

    in_village(story)


# --- not done: again, after a restart ---


def test_what_was_not_done_comes_again_after_a_restart_and_what_was_done_never() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        bob.keeps = True
        receipts = [await alice.peer.send(bob.id, b"%d" % number, durable=True) for number in range(4)]
        await asyncio.gather(*receipts)
        await until(lambda: len(bob.got) == 4)
        await bob.got[1].done()
        await bob.got[1].done()  # twice is once
        bob.crash()
        await bob.start_again()
        await until(lambda: len(bob.got) == 7)
        assert bob.heard == [b"0", b"1", b"2", b"3", b"0", b"2", b"3"]
        assert [message.again for message in bob.got] == [False] * 4 + [True] * 3
        assert [message.id for message in bob.got[4:]] == [receipts[n].id for n in (0, 2, 3)]
        # Of a peer that closed in good order the same is true.
        for message in bob.got[4:6]:
            await bob.peer.done(message)
        await bob.close()
        await bob.start_again()
        await until(lambda: len(bob.got) == 8)
        assert bob.heard[-1] == b"3"

    in_village(story)


def test_more_than_fits_into_memory_comes_from_the_disk_in_order() -> None:
    async def story(village: Village) -> None:
        small = config(ready_messages=8, window_messages=16)
        alice, bob = await two(village, config=small)
        bob.keeps = True
        receipts = [alice.peer.post(bob.id, b"%d" % number, durable=True) for number in range(300)]
        await asyncio.gather(*receipts)
        await until(lambda: len(bob.got) == 300)
        bob.crash()
        await bob.start_again()
        await until(lambda: len(bob.got) == 600)
        assert bob.heard == [b"%d" % number for number in range(300)] * 2

    in_village(story)


# --- away ---


def test_a_message_to_somebody_offline_leaves_when_the_peer_is_back() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        await bob.close()
        receipt = await alice.peer.send(bob.id, b"while you were out", durable=True)
        await asyncio.sleep(3600)
        assert receipt.state is State.QUEUED
        await bob.start_again()
        back_at = now()
        await heard(bob, b"while you were out")
        assert now() - back_at < 5  # its presence was watched: no slow poll
        await receipt

    in_village(story)


def test_a_message_to_somebody_who_crashed_leaves_when_the_peer_is_back() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        await alice.peer.send(bob.id, b"one", durable=True)
        await heard(bob, b"one")
        bob.crash()
        await alice.peer.send(bob.id, b"two", durable=True)
        await asyncio.sleep(600)
        await bob.start_again()
        back_at = now()
        await heard(bob, b"one", b"two")
        assert now() - back_at < 5

    in_village(story)


def test_a_message_to_somebody_never_heard_of_waits_for_him() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        carol_id = bob.id
        await bob.close()
        village.world.disks._files.pop("alice2", None)
        dave = await Resident(village, "dave").start()
        await dave.peer.send(carol_id, b"nice to meet you", durable=True)
        await asyncio.sleep(10)
        await bob.start_again()
        await heard(bob, b"nice to meet you")
        assert alice.counters == {}

    in_village(story)


def test_both_are_restarted_and_the_message_arrives() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        bob.crash()
        for number in range(5):
            await alice.peer.send(bob.id, b"%d" % number, durable=True)
        alice.crash()
        await asyncio.sleep(100)
        await alice.start_again()
        await asyncio.sleep(100)
        await bob.start_again()
        await heard(bob, *(b"%d" % number for number in range(5)))
        assert alice.peer._durable._sending is not None
        await until(lambda: alice.peer._durable._sending.messages == 0)

    in_village(story)


def test_a_peer_at_another_address_gets_what_waits() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        await (await alice.peer.send(bob.id, b"at home", durable=True))
        village.world.move(bob.host, "10.0.9.9")
        await alice.peer.send(bob.id, b"on the road", durable=True)
        await heard(bob, b"at home", b"on the road", within_s=120)

    in_village(story)


def test_a_cut_in_the_middle_doubles_nothing() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        for number in range(2000):
            alice.peer.post(bob.id, b"%d" % number + bytes(100), durable=True)
        await until(lambda: len(bob.got) > 100)
        village.world.unreachable.add(bob.host.ip)
        await asyncio.sleep(60)
        village.world.unreachable.discard(bob.host.ip)
        await until(lambda: len(bob.finished) == 2000, 600)
        assert [int(data.rstrip(b"\0")) for data in bob.heard] == list(range(2000))

    in_village(story)


# --- crashes at the worst moment ---


def test_the_receiver_dies_between_commit_and_acknowledgement() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        await (await alice.peer.send(bob.id, b"first", durable=True))
        await until(lambda: len(bob.finished) == 1)
        await asyncio.sleep(1)
        bob.host.disk_faults.commit_s = 2.0
        receipt = await alice.peer.send(bob.id, b"second", durable=True)
        database = village.world.disks._databases["bob"][FILE]
        await until(lambda: database.execute("SELECT COUNT(*) FROM inbox").fetchone() == (1,))
        assert receipt.state is State.SENT  # committed, and not acknowledged
        bob.crash()
        bob.host.disk_faults.commit_s = 0.0
        await bob.start_again()
        await receipt
        await until(lambda: len(bob.finished) == 2)
        await asyncio.sleep(60)
        assert bob.heard == [b"first", b"second"]  # once, though it was sent twice
        assert bob.got[1].again
        assert bob.counters["durable.duplicates"] == 1

    in_village(story)


def test_the_receiver_dies_before_the_commit() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        bob.host.disk_faults.commit_s = 2.0
        receipt = await alice.peer.send(bob.id, b"hello", durable=True)
        await until(lambda: receipt.state is State.SENT)
        await asyncio.sleep(0.5)
        bob.crash()
        await asyncio.sleep(30)
        assert receipt.state is State.SENT
        bob.host.disk_faults.commit_s = 0.0
        await bob.start_again()
        await heard(bob, b"hello")
        assert not bob.got[0].again
        await receipt

    in_village(story)


def test_the_sender_dies_after_the_commit_of_its_outbox() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        village.world.unreachable.add(bob.host.ip)
        receipt = await alice.peer.send(bob.id, b"kept", durable=True)
        alice.peer.post(bob.id, b"not even written", durable=True)
        alice.crash()
        village.world.unreachable.discard(bob.host.ip)
        await asyncio.sleep(60)
        assert bob.got == []
        await alice.start_again()
        await heard(bob, b"kept")
        assert bob.got[0].id == receipt.id

    in_village(story)


def test_the_sender_dies_with_the_acknowledgement_and_the_message_is_not_doubled() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        await (await alice.peer.send(bob.id, b"first", durable=True))
        await asyncio.sleep(1)
        receipt = await alice.peer.send(bob.id, b"second", durable=True)
        alice.host.disk_faults.commit_s = 5.0  # that it was acknowledged will not be on the disk
        await receipt
        alice.crash()
        alice.host.disk_faults.commit_s = 0.0
        await until(lambda: len(bob.finished) == 2)
        await alice.start_again()
        await until(lambda: bob.counters.get("durable.duplicates") == 1)
        assert bob.heard == [b"first", b"second"]

    in_village(story)


# --- disks that fail ---


def test_a_slow_disk_delays_and_holds_up_nothing_else() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        bob.host.disk_faults.commit_s = 5.0
        receipt = await alice.peer.send(bob.id, b"slow", durable=True)
        began = now()
        await alice.peer.send(bob.id, b"plain")
        assert now() - began < 1
        assert receipt.state is State.SENT
        await receipt
        assert 5 <= now() - began < 12

    in_village(story)


def test_a_full_disk_of_the_receiver_leaves_it_in_the_outbox_until_there_is_room() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        bob.host.disk_faults.full = True
        receipts = [await alice.peer.send(bob.id, b"%d" % number, durable=True) for number in range(3)]
        await asyncio.sleep(60)
        assert all(receipt.state is State.SENT for receipt in receipts)
        assert bob.got == []
        assert bob.counters["durable.not_written"] > 1
        bob.host.disk_faults.full = False
        await asyncio.gather(*receipts)
        await heard(bob, b"0", b"1", b"2")

    in_village(story)


def test_a_full_disk_of_the_sender_is_said() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        await alice.peer.send(bob.id, b"fits", durable=True)
        alice.host.disk_faults.full = True
        with pytest.raises(StoreError, match="the disk is full: nothing was added"):
            await alice.peer.send(bob.id, b"does not", durable=True)
        receipt = alice.peer.post(bob.id, b"nor this", durable=True)
        with pytest.raises(StoreError):
            await receipt
        assert receipt.state is State.EXPIRED
        assert not receipt.is_kept
        alice.host.disk_faults.full = False
        await alice.peer.send(bob.id, b"fits again", durable=True)
        await heard(bob, b"fits", b"fits again")

    in_village(story)


def test_done_on_a_full_disk_raises_and_the_message_comes_again() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        bob.keeps = True
        await (await alice.peer.send(bob.id, b"hello", durable=True))
        await until(lambda: bob.got)
        bob.host.disk_faults.full = True
        with pytest.raises(StoreError, match="full"):
            await bob.got[0].done()
        bob.crash()
        bob.host.disk_faults.full = False
        await bob.start_again()
        await heard(bob, b"hello", b"hello")
        assert bob.got[1].again

    in_village(story)


@pytest.mark.parametrize("at", [0, 4096], ids=["header", "page"])
def test_a_damaged_file_is_set_aside_and_said(at: int) -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        bob.keeps = True
        await (await alice.peer.send(bob.id, b"lost in the damage", durable=True))
        await until(lambda: bob.got)
        disks = village.world.disks
        for number in (1, 2):
            await bob.close()
            disks.damage("bob", FILE, at)
            await bob.start_again()
            await until(lambda: bob.warnings)
            aside = f"messages.db is damaged: it was set aside as messages.db.damaged-{number}"
            assert bob.warnings == [f"{aside}, and an empty one took its place"]
            bob.got.clear()
            await (await alice.peer.send(bob.id, b"new", durable=True))
            await heard(bob, b"new")
        assert disks.databases("bob") == [FILE, "messages.db.damaged-1", "messages.db.damaged-2"]

    in_village(story)


def test_a_file_of_a_later_version_is_left_alone() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        await (await alice.peer.send(bob.id, b"hello", durable=True))
        await bob.close()
        database = village.world.disks._databases["bob"][FILE]
        database.execute("PRAGMA user_version = 9")
        await bob.start_again()
        await until(lambda: bob.warnings)
        assert bob.warnings == ["messages.db was made by a later version of @Once; it is left as it is"]
        with pytest.raises(StoreError, match="later version"):
            await bob.peer.send(alice.id, b"back", durable=True)
        assert village.world.disks.databases("bob") == [FILE]

    in_village(story)


# --- time and room ---


def test_what_expires_before_the_peer_is_there_is_never_delivered() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        await bob.close()
        receipt = await alice.peer.send(bob.id, b"lunch?", durable=True, expires_s=60)
        later = await alice.peer.send(bob.id, b"dinner?", durable=True, expires_s=3600)
        with pytest.raises(PeerOffline, match="was not there before the message expired"):
            await receipt
        assert receipt.state is State.EXPIRED
        await bob.start_again()
        await later
        await heard(bob, b"dinner?")

    in_village(story)


def test_what_expires_unacknowledged_is_unknown() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        bob.host.disk_faults.full = True
        receipt = await alice.peer.send(bob.id, b"hello", durable=True, expires_s=30)
        with pytest.raises(DeliveryUnknown):
            await receipt
        assert receipt.state is State.UNKNOWN

    in_village(story)


def test_what_expires_in_the_inbox_does_not_come_again() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        bob.keeps = True
        await (await alice.peer.send(bob.id, b"today only", durable=True, expires_s=100))
        await until(lambda: bob.got)
        await asyncio.sleep(200)
        assert bob.counters["durable.inbox_expired"] == 1
        await bob.close()
        await bob.start_again()
        await asyncio.sleep(30)
        assert len(bob.got) == 1

    in_village(story)


def test_a_full_inbox_refuses_and_takes_again_when_the_app_is_done() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village, config=config(inbox_messages=10))
        bob.keeps = True
        receipts = [alice.peer.post(bob.id, b"%d" % number, durable=True) for number in range(8)]
        await asyncio.sleep(30)
        assert [receipt.state for receipt in receipts] == [State.DELIVERED] * 5 + [State.SENT] * 3  # half of it
        carol = await Resident(village, "carol").start()
        await (await carol.peer.send(bob.id, b"others find room", durable=True))
        for message in bob.got[:5]:
            await message.done()
        await asyncio.gather(*receipts)
        assert [data for data in bob.heard if data.isdigit()] == [b"%d" % number for number in range(8)]

    in_village(story)


def test_a_full_outbox_is_said() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village, config=config(outbox_messages=3, outbox_bytes=1000))
        await bob.close()
        with pytest.raises(QueueFull, match="the outbox holds 0 messages"):
            alice.peer.post(bob.id, bytes(1001), durable=True)
        for _ in range(3):
            await alice.peer.send(bob.id, b"x", durable=True, expires_s=100)
        with pytest.raises(QueueFull, match="3 messages"):
            alice.peer.post(bob.id, b"x", durable=True)
        alice.crash()
        await alice.start_again()
        await asyncio.sleep(1)
        with pytest.raises(QueueFull):
            alice.peer.post(bob.id, b"x", durable=True)
        await asyncio.sleep(150)
        alice.peer.post(bob.id, b"x", durable=True)

    in_village(story)


# --- who cannot ---


def test_who_has_no_disk_or_cannot_be_found_takes_none() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        ephemeral = await village.open_peer()
        assert ephemeral.record is not None
        assert "dur1" not in ephemeral.record.capabilities
        with pytest.raises(NotSupported, match="need a profile folder"):
            await ephemeral.send(bob.id, b"hello", durable=True)
        await ephemeral.send(alice.id, b"a link")
        with pytest.raises(NotSupported, match="takes no durable messages"):
            alice.peer.post(ephemeral.id, b"hello", durable=True)

    in_village(story)


def test_a_transient_peer_sends_and_takes_none() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        visitor = await village.open_peer("visitor", transient=True)
        await (await visitor.send(bob.id, b"from a visitor", durable=True))
        await heard(bob, b"from a visitor")
        with pytest.raises(NotSupported, match="takes no durable messages"):
            bob.peer.post(visitor.id, b"hello", durable=True)
        with pytest.raises(NotSupported, match="not even its own"):
            visitor.post(visitor.id, b"hello", durable=True)
        assert alice.counters == {}

    in_village(story)


def test_what_was_sent_to_who_cannot_take_it_waits_until_he_can() -> None:
    async def story(village: Village) -> None:
        await village.open_seed()
        alice = await Resident(village, "alice").start()
        bob = Resident(village, "bob")
        visitor = await village.open_peer("bob", transient=True, host=bob.host)
        receipt = alice.peer.post(visitor.id, b"for later", durable=True)
        await visitor.send(alice.id, b"a link")
        await asyncio.sleep(30)
        assert receipt.state is State.QUEUED
        await visitor.aclose()
        await bob.start_again()
        await receipt
        await heard(bob, b"for later")

    in_village(story)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"data": bytes(59_901)}, MessageTooLarge),
        ({"expires_s": 0}, ValueError),
        ({"expires_s": -1}, ValueError),
        ({"expires_s": float("nan")}, ValueError),
        ({"expires_s": 30 * 86400 + 1}, ValueError),
    ],
)
def test_misuse_raises(arguments: dict[str, Any], error: type[Exception]) -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        with pytest.raises(error):
            alice.peer.post(bob.id, **{"data": b"x", "durable": True, **arguments})

    in_village(story)


def test_the_largest_message_fits() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        await (await alice.peer.send(bob.id, bytes(59_900), durable=True))
        await heard(bob, bytes(59_900))

    in_village(story)


# --- the end ---


def test_who_closes_writes_what_was_posted_and_says_that_it_goes_on() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        await bob.close()
        receipt = alice.peer.post(bob.id, b"last words", durable=True)
        await alice.close()
        assert receipt.is_kept
        with pytest.raises(PeerClosed, match="goes on at the next start"):
            await receipt
        with pytest.raises(PeerClosed):
            alice.peer.post(bob.id, b"too late", durable=True)
        await alice.start_again()
        await bob.start_again()
        await heard(bob, b"last words")

    in_village(story)


def test_a_peer_that_never_uses_it_has_no_file() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        await alice.peer.send(bob.id, b"plain")
        assert village.world.disks.databases("alice") == village.world.disks.databases("bob") == []

    in_village(story)


def test_plain_messages_are_not_durable_ones() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        got: list[object] = []

        async def read() -> None:
            async for message in alice.peer.messages():
                got.append(message)

        reader = asyncio.create_task(read())
        await bob.peer.send(alice.id, b"plain")
        await asyncio.sleep(1)
        assert not any(isinstance(message, DurableMessage) for message in got)
        await alice.peer.aclose()
        await reader

    in_village(story)


# --- strangers ---


def test_what_a_stranger_gets_wrong_is_dropped_and_counted() -> None:
    async def story(village: Village) -> None:
        alice, bob = await two(village)
        messenger = alice.peer._membership.messenger
        round_ = b"12345678"
        for data in (
            b"",
            b"\xc1",
            encode([9, b"no such note"]),
            encode([1, b"short", 0, bytes(16), 1, b""]),
            encode([1, round_, 0, bytes(15), 1, b""]),
            encode([1, round_, 0, bytes(16), 1, bytes(59_901)]),
            encode([2, round_, -1]),
        ):
            await messenger.post(bob.id, data, kind=Kind.DURABLE)
        assert bob.counters == {"durable.bad_note": 7}
        for note in (
            Stored(round_, 2**32 - 1),
            Refused(round_, 255),
            Settled(round_, 2**32 - 1),
            Parcel(round_, 5, bytes(16), 2**63, b"out of place"),
            Parcel(b"87654321", 0, bytes(16), 2**64 - 1, b"for ever"),
        ):
            await messenger.post(bob.id, pack(note), kind=Kind.DURABLE)
        assert bob.counters == {
            "durable.bad_note": 7,
            "durable.not_taken": 2,
            "durable.refused_again": 1,
            "durable.refused_invalid": 1,
        }
        # Alice's own messages are none the worse for it.
        await (await alice.peer.send(bob.id, b"hello", durable=True))
        await heard(bob, b"hello")

    in_village(story)


def test_notes_are_as_written_in_the_specification() -> None:
    # docs/wire.md, spelt out: what another implementation would write.
    round_, message_id = bytes(range(8)), bytes(range(16))
    parcel = b"\x96\x01\xc4\x08" + round_ + b"\x05\xc4\x10" + message_id + b"\xcd\x03\xe8\xc4\x02hi"
    assert pack(Parcel(round_, 5, message_id, 1000, b"hi")) == parcel
    assert unpack(parcel) == Parcel(round_, 5, message_id, 1000, b"hi")
    for tag, kind in ((2, Stored), (3, Refused), (4, Settled)):
        assert pack(kind(round_, 7)) == b"\x93" + bytes([tag]) + b"\xc4\x08" + round_ + b"\x07"
