"""Disks of a world: they outlive processes, and one process at a time has each."""

from pathlib import Path

import pytest

from atonce_sim.loop import run
from atonce_sim.virtual_disks import VirtualDisk, VirtualDisks
from atonce_sim.world import World
from dht_atonce.errors import ProfileInUse


def test_what_was_written_is_there_for_the_next_process() -> None:
    disks = VirtualDisks()
    disk = disks.open("alice")
    assert disk.read("key") is None
    disk.write("key", b"one")
    disk.write("key", b"two")
    assert disk.read("key") == b"two"
    disk.close()
    disk.close()
    again = disks.open("alice")
    assert again.read("key") == b"two"
    assert disks.open("bob").read("key") is None


def test_no_two_processes_use_one_at_a_time() -> None:
    disks = VirtualDisks()
    first = disks.open("alice")
    with pytest.raises(ProfileInUse, match="another process uses the profile alice"):
        disks.open("alice")
    first.close()
    second = disks.open("alice")
    first.close()  # of a disk that somebody else has by now: nothing
    with pytest.raises(ProfileInUse):
        disks.open("alice")
    second.close()
    disks.open("alice").close()


def test_a_dead_process_lets_go_and_writes_nothing_any_more() -> None:
    disks = VirtualDisks()
    dead = disks.open("alice")
    dead.write("state", b"of old")
    dead.cut()
    dead.write("state", b"of a ghost")
    dead.write("other", b"of a ghost")
    alive = disks.open("alice")
    assert (alive.read("state"), alive.read("other")) == (b"of old", None)
    alive.write("state", b"new")
    dead.write("state", b"of a ghost")
    dead.close()
    assert alive.read("state") == b"new"
    with pytest.raises(ProfileInUse):
        disks.open("alice")


def test_a_crash_cuts_all_disks_of_its_host_and_no_other() -> None:
    async def main() -> None:
        world = World()
        host, other = world.host(), world.host()
        gone = [host.disk(Path(name)) for name in ("one", "two")]
        kept = other.disk(Path("three"))
        world.crash(host)
        for disk in (*gone, kept):
            disk.write("state", b"after the crash")
        again = world.restart(host)
        assert [again.disk(Path(name)).read("state") for name in ("one", "two")] == [None, None]
        assert kept.read("state") == b"after the crash"
        with pytest.raises(ProfileInUse):
            again.disk(Path("three"))

    run(main())


def test_a_disk_can_be_carried_to_another_host() -> None:
    async def main() -> None:
        world = World()
        first, second = world.host(), world.host()
        disk = first.disk(Path("alice"))
        disk.write("key", b"hers")
        disk.close()
        assert second.disk(Path("alice")).read("key") == b"hers"
        assert World().host().disk(Path("alice")).read("key") is None  # another world has other disks

    run(main())


def test_an_absolute_path_is_a_real_folder(tmp_path: Path) -> None:
    async def main() -> None:
        disk = World().host().disk(tmp_path / "looked into")
        assert not isinstance(disk, VirtualDisk)
        disk.write("key", b"on a real disk")
        disk.close()

    run(main())
    assert (tmp_path / "looked into" / "key").read_bytes() == b"on a real disk"
