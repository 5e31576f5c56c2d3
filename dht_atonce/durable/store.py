"""Outbox, inbox and the ids that are remembered, in one SQLite database. Nothing here decides; all of it waits for the
disk, so it is called through `Writer` only.

Each call but `open` and `perform` is a part of a transaction: `perform` makes one of many and commits it.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from dht_atonce.disk import Database, Disk
from dht_atonce.durable.courier import Row
from dht_atonce.errors import ProfileError, StoreError

__all__ = ["FILE", "Arrival", "Held", "Store"]

FILE: Final = "messages.db"
_VERSION: Final = 1
_DAMAGED: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_SCHEMA: Final = (
    # AUTOINCREMENT: a place is never given twice, so "what was there at the start" and "behind this one" stay true.
    "CREATE TABLE outbox (number INTEGER PRIMARY KEY AUTOINCREMENT, receiver BLOB NOT NULL, id BLOB NOT NULL,"
    " expires_ms INTEGER NOT NULL, data BLOB NOT NULL)",
    "CREATE INDEX outbox_by_receiver ON outbox (receiver, number)",
    "CREATE INDEX outbox_by_expiry ON outbox (expires_ms)",
    # data NULL: done, and remembered. settled: its sender never sends it again, so when it is done it can be forgotten.
    "CREATE TABLE inbox (number INTEGER PRIMARY KEY AUTOINCREMENT, sender BLOB NOT NULL, id BLOB NOT NULL,"
    " expires_ms INTEGER NOT NULL, settled INTEGER NOT NULL DEFAULT 0, data BLOB)",
    "CREATE UNIQUE INDEX inbox_by_id ON inbox (sender, id)",
    "CREATE INDEX inbox_by_expiry ON inbox (expires_ms)",
)


class Arrival(NamedTuple):
    """A message of somebody else's."""

    number: int
    """Its place in the inbox; 0 before it has one."""
    sender: bytes
    """32 B, a PeerId's key."""
    id: bytes
    expires_ms: int
    data: bytes


class Held(NamedTuple):
    """What one peer has in a box."""

    peer: bytes
    messages: int
    size: int
    ids: int


