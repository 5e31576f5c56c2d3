"""What a node does of its own accord: forget what is over, ask whether those with seats are there, refresh buckets,
look round, hand records on, publish again.

One timer for all of it, set to the earliest deadline; a wake-up looks at each and starts what is due.
"""

import asyncio
import heapq
import math

from dht_atonce.dht.buckets import KBucket
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.family import FamilyServer
from dht_atonce.dht.publishing import Publisher
from dht_atonce.dht.replicas import Replicas
from dht_atonce.dht.shared import Shared
from dht_atonce.endpoints import Family
from dht_atonce.tasks import TaskGroup

__all__ = ["Upkeep"]

_TIDY_S = 30.0  # between two looks for what has expired
_SETTLED_S = 60.0  # after a join, at the latest, we look for those who joined near us at the same time


class Upkeep:
    """The upkeep of one node, in all families."""

    __slots__ = (
        "_check_at",
        "_is_running",
        "_is_settled",
        "_look_around_at",
        "_publisher",
        "_refreshes",
        "_replicas",
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
        self._replicas = Replicas(shared, servers, publisher.own)
        # (when, family, id to look up), the earliest first
        self._refreshes: list[tuple[float, Family, int]] = []
        self._look_around_at = math.inf
        self._tidy_at = math.inf
        self._check_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._is_running = False
        self._is_settled = False

    def start(self) -> None:
        """Begin; a second call does nothing."""
        if not self._is_running:
            self._is_running = True
            now = self._shared.now()
            self._tidy_at = now + _TIDY_S
            self._check_at = now + self._shared.config.max_check_pause_s
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
        if not self._shared.no_seat and self._replicas.on_seated(contact):
            self.arm()

    # --- the timer ---

    def arm(self) -> None:
        """See to it that the timer fires no later than the earliest deadline."""
        if not self._is_running:
            return
        now = self._shared.now()
        earliest = min(self._tidy_at, self._check_at, self._look_around_at, self._publisher.own.deadline())
        if self._refreshes:
            earliest = min(earliest, self._refreshes[0][0])
        hand_off_at = self._replicas.deadline(now)
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
            self._servers[family].crawl(target.to_bytes(20, "big"), need=self._shared.config.refresh_need)
        if now >= self._check_at:
            self._check_seats(now)
        if now >= self._look_around_at:
            self._look_around_at = now + self._shared.host.rng.uniform(0.75, 1.0) * self._look_around_s()
            for server in self._servers.values():
                # First for those who came when we did; later, to see who of our neighbours is still there.
                looking = server.bootstrap(server.nearest_to_us()) if self._is_settled else server.look_around()
                self._tasks.start(looking, "look around")
                if not self._is_settled:
                    # On our way here we met those who are near us, and the few who led us.
                    self._refresh(server, server.router.thin_buckets(), now)
            self._is_settled = True
        self._replicas.hand_over(now)
        for key, own in self._publisher.own.due(now):
            self._tasks.start(self._publisher.republish(key, own), "republish")
        self.arm()

    # --- the work ---

    def _tidy(self, now: float) -> None:
        self._shared.store.expire(self._shared.wall())
        self._replicas.shed()
        self._publisher.own.on_crowd(self._publisher.crowd, now)
        for server in self._servers.values():
            self._refresh_lonely(server, now)

    def _check_seats(self, now: float) -> None:
        config = self._shared.config
        pause_s = config.max_check_pause_s
        for server in self._servers.values():
            router, seats = server.router, server.seats
            gone = router.take_gone()
            for contact in seats.look(router, gone, now):
                server.protocol.ping(contact, lambda _: None)
            if not self._shared.no_seat:
                for contact in gone:
                    self._replicas.on_gone(contact)
            if seats.take_returned():
                self._look_around_at = now  # two networks grow together
            pause_s = min(pause_s, seats.pause_s(router))
        self._check_at = now + pause_s * self._shared.host.rng.uniform(0.8, 1.0)

    def _look_around_s(self) -> float:
        """A quarter of the time for which those with seats stay, within bounds."""
        config = self._shared.config
        quarter_s = min((server.seats.turnover.session_s / 4 for server in self._servers.values()), default=math.inf)
        return min(config.refresh_s, max(config.min_look_around_s, quarter_s))

    def _refresh_lonely(self, server: FamilyServer, now: float) -> None:
        if len(server.router):
            self._refresh(server, server.router.lonely_buckets(now), now)

    def _refresh(self, server: FamilyServer, buckets: list[KBucket], now: float) -> None:
        rng = self._shared.host.rng
        for bucket in buckets:
            target = rng.randrange(bucket.range[0], bucket.range[1] + 1)
            # Spread over the interval: a table of many buckets shall not be refreshed in one breath.
            heapq.heappush(self._refreshes, (now + rng.uniform(0, _TIDY_S), server.family, target))
            bucket.refreshed(now)
