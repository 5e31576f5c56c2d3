"""`Room`: one room as the app sees it, and the thin shell around its machine."""

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from dht_atonce.config import NetworkConfig, RoomsConfig
from dht_atonce.errors import AtOnceError, MessageTooLarge, PeerClosed, PeerIdError, PeerUnknown, QueueFull
from dht_atonce.identity import Identity, PeerId
from dht_atonce.messaging.frames import Kind
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.messaging.receipts import Receipt, State
from dht_atonce.rooms.events import EventQueue, RoomEvent
from dht_atonce.rooms.machine import RoomMachine
from dht_atonce.rooms.wire import Mode, RoomMessage, Whisper, write_message
from dht_atonce.tasks import TaskGroup

__all__ = ["Ground", "Room"]

_UNACKNOWLEDGED = 512  # shouts that may be under way before the next one waits
_WAIT_S = 1.0  # for the slowest member: then it has to repair
_YIELD_EVERY = 32
_PACE_S = 0.01
_ENTER_S = 20.0
_ANNOUNCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What rooms stand on."""

    identity: Identity
    network: NetworkConfig
    rng: random.Random
    counters: Counter[str]
    wall: Callable[[], float]
    """Unix seconds."""
    announce: Callable[[str], Awaitable[object]]
    """Have the DHT list us under a topic."""
    withdraw: Callable[[str], Awaitable[object]]
    members: Callable[[str, int], Awaitable[list[PeerId]]]
    """A random sample of whom the DHT lists under a topic."""
    is_guest: bool = False
    """We take part without being found."""


class Room:
    """A room that we are in, from `async with peer.join("room") as room:` on until the end of the block.

    Built by `Peer.join` only.
    """

    def __init__(
        self,
        topic: str,
        machine: RoomMachine,
        ground: Ground,
        messenger: Messenger,
        config: RoomsConfig,
        on_end: "Callable[[Room], None]",
        on_post: Callable[[PeerId], None],
    ) -> None:
        self.topic = topic
        """The room's name."""
        self.machine = machine
        self._ground = ground
        self._messenger = messenger
        self._config = config
        self._on_end = on_end
        self._on_post = on_post
        self._queue = EventQueue(config, ground.counters)
        self._arrived = asyncio.Event()
        self._came_in = asyncio.Event()
        self._left = False
        self._shouts: deque[list[Receipt]] = deque()
        self._said = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._tasks = TaskGroup()
        self._loop = asyncio.get_running_loop()

    # --- life ---

    async def __aenter__(self) -> Self:
        await self.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    async def enter(self) -> None:
        """Come in: find a member, learn who is there, and be found by who comes later. Nobody there is no error."""
        announcing = None
        try:
            if not self.machine.is_guest:
                announcing = self._tasks.start(self._announce(), f"announce {self.topic}")
            sample = await self._sample()
            self._candidates(sample)
            try:
                async with asyncio.timeout(_ENTER_S):
                    await self._came_in.wait()
            except TimeoutError:
                self._candidates([])  # none of them lets us in: as if nobody were there
            self.connect_all()
            if announcing is not None:
                await asyncio.wait([announcing], timeout=_ANNOUNCE_S)
            if not self.machine.is_guest:
                self._tasks.start(self._look_around(), f"look around in {self.topic}")
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        """Say goodbye and forget the room. Takes at most half a second; may be called twice."""
        if self._left:
            return
        await self.flush(self._config.leave_s / 2)
        self.machine.leave(self._loop.time(), self._ground.wall())
        self._pump()
        self._left = True
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.aclose()
        self._on_end(self)
        self._arrived.set()
        if not self.machine.is_guest:
            with contextlib.suppress(TimeoutError, AtOnceError):
                async with asyncio.timeout(self._config.leave_s / 2):
                    await self._ground.withdraw(self.topic)

    # --- the app's side ---

    @property
    def is_tree(self) -> bool:
        """Whether our shouts go through a tree of neighbours; else to each member directly."""
        return self.machine.mode == Mode.TREE

    def members(self) -> dict[PeerId, str]:
        """Who is here besides us, and what each calls itself."""
        roster = self.machine.gossip.roster
        return {PeerId(member): roster.name(member) or "" for member in roster.keys()}  # noqa: SIM118 # no dict

    async def events(self) -> AsyncIterator[RoomEvent]:
        """What happens here, as it comes: `Entered`, `Left`, `Said`, `Missed`, `Whispered`. Ends when we leave.

        Who was here before us has `Entered` too. Several readers share the events out.
        """
        while True:
            while (event := self._queue.take()) is not None:
                yield event
            if self._left:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def shout(self, data: bytes) -> int:
        """Say something (at most 59,000 B) to everybody in the room. Gives its number: 1 for our first.

        Returns when it is on its way; `flush` waits until those to whom we sent it have it. Waits while many of ours
        are under way, and in a tree keeps to 90 a second in the long run. Raises `MessageTooLarge`, `PeerClosed`.
        """
        if len(data) > self._config.max_shout_bytes:
            limit = self._config.max_shout_bytes
            raise MessageTooLarge(f"a shout has at most {limit} bytes, this has {len(data)}")
        self._check_open()
        shouts = self._shouts
        while shouts and all(receipt.state is not State.QUEUED for receipt in shouts[0]):
            # Sent is enough here: what is lost with its link is sent again, or repaired.
            shouts.popleft()
        if len(shouts) > _UNACKNOWLEDGED:
            await _settled(shouts.popleft(), _WAIT_S)
        while not self.machine.gossip.may_shout(self._loop.time()):  # noqa: ASYNC110 # only time makes room
            await asyncio.sleep(_PACE_S)
        self._said += 1
        if self._said % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
        self._check_open()
        seq = self.machine.shout(data, self._loop.time())
        if receipts := self._pump():
            shouts.append(receipts)
        return seq

    async def whisper(self, to: PeerId | str, data: bytes) -> None:
        """Say something (at most 59,000 B) to one member; returns when it is in its queue of events.

        Raises `PeerIdError`, `PeerUnknown` for who is not here, `MessageTooLarge`, and as `Peer.send`.
        """
        peer_id = to if isinstance(to, PeerId) else PeerId.parse(to)
        if len(data) > self._config.max_shout_bytes:
            limit = self._config.max_shout_bytes
            raise MessageTooLarge(f"a whisper has at most {limit} bytes, this has {len(data)}")
        self._check_open()
        if peer_id.key not in self.machine.gossip.roster:
            raise PeerUnknown(f"{peer_id.short}… is not in the room {self.topic!r}")
        whisper = write_message(Whisper(self.machine.room, data))
        self._on_post(peer_id)
        await self._messenger.post(peer_id, whisper, kind=Kind.ROOM)

    async def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until those to whom we sent our shouts have them; whether each of the last 512 reached one at least."""
        receipts = [receipt for shout in self._shouts for receipt in shout]
        await _settled(receipts, timeout_s)
        reached = all(any(receipt.state is State.DELIVERED for receipt in shout) for shout in self._shouts)
        self._shouts.clear()
        return reached

    # --- inputs, from `Rooms` ---

    def on_message(self, sender: PeerId, message: RoomMessage) -> None:
        """A message for this room."""
        self.machine.on_message(sender.key, message, self._loop.time(), self._ground.wall())

    def on_linked(self, peer: PeerId) -> None:
        """There is a link."""
        self.machine.on_linked(peer.key)

    def on_unlinked(self, peer: PeerId) -> None:
        """There is none any more, or none could be had."""
        self.machine.on_unlinked(peer.key, self._loop.time(), self._ground.wall())
        self._pump()

    def pump(self) -> None:
        """Do what the machine wants after messages."""
        self._pump()

    def connect_all(self) -> None:
        """In a direct room: have links to all, so that nobody's first shout waits for one."""
        if not self.is_tree and not self._left:
            for key in self.machine.wanted():
                if self._ground.identity.id.key < key:  # of two that want the same link one dials
                    with contextlib.suppress(PeerIdError):
                        peer_id = PeerId(key)
                        if self._messenger.record_of(peer_id) is None:
                            self._on_post(peer_id)
                            self._messenger.connect(peer_id)

    # --- inside ---

    def _check_open(self) -> None:
        if self._left:
            raise PeerClosed(f"the room {self.topic!r} was left")

    def _candidates(self, sample: list[PeerId]) -> None:
        keys = [peer.key for peer in sample]
        self.machine.on_candidates(keys, self._loop.time(), self._ground.wall())
        self._pump()

    async def _announce(self) -> None:
        with contextlib.suppress(AtOnceError):  # published again by the node, and others may find each other meanwhile
            await self._ground.announce(self.topic)

    async def _sample(self) -> list[PeerId]:
        try:
            return await self._ground.members(self.topic, self._config.sample)
        except AtOnceError:
            return []

    async def _look_around(self) -> None:
        """Find others while we are alone, and now and then members whom we do not know."""
        config, rng = self._config, self._ground.rng
        pause_s = config.search_s
        while True:
            await asyncio.sleep(pause_s * (0.75 + 0.5 * rng.random()))
            self._candidates(await self._sample())
            # Who came at the same time as others may have formed a room beside theirs: that shows soon.
            pause_s = min(2 * pause_s, config.search_max_s if self.machine.is_alone else config.island_s)

    def _pump(self) -> list[Receipt]:
        """Send, tell the app, set the timer."""
        receipts: list[Receipt] = []
        for key, data in self.machine.outbox.take():
            try:
                peer_id = PeerId(key)
                self._on_post(peer_id)
                receipts.append(self._messenger.post(peer_id, data, kind=Kind.ROOM))
            except PeerIdError:
                self._ground.counters["rooms.bad_key"] += 1
                self._loop.call_soon(self._on_bad_key, key)
            except QueueFull:
                self._ground.counters["rooms.queue_full"] += 1  # it will repair
            except PeerClosed:
                break
        for event in self.machine.take_events():
            self._queue.put(event)
            self._arrived.set()
        if self.machine.is_in:
            self._came_in.set()
        self._arm()
        return receipts

    def _on_bad_key(self, key: bytes) -> None:
        if not self._left:
            self.machine.on_unlinked(key, self._loop.time(), self._ground.wall())
            self._pump()

    def _arm(self) -> None:
        deadline = self.machine.deadline
        if deadline == float("inf") or self._left or (self._timer is not None and self._timer_at <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self.machine.deadline <= now:
            self.machine.on_time(now, self._ground.wall())
        self._pump()


async def _settled(receipts: list[Receipt], timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            for receipt in receipts:
                with contextlib.suppress(AtOnceError):
                    await receipt
