"""Watching peers: links with heartbeats to some of them, the DHT's watch for all, and one `Sight` for each."""

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from dht_atonce.config import PresenceConfig
from dht_atonce.dht.node import DhtNode, KeyChange
from dht_atonce.errors import PeerClosed, QueueFull
from dht_atonce.identity import PeerId
from dht_atonce.messaging.linking import Ended
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.presence.sight import PresenceChange, PresenceEvent, Sight
from dht_atonce.records import PresenceRecord, presence_key
from dht_atonce.tasks import TaskGroup

__all__ = ["PresenceWatch", "PresenceWatcher"]


class PresenceWatch:
    """The presence of one peer, as it changes. Built by `Peer.watch` only.

        async with peer.watch(friend) as watch:
            async for event in watch:
                print(event.change, event.status)

    The first event says how it is when that is known. Who reads slowly sees the newest 64.
    """

    def __init__(self, watcher: "PresenceWatcher", peer: PeerId) -> None:
        self.peer = peer
        self.events: deque[PresenceEvent] = deque(maxlen=64)
        self._watcher = watcher
        self._woken = asyncio.Event()
        self._is_closed = False

    async def __aenter__(self) -> Self:
        self._watcher.open(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._watcher.closed(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PresenceEvent:
        while not self.events:
            if self._is_closed:
                raise StopAsyncIteration
            self._woken.clear()
            await self._woken.wait()
        return self.events.popleft()

    def put(self, event: PresenceEvent) -> None:
        """Something happened."""
        self.events.append(event)
        self._woken.set()

    def close(self) -> None:
        """Nothing more happens."""
        self._is_closed = True
        self._woken.set()


class _Watched:
    """A peer that is watched, and by whom."""

    __slots__ = ("backoff_s", "has_link_seat", "retry", "sight", "task", "timer", "watches")

    def __init__(self, sight: Sight) -> None:
        self.sight = sight
        self.watches: dict[PresenceWatch, None] = {}
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.retry: asyncio.TimerHandle | None = None
        self.has_link_seat = False
        """Whether a link to it is kept."""
        self.backoff_s = 0.0


class PresenceWatcher:
    """A `Feature` of a peer. `started` is awaited before anything is asked."""

    def __init__(self, started: asyncio.Event, config: PresenceConfig | None = None) -> None:
        self._config = config or PresenceConfig()
        self._started = started
        self._watched: dict[PeerId, _Watched] = {}
        self._links = 0
        self._node: DhtNode | None = None
        self._messenger: Messenger | None = None
        self._tasks = TaskGroup()
        self._closed = False

    # --- life ---

    def start(self, node: DhtNode, messenger: Messenger) -> None:
        """Of `Feature`."""
        self._node, self._messenger = node, messenger
        messenger.when_linked.append(self._on_linked)
        messenger.when_unlinked.append(self._on_unlinked)

    async def aclose(self) -> None:
        """Of `Feature`: all watches end."""
        self._closed = True
        for watched in self._watched.values():
            self._forget_timers(watched)
            for watch in watched.watches:
                watch.close()
        self._watched.clear()
        await self._tasks.aclose()

    # --- watches ---

    def watch(self, peer: PeerId) -> PresenceWatch:
        """As `Peer.watch`."""
        return PresenceWatch(self, peer)

    def open(self, watch: PresenceWatch) -> None:
        """Begin to watch. Raises `PeerClosed`, and `QueueFull` beyond `max_watched` peers."""
        if self._closed:
            raise PeerClosed("this peer is closed")
        watched = self._watched.get(watch.peer)
        if watched is None:
            if len(self._watched) >= self._config.max_watched:
                raise QueueFull(f"{self._config.max_watched} peers are watched already")
            watched = self._watched[watch.peer] = _Watched(Sight(watch.peer, self._config))
            watched.task = self._tasks.start(self._run(watched), f"watch {watch.peer.short}")
        elif watched.sight.state is not None:
            watch.put(watched.sight.event(PresenceChange(watched.sight.state.value)))
        watched.watches[watch] = None

    def closed(self, watch: PresenceWatch) -> None:
        """Nobody reads `watch` any more."""
        watched = self._watched.get(watch.peer)
        if watched is None:
            return
        watched.watches.pop(watch, None)
        if not watched.watches:
            del self._watched[watch.peer]
            self._forget_timers(watched)
            if watched.has_link_seat:
                self._links -= 1
                self._give_seats()
            if watched.task is not None:
                watched.task.cancel()

    # --- inside ---

    async def _run(self, watched: _Watched) -> None:
        """Follow one peer's record, and have a link to it if there is a seat for one."""
        await self._started.wait()
        node, messenger = self._node, self._messenger
        if node is None or messenger is None:
            return
        sight = watched.sight
        record = messenger.record_of(sight.peer)
        if record is not None:
            self._tell(watched, sight.on_linked(record, self._now()))
        self._seat(watched)
        async with node.watch(presence_key(node.shared.network, sight.peer)) as watch:
            async for event in watch:
                if not isinstance(event.record, PresenceRecord):
                    continue
                if event.change is KeyChange.EXPIRED:
                    self._tell(watched, sight.on_expired(self._now()))
                else:
                    self._tell(watched, sight.on_record(event.record, self._now()))
                    watched.backoff_s = 0.0
                    self._dial(watched)

    def _seat(self, watched: _Watched) -> None:
        if not watched.has_link_seat and self._links < self._config.max_links:
            watched.has_link_seat = True
            self._links += 1
            self._dial(watched)

    def _give_seats(self) -> None:
        for watched in self._watched.values():
            self._seat(watched)

    def _dial(self, watched: _Watched) -> None:
        if watched.has_link_seat and watched.sight.wants_link and self._messenger is not None:
            self._messenger.connect(watched.sight.peer)

    def _on_linked(self, peer: PeerId, record: PresenceRecord) -> None:
        watched = self._watched.get(peer)
        if watched is not None:
            watched.backoff_s = 0.0
            self._tell(watched, watched.sight.on_linked(record, self._now()))

    def _on_unlinked(self, peer: PeerId, ended: Ended) -> None:
        watched = self._watched.get(peer)
        if watched is None:
            return
        sight, now = watched.sight, self._now()
        if ended is Ended.LEFT:
            self._tell(watched, sight.on_left(now))
            return
        if ended is Ended.UNREACHABLE:
            self._tell(watched, sight.on_unreachable(now))
            config = self._config
            watched.backoff_s = min(max(2 * watched.backoff_s, config.retry_s), config.retry_max_s)
            self._later(watched, watched.backoff_s)
            return
        sight.on_lost(now)
        self._tell(watched, None)
        self._dial(watched)

    def _later(self, watched: _Watched, delay_s: float) -> None:
        if watched.retry is not None:
            watched.retry.cancel()
        watched.retry = asyncio.get_running_loop().call_later(delay_s, self._dial, watched)

    def _tell(self, watched: _Watched, event: PresenceEvent | None) -> None:
        """Hand on what happened, and see to the next deadline."""
        if event is not None:
            for watch in watched.watches:
                watch.put(event)
        if watched.timer is not None:
            watched.timer.cancel()
            watched.timer = None
        deadline = watched.sight.deadline
        if deadline != float("inf"):
            watched.timer = asyncio.get_running_loop().call_at(deadline, self._on_timer, watched)

    def _on_timer(self, watched: _Watched) -> None:
        watched.timer = None
        self._tell(watched, watched.sight.on_timer(self._now()))

    @staticmethod
    def _forget_timers(watched: _Watched) -> None:
        for timer in (watched.timer, watched.retry):
            if timer is not None:
                timer.cancel()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
