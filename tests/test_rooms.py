"""Rooms over messengers in the virtual world, most of them with bounds so low that ten members are a tree."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support_peers import NETWORK, Town, Village, until, virtual
from support_rooms import ROOM, TOPIC, Hall, Member

from dht_atonce.config import RoomsConfig
from dht_atonce.errors import MessageTooLarge, PeerClosed, PeerUnknown
from dht_atonce.messaging.frames import Kind
from dht_atonce.rooms.events import Entered, Left, Missed, Said, Whispered
from dht_atonce.rooms.wire import Say, Statement, Stream, Why, read_message, signed_bytes, suspect_data, write_message

SMALL = RoomsConfig(direct_max=6, direct_again=5)
"""Seven members are a tree."""


@contextlib.asynccontextmanager
async def hall(config: RoomsConfig | None = None) -> AsyncIterator[Hall]:
    async with Town() as town:
        made = Hall(town, config)
        try:
            yield made
        finally:
            await made.aclose()


async def members(where: Hall, count: int, **options: Any) -> list[Member]:
    """So many, who know each other."""
    made = [await where.member(number, **options) for number in range(count)]
    await until(lambda: all(len(one.room.members()) == count - 1 for one in made))
    return made


def in_order(member: Member, other: Member, count: int) -> bool:
    return [int(data) for data in member.heard(other)] == list(range(count))


# --- a small room ---


def test_members_hear_each_other_and_know_who_is_there() -> None:
    async def main() -> None:
        async with hall() as where:
            ann = await where.member(1, name="Ann")
            ben = await where.member(2, name="Ben")
            eve = await where.member(3)
            await until(lambda: ben.room.members() == {ann.id: "Ann", eve.id: ""})
            assert await ann.room.shout(b"one") == 1
            assert await ann.room.shout(b"two") == 2
            await ben.room.shout(b"three")
            await until(lambda: len(eve.said) == 3)
            assert eve.heard(ann) == [b"one", b"two"]
            assert [(event.seq, event.hops) for event in eve.events if isinstance(event, Said) and event.peer == ann.id]
            assert ben.heard(ben) == []  # nobody hears itself
            assert not eve.room.is_tree
            await ben.room.leave()
            await until(lambda: Left(ben.id, "left") in ann.events)
            assert Entered(ben.id, "Ben") in ann.events
            assert ann.room.members() == {eve.id: ""}
            with pytest.raises(PeerClosed):
                await ben.room.shout(b"late")

    virtual(main())


def test_a_whisper_is_for_one() -> None:
    async def main() -> None:
        async with hall() as where:
            ann, ben, eve = await members(where, 3)
            await ann.room.whisper(ben.id, b"psst")
            assert ben.of(Whispered) == [Whispered(ann.id, b"psst")]
            assert not eve.of(Whispered)
            with pytest.raises(PeerUnknown):
                await ann.room.whisper(where.town.person(9).id, b"psst")
            with pytest.raises(MessageTooLarge):
                await ann.room.whisper(ben.id, bytes(59_001))

    virtual(main())


def test_a_crash_is_told_as_lost() -> None:
    async def main() -> None:
        async with hall() as where:
            ann, ben, eve = await members(where, 3)
            eve.person.vanish()
            await until(lambda: Left(eve.id, "lost") in ann.events and Left(eve.id, "lost") in ben.events)
            assert set(ann.room.members()) == {ben.id}

    virtual(main())


def test_who_was_cut_off_for_a_moment_misses_nothing_and_stays() -> None:
    async def main() -> None:
        async with hall() as where:
            ann, ben, eve = await members(where, 3)
            eve.person.vanish()
            await ann.room.shout(b"0")
            await asyncio.sleep(7)
            eve.person.come_back()
            await ann.room.shout(b"1")
            await until(lambda: in_order(eve, ann, 2))
            await asyncio.sleep(30)
            assert not ben.of(Left)
            assert not eve.of(Missed)

    virtual(main())


def test_who_came_back_enters_again() -> None:
    async def main() -> None:
        async with hall() as where:
            ann, ben = await members(where, 2)
            await ben.room.shout(b"before")
            await ben.room.leave()
            await ben.join()
            await ben.room.shout(b"after")
            await until(lambda: ann.heard(ben) == [b"before", b"after"])
            await until(lambda: [type(e) for e in ann.events if e.peer == ben.id].count(Entered) == 2)

    virtual(main())


def test_nobody_there_is_no_error_and_who_comes_later_is_found() -> None:
    async def main() -> None:
        async with hall() as where:
            gone = where.town.person(9)
            gone.vanish()
            where.listed[TOPIC] = {gone.id: None}  # the DHT lists somebody who crashed
            ann = await where.member(1)
            assert ann.room.members() == {}
            assert await ann.room.shout(b"anybody?") == 1
            ben = await where.member(2)
            await until(lambda: ben.id in ann.room.members())

    virtual(main())


def test_those_who_come_in_one_moment_find_one_room() -> None:
    async def main() -> None:
        async with hall() as where:
            people = [where.outside(number) for number in range(12)]
            await asyncio.gather(*(one.join() for one in people))
            await until(lambda: all(len(one.room.members()) == 11 for one in people))

    virtual(main())


# --- late joiners ---


def test_who_comes_late_may_hear_the_latest_shouts_first() -> None:
    async def main() -> None:
        async with hall() as where:
            ann, ben = await members(where, 2)
            for number in range(30):
                await (ann if number % 2 else ben).room.shout(b"%d" % number)
                await asyncio.sleep(0.1)
            await until(lambda: len(ann.said) == len(ben.said) == 15)
            eve = await where.member(3, last=10)
            await ann.room.shout(b"now")
            await until(lambda: eve.heard(ann)[-1:] == [b"now"])
            said = [event for event in eve.events if isinstance(event, Said)]
            assert [int(event.data) for event in said if event.is_past] == list(range(20, 30))
            assert [event.data for event in said if not event.is_past] == [b"now"]
            assert not eve.of(Missed)
            dave = await where.member(4)
            assert dave.said == []  # it did not ask

    virtual(main())


# --- a large room ---


@pytest.mark.parametrize("count", [7, 40])
def test_in_a_tree_every_shout_reaches_all_in_order(count: int) -> None:
    async def main() -> None:
        async with hall(SMALL) as where:
            people = await members(where, count)
            assert all(one.room.is_tree for one in people)
            for number in range(20):
                for author in people[:2]:
                    await author.room.shout(b"%d" % number)
                await asyncio.sleep(0.05)
            others = people[2:]
            await until(lambda: all(in_order(one, author, 20) for one in others for author in people[:2]))
            await asyncio.sleep(30)
            assert all(in_order(one, author, 20) for one in others for author in people[:2])  # and none twice
            assert not any(one.of(Missed) for one in people)
            assert max(len(one.room.machine.views.active) for one in people) <= SMALL.active
            assert max(one.links for one in people) <= 2 * SMALL.active

    virtual(main())


def test_the_switch_between_the_modes_loses_nothing_and_gives_nothing_twice() -> None:
    async def main() -> None:
        async with hall(SMALL) as where:
            people = await members(where, 4)
            author, *others = people
            ended = asyncio.Event()
            said = 0

            async def talk() -> None:
                nonlocal said
                while not ended.is_set():
                    await author.room.shout(b"%d" % said)
                    said += 1
                    await asyncio.sleep(0.02)

            talking = asyncio.create_task(talk())
            for _ in range(2):  # up and down again
                newcomers = [where.outside(100 + len(where.members) + n) for n in range(8)]
                for one in newcomers:
                    await one.join()
                await until(lambda: all(one.room.is_tree for one in people))
                await asyncio.sleep(1)
                for one in newcomers:
                    await one.room.leave()
                await until(lambda: not any(one.room.is_tree for one in people))
                await asyncio.sleep(1)
            ended.set()
            await talking
            await until(lambda: all(len(one.heard(author)) == said for one in others))
            assert all(in_order(one, author, said) for one in others)
            assert not any(one.of(Missed) for one in others)
            assert sum(one.counters["rooms.mode_changes"] for one in people) >= 4 * 4

    virtual(main())


def test_when_a_tenth_crashes_the_others_go_on() -> None:
    async def main() -> None:
        async with hall(SMALL) as where:
            people = await members(where, 30)
            gone, left = people[10:13], people[:10] + people[13:]
            for one in gone:
                one.person.vanish()
            for number in range(20):
                await left[0].room.shout(b"%d" % number)
                await asyncio.sleep(0.1)
            await until(lambda: all(in_order(one, left[0], 20) for one in left[1:]))
            assert not any(one.of(Missed) for one in left)
            await until(lambda: all(len(one.room.members()) == len(left) - 1 for one in left))

    virtual(main())


def test_two_parts_of_a_room_grow_together() -> None:
    async def main() -> None:
        async with hall(SMALL) as where:
            here = await members(where, 4)
            listed = where.listed.pop(TOPIC)
            there = [await where.member(number) for number in range(50, 54)]
            assert len(there[0].room.members()) < 4  # they never heard of the others
            where.listed[TOPIC].update(listed)
            await until(lambda: all(len(one.room.members()) == 7 for one in here + there), within_s=300)

    virtual(main())


# --- guests ---


@pytest.mark.parametrize("count", [3, 9])
def test_a_guest_is_heard_by_all_and_seen_by_nobody(count: int) -> None:
    async def main() -> None:
        async with hall(SMALL) as where:
            people = await members(where, count)
            for number in range(2):
                guest = await where.member(100 + number, guest=True)
                assert len(guest.room.members()) == count
                await guest.room.shout(b"hello")
                assert await guest.room.flush()
                told = (guest.id, b"hello")
                await until(lambda told=told: all(told in one.said for one in people))
                await guest.room.leave()
            assert all(len(one.room.members()) == count - 1 for one in people)

    virtual(main())


# --- hostile members ---


def forged(author: Member, seq: int, data: bytes, signer: Member, session: int = 1 << 60) -> bytes:
    body = signed_bytes(NETWORK.network_id, ROOM, author.id.key, session, Stream.SHOUT, seq, data)
    statement = Statement(author.id.key, session, Stream.SHOUT, seq, data, signer.person.identity.sign(body))
    return write_message(Say(ROOM, statement, Why.TREE, 1))


def test_a_forged_shout_is_dropped_and_counted_and_a_liar_is_not_heard_any_more() -> None:
    async def main() -> None:
        async with hall(SMALL) as where:
            people = await members(where, 8)
            ann, ben, liar = people[0], people[1], people[7]
            for number in range(6):
                data = forged(ann, 1 + number, b"believe me", liar)
                liar.person.messenger.post(ben.id, data, kind=Kind.ROOM)
            await asyncio.sleep(5)
            assert ben.counters["rooms.forged"] == 4
            assert ben.counters["rooms.liars"] == 1
            await ann.room.shout(b"this is me")
            await until(lambda: all(one.heard(ann) == [b"this is me"] for one in people[1:7]))

    virtual(main())


def test_who_withholds_does_not_split_the_tree() -> None:
    async def main() -> None:
        async with hall(SMALL) as where:
            people = await members(where, 20)
            for silent in people[10:14]:
                box = silent.room.machine.outbox
                take = box.take

                def keep(take: Any = take, own: bytes = silent.id.key) -> list[tuple[bytes, bytes]]:
                    def is_foreign(data: bytes) -> bool:
                        message = read_message(data)
                        return isinstance(message, Say) and message.statement.author != own

                    return [send for send in take() if not is_foreign(send[1])]

                box.take = keep  # type: ignore[method-assign]
            for number in range(20):
                await people[0].room.shout(b"%d" % number)
                await asyncio.sleep(0.2)
            others = people[1:10] + people[14:]
            await until(lambda: all(in_order(one, people[0], 20) for one in others))
            assert not any(one.of(Missed) for one in others)

    virtual(main())


def test_who_is_accused_and_lives_stays() -> None:
    async def main() -> None:
        async with hall(SMALL) as where:
            people = await members(where, 8)
            ann, liar = people[0], people[7]
            news = ann.room.machine.gossip.news
            assert news is not None
            for number in range(3):
                data = suspect_data(ann.id.key, news.session, news.seq + number)
                statement = liar.room.machine.gossip.signer.make(Stream.SUSPECT, 1_000 + number, data)
                for one in people[1:4]:
                    message = write_message(Say(ROOM, statement, Why.TREE, 1))
                    liar.person.messenger.post(one.id, message, kind=Kind.ROOM)
                await asyncio.sleep(2)
            await asyncio.sleep(30)
            assert ann.counters["rooms.refuted"] >= 1
            assert not any(one.of(Left) for one in people)

    virtual(main())


def test_what_nobody_has_is_told_as_missed() -> None:
    async def main() -> None:
        async with hall(SMALL) as where:
            ann, ben, eve = await members(where, 3)
            gossip = eve.room.machine.gossip
            for seq in (1, 5):  # it never says 2 to 4 to anybody
                statement = gossip.signer.make(Stream.SHOUT, seq, b"%d" % seq)
                for one in (ann, ben):
                    message = write_message(Say(ROOM, statement, Why.DIRECT, 1))
                    eve.person.messenger.post(one.id, message, kind=Kind.ROOM)
            await until(lambda: ann.heard(eve) == ben.heard(eve) == [b"1", b"5"])
            assert ann.of(Missed) == ben.of(Missed) == [Missed(eve.id, 2, 3)]
            assert ann.counters["rooms.repairs"] == SMALL.repair_tries

    virtual(main())


def test_nonsense_is_counted() -> None:
    async def main() -> None:
        async with hall() as where:
            ann, ben = await members(where, 2)
            for data in (b"", b"\xc1", b"\x92\x08\xc4\x00", write_message(read_message(forged(ann, 0, b"x", ann)))):
                ben.person.messenger.post(ann.id, data, kind=Kind.ROOM)
            await asyncio.sleep(1)
            assert ann.counters["rooms.bad_message"] == 3
            stranger = where.town.person(9)
            other = Say(bytes(20), ben.room.machine.gossip.signer.make(Stream.SHOUT, 1, b"x"), Why.DIRECT, 1)
            await stranger.messenger.post(ann.id, write_message(other), kind=Kind.ROOM)
            assert ann.counters["rooms.not_here"] == 1

    virtual(main())


# --- bounds ---


def test_an_app_that_does_not_read_misses_and_is_told() -> None:
    async def main() -> None:
        async with hall(RoomsConfig(events=10)) as where:
            ann = await where.member(1)
            ben = where.outside(2)
            ben.room = ben.rooms.join(TOPIC)
            await ben.room.enter()  # and reads nothing
            await until(lambda: ann.room.members())
            for number in range(30):
                await ann.room.shout(b"%d" % number)
            await ann.room.flush()
            events = ben.room.events()
            got = [await anext(events) for _ in range(11)]
            assert [event.data for event in got if isinstance(event, Said)] == [b"%d" % n for n in range(9)]
            assert got[-1] == Missed(ann.id, 10, 21)
            assert ben.counters["rooms.overflow"] == 21

    virtual(main())


def test_a_thousand_shouts_at_once_arrive() -> None:
    async def main() -> None:
        async with hall() as where:
            people = await members(where, 4)
            for number in range(1000):
                await people[0].room.shout(b"%d" % number)
            await until(lambda: all(in_order(one, people[0], 1000) for one in people[1:]))

    virtual(main())


def test_in_a_tree_an_author_keeps_to_what_others_pass_on() -> None:
    async def main() -> None:
        async with hall(RoomsConfig(direct_max=3, direct_again=2, relay_per_s=20, relay_burst=40)) as where:
            people = await members(where, 8)
            for number in range(100):
                await people[0].room.shout(b"%d" % number)
            await until(lambda: all(in_order(one, people[0], 100) for one in people[1:]))
            assert not any(one.of(Missed) for one in people)

    virtual(main())


def test_what_join_refuses() -> None:
    async def main() -> None:
        async with hall(RoomsConfig(max_rooms=1)) as where:
            ann = await where.member(1)
            for wrong in (
                {"topic": ""},
                {"topic": "x" * 65},
                {"topic": "y", "name": "ä" * 33},
                {"topic": "y", "last": 257},
            ):
                with pytest.raises(ValueError):  # noqa: PT011 # several texts
                    ann.rooms.join(**wrong)
            with pytest.raises(ValueError, match="already"):
                ann.rooms.join(TOPIC)
            with pytest.raises(ValueError, match="at most 1 rooms"):
                ann.rooms.join("another")
            with pytest.raises(MessageTooLarge):
                await ann.room.shout(bytes(59_001))

    virtual(main())


# --- peers, with a DHT ---


def test_peers_find_each_other_through_the_dht() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            ann, ben = await village.open_peer(), await village.open_peer()
            async with ann.join("lobby", name="Ann") as anns, ben.join("lobby", name="Ben") as bens:
                assert bens.members() == {ann.id: "Ann"}
                await bens.shout(b"hello")
                async for event in anns.events():
                    if isinstance(event, Said):
                        assert (event.peer, event.data) == (ben.id, b"hello")
                        break
                passing = await village.open_peer(transient=True)
                async with passing.join("lobby") as guest:
                    await guest.shout(b"passing by")
                    assert await guest.flush()
                async for event in anns.events():
                    if isinstance(event, Said):
                        assert (event.peer, event.data) == (passing.id, b"passing by")
                        break
            assert [record.status for record in await ann.node.members("lobby")] == []

    virtual(main())
