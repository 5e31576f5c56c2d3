"""What survives a restart, and what is said if it did not."""

import asyncio
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support_peers import NETWORK, virtual

from atonce_sim.world import World
from dht_atonce.codec import encode
from dht_atonce.config import NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.disk import MemoryDisk
from dht_atonce.endpoints import Address
from dht_atonce.errors import ProfileError, ProfileInUse
from dht_atonce.host import Host, SystemOffload
from dht_atonce.profile import MAX_CONTACTS, Profile

T = TypeVar("T")

CONTACTS = (
    Contact(bytes([1] * 32), Address("10.0.0.1", 5000)),
    Contact(bytes([2] * 32), Address("2001:db8::1", 6000)),
)


def host(number: int = 0) -> Host:
    return World(number).host()


def reopened(folder: Path, number: int = 1) -> Profile:
    return Profile.open(folder, host(number))


def made(folder: Path, **fields: Any) -> Profile:
    """A profile with this state in its folder, closed again."""
    profile = reopened(folder, 0)
    for name, value in fields.items():
        setattr(profile.state, name, value)
    virtual(profile.save())
    profile.close()
    return profile


class CountingDisk(MemoryDisk):
    """Remembers what was written, and can be full."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.full = False

    def write(self, name: str, data: bytes) -> None:
        if self.full:
            raise ProfileError("no space left")
        super().write(name, data)
        self.writes.append(name)


# --- keys ---


def test_a_new_profile_has_a_new_identity_and_an_old_one_its_old(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "profile"
    first = Profile.open(folder, host(1))
    assert first.is_new
    first.close()
    again = Profile.open(folder, host(2))
    assert not again.is_new
    assert again.identity.id == first.identity.id
    assert again.node_key.public == first.node_key.public
    again.close()


def test_keys_come_from_the_host_s_generator_and_are_two(tmp_path: Path) -> None:
    one, same = Profile.open(tmp_path / "one", host(1)), Profile.open(tmp_path / "same", host(1))
    other = Profile.open(tmp_path / "other", host(2))
    assert one.identity.id == same.identity.id
    assert one.identity.id != other.identity.id
    assert one.identity.secret_seed != one.node_key.secret


def test_only_the_owner_can_look_inside(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made(tmp_path / "profile")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "profile").stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "profile").iterdir()}
    assert files == {"identity.key": 0o600, "node.key": 0o600, "state": 0o600, "lock": 0o600}


def test_the_identity_is_32_bytes_that_can_be_put_elsewhere(tmp_path: Path) -> None:
    # A backup of one file is enough to be the same peer on another machine.
    made(tmp_path / "old")
    (tmp_path / "new").mkdir(mode=0o700)
    copy = tmp_path / "new" / "identity.key"
    copy.write_bytes((tmp_path / "old" / "identity.key").read_bytes())
    copy.chmod(0o600)
    assert copy.stat().st_size == 32
    old, new = reopened(tmp_path / "old"), reopened(tmp_path / "new")
    assert new.identity.id == old.identity.id
    assert new.node_key.public != old.node_key.public


def test_without_a_folder_nothing_is_kept() -> None:
    one, other = Profile.open(None, host(1)), Profile.open(None, host(2))
    assert one.is_new
    assert other.is_new
    assert one.identity.id != other.identity.id


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Profile.open("~/app", host()).close()
    assert (tmp_path / "app" / "identity.key").exists()


def test_a_profile_has_one_owner_at_a_time(tmp_path: Path) -> None:
    first = reopened(tmp_path)
    with pytest.raises(ProfileInUse, match="another process"):
        reopened(tmp_path)
    first.close()
    reopened(tmp_path).close()


# --- damage ---


def refused(folder: Path) -> str:
    """What is said of a profile that cannot be opened: one line, and whoever puts it right can open it at once."""
    with pytest.raises(ProfileError) as caught:
        reopened(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert not isinstance(caught.value, ProfileInUse)
    return text


@pytest.mark.parametrize("name", ["identity.key", "node.key"])
@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_damaged_key_is_neither_used_nor_overwritten(tmp_path: Path, name: str, length: int) -> None:
    kept = made(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    path.write_bytes(bytes(length))
    text = refused(tmp_path)
    assert f"{name} is damaged: it has {length} bytes instead of 32" in text
    assert "restore it from a backup" in text
    assert path.read_bytes() == bytes(length)
    path.write_bytes(whole)
    assert reopened(tmp_path).identity.id == kept.identity.id


def saved(**changes: Any) -> bytes:
    """A state's bytes, right but for `changes`."""
    fields = {
        "version": 1,
        "network": ["test", b"", 20, True, 7200],
        "udp_ports": [1, 2],
        "tcp_port": 3,
        "contacts": [[bytes(32), bytes([10, 0, 0, 1, 19, 136])]],
        "incarnations": [bytes(8)],
        **changes,
    }
    return encode(list(fields.values()))


