"""All who live in a world, and those who did."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from atonce_sim.chance import fraction
from atonce_sim.keyspace import KeySpace, as_long
from atonce_sim.residents import Resident
from atonce_sim.world import VirtualHost, World

__all__ = ["Life", "Population", "Settler"]

_MAX_ENTRIES = 16
_SKEW, _SKEWED = 20, 21  # what a draw is for


@dataclass(slots=True, eq=False)
class Life:
    """A resident, and how long it was there."""

    resident: Resident
    since_s: float | None = None
    """When it last came up; None: it is not up."""
    up_s: float = 0.0
    bytes_sent: int = 0
    """By hosts that it had before a restart."""
    serial: int = 0
    """Grows with each coming and going: what was meant for an earlier life does not concern a later one."""

    @property
    def all_bytes_sent(self) -> int:
        return self.bytes_sent + self.resident.host.bytes_sent

    def span_s(self, now: float) -> float:
        """For how long it has been up in all."""
        return self.up_s + (now - self.since_s if self.since_s is not None else 0.0)


class Settler(Protocol):
    """Makes residents of one kind."""

    def make(self, host: VirtualHost) -> Resident:
        """One that has not started."""


@dataclass(slots=True)
class Population:
    """Who is up, who crashed, who left."""

    world: World
    settler: Settler
    skew_s: float = 0.0
    skewed: float = 1.0
    """Share of the hosts whose clock is wrong by up to `skew_s`."""
    up: dict[Life, None] = field(default_factory=dict)
    crashed: dict[Life, None] = field(default_factory=dict)
    left: dict[Life, None] = field(default_factory=dict)
    hostile: list[Resident] = field(default_factory=list)
    """Nodes that are up and no part of those above: nobody looks them up, and what they see is not measured."""
    space: KeySpace = field(default_factory=KeySpace)
    """The `NodeId`s of all who are up."""
    _listed: list[Life] | None = None

    @property
    def present(self) -> list[Life]:
        """All who are up, in the order in which they came; not to be changed."""
        if self._listed is None:
            self._listed = list(self.up)
        return self._listed

    @property
    def lives(self) -> list[Life]:
        """Everybody who ever came in."""
        return [*self.up, *self.crashed, *self.left]

    @property
    def residents(self) -> list[Resident]:
        """All who are up."""
        return [life.resident for life in self.up]

    def newcomer(self) -> Life:
        """Somebody on a new machine, not started yet."""
        host = self.world.host()
        if self.skew_s and (self.skewed >= 1 or fraction(_SKEWED, self.world.seed, host.number) < self.skewed):
            host.virtual_clock.skew_s = self.skew_s * (2 * fraction(_SKEW, self.world.seed, host.number) - 1)
        return Life(self.settler.make(host))

    def on_up(self, life: Life, now: float) -> None:
        """It has come in."""
        self.crashed.pop(life, None)
        self.left.pop(life, None)
        self.up[life] = None
        self._listed = None
        life.since_s = now
        life.serial += 1
        self.space.add(as_long(life.resident.node_id))

    def on_down(self, life: Life, now: float, *, said_goodbye: bool) -> None:
        """It goes."""
        del self.up[life]
        self._listed = None
        (self.left if said_goodbye else self.crashed)[life] = None
        life.up_s = life.span_s(now)
        life.since_s = None
        life.serial += 1
        self.space.remove(as_long(life.resident.node_id))

    def reboot(self, life: Life) -> None:
        """Its machine runs again; it is not started yet."""
        life.bytes_sent += life.resident.host.bytes_sent
        life.resident.host = self.world.restart(life.resident.host)

    def entries(self, rng: random.Random) -> list[Resident]:
        """Whom a seed would name to a newcomer: some that are up, whatever they have in mind."""
        up = [life.resident for life in self.present] + self.hostile
        return rng.sample(up, min(_MAX_ENTRIES, len(up)))

    def pick(self, lives: Sequence[Life], share: float, rng: random.Random) -> list[Life]:
        """A share of them; at least one, if there is any and the share is not 0."""
        count = round(share * len(lives))
        if share and lives:
            count = max(1, count)
        return rng.sample(list(lives), count)
