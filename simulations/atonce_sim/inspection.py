"""Looking at a network from outside, as nobody in it can: how healthy its tables are, and whether its rules hold.

A look costs time, so of a large network a sample is looked at: always the same nodes, so that what must not go back
can be followed.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from atonce_sim.keyspace import KeySpace, as_long
from atonce_sim.measures import mean
from atonce_sim.residents import Resident
from atonce_sim.world import EPOCH

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
    """Share of the true k closest that a table names as its k closest."""


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

    def check(self, holds: bool, words: str) -> None:
        """Count one look at an invariant; `words` say what is wrong if it does not hold."""
        self.checked += 1
        if not holds:
            self.broken += 1
            if len(self.words) < _MAX_WORDS:
                self.words.append(words)

    def health(self, residents: Sequence[Resident], space: KeySpace) -> Health:
        """Of a sample of those who are up. `space` has the ids of all who are up."""
        at = {resident.node_id: resident.host.ip for resident in residents if resident.is_up}
        seats, dead, known = 0, 0, []
        looked_at = self._sample(residents)
        for resident in looked_at:
            table = resident.seats()
            seats += len(table)
            dead += sum(1 for node_id, address in table if at.get(node_id) != address.ip)
            own = as_long(resident.node_id)
            truth = {node_id.to_bytes(20, "big") for node_id in space.nearest(own, self._k, without=own)}
            if truth:
                named = set(resident.nearest_known(resident.node_id, self._k))
                known.append(len(truth & named) / len(truth))
        if not looked_at:
            return Health(None, None, None)
        return Health(seats / len(looked_at), dead / seats if seats else None, mean(known))

    def look(self, residents: Sequence[Resident], now: float) -> None:
        """Check what must hold at any moment, at a sample of those who are up. `now` is virtual seconds."""
        for resident in self._sample(residents):
            self._look_at_store(resident, now)
            self._look_at_table(resident, now)
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

    def _look_at_table(self, resident: Resident, now: float) -> None:
        """The k closest that a table names are the true k closest of all its seats."""
        target = self._rng.getrandbits(160)
        ids = [as_long(node_id) for node_id, _ in resident.seats()]
        truth = sorted(ids, key=target.__xor__)[: self._k]
        named = [as_long(node_id) for node_id in resident.nearest_known(target.to_bytes(20, "big"), self._k)]
        self.check(
            sorted(named) == sorted(truth) or resident.has_failing(),  # those are named last, however near
            f"{now:.1f} s, host {resident.host.number}: its table names others than the {self._k} closest to a key",
        )

    def _sample(self, residents: Sequence[Resident]) -> list[Resident]:
        up = [resident for resident in residents if resident.is_up]
        if len(up) <= _SAMPLE:
            return up
        step = len(up) / _SAMPLE
        return [up[int(index * step)] for index in range(_SAMPLE)]
