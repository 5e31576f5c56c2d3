"""`Peer`: what an app sees. Everybody lives in the virtual world, and runs the code that runs elsewhere."""

import asyncio
import itertools
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support_peers import (
    ANY4,
    NETWORK,
    Events,
    FakeSeed,
    Village,
    host_of,
    identity,
    listener,
    node_key,
    now,
    other_tasks,
    seated,
    until,
    virtual,
)

from atonce_sim.world import EPOCH, World
from dht_atonce.config import NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.discovery.seed_wire import Hello, SeedMessage
from dht_atonce.endpoints import Address, SeedUrl
from dht_atonce.errors import (
    ClockWrong,
    DeliveryUnknown,
    EntryFailed,
    MessageTooLarge,
    NetworkMismatch,
    PeerClosed,
    PeerIdError,
    PeerOffline,
    PeerUnknown,
    PortInUse,
    ProfileInUse,
    SeedUrlError,
)
from dht_atonce.membership import CAPABILITIES
from dht_atonce.messaging.inbox import Message
from dht_atonce.peer import Peer
from dht_atonce.records import presence_key

NOWHERE = SeedUrl(identity(900).id, "10.9.9.9", 4710)
"""Where no seed is."""


async def settled(village: Village, count: int, **options: Any) -> list[Peer]:
    """A seed and so many peers that know each other."""
    await village.open_seed()
    peers = [await village.open_peer(**options) for _ in range(count)]
    await until(lambda: all(len(seated(peer)) == count - 1 for peer in peers))
    return peers


async def found(by: Peer, who: Peer) -> bool:
    """Whether `by` can find `who` where it is."""
    return who.record is not None and (await by.lookup(who.id, fresh=True)).endpoints == who.record.endpoints


# --- the plain case ---


def test_two_peers_find_and_message_each_other() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            alice, bob = await village.open_peer(), await village.open_peer()
            to_alice, to_bob = await listener(alice), await listener(bob)
            await alice.send(bob.id, b"hello Bob")
            await bob.send(str(alice.id), b"hello Alice")
            assert to_bob == [Message(alice.id, b"hello Bob")]
            assert to_alice == [Message(bob.id, b"hello Alice")]
            assert (await alice.lookup(str(bob.id))).peer_id == bob.id

    virtual(main())


def test_ten_peers_find_and_message_each_other() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            peers = await asyncio.gather(*(village.open_peer() for _ in range(10)))
            got = [await listener(peer) for peer in peers]
            await asyncio.gather(*(a.send(b.id, a.id.key) for a in peers for b in peers if a is not b))
            for peer, heard in zip(peers, got, strict=True):
                assert sorted(m.sender for m in heard) == sorted(other.id for other in peers if other is not peer)
                assert all(m.data == m.sender.key for m in heard)

    virtual(main())


def test_they_do_so_on_the_open_internet() -> None:
    # Public addresses: limits per subnet and towards addresses that did not prove themselves are on.
    async def main() -> None:
        world = World(3, loss=0.05)
        async with Village(world, NetworkConfig.internet("wide")) as village:
            await village.open_seed(host=world.host("5.5.5.5"))
            peers = [await village.open_peer(host=world.host(f"{20 + n}.7.0.{n + 1}")) for n in range(8)]
            assert not peers[0].network.local
            await asyncio.sleep(30)
            got = [await listener(peer) for peer in peers]
            for one in peers:
                for other in peers:
                    if other is not one:
                        assert (await one.lookup(other.id)).endpoints[0].ip == host_of(other)
                        await one.send(other.id, b"m")
            assert {len(heard) for heard in got} == {7}

    virtual(main())


