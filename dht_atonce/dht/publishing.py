"""Publishing: a record of ours is stored at the nodes nearest to its key, and never an older one over a newer."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from dht_atonce.dht.crawl import Crawl
from dht_atonce.dht.family import FamilyServer
from dht_atonce.dht.own import OwnRecord, OwnRecords, Signer
from dht_atonce.dht.shared import Shared
from dht_atonce.endpoints import Family
from dht_atonce.errors import AtOnceError, ClockWrong
from dht_atonce.records import AnyRecord

__all__ = ["PublishResult", "Publisher"]

SPARE = 5  # one more replica for so many


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What came of publishing."""

    confirmed: int
    """Other nodes that hold the record now."""
    asked: int
    home: bool
    """It is in our own store too."""
    elapsed_s: float = field(default=0.0, compare=False)


class Publisher:
    """Publishes the records of one identity, in all families. `incarnations` are our process and those before it."""

    __slots__ = ("_incarnations", "_servers", "_shared", "on_conflict", "on_due", "on_published", "own")

    def __init__(self, shared: Shared, servers: dict[Family, FamilyServer], incarnations: tuple[bytes, ...]) -> None:
        self.own = OwnRecords(shared.network, shared.config, shared.host.rng)
        self.on_conflict: Callable[[AnyRecord], None] | None = None
        """Told of a newer record of ours that another process signed after our first publish."""
        self.on_published: Callable[[AnyRecord, PublishResult], None] | None = None
        """Told of each round of publishing that ended, whoever asked for it."""
        self.on_due: Callable[[], None] | None = None
        """Told when the time at which the next record is due has changed."""
        self._shared = shared
        self._servers = servers
        self._incarnations = incarnations

    async def publish(self, key: bytes, sign: Signer, *, is_goodbye: bool = False) -> PublishResult:
        """As `DhtNode.publish`."""
        sign(
            1 << 63, (1 << 32) - 1
        )  # as long as it can get: what cannot be signed is refused before it takes the place of what we said before
        own = self.own.put(key, sign, self._shared.now(), is_goodbye=is_goodbye)
        return await self._publish(key, own, self.own.on_publishing(own))

    def republish(self, key: bytes, own: OwnRecord) -> Coroutine[Any, Any, None]:
        """Publish of our own accord; it is not due any more from now on, though it is only published when awaited."""
        return self._republish(key, own, self.own.on_publishing(own))

    # --- inside ---

    async def _republish(self, key: bytes, own: OwnRecord, generation: int) -> None:
        # Nobody is there to tell: what fails is counted and tried again.
        try:
            await self._publish(key, own, generation)
        except (AtOnceError, ValueError):
            self._shared.counters["dht.republish_failed"] += 1

    async def _publish(self, key: bytes, own: OwnRecord, generation: int) -> PublishResult:
        shared = self._shared
        began = shared.now()
        try:
            if shared.skew.is_hopeless:
                raise ClockWrong("this machine's clock differs by more than a day from all others; set it right")
            # What lies there already may be newer than what we know of: left by an earlier run of ours, so that a
            # restored backup or a clock set back must not make us fall silent; or by another process.
            crawls = await self._find_nearest(key)
            found = max(
                (c.lookup.record for c in crawls.values() if c.lookup.record is not None), key=_seq, default=None
            )
            found_seq = found.seq if found is not None else 0
            if found is not None and own.record is not None and found.seq > own.last_seq:
                self._check_conflict(found)
            asked, newer = await self._store(crawls, key, own, self._renew(own, found_seq))
            if newer is not None:
                self._check_conflict(newer)
                asked, _ = await self._store(crawls, key, own, self._renew(own, newer.seq))
        except Exception:
            self.own.on_failed(own, generation, shared.now())
            self._tell_due()
            raise
        self.own.on_published(own, generation, shared.now(), known=self._known_nodes())
        self._tell_due()
        result = PublishResult(len(own.confirmed), asked, home=True, elapsed_s=shared.now() - began)
        if self.on_published is not None and own.record is not None:
            self.on_published(own.record, result)
        return result

    def _renew(self, own: OwnRecord, found_seq: int) -> AnyRecord:
        wall = self._shared.wall()
        record = self.own.renew(own, wall, found_seq)
        self._shared.store.keep(record, wall)
        return record

    async def _find_nearest(self, key: bytes) -> dict[FamilyServer, Crawl]:
        most = self._shared.config.publish_max_requests
        crawls = {
            server: server.crawl(
                key, wants_record=True, all_nearest=True, need=self._replicas, eager=True, max_requests=most
            )
            for server in self._servers.values()
        }
        for crawl in crawls.values():
            await crawl.done
        return crawls

    async def _store(
        self, crawls: dict[FamilyServer, Crawl], key: bytes, own: OwnRecord, record: AnyRecord
    ) -> tuple[int, AnyRecord | None]:
        """Store at the nearest of each family; gives how many were asked, and a newer record if one is held."""
        asked, newer = 0, None
        for server, crawl in crawls.items():
            lookup = crawl.lookup
            # Whoever else holds an older one shall not answer with it.
            nearest = dict.fromkeys([*lookup.closest(self._replicas, server.region), *lookup.holders()])
            round_ = await server.store_at(list(nearest), record)
            asked += round_.asked
            newer = round_.newer or newer
            own.passed_over += round_.passed_over
            for node_id in round_.confirmed:
                self.own.on_stored(key, node_id)
        return asked, newer

    @property
    def _replicas(self) -> int:
        """k, and some more: who is next to the k nearest may not know it, and answer with what it held before."""
        k = self._shared.network.k
        return k + k // SPARE

    def _check_conflict(self, newer: AnyRecord) -> None:
        if newer.incarnation not in self._incarnations and self.on_conflict is not None:
            self.on_conflict(newer)

    def _tell_due(self) -> None:
        if self.on_due is not None:
            self.on_due()

    def _known_nodes(self) -> int:
        return max((len(server.router) for server in self._servers.values()), default=0)


def _seq(record: AnyRecord) -> int:
    return record.seq
