"""Looking at a network from outside, as nobody in it can: how healthy its tables are, and whether its rules hold.

A look costs time, so of a large network a sample is looked at: always the same nodes, so that what must not go back
can be followed.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atonce_sim.keyspace import KeySpace, as_long
from atonce_sim.measures import mean
from atonce_sim.residents import Resident
from atonce_sim.world import EPOCH
from dht_atonce.endpoints import Address

__all__ = ["Health", "Inspector"]

_SAMPLE = 64  # nodes looked at
_MAX_WORDS = 100  # broken invariants that are told in words


@dataclass(frozen=True, slots=True)
class Health:
    """How the tables of those who were looked at fare, on average."""

    seats: float | None
    dead_seats: float | None
    """Share of seats whose node is not up at that address."""
    neighbours_known: float | None
    """Share of the true k closest that a table names as its k closest; hostile nodes are left out of both."""


class Inspector:
    """Looks at residents and remembers what it must not see undone."""

    def __init__(self, k: int, rng: random.Random) -> None:
        self.checked = 0
        self.broken = 0
        self.words: list[str] = []
        """What did not hold, the first hundred."""
        self._k = k
        self._rng = rng
        # By host number and boot, key → the highest seq seen in its store.
        self._seqs: dict[tuple[int, int], dict[bytes, int]] = {}
        # By host number and boot: when its table was last looked at, and who had a seat where.
        self._tables: dict[tuple[int, int], tuple[float, dict[bytes, str]]] = {}
        self._seat_hours = 0.0
        self._evicted = 0

    def check(self, holds: bool, words: str) -> None:
        """Count one look at an invariant; `words` say what is wrong if it does not hold."""
        self.checked += 1
        if not holds:
            self.broken += 1
            if len(self.words) < _MAX_WORDS:
                self.words.append(words)

    @property
    def evicted_share_h(self) -> float | None:
        """Share of the seats that were taken, within an hour, from nodes that were up all the time."""
        return self._evicted / self._seat_hours if self._seat_hours else None

    def health(self, residents: Sequence[Resident], space: KeySpace, hostile: Mapping[bytes, str] = {}) -> Health:
        """Of a sample of those who are up. `space` has the ids of all who are up; `hostile` (`NodeId` → IP) are no part
        of either: a seat that they hold is not dead, and nobody needs to know them."""
        at = {resident.node_id: resident.host.ip for resident in residents if resident.is_up}
        at |= hostile
        seats, dead, known = 0, 0, []
        looked_at = self._sample(residents)
        for resident in looked_at:
            table = resident.seats()
            seats += len(table)
            dead += sum(1 for node_id, address in table if at.get(node_id) != address.ip)
            own = as_long(resident.node_id)
            truth = {node_id.to_bytes(20, "big") for node_id in space.nearest(own, self._k, without=own)}
            if truth:
                named = resident.nearest_known(resident.node_id, self._k + len(hostile))
                known.append(len(truth.intersection([n for n in named if n not in hostile][: self._k])) / len(truth))
        if not looked_at:
            return Health(None, None, None)
        return Health(seats / len(looked_at), dead / seats if seats else None, mean(known))

    def look(self, residents: Sequence[Resident], now: float) -> None:
        """Check what must hold at any moment, at a sample of those who are up. `now` is virtual seconds."""
        at = {resident.node_id: resident.host.ip for resident in residents if resident.is_up}
        for resident in self._sample(residents):
            self._look_at_store(resident, now)
            seats = resident.seats()
            self._look_at_table(resident, seats, now)
            self._look_for_evicted(resident, seats, at, now)
            for words in resident.overfull():
                self.check(False, f"{now:.1f} s, host {resident.host.number}: {words}")

    def _look_at_store(self, resident: Resident, now: float) -> None:
        wall = EPOCH + resident.host.skew_s + now
        seen = self._seqs.setdefault((resident.host.number, resident.host.boot), {})
        held = resident.held()
        for record in held:
            key = record.key.hex()[:8]
            self.check(
                record.expires > wall,
                f"{now:.1f} s, host {resident.host.number}: the record of {key} outlives its expiry by "
                f"{wall - record.expires:.1f} s",
            )
            before = seen.get(record.key, 0)
            self.check(
                record.seq >= before,
                f"{now:.1f} s, host {resident.host.number}: seq {before} of {key} was replaced by {record.seq}",
            )
        # What expired meanwhile may come again with any seq: only what is held is remembered.
        self._seqs[resident.host.number, resident.host.boot] = {record.key: record.seq for record in held}

    def _look_at_table(self, resident: Resident, seats: list[tuple[bytes, Address]], now: float) -> None:
        """The k closest that a table names are the true k closest of all its seats."""
        target = self._rng.getrandbits(160)
        ids = [as_long(node_id) for node_id, _ in seats]
        truth = sorted(ids, key=target.__xor__)[: self._k]
        named = [as_long(node_id) for node_id in resident.nearest_known(target.to_bytes(20, "big"), self._k)]
        self.check(
            sorted(named) == sorted(truth) or resident.has_failing(),  # those are named last, however near
            f"{now:.1f} s, host {resident.host.number}: its table names others than the {self._k} closest to a key",
        )

    def _look_for_evicted(
        self, resident: Resident, seats: list[tuple[bytes, Address]], at: dict[bytes, str], now: float
    ) -> None:
        """Who had a seat at the last look, is up where it was, and has none."""
        own = (resident.host.number, resident.host.boot)
        before = self._tables.get(own)
        seated = {node_id: address.ip for node_id, address in seats}
        if before is not None:
            then, table = before
            living = [node_id for node_id, ip in table.items() if at.get(node_id) == ip]
            self._evicted += sum(node_id not in seated for node_id in living)
            self._seat_hours += len(living) * (now - then) / 3600
        self._tables[own] = (now, seated)

    def _sample(self, residents: Sequence[Resident]) -> list[Resident]:
        up = [resident for resident in residents if resident.is_up]
        if len(up) <= _SAMPLE:
            return up
        step = len(up) / _SAMPLE
        return [up[int(index * step)] for index in range(_SAMPLE)]
