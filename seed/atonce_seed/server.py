"""The seed: answers newcomers over links, and knows live nodes of the DHT without being one of them."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from atonce_seed.directory import Directory, Traffic
from atonce_seed.handshake import Admit, Handshake, Reject, Reply, SeedFacts
from dht_atonce.codec import encode
from dht_atonce.config import NetworkConfig, SeedConfig
from dht_atonce.dht.contact import Contact, pack_contact
from dht_atonce.dht.node import DhtNode
from dht_atonce.discovery.seed_wire import Nope, NopeCode, Ok
from dht_atonce.endpoints import Address, Family, SeedUrl
from dht_atonce.errors import ProfileError
from dht_atonce.host import Host
from dht_atonce.links import Link, LinkNet, LinkPort
from dht_atonce.listening import ANYWHERE, listen_links, listen_udp
from dht_atonce.messaging.curve import system_host
from dht_atonce.profile import Profile
from dht_atonce.tasks import TaskGroup

__all__ = ["SeedServer"]

OnEvent = Callable[[str, dict[str, Any]], None]


class SeedServer:
    """`async with SeedServer.open(…) as seed:` serves until it is left.

    In the DHT it is a router node: nobody gives it a seat, and it stores no records.
    """

    def __init__(
        self,
        profile: Profile,
        host: Host,
        network: NetworkConfig,
        config: SeedConfig,
        on_event: OnEvent | None,
    ) -> None:
        self.network = network
        self.counters: Counter[str] = Counter()
        self.directory = Directory(config, host.rng)
        self.traffic = Traffic(config)
        self.node = DhtNode(
            profile.identity,
            host=host,
            network=network,
            node_key=profile.node_key,
            counters=self.counters,
            no_seat=True,
            stores=False,
        )
        self._profile = profile
        self._host = host
        self._config = config
        self._on_event = on_event
        self._links: LinkNet = host.links(profile.identity, self.counters)
        self._ports: list[LinkPort] = []
        self._facts: SeedFacts
        self._handshakes: dict[Link, asyncio.TimerHandle] = {}
        # Node keys that proved their address, with the contact in each family in which they take seats
        self._proved: dict[bytes, dict[Family, Contact]] = {}
        self._tasks = TaskGroup()

    @classmethod
    async def open(
        cls,
        profile: Path | str | None = None,
        *,
        network: NetworkConfig | None = None,
        listen: Sequence[str] = ANYWHERE,
        port: int = 0,
        udp_port: int = 0,
        host: Host | None = None,
        config: SeedConfig | None = None,
        on_event: OnEvent | None = None,
    ) -> Self:
        """Start serving `network` at the addresses `listen`.

        Raises `ProfileError`, `ProfileInUse`, `PortInUse`.
        """
        host = host or system_host()
        opened = Profile.open(profile, host)
        seed = None
        try:
            saved = opened.state.network
            network = network or saved or NetworkConfig()
            seed = cls(opened, host, network, config or SeedConfig(), on_event)
            await seed._start(listen, port, udp_port)
        except BaseException:
            if seed is not None:
                await seed.aclose()
            opened.close()
            raise
        return seed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop serving; what the network knows, it knows without us."""
        await self._tasks.aclose()
        for link in list(self._handshakes):
            self._drop(link)
        self._save_contacts()
        await self._save()
        await self._links.aclose()
        await self.node.aclose()
        self._profile.close()

    # --- what an operator asks ---

    @property
    def address(self) -> Address:
        """Where links are accepted."""
        return self._ports[0].address

    def url(self, host: str | None = None) -> SeedUrl:
        """The seed URL, with the public name or address `host` (default: the one we listen at)."""
        return SeedUrl(self._profile.identity.id, host or self.address.ip, self.address.port)

    def status(self) -> dict[str, Any]:
        """What goes on, for people and programs."""
        now = self.node.shared.now()
        return {
            "network": self.network.name,
            "k": self.network.k,
            "listed": len(self.directory),
            "admitted": self.counters["seed.admitted"],
            "handshake_datagrams": self.traffic.handshake,
            "unsolicited_datagrams": self.traffic.unsolicited(now),
            "pending_datagrams": self.traffic.pending,
            "returned_messages": self.traffic.returned,
            "upkeep_datagrams": self.counters["dht.sent"],
            "counters": dict(sorted(self.counters.items())),
        }

    # --- inside ---

    async def _start(self, listen: Sequence[str], port: int, udp_port: int) -> None:
        profile, state = self._profile, self._profile.state
        contacts = state.contacts if state.network == self.network else ()
        self.node.on_request = self._on_request
        self.node.on_outcome = self._on_outcome
        ports = await listen_udp(self.node, listen, udp_port, state.udp_ports)
        self._facts = SeedFacts(profile.identity, self.network, profile.node_key.public, ports, self.node.shared.parser)

        self._ports = await listen_links(self._listen, listen, port, state.tcp_port)
        state.contacts = contacts  # those of another network are not ours to ask, now or at the next start
        state.network, state.udp_ports, state.tcp_port = self.network, ports, self.address.port
        await self._save()
        self._tasks.start(self._save_regularly(), "save contacts")
        if contacts:
            self._tasks.start(self.node.join(list(contacts)), "ask saved contacts")

    def _listen(self, bind: Address) -> LinkPort:
        return self._links.listen(bind, self._on_link)

    def _emit(self, event: str, **details: Any) -> None:
        if self._on_event is not None:
            self._on_event(event, details)

    def _on_request(self, contact: Contact, proved: bool, seatable: bool) -> None:
        now = self.node.shared.now()
        self.traffic.on_request(contact.key, now)
        if not proved:
            return
        if contact.key not in self._proved and len(self._proved) >= self._config.max_handshakes:
            self._proved.pop(next(iter(self._proved)))
        contacts = self._proved.setdefault(contact.key, {})
        if seatable:
            contacts[contact.address.family] = contact

    def _on_outcome(self, contact: Contact, answered: bool) -> None:
        if answered:
            self.directory.on_live(contact, self.node.shared.now())
        else:
            self.directory.on_failure(contact)

    def _on_link(self, link: Link) -> None:
        if len(self._handshakes) >= self._config.max_handshakes:
            self.counters["seed.busy"] += 1
            link.send(encode(Nope(0, NopeCode.BUSY, "busy, ask again in a minute")))
            link.close()
            return
        shared = self.node.shared
        handshake = Handshake(
            self._facts,
            link.curve_key,
            link.remote,
            self._host.rng,
            self._proved.__contains__,
            shared.now(),
            self._config.handshake_s,
        )
        loop = asyncio.get_running_loop()
        self._handshakes[link] = loop.call_later(self._config.handshake_s, self._end_late, link)
        link.start(lambda data: self._on_frame(link, handshake, data), lambda _: self._drop(link))

    def _end_late(self, link: Link) -> None:
        self.counters["seed.late"] += 1
        link.close()
        self._drop(link)

    def _drop(self, link: Link) -> None:
        timer = self._handshakes.pop(link, None)
        if timer is not None:
            timer.cancel()

    def _on_frame(self, link: Link, handshake: Handshake, data: bytes) -> None:
        shared = self.node.shared
        match handshake.on_frame(data, shared.now(), shared.wall()):
            case Reply(reply):
                self.counters["seed.challenged"] += 1
                link.send(reply)
            case Reject(reply, counter):
                self.counters[counter] += 1
                self._emit("rejected", reason=counter, address=str(link.remote))
                link.send(reply)
                link.close()
                self._drop(link)
            case Admit() as admit:
                self._tasks.start(self._admit(link, admit), "admit")

    async def _admit(self, link: Link, admit: Admit) -> None:
        shared = self.node.shared
        self.traffic.on_authenticated(admit.node_key, admit.record.incarnation)
        newcomer = self._proved.pop(admit.node_key, {})
        age_s = self.directory.newest_age_s(shared.now())
        if age_s is not None and age_s > self._config.fresh_s:
            # Idle for long: who of those that we know lives? Else we might begin a second network.
            self.counters["seed.upkeep_lookups"] += 1
            await self.node.join(self.directory.contacts())
            await self.node.refresh(self._host.rng.randbytes(20))
        for contact in newcomer.values():
            self.directory.on_live(contact, shared.now())
        picked = await self._pick(self._node_id(newcomer))
        self.counters["seed.admitted"] += 1
        if any(picked.values()):
            self.traffic.on_contacts_given(admit.record.incarnation)
        ipv4, ipv6 = ([pack_contact(contact) for contact in picked[family]] for family in Family)
        link.send(encode(Ok(0, ipv4, ipv6)))
        link.close()
        self._drop(link)
        self._emit(
            "admitted",
            peer=str(admit.record.peer_id),
            contacts=sum(map(len, picked.values())),
            listed=len(self.directory),
        )

    async def _pick(self, newcomer: bytes) -> dict[Family, list[Contact]]:
        """Contacts that are live: whoever was not heard of in the last seconds is asked first, and who is silent is
        replaced once."""
        shared = self.node.shared
        for _ in range(2):
            picked = {family: self.directory.pick(family, newcomer, shared.now()) for family in Family}
            unheard = self.directory.unheard([c for contacts in picked.values() for c in contacts], shared.now())
            if not unheard:
                break
            await self.node.ping(unheard, self._config.check_timeout_s)
            silent = set(self.directory.unheard(unheard, shared.now()))
            picked = {family: [c for c in contacts if c not in silent] for family, contacts in picked.items()}
            if any(picked.values()):
                break
        return picked

    @staticmethod
    def _node_id(newcomer: dict[Family, Contact]) -> bytes:
        return next((contact.id for contact in newcomer.values()), b"")

    async def _save_regularly(self) -> None:
        while True:
            # Of a small network any contact may be the only way in, and this process may be killed at any time.
            is_small = len(self._profile.state.contacts) < self._config.small
            await asyncio.sleep(self._config.save_small_s if is_small else self._config.save_s)
            if self._save_contacts():
                await self._save()

    def _save_contacts(self) -> bool:
        """Whether they are others than before."""
        contacts, state = self.directory.contacts(), self._profile.state
        if not contacts:
            return False  # those of the last run are better than none
        before, state.contacts = state.contacts, tuple(contacts)
        return set(before) != set(contacts)

    async def _save(self) -> None:
        try:
            await self._profile.save()
        except ProfileError as error:
            self.counters["profile.not_saved"] += 1
            self._emit("warning", message=str(error))
