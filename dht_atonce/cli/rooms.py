"""The rooms that a running process is in for those who ask through its control socket."""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from dht_atonce.errors import ControlError, DeliveryUnknown, PeerUnknown
from dht_atonce.peer import Peer
from dht_atonce.rooms.events import Entered, Left, Missed, RoomEvent, Said, Whispered
from dht_atonce.rooms.room import Room
from dht_atonce.tasks import TaskGroup

__all__ = ["RoomKeeper", "describe"]

_WAIT_S = 20.0  # for something to happen, before a listener is told that nothing did
_LEASE_S = 60.0  # a listener that has not asked for so long is gone
_LOOK_S = 10.0
_MAX_LISTENERS = 64
_MAX_EVENTS = 2048  # that wait for one listener
_MAX_BYTES = 16 << 20
_BATCH_BYTES = 150_000  # of one answer, in base64: a line has at most 256 KiB
_FLUSH_S = 10.0


def describe(event: RoomEvent) -> dict[str, Any]:
    """An event in words and numbers."""
    peer = str(event.peer)
    match event:
        case Entered():
            return {"event": "entered", "peer": peer, "name": event.name}
        case Left():
            return {"event": "left", "peer": peer, "reason": event.reason}
        case Said():
            return {"event": "said", "sender": peer, "data": event.data, "seq": event.seq, "past": event.is_past}
        case Missed():
            return {"event": "missed", "peer": peer, "first": event.first, "count": event.count}
        case Whispered():
            return {"event": "whispered", "sender": peer, "data": event.data}


class _Listener:
    """Events that wait for somebody who asks."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.asked_at = time.monotonic()
        self.arrived = asyncio.Event()
        self._events: deque[dict[str, Any]] = deque()
        self._bytes = 0
        self._left_out = 0

    def put(self, event: dict[str, Any]) -> None:
        size = len(event.get("data", b""))
        if len(self._events) >= _MAX_EVENTS or self._bytes + size > _MAX_BYTES:
            self._left_out += 1
        else:
            self._events.append(event)
            self._bytes += size
        self.arrived.set()

    def take(self) -> list[dict[str, Any]]:
        """As many as fit into one answer."""
        taken: list[dict[str, Any]] = []
        size = 0
        while self._events and size < _BATCH_BYTES - 100_000:
            event = self._events.popleft()
            self._bytes -= len(event.get("data", b""))
            size += 4 * len(event.get("data", b"")) // 3 + 300
            taken.append(event)
        if not self._events:
            self.arrived.clear()
            if self._left_out:
                taken.append({"event": "left_out", "events": self._left_out})
                self._left_out = 0
        return taken


class RoomKeeper:
    """Is in a room for as long as anybody listens, and for a moment where somebody only says something."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._rooms: dict[str, Room] = {}
        self._listeners: dict[str, _Listener] = {}
        self._coming = asyncio.Lock()
        self._tasks = TaskGroup()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.aclose()  # the peer leaves its rooms itself when it is closed

    async def notify(self, topic: str, data: bytes) -> int:
        """Say `data` to all in the room; gives how many there are. Raises `PeerUnknown` if nobody is there,
        `DeliveryUnknown` if nobody acknowledged it, and as `Room.shout`."""
        async with self._coming:
            room = self._rooms.get(topic)
            if room is not None:
                return await self._say(room, data)
            async with self._peer.join(topic, guest=True) as guest:
                return await self._say(guest, data)

    async def hear(self, topic: str, name: str, last: int, *, waits: bool) -> list[dict[str, Any]]:
        """What happened since this listener asked last; if it `waits` and nothing does for a while, nothing."""
        listener = self._listeners.get(name)
        if listener is None or listener.topic != topic:
            if len(self._listeners) >= _MAX_LISTENERS:
                raise ControlError("this process serves as many listeners as it can; try again later")
            listener = self._listeners[name] = _Listener(topic)
        async with self._coming:
            await self._enter(topic, last)
        try:
            async with asyncio.timeout(_WAIT_S if waits else 0):
                await listener.arrived.wait()
        except TimeoutError:
            pass
        finally:
            listener.asked_at = time.monotonic()
        return listener.take()

    # --- inside ---

    async def _say(self, room: Room, data: bytes) -> int:
        members = len(room.members())
        if not members:
            raise PeerUnknown(f"nobody is in the room {room.topic!r}")
        await room.shout(data)
        if not await room.flush(_FLUSH_S):
            raise DeliveryUnknown(f"nobody in the room {room.topic!r} acknowledged it")
        return members

    async def _enter(self, topic: str, last: int) -> None:
        if topic in self._rooms:
            return
        room = self._peer.join(topic, last=last)
        await room.enter()
        if not self._rooms:
            self._start(self._look_regularly(), "look after listeners")
        self._rooms[topic] = room
        self._start(self._distribute(room), f"events of {topic}")

    def _start(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.start(coroutine, name)

    async def _distribute(self, room: Room) -> None:
        async for event in room.events():
            described = describe(event)
            for listener in self._listeners.values():
                if listener.topic == room.topic:
                    listener.put(described)

    async def _look_regularly(self) -> None:
        """Leave the rooms in which nobody listens any more; until there is none left."""
        while self._rooms:
            await asyncio.sleep(_LOOK_S)
            gone_at = time.monotonic() - _LEASE_S
            for name, listener in list(self._listeners.items()):
                if listener.asked_at < gone_at:
                    del self._listeners[name]
            heard = {listener.topic for listener in self._listeners.values()}
            for topic in [topic for topic in self._rooms if topic not in heard]:
                async with self._coming:
                    await self._rooms.pop(topic).leave()
