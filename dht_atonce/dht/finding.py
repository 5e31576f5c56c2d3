"""Finding a record in all families at once: the first answer, or the newest that the nearest agree on."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from dht_atonce.dht.crawl import Crawl
from dht_atonce.dht.family import FamilyServer
from dht_atonce.dht.own import OwnRecords
from dht_atonce.dht.shared import Shared
from dht_atonce.endpoints import Family
from dht_atonce.records import AnyRecord, is_newer

__all__ = ["FindResult", "Finder"]


@dataclass(frozen=True, slots=True)
class FindResult:
    """What a lookup of a record gave."""

    record: AnyRecord | None
    local: bool
    """It came from our own store: nobody was asked."""
    hops: int
    """Length of the referral chain to the node that had it; a contact of our own table is 1."""
    requests: int
    elapsed_s: float


class Finder:
    """The lookups of one node. `want` gives the families whose contacts are to be asked for beside one."""

    __slots__ = ("_own", "_servers", "_shared", "_turns", "_want", "on_record")

    def __init__(
        self,
        shared: Shared,
        servers: dict[Family, FamilyServer],
        own: OwnRecords,
        want: Callable[[Family], int],
    ) -> None:
        self.on_record: Callable[[AnyRecord | None], None] | None = None
        """Told of what each lookup found: first, and in the end."""
        self._shared = shared
        self._servers = servers
        self._own = own
        self._want = want
        self._turns: asyncio.Semaphore | None = None

    def turn(self) -> asyncio.Semaphore:
        """What a lookup is to hold while it runs: so many at once, and the others wait."""
        if self._turns is None:
            self._turns = asyncio.Semaphore(self._shared.config.max_lookups)
        return self._turns

    async def find(self, key: bytes, *, fresh: bool) -> FindResult:
        """As `DhtNode.find`."""
        shared = self._shared
        began = shared.now()
        held = shared.store.live(key, shared.wall())
        if held is not None and not fresh and self._is_ours(key):
            return FindResult(held, True, 0, 0, 0.0)
        async with self.turn():
            crawls = [self.search(server, key, eager=fresh) for server in self._servers.values()]
            record, crawl = await _newest(crawls) if fresh else await _first(crawls)
        local = held is not None and is_newer(held, record)
        if local:
            record = held
        requests = sum(crawl.lookup.requests for crawl in crawls)
        hops = crawl.lookup.record_hops if crawl is not None and not local else 0
        return FindResult(record, local, hops, requests, shared.now() - began)

    def search(self, server: FamilyServer, key: bytes, *, eager: bool = False) -> Crawl:
        """Start a lookup of the record of `key` in one family; what it finds is told, and who lacks it is mended."""
        crawl = server.crawl(key, wants_record=True, eager=eager, want=self._want(server.family))
        crawl.first.add_done_callback(lambda first: self._tell(first.result()))
        crawl.done.add_done_callback(lambda _: self._on_done(server, crawl))
        return crawl

    def _is_ours(self, key: bytes) -> bool:
        """Whether its owner tells us of newer records of this key: we said it ourselves, or are among the nearest."""
        if key in self._own:
            return True
        own_id, target = int.from_bytes(self._shared.node_key.id, "big"), int.from_bytes(key, "big")
        return any(server.router.is_responsible(own_id, target) for server in self._servers.values())

    def _on_done(self, server: FamilyServer, crawl: Crawl) -> None:
        record, shared = crawl.lookup.record, self._shared
        self._tell(record)
        if record is None or shared.no_seat:
            return
        for contact in crawl.lookup.lacking(min(shared.network.k, shared.config.agreement)):
            shared.counters["dht.repairs"] += 1
            server.protocol.store(contact, record.blob, lambda _: None)

    def _tell(self, record: AnyRecord | None) -> None:
        if self.on_record is not None:
            self.on_record(record)


async def _first(crawls: list[Crawl]) -> tuple[AnyRecord | None, Crawl | None]:
    if len(crawls) == 1:
        record = await asyncio.shield(crawls[0].first)
        return record, None if record is None else crawls[0]
    pending = {crawl.first: crawl for crawl in crawls}
    while pending:
        done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for future, crawl in list(pending.items()):
            if future in done:
                del pending[future]
                record = future.result()
                if record is not None:
                    return record, crawl
    return None, None


async def _newest(crawls: list[Crawl]) -> tuple[AnyRecord | None, Crawl | None]:
    best: tuple[AnyRecord | None, Crawl | None] = (None, None)
    for crawl in crawls:
        await crawl.done
        record = crawl.lookup.record
        if record is not None and is_newer(record, best[0]):
            best = (record, crawl)
    return best
