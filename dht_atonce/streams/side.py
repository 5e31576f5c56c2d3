"""What `Streams` keeps of each other peer: its machine, and what the delivery has in hand."""

import asyncio
from collections import deque
from typing import Final

from dht_atonce.identity import PeerId
from dht_atonce.messaging.receipts import Receipt
from dht_atonce.streams.mux import Mux, Post

__all__ = ["Posted", "Side", "keep_heap"]

_LARGE_BLOCK: Final = 8 << 20


class Posted:
    """A message in the hands of the delivery."""

    __slots__ = ("at", "post", "receipt")

    def __init__(self, post: Post, receipt: Receipt, at: float) -> None:
        self.post = post
        self.receipt = receipt
        self.at = at

    @property
    def is_delivered(self) -> bool:
        return self.receipt.index < self.receipt.batch.settled


class Side:
    """Our side of all streams with one peer."""

    __slots__ = ("again", "incarnation", "lost_at", "mux", "pause_s", "peer_id", "posted", "pumping", "timer", "why")

    def __init__(self, peer_id: PeerId, mux: Mux, pause_s: float) -> None:
        self.peer_id = peer_id
        self.mux = mux
        self.posted: deque[Posted] = deque()
        self.again: deque[Post] = deque()
        """What was posted and did not leave: it goes first when there is a link."""
        self.pumping = False
        self.incarnation = b""
        """Of the process at the other end of the last link."""
        self.lost_at: float | None = None
        """Since when there is no link."""
        self.pause_s = pause_s
        self.timer: asyncio.TimerHandle | None = None
        self.why = ""


def keep_heap() -> None:
    """Have malloc keep what it is given back, which costs a fifth of a transfer otherwise: glibc returns the top of the
    heap above twice the largest block that it ever mapped (128 KiB at first), and gets it again, page by page, for the
    next frame. So it is shown a large block, which is never touched."""
    bytes(_LARGE_BLOCK)
