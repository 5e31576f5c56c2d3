"""The DHT in one address family: one socket, one table."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kademlia.network import Server as StockServer

from dht_atonce.dht.contact import Contact
from dht_atonce.dht.crawl import Crawl
from dht_atonce.dht.density import CROWDED, IDS, radius, side_targets
from dht_atonce.dht.lookup import Lookup
from dht_atonce.dht.protocol import Answer, SealedProtocol
from dht_atonce.dht.routing import RoutingTable
from dht_atonce.dht.seat_check import SeatCheck
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.wire import Request, Stored, StoreOutcome
from dht_atonce.endpoints import Address, Family
from dht_atonce.errors import RecordError
from dht_atonce.records import AnyRecord

__all__ = ["FamilyServer", "StoreRound"]


@dataclass(slots=True)
class StoreRound:
    """What came of storing one record at the nodes nearest to its key."""

    record: AnyRecord
    asked: int = 0
    confirmed: list[Contact] = field(default_factory=list)
    """Who holds it now."""
    passed_over: list[Contact] = field(default_factory=list)
    """Whose topic is full, and the lot fell on others."""
    newer: AnyRecord | None = None
    """A newer record of the same key that somebody holds."""
    done: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done when each of them has answered, or failed to. Until then the rest says what is known so far."""


