"""Who may reach us, and what whoever may not learns: that it is refused."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support_peers import Person, Stranger, Town, Village, Wire, identity, listener, now, until, virtual

from atonce_sim.loop import run
from atonce_sim.world import World
from dht_atonce.access import MAX_CONTACTS, Access, Contacts, read_contacts
from dht_atonce.calls.calls import Request
from dht_atonce.codec import encode
from dht_atonce.config import MessagingConfig
from dht_atonce.errors import ConfigError, NotAccepted, PeerIdError, ProfileError, QueueFull, RequestLost
from dht_atonce.messaging.frames import Bye, ByeCode
from dht_atonce.profile import Profile

ALICE, BOB, CAROL = (identity(number).id for number in (1, 2, 3))


def contacts_in(folder: Path | None) -> Contacts:
    return Contacts(Profile.open(folder, World(1).host()))


def closed(contacts: Contacts) -> None:
    contacts._profile.close()


# --- contacts ---


def test_contacts_are_kept_with_their_names(tmp_path: Path) -> None:
    async def main() -> None:
        contacts = contacts_in(tmp_path)
        await contacts.add(ALICE, "Alice")
        await contacts.add(str(BOB))
        await contacts.add(CAROL, "Кэрол")
        await contacts.add(ALICE, "my Alice")
        assert await contacts.remove(CAROL)
        assert not await contacts.remove(CAROL)
        closed(contacts)
        again = contacts_in(tmp_path)
        assert again.list() == {ALICE: "my Alice", BOB: ""}
        assert list(again) == [ALICE, BOB]
        assert (len(again), ALICE in again, CAROL in again) == (2, True, False)
        assert (again.name(ALICE), again.name(CAROL)) == ("my Alice", "")
        closed(again)

    virtual(main())


def test_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    async def main() -> None:
        contacts = contacts_in(tmp_path)
        await asyncio.gather(*(contacts.add(identity(number).id) for number in range(20)))
        closed(contacts)
        assert len(contacts_in(tmp_path)) == 20

    virtual(main())


@pytest.mark.parametrize("name", ["x" * 65, "ж" * 33, "two\nlines", "\x1b[31m", "\ud800"])
def test_a_name_that_cannot_be_shown_or_kept_is_refused(name: str) -> None:
    async def main() -> None:
        contacts = contacts_in(None)
        with pytest.raises(ConfigError, match="at most 64 bytes"):
            await contacts.add(ALICE, name)
        with pytest.raises(PeerIdError):
            await contacts.add("nobody")
        assert len(contacts) == 0

    virtual(main())


def test_there_are_not_more_than_the_file_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr("dht_atonce.access.MAX_CONTACTS", 2)
        contacts = contacts_in(None)
        await contacts.add(ALICE)
        await contacts.add(BOB)
        with pytest.raises(QueueFull, match="2 contacts"):
            await contacts.add(CAROL)
        await contacts.add(BOB, "a known one may be renamed")

    virtual(main())


def test_a_full_book_fits_into_a_file_of_the_profile() -> None:
    entries = [(ALICE.key, "x" * 64)] * MAX_CONTACTS
    data = encode((1, entries))
    assert len(data) < 1 << 20
    assert read_contacts(data) == {ALICE: "x" * 64}


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", encode((2, [])), encode((1, [(bytes(32), "")])), encode((1, [(b"", "")]))]
)
def test_a_damaged_file_is_said_and_lets_nobody_in(data: bytes, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    file = tmp_path / "contacts"
    file.write_bytes(data)
    file.chmod(0o600)

    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            with pytest.raises(ProfileError, match="'contacts' is damaged"):
                await village.open_peer(tmp_path, accept="contacts")
            file.unlink()
            await village.open_peer(tmp_path)  # nobody holds the profile

    virtual(main())


# --- policies ---


def access_with(accept: Any) -> Access:
    return Access(contacts_in(None), accept, Counter())


def test_each_kind_of_policy() -> None:
    async def main() -> None:
        assert access_with(None).accepts(ALICE)
        assert access_with([ALICE]).accepts(ALICE)
        assert not access_with({ALICE}).accepts(BOB)
        assert not access_with([]).accepts(ALICE)
        assert access_with(lambda who: who == BOB).accepts(BOB)
        access = access_with("contacts")
        assert not access.accepts(ALICE)
        await access.contacts.add(ALICE)
        assert access.accepts(ALICE)
        access.set(access.contacts)
        assert (access.accepts(ALICE), access.accepts(BOB)) == (True, False)
        assert access.accept is access.contacts
        others = contacts_in(None)
        await others.add(BOB)
        access.set(others)  # a collection like any other
        assert (access.accepts(ALICE), access.accepts(BOB)) == (False, True)

    virtual(main())


@pytest.mark.parametrize("accept", ["friends", [str(ALICE)], [b"x"], b"x"])
def test_what_is_no_policy_is_refused_and_the_last_one_holds(accept: Any) -> None:
    async def main() -> None:
        access = access_with([ALICE])
        with pytest.raises(ValueError, match="a collection of PeerIds"):
            access.set(accept)
        assert (access.accepts(ALICE), access.accepts(BOB)) == (True, False)
        async with Village() as village:
            await village.open_seed()
            with pytest.raises(ValueError, match="a collection of PeerIds"):
                await village.open_peer(accept=accept)

    virtual(main())


def test_a_function_that_fails_lets_nobody_in() -> None:
    problems: list[BaseException] = []

    def broken(_: object) -> bool:
        raise LookupError("no such table")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["exception"]))
        async with Village() as village:
            await village.open_seed()
            alice, bob = await village.open_peer(accept=broken), await village.open_peer()
            with pytest.raises(NotAccepted):
                await bob.send(alice.id, b"hello")
            assert alice.counters["access.failed"] == 1

    run(main())
    assert [type(problem) for problem in problems] == [LookupError]


def test_contacts_only() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            alice = await village.open_peer(accept="contacts")
            bob, carol = await village.open_peer(), await village.open_peer()
            await alice.contacts.add(bob.id, "Bob")
            to_alice = await listener(alice)
            await bob.send(alice.id, b"let me in")
            with pytest.raises(NotAccepted, match="does not accept us"):
                await carol.send(alice.id, b"let me in")
            assert [message.data for message in to_alice] == [b"let me in"]
            await alice.contacts.add(carol.id)
            await carol.send(alice.id, b"now")  # at once: earlier refusals are forgotten
            await alice.contacts.remove(bob.id)
            await asyncio.sleep(1)  # until Bob has heard that
            with pytest.raises(NotAccepted):
                await bob.send(alice.id, b"and now?")
            assert [message.data for message in to_alice] == [b"let me in", b"now"]
            alice.accept = None
            await bob.send(alice.id, b"again")
            assert alice.accept is None

    virtual(main())


def test_a_change_ends_links_and_what_runs_over_them() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            alice, bob = await village.open_peer(), await village.open_peer()
            ended = asyncio.Event()

            @alice.serve("wait")
            async def wait(request: Request) -> bytes:
                try:
                    await asyncio.sleep(60)
                finally:
                    ended.set()
                return b""

            task = asyncio.create_task(bob.request(alice.id, b"", service="wait", timeout_s=100))
            await until(lambda: alice.counters["calls.served"])
            alice.accept = {alice.id}
            began = now()
            with pytest.raises(RequestLost):
                await task
            await ended.wait()
            assert now() - began < 2

    virtual(main())


def test_whom_we_write_to_can_answer() -> None:
    async def main() -> None:
        async with Village() as village:
            await village.open_seed()
            alice, bob = await village.open_peer(accept=[]), await village.open_peer()
            to_alice = await listener(alice)
            await alice.send(bob.id, b"how are you?")
            await bob.send(alice.id, b"well")
            assert [message.data for message in to_alice] == [b"well"]

    virtual(main())


# --- what a refused peer learns ---


def in_town(story: Callable[[Town], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Town() as town:
            await story(town)

    virtual(main())


async def refused(stranger: Stranger, person: Person) -> tuple[Wire, float]:
    """Dial, greet, and hear no; gives the seconds that it took."""
    wire = await stranger.dial(person)
    began = now()
    wire.say(hello=stranger.hello())
    await until(lambda: wire.closed)
    return wire, now() - began


@pytest.mark.parametrize("known", [0, 1, 1000])
def test_a_refused_peer_hears_one_word_and_it_is_the_same_whoever_else_is_accepted(known: int) -> None:
    async def story(town: Town) -> None:
        alice, stranger = town.person(1), Stranger(town, 9)
        alice.messenger.set_accept(frozenset(identity(100 + number).id for number in range(known)).__contains__)
        wire, _ = await refused(stranger, alice)
        assert wire.byes == [Bye(ByeCode.NOT_ACCEPTED, "")]
        assert len(wire.heard) == 1
        assert not wire.hellos
        assert wire.heard[0].ack == 0

    in_town(story)


def test_who_was_accepted_until_now_hears_the_same_word() -> None:
    async def story(town: Town) -> None:
        alice, stranger = town.person(1), Stranger(town, 9)
        wire = await stranger.dial(alice)
        wire.say(hello=stranger.hello())
        await until(lambda: wire.hellos)
        alice.messenger.set_accept(lambda _: False)
        await until(lambda: wire.closed)
        assert wire.byes == [Bye(ByeCode.NOT_ACCEPTED, "")]

    in_town(story)


def test_whoever_comes_again_and_again_is_refused_unread_in_the_same_word() -> None:
    async def story(town: Town) -> None:
        alice = town.person(1, config=replace(MessagingConfig(), refused_burst=4))
        alice.messenger.set_accept(lambda who: who == identity(2).id)
        stranger = Stranger(town, 9)
        for _ in range(20):
            wire, _ = await refused(stranger, alice)
            assert wire.byes == [Bye(ByeCode.NOT_ACCEPTED, "")]
        read, unread = alice.counters["hello.not_accepted"], alice.counters["hello.refused_unread"]
        assert read + unread == 20
        assert read <= 5
        await town.person(2).send(alice, b"others come in")
        other, _ = await refused(Stranger(town, 10), alice)
        assert other.byes == [Bye(ByeCode.NOT_ACCEPTED, "")]
        assert alice.counters["hello.not_accepted"] == read + 1

    in_town(story)


def test_an_app_that_dials_is_told_the_same_when_it_is_not_read() -> None:
    async def story(town: Town) -> None:
        alice, bob = town.person(1), town.person(2)
        alice.messenger.set_accept(lambda _: False)
        for _ in range(10):
            with pytest.raises(NotAccepted, match="does not accept us"):
                await bob.send(alice, b"please")
        assert alice.counters["hello.refused_unread"] >= 5
        alice.messenger.set_accept(lambda _: True)
        await bob.send(alice, b"please")

    in_town(story)
