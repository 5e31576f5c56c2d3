"""Staying in the network: looks every second whether we still are, and does what the watchdog says."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dht_atonce.config import StayConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.node import DhtNode
from dht_atonce.endpoints import Address, Family
from dht_atonce.errors import AtOnceError
from dht_atonce.host import Host
from dht_atonce.tasks import TaskGroup
from dht_atonce.watchdog import Doubt, Step, Watchdog

__all__ = ["Member", "Staying"]


@dataclass(frozen=True, slots=True)
class Member:
    """Whoever is to stay in, a peer: what is asked of it and done with it."""

    node: Callable[[], DhtNode | None]
    """Its node of the DHT; None as long as its network is not known."""
    saved: Callable[[], Sequence[Contact]]
    """The contacts of its profile."""
    endpoints: Callable[[], tuple[Address, ...]]
    """Where others can dial it, as far as it knows."""
    on_moved: Callable[[], None]
    """It has another address: what was learnt of the old one is to be forgotten."""
    check_clock: Callable[[], None]
    """Called every few seconds."""
    climb: Callable[[], Awaitable[None]]
    """One round of the entry ladder, and its presence published. Raises `AtOnceError` if that leads nowhere."""
    visit: Callable[[], Coroutine[Any, Any, None]]
    """Be seen by the seeds, if there are any, and join whom they name."""
    publish: Callable[[], Awaitable[object]]
    """Publish its presence as it is now. May raise `AtOnceError`."""


class Staying:
    """Keeps one `Member` in its network. `run` is its task; `on_event` is told what happens."""

    def __init__(
        self, member: Member, host: Host, on_event: Callable[..., None], config: StayConfig | None = None
    ) -> None:
        self._member = member
        self._host = host
        self._on_event = on_event
        self._config = config or StayConfig()
        self._watchdog = Watchdog(self._config, host.rng, host.clock.monotonic())
        self._step = Step.REST
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._visits = TaskGroup()
        self._looks = 0
        self._is_greeted = False
        # Some contact of each family: our address is the one from which we would speak with it.
        self._towards: dict[Family, Address] = {}

    def on_outcome(self, _: Contact, is_answered: bool) -> None:
        """A request of our node ended."""
        if is_answered:
            self._watchdog.on_heard()
        else:
            self._watchdog.on_failure()

    def on_request(self, _: Contact, is_proved: bool, takes_seats: bool) -> None:
        """Our node was asked something."""
        if is_proved and takes_seats:
            self._watchdog.on_heard()

    def on_saved_way(self) -> None:
        """We came in by contacts of our own, past the seeds."""
        self._watchdog.on_saved_way(self._host.clock.monotonic())

    def on_shown(self, endpoints: tuple[Address, ...]) -> None:
        """Our presence was published with these endpoints."""
        self._watchdog.on_shown(endpoints)

    async def run(self) -> None:
        """Until it is cancelled."""
        self._look()
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                while self._step is not Step.REST:
                    step = self._step
                    succeeded = await self._steps[step](self)
                    self._watchdog.on_done(step, succeeded, self._host.clock.monotonic())
                    self._step = self._ask_watchdog()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._visits.aclose()

    # --- looking ---

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._config.look_s, self._look)
        node, clock = self._member.node(), self._host.clock
        is_late = self._watchdog.is_late(clock.monotonic(), clock.wall())
        if node is not None and (is_late or self._looks % self._config.addresses_every == 0):
            self._look_at_addresses(node)
        self._looks += 1
        step = self._ask_watchdog()
        if step is not Step.REST:
            self._step = step
            self._due.set()

    def _ask_watchdog(self) -> Step:
        clock, node = self._host.clock, self._member.node()
        known = node.known_nodes if node is not None and not node.is_alone else 0
        if known and not self._is_greeted:
            self._is_greeted = True
            self._on_event("first_contact", known=known)
        return self._watchdog.on_look(clock.monotonic(), clock.wall(), known=known)

    def _look_at_addresses(self, node: DhtNode) -> None:
        member = self._member
        if len(self._towards) < len(node.servers):
            for contact in node.live_contacts(self._config.reach_contacts):
                self._towards.setdefault(contact.address.family, contact.address)
        here = tuple(self._host.routes.source(to) for _, to in sorted(self._towards.items()))
        self._watchdog.on_addresses(here, member.endpoints(), self._host.clock.monotonic())
        member.check_clock()

    # --- acting ---

    async def _reach(self) -> bool:
        node, doubt = self._member.node(), self._watchdog.doubt
        if node is None:
            return False
        if doubt is not Doubt.SILENT:
            if doubt is Doubt.MOVED:
                self._member.on_moved()
            node.on_elsewhere(moved=doubt is Doubt.MOVED)
        self._on_event("doubt", why=doubt.value if doubt is not None else "")
        return await node.reach(self._whom(node), self._config.reach_s)

    def _whom(self, node: DhtNode) -> list[Contact]:
        likely = node.likely_contacts(self._config.reach_contacts)
        known = dict.fromkeys([*likely, *self._member.saved()])
        return list(known)[: self._config.reach_contacts]

    async def _return(self) -> bool:
        node = self._member.node()
        if node is None:
            return False
        doubt = self._watchdog.doubt
        # Whoever looks for us shall not wait until we have found our place.
        answered, _ = await asyncio.gather(node.join(self._whom(node)), self._publish())
        if answered:
            self._on_event("back", after=doubt.value if doubt is not None else "", answered=answered)
        return answered > 0

    async def _climb(self) -> bool:
        try:
            await self._member.climb()
        except AtOnceError as error:
            self._on_event("still_alone", message=str(error), again_s=round(self._watchdog.again_s))
            return False
        node = self._member.node()
        return node is not None and not node.is_alone

    async def _visit(self) -> bool:
        # A seed that is gone may take its time to say so, and we have to be ready for whatever happens here.
        self._visits.start(self._member.visit(), "visit the seeds")
        return True

    async def _publish(self) -> bool:
        try:
            await self._member.publish()
        except AtOnceError as error:
            self._on_event("warning", message=str(error))
            return False
        return True

    _steps: ClassVar[dict[Step, Callable[["Staying"], Awaitable[bool]]]] = {
        Step.REACH: _reach,
        Step.RETURN: _return,
        Step.CLIMB: _climb,
        Step.VISIT: _visit,
        Step.REPUBLISH: _publish,
    }
