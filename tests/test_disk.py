"""The disk seam: whole files, private ones, and one process at a time."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dht_atonce.disk import MAX_FILE_BYTES, Disk, FolderDisk, MemoryDisk
from dht_atonce.errors import ProfileError, ProfileInUse

OpenDisk = Callable[[Path], Disk]

# Holds the profile until it is killed, and says so.
HOLD = """
import sys
from pathlib import Path
from dht_atonce.disk import FolderDisk
disk = FolderDisk(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""

# Power cut: the process dies when the new bytes are written but do not have their name yet.
DIE_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from dht_atonce.disk import FolderDisk
disk = FolderDisk(Path(sys.argv[1]))
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
disk.write("state", b"new" * 1000)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "profile"


# --- what every disk does ---


@pytest.mark.parametrize("open_disk", [FolderDisk, lambda _: MemoryDisk()], ids=["folder", "memory"])
def test_files_are_read_as_written(open_disk: OpenDisk, folder: Path) -> None:
    disk = open_disk(folder)
    assert disk.read("state") is None
    disk.write("state", b"one")
    disk.write("other", b"")
    assert disk.read("state") == b"one"
    assert disk.read("other") == b""
    disk.write("state", b"2")
    assert disk.read("state") == b"2"
    disk.close()
    disk.close()


def test_a_memory_disk_keeps_its_files() -> None:
    disk = MemoryDisk()
    disk.write("state", b"one")
    disk.close()
    assert disk.read("state") == b"one"


def test_files_are_there_for_the_next_who_opens(folder: Path) -> None:
    first = FolderDisk(folder)
    first.write("state", b"one")
    first.close()
    second = FolderDisk(folder)
    assert second.read("state") == b"one"
    second.close()


# --- private ---


def test_what_is_made_is_for_its_owner_only(folder: Path) -> None:
    before = os.umask(0)
    try:
        disk = FolderDisk(folder / "nested")
        disk.write("identity", b"secret")
        disk.close()
    finally:
        os.umask(before)
    assert (folder / "nested").stat().st_mode & 0o777 == 0o700
    for file in (folder / "nested").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644])
def test_a_secret_that_others_can_touch_is_refused(folder: Path, mode: int) -> None:
    disk = FolderDisk(folder)
    disk.write("identity", b"secret")
    (folder / "identity").chmod(mode)
    with pytest.raises(ProfileError, match=f"run: chmod 600 {folder / 'identity'}"):
        disk.read("identity")
    (folder / "identity").chmod(0o600)
    assert disk.read("identity") == b"secret"
    disk.close()


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o701, 0o770, 0o755])
def test_a_folder_that_others_can_enter_is_refused(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ProfileError, match=f"run: chmod 700 {folder}$"):
        FolderDisk(folder)
    folder.chmod(0o700)
    FolderDisk(folder).close()


# --- one process at a time ---


def run(program: str, *arguments: str, close_fds: bool = True) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        close_fds=close_fds,
    )


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_profile_that_another_process_holds_is_refused(folder: Path) -> None:
    with run(HOLD, str(folder)) as other:
        assert said(other) == "held"
        with pytest.raises(ProfileInUse, match=str(folder)):
            FolderDisk(folder)
        # Without the lock one may look at it: `atonce status` does.
        visitor = FolderDisk(folder, lock=False)
        assert visitor.read("state") is None
        visitor.close()
        with pytest.raises(ProfileInUse):
            FolderDisk(folder)
        other.kill()
    # The kernel lets go of the lock, whatever killed its holder.
    FolderDisk(folder).close()


def test_a_profile_is_held_against_our_own_process_too(folder: Path) -> None:
    first = FolderDisk(folder)
    with pytest.raises(ProfileInUse):
        FolderDisk(folder)
    first.close()
    FolderDisk(folder).close()


def test_the_lock_is_not_inherited(folder: Path) -> None:
    disk = FolderDisk(folder)
    with run("print('up', flush=True); input()", close_fds=False) as child:
        assert said(child) == "up"  # only then has exec closed what it closes
        disk.close()
        FolderDisk(folder).close()
        child.kill()


# --- the old file or the new one ---


