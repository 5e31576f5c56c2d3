"""The entry ladder: saved contacts, then seeds, several at once; what was tried and what each answered."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from dht_atonce.config import NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.node import DhtNode
from dht_atonce.discovery.seed_client import SeedSays, SeedSession
from dht_atonce.endpoints import SeedUrl
from dht_atonce.errors import ContactsSilent, EntryFailed, NetworkMismatch
from dht_atonce.host import Host
from dht_atonce.identity import Identity
from dht_atonce.links import LinkNet

__all__ = ["Entry", "Ladder"]

SEED_TIMEOUT_S = 5.0
_OTHER_FAMILY_S = 0.5


@dataclass(frozen=True, slots=True)
class Entry:
    """How we got in."""

    way: str
    """`saved contacts`, `seed`, or `seed, alone` if the seed knew nobody yet."""
    answered: int
    """How many nodes answered while we joined."""
    tried: tuple[str, ...] = field(default=())
    """What did not work before."""


OnSeed = Callable[[SeedSays], Awaitable[tuple[DhtNode, bytes]]]
"""Told what a seed said; gives the node (started by now, in the seed's network) and our presence record."""


_SECOND_VISIT_S = 1.5  # longer than a seed trusts what it heard of a contact without asking it


class Ladder:
    """Tries each way in. One of two newcomers may be first: a seed that knows nobody is an entry too."""

    def __init__(
        self,
        host: Host,
        links: LinkNet,
        identity: Identity,
        seeds: Sequence[SeedUrl],
        on_seed: OnSeed,
        timeout_s: float = SEED_TIMEOUT_S,
    ) -> None:
        self._host = host
        self._links = links
        self._identity = identity
        self._seeds = tuple(seeds)
        self._on_seed = on_seed
        self._timeout_s = timeout_s

    @property
    def has_seeds(self) -> bool:
        """Whether there is somebody to ask besides saved contacts."""
        return bool(self._seeds)

    async def climb(self, network: NetworkConfig | None, node: DhtNode | None, saved: Sequence[Contact]) -> Entry:
        """One round. `node` is started if the network is known already. Raises `EntryFailed`, `NetworkMismatch`."""
        tried: list[str] = []
        if node is not None and saved:
            answered = await node.join(list(saved))
            if answered:
                return Entry("saved contacts", answered)
            tried.append(f"{len(saved)} saved contacts: none answers")
        alone: Entry | None = None
        mismatch: NetworkMismatch | None = None
        tasks = {
            asyncio.create_task(self._ask(seed, network), name=f"ask seed {seed.host}"): seed for seed in self._seeds
        }
        try:
            for finished in asyncio.as_completed(tasks):
                try:
                    entry = await finished
                except NetworkMismatch as error:
                    mismatch = error
                    tried.append(str(error))
                except EntryFailed as error:
                    tried.append(str(error))
                else:
                    if entry.answered:
                        return Entry(entry.way, entry.answered, tuple(tried))
                    alone = entry
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if alone is not None:
            return Entry(alone.way, 0, tuple(tried))
        if mismatch is not None and len(tried) == 1:
            raise mismatch
        if not tried:
            raise EntryFailed("there is no way in: give the URL of a seed (or, to begin a network, alone=True)")
        raise EntryFailed("no way into the network: " + "; ".join(tried))

    async def _ask(self, seed: SeedUrl, network: NetworkConfig | None) -> Entry:
        where = f"seed {seed.peer_id.short}…@{seed.host}:{seed.port}"
        try:
            async with asyncio.timeout(4 * self._timeout_s):
                try:
                    return await self._visit(seed, network)
                except ContactsSilent:
                    # Whom it named may have gone a moment ago. It looks who lives before it names anybody again.
                    await asyncio.sleep(_SECOND_VISIT_S)
                    return await self._visit(seed, network)
        except TimeoutError:
            raise EntryFailed(f"{where}: stopped answering") from None
        except NetworkMismatch as error:
            raise NetworkMismatch(f"{where}: {error}") from None
        except EntryFailed as error:
            raise EntryFailed(f"{where}: {error}") from None

    async def _visit(self, seed: SeedUrl, network: NetworkConfig | None) -> Entry:
        session = await SeedSession.open(seed, self._host, self._links, self._identity, network, self._timeout_s)
        async with session:
            return await self._enter(session)

    async def _enter(self, session: SeedSession) -> Entry:
        says = session.says
        node, record = await self._on_seed(says)
        if says.node is not None:
            node.shared.skew.on_time(says.node.key, says.time_s, self._host.clock.wall())
        if says.node is None or not await node.prove_address(says.node):
            raise EntryFailed("its DHT node does not answer by UDP; a firewall may be in the way")
        if says.other_node is not None:
            # In vain, if we do not listen there or the guess is wrong; then the seed cannot name us in that family.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_OTHER_FAMILY_S):
                    await node.prove_address(says.other_node)
        contacts = await session.authenticate(node.shared.node_key, record)
        answered = await node.join(contacts) if contacts else 0
        if contacts and not answered:
            raise ContactsSilent(f"it named {len(contacts)} contacts, and none of them answers by UDP")
        return Entry("seed" if answered else "seed, alone", answered)
