"""`DhtNode`: a node of the DHT, in IPv4, IPv6 or both."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from dht_atonce.codec import decode, encode
from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.crawl import Crawl
from dht_atonce.dht.family import FamilyServer
from dht_atonce.dht.finding import Finder, FindResult
from dht_atonce.dht.gathering import gather, membership_signer
from dht_atonce.dht.notifier import Notifier
from dht_atonce.dht.own import OwnRecords, Signer
from dht_atonce.dht.publishing import Publisher, PublishResult
from dht_atonce.dht.routing import RoutingTable
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.upkeep import Upkeep
from dht_atonce.dht.watcher import KeyWatch, Watcher
from dht_atonce.dht.watches import KeyChange, WatchEvent
from dht_atonce.dht.wire import FindNode, Ping
from dht_atonce.endpoints import Address, Family
from dht_atonce.errors import WireError
from dht_atonce.host import Host
from dht_atonce.identity import Identity, NodeKey, PeerId
from dht_atonce.records import GONE, ONLINE, AnyRecord, MembershipRecord, ValueRecord, topic_key, value_key
from dht_atonce.tasks import TaskGroup

__all__ = ["DhtNode", "FindResult", "KeyChange", "KeyWatch", "PublishResult", "WatchEvent"]

_KEY_BYTES = 20
_ANY: "msgspec.msgpack.Decoder[Any]" = msgspec.msgpack.Decoder()


class DhtNode:
    """One node key, one store, and a server per address family.

    What a user of `kademlia` knows keeps its name: `DhtNode()` alone makes an ephemeral identity; `listen`; `bootstrap`
    with (ip, port, node key) or (ip, port); `set(name, value)` stores a signed value of ours and `get(name)` reads it;
    `get("<PeerId>/<name>")` reads anybody's; `stop()` is synchronous, `aclose()` waits. Storing under an arbitrary
    key is refused: a key belongs to the identity that it is derived from, or is a topic's, under which each identity
    has a record of its own (`announce`, `withdraw`, `members`).
    """

    def __init__(
        self,
        identity: Identity | None = None,
        *,
        host: Host | None = None,
        network: NetworkConfig | None = None,
        node_key: NodeKey | None = None,
        config: DhtConfig | None = None,
        counters: Counter[str] | None = None,
        incarnation: bytes | None = None,
        past_incarnations: tuple[bytes, ...] = (),
        no_seat: bool = False,
        stores: bool = True,
    ) -> None:
        host = host or Host()
        network = network or NetworkConfig()
        rng = host.rng
        self.identity = identity or Identity.generate(rng)
        self.incarnation = incarnation or rng.randbytes(8)
        self.shared = Shared(
            host,
            network,
            node_key or NodeKey.generate(rng),
            config=config,
            counters=counters,
            no_seat=no_seat,
            stores=stores,
        )
        self.shared.store.network_size = lambda: self._publisher.crowd
        self.servers: dict[Family, FamilyServer] = {}
        self.on_seated: Callable[[Contact], None] | None = None
        """Told of each contact that newly got a seat."""
        self.on_request: Callable[[Contact, bool, bool], None] | None = None
        """Told of each request: from whom, whether the address was proved, and whether it takes seats."""
        self.on_outcome: Callable[[Contact, bool], None] | None = None
        """Told of each of our requests that ended: whom it went to, and whether it was answered."""
        self._routers: dict[Family, RoutingTable] = {}
        self._tasks = TaskGroup()
        self._publisher = Publisher(self.shared, self.servers, (self.incarnation, *past_incarnations))
        self._upkeep = Upkeep(self.shared, self.servers, self._publisher, self._tasks)
        self._notifier = Notifier(self.shared, self.servers)
        self._finder = Finder(self.shared, self.servers, self._publisher.own, self._want)
        search = partial(self._finder.search, eager=True)  # a watch wants four of the nearest
        self._watcher = Watcher(self.shared, self.servers, self._tasks, search)
        self._finder.on_record = self._watcher.on_record
        self.shared.store.on_change = self._on_stored

    # --- life ---

    async def listen(self, port: int = 0, interface: str = "0.0.0.0") -> Address:  # noqa: S104
        """Bind a socket in the family of `interface`; a second call may add the other family.

        Gives the bound address. Raises `PortInUse`.
        """
        family = Address(interface, port).family
        if family in self.servers:
            raise ValueError(f"this node listens in {family.name} already")
        server = FamilyServer(self.shared, family, self._routers)
        server.protocol.on_seated = self._on_seated
        server.protocol.on_request = self.on_request
        server.protocol.on_outcome = self.on_outcome
        server.protocol.operations.on_watch = self._notifier.on_watch
        self._watcher.attach(server)
        await server.listen(port, interface)
        self.servers[family] = server
        self._upkeep.start()
        assert server.address is not None
        return server.address

    def stop(self) -> None:
        """Close the sockets and end all tasks, without waiting for them."""
        self._watcher.stop()
        self._notifier.stop()
        self._tasks.close()
        self._upkeep.stop()
        for server in self.servers.values():
            server.stop()

    async def aclose(self) -> None:
        """`stop`, and wait until nothing is left."""
        self.stop()
        await self._tasks.aclose()

    # --- state ---

    @property
    def addresses(self) -> list[Address]:
        """Where our sockets are bound."""
        return [server.address for server in self.servers.values() if server.address is not None]

    @property
    def counters(self) -> Counter[str]:
        return self.shared.counters

    @property
    def known_nodes(self) -> int:
        """How many nodes have a seat, in the family that has more."""
        return max((len(router) for router in self._routers.values()), default=0)

    @property
    def watchers(self) -> int:
        """How many watches other nodes have here."""
        return len(self._notifier)

    def live_contacts(self, limit: int) -> list[Contact]:
        """Seated contacts that are not failing, the most recently heard of first."""
        heard = [seat for router in self._routers.values() for seat in router.live_contacts()]
        heard.sort(key=lambda seat: -seat[0])
        return [contact for _, contact in heard[:limit]]

    @property
    def is_alone(self) -> bool:
        """Whether nobody has a seat that is not failing."""
        return not any(router.live_count for router in self._routers.values())

    def likely_contacts(self, limit: int) -> list[Contact]:
        """Seated contacts that may well answer: half of them the most recently heard of, then others at random, failing
        ones last."""
        live = self.live_contacts(10 * limit)
        latest, others = live[: limit // 2], live[limit // 2 :]
        self.shared.host.rng.shuffle(others)
        failing = [seat.contact for router in self._routers.values() for seat in router if seat.failures]
        return (latest + others + failing)[:limit]

    @property
    def own(self) -> OwnRecords:
        """Our own records."""
        return self._publisher.own

    @property
    def on_conflict(self) -> Callable[[AnyRecord], None] | None:
        """Told of a newer record of ours that another process signed after our first publish."""
        return self._publisher.on_conflict

    @on_conflict.setter
    def on_conflict(self, heard: Callable[[AnyRecord], None] | None) -> None:
        self._publisher.on_conflict = heard

    @property
    def on_published(self) -> Callable[[AnyRecord, PublishResult], None] | None:
        """Told of each round of publishing that ended, whoever asked for it."""
        return self._publisher.on_published

    @on_published.setter
    def on_published(self, heard: Callable[[AnyRecord, PublishResult], None] | None) -> None:
        self._publisher.on_published = heard

    # --- joining ---

    async def bootstrap(self, addrs: list[tuple[str, int] | tuple[str, int, bytes]]) -> int:
        """Join through nodes at (ip, port, node key) or, trusting whoever answers there, (ip, port).

        Gives the number of nodes that answered. Host names are the caller's to resolve.
        """
        contacts = []
        for addr in addrs:
            address = Address(addr[0], addr[1])
            if len(addr) == 3:
                contacts.append(Contact(addr[2], address))
            elif (server := self.servers.get(address.family)) is not None:
                key = await server.protocol.find_key(address, 2 * self.shared.config.first_timeout_s)
                if key is not None:
                    contacts.append(Contact(key, address))
        return await self.join(contacts)

    async def join(self, contacts: list[Contact]) -> int:
        """Find our place in each family, starting from `contacts`. Gives how many nodes answered."""
        crawls = await asyncio.gather(
            *(self._join_family(server, contacts) for server in self.servers.values() if contacts)
        )
        for server in self.servers.values():
            # The family in which we knew nobody may have learnt of somebody through the other (BEP 32).
            named = [c for crawl in crawls for c in crawl.other_contacts.values() if c.address.family is server.family]
            if named and not len(server.router):
                crawls.append(await server.bootstrap(named))
        self._upkeep.on_joined()
        return sum(len(crawl.lookup.answered()) for crawl in crawls)

    async def _join_family(self, server: FamilyServer, contacts: list[Contact]) -> Crawl:
        start = [contact for contact in contacts if contact.address.family is server.family]
        return await server.bootstrap(start, want=self._want(server.family))

    def _want(self, family: Family) -> int:
        """The other families in which we listen and know nobody yet."""
        return sum(other for other, router in self._routers.items() if other is not family and not len(router))

    async def prove_address(self, contact: Contact) -> bool:
        """Ask `contact` for our own id, without and then with its cookie: so it knows that we are where we say.

        False if it does not answer, or if we do not listen in its family.
        """
        server = self.servers.get(contact.address.family)
        if server is None:
            return False
        for _ in range(2):
            request = FindNode(0, server.protocol.request_id(), server.protocol.flags, self.shared.node_key.id, 0)
            if await server.ask(contact, request) is None:
                return False
        return True

    async def ping(self, contacts: list[Contact], timeout_s: float) -> None:
        """Ask all of `contacts` at once whether they are there; `on_outcome` and the tables hear who is."""
        waiting = [
            server.ask(contact, Ping(0, server.protocol.request_id(), server.protocol.flags))
            for contact in contacts
            if (server := self.servers.get(contact.address.family)) is not None
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*waiting)

    async def reach(self, contacts: list[Contact], timeout_s: float) -> bool:
        """Ask all of `contacts` at once whether they are there; True as soon as one answers."""
        pings = [
            asyncio.ensure_future(server.ask(contact, Ping(0, server.protocol.request_id(), server.protocol.flags)))
            for contact in contacts
            if (server := self.servers.get(contact.address.family)) is not None
        ]
        try:
            for answered in asyncio.as_completed(pings, timeout=timeout_s):
                if await answered is not None:
                    return True
        except TimeoutError:
            pass
        finally:
            for ping in pings:
                ping.cancel()
        return False

    def on_elsewhere(self, *, moved: bool) -> None:
        """We slept, or `moved` to another address: forget what holds no longer."""
        self.shared.known.forget_cookies()
        for server in self.servers.values():
            server.protocol.on_elsewhere()
        if moved:
            self.shared.observed.forget()

    async def refresh(self, target: bytes) -> int:
        """Look up an id for the sake of the tables. Gives how many nodes answered."""
        answered = 0
        for server in self.servers.values():
            crawl = server.crawl(target, want=self._want(server.family))
            await crawl.done
            answered += len(crawl.lookup.answered())
        return answered

    # --- records ---

    async def find(self, key: bytes, *, fresh: bool = False) -> FindResult:
        """The record of `key` (20 B): the first verified one, or with `fresh` the newest that the nearest nodes agree
        on.

        A first answer does not end the search: it goes on behind, and repairs replicas that lacked the newest record.
        """
        return await self._finder.find(key, fresh=fresh)

    def watch(self, key: bytes) -> KeyWatch:
        """Hear of each new record of `key` (20 B), of its goodbye and its expiry, as it happens: an async context
        manager, and an async iterator of `WatchEvent`.

        The nodes nearest to the key push it, so it takes about one round trip from when they have it; what a push did
        not bring comes with the next renewal, within two minutes. Several watches of one key share what they cost.
        Nobody watches a topic's key for us: it has many records, and no newest one.
        Raises ValueError for what is no key, and on its start beyond 10,000 keys.
        """
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a key has {_KEY_BYTES} bytes")
        return self._watcher.watch(key)

    async def publish(self, key: bytes, sign: Signer, *, is_goodbye: bool = False) -> PublishResult:
        """Say something under our own `key`, now and again at each quarter of the record's life.

        `sign` makes the record from a seq and an expiry. Does not raise for what the network does; raises
        `ClockWrong` if our clock is a day off.
        """
        return await self._publisher.publish(key, sign, is_goodbye=is_goodbye)

    async def set(self, name: str, value: object) -> PublishResult:
        """Store a small value (int, float, bool, str, bytes) of ours under a name of ours, signed.

        Raises `MessageTooLarge`, TypeError for a value of another type, ValueError for a name too long or an int beyond
        64 bits.
        """
        if not isinstance(value, int | float | bool | str | bytes):
            raise TypeError("a value is an int, float, bool, str or bytes")
        network = self.shared.network
        try:
            data = encode(value)
        except (OverflowError, UnicodeEncodeError) as error:
            raise ValueError(f"this value cannot be stored: {error}") from None

        def sign(seq: int, expires: int) -> ValueRecord:
            return ValueRecord.sign(
                self.identity,
                network,
                seq=seq,
                incarnation=self.incarnation,
                expires=expires,
                name=name,
                value=data,
            )

        return await self.publish(value_key(network, self.identity.id, name), sign)

    async def get(self, name: str, *, fresh: bool = False) -> Any:
        """A value of ours, or with "PEERID/NAME" of anybody; None if there is none.

        Raises `PeerIdError` if what stands before the slash is no PeerId.
        """
        peer_text, slash, own_name = name.partition("/")
        owner = PeerId.parse(peer_text) if slash else self.identity.id
        key = value_key(self.shared.network, owner, own_name if slash else name)
        record = (await self.find(key, fresh=fresh)).record
        if not isinstance(record, ValueRecord):
            return None
        try:
            return decode(_ANY, record.value)
        except WireError:
            return None

    # --- topics ---

    async def announce(self, topic: str, *, data: bytes = b"", endpoints: tuple[Address, ...] = ()) -> PublishResult:
        """Take part in `topic`, from now on until `withdraw`: with at most 128 B of `data` that the app says of us, and
        the TCP `endpoints` at which we can be dialled (at most four; without any we count as one who cannot be).

        The name of a topic is all that it takes to list its members: one for few should be one that nobody can guess.
        Whoever holds the records reads it. Raises `MessageTooLarge`; ValueError for a name that has not 1 to 64
        characters, or for what is out of its bounds; else as `publish`.
        """
        sign = membership_signer(self.identity, self.shared.network, self.incarnation, topic, ONLINE, endpoints, data)
        return await self._publisher.publish(topic_key(self.shared.network, topic), sign, is_watched=False)

    async def withdraw(self, topic: str) -> PublishResult:
        """Leave `topic`, and say so; also if an earlier run of ours announced it. Raises as `announce`."""
        sign = membership_signer(self.identity, self.shared.network, self.incarnation, topic, GONE)
        key = topic_key(self.shared.network, topic)
        return await self._publisher.publish(key, sign, is_goodbye=True, is_watched=False)

    async def members(self, topic: str, *, limit: int | None = None) -> list[MembershipRecord]:
        """The members of `topic` in random order, each with its newest record: all that the k nodes nearest to its key
        hold, or with `limit` a random sample.

        Ends by a minute and by 4,000 requests, with what was found by then. Raises ValueError for a `limit` below 1.
        """
        if limit is not None and limit < 1:
            raise ValueError("a sample has at least one member")
        key = topic_key(self.shared.network, topic)
        servers = [(server, self._want(server.family)) for server in self.servers.values()]
        async with self._finder.turn():
            return await gather(self.shared, servers, key, limit)

    # --- inside ---

    def _on_stored(self, record: AnyRecord, is_over: bool) -> None:
        if isinstance(record, MembershipRecord):
            return  # of a topic's key there is no newest record to push
        self._notifier.on_change(record.key)
        if not is_over:
            self._watcher.on_record(record)

    def _on_seated(self, contact: Contact) -> None:
        self._upkeep.on_seated(contact)
        if self.on_seated is not None:
            self.on_seated(contact)
