"""What a rival must be able to do. Standard library only: some rivals run under another Python."""

import contextlib
import os
import socket
from collections.abc import Callable

__all__ = ["Rival", "Skipped", "make_deaf"]


class Skipped(Exception):
    """This cannot be measured here; the message says why."""


class Rival:
    """A network of one kind of node, all in this process.

    Nodes are numbered in the order in which they joined. A value has a number too, and belongs to the node that puts
    it: where records are signed, it is found under both.
    """

    says_when_joined = True
    """`join` ends when the node has its place. Without that, no time is given for it."""
    settle_s = 0.0
    """How long the network takes after the last one joined."""

    async def join(self, entry: int | None) -> None:
        """One more node joins through the node `entry`; None: it is the first."""
        raise NotImplementedError

    async def put(self, owner: int, number: int, value: bytes) -> None:
        """`owner` stores a value."""
        raise NotImplementedError

    async def get(self, node: int, owner: int, number: int) -> bytes | None:
        """`node` looks up a value of `owner`'s."""
        raise NotImplementedError

    def holds(self, node: int, owner: int, number: int) -> bool:
        """Whether `node` has the value itself, and would ask nobody. False also where that cannot be told."""
        return False

    async def watch(self, node: int, owner: int, number: int, heard: Callable[[], None]) -> None:
        """`node` watches for a value of `owner`'s; `heard` is called when it is put. Raises `Skipped`."""
        raise Skipped("it cannot watch")

    async def silence(self, node: int) -> None:
        """From now on `node` hears nobody and reaches nobody, and nobody is told."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop all nodes. Only who shares its process with others need do it."""


def _open_files() -> set[int]:
    """The file descriptors of this process."""
    return {int(name) for name in os.listdir("/dev/fd")}


def make_deaf(port: int) -> None:
    """Put a socket that leads nowhere in the place of those bound to `port`, under their owner's hands.

    For libraries that cannot be stopped without a goodbye.
    """
    for fd in _open_files():
        with contextlib.suppress(OSError):  # no socket, or closed by now
            theirs = socket.socket(fileno=fd)
            name = theirs.getsockname()
            theirs.detach()
            if isinstance(name, tuple) and name[1] == port:
                near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
                os.dup2(near.fileno(), fd)
                near.close()
                far.detach()  # left open: to its end, the socket has somebody at the other side
