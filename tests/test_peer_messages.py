"""What `Peer` adds to plain messages: the same to many, and an app that is called instead of reading."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support_peers import Village, identity, listener, now, seated, until, virtual

from dht_atonce.config import MessagingConfig
from dht_atonce.durable.receiving import DurableMessage
from dht_atonce.errors import MessageTooLarge, PeerClosed, PeerIdError, PeerUnknown, QueueFull
from dht_atonce.messaging.inbox import Message
from dht_atonce.messaging.receipts import State
from dht_atonce.peer import Peer


async def settled(village: Village, count: int) -> list[Peer]:
    """A seed and so many peers that know each other."""
    await village.open_seed()
    peers = [await village.open_peer() for _ in range(count)]
    await until(lambda: all(len(seated(peer)) == count - 1 for peer in peers))
    return peers


# --- the same to many ---


def test_one_call_says_it_to_everybody_and_gives_a_receipt_for_each() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, *others = await settled(village, 5)
            got = [await listener(peer) for peer in others]
            names = [others[0].id, str(others[1].id), *(peer.id for peer in others[2:])]
            receipts = alice.post_many(iter(names), b"all of you")
            assert {receipt.state for receipt in receipts} == {State.QUEUED}
            await asyncio.gather(*receipts)
            assert got == [[Message(alice.id, b"all of you")]] * 4
            assert {receipt.state for receipt in receipts} == {State.DELIVERED}
            assert alice.post_many([], b"nobody") == []

    virtual(main())


def test_each_of_many_has_a_fate_of_its_own() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            bob = await village.open_peer()
            alice = await village.open_peer(config=MessagingConfig(max_waiting=1))
            heard = await listener(bob)
            stranger = identity(77).id
            waiting = alice.post(stranger, b"first")
            full, fine = alice.post_many([stranger, bob.id], b"second")
            assert full.state is State.EXPIRED
            with pytest.raises(QueueFull):
                await full
            await fine
            with pytest.raises(PeerUnknown):
                await waiting
            assert [message.data for message in heard] == [b"second"]

    virtual(main())


def test_the_same_to_many_has_its_time() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob, carol = await settled(village, 3)
            await alice.send(bob.id, b"hello")
            village.crash(bob)
            await listener(carol)
            began = now()
            lost, fine = alice.post_many([bob.id, carol.id], b"m", 1.5)
            await fine
            assert now() - began < 1
            await until(lambda: lost.state is State.UNKNOWN, within_s=3)
            assert now() - began == pytest.approx(1.5, abs=0.1)

    virtual(main())


@pytest.mark.parametrize("data", ["text", 5, None, [b"m"]])
def test_what_is_not_bytes_is_refused_at_once(data: Any) -> None:
    # The other side would take it for an unreadable frame, and end the link each time that it is sent again.
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            alice, bob = await village.open_peer(), await village.open_peer()
            got = await listener(bob)
            with pytest.raises(TypeError, match="a message is bytes"):
                alice.post(bob.id, data)
            with pytest.raises(TypeError, match="a message is bytes"):
                await alice.send(bob.id, data)
            with pytest.raises(TypeError, match="a message is bytes"):
                alice.post_many([bob.id], data)
            with pytest.raises(TypeError, match="a message is bytes"):
                await alice.request(bob.id, data, service="any")
            await alice.send(bob.id, bytearray(b"fine"))
            assert got == [Message(alice.id, b"fine")]

    virtual(main())


def test_where_one_name_is_none_nothing_is_said_to_anybody() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await settled(village, 2)
            heard = await listener(bob)
            with pytest.raises(PeerIdError):
                alice.post_many([bob.id, "bob"], b"m")
            with pytest.raises(MessageTooLarge):
                alice.post_many([bob.id], bytes(60_001))
            await alice.send(bob.id, b"only this")
            assert [message.data for message in heard] == [b"only this"]
            await alice.aclose()
            with pytest.raises(PeerClosed):
                alice.post_many([bob.id], b"m")

    virtual(main())


# --- called instead of reading ---


def test_an_app_that_is_called_can_answer_at_once_and_read_again_later() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await settled(village, 2)
            answers, read = await listener(alice), await listener(bob)
            called: list[Message] = []

            def answer(message: Message) -> None:
                called.append(message)
                bob.post(message.sender, message.data[::-1])

            bob.on_message(answer)
            await alice.send(bob.id, b"ping")
            assert called == [Message(alice.id, b"ping")]  # it was called before the acknowledgement left
            await until(lambda: answers)
            assert answers == [Message(bob.id, b"gnip")]
            bob.on_message(None)
            await alice.send(bob.id, b"read me")
            assert (len(called), read) == (1, [Message(alice.id, b"read me")])

    virtual(main())


def test_what_came_before_waits_to_be_read() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await settled(village, 2)
            await alice.send(bob.id, b"before")
            called: list[Message] = []
            bob.on_message(called.append)
            await alice.send(bob.id, b"after")
            read = await listener(bob)
            await until(lambda: read)
            assert ([message.data for message in read], [message.data for message in called]) == (
                [b"before"],
                [b"after"],
            )

    virtual(main())


def test_durable_messages_are_read_whoever_is_called(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            alice, bob = [await village.open_peer(tmp_path / name) for name in ("alice", "bob")]
            read, called = await listener(bob), list[Message]()
            bob.on_message(called.append)
            await alice.post(bob.id, b"kept", durable=True)
            await alice.send(bob.id, b"plain")
            await until(lambda: read)
            assert isinstance(read[0], DurableMessage)
            assert ([message.data for message in read], [message.data for message in called]) == ([b"kept"], [b"plain"])

    virtual(main())


def test_who_is_to_be_called_may_be_said_before_there_is_a_network(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            host = village.world.host()
            await village.open_seed(tmp_path, host=host, port=4710)
            url = village.url
            await village.seed.aclose()
            early = await village.open_peer(seeds=[url], keep_trying=True)
            called: list[Message] = []
            early.on_message(called.append)
            await village.open_seed(tmp_path, host=host, port=4710)
            await until(lambda: early.entry, within_s=60)
            other = await village.open_peer()
            await other.send(early.id, b"there you are")
            assert called == [Message(other.id, b"there you are")]

    virtual(main())


def test_nobody_is_called_after_the_end() -> None:
    async def main() -> None:
        async with Village() as village:
            (alice,) = await settled(village, 1)
            await alice.aclose()
            with pytest.raises(PeerClosed, match="closed"):
                alice.on_message(None)

    virtual(main())