def test_a_write_that_fails_leaves_the_old_file(folder: Path) -> None:
    disk = FolderDisk(folder)
    disk.write("state", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as a full disk would
    try:
        with pytest.raises(ProfileError, match=f"{folder / 'state'} cannot be written"):
            disk.write("state", b"new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert disk.read("state") == b"old"
    assert sorted(file.name for file in folder.iterdir()) == ["lock", "state"]
    disk.write("state", b"new")
    assert disk.read("state") == b"new"
    disk.close()


def test_a_process_that_dies_while_writing_leaves_the_old_file(folder: Path) -> None:
    disk = FolderDisk(folder)
    disk.write("state", b"old")
    disk.close()
    died = subprocess.run([sys.executable, "-c", DIE_WHILE_WRITING, str(folder)], check=False)
    assert died.returncode == -signal.SIGKILL
    disk = FolderDisk(folder)
    assert disk.read("state") == b"old"
    disk.write("state", b"newer")  # over what the dead process left behind
    assert disk.read("state") == b"newer"
    disk.close()


def test_what_can_be_written_can_be_read(folder: Path) -> None:
    disk = FolderDisk(folder)
    disk.write("state", bytes(MAX_FILE_BYTES))
    assert disk.read("state") == bytes(MAX_FILE_BYTES)
    with pytest.raises(ProfileError):
        disk.write("state", bytes(MAX_FILE_BYTES + 1))
    assert disk.read("state") == bytes(MAX_FILE_BYTES)
    disk.close()


# --- folders and files that are not as they should be ---


def test_a_file_that_is_too_large_is_not_read(folder: Path) -> None:
    disk = FolderDisk(folder)
    (folder / "state").write_bytes(bytes(MAX_FILE_BYTES + 1))
    (folder / "state").chmod(0o600)
    with pytest.raises(ProfileError, match="not a file of ours"):
        disk.read("state")
    disk.close()


def test_a_folder_in_the_place_of_a_file_is_said(folder: Path) -> None:
    disk = FolderDisk(folder)
    (folder / "state").mkdir()
    with pytest.raises(ProfileError, match=f"{folder / 'state'} cannot be read"):
        disk.read("state")
    with pytest.raises(ProfileError, match=f"{folder / 'state'} cannot be written"):
        disk.write("state", b"new")
    disk.close()


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ProfileError, match="cannot be used"):
        FolderDisk(tmp_path / "file")
    with pytest.raises(ProfileError, match="cannot be used"):
        FolderDisk(tmp_path / "file" / "profile")


# --- databases ---


def test_a_database_is_private_and_synced_and_what_was_committed_is_there(folder: Path) -> None:
    disk = FolderDisk(folder)
    assert not disk.has_database("messages.db")
    database = disk.database("messages.db")
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    database.execute("CREATE TABLE t (n)")
    database.execute("INSERT INTO t VALUES (1)")
    database.commit()
    database.execute("INSERT INTO t VALUES (2)")
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.glob("messages.db*")}
    assert modes == {"messages.db": 0o600, "messages.db-wal": 0o600, "messages.db-shm": 0o600}
    database.close()
    assert disk.has_database("messages.db")
    again = disk.database("messages.db")
    assert again.execute("SELECT n FROM t").fetchall() == [(1,)]
    again.close()
    disk.close()


def test_a_database_that_others_may_read_is_refused(folder: Path) -> None:
    disk = FolderDisk(folder)
    disk.database("messages.db").close()
    (folder / "messages.db").chmod(0o644)
    with pytest.raises(ProfileError, match="can be read by others; run: chmod 600"):
        disk.database("messages.db")
    (folder / "messages.db").unlink()
    (folder / "messages.db").mkdir()
    with pytest.raises(ProfileError, match="cannot be opened"):
        disk.database("messages.db")
    disk.close()


def test_a_database_is_set_aside_with_its_journal_and_never_over_another(folder: Path) -> None:
    disk = FolderDisk(folder)
    for number in (1, 2):
        (folder / "messages.db").write_bytes(b"damaged %d" % number)
        (folder / "messages.db-wal").write_bytes(b"journal %d" % number)
        assert disk.set_aside("messages.db") == f"messages.db.damaged-{number}"
    assert not disk.has_database("messages.db")
    kept = {path.name: path.read_bytes() for path in folder.glob("messages.db*")}
    assert kept == {
        "messages.db.damaged-1": b"damaged 1",
        "messages.db.damaged-1-wal": b"journal 1",
        "messages.db.damaged-2": b"damaged 2",
        "messages.db.damaged-2-wal": b"journal 2",
    }
    disk.close()


def test_a_database_in_memory_is_gone_with_the_process() -> None:
    disk = MemoryDisk()
    database = disk.database("messages.db")
    database.execute("CREATE TABLE t (n)")
    database.close()
    assert not disk.has_database("messages.db")
    with pytest.raises(ProfileError, match="in memory only"):
        disk.set_aside("messages.db")
