"""What happens in a room, as the app is told, and the bounded queue in which it waits. No I/O, no clock."""

from collections import Counter, deque

import msgspec

from dht_atonce.config import RoomsConfig
from dht_atonce.identity import PeerId

__all__ = ["Entered", "EventQueue", "Left", "Missed", "RoomEvent", "Said", "Whispered"]


class Entered(msgspec.Struct, frozen=True, gc=False):
    """Somebody is in the room; again when it changed its name or came back."""

    peer: PeerId
    name: str
    """What it calls itself, at most 64 B; its own word, which nobody checks."""


class Left(msgspec.Struct, frozen=True, gc=False):
    """Somebody is not in the room any more."""

    peer: PeerId
    reason: str
    """`left`: it said so. `lost`: nobody can reach it. `silent`: nothing was heard of it for 25 minutes."""


class Said(msgspec.Struct, frozen=True, gc=False):
    """A shout. Its author is verified: by its link, or by its signature if others passed it on."""

    peer: PeerId
    data: bytes
    seq: int
    """Counts the author's shouts since it came in, from 1."""
    hops: int = 1
    """Over how many links it came; nobody vouches for it."""
    is_past: bool = False
    """It was said before we came in, and asked for by `last`."""


class Missed(msgspec.Struct, frozen=True, gc=False):
    """Shouts `first` to `first + count - 1` of this author are lost to us: nobody we know has them any more, or the app
    did not read its events in time. `first` 0: it were whispers."""

    peer: PeerId
    first: int
    count: int


class Whispered(msgspec.Struct, frozen=True, gc=False):
    """Something that a peer who knows the room said to us alone."""

    peer: PeerId
    data: bytes


RoomEvent = Entered | Left | Said | Missed | Whispered


class EventQueue:
    """Events that wait for the app. What finds no room is counted, and told as `Missed` where it would have stood."""

    def __init__(self, config: RoomsConfig, counters: Counter[str]) -> None:
        self._config = config
        self._counters = counters
        self._events: deque[RoomEvent] = deque()
        self._bytes = 0
        # What is lost of whom since the queue was full: (whether whispers), first and count
        self._lost: dict[tuple[PeerId, bool], Missed] = {}

    def __len__(self) -> int:
        return len(self._events) + len(self._lost)

    def put(self, event: RoomEvent) -> None:
        """Add an event."""
        if isinstance(event, Entered | Left):
            if len(self._events) < 2 * self._config.events:
                self._events.append(event)
            else:  # `members` tells how it is; how it came to be is lost
                self._counters["rooms.events_dropped"] += 1
            return
        key = event.peer, isinstance(event, Whispered)
        is_full = len(self._events) >= self._config.events or self._bytes >= self._config.event_bytes
        lost = self._lost.get(key)
        if lost is None and not is_full:
            self._events.append(event)
            if not isinstance(event, Missed):
                self._bytes += len(event.data)
            return
        count = 1
        if isinstance(event, Missed):
            first, count = event.first, event.count
        else:
            first = event.seq if isinstance(event, Said) else 0
            self._counters["rooms.overflow"] += 1
        if lost is None:
            self._lost[key] = Missed(event.peer, first, count)
        else:
            self._lost[key] = Missed(event.peer, lost.first, lost.count + count)

    def take(self) -> RoomEvent | None:
        """The next event, None if there is none."""
        if not self._events and not self._lost:
            return None
        if self._lost and len(self._events) <= self._config.events // 2:
            self._events.extend(self._lost.values())
            self._lost = {}
        event = self._events.popleft()
        if isinstance(event, Said | Whispered):
            self._bytes -= len(event.data)
        return event
