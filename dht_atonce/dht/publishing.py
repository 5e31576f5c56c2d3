"""Publishing: a record of ours is stored at the nodes nearest to its key, and never an older one over a newer.

Whoever is known to be near the key is told at once, the nearest first, for there the watchers wait; only then we look
who is nearest by now, and tell those who are as soon as they answer. If something newer than we know of turns up, we
sign once more, above it, and all are told of that.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dht_atonce.dht.contact import Contact
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


@dataclass(slots=True)
class _Early:
    """What was said before it was known who is nearest."""

    record: AnyRecord | None = None
    """None: not signed yet."""
    rounds: list[StoreRound] = field(default_factory=list)
    asked: set[Contact] = field(default_factory=set)

    def confirmed(self) -> list[Contact]:
        return [contact for round_ in self.rounds for contact in round_.confirmed]

    def newer(self) -> list[AnyRecord]:
        return [round_.newer for round_ in self.rounds if round_.newer is not None]


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

    async def publish(
        self, key: bytes, sign: Signer, *, is_goodbye: bool = False, is_watched: bool = True
    ) -> PublishResult:
        """As `DhtNode.publish`; what nobody watches need not be told before it is known who is nearest."""
        sign(
            1 << 63, (1 << 32) - 1
        )  # as long as it can get: what cannot be signed is refused before it takes the place of what we said before
        own = self.own.put(key, sign, self._shared.now(), is_goodbye=is_goodbye)
        own.is_watched = is_watched
        return await self._publish(key, own, self.own.on_publishing(own))

    @property
    def crowd(self) -> float:
        """How many nodes there seem to be, in the family that has more."""
        return max((server.router.nodes for server in self._servers.values()), default=1.0)

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
            early = _Early()
            if last is None:
                await self._tell_known(key, own, early)
                crawls = self._look(key, own, early)
            else:
                # We ask first: another process may have signed what those who are told lose by it.
                crawls = self._look(key, own, early)
                await self._tell_known(key, own, early)
            for crawl in crawls.values():
                await crawl.done
            record = early.record
            # What lies there already may be newer than what we know of: left by an earlier run of ours, so that a
            # restored backup or a clock set back must not make us fall silent; or by another process.
            newer = self._newer(crawls, early, last)
            outdated: list[Contact] = []
            if record is None or (newer is not None and newer.seq > record.seq):
                record = self._renew(own, newer.seq if newer is not None else 0)
                outdated = early.confirmed()
            for round_ in early.rounds:
                self._on_round(key, own, round_)
            asked, newer = await self._store(crawls, key, own, record, outdated)
            if newer is not None:
                self._check_conflict(newer)
                asked, _ = await self._store(crawls, key, own, self._renew(own, newer.seq), early.confirmed())
        except Exception:
            self.own.on_failed(own, generation, shared.now())
            self._tell_due()
            raise
        self.own.on_published(own, generation, shared.now(), known=self._known_nodes(), crowd=self.crowd)
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

    def _look(self, key: bytes, own: OwnRecord, early: _Early) -> dict[FamilyServer, Crawl]:
        """Begin to look who is nearest."""
        config = self._shared.config
        crawls = {
            server: server.crawl(
                key,
                wants_record=True,
                all_nearest=True,
                need=self._replicas,
                eager=True,
                max_requests=config.publish_max_requests,
                lead=config.watch_nodes,
            )
            for server in self._servers.values()
        }
        for server, crawl in crawls.items() if own.is_watched else ():
            crawl.on_answered = partial(self._on_answered, own, early, server)
        return crawls

    async def _tell_known(self, key: bytes, own: OwnRecord, early: _Early) -> None:
        """Tell whom we need not look for: who held our last record, or else the nearest of our table, if they are so
        near that they are to hold it whoever else there is."""
        target, first = int.from_bytes(key, "big"), self._shared.config.watch_nodes
        known = own.holders
        if not known and own.is_watched:
            known = [contact for server in self._servers.values() for contact in server.surely_near(target, first)]
        if known:
            known = sorted(known, key=lambda contact: contact.long_id ^ target)
            early.asked.update(known)
            early.record = self._renew(own, 0)
            early.rounds += await self._tell(known[:first], known[first:], early.record)

    def _on_answered(self, own: OwnRecord, early: _Early, server: FamilyServer, crawl: Crawl) -> None:
        """Somebody answered while we look: who is among the nearest need not wait for the end of it."""
        leading = crawl.lookup.leading(self._shared.config.watch_nodes)
        contacts = [contact for contact in leading if contact not in early.asked]
        if not contacts:
            return
        found = crawl.lookup.record
        if early.record is None:
            early.record = self._renew(own, found.seq if found is not None else 0)
        if own.record is early.record and (found is None or found.seq <= early.record.seq):
            early.asked.update(contacts)
            early.rounds.append(server.begin_store(contacts, early.record))

    async def _tell(self, first: list[Contact], others: list[Contact], record: AnyRecord) -> list[StoreRound]:
        """Begin to store `record` at all of them. Nobody's answer is waited for, but the `first` have a lead: in a
        process or a network that is busy with what we send next, they would hear of it last."""
        rounds = self._begin_store(first, record)
        if first:
            await asyncio.wait([round_.done for round_ in rounds], timeout=self._shared.config.publish_lead_s)
        return rounds + self._begin_store(others, record)

    def _begin_store(self, contacts: list[Contact], record: AnyRecord) -> list[StoreRound]:
        return [
            server.begin_store([contact for contact in contacts if contact.address.family is server.family], record)
            for server in self._servers.values()
        ]

    def _newer(self, crawls: dict[FamilyServer, Crawl], early: _Early, last: AnyRecord | None) -> AnyRecord | None:
        """The newest that others hold, if it is newer than our last; then somebody else may have signed it."""
        found = [record for crawl in crawls.values() for record in crawl.lookup.records()]
        found += early.newer()
        newer = [record for record in found if last is None or record.seq > last.seq]
        for record in newer if last is not None else ():
            self._check_conflict(record)
        return max(newer, key=_seq, default=None)

    def _on_round(self, key: bytes, own: OwnRecord, round_: StoreRound) -> None:
        if own.record is not round_.record:
            return  # signed anew meanwhile: those who hold this one are still to be told
        for contact in round_.confirmed:
            self.own.on_stored(key, contact.id)
            if contact not in own.holders:
                own.holders.append(contact)
        for contact in round_.passed_over:
            self.own.on_passed_over(key, contact.id)

    async def _store(
        self,
        crawls: dict[FamilyServer, Crawl],
        key: bytes,
        own: OwnRecord,
        record: AnyRecord,
        outdated: list[Contact],
    ) -> tuple[int, AnyRecord | None]:
        """Store at the nearest of each family that do not hold it yet, and at the `outdated`, who hold what we said a
        moment ago; gives how many are to hold it, and a newer record if one is held."""
        asked, newer = 0, None
        own.holders = []
        for server, crawl in crawls.items():
            lookup = crawl.lookup
            # Whoever else holds an older one shall not answer with it.
            older = [contact for contact in outdated if contact.address.family is server.family]
            nearest = list(dict.fromkeys([*lookup.closest(self._replicas, server.region), *lookup.holders(), *older]))
            asked += len(nearest)
            own.holders += [contact for contact in nearest if contact.id in own.confirmed]
            told, first = set(own.told), self._shared.config.watch_nodes
            watching = [contact for contact in nearest[:first] if contact.id not in told]
            others = [contact for contact in nearest[first:] if contact.id not in told]
            for round_ in await self._tell(watching, others, record):
                await round_.done
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
