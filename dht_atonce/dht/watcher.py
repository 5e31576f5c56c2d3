"""Watches keys for the app: the shell round `watches`."""

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from dht_atonce.dht.contact import Contact
from dht_atonce.dht.crawl import Crawl
from dht_atonce.dht.family import FamilyServer
from dht_atonce.dht.holders import Batch
from dht_atonce.dht.protocol import Answer
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.watches import KeyChange, Watches, WatchEvent
from dht_atonce.dht.wire import Notify, Watch, Watching, pack_watch
from dht_atonce.endpoints import Family
from dht_atonce.errors import RecordError
from dht_atonce.records import AnyRecord, MembershipRecord
from dht_atonce.tasks import TaskGroup

__all__ = ["KeyWatch", "Watcher"]

StartLookup = Callable[[FamilyServer, bytes], Crawl]


class KeyWatch:
    """What happens at one key, as it happens. Built by `DhtNode.watch` only.

        async with node.watch(key) as watch:
            async for event in watch:
                print(event.change, event.record)

    On entry it is waited until the nodes nearest to the key have been found and asked. The first event is the present
    record, if there is one. Who reads slowly sees the newest: what was not read when something newer came is gone.
    """

    def __init__(self, watcher: "Watcher", key: bytes) -> None:
        self.key = key
        self._watcher = watcher
        self._latest: WatchEvent | None = None
        self._woken = asyncio.Event()
        self._is_open = False
        self._is_closed = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        self._open()
        while self._latest is None:
            if self._is_closed:
                raise StopAsyncIteration
            self._woken.clear()
            await self._woken.wait()
        event, self._latest = self._latest, None
        return event

    async def start(self) -> None:
        """Begin, and wait until the nodes nearest to the key have been asked. Raises ValueError beyond 10,000 keys."""
        self._open()
        await self._watcher.settled(self.key)

    async def aclose(self) -> None:
        """End; if nobody else here watches the key, its nodes are told."""
        self._latest = None
        if self._is_open and not self._is_closed:
            self._watcher.close(self)
        self.on_end()

    @property
    def record(self) -> AnyRecord | None:
        """The newest record that was heard of and is not over."""
        return self._watcher.live(self.key)

    @property
    def holders(self) -> int:
        """How many nodes watch the key for us."""
        return len(self._watcher.holders(self.key))

    # --- for the watcher ---

    def on_event(self, event: WatchEvent) -> None:
        """It takes the place of one that was not read."""
        self._latest = event
        self._woken.set()

    def on_end(self) -> None:
        """Nothing more will come."""
        self._is_closed = True
        self._woken.set()

    def _open(self) -> None:
        if not self._is_open and not self._is_closed:
            self._watcher.open(self)
            self._is_open = True


