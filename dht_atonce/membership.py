"""One peer's membership of its network: how it comes in, what it publishes of itself, and how it stays."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dht_atonce.config import MessagingConfig, NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.node import DhtNode, PublishResult
from dht_atonce.discovery.ladder import Entry, Ladder
from dht_atonce.discovery.seed_client import SeedSays
from dht_atonce.endpoints import Address, Family, SeedUrl, is_acceptable
from dht_atonce.errors import AtOnceError, EntryFailed, PeerClosed, ProfileError
from dht_atonce.host import Host
from dht_atonce.identity import PeerId
from dht_atonce.links import LinkPort
from dht_atonce.listening import ANYWHERE, listen_links, listen_udp
from dht_atonce.messaging.inbox import Inbox
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.profile import Profile
from dht_atonce.records import GONE, ONLINE, SKEW_S, PresenceRecord, presence_key
from dht_atonce.staying import Member, Staying
from dht_atonce.tasks import TaskGroup

__all__ = ["CAPABILITIES", "Listening", "Membership", "OnEvent", "OnStarted"]

OnEvent = Callable[[str, dict[str, Any]], None]
OnStarted = Callable[[DhtNode, Messenger], None]
"""Called once, when node and messenger are there and before anybody can reach them."""

CAPABILITIES = ("msg1", "call1", "dur1", "stream1", "room1")
"""What we serve, as presence records say it."""
_OF_LASTING = ("dur1",)  # served only by who can be found, and has a disk

_SAVED_CONTACTS = 50
_FIRST_SAVE_S = 2.0
_SAVE_S = 30.0
_GOODBYE_S = 1.2  # Ctrl-C ends within two seconds, whatever the network does


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a peer listens: IP addresses, at most one for each family, and ports, 0 for any."""

    ips: tuple[str, ...] = ANYWHERE
    port: int = 0
    udp_port: int = 0


