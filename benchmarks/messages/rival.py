"""What a rival must be able to do. Standard library only: some rivals run under another Python."""

from typing import Any, Protocol

__all__ = ["Channel", "Figures", "Info", "Rival", "Skipped"]

Figures = dict[str, float]
"""Measure → figure."""
Info = dict[str, Any]
"""What the near process has to know of the far one; goes through JSON."""


class Skipped(Exception):
    """This cannot be measured here; the message says why."""


class Channel(Protocol):
    """Messages to and from one other process, in order."""

    async def send(self, data: bytes) -> None:
        """Send a message; waits only where the sender has to be held back."""

    async def recv(self) -> bytes:
        """The next message."""


class Rival(Protocol):
    """How two processes get hold of a channel."""

    async def listen(self) -> Info:
        """Begin to listen, in the far process."""

    async def accept(self) -> Channel:
        """The channel to the near process."""

    async def dial(self, info: Info) -> Channel:
        """The channel to the far process, in the near one."""