class Watcher:
    """The watches of one node, in all families."""

    __slots__ = (
        "_is_running",
        "_made",
        "_readers",
        "_servers",
        "_settling",
        "_shared",
        "_start_lookup",
        "_tasks",
        "_timer",
        "_timer_at",
    )

    def __init__(
        self, shared: Shared, servers: dict[Family, FamilyServer], tasks: TaskGroup, start_lookup: StartLookup
    ) -> None:
        self._shared = shared
        self._servers = servers
        self._tasks = tasks
        self._start_lookup = start_lookup
        self._made: Watches | None = None
        self._readers: dict[bytes, dict[KeyWatch, None]] = {}
        self._settling: dict[bytes, list[asyncio.Future[None]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._is_running = True

    # --- for the node ---

    def watch(self, key: bytes) -> KeyWatch:
        """As `DhtNode.watch`."""
        return KeyWatch(self, key)

    def stop(self) -> None:
        """End all watches. Each node that watches for us is told so once, and nobody waits for its answer."""
        if not self._is_running:
            return
        if self._made is not None:
            for key in self._made:
                self._made.remove(key)
            for batch in self._made.at.take(self._shared.now()):
                self._ask(batch)
        self._is_running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for readers in self._readers.values():
            for reader in readers:
                reader.on_end()
        for key in list(self._settling):
            self._settle(key)

    def attach(self, server: FamilyServer) -> None:
        """Hear what others push to `server`."""
        server.protocol.operations.on_notify = self.on_notify
        if self._readers and not self._shared.network.local:
            server.protocol.on_stranger = self._watches.reach.on_stranger

    def on_record(self, record: AnyRecord | None) -> None:
        """A verified record was found or stored, by whatever way: tell who watches it, if it is news."""
        if record is not None and record.key in self._readers:
            self._hear(record)
            self._arm()

    def on_notify(self, request: Notify, wall: float) -> bool:
        """Somebody pushes a record to us. False if we do not watch it; raises `RecordError` for what is none.

        An empty one says that it has expired there. That is for our clock to say.
        """
        if request.key not in self._readers:
            return False
        held = self._watches.record(request.key)
        if request.record and (held is None or held.blob != request.record):
            self._hear(self._parse(request.record, [request.key], wall))
        self._pump()
        return True

    # --- for watches ---

    def open(self, reader: KeyWatch) -> None:
        """`reader` hears from now on. Raises ValueError beyond `max_watched` keys."""
        key = reader.key
        if not self._is_running:
            reader.on_end()
            return
        self._watches.add(key)
        if not self._readers and not self._shared.network.local:
            for server in self._servers.values():
                server.protocol.on_stranger = self._watches.reach.on_stranger
        self._readers.setdefault(key, {})[reader] = None
        stored = self._shared.store.live(key, self._shared.wall())
        if stored is not None:
            self._hear(stored)
        record = self.live(key)
        if record is not None:
            reader.on_event(WatchEvent(KeyChange.GOODBYE if record.is_goodbye else KeyChange.RECORD, record))
        self._pump()

    def close(self, reader: KeyWatch) -> None:
        """`reader` hears no more."""
        readers = self._readers.get(reader.key)
        if readers is None or not self._is_running:
            return
        readers.pop(reader, None)
        if not readers:
            del self._readers[reader.key]
            self._watches.remove(reader.key)
            self._settle(reader.key)
            self._pump()
        if not self._readers:
            for server in self._servers.values():
                server.protocol.on_stranger = None

    async def settled(self, key: bytes) -> None:
        """Wait until `key` was looked up and the nodes nearest to it have answered, or failed to."""
        if self._is_running and not self._watches.is_settled(key):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._settling.setdefault(key, []).append(waiter)
            await waiter

    def live(self, key: bytes) -> AnyRecord | None:
        """The newest record of `key` that we heard of, if it is not over."""
        record = self._watches.record(key)
        return record if record is not None and record.expires > self._shared.wall() else None

    def holders(self, key: bytes) -> list[Contact]:
        """The nodes that watch `key` for us."""
        return self._watches.holders(key)

    # --- inside: what is due ---

    @property
    def _watches(self) -> Watches:
        """Made when it is needed: a simulation has thousands of nodes, and few of them watch."""
        if self._made is None:
            shared = self._shared
            self._made = Watches(shared.config, shared.host.rng, local=shared.network.local)
        return self._made

    def _arm(self) -> None:
        deadline = self._watches.deadline(self._shared.now(), self._shared.wall())
        if not self._is_running or deadline == math.inf:
            return
        if self._timer is not None:
            if self._timer_at <= deadline:
                return  # too early is looked at once too often, and cheaper than a new one
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._on_timer)
        self._timer_at = deadline

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()

    def _pump(self) -> None:
        if not self._is_running:
            return
        now = self._shared.now()
        for event in self._watches.take_expired(self._shared.wall()):
            self._tell(event)
        for key in self._watches.take_lookups(now):
            self._tasks.start(self._look_up(key), "watch")
        for batch in self._watches.at.take(now):
            self._ask(batch)
        for contact in self._watches.at.take_pings(now):
            self._keep_alive(contact)
        self._arm()

    async def _look_up(self, key: bytes) -> None:
        await asyncio.gather(*(self._look_up_in(server, key) for server in self._servers.values()))
        self._watches.on_looked_up(key, self._shared.now())
        self._pump()
        self._settle(key)

    async def _look_up_in(self, server: FamilyServer, key: bytes) -> None:
        self._shared.counters["dht.watch_lookups"] += 1
        crawl = self._start_lookup(server, key)
        await crawl.done
        self._watches.on_nearest(key, server.family, crawl.lookup.closest(self._shared.config.watch_nodes))

    # --- inside: nodes that watch for us ---

    def _ask(self, batch: Batch) -> None:
        server = self._servers.get(batch.contact.address.family)
        if server is None:
            return
        protocol, record = server.protocol, self._watches.record
        watches = [pack_watch(key, record(key)) for key in batch.keys]
        self._shared.counters["dht.watches_sent"] += 1
        request = Watch(0, protocol.request_id(), protocol.flags, batch.lease_s, watches)
        protocol.ask(batch.contact, request, partial(self._on_watching, batch))

    def _on_watching(self, batch: Batch, answer: Answer | None) -> None:
        if not self._is_running:
            return
        now = self._shared.now()
        if answer is None or not isinstance(answer.reply, Watching):
            self._watches.on_silent(batch.contact, now)
        else:
            reply = answer.reply
            if self._hear_all(batch, reply.records) and batch.is_renewal:
                self._shared.counters["dht.push_missed"] += 1
                self._watches.reach.on_missed(now)
            self._watches.on_watching(batch, reply.lease_s, reply.outcomes, now)
        self._pump()
        for key in batch.keys:
            self._settle(key)

    def _hear_all(self, batch: Batch, blobs: list[bytes]) -> bool:
        """Whether there was news in what a holder sent along."""
        is_news = False
        for blob in blobs:
            try:
                record = self._parse(blob, batch.keys, self._shared.wall())
            except RecordError as error:
                self._shared.counters[f"record.{error.reason}"] += 1
            else:
                is_news |= self._hear(record)
        return is_news

    def _keep_alive(self, contact: Contact) -> None:
        server = self._servers.get(contact.address.family)
        if server is not None:
            self._shared.counters["dht.keep_alives"] += 1
            server.protocol.ping(contact, partial(self._on_pong, contact))

    def _on_pong(self, contact: Contact, answer: Answer | None) -> None:
        if answer is None:
            self._watches.on_silent(contact, self._shared.now())
        else:
            self._watches.at.on_alive(contact, self._shared.now())
        self._pump()

    # --- inside: those who read ---

    def _parse(self, blob: bytes, keys: Sequence[bytes], wall: float) -> AnyRecord:
        record = self._shared.parser.parse(blob, wall)
        if record.key not in keys or isinstance(record, MembershipRecord):
            raise RecordError("other_key")
        return record

    def _hear(self, record: AnyRecord) -> bool:
        event = self._watches.on_record(record, self._shared.wall())
        if event is not None:
            self._tell(event)
        return event is not None

    def _tell(self, event: WatchEvent) -> None:
        self._shared.counters["dht.watch_events"] += 1
        for reader in self._readers.get(event.record.key, ()):
            reader.on_event(event)

    def _settle(self, key: bytes) -> None:
        if key in self._settling and (not self._is_running or self._watches.is_settled(key)):
            for waiter in self._settling.pop(key):
                if not waiter.done():
                    waiter.set_result(None)
