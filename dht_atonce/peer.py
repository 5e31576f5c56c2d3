"""`Peer`: what an app uses."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from dht_atonce.config import MessagingConfig, NetworkConfig
from dht_atonce.dht.node import DhtNode, FindResult, PublishResult
from dht_atonce.discovery.ladder import Entry
from dht_atonce.endpoints import SeedUrl
from dht_atonce.errors import PeerClosed, PeerIdError, PeerOffline, PeerUnknown
from dht_atonce.host import Host
from dht_atonce.identity import PeerId
from dht_atonce.listening import ANYWHERE
from dht_atonce.membership import Listening, Membership, OnEvent
from dht_atonce.messaging.curve import system_host
from dht_atonce.messaging.inbox import Message
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.messaging.receipts import Receipt
from dht_atonce.profile import Profile
from dht_atonce.records import GONE, PresenceRecord, presence_key
from dht_atonce.rooms.room import Room
from dht_atonce.rooms.rooms import Rooms

__all__ = ["Peer"]


class Feature(Protocol):
    """A part of a peer that stands on its node and its messenger."""

    def start(self, node: DhtNode, messenger: Messenger) -> None:
        """Both are there, and nobody can reach us yet."""

    async def aclose(self) -> None:
        """The peer is about to say goodbye. Called once, also if `start` never was."""


class Peer:
    """One member of a network: found by its `PeerId`, finds others, sends and receives messages.

        async with Peer.open(profile="~/.my-app", seeds=["atonce://…@seed.example:4710"]) as peer:
            await peer.send(friend, b"hello")
            async for message in peer.messages():
                print(message.sender, message.data)

    Built by `open` only.
    """

    def __init__(self, membership: Membership) -> None:
        self.counters = membership.counters
        """What happened, by name: for operators and tests."""
        self._membership = membership
        self._rooms = Rooms()
        self._features: list[Feature] = [self._rooms]
        membership.on_started = self._start

    @property
    def entry(self) -> Entry | None:
        """How we came into the network; None before we did."""
        return self._membership.entry

    # --- life ---

    @classmethod
    def open(
        cls,
        profile: Path | str | None = None,
        *,
        seeds: Sequence[SeedUrl | str] = (),
        network: NetworkConfig | str | None = None,
        listen: Sequence[str] = ANYWHERE,
        port: int = 0,
        udp_port: int = 0,
        alone: bool = False,
        keep_trying: bool = False,
        transient: bool = False,
        host: Host | None = None,
        on_event: OnEvent | None = None,
        config: MessagingConfig | None = None,
    ) -> "_Opening":
        """Come into a network: `async with Peer.open(…) as peer`, or `peer = await Peer.open(…)`.

        profile: a folder, made if new; None: an identity that is gone with the process.
        seeds: URLs of seeds, asked all at once if no saved contact answers.
        network: a name, or a `NetworkConfig`; None: the last run's, else whatever the seed serves.
        listen: IP addresses to bind, at most one for each family; port (TCP) and udp_port: 0 for any.
        alone: begin a network if there is no other way in.
        keep_trying: come back at once even if nobody answers, and go on trying.
        transient: take part without being found: no seat in the DHT, nothing published, no links accepted.
        on_event: called with a name and details as things happen.

        Raises `EntryFailed`, `NetworkMismatch`, `ProfileError`, `ProfileInUse`, `PortInUse`, `SeedUrlError`.
        """
        urls = [seed if isinstance(seed, SeedUrl) else SeedUrl.parse(seed) for seed in seeds]
        if isinstance(network, str):
            network = NetworkConfig(name=network)
        listening = Listening(tuple(listen), port, udp_port)

        async def opened() -> Peer:
            at = host or system_host()
            peer = None
            folder = Profile.open(profile, at)
            try:
                membership = Membership(
                    folder,
                    at,
                    urls,
                    listening,
                    transient=transient,
                    on_event=on_event,
                    config=config,
                    counters=Counter(),
                )
                peer = cls(membership)
                await membership.enter(network, alone, keep_trying)
            except BaseException:
                if peer is not None:
                    await peer.aclose()
                folder.close()
                raise
            return peer

        return _Opening(opened)

    def _start(self, node: DhtNode, messenger: Messenger) -> None:
        for feature in self._features:
            feature.start(node, messenger)

    async def aclose(self) -> None:
        """Say goodbye and end. Takes at most two seconds; may be called twice."""
        if not self._membership.closed:
            features, self._features = self._features, []
            for feature in features:
                await feature.aclose()
        await self._membership.aclose()

    # --- who and where we are ---

    @property
    def id(self) -> PeerId:
        """Our `PeerId`: what others need to find us."""
        return self._membership.profile.identity.id

    @property
    def network(self) -> NetworkConfig:
        """The network that we are in."""
        return self.node.shared.network

    @property
    def node(self) -> DhtNode:
        """Our node of the DHT: `set` and `get` of small signed values, counters, tables."""
        return self._membership.node

    @property
    def record(self) -> PresenceRecord | None:
        """What we said of ourselves last; None before we published."""
        return self._membership.record

    @property
    def saved_contacts(self) -> int:
        """How many contacts the profile holds for the next start."""
        return len(self._membership.profile.state.contacts)

    # --- others ---

    async def find(self, who: PeerId | str, *, fresh: bool = False) -> FindResult:
        """Look up a peer's presence, and tell how that went. `fresh` waits until the nearest nodes agree.

        Raises `PeerIdError`.
        """
        return await self.node.find(presence_key(self.network, _peer_id(who)), fresh=fresh)

    async def lookup(self, who: PeerId | str, *, fresh: bool = False) -> PresenceRecord:
        """The presence of a peer. Raises `PeerIdError`, `PeerUnknown`; `PeerOffline` if it said goodbye."""
        peer_id = _peer_id(who)
        found = await self.find(peer_id, fresh=fresh)
        if found.local and found.record is not None and found.record.is_goodbye:
            # A goodbye in our own store may be old news: whoever was cut off when the peer came back has missed it.
            found = await self.find(peer_id, fresh=True)
        record = found.record
        if not isinstance(record, PresenceRecord):
            raise PeerUnknown(f"the network knows no peer {peer_id.short}…")
        if record.is_goodbye:
            raise PeerOffline(f"{peer_id.short}… has said goodbye")
        return record

    def post(self, to: PeerId | str, data: bytes, timeout_s: float | None = None) -> Receipt:
        """Queue a message of at most 60,000 B and go on. The receipt tells its state at any time, and can be awaited.

        Raises `PeerIdError`, `MessageTooLarge`, `QueueFull`, `PeerClosed`.
        """
        return self._membership.messenger.post(_peer_id(to), data, timeout_s)

    async def send(self, to: PeerId | str, data: bytes, timeout_s: float | None = None) -> None:
        """Deliver a message of at most 60,000 B; returns when it is in the queue of the other side's app.

        Raises `PeerIdError`, `MessageTooLarge`, `QueueFull`; `PeerUnknown`, `PeerOffline` or `NotAccepted` if nothing
        was sent; `DeliveryUnknown` if it was sent and no acknowledgement came within `timeout_s` (default 10).
        """
        await self._membership.messenger.send(_peer_id(to), data, timeout_s)

    def join(self, topic: str, *, name: str = "", last: int = 0, guest: bool = False) -> Room:
        """Take part in a room, where everybody hears what anybody says: `async with peer.join("room") as room:`.

        topic: the room's name, 1 to 64 characters; to know it is all that it takes to come in.
        name: what the others see beside our `PeerId`, at most 64 B.
        last: so many of the latest shouts are heard first, at most 256; as many as a member has kept.
        guest: only to say something: nobody is told that we came, and we hear nothing. A transient peer is always one.

        Raises `PeerClosed`; ValueError for what is out of its bounds, for a room that we are in, and beyond 64 rooms.
        """
        return self._rooms.join(topic, name=name, last=last, guest=guest)

    async def set_status(self, status: str) -> PublishResult:
        """Say how we are (`online`, `away`, `busy` or a word of the app's, at most 32 B) in a new presence record.

        Raises ValueError for a status that is too long, or that says goodbye (`aclose` does).
        """
        if status == GONE:
            raise ValueError("who says goodbye closes: use aclose()")
        return await self._membership.set_status(status)

    def messages(self) -> AsyncIterator[Message]:
        """Messages from others, as they come; ends when this peer is closed. The sender is verified."""
        if self._membership.closed:
            raise PeerClosed("this peer is closed")
        return self._read()

    async def _read(self) -> AsyncIterator[Message]:
        await self._membership.started.wait()  # who keeps trying may not know its network yet
        inbox = self._membership.inbox
        if inbox is not None:
            async for message in inbox.read():
                yield message


class _Opening:
    """What `Peer.open` gives: awaitable, and an asynchronous context manager."""

    def __init__(self, opener: Callable[[], Any]) -> None:
        self._opener = opener
        self._peer: Peer | None = None

    def __await__(self) -> Any:
        return self._opener().__await__()

    async def __aenter__(self) -> Peer:
        peer: Peer = await self._opener()
        self._peer = peer
        return peer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._peer is not None:
            await self._peer.aclose()


def _peer_id(who: PeerId | str) -> PeerId:
    if isinstance(who, PeerId):
        return who
    if isinstance(who, str):
        return PeerId.parse(who)
    raise PeerIdError("a PeerId or its 56 characters are wanted")
