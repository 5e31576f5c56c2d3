"""What the servers of one node share: keys, store, cookies, what is known of others, counters."""

import asyncio
from collections import Counter

from dht_atonce.clock import SystemClock
from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.counters import Counts
from dht_atonce.dht.cookies import CookieIssuer
from dht_atonce.dht.gate import Gate
from dht_atonce.dht.peers import KnownAddresses, ObservedAddress, UnprovedBudget
from dht_atonce.dht.sealing import Sealer
from dht_atonce.dht.skew import ClockSkew
from dht_atonce.dht.storage import RecordStore
from dht_atonce.host import Host
from dht_atonce.identity import NodeKey
from dht_atonce.records import RecordParser

__all__ = ["Shared"]

_DEFAULTS = DhtConfig()


class Shared:
    """One per node, whatever the number of address families.

    `no_seat`: nobody shall give us a seat (a seed, a short-lived command). `stores`: whether we keep records for
    others.
    """

    __slots__ = (
        "config",
        "cookies",
        "counters",
        "gate",
        "host",
        "known",
        "network",
        "no_seat",
        "node_key",
        "now",
        "observed",
        "parser",
        "sealer",
        "skew",
        "store",
        "stores",
        "unproved",
    )

    def __init__(
        self,
        host: Host,
        network: NetworkConfig,
        node_key: NodeKey,
        *,
        config: DhtConfig | None = None,
        counters: Counter[str] | None = None,
        no_seat: bool = False,
        stores: bool = True,
    ) -> None:
        config = config or _DEFAULTS
        self.host = host
        self.now = host.clock.monotonic  # asked several times for each packet
        """Monotonic seconds."""
        self.network = network
        self.node_key = node_key
        self.config = config
        self.counters: Counter[str] = Counts() if counters is None else counters
        self.no_seat = no_seat
        self.stores = stores
        self.sealer = Sealer(node_key, network.network_id, config.max_pair_keys, host.cipher)
        self.cookies = CookieIssuer(host.rng, config.cookie_epoch_s)
        self.gate = Gate(config, local=network.local)
        self.known = KnownAddresses(config)
        self.unproved = UnprovedBudget(config, local=network.local)
        self.observed = ObservedAddress()
        self.skew = ClockSkew(config)
        self.store = RecordStore(int.from_bytes(node_key.id, "big"), network, config, host.rng)
        self.parser = RecordParser(network, host.memo)

    def settle(self, loop: asyncio.AbstractEventLoop) -> None:
        """We run in `loop` from now on: a clock that would look for the running loop each time is spared the search."""
        if type(self.host.clock) is SystemClock:
            self.now = loop.time

    def wall(self) -> float:
        """Unix seconds by which records are judged and signed: our clock, corrected if it is plainly wrong."""
        return self.host.clock.wall() + self.skew.correction_s
