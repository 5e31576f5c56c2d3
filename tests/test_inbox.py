"""The queue between links and the app."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_peers import identity, other_tasks, virtual

from dht_atonce.config import MessagingConfig
from dht_atonce.identity import PeerId
from dht_atonce.messaging.inbox import Inbox, Message

CONFIG = MessagingConfig()
ALICE, BOB = identity(1).id, identity(2).id


def message(number: int, size: int = 0) -> Message:
    return Message(ALICE, b"%d" % number + bytes(size))


async def read_all(inbox: Inbox, into: list[Message]) -> None:
    async for one in inbox.read():
        into.append(one)


def test_messages_come_out_as_they_went_in() -> None:
    async def main() -> None:
        inbox = Inbox(CONFIG)
        for number in range(100):
            inbox.put(ALICE, [message(number).data])
        assert len(inbox) == 100
        inbox.close()
        got: list[Message] = []
        await read_all(inbox, got)
        assert got == [message(number) for number in range(100)]
        assert len(inbox) == 0

    virtual(main())


def test_a_reader_waits_for_what_comes_later() -> None:
    async def main() -> None:
        inbox = Inbox(CONFIG)
        got: list[Message] = []
        reader = asyncio.create_task(read_all(inbox, got))
        for number in range(3):
            await asyncio.sleep(1)
            assert len(got) == number
            inbox.put(ALICE, [message(number).data])
        await asyncio.sleep(1)
        assert len(got) == 3
        assert not reader.done()
        inbox.close()
        await reader

    virtual(main())


def test_after_close_what_is_there_is_read_and_no_more_is_taken() -> None:
    async def main() -> None:
        inbox = Inbox(CONFIG)
        inbox.put(ALICE, [message(1).data])
        inbox.close()
        assert inbox.room(ALICE) == 0
        got: list[Message] = []
        await read_all(inbox, got)
        assert got == [message(1)]
        await read_all(inbox, got)  # who comes later finds the end
        assert len(got) == 1

    virtual(main())


def test_several_readers_share_out_what_comes() -> None:
    async def main() -> None:
        inbox = Inbox(CONFIG)
        got: list[list[Message]] = [[], [], []]
        readers = [asyncio.create_task(read_all(inbox, mine)) for mine in got]
        for number in range(30):
            inbox.put(ALICE, [message(number).data])
            if number % 4 == 3:
                await asyncio.sleep(0.1)
        inbox.close()
        await asyncio.gather(*readers)
        assert sorted(int(one.data) for mine in got for one in mine) == list(range(30))

    virtual(main())


def test_a_reader_that_goes_away_takes_nothing_along() -> None:
    async def main() -> None:
        inbox = Inbox(CONFIG)
        reader = asyncio.create_task(read_all(inbox, []))
        await asyncio.sleep(1)
        inbox.put(ALICE, [message(1).data])  # it would wake up now
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert reader.cancelled()
        got: list[Message] = []
        inbox.close()
        await read_all(inbox, got)
        assert got == [message(1)]
        assert other_tasks() == []

    virtual(main())


def test_a_sender_may_fill_half_of_what_is_free() -> None:
    async def main() -> None:
        inbox = Inbox(replace(CONFIG, inbox_messages=1000, frame_messages=10))
        taken = {ALICE: 0, BOB: 0}
        for sender in taken:
            while (room := inbox.room(sender)) > 0:
                inbox.put(sender, [b"m"] * min(room, 10))
                taken[sender] += min(room, 10)
        assert taken == {ALICE: 500, BOB: 250}
        assert len(inbox) == 750

    virtual(main())


def test_who_has_nothing_in_a_full_inbox_has_room_for_a_frame() -> None:
    async def main() -> None:
        inbox = Inbox(replace(CONFIG, inbox_messages=10, frame_messages=10, frame_bytes=50))
        inbox.put(ALICE, [b"m"] * 10)
        assert inbox.room(ALICE) == 0
        assert inbox.room(BOB) == 10
        inbox.put(BOB, [bytes(60)])
        assert inbox.room(BOB) == 0  # by bytes
        async for _ in inbox.read():
            if not len(inbox):
                break
        assert inbox.room(ALICE) == 10

    virtual(main())


def test_there_is_room_for_so_many_bytes() -> None:
    async def main() -> None:
        inbox = Inbox(replace(CONFIG, inbox_bytes=1000, frame_messages=1, frame_bytes=10))
        put = 0
        while inbox.room(ALICE) and put < 1000:
            inbox.put(ALICE, [bytes(10)])
            put += 1
        assert 40 <= put <= 60  # half of it, going by the mean size
        reader = inbox.read()
        for _ in range(put // 2):
            await anext(reader)
        assert inbox.room(ALICE) > 0

    virtual(main())


def test_who_reads_makes_room_and_says_so() -> None:
    async def main() -> None:
        inbox = Inbox(CONFIG)
        told: list[int] = []
        inbox.on_read = lambda: told.append(inbox.room(ALICE))
        inbox.put(ALICE, [b"1", b"2"])
        inbox.put(ALICE, [b"3"])
        reader = inbox.read()
        for _ in range(3):
            await anext(reader)
        half = (CONFIG.inbox_messages - 2) // 2
        assert told == [half]
        inbox.close()
        with pytest.raises(StopAsyncIteration):
            await anext(reader)
        assert told == [half, 0]

    virtual(main())


def test_who_stops_reading_in_the_middle_leaves_the_rest() -> None:
    async def main() -> None:
        inbox = Inbox(CONFIG)
        inbox.put(ALICE, [b"1", b"2", b"3"])
        async for one in inbox.read():
            assert one.data == b"1"
            break
        assert len(inbox) == 2
        inbox.close()
        assert [one.data async for one in inbox.read()] == [b"2", b"3"]
        assert len(inbox) == 0

    virtual(main())


@given(st.lists(st.tuples(st.sampled_from([ALICE, BOB]), st.integers(0, 40)) | st.none(), max_size=60))
def test_room_is_never_negative_and_comes_back(steps: list[tuple[PeerId, int] | None]) -> None:
    """Pairs are a sender and the size of a message that arrives, None reads one."""

    async def main() -> None:
        inbox = Inbox(replace(CONFIG, inbox_messages=12, inbox_bytes=100, frame_messages=5, frame_bytes=50))
        reader, held = inbox.read(), 0
        for step in steps:
            if step is None and held:
                await anext(reader)
                held -= 1
            elif step is not None and inbox.room(step[0]):
                inbox.put(step[0], [bytes(step[1])])
                held += 1
            assert 0 <= inbox.room(ALICE) <= 12
            assert len(inbox) == held <= 12 + 5
        while held:
            await anext(reader)
            held -= 1
        inbox.close()
        assert [one async for one in reader] == []
        assert inbox._count == inbox._bytes == 0
        assert inbox._shares == {}

    virtual(main())


def test_a_message_cannot_be_changed() -> None:
    one = message(1)
    with pytest.raises(AttributeError):
        one.data = b"other"  # type: ignore[misc]
    assert one == Message(ALICE, b"1")