def test_what_a_peer_says_of_itself() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await settled(village, 2)
            record = await bob.lookup(alice.id, fresh=True)
            assert record == alice.record
            without_a_folder = tuple(word for word in CAPABILITIES if word != "dur1")
            assert (record.status, record.capabilities) == ("online", without_a_folder)
            assert [endpoint.ip for endpoint in record.endpoints] == [host_of(alice)]
            assert record.expires == pytest.approx(EPOCH + now() + NETWORK.record_life_s, abs=10)
            assert alice.network == NETWORK

    virtual(main())


def test_a_lookup_tells_how_it_went() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await settled(village, 2)
            result = await bob.find(alice.id, fresh=True)
            assert result.record == alice.record
            assert result.requests >= 1
            assert result.elapsed_s > 0
            assert (await bob.find(identity(77).id)).record is None
            with pytest.raises(PeerUnknown, match=identity(77).id.short):
                await bob.lookup(identity(77).id)

    virtual(main())


def test_what_cannot_be_a_peer_id_is_refused() -> None:
    async def main() -> None:
        async with Village() as village:
            (alice,) = await settled(village, 1)
            typo = "a" + str(alice.id)[1:]
            wrong: list[Any] = ["", "alice", typo if typo != str(alice.id) else "b" + typo[1:], alice.id.key, None]
            for who in wrong:
                with pytest.raises(PeerIdError):
                    await alice.lookup(who)
                with pytest.raises(PeerIdError):
                    await alice.send(who, b"m")
            with pytest.raises(MessageTooLarge):
                await alice.send(identity(77).id, bytes(60_001))
            with pytest.raises(PeerUnknown):
                await alice.send(identity(77).id, b"m")

    virtual(main())


# --- coming in ---


def test_awaited_or_as_a_context_manager() -> None:
    async def main() -> None:
        world = World(1)
        peer = await Peer.open(host=world.host(), listen=ANY4, network=NETWORK, alone=True)
        assert peer.entry is not None
        await peer.aclose()
        async with Peer.open(host=world.host(), listen=ANY4, network=NETWORK, alone=True) as other:
            assert other.network == NETWORK
        with pytest.raises(PeerClosed):
            _ = other.network
        assert other_tasks() == []

    virtual(main())


def test_events_tell_what_happens() -> None:
    async def main() -> None:
        async with Village() as village:
            first, second = await settled(village, 2)
            await asyncio.sleep(10)
            assert village.events[second].names == ["listening", "entered", "published", "first_contact"]
            (entered,) = village.events[second].of("entered")
            assert entered == {"way": "seed", "answered": 1, "tried": []}
            (published,) = village.events[second].of("published")
            assert published == {"confirmed": 1, "asked": 1}
            (listening,) = village.events[second].of("listening")
            assert listening["tcp"] == [str(endpoint) for endpoint in (await first.lookup(second.id)).endpoints]
            assert listening["udp"] == [str(address) for address in second.node.addresses]

    virtual(main())


def test_without_any_way_in_one_is_told_so() -> None:
    async def main() -> None:
        world = World(1)
        with pytest.raises(EntryFailed, match="give the URL of a seed"):
            await Peer.open(host=world.host(), listen=ANY4)
        with pytest.raises(EntryFailed, match=r"10\.9\.9\.9:4710.*does not answer"):
            await Peer.open(host=world.host(), listen=ANY4, seeds=[str(NOWHERE)])
        assert other_tasks() == []
        assert not world.sockets
        assert not world.ports

    virtual(main())


def test_a_seed_url_with_a_typo_is_refused_before_anything_is_tried() -> None:
    with pytest.raises(SeedUrlError):
        Peer.open(seeds=["http://seed.example.org"])


def test_a_seed_of_another_network() -> None:
    def challenge(seed: FakeSeed, message: SeedMessage) -> None:
        if isinstance(message, Hello):
            seed.challenge()

    async def main() -> None:
        world = World(1)
        seed = FakeSeed(world, 600, challenge, network=NetworkConfig.local_network("chess"))
        with pytest.raises(NetworkMismatch, match="'chess', not 'test'"):
            await Peer.open(host=world.host(), listen=ANY4, seeds=[seed.url], network="test")
        assert other_tasks() == []

    virtual(main())


