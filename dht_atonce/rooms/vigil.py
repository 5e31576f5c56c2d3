"""Who can still be reached: neighbours, whose silence tells, and others, whom we try now and then. No I/O, no clock."""

from dht_atonce.config import RoomsConfig

__all__ = ["Vigil"]


class Vigil:
    """When each was heard of last, whose link broke, and whom we try to reach."""

    def __init__(self, config: RoomsConfig) -> None:
        self._config = config
        self._heard: dict[bytes, float] = {}
        """When each neighbour was heard of last."""
        self._broken: dict[bytes, float] = {}
        """Neighbours whose link broke, and until when it may come back."""
        self._probed: dict[bytes, float] = {}
        """Members that we try to reach only to know whether they are there, and since when."""

    # --- getters ---

    @property
    def deadline(self) -> float:
        """When the first link that broke may not come back any more."""
        return min(self._broken.values(), default=float("inf"))

    def is_broken(self, peer: bytes) -> bool:
        """Whether it is a neighbour whose link may come back."""
        return peer in self._broken

    def is_probed(self, peer: bytes) -> bool:
        """Whether we try to reach it."""
        return peer in self._probed

    def lost(self, now: float) -> list[bytes]:
        """Neighbours whose link did not come back."""
        return [peer for peer, until in self._broken.items() if until <= now]

    def silent(self, now: float) -> list[bytes]:
        """Neighbours of whom nothing is heard, though their link lives."""
        return [peer for peer, heard_at in self._heard.items() if heard_at < now - self._config.silent_s]

    # --- inputs ---

    def on_up(self, peer: bytes, now: float) -> None:
        """A neighbour more."""
        self._heard[peer] = now

    def on_down(self, peer: bytes) -> None:
        """A neighbour less."""
        self._heard.pop(peer, None)
        self._broken.pop(peer, None)

    def on_heard(self, peer: bytes, now: float) -> None:
        """Somebody said something."""
        if peer in self._heard:
            self._heard[peer] = now

    def on_broken(self, peer: bytes, now: float) -> None:
        """A neighbour's link broke."""
        self._broken[peer] = now + self._config.lost_s

    def on_probe(self, peer: bytes, now: float) -> None:
        """Somebody is about to be tried."""
        self._probed = {one: at for one, at in self._probed.items() if at > now - self._config.neighbour_s}
        self._probed[peer] = now

    def on_answered(self, peer: bytes) -> None:
        """There is a link to it, or none can be had: we know."""
        self._broken.pop(peer, None)
        self._probed.pop(peer, None)
