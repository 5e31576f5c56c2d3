"""What takes messages of one kind out of frames."""

from collections.abc import Callable
from typing import Protocol

from dht_atonce.identity import PeerId

__all__ = ["Service"]


class Service(Protocol):
    """One for each `Kind`. Neither method raises: what a stranger says is dropped and counted."""

    def room(self, sender: PeerId) -> int:
        """How many more messages `sender` may send now. Those beyond it are not acknowledged, and hold up all that
        the sender says behind them."""

    def take(self, sender: PeerId, messages: list[bytes], confirm: Callable[[], None]) -> bool:
        """Take messages, in order. True: they are acknowledged now. False: when `confirm` is called."""
