"""What a node does of its own accord: forget what is over, refresh buckets, look round, hand records on, publish again.

One timer for all of it, set to the earliest deadline; a wake-up looks at each and starts what is due.
"""

import asyncio
import heapq
import math
from collections.abc import Callable

from dht_atonce.dht.contact import Contact
from dht_atonce.dht.family import FamilyServer
from dht_atonce.dht.handoff import SCAN, HandOff, NearKeys
from dht_atonce.dht.protocol import Answer
from dht_atonce.dht.publishing import Publisher
from dht_atonce.dht.routing import RoutingTable
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.wire import Stored, StoreOutcome
from dht_atonce.endpoints import Family
from dht_atonce.records import AnyRecord
from dht_atonce.tasks import TaskGroup

__all__ = ["Upkeep"]

_LAST = b"\xff" * 32  # no identity comes after it
_TIDY_S = 30.0  # between two looks for what has expired
_SETTLED_S = 60.0  # after a join, at the latest, we look for those who joined near us at the same time


class Upkeep:
    """The upkeep of one node, in all families."""

    __slots__ = (
        "_hand_off",
        "_is_running",
        "_is_settled",
        "_look_around_at",
        "_near",
        "_own_id",
        "_publisher",
        "_refreshes",
        "_servers",
        "_shared",
        "_tasks",
        "_tidy_at",
        "_timer",
        "_timer_at",
        "_turns",
    )

    def __init__(
        self, shared: Shared, servers: dict[Family, FamilyServer], publisher: Publisher, tasks: TaskGroup
    ) -> None:
        self._shared = shared
        self._servers = servers
        self._publisher = publisher
        publisher.on_due = self.arm
        self._tasks = tasks
        self._own_id = int.from_bytes(shared.node_key.id, "big")
        self._hand_off = HandOff(shared.config)
        self._near: dict[Family, NearKeys] = {}
        # Of a newcomer that is handed the members of a topic, one after another: the identity that it got last
        self._turns: dict[tuple[Contact, bytes], bytes] = {}
        # (when, family, id to look up), the earliest first
        self._refreshes: list[tuple[float, Family, int]] = []
        self._look_around_at = math.inf
        self._tidy_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._is_running = False
        self._is_settled = False

    def start(self) -> None:
        """Begin; a second call does nothing."""
        if not self._is_running:
            self._is_running = True
            self._tidy_at = self._shared.now() + _TIDY_S
            self.arm()

    def stop(self) -> None:
        """End for good."""
        self._is_running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_joined(self) -> None:
        """We found our place."""
        self._look_around_at = self._shared.now() + self._shared.host.rng.uniform(0.5, 1.0) * _SETTLED_S
        self._is_settled = False
        self.arm()

    def on_seated(self, contact: Contact) -> None:
        """`contact` newly got a seat."""
        if self._shared.no_seat:
            return
        keys = self._keys_for(contact, self._servers[contact.address.family].router)
        if keys:
            self._hand_off.on_seated(contact, keys)
            self.arm()

    def _keys_for(self, contact: Contact, router: RoutingTable) -> list[bytes]:
        """The keys of all records that `contact` may be to have; most contacts are to have none."""
        store, wanting = self._shared.store, self._publisher.own.wanting()
        bits = (contact.long_id ^ self._own_id).bit_length()
        if bits > store.reach_bits and router.count_within(self._own_id, bits - 1) >= self._shared.network.k:
            # All our records lie on our side of the tree, and so do k others: nobody has to look at each of them.
            return wanting
        senders = self._shared.config.handoff_senders
        if store.count > SCAN or self._shared.network.k <= senders:
            return store.keys()  # looked at a few at a time
        family = contact.address.family
        if family not in self._near:
            # The newcomer may be nearer than we are, and then sits there already.
            self._near[family] = NearKeys(self._own_id, senders + 1)
        return self._pick(contact, wanting + self._near[family].look(store, router))

    # --- the timer ---

    def arm(self) -> None:
        """See to it that the timer fires no later than the earliest deadline."""
        if not self._is_running:
            return
        now = self._shared.now()
        earliest = min(self._tidy_at, self._look_around_at, self._publisher.own.deadline())
        if self._refreshes:
            earliest = min(earliest, self._refreshes[0][0])
        hand_off_at = self._hand_off.deadline(now)
        if hand_off_at is not None:
            earliest = min(earliest, hand_off_at)
        if self._timer is not None:
            # Too early is looked at once too often, and cheaper than a new one.
            if self._timer_at <= earliest:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, earliest - now), self._on_timer)
        self._timer_at = earliest

    def _on_timer(self) -> None:
        self._timer = None
        now = self._shared.now()
        if now >= self._tidy_at:
            self._tidy_at = now + _TIDY_S
            self._tidy(now)
        while self._refreshes and self._refreshes[0][0] <= now:
            _, family, target = heapq.heappop(self._refreshes)
            self._servers[family].crawl(target.to_bytes(20, "big"))
        if now >= self._look_around_at:
            self._look_around_at = now + self._shared.host.rng.uniform(0.75, 1.0) * self._shared.config.refresh_s
            for server in self._servers.values():
                # First for those who came when we did; later, to see who of our neighbours is still there.
                looking = server.bootstrap(server.nearest_to_us()) if self._is_settled else server.look_around()
                self._tasks.start(looking, "look around")
            self._is_settled = True
        self._hand_over(now)
        for key, own in self._publisher.own.due(now):
            self._tasks.start(self._publisher.republish(key, own), "republish")
        self.arm()

    # --- the work ---

    def _tidy(self, now: float) -> None:
        self._shared.store.expire(self._shared.wall())
        for server in self._servers.values():
            server.router.expire(now)
            server.protocol.tell_seated()
            self._refresh_lonely(server, now)

    def _refresh_lonely(self, server: FamilyServer, now: float) -> None:
        if not len(server.router):
            return
        rng = self._shared.host.rng
        for bucket in server.router.lonely_buckets(now):
            target = rng.randrange(bucket.range[0], bucket.range[1] + 1)
            # Spread over the interval: a table of many buckets shall not be refreshed in one breath.
            heapq.heappush(self._refreshes, (now + rng.uniform(0, _TIDY_S), server.family, target))
            bucket.refreshed(now)

    def _hand_over(self, now: float) -> None:
        for contact, key in self._hand_off.take(now, self._pick):
            record = self._next_for(contact, key, self._shared.wall())
            server = self._servers.get(contact.address.family)
            if record is None or server is None:
                continue
            self._shared.counters["dht.handed_off"] += 1
            server.protocol.store(contact, record.blob, self._on_handed(contact, record))

    def _next_for(self, contact: Contact, key: bytes, wall: float) -> AnyRecord | None:
        """What `contact` is handed of `key` now: its record, or of a topic one member after another, while other keys
        have their turn between them; only our own membership if it is not to be a holder."""
        roster, at = self._shared.store.roster(key), self._turns.pop((contact, key), None)
        if roster is None:
            return self._shared.store.live(key, wall)
        if at is None and not self._is_for(self._servers[contact.address.family].router, contact, key):
            own = self._publisher.own.get(key)
            return own.record if own is not None else None
        record = roster.following(at or b"", wall)
        if record is not None:
            self._turns[contact, key] = record.peer_id.key
            self._hand_off.again(contact, key)
        return record

    def _pick(self, contact: Contact, keys: list[bytes]) -> list[bytes]:
        """The keys whose record we are to hand to `contact`: it is among the k nearest, and we are one of the nearest
        holders; and our own, until there are k of them."""
        router = self._servers[contact.address.family].router
        wanting = set(self._publisher.own.wanting())
        is_live = router.is_live(contact)
        return [key for key in keys if key in wanting or (is_live and self._is_for(router, contact, key))]

    def _is_for(self, router: RoutingTable, contact: Contact, key: bytes) -> bool:
        own_id, target = self._own_id, int.from_bytes(key, "big")
        k, senders = self._shared.network.k, self._shared.config.handoff_senders
        nearer = router.count_nearer(target, own_id, senders + 1)
        if contact.long_id ^ target < own_id ^ target:
            nearer -= 1  # the newcomer itself
        return min(nearer, k - 1) < senders and router.count_nearer(target, contact.long_id, k) < k

    def _on_handed(self, contact: Contact, record: AnyRecord) -> Callable[[Answer | None], None]:
        def on_answer(answer: Answer | None) -> None:
            own = self._publisher.own.get(record.key)
            if answer is None and (contact, record.key) in self._turns:
                self._turns[contact, record.key] = _LAST  # it is gone: the others need not be sent in vain
            if answer is None or not isinstance(answer.reply, Stored) or own is None or own.record is not record:
                return
            if answer.reply.outcome == StoreOutcome.STORED:
                self._publisher.own.on_stored(record.key, contact.id)
            elif answer.reply.outcome == StoreOutcome.PASSED_OVER:
                own.passed_over += 1

        return on_answer