def test_alone_begins_a_network() -> None:
    async def main() -> None:
        events = Events()
        options: dict[str, Any] = {"listen": ANY4, "network": NETWORK, "alone": True, "on_event": events}
        async with Peer.open(host=World(1).host(), **options) as peer:
            assert peer.entry is not None
            assert (peer.entry.way, peer.entry.answered) == ("alone", 0)
            assert (await peer.lookup(peer.id)).peer_id == peer.id
            with pytest.raises(PeerUnknown):
                await peer.lookup(identity(77).id)
            assert "still_alone" in events.names

    virtual(main())


def test_alone_is_the_last_resort() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            await village.open_peer()
            peer = await village.open_peer(alone=True)
            assert peer.entry is not None
            assert peer.entry.way == "seed"

    virtual(main())


@pytest.mark.parametrize("way", [{"keep_trying": True}, {"alone": True}], ids=lambda way: next(iter(way)))
def test_a_peer_comes_in_when_the_seed_appears_later(tmp_path: Path, way: dict[str, Any]) -> None:
    async def main() -> None:
        async with Village() as village:
            host = village.world.host()
            await village.open_seed(tmp_path, host=host, port=4710)
            url = village.url
            await village.seed.aclose()
            early = await village.open_peer(seeds=[url], network=NETWORK, **way)
            assert village.events[early].names.count("entered") == 0
            await asyncio.sleep(120)
            await village.open_seed(tmp_path, host=host, port=4710)
            other = await village.open_peer()
            await until(lambda: "first_contact" in village.events[early].names, within_s=400)
            await until(lambda: "published" in village.events[early].names, within_s=10)
            assert await found(other, early)
            assert await found(early, other)
            assert early.entry is not None
            assert early.entry.way.startswith("seed")

    virtual(main())


def test_who_keeps_trying_and_does_not_know_the_network_yet_is_not_in_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            host = village.world.host()
            await village.open_seed(tmp_path, host=host, port=4710)
            url = village.url
            await village.seed.aclose()
            early = await village.open_peer(seeds=[url], keep_trying=True)
            with pytest.raises(PeerClosed, match="not in a network yet"):
                _ = early.network
            with pytest.raises(PeerClosed, match="not in a network yet"):
                await early.send(identity(77).id, b"m")
            await village.open_seed(tmp_path, host=host, port=4710)
            await until(lambda: early.entry, within_s=60)
            assert early.network == NETWORK
            other = await village.open_peer()
            assert await found(other, early)

    virtual(main())


def test_the_pauses_between_tries_grow() -> None:
    async def main() -> None:
        async with Village() as village:
            peer = await village.open_peer(seeds=[NOWHERE], network=NETWORK, keep_trying=True)
            await asyncio.sleep(3600)
            times = [at for at, name, _ in village.events[peer].all if name == "still_alone"]
            pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
            assert pauses[0] < 2
            assert all(pause < 400 for pause in pauses)
            assert max(pauses) > 200
            assert 10 < len(times) < 30

    virtual(main())


def test_names_of_networks_may_be_given_as_text() -> None:
    async def main() -> None:
        async with Peer.open(host=World(1).host(), listen=ANY4, network="chess", alone=True) as peer:
            assert peer.network == NetworkConfig("chess")

    virtual(main())


# --- without the seed ---


def test_the_seed_dies_and_all_goes_on() -> None:
    async def main() -> None:
        async with Village() as village:
            peers = await settled(village, 4)
            village.crash(village.seed)
            got = [await listener(peer) for peer in peers]
            for hour in range(2):
                await asyncio.sleep(5400)
                for one in peers:
                    for other in peers:
                        if other is not one:
                            assert await found(one, other)
                            await one.send(other.id, b"%d" % hour)
            assert {len(heard) for heard in got} == {6}

    virtual(main())