class Store:
    """The database, open. Built by `open` only."""

    def __init__(self, database: Database, set_aside: str | None) -> None:
        self.set_aside = set_aside
        """The name under which a damaged file lies now, whose place this one took."""
        self._database = database

    # --- life ---

    @classmethod
    def open(cls, disk: Disk) -> "Store":
        """Open the database, made if new; a damaged one is set aside first. Raises `StoreError`."""
        try:
            try:
                return cls(_opened(disk), None)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
            set_aside = disk.set_aside(FILE)
            return cls(_opened(disk), set_aside)
        except (sqlite3.Error, ProfileError) as error:
            raise _store_error(error) from None

    def perform(self, jobs: Sequence[Callable[["Store"], Any]]) -> list[Any]:
        """Do all of `jobs` in one transaction, or nothing; when this returns it is on the disk. Raises `StoreError`."""
        try:
            results = [job(self) for job in jobs]
            self._database.commit()
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._database.rollback()
            raise _store_error(error) from None
        return results

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()

    # --- outbox ---

    def outbox(self) -> list[Held]:
        """What there is for each receiver."""
        query = "SELECT receiver, COUNT(*), SUM(LENGTH(data)), 0 FROM outbox GROUP BY receiver ORDER BY MIN(number)"
        return [Held(*row) for row in self._database.execute(query)]

    def add_outgoing(self, rows: Sequence[tuple[bytes, bytes, int, bytes]]) -> list[int]:
        """Add (receiver, id, expires_ms, data); gives their places."""
        execute = self._database.execute
        sql = "INSERT INTO outbox (receiver, id, expires_ms, data) VALUES (?, ?, ?, ?)"
        return [execute(sql, row).lastrowid or 0 for row in rows]

    def outgoing(self, receiver: bytes, after: int, limit: int) -> list[Row]:
        """The next ones for a receiver."""
        query = (
            "SELECT number, id, expires_ms, data FROM outbox WHERE receiver = ? AND number > ? ORDER BY number LIMIT ?"
        )
        return [Row(*row) for row in self._database.execute(query, (receiver, after, limit))]

    def delete_outgoing(self, numbers: Sequence[int]) -> list[bool]:
        """They are acknowledged. Gives whether each was there."""
        sql = "DELETE FROM outbox WHERE number = ?"
        return [self._database.execute(sql, (number,)).rowcount > 0 for number in numbers]

    def expire_outgoing(self, now_ms: int) -> list[tuple[bytes, bytes, int]]:
        """Delete what is over: (receiver, id, bytes) of each."""
        query = "SELECT receiver, id, LENGTH(data) FROM outbox WHERE expires_ms <= ? ORDER BY number"
        expired = self._database.execute(query, (now_ms,)).fetchall()
        if expired:
            self._database.execute("DELETE FROM outbox WHERE expires_ms <= ?", (now_ms,))
        return expired

    # --- inbox ---

    def inbox(self) -> tuple[list[Held], int]:
        """What there is of each sender, and the last place that was ever given."""
        query = "SELECT sender, COUNT(data), COALESCE(SUM(LENGTH(data)), 0), COUNT(*) FROM inbox GROUP BY sender"
        held = [Held(*row) for row in self._database.execute(query + " ORDER BY MIN(number)")]
        last = self._database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'inbox'").fetchone()
        return held, last[0] if last else 0

    def add_arrivals(self, arrivals: Sequence[Arrival]) -> list[tuple[int, bool]]:
        """Add those that are new; gives the place of each, and whether it was new."""
        execute = self._database.execute
        sql = "INSERT OR IGNORE INTO inbox (sender, id, expires_ms, data) VALUES (?, ?, ?, ?)"
        results = []
        for arrival in arrivals:
            done = execute(sql, arrival[1:])
            if done.rowcount:
                results.append((done.lastrowid or 0, True))
            else:
                query = "SELECT number FROM inbox WHERE sender = ? AND id = ?"
                results.append((execute(query, (arrival.sender, arrival.id)).fetchone()[0], False))
        return results

    def arrivals(self, after: int, limit: int) -> list[Arrival]:
        """The next ones that the app is not done with."""
        query = (
            "SELECT number, sender, id, expires_ms, data FROM inbox WHERE number > ? AND data IS NOT NULL"
            " ORDER BY number LIMIT ?"
        )
        return [Arrival(*row) for row in self._database.execute(query, (after, limit))]

    def done(self, numbers: Sequence[int]) -> list[tuple[bool, bool]]:
        """The app is done with them: (whether it is news, whether the id was forgotten too) of each."""
        execute = self._database.execute
        results = []
        for number in numbers:
            if execute("DELETE FROM inbox WHERE number = ? AND settled", (number,)).rowcount:
                results.append((True, True))
            else:
                sql = "UPDATE inbox SET data = NULL WHERE number = ? AND data IS NOT NULL"
                results.append((execute(sql, (number,)).rowcount > 0, False))
        return results

    def settle(self, numbers: Sequence[int]) -> int:
        """Their senders never send them again. Gives how many ids were forgotten."""
        execute = self._database.execute
        forgotten = 0
        for number in numbers:
            if execute("DELETE FROM inbox WHERE number = ? AND data IS NULL", (number,)).rowcount:
                forgotten += 1
            else:
                execute("UPDATE inbox SET settled = 1 WHERE number = ?", (number,))
        return forgotten

    def expire_arrivals(self, now_ms: int) -> list[tuple[bytes, int | None]]:
        """Delete what is over: the sender, and bytes if the app was not done with it (None: it was), of each."""
        query = "SELECT sender, LENGTH(data) FROM inbox WHERE expires_ms <= ? ORDER BY number"
        expired = self._database.execute(query, (now_ms,)).fetchall()
        if expired:
            self._database.execute("DELETE FROM inbox WHERE expires_ms <= ?", (now_ms,))
        return expired

    def next_expiry(self) -> int | None:
        """When the next message or id is over, Unix milliseconds."""
        query = "SELECT MIN(expires_ms) FROM (SELECT MIN(expires_ms) AS expires_ms FROM outbox UNION ALL "
        query += "SELECT MIN(expires_ms) FROM inbox)"
        found: int | None = self._database.execute(query).fetchone()[0]
        return found


def _opened(disk: Disk) -> Database:
    """The database with its tables. Raises `sqlite3.Error`, `StoreError` for one that a later version made."""
    database = disk.database(FILE)
    try:
        state = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if state != "ok":
            error = sqlite3.DatabaseError(state)
            error.sqlite_errorname = "SQLITE_CORRUPT"
            raise error
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise StoreError(f"{FILE} was made by a later version of @Once; it is left as it is")
        if version < _VERSION:
            database.execute("BEGIN")
            for statement in _SCHEMA:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {_VERSION}")
            database.commit()
    except BaseException:
        database.close()
        raise
    return database


def _is_damage(error: sqlite3.Error) -> bool:
    name = getattr(error, "sqlite_errorname", None) or ""
    return name.startswith(_DAMAGED)


def _store_error(error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    name = getattr(error, "sqlite_errorname", None) or ""
    if name == "SQLITE_FULL":
        return StoreError(f"the disk is full: nothing was added to {FILE}; make room and try again")
    if name.startswith(_DAMAGED):
        return StoreError(f"{FILE} is damaged ({error}); at the next start it is set aside, and never deleted")
    return StoreError(f"{FILE} cannot be used: {error}")
