"""Where the records that a node keeps come from: no origin may fill the store.

The origin of a presence or membership record is each subnet, /24 or /48, of the endpoints that it signs; that of a
value, which names no endpoint, its identity. A subnet counts only in a large network: in a small one a whole company
may sit behind one, and its records have no other nodes to go to. What an endpoint says is a claim that nobody has
checked: so this bounds whoever floods from where it is, and the store's own limit whoever makes addresses up.
"""

from collections.abc import Callable, Iterable
from heapq import nlargest
from itertools import chain

from dht_atonce.config import DhtConfig
from dht_atonce.endpoints import subnet
from dht_atonce.records import AnyRecord, ValueRecord

__all__ = ["Origins"]

_IDENTITY = 32  # bytes of a key; a subnet has 3 or 6


class Origins:
    """The records of a store by origin. `network_size` estimates the number of nodes."""

    __slots__ = ("_by_origin", "_config", "_local", "_network_size", "_own_id")

    def __init__(
        self,
        own_id: int,
        config: DhtConfig,
        network_size: Callable[[], float],
        records: Iterable[AnyRecord],
        *,
        local: bool,
    ) -> None:
        self._own_id = own_id
        self._config = config
        self._local = local
        self._network_size = network_size
        # Origin → records by their bytes: to compare two records costs more than the hash that bytes remember
        self._by_origin: dict[bytes, dict[bytes, AnyRecord]] = {}
        for record in records:
            self.enter(record)

    def __len__(self) -> int:
        """How many pairs of origin and record there are."""
        return sum(map(len, self._by_origin.values()))

    def losers(self, record: AnyRecord, held: AnyRecord | None) -> list[AnyRecord] | None:
        """Who would have to go so that `record` can stay, the farthest from us first; None if that is `record`.

        `held` is the one that it would replace.
        """
        old = self._origins_of(held) if held is not None else []
        losers: dict[bytes, AnyRecord] = {}
        for origin in self._origins_of(record):
            others = self._by_origin.get(origin, {})
            if origin in old or len(others) < self._config.records_per_origin:
                continue
            limit = self._limit(origin)
            if limit is not None and (surplus := len(others) + 1 - limit) > 0:
                for last in nlargest(surplus, chain([record], others.values()), key=self._distance):
                    if last is record:
                        return None
                    losers[last.blob] = last
        return list(losers.values())

    def enter(self, record: AnyRecord) -> None:
        """`record` is kept."""
        for origin in self._origins_of(record):
            self._by_origin.setdefault(origin, {})[record.blob] = record

    def leave(self, record: AnyRecord) -> None:
        """`record` is kept no longer."""
        for origin in self._origins_of(record):
            others = self._by_origin[origin]
            del others[record.blob]
            if not others:
                del self._by_origin[origin]

    def _origins_of(self, record: AnyRecord) -> list[bytes]:
        if isinstance(record, ValueRecord):
            return [record.peer_id.key]
        if self._local:
            return []
        return list(dict.fromkeys(subnet(endpoint.ip) for endpoint in record.endpoints))

    def _limit(self, origin: bytes) -> int | None:
        if self._network_size() > self._config.origins_from_nodes:
            return self._config.records_per_origin
        return self._config.values_per_identity if len(origin) == _IDENTITY else None

    def _distance(self, record: AnyRecord) -> int:
        return int.from_bytes(record.key, "big") ^ self._own_id
