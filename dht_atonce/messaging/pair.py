"""What there is between us and one other peer."""

import asyncio
from math import inf

from dht_atonce.config import MessagingConfig
from dht_atonce.identity import PeerId
from dht_atonce.links import Link
from dht_atonce.messaging.delivery import Delivery, Memory
from dht_atonce.messaging.inflow import Room
from dht_atonce.records import PresenceRecord

__all__ = ["Pair", "PeerLink"]


class PeerLink:
    """A link, and what we know of who is at its other end."""

    __slots__ = ("greeted", "link", "pair", "since", "timer", "used_at")

    def __init__(self, link: Link, greeted: "asyncio.Future[None] | None") -> None:
        self.link = link
        self.greeted = greeted
        """Of a link that we dialled: done when its HELLO came."""
        self.pair: Pair | None = None
        """Known from HELLO on."""
        self.timer: asyncio.TimerHandle | None = None
        self.since = self.used_at = 0.0
        """When it passed HELLO, and when something was last said over it; monotonic seconds."""


class Pair:
    """The delivery with one peer, and the link over which it runs."""

    __slots__ = (
        "ack_waits",
        "delivery",
        "dial_task",
        "flushing",
        "link",
        "now",
        "outflow",
        "peer_id",
        "record",
        "retry",
        "room",
        "spare",
        "timer",
        "timer_at",
    )

    def __init__(
        self, peer_id: PeerId, config: MessagingConfig, own_incarnation: bytes, memory: Memory | None, room: Room
    ) -> None:
        self.peer_id = peer_id
        self.room = room
        """For messages from this peer."""
        self.delivery = Delivery(config, own_incarnation, memory)
        self.outflow = self.delivery.outflow
        self.record: PresenceRecord | None = None
        """From its last HELLO."""
        self.link: PeerLink | None = None
        """The one that is used; it passed HELLO."""
        self.spare: PeerLink | None = None
        """A second one, when both of us dialled in the same moment: it will be closed."""
        self.dial_task: asyncio.Task[None] | None = None
        self.ack_waits = False
        """Whether an acknowledgement waits for others."""
        self.flushing = False
        self.now = 0.0
        """When something to be flushed came first since the last flush; monotonic seconds."""
        self.timer: asyncio.TimerHandle | None = None
        self.timer_at = inf
        self.retry: asyncio.TimerHandle | None = None
        """Until a link is tried again whose queue was full."""

    def is_linked(self) -> bool:
        """Whether there is a link; a call, since it changes while others are waited for."""
        return self.link is not None

    @property
    def is_idle(self) -> bool:
        """Whether all that is to be remembered of it is where it stands."""
        return self.link is None and self.spare is None and self.dial_task is None and self.delivery.is_idle