def test_a_right_state_is_read(tmp_path: Path) -> None:
    # The control to the next test.
    made(tmp_path)
    (tmp_path / "state").write_bytes(saved())
    state = reopened(tmp_path).state
    assert (state.network, state.udp_ports, state.tcp_port) == (NETWORK, (1, 2), 3)
    assert state.contacts == (Contact(bytes(32), Address("10.0.0.1", 5000)),)
    assert state.incarnations == (bytes(8),)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        saved()[:-1],
        saved() + b"\x00",
        b"(dp0\nS'contacts'\n.",  # a pickle, as stock kademlia writes
        encode([]),
        saved(version=2),
        saved(network=["", b"", 20, True, 7200]),
        saved(network=["test", b"", 0, True, 7200]),
        saved(network=["test", b"key", 20, True, 7200]),
        saved(udp_ports=[1]),
        saved(udp_ports=[1, 65536]),
        saved(tcp_port=-1),
        saved(contacts=[[bytes(31), bytes(6)]]),
        saved(contacts=[[bytes(32), bytes(5)]]),
        saved(contacts=[[bytes(32), bytes(6)]] * (MAX_CONTACTS + 1)),
        saved(incarnations=[bytes(7)]),
        saved(incarnations=[bytes(8)] * 9),
    ],
    ids=lambda data: f"{len(data)}-{data[:12].hex()}",
)
def test_a_damaged_state_costs_the_contacts_and_not_the_identity(tmp_path: Path, data: bytes) -> None:
    kept = made(tmp_path)
    (tmp_path / "state").write_bytes(data)
    text = refused(tmp_path)
    assert "'state' is damaged; delete it: the identity is kept" in text
    (tmp_path / "state").unlink()
    again = reopened(tmp_path)
    assert again.identity.id == kept.identity.id
    assert again.state.contacts == ()


@pytest.mark.parametrize("name", ["identity.key", "node.key", "state"])
def test_what_others_can_read_is_not_used(tmp_path: Path, name: str) -> None:
    made(tmp_path)
    (tmp_path / name).chmod(0o644)
    assert f"chmod 600 {tmp_path / name}" in refused(tmp_path)


def test_a_folder_that_others_can_enter_is_not_used(tmp_path: Path) -> None:
    made(tmp_path / "profile")
    (tmp_path / "profile").chmod(0o755)
    assert f"chmod 700 {tmp_path / 'profile'}" in refused(tmp_path / "profile")


# --- state ---


def test_the_state_survives(tmp_path: Path) -> None:
    network = NetworkConfig("chess", authority_key=bytes(range(32)), k=8, local=True, record_life_s=600)
    made(tmp_path, network=network, udp_ports=(4710, 4711), tcp_port=4712, contacts=CONTACTS)
    state = reopened(tmp_path).state
    assert state.network == network
    assert (state.udp_ports, state.tcp_port) == ((4710, 4711), 4712)
    assert state.contacts == CONTACTS


def test_a_new_state_is_empty(tmp_path: Path) -> None:
    state = reopened(tmp_path).state
    assert (state.network, state.udp_ports, state.tcp_port, state.contacts) == (None, (0, 0), 0, ())


def test_no_network_survives_as_none(tmp_path: Path) -> None:
    made(tmp_path, tcp_port=5)
    assert reopened(tmp_path).state.network is None


def test_200_contacts_are_kept_the_first_ones(tmp_path: Path) -> None:
    many = tuple(Contact(bytes([n % 256, n // 256]) * 16, Address("10.0.0.1", 2000 + n)) for n in range(300))
    made(tmp_path, contacts=many)
    assert reopened(tmp_path).state.contacts == many[:MAX_CONTACTS]


def test_the_last_eight_runs_are_remembered(tmp_path: Path) -> None:
    runs: list[bytes] = []
    for number in range(10):
        profile = reopened(tmp_path, number)
        assert list(profile.state.incarnations) == runs[:8]
        runs.insert(0, profile.begin_run())
        assert profile.state.incarnations[0] == runs[0]
        virtual(profile.save())
        profile.close()
    assert len(set(runs)) == 10
    assert {len(run) for run in runs} == {8}


# --- saving ---


def test_what_did_not_change_is_not_written() -> None:
    async def main() -> None:
        disk = CountingDisk()
        profile = Profile(disk, host())
        assert disk.writes == ["identity.key", "node.key"]
        for contacts, writes in [((), 1), ((), 1), (CONTACTS, 2), (CONTACTS, 2), (CONTACTS[::-1], 3)]:
            profile.state.contacts = contacts
            await profile.save()
            assert disk.writes.count("state") == writes
        profile.state.network = replace(NETWORK, k=7)
        await profile.save()
        assert disk.writes.count("state") == 4

    virtual(main())


def test_what_could_not_be_written_is_written_later() -> None:
    async def main() -> None:
        disk = CountingDisk()
        profile = Profile(disk, host())
        await profile.save()
        profile.state.tcp_port = 4710
        disk.full = True
        with pytest.raises(ProfileError):
            await profile.save()
        disk.full = False
        await profile.save()
        assert Profile(disk, host()).state.tcp_port == 4710

    virtual(main())


async def test_saving_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    machine = host()
    machine.offload = SystemOffload()
    profile = Profile.open(tmp_path, machine)
    profile.state.contacts = CONTACTS
    saving = asyncio.create_task(profile.save())
    turns = 0
    while not saving.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 2
    profile.close()
    assert Profile.open(tmp_path, machine).state.contacts == CONTACTS


class Threads:
    """Calls that go on though nobody waits for them any more, as in real threads; the last one begun ends first."""

    def __init__(self) -> None:
        self.running: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []

    async def run(self, call: Callable[[], T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.running.append((call, future))
        return await future

    async def finish(self) -> None:
        while self.running:
            call, future = self.running.pop()
            result = call()
            if not future.done():
                future.set_result(result)
            await asyncio.sleep(0.1)


def test_the_last_save_has_the_last_word() -> None:
    async def main() -> None:
        disk, machine = MemoryDisk(), host()
        threads = Threads()
        machine.offload = threads
        profile = Profile(disk, machine)
        profile.state.tcp_port = 1
        interrupted = asyncio.create_task(profile.save())
        await asyncio.sleep(0.1)
        interrupted.cancel()
        profile.state.tcp_port = 2
        last = asyncio.create_task(profile.save())
        await asyncio.sleep(0.1)
        await threads.finish()
        await last
        assert Profile(disk, host()).state.tcp_port == 2

    virtual(main())
