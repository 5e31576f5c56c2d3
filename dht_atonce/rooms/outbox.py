"""What the machines of a room want to have said, encoded once for all who get the same."""

from collections.abc import Iterable

from dht_atonce.rooms.wire import RoomMessage, write_message

__all__ = ["Outbox"]


class Outbox:
    """Messages in the order in which they were made."""

    def __init__(self) -> None:
        self._sends: list[tuple[bytes, bytes]] = []

    def say(self, to: bytes, message: RoomMessage) -> None:
        """To one member."""
        self._sends.append((to, write_message(message)))

    def say_all(self, to: Iterable[bytes], message: RoomMessage) -> None:
        """To several: the same bytes object for each."""
        targets = list(to)
        if targets:
            data = write_message(message)
            self._sends += [(one, data) for one in targets]

    def take(self) -> list[tuple[bytes, bytes]]:
        """Member (32 B key) and message."""
        sends, self._sends = self._sends, []
        return sends
