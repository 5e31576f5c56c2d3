"""The transfers of files that were asked of a peer by its commands: begun, looked at, broken off."""

import asyncio
import itertools
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from dht_atonce.errors import ControlError
from dht_atonce.peer import Peer

__all__ = ["Transfers", "transfers_of"]

_MAX = 64


class _Transfer:
    def __init__(self) -> None:
        self.done = self.size = 0
        self.resumed: int | None = None
        """What was there when it began."""
        self.task: asyncio.Task[Any]

    def on_progress(self, done: int, size: int) -> None:
        self.done, self.size = done, size
        if self.resumed is None:
            self.resumed = done


class Transfers:
    """Those of one peer."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._all: dict[int, _Transfer] = {}
        self._numbers = itertools.count(1)

    def push(self, path: str, to: str) -> int:
        """Begin to push a file; gives the transfer's number. Raises `ControlError` if there are too many."""
        transfer = _Transfer()
        return self._begin(transfer, self._peer.push_file(Path(path), to, transfer.on_progress))

    def pull(self, name: str, peer: str, folder: str) -> int:
        """Begin to pull a file."""
        transfer = _Transfer()
        return self._begin(transfer, self._peer.pull_file(name, peer, Path(folder), transfer.on_progress))

    def look(self, number: int) -> dict[str, Any]:
        """How it stands. Raises what it failed with; who was told of its end cannot ask again."""
        transfer = self._all.get(number)
        if transfer is None:
            raise ControlError(f"there is no transfer {number}")
        if transfer.task.done():
            del self._all[number]
            if transfer.task.cancelled():
                raise ControlError("the transfer was broken off")
            transfer.task.result()
        return {
            "done_bytes": transfer.done,
            "size_bytes": transfer.size,
            "resumed_bytes": transfer.resumed or 0,
            "complete": transfer.task.done(),
        }

    def cancel(self, number: int) -> None:
        """Break it off."""
        transfer = self._all.pop(number, None)
        if transfer is not None:
            transfer.task.cancel()

    def _begin(self, transfer: _Transfer, work: Any) -> int:
        for number, old in list(self._all.items()):
            if old.task.done() and len(self._all) >= _MAX:  # nobody asked for its end
                self._forget(number)
        if len(self._all) >= _MAX:
            work.close()
            raise ControlError(f"{_MAX} files are under way already")
        number = next(self._numbers)
        transfer.task = asyncio.get_running_loop().create_task(work, name=f"transfer {number}")
        transfer.task.add_done_callback(_retrieve)
        self._all[number] = transfer
        return number

    def _forget(self, number: int) -> None:
        del self._all[number]


def _retrieve(task: "asyncio.Task[Any]") -> None:
    """An error that nobody asks for is no error of ours."""
    if not task.cancelled():
        task.exception()


_known: "WeakKeyDictionary[Peer, Transfers]" = WeakKeyDictionary()


def transfers_of(peer: Peer) -> Transfers:
    """The transfers of `peer`."""
    found = _known.get(peer)
    if found is None:
        found = _known[peer] = Transfers(peer)
    return found
