"""Watching peers in the virtual world: who is there, and who has gone, as it happens."""

import asyncio
from pathlib import Path

import pytest
from support_peers import Village, identity, now, until, virtual

from atonce_sim.world import World
from dht_atonce import Basis, MessageTooLarge, Peer, PeerIdError, PresenceEvent, PresenceWatch
from dht_atonce.config import PresenceConfig
from dht_atonce.errors import PeerClosed


class Watcher:
    """Reads a watch in the background."""

    def __init__(self, watch: PresenceWatch) -> None:
        self.watch = watch
        self.events: list[tuple[float, PresenceEvent]] = []
        self.task = asyncio.create_task(self._read(), name="watcher")

    async def _read(self) -> None:
        async with self.watch as watch:
            async for event in watch:
                self.events.append((now(), event))

    @property
    def changes(self) -> list[str]:
        return [event.change.value for _, event in self.events]

    @property
    def bases(self) -> list[str]:
        return [event.basis.value for _, event in self.events]

    def at(self, change: str) -> float:
        return next(at for at, event in self.events if event.change.value == change)

    async def aclose(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def goes_by_link(watcher: Peer, watched: Peer) -> bool:
    known = watcher._presence._watched.get(watched.id)
    return known is not None and known.sight.basis is Basis.LINK


async def two(village: Village) -> tuple[Peer, Peer]:
    await village.open_seed()
    return await village.open_peer(), await village.open_peer()


def test_a_peer_comes_changes_and_says_goodbye() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            watcher = Watcher(alice.watch(bob.id))
            await until(lambda: watcher.events)
            await bob.set_status("away")
            await until(lambda: len(watcher.events) == 2)
            left = now()
            await bob.aclose()
            await until(lambda: len(watcher.events) >= 3)
            assert watcher.changes[:3] == ["online", "changed", "offline"]
            assert watcher.events[1][1].status == "away"
            assert watcher.at("offline") - left <= 1.0
            await watcher.aclose()

    virtual(main())


def test_a_crash_is_seen_within_15_seconds_and_the_return_too() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            watcher = Watcher(alice.watch(bob.id))
            await until(lambda: goes_by_link(alice, bob))
            village.crash(bob)
            crashed = now()
            await until(lambda: "offline" in watcher.changes)
            assert watcher.changes == ["online", "suspect", "offline"]
            assert 9.0 <= watcher.at("offline") - crashed <= 15.0
            village.world.unreachable.clear()
            await until(lambda: watcher.changes[-1] == "online", 400.0)
            await watcher.aclose()

    virtual(main())


def test_a_short_cut_makes_nobody_blink() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            watcher = Watcher(alice.watch(bob.id))
            await until(lambda: goes_by_link(alice, bob))
            for _ in range(20):
                village.crash(bob)
                await asyncio.sleep(5)  # less than the heartbeats' patience
                village.world.unreachable.clear()
                await asyncio.sleep(10)
            # A link that ends and is dialled anew at once.
            for _ in range(20):
                pair = alice._membership.messenger.pair(bob.id)
                if pair.link is not None:
                    pair.link.link.other._end("cut")  # type: ignore[attr-defined]
                await asyncio.sleep(2)
            assert watcher.changes == ["online"]
            await watcher.aclose()

    virtual(main())


def test_an_hour_of_packet_loss_makes_nobody_offline() -> None:
    async def main() -> None:
        async with Village(World(3, loss=0.05)) as village:
            alice, bob = await two(village)
            watchers = [Watcher(alice.watch(bob.id)), Watcher(bob.watch(alice.id))]
            await asyncio.sleep(3600)
            assert [watcher.changes for watcher in watchers] == [["online"], ["online"]]
            for watcher in watchers:
                await watcher.aclose()

    virtual(main())


def test_a_restart_is_offline_and_online_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            alice, bob = await village.open_peer(), await village.open_peer(tmp_path / "bob")
            watcher = Watcher(alice.watch(bob.id))
            await until(lambda: goes_by_link(alice, bob))
            await bob.aclose()
            await until(lambda: "offline" in watcher.changes)
            bob = await village.open_peer(tmp_path / "bob")
            await until(lambda: watcher.changes[-1] == "online" and goes_by_link(alice, bob))
            await watcher.aclose()

    virtual(main())


def test_without_a_seat_for_a_link_the_record_is_the_basis(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            alice, bob, carol = [await village.open_peer() for _ in range(3)]
            alice._presence._config = PresenceConfig(max_links=1)
            first, second = Watcher(alice.watch(bob.id)), Watcher(alice.watch(carol.id))
            await until(lambda: first.events and second.events)
            await asyncio.sleep(5)
            assert alice._membership.messenger.record_of(bob.id) is not None
            assert alice._membership.messenger.record_of(carol.id) is None
            await first.aclose()  # its seat goes to the other
            await until(lambda: alice._membership.messenger.record_of(carol.id) is not None)
            await second.aclose()

    virtual(main())


def test_several_watch_one_peer_and_each_hears_how_it_is() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            one = Watcher(alice.watch(bob.id))
            await until(lambda: one.events)
            other = Watcher(alice.watch(str(bob.id)))
            await until(lambda: other.events)
            assert one.changes == other.changes == ["online"]
            await one.aclose()
            await bob.set_status("busy")
            await until(lambda: "changed" in other.changes)
            assert one.changes == ["online"]
            await other.aclose()
            assert alice._presence._watched == {}

    virtual(main())


def test_watches_end_with_their_peer() -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            watcher = Watcher(alice.watch(bob.id))
            await until(lambda: watcher.events)
            await alice.aclose()
            await watcher.task
            with pytest.raises(PeerClosed):
                async with alice.watch(bob.id):
                    raise AssertionError("a closed peer watches nobody")
            with pytest.raises(PeerIdError):
                alice.watch("nobody")

    virtual(main())


def test_a_peer_that_nobody_knows_is_watched_until_it_comes() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            alice = await village.open_peer()
            watcher = Watcher(alice.watch(identity(99).id))
            await asyncio.sleep(300)
            assert watcher.events == []
            await watcher.aclose()

    virtual(main())


def test_who_wants_to_be_found_is_around() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            alice, bob, carol = [await village.open_peer() for _ in range(3)]
            await bob.be_found("Bob")
            await alice.be_found("Alice")
            assert [(one.peer, one.text) for one in await carol.around()] == [(alice.id, "Alice"), (bob.id, "Bob")]
            assert [one.peer for one in await alice.around()] == [bob.id]
            assert (await carol.around())[0].endpoints == alice.record.endpoints if alice.record else ()
            await bob.hide()
            assert [one.peer for one in await carol.around()] == [alice.id]
            with pytest.raises(MessageTooLarge):
                await carol.be_found("x" * 129)

    virtual(main())