class FamilyServer(StockServer):
    """`kademlia`'s server, for one family and with our protocol.

    From kademlia: `ksize`, `alpha`, `storage`, `protocol`, `protocol_class`. Replaced: `listen` (an own socket, and no
    refresh of its own accord), `bootstrap` (contacts have keys), `stop`; `set`, `get` and the upkeep are `DhtNode`'s,
    since they concern both families.
    """

    protocol_class = SealedProtocol
    protocol: SealedProtocol

    def __init__(self, shared: Shared, family: Family, routers: dict[Family, RoutingTable]) -> None:
        # Not the stock constructor: it would make a storage and a Node that nobody uses.
        self.ksize = shared.network.k
        self.alpha = shared.config.alpha
        self.storage = shared.store
        self.family = family
        self.address: Address | None = None
        """Where it is bound, once it listens."""
        self._shared = shared
        self._routers = routers
        self.seats = SeatCheck(shared.config, shared.host.rng, shared.now())
        self._crawls: dict[Crawl, None] = {}
        self.protocol = self._create_protocol()

    def _create_protocol(self) -> SealedProtocol:
        return self.protocol_class(self._shared, self.family, self._routers)

    async def listen(self, port: int, interface: str = "0.0.0.0") -> None:  # noqa: S104
        """Bind. Raises `PortInUse`."""
        self.address = self.protocol.open(Address(interface, port))

    def stop(self) -> None:
        """Close the socket; lookups end with what they have."""
        for crawl in list(self._crawls):
            crawl.stop()
        self.protocol.close()

    @property
    def router(self) -> RoutingTable:
        return self.protocol.router

    def crawl(
        self,
        target: bytes,
        *,
        start: list[Contact] | None = None,
        wants_record: bool = False,
        all_nearest: bool = False,
        want: int = 0,
        need: int | None = None,
        eager: bool = False,
        max_requests: int | None = None,
        lead: int = 0,
        make: Callable[..., Crawl] = Crawl,
    ) -> Crawl:
        """Start a lookup of `target` (20 B) from `start` or from our table, until the nearest `need` (default: k) have
        answered.

        `eager`: its result is waited for as a whole, so more are asked at once.
        Where records are concerned (`wants_record`), so must all of the region that honest nodes are to be expected
        in. Once a record is found, a few of the nearest that agree are enough, unless `all_nearest` are to be found.
        `make` makes the crawl, if it is to ask for something else.
        """
        shared, long_target = self._shared, int.from_bytes(target, "big")
        k = shared.network.k
        known = self.router.find_neighbors(long_target, k, failing=True) if start is None else start
        region = self.region if wants_record else 0
        agreement = shared.config.fresh_agreement if eager else shared.config.agreement
        lookup = Lookup(
            long_target,
            known,
            own_id=shared.node_key.id,
            need=need or k,
            need_with_record=need or k if all_nearest else min(k, agreement),
            within=region,
            agreement=None if eager or all_nearest else agreement,
            now=shared.now(),
            config=shared.config,
            eager=eager,
            max_requests=max_requests,
            lead=lead,
        )
        shared.counters["dht.lookups"] += 1
        crawl = make(
            self.protocol,
            shared,
            self.family,
            lookup,
            target,
            wants_record=wants_record,
            want=want,
            scout=partial(self._scout, region) if region else None,
        )
        self._crawls[crawl] = None
        crawl.done.add_done_callback(lambda _: self._on_crawled(crawl))
        return crawl

    @property
    def region(self) -> int:
        """The distance from a key within which all are to store its record, and are asked before we say that there is
        none."""
        return int(self._shared.config.region * radius(self.router.nodes, self._shared.network.k))

    def surely_near(self, target: int, count: int) -> list[Contact]:
        """Of the `count` nearest that we know, those that are to hold the record of `target` whoever else there is, and
        will take it at once: a STORE without a cookie is refused first, as is any one that comes with many of them."""
        shared = self._shared
        region, now = self.region if self.router.nodes > shared.network.k else IDS, shared.now()
        return [
            contact
            for contact in self.router.find_neighbors(target, count)
            if contact.long_id ^ target < region and (shared.network.local or shared.known.cookie(contact, now))
        ]

    def _scout(self, region: int, lookup: Lookup) -> list[Crawl]:
        """Searches for those in the region who are not named any more, since others crowd in on the key. None, if
        nobody does."""
        reach = lookup.reach()
        if reach is None or reach >= CROWDED * region:
            return []
        self._shared.counters["dht.crowded"] += 1
        targets = side_targets(lookup.target, region, self._shared.host.rng)
        return [self.crawl(side.to_bytes(20, "big"), need=self._shared.config.scouted) for side in targets]

    def _on_crawled(self, crawl: Crawl) -> None:
        del self._crawls[crawl]
        self.router.on_lookup_done(crawl.lookup.target, self._shared.now())

    def nearest_to_us(self) -> list[Contact]:
        """Our neighbours, as far as our table knows."""
        return self.router.find_neighbors(int.from_bytes(self._shared.node_key.id, "big"), failing=True)

    async def bootstrap(self, addrs: list[Contact], want: int = 0) -> Crawl:
        """Find our place, starting from these contacts: look up our own id, then show each that answered, and does not
        know yet that we are where we say, its cookie. Thereby we get our seats."""
        crawl = self.crawl(self._shared.node_key.id, start=addrs, want=want)
        try:
            await crawl.done
        finally:
            crawl.stop()
        if not self._shared.no_seat:
            await self._gather(crawl.strangers, self.protocol.ping)
        return crawl

    async def look_around(self) -> None:
        """Ask our nearest neighbours who is near us, and call on those whom they name and we do not know: they came
        when we did, and our lookup missed them."""
        own_id = self._shared.node_key.id
        crawl = self.crawl(own_id, need=self._shared.config.look_around)
        try:
            await crawl.done
        finally:
            crawl.stop()
        named = [c for c in crawl.lookup.unasked(self._shared.network.k) if self.router.is_new_node(c)]
        await self._gather(crawl.strangers + named, self.protocol.ping)

    async def ask(self, contact: Contact, request: Request) -> Answer | None:
        """One request and its answer."""
        answers = await self._gather([contact], lambda c, on_answer: self.protocol.ask(c, request, on_answer))
        return answers[0]

    async def store_at(self, contacts: list[Contact], record: AnyRecord) -> StoreRound:
        """Ask all of `contacts` at once to keep `record`."""
        round_ = self.begin_store(contacts, record)
        await round_.done
        return round_

    def begin_store(self, contacts: list[Contact], record: AnyRecord) -> StoreRound:
        """As `store_at`, for whoever has something else to do meanwhile."""
        round_ = StoreRound(record, len(contacts))
        waiting = len(contacts)

        def on_answer(contact: Contact, answer: Answer | None) -> None:
            nonlocal waiting
            self._on_stored(round_, contact, answer)
            waiting -= 1
            if not waiting and not round_.done.done():
                round_.done.set_result(None)

        for contact in contacts:
            self.protocol.store(contact, record.blob, partial(on_answer, contact))
        if not contacts:
            round_.done.set_result(None)
        return round_

    def _on_stored(self, round_: StoreRound, contact: Contact, answer: Answer | None) -> None:
        if answer is None or not isinstance(answer.reply, Stored):
            return
        if answer.reply.outcome == StoreOutcome.STORED:
            round_.confirmed.append(contact)
        elif answer.reply.outcome == StoreOutcome.PASSED_OVER:
            round_.passed_over.append(contact)
        elif answer.reply.record:
            round_.newer = self._newer_of_own(answer.reply.record, round_.record, round_.newer)

    def _newer_of_own(self, blob: bytes, record: AnyRecord, best: AnyRecord | None) -> AnyRecord | None:
        try:
            newer = self._shared.parser.parse(blob, self._shared.wall())
        except RecordError as error:
            self._shared.counters[f"record.{error.reason}"] += 1
            return best
        if newer.key != record.key or newer.peer_id != record.peer_id or newer.seq < record.seq:
            return best
        return newer if best is None or newer.seq > best.seq else best

    async def _gather(
        self, contacts: list[Contact], ask: Callable[[Contact, Callable[[Answer | None], None]], Any]
    ) -> list[Answer | None]:
        """The answers of all `contacts`, in their order."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answer | None]] = []
        for contact in contacts:
            future: asyncio.Future[Answer | None] = loop.create_future()
            futures.append(future)
            ask(contact, _settler(future))
        return list(await asyncio.gather(*futures))


def _settler(future: "asyncio.Future[Answer | None]") -> Callable[[Answer | None], None]:
    def settle(answer: Answer | None) -> None:
        if not future.done():
            future.set_result(answer)

    return settle
