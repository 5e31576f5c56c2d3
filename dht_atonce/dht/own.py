"""Our own records: what we say of ourselves, how new it must be, and when it is said again."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from dht_atonce.config import DhtConfig, NetworkConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.records import SKEW_S, AnyRecord

__all__ = ["OwnRecord", "OwnRecords", "Signer"]

Signer = Callable[[int, int], AnyRecord]
"""Makes the record with this seq and this expiry (Unix seconds)."""

_JITTER = 0.1  # of the republish interval, so that peers that started together do not publish together
_GROWN = 4.0  # times as many nodes as when a record was published: hand-off may have lost its way
_SOON_S = 10.0  # within which those who see a network grow publish anew, one after another
_MAX_OWN = 256  # values of one identity: each is republished for ever


@dataclass(slots=True)
class OwnRecord:
    """One of our records and how its publishing goes."""

    sign: Signer
    is_goodbye: bool = False
    is_watched: bool = True
    """Somebody may wait for it. Nobody waits for a topic's: it has many records, and no newest one."""
    record: AnyRecord | None = None
    """As last signed."""
    confirmed: list[bytes] = field(default_factory=list)
    """`NodeId`s that hold `record`."""
    passed_over: list[bytes] = field(default_factory=list)
    """Nodes whose sample of a topic's members `record` is not in: they have been told, and need not be again."""
    holders: list[Contact] = field(default_factory=list)
    """Who was nearest and held it when it was published last: told first of the next one."""
    due_at: float = 0.0
    """Monotonic seconds."""
    crowd: float = math.inf
    """How many nodes there were, about, when it was published last."""
    backoff_s: float = 0.0
    last_seq: int = 0
    generation: int = 0
    """Counts what the app said; a round of publishing that began before the latest word does not settle it."""

    @property
    def told(self) -> list[bytes]:
        """Nodes that need not be told of `record` again."""
        return self.confirmed + self.passed_over


class OwnRecords:
    """All records of our identity, by key. `now` is monotonic, `wall` Unix seconds."""

    __slots__ = ("_config", "_deadline", "_network", "_own", "_rng")

    def __init__(self, network: NetworkConfig, config: DhtConfig, rng: random.Random) -> None:
        self._network = network
        self._config = config
        self._rng = rng
        self._own: dict[bytes, OwnRecord] = {}
        # When the next is due: asked for at each wake-up, and rarely another. None: to be worked out.
        self._deadline: float | None = math.inf

    def __contains__(self, key: object) -> bool:
        return key in self._own

    def get(self, key: bytes) -> OwnRecord | None:
        return self._own.get(key)

    def keys(self) -> list[bytes]:
        """The keys of all of them."""
        return list(self._own)

    def put(self, key: bytes, signer: Signer, now: float, *, is_goodbye: bool = False) -> OwnRecord:
        """Say something new under `key`; it is due at once. Raises ValueError beyond 256 records."""
        known = self._own.get(key)
        if known is None:
            if len(self._own) >= _MAX_OWN:
                raise ValueError(f"an identity has at most {_MAX_OWN} records")
            known = self._own[key] = OwnRecord(signer)
        known.sign = signer
        known.is_goodbye = is_goodbye
        self._set_due(known, now)
        known.backoff_s = 0.0
        known.generation += 1
        return known

    def renew(self, own: OwnRecord, wall: float, found_seq: int = 0) -> AnyRecord:
        """Sign again: with a seq above all that we know of, and a whole life ahead."""
        seq = max(own.last_seq + 1, int(wall * 1_000_000), found_seq + 1)
        life_s = self._network.record_life_s + (SKEW_S if own.is_goodbye else 0)
        own.record = own.sign(seq, int(wall) + life_s)
        own.last_seq = seq
        own.confirmed = []
        own.passed_over = []
        return own.record

    def on_stored(self, key: bytes, node_id: bytes) -> None:
        """A node confirmed that it holds the latest record of `key`."""
        own = self._own.get(key)
        if own is not None and node_id not in own.confirmed:
            own.confirmed.append(node_id)

    def on_passed_over(self, key: bytes, node_id: bytes) -> None:
        """A node has too many members of a topic, and the latest record of `key` is not in its sample."""
        own = self._own.get(key)
        if own is not None and node_id not in own.told:
            own.passed_over.append(node_id)

    def on_publishing(self, own: OwnRecord) -> int:
        """A round of publishing begins: not due again before it ends. Gives what `on_published` wants back."""
        self._set_due(own, math.inf)
        return own.generation

    def on_published(self, own: OwnRecord, generation: int, now: float, *, known: int, crowd: float = math.inf) -> None:
        """A round of publishing ended, in a network of some `crowd` nodes of which `known` were met: when is the next
        one due?

        At a quarter of the record's life; sooner, with a growing pause, if fewer than half of the replicas confirmed.
        A goodbye that enough nodes know of is none of our records any more.
        """
        if own.generation != generation:
            return
        wanted = max(1, min(self._network.k, known) / 2)
        if known and len(own.told) < wanted:
            self._back_off(own, now)
            return
        if known and own.is_goodbye:
            # Said once and for all; the others hand it on until what it ended is over.
            self._own = {key: other for key, other in self._own.items() if other is not own}
            self._deadline = None
            return
        own.backoff_s = 0.0
        own.crowd = crowd
        quarter = self._network.record_life_s / 4
        self._set_due(own, now + quarter * self._rng.uniform(1 - _JITTER, 1 + _JITTER))

    def on_crowd(self, crowd: float, now: float) -> None:
        """There are some `crowd` nodes now. What was said to a small network is said again to a large one.

        While a network grows a hundredfold in a minute those who are nearest to a key change more than once within the
        second that a hand-off takes, and some hear of a newcomer before they hold what it should have.
        """
        for own in self._own.values():
            if crowd >= _GROWN * own.crowd and not own.backoff_s and now + _SOON_S < own.due_at < math.inf:
                self._set_due(own, now + _SOON_S * self._rng.random())

    def on_failed(self, own: OwnRecord, generation: int, now: float) -> None:
        """A round of publishing ended in an error: it is due again after a growing pause."""
        if own.generation == generation:
            self._back_off(own, now)

    def _back_off(self, own: OwnRecord, now: float) -> None:
        first, most = self._config.publish_backoff_first_s, self._config.publish_backoff_max_s
        own.backoff_s = min(most, own.backoff_s * 2 or first)
        self._set_due(own, now + own.backoff_s * self._rng.uniform(0.75, 1.25))

    def _set_due(self, own: OwnRecord, at: float) -> None:
        own.due_at = at
        self._deadline = None

    def wanting(self) -> list[bytes]:
        """The keys of those whose latest record is held by fewer than k nodes."""
        k = self._network.k
        return [key for key, own in self._own.items() if own.record is not None and len(own.told) < k]

    def due(self, now: float) -> list[tuple[bytes, OwnRecord]]:
        """What is to be published now."""
        if self.deadline() > now:
            return []
        return [(key, own) for key, own in self._own.items() if own.due_at <= now]

    def deadline(self) -> float:
        """When the next is due; infinity while none will be."""
        if self._deadline is None:
            self._deadline = min((own.due_at for own in self._own.values()), default=math.inf)
        return self._deadline
