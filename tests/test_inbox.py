"""The queue between links and the app."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_peers import identity, other_tasks, virtual

from dht_atonce.config import MessagingConfig
from dht_atonce.messaging.inbox import Inbox, Message

CONFIG = MessagingConfig()
ALICE = identity(1).id


def message(number: int, size: int = 0) -> Message:
    return Message(ALICE, b"%d" % number + bytes(size))


async def read_all(inbox: Inbox, into: list[Message]) -> None:
    async for one in inbox.read():
        into.append(one)


def test_messages_come_out_as_they_went_in() -> None:
    async def main() -> None:
        inbox = Inbox(CONFIG)
        for number in range(100):
            inbox.put(message(number))
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
            inbox.put(message(number))
        await asyncio.sleep(1)
        assert len(got) == 3
        assert not reader.done()
        inbox.close()
        await reader

    virtual(main())


def test_after_close_what_is_there_is_read_and_no_more_is_taken() -> None:
    async def main() -> None:
        inbox = Inbox(CONFIG)
        inbox.put(message(1))
        inbox.close()
        assert inbox.room == 0
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
            inbox.put(message(number))
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
        inbox.put(message(1))  # it would wake up now
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert reader.cancelled()
        got: list[Message] = []
        inbox.close()
        await read_all(inbox, got)
        assert got == [message(1)]
        assert other_tasks() == []

    virtual(main())


def test_there_is_room_for_so_many_messages() -> None:
    async def main() -> None:
        inbox = Inbox(replace(CONFIG, inbox_messages=3))
        rooms = []
        for number in range(3):
            rooms.append(inbox.room)
            inbox.put(message(number))
        assert [*rooms, inbox.room] == [3, 2, 1, 0]
        async for _ in inbox.read():
            break
        assert inbox.room == 1

    virtual(main())


def test_there_is_room_for_so_many_bytes() -> None:
    # What is over by then is one frame at most: room is asked for before each.
    async def main() -> None:
        inbox = Inbox(replace(CONFIG, inbox_bytes=100))
        inbox.put(message(1, size=98))
        assert inbox.room > 0
        inbox.put(message(2, size=60))
        assert inbox.room == 0
        reader = inbox.read()
        await anext(reader)
        assert inbox.room > 0
        await anext(reader)
        assert inbox.room == CONFIG.inbox_messages

    virtual(main())


@given(st.lists(st.integers(0, 40) | st.none(), max_size=60))
def test_room_is_never_negative_and_comes_back(steps: list[int | None]) -> None:
    """Numbers are sizes of messages that arrive, None reads one."""

    async def main() -> None:
        inbox = Inbox(replace(CONFIG, inbox_messages=5, inbox_bytes=100))
        reader, held = inbox.read(), 0
        for step in steps:
            if step is None and held:
                await anext(reader)
                held -= 1
            elif step is not None and inbox.room:
                inbox.put(Message(ALICE, bytes(step)))
                held += 1
            assert 0 <= inbox.room <= 5 - held
            assert len(inbox) == held
        while held:
            await anext(reader)
            held -= 1
        assert inbox.room == 5

    virtual(main())


def test_a_message_cannot_be_changed() -> None:
    one = message(1)
    with pytest.raises(AttributeError):
        one.data = b"other"  # type: ignore[misc]
    assert one == Message(ALICE, b"1")