class Membership:
    """Node, messenger and presence of one peer; `transient`: it takes part without being found."""

    def __init__(
        self,
        profile: Profile,
        host: Host,
        seeds: Sequence[SeedUrl],
        listening: Listening,
        *,
        transient: bool,
        on_event: OnEvent | None,
        config: MessagingConfig | None,
        counters: Counter[str],
    ) -> None:
        self.profile = profile
        self.host = host
        self.entry: Entry | None = None
        """How we came into the network; None before we did."""
        self.started = asyncio.Event()
        """Our sockets are bound, or never will be."""
        self.on_started: OnStarted = lambda node, messenger: None
        self.closed = False
        self.incarnation = profile.begin_run()
        self.counters = counters
        self._listening = listening
        self._transient = transient
        lasting = profile.is_lasting and not transient
        self._capabilities = tuple(word for word in CAPABILITIES if lasting or word not in _OF_LASTING)
        self._on_event = on_event
        self._config = config
        self._links = host.links(profile.identity, counters)
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
                endpoints=self.endpoints,
                on_moved=self._seen_from.clear,
                check_clock=self._check_clock,
                climb=self._climb_again,
                visit=self._visit_seeds,
                publish=lambda: self.publish(self._status),
            ),
            host,
            self.emit,
        )
        self._seated = asyncio.Event()
        self._status = ONLINE

    # --- getters ---

    @property
    def is_transient(self) -> bool:
        """Whether it takes part without being found."""
        return self._transient

    @property
    def node(self) -> DhtNode:
        """Our node of the DHT. Raises `PeerClosed` before it runs and after it was closed."""
        if self._node is None or self.closed:
            raise PeerClosed("this peer is closed" if self.closed else "this peer is not in a network yet")
        return self._node

    @property
    def messenger(self) -> Messenger:
        """As `node`."""
        if self._messenger is None or self.closed:
            raise PeerClosed("this peer is closed" if self.closed else "this peer is not in a network yet")
        return self._messenger

    @property
    def inbox(self) -> Inbox | None:
        """What others sent and the app has not read, also after we were closed; None if we never listened."""
        return self._messenger.inbox if self._messenger is not None else None

    @property
    def record(self) -> PresenceRecord | None:
        """What we said of ourselves last; None before we published."""
        if self._node is None:
            return None
        own = self._node.own.get(presence_key(self._node.shared.network, self.profile.identity.id))
        record = own.record if own is not None else None
        return record if isinstance(record, PresenceRecord) else None

    @property
    def status(self) -> str:
        """What we say of ourselves, or will when we come in."""
        return self._status

    # --- life ---

    async def enter(self, network: NetworkConfig | None, alone: bool, keep_trying: bool) -> None:
        """Come in, as `Peer.open` says."""
        state = self.profile.state
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
            self.emit("still_alone", message=str(error))
            if alone and self._node is not None:
                self.entry = Entry("alone", 0)
                await self.publish(self._status)
        if not self._transient:
            self._tasks.start(self._staying.run(), "stay in the network")
            self._tasks.start(self._save_regularly(), "save state")

    async def aclose(self) -> None:
        """Say goodbye and end. Takes at most two seconds; may be called twice."""
        if self.closed:
            return
        self.closed = True
        self.started.set()
        await self._tasks.aclose()
        if self._node is not None and self.record is not None and not self._transient:
            try:
                async with asyncio.timeout(_GOODBYE_S):
                    await self.publish(GONE)
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
        self.profile.close()

    async def set_status(self, status: str) -> PublishResult:
        """As `Peer.set_status`."""
        if self._node is None or self.closed:
            raise PeerClosed("this peer is closed")
        before, self._status = self._status, status
        try:
            return await self.publish(status)
        except ValueError:
            self._status = before
            raise

    async def publish(self, status: str) -> PublishResult:
        """Publish our presence with this status."""
        assert self._node is not None
        key = presence_key(self._node.shared.network, self.profile.identity.id)

        def sign(seq: int, expires: int) -> PresenceRecord:
            record = self._sign(status, seq, expires)
            self._staying.on_shown(record.endpoints)
            return record

        return await self._node.publish(key, sign, is_goodbye=status == GONE)

    async def find_presence(self, who: PeerId, fresh: bool) -> PresenceRecord | None:
        """The presence record of a peer, goodbyes included; None if there is none."""
        assert self._node is not None
        record = (await self._node.find(presence_key(self._node.shared.network, who), fresh=fresh)).record
        return record if isinstance(record, PresenceRecord) else None

    def emit(self, event: str, **details: Any) -> None:
        """Tell whoever listens to events."""
        if self._on_event is not None:
            self._on_event(event, details)

    # --- inside: coming in ---

    async def _climb(self, network: NetworkConfig | None, saved: Sequence[Contact]) -> None:
        """One round of the ladder and, if it led in, our presence published. Raises `EntryFailed`,
        `NetworkMismatch`."""
        entry = await self._ladder.climb(network, self._node, saved)
        self.entry = entry
        if entry.way == "saved contacts":
            self._staying.on_saved_way()
        self.emit("entered", way=entry.way, answered=entry.answered, tried=list(entry.tried))
        if not self._transient:
            await self._save()
            result = await self.publish(self._status)
            self.emit("published", confirmed=result.confirmed, asked=result.asked)
            self._check_clock()

    async def _climb_again(self) -> None:
        """A further round, with the contacts that we know by now."""
        if self._node is None:
            await self._climb(self._asked_network, ())
        else:
            await self._climb(self._node.shared.network, self.profile.state.contacts)

    async def _visit_seeds(self) -> None:
        if self._node is not None and self._ladder.has_seeds and not self._transient:
            with contextlib.suppress(AtOnceError):  # they may be gone for good: the network needs none
                await self._ladder.climb(self._node.shared.network, self._node, ())

    async def _start(self, network: NetworkConfig) -> DhtNode:
        """Bind our sockets, once the network is known."""
        async with self._starting:
            if self._node is not None:
                return self._node
            profile, state = self.profile, self.profile.state
            node = DhtNode(
                profile.identity,
                host=self.host,
                network=network,
                node_key=profile.node_key,
                counters=self.counters,
                incarnation=self.incarnation,
                past_incarnations=state.incarnations,
                no_seat=self._transient,
                stores=not self._transient,
            )
            node.on_conflict = self._on_conflict
            node.on_seated = lambda _: self._seated.set()
            node.on_outcome = self._staying.on_outcome
            node.on_request = self._staying.on_request
            self._node = node
            port, udp_port = self._listening.port, self._listening.udp_port
            last_udp = (0, 0) if self._transient else state.udp_ports
            udp_ports = await listen_udp(node, self._listening.ips, udp_port, last_udp)
            messenger = Messenger(
                profile.identity.id,
                self._links,
                node.shared.parser,
                self.incarnation,
                self._own_record,
                self.find_presence,
                config=self._config,
                counters=self.counters,
            )
            self._messenger = messenger
            self.on_started(node, messenger)
            self.started.set()
            if not self._transient:
                self._ports = await listen_links(messenger.listen, self._listening.ips, port, state.tcp_port)
                if state.network != network:
                    state.contacts = ()
                state.network, state.udp_ports, state.tcp_port = network, udp_ports, self._ports[0].address.port
            self.emit(
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

    def endpoints(self) -> tuple[Address, ...]:
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
            self.profile.identity,
            self._node.shared.network,
            seq=seq,
            incarnation=self.incarnation,
            expires=expires,
            status=status,
            endpoints=() if status == GONE else self.endpoints(),
            capabilities=self._capabilities,
        )

    def _own_record(self) -> bytes:
        """Our record for a HELLO or a seed: the published one, or before there is one, another that says the same."""
        record = self.record or self._first_record
        if record is None:
            shared = self.node.shared
            wall = shared.wall()
            expires = int(wall) + shared.network.record_life_s - SKEW_S
            record = self._first_record = self._sign(self._status, int(wall * 1_000_000), expires)
        return record.blob

    def _on_conflict(self, newer: Any) -> None:
        self.counters["peer.identity_in_use"] += 1
        self.emit("identity_in_use", message="another process publishes under our identity")

    # --- inside: staying in ---

    def _check_clock(self) -> None:
        """A wrong clock is said: once, until it is right again."""
        assert self._node is not None
        off_s = self._node.shared.skew.correction_s
        if off_s and not self._clock_is_wrong:
            way = "behind" if off_s > 0 else "ahead"
            message = f"this machine's clock is {abs(off_s):.0f} s {way}; records are signed with the others' time"
            self.emit("warning", message=message)
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
        contacts = self._node.live_contacts(_SAVED_CONTACTS) if self._node is not None else []
        if contacts:  # those of the last run are better than none
            self.profile.state.contacts = tuple(contacts)
        try:
            await self.profile.save()
        except ProfileError as error:
            self.counters["profile.not_saved"] += 1
            self.emit("warning", message=str(error))


def _is_same(one: NetworkConfig, other: NetworkConfig) -> bool:
    return (one.name, one.authority_key) == (other.name, other.authority_key)
