"""`Peer`: what an app uses."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dht_atonce.config import MessagingConfig, NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.node import DhtNode, FindResult, PublishResult
from dht_atonce.discovery.ladder import Entry, Ladder
from dht_atonce.discovery.seed_client import SeedSays
from dht_atonce.endpoints import Address, Family, SeedUrl, is_acceptable
from dht_atonce.errors import AtOnceError, EntryFailed, PeerClosed, PeerIdError, PeerOffline, PeerUnknown, ProfileError
from dht_atonce.host import Host
from dht_atonce.identity import PeerId
from dht_atonce.links import LinkPort
from dht_atonce.listening import ANYWHERE, listen_links, listen_udp
from dht_atonce.messaging.curve import system_host
from dht_atonce.messaging.inbox import Message
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.profile import Profile
from dht_atonce.records import GONE, ONLINE, SKEW_S, PresenceRecord, presence_key
from dht_atonce.staying import Member, Staying
from dht_atonce.tasks import TaskGroup

__all__ = ["Peer"]

OnEvent = Callable[[str, dict[str, Any]], None]

SAVED_CONTACTS = 50
_FIRST_SAVE_S = 2.0
_SAVE_S = 30.0
_GOODBYE_S = 1.2  # Ctrl-C ends within two seconds, whatever the network does
_CAPABILITIES = ("msg1",)


class Peer:
    """One member of a network: found by its `PeerId`, finds others, sends and receives messages.

        async with Peer.open(profile="~/.my-app", seeds=["atonce://…@seed.example:4710"]) as peer:
            await peer.send(friend, b"hello")
            async for message in peer.messages():
                print(message.sender, message.data)

    Built by `open` only.
    """

    def __init__(
        self,
        profile: Profile,
        host: Host,
        seeds: Sequence[SeedUrl],
        listen: Sequence[str],
        port: int,
        udp_port: int,
        transient: bool,
        on_event: OnEvent | None,
        config: MessagingConfig | None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        """What happened, by name: for operators and tests."""
        self._profile = profile
        self._host = host
        self._listen = tuple(listen)
        self._asked_ports = (port, udp_port)
        self._transient = transient
        self._on_event = on_event
        self._config = config
        self._incarnation = profile.begin_run()
        self._links = host.links(profile.identity, self.counters)
        self._ladder = Ladder(host, self._links, profile.identity, seeds, self._on_seed)
        self._starting = asyncio.Lock()
        self._tasks = TaskGroup()
        self._node: DhtNode | None = None
        self._messenger: Messenger | None = None
        self._ports: list[LinkPort] = []
        self._first_record: PresenceRecord | None = None
        self._seen_from: dict[Family, str] = {}
        self._asked_network: NetworkConfig | None = None
        self._clock_is_wrong = False
        self._staying = Staying(
            Member(
                node=lambda: self._node,
                saved=lambda: profile.state.contacts if self._node is not None else (),
                endpoints=self._endpoints,
                on_moved=self._seen_from.clear,
                check_clock=self._check_clock,
                climb=self._climb_again,
                publish=lambda: self._publish(self._status),
            ),
            host,
            self._emit,
        )
        self._seated = asyncio.Event()
        self._started = asyncio.Event()  # our sockets are bound, or never will be
        self._closed = False
        self._status = ONLINE
        self.entry: Entry | None = None
        """How we came into the network; None before we did."""

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
        return _Opening(
            lambda: cls._open(
                profile, urls, network, listen, port, udp_port, alone, keep_trying, transient, host, on_event, config
            )
        )

    @classmethod
    async def _open(
        cls,
        folder: Path | str | None,
        seeds: Sequence[SeedUrl],
        network: NetworkConfig | None,
        listen: Sequence[str],
        port: int,
        udp_port: int,
        alone: bool,
        keep_trying: bool,
        transient: bool,
        host: Host | None,
        on_event: OnEvent | None,
        config: MessagingConfig | None,
    ) -> Self:
        host = host or system_host()
        profile = Profile.open(folder, host)
        peer = None
        try:
            peer = cls(profile, host, seeds, listen, port, udp_port, transient, on_event, config)
            await peer._enter(network, alone, keep_trying)
        except BaseException:
            if peer is not None:
                await peer.aclose()
            profile.close()
            raise
        return peer

    async def aclose(self) -> None:
        """Say goodbye and end. Takes at most two seconds; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._started.set()
        await self._tasks.aclose()
        if self._node is not None and self.record is not None and not self._transient:
            try:
                async with asyncio.timeout(_GOODBYE_S):
                    await self._publish(GONE)
            except (TimeoutError, AtOnceError):
                self.counters["peer.goodbye_failed"] += 1
        if self._node is not None:
            await self._save()
        if self._messenger is not None:
            await self._messenger.aclose()
        else:
            await self._links.aclose()
        if self._node is not None:
            await self._node.aclose()
        self._profile.close()

    # --- who and where we are ---

    @property
    def id(self) -> PeerId:
        """Our `PeerId`: what others need to find us."""
        return self._profile.identity.id

    @property
    def network(self) -> NetworkConfig:
        """The network that we are in."""
        return self._running.shared.network

    @property
    def node(self) -> DhtNode:
        """Our node of the DHT: `set` and `get` of small signed values, counters, tables."""
        return self._running

    @property
    def record(self) -> PresenceRecord | None:
        """What we said of ourselves last; None before we published."""
        if self._node is None:
            return None
        own = self._node.own.get(presence_key(self._node.shared.network, self.id))
        record = own.record if own is not None else None
        return record if isinstance(record, PresenceRecord) else None

    @property
    def saved_contacts(self) -> int:
        """How many contacts the profile holds for the next start."""
        return len(self._profile.state.contacts)

    # --- others ---

    async def find(self, who: PeerId | str, *, fresh: bool = False) -> FindResult:
        """Look up a peer's presence, and tell how that went. `fresh` waits until the nearest nodes agree.

        Raises `PeerIdError`.
        """
        return await self._running.find(presence_key(self.network, _peer_id(who)), fresh=fresh)

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

    async def send(self, to: PeerId | str, data: bytes, timeout_s: float | None = None) -> None:
        """Deliver a message of at most 60,000 B; returns when it is in the queue of the other side's app.

        Raises `PeerIdError`, `MessageTooLarge`, `QueueFull`; `PeerUnknown` or `PeerOffline` if nothing was sent;
        `DeliveryUnknown` if it was sent and no acknowledgement came within `timeout_s` (default 10).
        """
        await self._messages.send(_peer_id(to), data, timeout_s)

    async def set_status(self, status: str) -> PublishResult:
        """Say how we are (`online`, `away`, `busy` or a word of the app's, at most 32 B) in a new presence record.

        Raises ValueError for a status that is too long, or that says goodbye (`aclose` does).
        """
        if status == GONE:
            raise ValueError("who says goodbye closes: use aclose()")
        if self._node is None or self._closed:
            raise PeerClosed("this peer is closed")
        before, self._status = self._status, status
        try:
            return await self._publish(status)
        except ValueError:
            self._status = before
            raise

    def messages(self) -> AsyncIterator[Message]:
        """Messages from others, as they come; ends when this peer is closed. The sender is verified."""
        if self._closed:
            raise PeerClosed("this peer is closed")
        return self._read()

    async def _read(self) -> AsyncIterator[Message]:
        await self._started.wait()  # who keeps trying may not know its network yet
        if self._messenger is not None:
            async for message in self._messenger.messages():
                yield message

    # --- inside: coming in ---

    @property
    def _running(self) -> DhtNode:
        if self._node is None or self._closed:
            raise PeerClosed("this peer is closed" if self._closed else "this peer is not in a network yet")
        return self._node

    @property
    def _messages(self) -> Messenger:
        if self._messenger is None or self._closed:
            raise PeerClosed("this peer is closed" if self._closed else "this peer is not in a network yet")
        return self._messenger

    async def _enter(self, network: NetworkConfig | None, alone: bool, keep_trying: bool) -> None:
        state = self._profile.state
        same = state.network is not None and (network is None or _is_same(network, state.network))
        saved = state.contacts if same else ()
        # What a seed said of the network last time (k, record life) is truer than our defaults.
        network = state.network if same else network
        if network is not None and saved:
            await self._start(network)
        self._asked_network = network
        try:
            await self._climb(network, saved)
        except EntryFailed as error:
            if not alone and not keep_trying:
                raise
            if alone or network is not None:
                await self._start(network or NetworkConfig())
            self._emit("still_alone", message=str(error))
            if alone and self._node is not None:
                self.entry = Entry("alone", 0)
                await self._publish(self._status)
        if not self._transient:
            self._tasks.start(self._staying.run(), "stay in the network")
            self._tasks.start(self._save_regularly(), "save state")

    async def _climb(self, network: NetworkConfig | None, saved: Sequence[Contact]) -> None:
        """One round of the ladder and, if it led in, our presence published. Raises `EntryFailed`,
        `NetworkMismatch`."""
        entry = await self._ladder.climb(network, self._node, saved)
        self.entry = entry
        self._emit("entered", way=entry.way, answered=entry.answered, tried=list(entry.tried))
        if not self._transient:
            await self._save()
            result = await self._publish(self._status)
            self._emit("published", confirmed=result.confirmed, asked=result.asked)
            self._check_clock()

    async def _climb_again(self) -> None:
        """A further round, with the contacts that we know by now."""
        if self._node is None:
            await self._climb(self._asked_network, ())
        else:
            await self._climb(self._node.shared.network, self._profile.state.contacts)

    async def _start(self, network: NetworkConfig) -> DhtNode:
        """Bind our sockets, once the network is known."""
        async with self._starting:
            if self._node is not None:
                return self._node
            profile, state = self._profile, self._profile.state
            node = DhtNode(
                profile.identity,
                host=self._host,
                network=network,
                node_key=profile.node_key,
                counters=self.counters,
                incarnation=self._incarnation,
                past_incarnations=state.incarnations,
                no_seat=self._transient,
                stores=not self._transient,
            )
            node.on_conflict = self._on_conflict
            node.on_seated = lambda _: self._seated.set()
            node.on_outcome = self._staying.on_outcome
            node.on_request = self._staying.on_request
            self._node = node
            port, udp_port = self._asked_ports
            last_udp = (0, 0) if self._transient else state.udp_ports
            udp_ports = await listen_udp(node, self._listen, udp_port, last_udp)
            messenger = Messenger(
                self.id,
                self._links,
                node.shared.parser,
                self._incarnation,
                self._own_record,
                self._find_presence,
                config=self._config,
                counters=self.counters,
            )
            self._messenger = messenger
            self._started.set()
            if not self._transient:
                self._ports = await listen_links(messenger.listen, self._listen, port, state.tcp_port)
                if state.network != network:
                    state.contacts = ()
                state.network, state.udp_ports, state.tcp_port = network, udp_ports, self._ports[0].address.port
            self._emit(
                "listening",
                udp=[str(address) for address in node.addresses],
                tcp=[str(bound.address) for bound in self._ports],
            )
            return node

    async def _on_seed(self, says: SeedSays) -> tuple[DhtNode, bytes]:
        self._seen_from[says.you.family] = says.you.ip
        node = await self._start(says.network)
        return node, self._own_record()

    # --- inside: presence ---

    def _endpoints(self) -> tuple[Address, ...]:
        """Where others can dial us, as far as we know."""
        assert self._node is not None
        shared = self._node.shared
        endpoints = []
        for bound in (port.address for port in self._ports):
            ip: str | None = bound.ip
            if ip in ANYWHERE:
                ip = shared.observed.ip(bound.family) or self._seen_from.get(bound.family)
            if ip is not None and is_acceptable(Address(ip, bound.port), local=shared.network.local):
                endpoints.append(Address(ip, bound.port))
        return tuple(endpoints)

    def _sign(self, status: str, seq: int, expires: int) -> PresenceRecord:
        assert self._node is not None
        return PresenceRecord.sign(
            self._profile.identity,
            self._node.shared.network,
            seq=seq,
            incarnation=self._incarnation,
            expires=expires,
            status=status,
            endpoints=() if status == GONE else self._endpoints(),
            capabilities=_CAPABILITIES,
        )

    def _own_record(self) -> bytes:
        """Our record for a HELLO or a seed: the published one, or before there is one, another that says the same."""
        record = self.record or self._first_record
        if record is None:
            shared = self._running.shared
            wall = shared.wall()
            expires = int(wall) + shared.network.record_life_s - SKEW_S
            record = self._first_record = self._sign(self._status, int(wall * 1_000_000), expires)
        return record.blob

    async def _publish(self, status: str) -> PublishResult:
        assert self._node is not None
        key = presence_key(self._node.shared.network, self.id)

        def sign(seq: int, expires: int) -> PresenceRecord:
            record = self._sign(status, seq, expires)
            self._staying.on_shown(record.endpoints)
            return record

        return await self._node.publish(key, sign, is_goodbye=status == GONE)

    async def _find_presence(self, who: PeerId, fresh: bool) -> PresenceRecord | None:
        assert self._node is not None
        record = (await self._node.find(presence_key(self._node.shared.network, who), fresh=fresh)).record
        return record if isinstance(record, PresenceRecord) else None

    def _on_conflict(self, newer: Any) -> None:
        self.counters["peer.identity_in_use"] += 1
        self._emit("identity_in_use", message="another process publishes under our identity")

    # --- inside: staying in ---

    def _check_clock(self) -> None:
        """A wrong clock is said: once, until it is right again."""
        assert self._node is not None
        off_s = self._node.shared.skew.correction_s
        if off_s and not self._clock_is_wrong:
            way = "behind" if off_s > 0 else "ahead"
            message = f"this machine's clock is {abs(off_s):.0f} s {way}; records are signed with the others' time"
            self._emit("warning", message=message)
        self._clock_is_wrong = bool(off_s)

    async def _save_regularly(self) -> None:
        """Two seconds after the first seat and then every half a minute: a SIGKILL shall not cost the contacts."""
        pause_s = _FIRST_SAVE_S
        while True:
            await self._seated.wait()
            await asyncio.sleep(pause_s)
            await self._save()
            pause_s = _SAVE_S

    async def _save(self) -> None:
        if self._transient:
            return
        contacts = self._node.live_contacts(SAVED_CONTACTS) if self._node is not None else []
        if contacts:  # those of the last run are better than none
            self._profile.state.contacts = tuple(contacts)
        try:
            await self._profile.save()
        except ProfileError as error:
            self.counters["profile.not_saved"] += 1
            self._emit("warning", message=str(error))

    def _emit(self, event: str, **details: Any) -> None:
        if self._on_event is not None:
            self._on_event(event, details)


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


def _is_same(one: NetworkConfig, other: NetworkConfig) -> bool:
    return (one.name, one.authority_key) == (other.name, other.authority_key)
