"""`Rooms`: all rooms of a peer. Hands each the messages that are for it, and keeps the links that they need."""

import asyncio
from collections.abc import Callable

from dht_atonce.codec import read_each
from dht_atonce.config import RoomsConfig
from dht_atonce.dht.node import DhtNode
from dht_atonce.endpoints import Address
from dht_atonce.errors import PeerClosed, PeerIdError
from dht_atonce.identity import PeerId
from dht_atonce.messaging.frames import Kind
from dht_atonce.messaging.linking import Ended
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.records import PresenceRecord, presence_key, topic_key
from dht_atonce.rooms.machine import RoomMachine
from dht_atonce.rooms.room import Ground, Room
from dht_atonce.rooms.wire import Digest, Disconnect, read_message, write_message
from dht_atonce.tasks import TaskGroup

__all__ = ["CAPABILITY", "Rooms", "verify"]

CAPABILITY = "room1"
"""What presence records of peers say that take part in rooms."""

_TIDY_S = 5.0
_MAX_TOPIC = 64


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the Ed25519 `signature` of the identity with this key over `message` is right."""
    try:
        return PeerId(key).verify(signature, message)
    except PeerIdError:
        return False


class Rooms:
    """The rooms of one peer, and the service for what members say."""

    def __init__(self, config: RoomsConfig | None = None) -> None:
        self._config = config or RoomsConfig()
        self._rooms: dict[bytes, Room] = {}
        self._ground: Ground | None = None
        self._messenger: Messenger | None = None
        self._verify: Callable[[bytes, bytes, bytes], bool] = verify
        self._session = 0
        self._dialled: dict[PeerId, float] = {}
        """Links that rooms caused, and when a room last wanted each."""
        self._tidying: asyncio.Task[None] | None = None
        self._tasks = TaskGroup()
        self._closed = False

    # --- life ---

    def start(self, node: DhtNode, messenger: Messenger) -> None:
        """Of `Feature`."""
        network = node.shared.network
        key = presence_key(network, node.identity.id)

        def endpoints() -> tuple[Address, ...]:
            own = node.own.get(key)
            record = own.record if own is not None else None
            return record.endpoints if isinstance(record, PresenceRecord) else ()

        async def members(topic: str, limit: int) -> list[PeerId]:
            return [record.peer_id for record in await node.members(topic, limit=limit)]

        ground = Ground(
            node.identity,
            network,
            node.shared.host.rng,
            messenger.counters,
            node.shared.wall,
            lambda topic: node.announce(topic, endpoints=endpoints()),
            node.withdraw,
            members,
            node.shared.no_seat,
        )
        self.begin(ground, messenger)

    def begin(
        self, ground: Ground, messenger: Messenger, verify: Callable[[bytes, bytes, bytes], bool] = verify
    ) -> None:
        """Take messages from now on."""
        self._ground, self._messenger, self._verify = ground, messenger, verify
        messenger.serve(Kind.ROOM, self)
        messenger.when_linked.append(self._on_linked)
        messenger.when_unlinked.append(self._on_unlinked)

    async def aclose(self) -> None:
        """Leave all rooms. Takes at most half a second."""
        self._closed = True
        await asyncio.gather(*(room.leave() for room in list(self._rooms.values())))
        await self._tasks.aclose()

    # --- the app's side ---

    def join(self, topic: str, *, name: str = "", last: int = 0, guest: bool = False) -> Room:
        """As `Peer.join`."""
        config = self._config
        if not 1 <= len(topic) <= _MAX_TOPIC:
            raise ValueError(f"a room's name has 1 to {_MAX_TOPIC} characters, this has {len(topic)}")
        if len(name.encode()) > config.max_name_bytes:
            raise ValueError(f"what a member calls itself has at most {config.max_name_bytes} bytes")
        if not 0 <= last <= config.max_last:
            raise ValueError(f"last: 0 to {config.max_last} shouts")
        ground, messenger = self._ground, self._messenger
        if ground is None or messenger is None or self._closed:
            raise PeerClosed("this peer is closed" if self._closed else "this peer is not in a network yet")
        key = topic_key(ground.network, topic)
        if key in self._rooms:
            raise ValueError(f"this peer is in the room {topic!r} already")
        if len(self._rooms) >= config.max_rooms:
            raise ValueError(f"a peer is in at most {config.max_rooms} rooms at a time")
        self._session = max(int(ground.wall() * 1_000_000), self._session + 1)
        machine = RoomMachine(
            ground.identity.id.key,
            key,
            ground.network.network_id,
            session=self._session,
            name=name,
            last=last,
            guest=guest or ground.is_guest,
            config=config,
            rng=ground.rng,
            sign=ground.identity.sign,
            verify=self._verify,
            counters=ground.counters,
        )
        room = Room(topic, machine, ground, messenger, config, self._on_end, self._on_post)
        if self._tidying is None or self._tidying.done():
            self._tidying = self._tasks.start(self._tidy_regularly(), "tidy links of rooms")
        self._rooms[key] = room
        return room

    # --- of `Service` ---

    def room(self, sender: PeerId) -> int:
        """What a room's app does not read in time it misses; it holds up nobody."""
        assert self._messenger is not None
        return self._messenger.config.window_messages

    def take(self, sender: PeerId, messages: list[bytes]) -> None:
        """Messages of a peer."""
        assert self._messenger is not None
        counters = self._messenger.counters
        touched: dict[Room, None] = {}
        for message in read_each(read_message, messages, counters, "rooms.bad_message"):
            room = self._rooms.get(message.room)
            if room is not None:
                room.on_message(sender, message)
                touched[room] = None
                continue
            counters["rooms.not_here"] += 1
            if isinstance(message, Digest):  # it takes us for a neighbour, and we have left
                self._messenger.post(sender, write_message(Disconnect(message.room, True)), kind=Kind.ROOM)
        for room in touched:
            room.pump()

    # --- links ---

    def _on_linked(self, peer: PeerId, record: PresenceRecord) -> None:
        serves = not record.capabilities or CAPABILITY in record.capabilities
        for room in list(self._rooms.values()):
            room.on_linked(peer) if serves else room.on_unlinked(peer)

    def _on_unlinked(self, peer: PeerId, _: Ended) -> None:
        for room in list(self._rooms.values()):
            room.on_unlinked(peer)

    def _on_post(self, peer: PeerId) -> None:
        """A message to a peer will dial it if there is no link."""
        assert self._messenger is not None
        if peer not in self._dialled and self._messenger.record_of(peer) is None:
            self._dialled[peer] = asyncio.get_running_loop().time()

    def _on_end(self, room: Room) -> None:
        self._rooms.pop(room.machine.room, None)

    async def _tidy_regularly(self) -> None:
        """End links that no room wants any more; until there is none to end."""
        assert self._messenger is not None
        loop = asyncio.get_running_loop()
        while self._rooms or self._dialled:
            await asyncio.sleep(_TIDY_S)
            now = loop.time()
            for room in self._rooms.values():
                room.connect_all()
            wanted = {key for room in self._rooms.values() for key in room.machine.wanted()}
            for peer, wanted_at in list(self._dialled.items()):
                if peer.key in wanted:
                    self._dialled[peer] = now
                elif wanted_at <= now - self._config.linger_s:
                    del self._dialled[peer]
                    self._messenger.disconnect(peer)
