"""Rooms in the virtual world: people of a `Town` who find each other through a topic."""

import asyncio
import random
from collections import Counter
from typing import Any

from support_peers import NETWORK, Person, Town

from dht_atonce.config import RoomsConfig
from dht_atonce.identity import PeerId
from dht_atonce.records import topic_key
from dht_atonce.rooms.events import Entered, Left, Missed, RoomEvent, Said, Whispered
from dht_atonce.rooms.room import Ground, Room
from dht_atonce.rooms.rooms import Rooms, verify

TOPIC = "room"
ROOM = topic_key(NETWORK, TOPIC)


class Hall:
    """A town, and what its DHT knows of topics."""

    def __init__(self, town: Town, config: RoomsConfig | None = None) -> None:
        self.town = town
        self.config = config
        self.listed: dict[str, dict[PeerId, None]] = {}
        self.members: list[Member] = []
        self.rng = random.Random(7)

    async def sample(self, topic: str, limit: int) -> list[PeerId]:
        await asyncio.sleep(0.05)
        listed = list(self.listed.get(topic, ()))
        return self.rng.sample(listed, min(limit, len(listed)))

    async def member(self, number: int, topic: str = TOPIC, **options: Any) -> "Member":
        """Somebody who is in the room."""
        member = self.outside(number, **options)
        await member.join(topic)
        return member

    def outside(self, number: int, **options: Any) -> "Member":
        """Somebody who is not in the room yet."""
        member = Member(self, self.town.person(number), **options)
        self.members.append(member)
        return member

    async def aclose(self) -> None:
        for member in self.members:
            await member.rooms.aclose()


class Member:
    """Somebody with rooms, who notes all events."""

    def __init__(self, hall: Hall, person: Person, *, guest: bool = False, name: str = "", last: int = 0) -> None:
        self.hall = hall
        self.person = person
        self.id = person.id
        self.name = name
        self.last = last
        self.rooms = Rooms(hall.config)
        self.events: list[RoomEvent] = []
        self.room: Room
        self._reader: asyncio.Task[None]

        async def announce(topic: str) -> None:
            hall.listed.setdefault(topic, {})[person.id] = None

        async def withdraw(topic: str) -> None:
            hall.listed.get(topic, {}).pop(person.id, None)

        ground = Ground(
            person.identity,
            NETWORK,
            random.Random(person.id.key),
            person.counters,
            person.host.clock.wall,
            announce,
            withdraw,
            hall.sample,
            guest,
        )
        self.rooms.begin(ground, person.messenger, verify_once)

    @property
    def counters(self) -> Counter[str]:
        return self.person.counters

    async def join(self, topic: str = TOPIC) -> None:
        self.room = self.rooms.join(topic, name=self.name, last=self.last)
        self._reader = asyncio.create_task(self._read(), name="reader of a room")
        await self.room.enter()

    async def _read(self) -> None:
        async for event in self.room.events():
            self.events.append(event)

    @property
    def said(self) -> list[tuple[PeerId, bytes]]:
        return [(event.peer, event.data) for event in self.events if isinstance(event, Said)]

    def heard(self, other: "Member") -> list[bytes]:
        """What `other` shouted, as we heard it."""
        return [data for peer, data in self.said if peer == other.id]

    def of(self, kind: type[Entered | Left | Missed | Whispered]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def links(self) -> int:
        """How many links we have."""
        return sum(pair.link is not None for pair in self.person.messenger._pairs.values())


_verified: dict[tuple[bytes, bytes, bytes], bool] = {}


def verify_once(key: bytes, signature: bytes, message: bytes) -> bool:
    """As each of a thousand members does, but computed once for all of them."""
    question = key, signature, message
    if question not in _verified:
        if len(_verified) > 50_000:
            _verified.clear()
        _verified[question] = verify(key, signature, message)
    return _verified[question]
