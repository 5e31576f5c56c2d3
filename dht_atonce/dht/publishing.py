"""Publishing: a record of ours is stored at the nodes nearest to its key, and never an older one over a newer.

The first time, we look before we sign: what lies there may be newer than what we know of. Later on the nodes that held
our last record are told of the new one while we look who is nearest by now.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from dht_atonce.dht.crawl import Crawl
from dht_atonce.dht.family import FamilyServer, StoreRound
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
            last = own.record
            record = self._renew(own, 0) if own.holders else None
            crawls, told = await asyncio.gather(self._find_nearest(key), self._tell_holders(key, own, record))
            # What lies there already may be newer than what we know of: left by an earlier run of ours, so that a
            # restored backup or a clock set back must not make us fall silent; or by another process.
            newer = self._newer(crawls, told, last)
            if record is None or (newer is not None and newer.seq > record.seq):
                record = self._renew(own, newer.seq if newer is not None else 0)
            asked, newer = await self._store(crawls, key, own, record)
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

    async def _tell_holders(self, key: bytes, own: OwnRecord, record: AnyRecord | None) -> AnyRecord | None:
        """Store `record`, if there is one, at those that held the last one; gives a newer one if they hold it."""
        newer = None
        if record is None:
            return None
        for server in self._servers.values():
            holders = [contact for contact in own.holders if contact.address.family is server.family]
            round_ = await server.store_at(holders, record)
            self._on_round(key, own, round_)
            newer = round_.newer or newer
        return newer

    def _newer(
        self, crawls: dict[FamilyServer, Crawl], told: AnyRecord | None, last: AnyRecord | None
    ) -> AnyRecord | None:
        """The newest that others hold, if it is newer than our last; then somebody else may have signed it."""
        found = [record for crawl in crawls.values() for record in crawl.lookup.records()]
        newer = [record for record in [*found, told] if record is not None and (last is None or record.seq > last.seq)]
        for record in newer if last is not None else ():
            self._check_conflict(record)
        return max(newer, key=_seq, default=None)

    def _on_round(self, key: bytes, own: OwnRecord, round_: StoreRound) -> None:
        for contact in round_.confirmed:
            self.own.on_stored(key, contact.id)
            if contact not in own.holders:
                own.holders.append(contact)
        for contact in round_.passed_over:
            self.own.on_passed_over(key, contact.id)

    async def _store(
        self, crawls: dict[FamilyServer, Crawl], key: bytes, own: OwnRecord, record: AnyRecord
    ) -> tuple[int, AnyRecord | None]:
        """Store at the nearest of each family that do not hold it yet; gives how many are to hold it, and a newer
        record if one is held."""
        asked, newer = 0, None
        own.holders = []
        for server, crawl in crawls.items():
            lookup = crawl.lookup
            # Whoever else holds an older one shall not answer with it.
            nearest = dict.fromkeys([*lookup.closest(self._replicas, server.region), *lookup.holders()])
            asked += len(nearest)
            own.holders += [contact for contact in nearest if contact.id in own.confirmed]
            round_ = await server.store_at([contact for contact in nearest if contact.id not in own.told], record)
            newer = round_.newer or newer
            self._on_round(key, own, round_)
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
