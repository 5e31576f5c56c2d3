"""Files from peer to peer: in the virtual world, on a real disk."""

import asyncio
import hashlib
import os
import random
from pathlib import Path

import pytest
from support_peers import Village, until, virtual

from dht_atonce.errors import AtOnceError, TransferFailed
from dht_atonce.peer import Peer
from dht_atonce.streams.files import PULL, PUSH, FileEvent, From, Offer, Take, Want, hear, say
from dht_atonce.streams.folder import Part, Source, checked_name

CONTENT = random.Random(3).randbytes(3_000_001)


class Places:
    """A file that alice has, and folders of bob's and hers."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "photo.jpg"
        self.file.write_bytes(CONTENT)
        self.inbox, self.shelf, self.home = (folder / name for name in ("inbox", "shelf", "home"))
        for one in (self.inbox, self.shelf, self.home):
            one.mkdir()
        (self.shelf / "photo.jpg").write_bytes(CONTENT)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


async def two(village: Village) -> tuple[Peer, Peer]:
    await village.open_seed()
    return await village.open_peer(), await village.open_peer()


def served(peer: Peer, places: Places, **options: object) -> list[FileEvent]:
    events: list[FileEvent] = []
    peer.serve_files(receive=places.inbox, serve=places.shelf, on_event=events.append, **options)  # type: ignore[arg-type]
    return events


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_pushed_and_pulled_whole(places: Places) -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            events = served(bob, places)
            told: list[tuple[int, int]] = []
            assert await alice.push_file(places.file, bob.id, lambda *sizes: told.append(sizes)) == len(CONTENT)
            assert (places.inbox / "photo.jpg").read_bytes() == CONTENT
            assert told[0] == (0, len(CONTENT))
            assert told[-1] == (len(CONTENT), len(CONTENT))
            path = await alice.pull_file("photo.jpg", bob.id, places.home)
            assert path.read_bytes() == CONTENT
            assert names(places.inbox) == names(places.home) == ["photo.jpg"]
            await until(lambda: len(events) == 2)
            assert [(event.name, event.pushed, event.error) for event in events] == [
                ("photo.jpg", True, ""),
                ("photo.jpg", False, ""),
            ]

    virtual(main())


def test_an_empty_file_is_a_file_too(places: Places) -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            served(bob, places)
            places.file.write_bytes(b"")
            assert await alice.push_file(places.file, bob.id) == 0
            assert names(places.inbox) == ["photo.jpg"]

    virtual(main())


def test_nothing_is_overwritten(places: Places) -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            served(bob, places)
            (places.inbox / "photo.jpg").write_bytes(b"another one")
            with pytest.raises(TransferFailed, match="nothing is overwritten"):
                await alice.push_file(places.file, bob.id)
            (places.home / "photo.jpg").symlink_to(places.home / "nowhere")
            with pytest.raises(TransferFailed, match="nothing is overwritten"):
                await alice.pull_file("photo.jpg", bob.id, places.home)
            assert (places.inbox / "photo.jpg").read_bytes() == b"another one"
            assert names(places.home) == ["photo.jpg"]

    virtual(main())


def test_only_files_of_the_folder_are_given(places: Places) -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            served(bob, places)
            (places.shelf / "link").symlink_to(places.file)
            (places.shelf / "folder").mkdir()
            os.mkfifo(places.shelf / "pipe")
            for name, why in (
                ("link", "cannot be read"),
                ("folder", "no plain"),
                ("pipe", "no plain"),
                ("x", "No such"),
            ):
                with pytest.raises(TransferFailed, match=why):
                    await alice.pull_file(name, bob.id, places.home)
            for name in ("../photo.jpg", ".hidden", ""):
                with pytest.raises(TransferFailed, match="no name"):
                    await alice.pull_file(name, bob.id, places.home)
                stream = await alice.open_stream(bob.id, PULL)
                await say(stream, Want(0, name))
                with pytest.raises(TransferFailed, match="no name"):
                    await hear(stream, Offer)
                stream.abort()
            assert names(places.home) == []

    virtual(main())


def test_who_is_not_accepted_and_what_is_too_large_is_refused(places: Places) -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            carol = await village.open_peer()
            events = served(bob, places, accept=[str(alice.id)], max_bytes=len(CONTENT) - 1)
            with pytest.raises(TransferFailed, match="not among those"):
                await carol.push_file(places.file, bob.id)
            with pytest.raises(TransferFailed, match="may have 3000000 bytes here"):
                await alice.push_file(places.file, bob.id)
            with pytest.raises(TransferFailed, match="nobody there takes"):
                await bob.push_file(places.file, alice.id)
            assert names(places.inbox) == []
            await until(lambda: len(events) == 2)
            assert all(event.error for event in events)

    virtual(main())


def test_a_transfer_that_broke_is_gone_on_with(places: Places) -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            served(bob, places)
            pushing = asyncio.create_task(alice.push_file(places.file, bob.id), name="push")
            part = places.inbox / ".photo.jpg.part"
            await until(lambda: part.exists() and part.stat().st_size > 1_000_000)
            pushing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pushing
            await until(lambda: not bob._streams._streams)
            have = part.stat().st_size
            assert 1_000_000 < have < len(CONTENT)
            told: list[int] = []
            await alice.push_file(places.file, bob.id, lambda done, _: told.append(done))
            assert told[0] == have
            assert (places.inbox / "photo.jpg").read_bytes() == CONTENT
            assert names(places.inbox) == ["photo.jpg"]

    virtual(main())


@pytest.mark.parametrize("sidecar", [True, False])
def test_a_part_that_is_not_of_this_file_is_not_believed(places: Places, sidecar: bool) -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            served(bob, places)
            part = places.inbox / ".photo.jpg.part"
            if sidecar:  # it says so, and is wrong: the sender's proof differs
                source = Source(places.file, follow=True)
                begun = Part(places.inbox, "photo.jpg", source.size, source.digest(source.size))
                begun.open()
                begun.write(b"something else")
                begun.close()
                source.close()
            else:
                part.write_bytes(CONTENT[:1000])
            told: list[int] = []
            await alice.push_file(places.file, bob.id, lambda done, _: told.append(done))
            assert told[0] == 0
            assert (places.inbox / "photo.jpg").read_bytes() == CONTENT

    virtual(main())


def test_what_is_not_what_was_promised_is_thrown_away(places: Places) -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            served(bob, places)
            for body, why in ((b"wrong", "digest"), (b"toolong", "larger"), (b"cut", "ended after 3 of 5")):
                stream = await alice.open_stream(bob.id, PUSH)
                await say(stream, Offer(0, "lie", 5, bytes(32)))
                await hear(stream, Take)
                await say(stream, From(0))
                await stream.write(body)
                await stream.write_eof()
                with pytest.raises(TransferFailed, match=why):
                    await hear(stream, Take)
                await stream.aclose()
            stream = await alice.open_stream(bob.id, PUSH)
            await say(stream, Offer(0, "lie", 5, bytes(32)))
            await say(stream, From(2))
            await hear(stream, Take)
            with pytest.raises(TransferFailed, match="nobody asked"):
                await hear(stream, Take)
            assert names(places.inbox) in ([".lie.part", ".lie.part.json"], [])

    virtual(main())


def test_one_name_is_on_its_way_once_at_a_time(places: Places) -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            served(bob, places)
            first = asyncio.create_task(alice.push_file(places.file, bob.id), name="first")
            await until(lambda: (places.inbox / ".photo.jpg.part").exists())
            with pytest.raises(TransferFailed, match="on its way in already"):
                await alice.push_file(places.file, bob.id)
            await first
            assert (places.inbox / "photo.jpg").read_bytes() == CONTENT

    virtual(main())


def test_a_file_that_changes_meanwhile_is_not_taken(places: Places) -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            served(bob, places)
            for content, why in ((CONTENT[:-1] + b"x", "digest"), (CONTENT[:2_000_000], "shorter")):
                places.file.write_bytes(CONTENT)
                pushing = asyncio.create_task(alice.push_file(places.file, bob.id), name="push")
                await until(lambda: (places.inbox / ".photo.jpg.part").exists())
                places.file.write_bytes(content)
                with pytest.raises(TransferFailed, match=why):
                    await pushing
            assert "photo.jpg" not in names(places.inbox)

    virtual(main())


def test_a_transfer_in_which_nothing_moves_is_broken_off(places: Places) -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            events = served(bob, places)
            pushed = await alice.open_stream(bob.id, PUSH)
            await say(pushed, Offer(0, "never", 5, bytes(32)))
            await say(pushed, From(0))
            mute = await alice.open_stream(bob.id, PULL)
            pulled = await alice.open_stream(bob.id, PULL)
            (places.shelf / "large").write_bytes(CONTENT * 2)
            await say(pulled, Want(0, "large"))
            await say(pulled, Take(0, bytes(32)))
            await until(lambda: len(events) == 3, 200)
            assert sorted(event.error for event in events) == [
                "nothing moved for 120 s",
                "nothing moved for 120 s",
                "the other side said nothing for 60 s",
            ]
            mute.abort()

    virtual(main())


def test_where_there_are_no_links_a_file_gets_its_name_all_the_same(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", no_links)
    part = Part(places.home, "a", 3, hashlib.blake2b(b"abc", digest_size=32).digest())
    part.open()
    part.write(b"abc")
    part.finish()
    assert (places.home / "a").read_bytes() == b"abc"
    assert names(places.home) == ["a"]


def test_the_other_process_dies_in_the_middle(places: Places) -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            served(bob, places)
            pushing = asyncio.create_task(alice.push_file(places.file, bob.id), name="push")
            await until(lambda: (places.inbox / ".photo.jpg.part").exists())
            village.crash(bob)
            with pytest.raises(AtOnceError, match="out of reach"):
                await pushing

    virtual(main())


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", "a/b", "a\\b", "a\nb", "a\x1b[2J", "x" * 201, "é" * 101, "\udc80"]
)
def test_names_that_are_not_taken(name: str) -> None:
    with pytest.raises(TransferFailed):
        checked_name(name)


@pytest.mark.parametrize("name", ["a", "photo.jpg", "é è.txt", "x" * 200, "a..b", "-rf"])
def test_names_that_are_taken(name: str) -> None:
    assert checked_name(name) == name


def test_a_folder_that_is_none_is_refused(places: Places) -> None:
    async def main() -> None:
        async with Village() as village:
            alice, bob = await two(village)
            with pytest.raises(TransferFailed, match="no folder"):
                alice.serve_files(receive=places.file)
            with pytest.raises(TransferFailed, match="no folder"):
                await alice.pull_file("x", bob.id, places.file)
            with pytest.raises(TransferFailed, match="cannot be read"):
                await alice.push_file(places.home / "none", bob.id)

    virtual(main())