def test_a_peer_that_is_started_again_comes_back_without_any_seed(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            one, other = await settled(village, 2)
            before = await village.open_peer(tmp_path, port=4711, udp_port=4712)
            await until(lambda: len(seated(before)) == 2)
            await before.aclose()
            await village.seed.aclose()
            again = await village.open_peer(tmp_path, seeds=[])
            assert again.id == before.id
            assert again.network == NETWORK
            assert again.entry is not None
            assert (again.entry.way, again.entry.answered) == ("saved contacts", 2)
            assert [address.port for address in again.node.addresses] == [4712]
            assert again.record is not None
            assert [endpoint.port for endpoint in again.record.endpoints] == [4711]
            got = await listener(again)
            assert await found(one, again)
            await other.send(again.id, b"welcome back")
            assert got == [Message(other.id, b"welcome back")]
            await again.send(one.id, b"here I am")

    virtual(main())


def test_a_seed_that_lost_its_list_hears_of_whoever_is_started_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            seed = await village.open_seed(tmp_path / "seed")
            url = seed.url()
            alice = await village.open_peer(profile=tmp_path / "alice")
            bob = await village.open_peer(profile=tmp_path / "bob")
            await asyncio.sleep(5)
            await seed.aclose()
            (tmp_path / "seed" / "state").unlink()
            again = await village.open_seed(tmp_path / "seed")
            assert again.url().peer_id == url.peer_id
            await bob.aclose()
            bob = await village.open_peer(profile=tmp_path / "bob", seeds=[again.url()])
            await asyncio.sleep(5)
            newcomer = await village.open_peer(seeds=[again.url()])
            assert await found(newcomer, alice)
            assert await found(newcomer, bob)

    virtual(main())


def test_all_are_started_again_one_after_another(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            peers = [await village.open_peer(tmp_path / str(n)) for n in range(4)]
            await until(lambda: all(len(seated(peer)) == 3 for peer in peers))
            await village.seed.aclose()
            for n in range(4):
                await peers[n].aclose()
                await asyncio.sleep(30)
                peers[n] = await village.open_peer(tmp_path / str(n), seeds=[])
                await asyncio.sleep(30)
            for one in peers:
                for other in peers:
                    assert await found(one, other)

    virtual(main())


def test_a_sudden_death_costs_no_contacts(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            one, other = await settled(village, 2)
            killed = await village.open_peer(tmp_path / "profile")
            await asyncio.sleep(5)  # contacts are saved as soon as there are any
            village.crash(killed)
            shutil.copytree(tmp_path / "profile", tmp_path / "disk")
            (tmp_path / "disk").chmod(0o700)
            await village.seed.aclose()
            again = await village.open_peer(tmp_path / "disk", seeds=[])
            assert again.id == killed.id
            assert await found(one, again)
            got = await listener(again)
            await other.send(again.id, b"m")
            assert len(got) == 1

    virtual(main())


def test_who_was_alone_at_first_saves_those_who_came_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            first = await village.open_peer(tmp_path / "profile")
            await asyncio.sleep(20)
            later = await village.open_peer()
            await asyncio.sleep(35)
            village.crash(first)
            shutil.copytree(tmp_path / "profile", tmp_path / "disk")
            (tmp_path / "disk").chmod(0o700)
            await village.seed.aclose()
            again = await village.open_peer(tmp_path / "disk", seeds=[])
            assert await found(later, again)

    virtual(main())


def test_contacts_that_did_not_answer_are_kept_if_there_are_no_better_ones(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            one, other = await settled(village, 2)
            await (await village.open_peer(tmp_path)).aclose()
            village.crash(village.seed, one, other)
            offline = await village.open_peer(tmp_path, keep_trying=True)
            await asyncio.sleep(300)
            assert seated(offline) == []
            await offline.aclose()
            village.world.unreachable.clear()
            again = await village.open_peer(tmp_path, seeds=[])
            assert again.entry is not None
            assert again.entry.way == "saved contacts"
            assert await found(one, again)

    virtual(main())


def test_a_profile_of_another_network_does_not_ask_the_old_one_s_contacts(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            await settled(village, 2)
            peer = await village.open_peer(tmp_path)
            await peer.aclose()
            with pytest.raises(EntryFailed, match="give the URL of a seed"):
                await village.open_peer(tmp_path, seeds=[], network=NetworkConfig.local_network("chess"))
            again = await village.open_peer(tmp_path, seeds=[], network=NETWORK)
            assert again.entry is not None
            assert again.entry.way == "saved contacts"

    virtual(main())


def test_a_peer_that_lost_everybody_finds_back() -> None:
    async def main() -> None:
        async with Village() as village:
            peers = await settled(village, 4)
            lost, others = peers[0], peers[1:]
            village.crash(village.seed)
            village.crash(lost)
            await asyncio.sleep(3600)
            assert seated(lost) == []
            assert "still_alone" in village.events[lost].names
            village.world.unreachable.discard(host_of(lost))
            await until(lambda: len(seated(lost)) == 3, within_s=400)
            got = await listener(lost)
            for other in others:
                assert await found(other, lost)
                await other.send(lost.id, b"there you are")
            assert len(got) == 3

    virtual(main())


# --- goodbye, and the end ---


def test_after_a_goodbye_a_lookup_says_so_at_once() -> None:
    async def main() -> None:
        async with Village() as village:
            peers = await settled(village, 4)
            await peers[0].aclose()
            for other in peers[1:]:
                began = now()
                with pytest.raises(PeerOffline, match="goodbye"):
                    await other.lookup(peers[0].id)
                with pytest.raises(PeerOffline, match="goodbye"):
                    await other.send(peers[0].id, b"m")
                assert now() - began < 1

    virtual(main())


def test_who_comes_back_at_once_is_not_kept_away_by_the_goodbye(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            one, other = await settled(village, 2)
            for _ in range(3):
                passing = await village.open_peer(tmp_path)
                assert await found(one, passing)
                assert await found(other, passing)
                await passing.aclose()
                with pytest.raises(PeerOffline):
                    await one.lookup(passing.id)

    virtual(main())


def test_who_was_cut_off_when_a_peer_came_back_finds_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            one, other, _ = await settled(village, 3)
            peer = await village.open_peer(tmp_path)
            await peer.aclose()
            village.crash(one)
            again = await village.open_peer(tmp_path)
            await asyncio.sleep(5)
            village.world.unreachable.clear()
            assert await found(other, again)
            await one.send(again.id, b"are you there?")
            assert (await one.lookup(again.id)).status == "online"

    virtual(main())


def test_who_goes_without_a_word_is_forgotten_when_its_record_lapses() -> None:
    async def main() -> None:
        async with Village(network=NetworkConfig("test", local=True, record_life_s=600)) as village:
            peers = await settled(village, 3)
            await asyncio.sleep(1000)
            assert await found(peers[0], peers[2])  # renewed meanwhile
            village.crash(peers[2])
            with pytest.raises(PeerOffline, match="does not answer"):
                await peers[0].send(peers[2].id, b"m")
            await asyncio.sleep(660)
            with pytest.raises(PeerUnknown):
                await peers[0].lookup(peers[2].id)

    virtual(main())


def test_a_record_is_renewed_and_never_goes_back() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await settled(village, 2)
            seqs = []
            for _ in range(5):
                await asyncio.sleep(2400)
                record = await bob.lookup(alice.id)
                assert record.expires > EPOCH + now() + NETWORK.record_life_s / 2
                seqs.append(record.seq)
            assert seqs == sorted(set(seqs))

    virtual(main())


CALLS: list[Callable[[Peer], Awaitable[Any]]] = [
    lambda peer: peer.lookup(identity(77).id),
    lambda peer: peer.find(identity(77).id),
    lambda peer: peer.send(identity(77).id, b"m"),
]


def test_a_closed_peer_says_so() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, _ = await settled(village, 2)
            reader = asyncio.ensure_future(anext(alice.messages()))
            await asyncio.sleep(0)
            await alice.aclose()
            await alice.aclose()
            for call in CALLS:
                with pytest.raises(PeerClosed, match="this peer is closed"):
                    await call(alice)
            with pytest.raises(PeerClosed):
                alice.messages()
            with pytest.raises(PeerClosed):
                _ = alice.network
            with pytest.raises(PeerClosed):
                _ = alice.node
            with pytest.raises(StopAsyncIteration):
                await reader
            assert str(alice.id)  # who we were, we still know

    virtual(main())


def test_messages_that_arrived_before_the_end_can_be_read() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await settled(village, 2)
            messages = bob.messages()
            await alice.send(bob.id, b"before the end")
            await bob.aclose()
            assert [message.data async for message in messages] == [b"before the end"]

    virtual(main())


def test_nothing_is_left_behind() -> None:
    async def main() -> None:
        async with Village() as village:
            peers = await settled(village, 4)
            await peers[0].send(peers[1].id, b"m")
            await asyncio.sleep(2000)
            for peer in peers:
                await peer.aclose()
            await village.seed.aclose()
            assert other_tasks() == []
            assert not village.world.sockets
            assert not village.world.ports

    virtual(main())


def test_the_end_comes_within_two_seconds_even_if_nobody_answers() -> None:
    async def main() -> None:
        # Everybody is far away, and so is waited for as long as anybody ever is.
        async with Village(World(1, latency_s=0.4)) as village:
            peers = await settled(village, 6)
            alice = peers[0]
            await alice.send(peers[1].id, b"m")
            village.crash(village.seed, *peers)
            sends = [asyncio.create_task(alice.send(peer.id, b"m")) for peer in peers[1:]]
            await asyncio.sleep(0.3)
            began = now()
            await alice.aclose()
            assert now() - began <= 2.0
            outcomes = await asyncio.gather(*sends, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {PeerClosed, DeliveryUnknown}

    virtual(main())


def test_an_interrupted_app_says_goodbye() -> None:
    # Ctrl-C cancels the main task, wherever it is.
    async def main() -> None:
        async with Village() as village:
            one, _ = await settled(village, 2)
            inside: list[Peer] = []

            async def app() -> None:
                options: dict[str, Any] = {"host": village.world.host(), "listen": ANY4, "seeds": [village.url]}
                async with Peer.open(**options) as peer:
                    inside.append(peer)
                    async for _ in peer.messages():
                        pass

            task = asyncio.create_task(app())
            await until(lambda: inside)
            assert await found(one, inside[0])
            began = now()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            assert now() - began <= 2.0
            with pytest.raises(PeerOffline, match="goodbye"):
                await one.lookup(inside[0].id)

    virtual(main())


@pytest.mark.parametrize("after_s", [0.0, 0.06, 0.12, 0.2, 0.28, 0.36, 0.5])
def test_who_is_interrupted_while_coming_in_leaves_nothing(tmp_path: Path, after_s: float) -> None:
    async def main() -> None:
        world = World(1)
        async with Village(world) as village:
            await settled(village, 2)
            before = sorted(world.sockets), sorted(world.ports), len(other_tasks())
            task = asyncio.create_task(village.open_peer(tmp_path))
            await asyncio.sleep(after_s)
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(outcome, Peer):
                await outcome.aclose()  # it was in already
            await asyncio.sleep(3)
            assert (sorted(world.sockets), sorted(world.ports), len(other_tasks())) == before
            await village.open_peer(tmp_path)  # the profile is free

    virtual(main())


# --- machines and profiles ---


def test_a_profile_is_one_peer_s_at_a_time_and_free_again_after_a_failure(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            with pytest.raises(EntryFailed):
                await village.open_peer(tmp_path, seeds=[NOWHERE])
            host = village.world.host()
            first = await village.open_peer(tmp_path, host=host)
            with pytest.raises(ProfileInUse):
                await village.open_peer(tmp_path)
            taken = first.node.addresses[0].port
            for option in ("port", "udp_port"):
                with pytest.raises(PortInUse):
                    await village.open_peer(tmp_path / "other", host=host, **{option: taken})
            await village.open_peer(tmp_path / "other", host=host)

    virtual(main())


def test_ports_that_were_asked_for_are_bound() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            peer = await village.open_peer(port=4711, udp_port=4712)
            assert peer.node.addresses == [Address(host_of(peer), 4712)]
            assert peer.record is not None
            assert peer.record.endpoints == (Address(host_of(peer), 4711),)

    virtual(main())


@pytest.mark.parametrize("skew_s", [-3600.0, -110.0, 110.0, 3600.0])
def test_a_wrong_clock_keeps_nobody_from_being_found(skew_s: float) -> None:
    async def main() -> None:
        async with Village() as village:
            one, other = await settled(village, 2)
            host = village.world.host()
            host.virtual_clock.skew_s = skew_s
            wrong = await village.open_peer(host=host)
            for _ in range(2):
                for peer in (one, other):
                    assert await found(peer, wrong)
                    assert await found(wrong, peer)
                await asyncio.sleep(7300)  # longer than a record lives
            got = await listener(wrong)
            await one.send(wrong.id, b"m")
            assert len(got) == 1

    virtual(main())


def test_a_wrong_clock_is_said() -> None:
    async def main() -> None:
        async with Village() as village:
            await settled(village, 2)
            host = village.world.host()
            host.virtual_clock.skew_s = -3600.0
            wrong = await village.open_peer(host=host)
            await asyncio.sleep(60)
            assert any("clock" in str(details) for _, _, details in village.events[wrong].all)

    virtual(main())


def test_a_clock_that_is_a_day_off_is_refused() -> None:
    async def main() -> None:
        async with Village() as village:
            await settled(village, 2)
            tasks = len(other_tasks())
            host = village.world.host()
            host.virtual_clock.skew_s = -90_000.0
            with pytest.raises(ClockWrong, match="set it right"):
                await village.open_peer(host=host)
            assert len(other_tasks()) == tasks

    virtual(main())


def test_two_processes_under_one_identity_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            await settled(village, 3)
            one = await village.open_peer(tmp_path / "profile")
            await asyncio.sleep(60)
            shutil.copytree(tmp_path / "profile", tmp_path / "copy")
            (tmp_path / "copy").chmod(0o700)
            other = await village.open_peer(tmp_path / "copy")
            assert other.id == one.id
            await asyncio.sleep(2 * 3600)
            told = village.events[one].names + village.events[other].names
            assert "identity_in_use" in told

    virtual(main())


def test_one_process_after_another_is_no_conflict(tmp_path: Path) -> None:
    # The control to the test above.
    async def main() -> None:
        async with Village() as village:
            await settled(village, 3)
            for _ in range(3):
                peer = await village.open_peer(tmp_path)
                await asyncio.sleep(2000)
                await peer.aclose()
            assert all("identity_in_use" not in events.names for events in village.events.values())

    virtual(main())


# --- in passing ---


def test_a_transient_peer_leaves_no_trace() -> None:
    async def main() -> None:
        async with Village() as village:
            peers = await settled(village, 3)
            await asyncio.sleep(60)
            stored = [peer.node.shared.store.count for peer in peers]
            passing = await village.open_peer(transient=True)
            key = node_key(passing)
            assert (await passing.lookup(peers[0].id)).peer_id == peers[0].id
            got = await listener(peers[0])
            await passing.send(peers[0].id, b"in passing")
            assert [message.data for message in got] == [b"in passing"]

            def traces() -> list[Contact]:
                everybody = [*(seated(peer) for peer in peers), village.seed.directory.contacts()]
                return [contact for contacts in everybody for contact in contacts if contact.key == key]

            for _ in range(3):
                await asyncio.sleep(600)
                assert traces() == []
                with pytest.raises(PeerUnknown):
                    await peers[1].lookup(passing.id)
            await passing.aclose()
            await asyncio.sleep(600)
            assert traces() == []
            assert [peer.node.shared.store.count for peer in peers] == stored
            assert all(presence_key(NETWORK, passing.id) not in peer.node.shared.store for peer in peers)

    virtual(main())


def test_a_transient_peer_can_be_answered() -> None:
    async def main() -> None:
        async with Village() as village:
            (stays,) = await settled(village, 1)
            passing = await village.open_peer(transient=True)
            got = await listener(passing)
            await passing.send(stays.id, b"question")
            await stays.send(passing.id, b"answer")
            assert [message.data for message in got] == [b"answer"]

    virtual(main())


def test_a_transient_peer_accepts_no_links_and_writes_no_state(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            await settled(village, 2)
            ports = len(village.world.ports)
            passing = await village.open_peer(tmp_path, transient=True)
            assert len(village.world.ports) == ports
            assert passing.record is None  # it says nothing of itself
            await passing.aclose()
            assert not (tmp_path / "state").exists()

    virtual(main())


# --- bad weather ---


def test_with_a_fifth_of_all_datagrams_lost() -> None:
    async def main() -> None:
        async with Village(World(5, loss=0.2)) as village:
            await village.open_seed()
            peers = [await village.open_peer(keep_trying=True, network=NETWORK) for _ in range(6)]
            await until(lambda: all(len(seated(peer)) >= 4 for peer in peers), within_s=600)
            await asyncio.sleep(120)
            for one in peers:
                for other in peers:
                    assert (await one.lookup(other.id)).peer_id == other.id

    virtual(main())


def test_a_peer_says_how_it_is() -> None:
    async def main() -> None:
        async with Village() as village:
            one, other, _ = await settled(village, 3)
            assert (await one.set_status("away")).confirmed == 2
            assert (await other.lookup(one.id, fresh=True)).status == "away"
            for wrong in ("gone", "", "x" * 33):
                with pytest.raises(ValueError, match=r"goodbye|valid"):
                    await one.set_status(wrong)
            assert (await other.lookup(one.id, fresh=True)).status == "away"
        with pytest.raises(PeerClosed):
            await one.set_status("back")

    virtual(main())


def test_who_keeps_trying_may_wait_for_messages_before_it_knows_its_network() -> None:
    async def main() -> None:
        async with Village() as village:
            url = (await village.open_seed()).url()
            village.world.unreachable.add(url.host)
            late = await Peer.open(seeds=[url], host=village.world.host(), listen=ANY4, keep_trying=True)
            got: list[bytes] = []

            async def read() -> None:
                async for message in late.messages():
                    got.append(message.data)

            reader = asyncio.create_task(read(), name="reader")
            await asyncio.sleep(5)
            assert not reader.done()
            village.world.unreachable.clear()
            one = await village.open_peer()
            await asyncio.sleep(60)
            await one.send(late.id, b"welcome")
            await asyncio.sleep(1)
            assert got == [b"welcome"]
            await late.aclose()
            await reader

    virtual(main())


def test_a_newcomer_gets_in_though_the_only_contact_died_a_moment_ago() -> None:
    # The seed heard of it within the last second, so it names it without asking first.
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            village.crash(await village.open_peer())
            newcomer = await village.open_peer()
            assert newcomer.entry is not None
            assert newcomer.entry.way == "seed, alone"

    virtual(main())
