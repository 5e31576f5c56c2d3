"""The file of durable messages: transactions, damage, full disks, on real disks."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dht_atonce.disk import FolderDisk
from dht_atonce.durable.store import FILE, Arrival, Store
from dht_atonce.errors import StoreError

# A disk that is full: SQLite gets an error at its next write.
FULL = """
import resource, signal, sys
from pathlib import Path
from dht_atonce.disk import FolderDisk
from dht_atonce.durable.store import Store
from dht_atonce.errors import StoreError
store = Store.open(FolderDisk(Path(sys.argv[1])))
row = (bytes(32), bytes(16), 1, bytes(50_000))
store.perform([lambda store: store.add_outgoing([row])])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = (Path(sys.argv[1]) / "messages.db-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10_000, size + 10_000))
try:
    store.perform([lambda store: store.add_outgoing([row, row])])
except StoreError as error:
    print(error)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FolderDisk]:
    disk = FolderDisk(tmp_path / "profile")
    yield disk
    disk.close()


def arrival(number: int, expires_ms: int = 10) -> Arrival:
    return Arrival(0, bytes(32), number.to_bytes(16, "big"), expires_ms, b"data")


def test_a_transaction_is_done_whole_or_not_at_all(disk: FolderDisk) -> None:
    store = Store.open(disk)
    row = (bytes(32), bytes(16), 1, b"data")
    with pytest.raises(StoreError, match="cannot be used: NOT NULL"):
        store.perform([lambda s: s.add_outgoing([row]), lambda s: s.add_outgoing([(bytes(32), bytes(16), None, b"")])])  # type: ignore[list-item]
    assert store.perform([lambda s: s.outbox()]) == [[]]
    store.perform([lambda s: s.add_outgoing([row])])
    store.close()
    store = Store.open(disk)
    assert store.set_aside is None
    assert len(store.perform([lambda s: s.outbox()])[0]) == 1
    store.close()


def test_a_disk_that_is_really_full_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "profile"
    said = subprocess.run([sys.executable, "-c", FULL, str(folder)], capture_output=True, text=True, timeout=60)
    assert "disk is full" in said.stdout or "disk I/O error" in said.stdout, said
    disk = FolderDisk(folder)
    store = Store.open(disk)
    assert store.set_aside is None
    assert [held.messages for held in store.perform([lambda s: s.outbox()])[0]] == [1]
    store.close()
    disk.close()


@pytest.mark.parametrize("damage", ["header", "page", "cut", "text"])
def test_a_damaged_file_is_set_aside_whole(disk: FolderDisk, damage: str) -> None:
    store = Store.open(disk)
    rows = [(bytes(32), bytes(16), 1, bytes(3000)) for _ in range(50)]
    store.perform([lambda s: s.add_outgoing(rows)])
    store.close()
    path = disk.folder / FILE
    data = path.read_bytes()
    damaged = {
        "header": b"x" * 100 + data[100:],
        "page": data[:8192] + b"x" * 4096 + data[12288:],
        "cut": data[: len(data) // 2],
        "text": b"this is no database, and long enough to be looked at" * 100,
    }[damage]
    path.write_bytes(damaged)
    store = Store.open(disk)
    assert store.set_aside == "messages.db.damaged-1"
    assert (disk.folder / "messages.db.damaged-1").read_bytes() == damaged
    assert store.perform([lambda s: s.outbox()]) == [[]]
    store.close()


def test_a_damage_that_shows_later_is_said(disk: FolderDisk) -> None:
    store = Store.open(disk)
    rows = [(bytes(32), bytes(16), 1, bytes(3000)) for _ in range(2000)]
    store.perform([lambda s: s.add_outgoing(rows)])
    store.close()
    store = Store.open(disk)
    path = disk.folder / FILE
    path.write_bytes(path.read_bytes()[:4096] + b"x" * (path.stat().st_size - 4096))
    with pytest.raises(StoreError, match="at the next start it is set aside, and never deleted"):
        store.perform([lambda s: s.outgoing(bytes(32), 1500, 100)])
    store.close()
    store = Store.open(disk)
    assert store.set_aside == "messages.db.damaged-1"
    store.close()


def test_arrivals_are_added_once_and_forgotten_when_done_and_settled(disk: FolderDisk) -> None:
    store = Store.open(disk)
    (places,) = store.perform([lambda s: s.add_arrivals([arrival(1), arrival(2), arrival(1)])])
    (one, two) = (places[0][0], places[1][0])
    assert places == [(one, True), (two, True), (one, False)]
    assert store.perform([lambda s: s.done([one])]) == [[(True, False)]]
    assert store.perform([lambda s: s.done([one])]) == [[(False, False)]]
    assert store.perform([lambda s: s.add_arrivals([arrival(1)])]) == [[(one, False)]]  # done, and remembered
    assert store.perform([lambda s: s.settle([one, two])]) == [1]
    assert store.perform([lambda s: s.done([two])]) == [[(True, True)]]
    ((held, last),) = store.perform([lambda s: s.inbox()])
    assert held == []
    assert store.perform([lambda s: s.add_arrivals([arrival(3)])])[0][0][0] > last >= two  # no place is given twice
    store.close()


def test_what_is_over_goes_and_is_named(disk: FolderDisk) -> None:
    store = Store.open(disk)
    store.perform([lambda s: s.add_arrivals([arrival(1, 10), arrival(2, 20), arrival(3, 30)])])
    store.perform([lambda s: s.done([1]), lambda s: s.add_outgoing([(bytes(32), bytes(16), 15, b"12345")])])
    assert store.perform([lambda s: s.next_expiry()]) == [10]
    assert store.perform([lambda s: s.expire_arrivals(20), lambda s: s.expire_outgoing(20)]) == [
        [(bytes(32), None), (bytes(32), 4)],
        [(bytes(32), bytes(16), 5)],
    ]
    assert store.perform([lambda s: s.next_expiry()]) == [30]
    assert store.perform([lambda s: s.expire_arrivals(30), lambda s: s.next_expiry()]) == [[(bytes(32), 4)], None]
    store.close()
