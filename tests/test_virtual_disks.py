"""Disks of a world: they outlive processes, and one process at a time has each."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from atonce_sim.loop import run
from atonce_sim.virtual_disks import DiskFaults, VirtualDisk, VirtualDisks
from atonce_sim.world import World
from dht_atonce.disk import Database
from dht_atonce.errors import ProfileError, ProfileInUse


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


# --- databases ---


def rows(database: Database) -> list[int]:
    return [number for (number,) in database.execute("SELECT n FROM t ORDER BY n")]


def filled(disk: VirtualDisk) -> Database:
    """A table with 1 committed, and 2 not."""
    database = disk.database("db")
    database.execute("CREATE TABLE t (n)")
    database.executemany("INSERT INTO t VALUES (?)", [(1,)])
    database.commit()
    database.execute("INSERT INTO t VALUES (2)")
    return database


def test_of_a_database_what_was_committed_outlives_the_process_and_nothing_else() -> None:
    disks = VirtualDisks()
    disk = disks.open("alice")
    assert not disk.has_database("db")
    database = filled(disk)
    assert rows(database) == [1, 2]
    disk.cut()
    with pytest.raises(sqlite3.Error, match="its machine is down"):
        database.execute("INSERT INTO t VALUES (3)")
    with pytest.raises(sqlite3.Error):
        database.commit()
    database.rollback()
    with pytest.raises(sqlite3.Error):
        disk.database("db")
    again = disks.open("alice")
    assert again.has_database("db")
    assert rows(again.database("db")) == [1]


def test_who_closes_in_good_order_leaves_the_same() -> None:
    disks = VirtualDisks()
    disk = disks.open("alice")
    filled(disk)
    disk.close()
    assert rows(disks.open("alice").database("db")) == [1]


def test_on_a_full_disk_nothing_is_written_and_all_is_read() -> None:
    faults = DiskFaults()
    disk = VirtualDisks().open("alice", faults)
    database = filled(disk)
    faults.full = True
    with pytest.raises(sqlite3.OperationalError, match="full") as caught:
        database.commit()
    assert caught.value.sqlite_errorname == "SQLITE_FULL"
    with pytest.raises(ProfileError, match="no space left"):
        disk.write("state", b"new")
    database.rollback()
    database.commit()  # there is nothing to write
    assert rows(database) == [1]
    faults.full = False
    database.execute("INSERT INTO t VALUES (4)")
    database.commit()
    assert rows(database) == [1, 4]


def test_a_damaged_database_shows_when_it_is_opened_and_can_be_set_aside() -> None:
    disks = VirtualDisks()
    disk = disks.open("alice")
    filled(disk)
    disk.close()
    for number in (1, 2):
        disks.damage("alice", "db")
        disk = disks.open("alice")
        with pytest.raises(sqlite3.DatabaseError, match="not a database"):
            rows(disk.database("db"))
        assert disk.set_aside("db") == f"db.damaged-{number}"
        assert not disk.has_database("db")
        filled(disk)
        disk.close()
    assert disks.databases("alice") == ["db", "db.damaged-1", "db.damaged-2"]
    assert disks.databases("bob") == []


def test_a_slow_disk_works_half_way_through_and_its_machine_keeps_it() -> None:
    async def main() -> None:
        world = World(1)
        host, loop = world.host(), asyncio.get_running_loop()
        await host.offload.run(lambda: None)
        assert loop.time() == 0
        host.disk_faults.commit_s = 4.0
        assert await host.offload.run(loop.time) == 2.0
        assert loop.time() == 4.0
        world.crash(host)
        again = world.restart(host)
        assert await again.offload.run(loop.time) == 6.0
        assert loop.time() == 8.0

    run(main())
