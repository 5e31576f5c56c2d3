"""Disks of a world: they survive the death of the process that used them, and no two processes use one at a time.

A database is an SQLite database in memory that belongs to the world, not to the process that has it open: when that
dies, what it had not committed is rolled back, and the rest is there for the next one.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dht_atonce.disk import Database, MemoryDisk
from dht_atonce.errors import ProfileError, ProfileInUse

__all__ = ["DiskFaults", "VirtualDatabase", "VirtualDisk", "VirtualDisks"]

_JUNK = b"damaged " * 512


@dataclass(slots=True)
class DiskFaults:
    """How a machine's disks behave. May be changed while it runs; the machine keeps it when it is restarted."""

    commit_s: float = 0.0
    """How long a call takes that waits for the disk. What it does is done half-way through."""
    full: bool = False
    """Nothing can be written."""


class VirtualDisks:
    """All folders of a world, by path. A disk can be carried to another host."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, bytes]] = {}
        self._databases: dict[str, dict[str, sqlite3.Connection | bytes]] = {}
        self._in_use: dict[str, VirtualDisk] = {}

    def open(self, path: str, faults: DiskFaults | None = None) -> "VirtualDisk":
        """Raises `ProfileInUse`."""
        if path in self._in_use:
            raise ProfileInUse(f"another process uses the profile {path}")
        files, databases = self._files.setdefault(path, {}), self._databases.setdefault(path, {})
        disk = self._in_use[path] = VirtualDisk(self, path, files, databases, faults or DiskFaults())
        return disk

    def release(self, disk: "VirtualDisk") -> None:
        """Its process let go of it, or died."""
        if self._in_use.get(disk.path) is disk:
            del self._in_use[disk.path]

    def databases(self, path: str) -> list[str]:
        """The names of those in a folder, sorted."""
        return sorted(self._databases.get(path, ()))

    def damage(self, path: str, name: str, at: int = 0) -> None:
        """Junk is written over 4 KiB of a database, `at` bytes from its beginning; whoever opens it next sees that."""
        stored = self._databases[path][name]
        data = stored if isinstance(stored, bytes) else stored.serialize()
        self._databases[path][name] = data[:at] + _JUNK + data[at + len(_JUNK) :]


class VirtualDatabase:
    """A database in the hands of one process."""

    def __init__(self, connection: sqlite3.Connection, faults: DiskFaults) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._faults = faults

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("it was closed, or its machine is down")
        return self._connection

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> sqlite3.Cursor:
        return self._open.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> sqlite3.Cursor:
        return self._open.executemany(sql, parameters)

    def commit(self) -> None:
        connection = self._open
        if connection.in_transaction and self._faults.full:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error
        connection.commit()

    def rollback(self) -> None:
        if self._connection is not None:
            self._connection.rollback()

    def close(self) -> None:
        self.rollback()
        self._connection = None


class VirtualDisk(MemoryDisk):
    """One folder in the hands of one process."""

    def __init__(
        self,
        disks: VirtualDisks,
        path: str,
        files: dict[str, bytes],
        databases: dict[str, sqlite3.Connection | bytes],
        faults: DiskFaults,
    ) -> None:
        super().__init__()
        self.files = files
        self.path = path
        self._disks = disks
        self._databases = databases
        self._faults = faults
        self._opened: list[VirtualDatabase] = []
        self._is_cut = False

    def write(self, name: str, data: bytes) -> None:
        if self._is_cut:
            return
        if self._faults.full:
            raise ProfileError(f"{self.path}/{name} cannot be written: no space left on device")
        self.files[name] = data

    def has_database(self, name: str) -> bool:
        return name in self._databases

    def database(self, name: str) -> Database:
        if self._is_cut:
            raise sqlite3.ProgrammingError("its machine is down")
        stored = self._databases.get(name, b"")
        if isinstance(stored, bytes):
            connection = sqlite3.connect(":memory:")
            if stored:
                connection.deserialize(stored)
            self._databases[name] = stored = connection
        opened = VirtualDatabase(stored, self._faults)
        self._opened.append(opened)
        return opened

    def set_aside(self, name: str) -> str:
        number = 1
        while (new := f"{name}.damaged-{number}") in self._databases:
            number += 1
        self._databases[new] = self._databases.pop(name)
        return new

    def cut(self) -> None:
        """The process is dead: whatever of it still runs here writes nothing any more."""
        self._is_cut = True
        for database in self._opened:
            database.close()
        self._disks.release(self)

    def close(self) -> None:
        for database in self._opened:
            database.close()
        self._disks.release(self)
