"""Streams between peers in the virtual world."""

import asyncio
import random

import pytest
from support_peers import Person, Town, now, until, virtual

from atonce_sim.world import World
from dht_atonce.config import MessagingConfig, StreamConfig
from dht_atonce.errors import (
    DeliveryUnknown,
    NotSupported,
    PeerClosed,
    PeerOffline,
    QueueFull,
    StreamBroken,
    StreamReset,
)
from dht_atonce.messaging.frames import Frame, Kind, write_frame
from dht_atonce.streams.stream import Stream
from dht_atonce.streams.streams import CAPABILITY, Streams
from dht_atonce.streams.wire import CHUNK, FIRST_CREDIT, Data, End, Open, read_message, write_message

MEGABYTE = 1 << 20
BYTES = random.Random(7).randbytes(4 * MEGABYTE)


class Streamer:
    """A person with streams."""

    def __init__(self, town: Town, number: int, config: StreamConfig | None = None, run: int = 0) -> None:
        self.person = Person(town, number, run=run, capabilities=(CAPABILITY,))
        town.people.append(self.person)
        self.messenger = self.person.messenger
        self.id = self.person.id
        self.streams = Streams(1000 * (1 + run), config)
        self.streams.attach(self.messenger)

    async def open(self, to: "Streamer", name: str = "s") -> Stream:
        return await self.streams.open(to.id, name)

    async def next(self, name: str | None = None) -> Stream:
        incoming = self.streams.incoming(name)
        try:
            return await anext(incoming)
        finally:
            await incoming.aclose()  # type: ignore[attr-defined]


async def joined(one: Streamer, other: Streamer, name: str = "s") -> tuple[Stream, Stream]:
    return await one.open(other, name), await other.next(name)


