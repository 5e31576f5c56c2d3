"""Who lives in a simulated world, in the words that scenarios and measures have for all kinds of them.

A resident starts, publishes its presence, looks others up, sends, leaves, crashes and comes back. What it does is done
by the code that runs in production; here it is only called.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from atonce_sim.truth import Answer, Said
from atonce_sim.world import VirtualHost
from dht_atonce.dht.contact import Contact
from dht_atonce.endpoints import Address

__all__ = ["Found", "Held", "OnPublished", "Resident"]

OnPublished = Callable[["Resident", Said, float], None]
"""Who published what, and how long that took in simulated seconds."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a lookup gave."""

    answer: Answer | None
    local: bool
    """From the own store: nobody was asked."""
    hops: int
    requests: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """A record in a resident's store."""

    key: bytes
    seq: int
    expires: float
    """Unix seconds."""


class Resident(Protocol):
    """One inhabitant of a world, whatever it is made of."""

    host: VirtualHost
    key: bytes
    """Where its presence lies in the DHT, 20 B."""
    is_up: bool
    on_published: OnPublished | None

    @property
    def node_id(self) -> bytes:
        """`NodeId`, 20 B."""

    @property
    def contact(self) -> Contact:
        """Where its node is asked."""

    @property
    def requests(self) -> int:
        """How many it sent so far."""

    async def start(self, entries: "Sequence[Resident]") -> None:
        """Come in, for the first time or again, and publish. Raises `AtOnceError`."""

    async def update(self) -> None:
        """Publish anew."""

    async def find(self, key: bytes, owner: "Resident | None", *, fresh: bool = False) -> Found:
        """Look a presence up."""

    async def send(self, to: "Resident", data: bytes) -> None:
        """Deliver a message. Raises `AtOnceError`."""

    async def leave(self) -> None:
        """Say goodbye and go."""

    def crash(self) -> None:
        """Die without a word."""

    async def aclose(self) -> None:
        """Clear away whatever still runs of it."""

    def forget(self) -> None:
        """Let go of what is dead and cleared away."""

    def seats(self) -> list[tuple[bytes, Address]]:
        """Whom its routing table holds: `NodeId` and address."""

    def nearest_known(self, target: bytes, count: int) -> list[bytes]:
        """The `NodeId`s that its table calls nearest to `target`."""

    def has_failing(self) -> bool:
        """Whether its table holds contacts that did not answer lately."""

    def held(self) -> list[Held]:
        """What its store holds and would give."""

    def overfull(self) -> list[str]:
        """Queues and tables that are beyond their bounds, in words."""
