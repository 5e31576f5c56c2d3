"""The disk seam: a folder of small files that are replaced whole, and of databases."""

import contextlib
import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from dht_atonce.errors import ProfileError, ProfileInUse

__all__ = ["Database", "Disk", "FolderDisk", "MemoryDisk"]

MAX_FILE_BYTES = 1 << 20


class Database(Protocol):
    """An SQLite database: of `sqlite3.Connection`, what is used here. What was committed outlives power cuts.

    All methods may wait for the disk and raise `sqlite3.Error`. Used by one thread at a time, any one.
    """

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> sqlite3.Cursor: ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> sqlite3.Cursor: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """Small named files. All methods are quick enough to be called from a loop but `write`, which waits for the
    disk."""

    def read(self, name: str) -> bytes | None:
        """The file's bytes, None if there is none. Raises `ProfileError` if it cannot be read."""

    def write(self, name: str, data: bytes) -> None:
        """Replace the file whole: after a crash there is the old one or the new one. Raises `ProfileError`."""

    def has_database(self, name: str) -> bool:
        """Whether there is one of this name."""

    def database(self, name: str) -> Database:
        """Open a database, made if new. Raises `sqlite3.Error`; `ProfileError` if others may read it."""

    def set_aside(self, name: str) -> str:
        """Rename a database that is closed, so that another takes its place. Gives the new name. Raises
        `ProfileError`."""

    def close(self) -> None:
        """Let go of the folder. May be called twice."""


class MemoryDisk:
    """A disk that is gone with the process: ephemeral peers, tests and simulated hosts."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, data: bytes) -> None:
        self.files[name] = data

    def has_database(self, name: str) -> bool:
        return False

    def database(self, name: str) -> Database:
        return sqlite3.connect(":memory:", check_same_thread=False)

    def set_aside(self, name: str) -> str:
        raise ProfileError(f"{name} is in memory only")

    def close(self) -> None:
        """Nothing to let go of: the files stay for whoever opens this disk again."""


class FolderDisk:
    """A folder only its owner can enter (0700), locked by one process at a time; files are 0600.

    Raises `ProfileInUse` if another process holds it, `ProfileError` if it cannot be used.
    """

    LOCK = "lock"

    def __init__(self, folder: Path, *, lock: bool = True) -> None:
        self.folder = folder
        self._lock: int | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = folder.stat().st_mode
            if not stat.S_ISDIR(mode):
                raise ProfileError(f"{folder} is not a folder")
            if stat.S_IMODE(mode) & 0o077:
                raise ProfileError(f"{folder} can be entered by others; run: chmod 700 {folder}")
            if lock:
                self._acquire()
        except OSError as error:
            raise ProfileError(f"the profile folder {folder} cannot be used: {error.strerror}") from None

    def _acquire(self) -> None:
        fd = os.open(self.folder / self.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise ProfileInUse(f"another process uses the profile {self.folder}") from None
        self._lock = fd

    def read(self, name: str) -> bytes | None:
        path = self.folder / name
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise ProfileError(f"{path} can be read by others; run: chmod 600 {path}")
                data = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ProfileError(f"{path} cannot be read: {error.strerror}") from None
        if len(data) > MAX_FILE_BYTES:
            raise ProfileError(f"{path} is larger than {MAX_FILE_BYTES} bytes; it is not a file of ours")
        return data

    def write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        if len(data) > MAX_FILE_BYTES:
            raise ProfileError(
                f"{path} would have {len(data)} bytes, more than the {MAX_FILE_BYTES} that are read again"
            )
        temporary = self.folder / f".{name}.new"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            self._sync_names()
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise ProfileError(f"{path} cannot be written: {error.strerror}") from None

    def has_database(self, name: str) -> bool:
        return (self.folder / name).exists()

    def database(self, name: str) -> Database:
        path = self.folder / name
        try:
            # SQLite would make it with the umask's mode; its journals take the mode of the database.
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            mode = os.fstat(fd).st_mode
            os.close(fd)
            self._sync_names()
        except OSError as error:
            raise ProfileError(f"{path} cannot be opened: {error.strerror}") from None
        if mode & 0o077:
            raise ProfileError(f"{path} can be read by others; run: chmod 600 {path}")
        connection = sqlite3.connect(path, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # with WAL: an fsync at each commit
        except BaseException:
            connection.close()
            raise
        return connection

    def set_aside(self, name: str) -> str:
        number = 1
        while (self.folder / (new := f"{name}.damaged-{number}")).exists():
            number += 1
        try:
            # The database last: a journal without its database would be taken for one of the next.
            for suffix in ("-shm", "-wal", ""):
                with contextlib.suppress(FileNotFoundError):
                    (self.folder / f"{name}{suffix}").rename(self.folder / f"{new}{suffix}")
            self._sync_names()
        except OSError as error:
            raise ProfileError(f"{self.folder / name} cannot be set aside: {error.strerror}") from None
        return new

    def _sync_names(self) -> None:
        """New names must survive a power cut too."""
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)  # closing releases the lock
            self._lock = None