async def everything(stream: Stream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def fail_within(stream: Stream) -> None:
    async with stream:
        await stream.write(b"begun")
        raise KeyError


def pair(town: Town, config: StreamConfig | None = None) -> tuple[Streamer, Streamer]:
    return Streamer(town, 1, config), Streamer(town, 2, config)


def test_bytes_go_both_ways_and_each_direction_ends_by_itself() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            ours, theirs = await joined(alice, bob, "sum")
            assert (theirs.name, theirs.peer) == ("sum", alice.id)
            await ours.write(b"1 2 ")
            await ours.write(bytearray(b"3"))
            await ours.write_eof()
            assert await everything(theirs) == b"1 2 3"
            await theirs.write(b"6")
            await theirs.aclose()
            assert await ours.read() == b"6"
            assert await ours.read() == b""
            await ours.aclose()
            await until(lambda: not alice.streams.sides.by_peer and not bob.streams.sides.by_peer)
            assert alice.streams.sides.budget.streams == bob.streams.sides.budget.streams == 0
            assert alice.streams.sides.budget.claimed == bob.streams.sides.budget.claimed == 0

    virtual(main())


def test_megabytes_arrive_whole_while_the_other_direction_is_busy_too() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            ours, theirs = await joined(alice, bob)

            async def say(stream: Stream, data: bytes) -> None:
                for at in range(0, len(data), 100_001):
                    await stream.write(data[at : at + 100_001])
                await stream.write_eof()

            got = await asyncio.gather(say(ours, BYTES), say(theirs, BYTES[::-1]), everything(theirs), everything(ours))
            assert got[2] == BYTES
            assert got[3] == BYTES[::-1]

    virtual(main())


def test_how_fast_it_goes_does_not_depend_on_how_much_is_written_at_once() -> None:
    # A writer that waits for room and a piece that waits for more to be written must not wait for each other.
    async def seconds(block: int) -> float:
        async with Town() as town:
            alice, bob = pair(town)
            ours, theirs = await joined(alice, bob)
            reading = asyncio.create_task(everything(theirs))
            began = now()
            for _ in range(20_000_000 // block):
                await ours.write(bytes(block))
            await ours.write_eof()
            await reading
            await asyncio.gather(alice.streams.aclose(), bob.streams.aclose())
            return now() - began

    took = [virtual(seconds(block)) for block in (65_536, 200_000, 250_000, 262_144, 400_000)]
    assert max(took) < 1.3 * min(took)


def test_a_request_of_any_size_needs_one_round_trip() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            ours, theirs = await joined(alice, bob)
            for size in (10, 60_000, 120_000, 130_000, 200_000, 600_000, 600_000, 600_000):
                began = now()
                await ours.write(bytes(size))
                await theirs.readexactly(size)
                await theirs.write(b"answer")
                await ours.readexactly(6)
                took_s = now() - began
            assert took_s == pytest.approx(0.05)  # once both sides have found out how fast the way is
            await asyncio.gather(alice.streams.aclose(), bob.streams.aclose())

    virtual(main())


def test_readexactly_gives_what_was_asked_or_says_what_was_missing() -> None:
    async def main() -> None:
        async with Town() as town:
            ours, theirs = await joined(*pair(town))
            await ours.write(b"abc")
            await ours.write(b"defg")
            await ours.write_eof()
            assert await theirs.readexactly(5) == b"abcde"
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await theirs.readexactly(3)
            assert caught.value.partial == b"fg"
            with pytest.raises(RuntimeError, match="write_eof"):
                await ours.write(b"more")
            with pytest.raises(ValueError, match="async for"):
                await ours.read(-1)

    virtual(main())


def test_a_slow_reader_slows_its_own_writer_and_nobody_else() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            slow, unread = await joined(alice, bob, "slow")
            fast, read = await joined(alice, bob, "fast")
            writing = asyncio.create_task(slow.write(BYTES), name="write")
            began = now()
            await asyncio.gather(fast.write(BYTES), fast.write_eof(), everything(read))
            await alice.person.send(bob.person, b"a message")
            assert now() - began < 5.0
            assert not writing.done()
            window = bob.streams.config.window_bytes
            assert FIRST_CREDIT < unread.flow.received <= window
            await asyncio.sleep(60.0)  # the delivery does not grow tired of it
            assert not writing.done()
            assert len(await unread.readexactly(len(BYTES))) == len(BYTES)
            await writing

    virtual(main())


def test_a_message_posted_during_a_transfer_is_not_behind_megabytes() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            ours, theirs = await joined(alice, bob)
            reading = asyncio.create_task(everything(theirs), name="read")
            writing = asyncio.create_task(ours.write(BYTES), name="write")
            await until(lambda: theirs.flow.received)
            assert alice.messenger.pair(bob.id).outflow.queued_bytes < 2.2 * MEGABYTE
            await alice.person.send(bob.person, b"now")
            assert theirs.flow.received < len(BYTES)
            await writing
            await ours.write_eof()
            await reading

    virtual(main())


def test_many_streams_take_turns() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            pairs = [await joined(alice, bob, f"n{n}") for n in range(8)]
            reads = [asyncio.create_task(everything(theirs), name="read") for _, theirs in pairs]
            for ours, _ in pairs:
                alice.streams.write(ours, BYTES[:MEGABYTE])
                alice.streams.finish(ours)
            await until(lambda: pairs[0][1].flow.received > MEGABYTE // 2)
            assert all(theirs.flow.received > MEGABYTE // 4 for _, theirs in pairs)
            assert [len(data) for data in await asyncio.gather(*reads)] == [MEGABYTE] * 8

    virtual(main())


def test_streams_are_told_apart_by_name_and_wait_to_be_taken() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            await alice.open(bob, "a")
            await alice.open(bob, "b")
            taken = asyncio.create_task(bob.next("c"), name="taker")
            await alice.open(bob, "c")
            assert (await taken).name == "c"
            assert (await bob.next("b")).name == "b"
            assert (await bob.next()).name == "a"

    virtual(main())


def test_a_stream_nobody_takes_is_refused() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            ours = await alice.open(bob)
            with pytest.raises(StreamReset, match="did not take"):
                await ours.read()
            assert 29 < now() < 32
            assert not bob.streams._untaken

    virtual(main())


def test_more_streams_than_the_bounds_allow_are_refused() -> None:
    async def main() -> None:
        async with Town() as town:
            small = StreamConfig(max_untaken_per_peer=2)
            alice, bob = Streamer(town, 1, StreamConfig(max_streams_per_peer=4)), Streamer(town, 2, small)
            for _ in range(2):
                await alice.open(bob)
            with pytest.raises(StreamReset, match="too many"):
                await alice.open(bob)
            await bob.next()
            fourth = await alice.open(bob)
            await bob.next()
            await alice.open(bob)
            with pytest.raises(QueueFull, match="4 streams"):
                await alice.open(bob)
            fourth.abort()
            await alice.open(bob)

    virtual(main())


def test_a_reset_says_why_and_what_came_before_an_end_can_still_be_read() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            ours, theirs = await joined(alice, bob)
            await ours.write(b"a part")
            await ours.drain()
            ours.abort("changed my mind")
            await asyncio.sleep(0.1)
            with pytest.raises(StreamReset, match="changed my mind"):
                await theirs.read()  # a part, which is not the whole
            with pytest.raises(StreamReset):
                await theirs.write(b"x")
            with pytest.raises(StreamReset, match="by ourselves"):
                await ours.read()
            ours, theirs = await joined(alice, bob)
            await ours.write(b"the whole")
            await ours.aclose()
            await asyncio.sleep(1.0)
            assert await everything(theirs) == b"the whole"
            with pytest.raises(StreamReset, match="closed"):
                await theirs.write(b"x")
            await theirs.aclose()

    virtual(main())


def test_an_error_in_the_block_aborts_the_stream() -> None:
    async def main() -> None:
        async with Town() as town:
            ours, theirs = await joined(*pair(town))
            with pytest.raises(KeyError):
                await fail_within(ours)
            with pytest.raises(StreamReset):
                await everything(theirs)
            await theirs.aclose()  # had nothing to say

    virtual(main())


def test_closing_waits_until_all_has_arrived_and_says_if_it_did_not() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            ours, theirs = await joined(alice, bob)
            await ours.write(bytes(MEGABYTE // 2))
            closing = asyncio.create_task(ours.aclose(), name="close")
            await asyncio.sleep(1.0)
            assert closing.done()  # it is within the window
            ours, theirs = await joined(alice, bob)
            writing = asyncio.create_task(ours.write(BYTES), name="write")
            await asyncio.sleep(1.0)
            theirs.abort()
            with pytest.raises(StreamReset):
                await writing
            with pytest.raises(StreamReset):
                await ours.aclose()

    virtual(main())


def test_a_stream_outlives_its_link() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            ours, theirs = await joined(alice, bob)
            reading = asyncio.create_task(everything(theirs), name="read")
            for at in range(0, len(BYTES), MEGABYTE):
                await ours.write(BYTES[at : at + MEGABYTE])
                bob.person.vanish()
                await asyncio.sleep(15.0)  # the link is found dead after 9 s, and dials fail
                bob.person.come_back()
                await asyncio.sleep(10.0)
            await ours.aclose()
            assert await reading == BYTES
            assert alice.messenger.counters["messaging.dial_failed"]

    virtual(main())


@pytest.mark.parametrize("reader_only", [False, True])
def test_a_stream_breaks_when_the_other_side_is_out_of_reach_for_too_long(reader_only: bool) -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            ours, theirs = await joined(alice, bob)
            if not reader_only:
                alice.streams.write(ours, BYTES)
            bob.person.vanish()
            gone = now()
            with pytest.raises(StreamBroken, match=r"out of reach for 30 s"):
                await ours.read()
            assert 30 < now() - gone < 50
            with pytest.raises(StreamBroken):
                await theirs.read()
            assert not alice.streams._streams
            assert not bob.streams._streams
            bob.person.come_back()
            await asyncio.sleep(10.0)  # a dial that began before fails
            again, there = await joined(alice, bob)
            await again.write(b"on")
            assert await there.read() == b"on"

    virtual(main())


def test_who_gave_a_stream_up_while_the_other_did_not_says_so_when_asked() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = Streamer(town, 1, StreamConfig(unreachable_s=12.0)), Streamer(town, 2)
            ours, theirs = await joined(alice, bob)
            bob.person.vanish()
            with pytest.raises(StreamBroken):
                await ours.read()
            bob.person.come_back()
            with pytest.raises(StreamReset, match="given the stream up"):
                await theirs.read()

    virtual(main())


def test_a_process_that_was_started_again_does_not_know_the_stream() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            ours, _ = await joined(alice, bob)
            alice.streams.write(ours, BYTES)
            alice.streams.finish(ours)
            await asyncio.sleep(0.1)
            bob.person.vanish()
            new = Streamer(town, 2, run=1)
            with pytest.raises(StreamBroken, match="started again"):
                await ours.read()
            ours, theirs = await joined(alice, new)
            await ours.write(BYTES[:MEGABYTE])
            assert await theirs.readexactly(MEGABYTE) == BYTES[:MEGABYTE]
            assert alice.streams.sides.by_peer[bob.id].mux.pace.outstanding >= 0

    virtual(main())


def test_opening_raises_what_sending_raises() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            with pytest.raises(ValueError, match="128"):
                await alice.streams.open(bob.id, "n" * 129)
            with pytest.raises(ValueError, match="itself"):
                await alice.streams.open(alice.id, "s")
            bob.person.vanish()
            with pytest.raises(PeerOffline, match="does not answer"):
                await alice.open(bob)
            bob.person.come_back()
            plain = Person(town, 3)
            town.people.append(plain)
            for _ in range(2):  # the second time its record is known before anything is said
                with pytest.raises(NotSupported):
                    await alice.streams.open(plain.id, "s")
            await joined(alice, bob)
            bob.person.vanish()
            with pytest.raises(DeliveryUnknown, match="within 2 s"):
                await alice.streams.open(bob.id, "s", 2.0)

    virtual(main())


def test_who_closes_tells_the_others() -> None:
    async def main() -> None:
        async with Town() as town:
            alice, bob = pair(town)
            ours, theirs = await joined(alice, bob)
            taking = asyncio.create_task(alice.streams.incoming().__anext__(), name="taker")
            await asyncio.sleep(0.1)
            alice.streams.write(ours, bytes(100))
            await alice.streams.aclose()
            await alice.messenger.aclose()
            with pytest.raises(PeerClosed):
                await ours.read()
            with pytest.raises(StreamReset, match="going away"):
                await theirs.read()
            with pytest.raises(StopAsyncIteration):
                await taking
            with pytest.raises(PeerClosed):
                await alice.open(bob)

    virtual(main())


def test_what_strangers_get_wrong_is_dropped_and_counted() -> None:
    async def main() -> None:
        async with Town() as town:
            bob = Streamer(town, 2)
            stranger = town.stranger(9)
            wire = await stranger.dial(bob.person)

            def say(seq0: int, *messages: bytes, **more: object) -> None:
                frame = Frame(Kind.STREAM, seq0, 0, list(messages), [stranger.hello()] if seq0 == 1 else [])
                wire.link.send(write_frame(frame))

            beyond = [write_message(Data(True, 5, bytes(CHUNK))) for _ in range(2)]
            say(1, b"\xff", write_message(Open(0, 5, "s")), beyond[0])
            say(4, beyond[1])
            say(5, write_message(End(True, 5)))
            await until(lambda: wire.messages)
            assert bob.messenger.counters["streams.beyond_credit"] == 1
            said = [read_message(data) for data in wire.messages]
            assert [type(message).__name__ for message in said] == ["Reset"]
            assert bob.messenger.counters["streams.bad_message"] == 1
            assert not bob.streams._untaken
            # Who opens and never listens is told a thousand times that it is too much, and no more.
            for turn in range(12):
                say(6 + 200 * turn, *(write_message(Open(0, 100 + 200 * turn + n, "s")) for n in range(200)))
                await asyncio.sleep(0.1)
            counters = bob.messenger.counters
            assert counters["streams.refused"] == 2400 - bob.streams.config.max_untaken_per_peer
            assert counters["streams.unanswered"] > 1000
            assert bob.messenger.pair(stranger.id).outflow.queued <= 1025

    virtual(main())


def test_a_queue_full_of_messages_holds_streams_up_but_not_for_ever() -> None:
    async def main() -> None:
        async with Town(World(1, latency_s=0.05)) as town:
            config = MessagingConfig(max_waiting=4)
            alice, bob = pair(town)
            alice.messenger.config = config
            ours, theirs = await joined(alice, bob)
            await ours.write(BYTES[:MEGABYTE])
            assert await theirs.readexactly(MEGABYTE) == BYTES[:MEGABYTE]

    virtual(main())
