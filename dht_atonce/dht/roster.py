"""The members of one topic that a node keeps: all that come, and a fair sample of them once there are too many.

Where a place is contested each identity has a lot, a hash under a key that only this node knows, and the lower lot
stays. So it is of no use to come first, to come often, or to announce again; and as the key is drawn anew from time to
time, and each node has its own, nobody is left out everywhere and for ever. (A bottom-k sample: Cohen and Kaplan 2007.)

Contested are the places of the topic as a whole, those of a subnet (the endpoints that a member signed), those of
members who cannot be dialled, and those of goodbyes.
"""

import hashlib
import random
from bisect import bisect_left

from dht_atonce.config import DhtConfig
from dht_atonce.endpoints import subnet
from dht_atonce.records import MembershipRecord

__all__ = ["Lottery", "Roster", "member_limit", "member_origins", "place_of"]

_GOODBYES = b"gone"
_UNDIALLED = b""
_NOBODY: dict[bytes, float] = {}  # in place of a dict for each roster; never written to


def place_of(seed: bytes, identity: bytes) -> int:
    """The place of an identity's key (32 B) in the order of a seed (8 B): docs/wire.md, MEMBERS."""
    return int.from_bytes(hashlib.blake2b(seed + identity, digest_size=8).digest(), "big")


def member_origins(record: MembershipRecord) -> list[bytes]:
    """Each /24 or /48 in which a member says that it can be dialled; one of their own for all that cannot be."""
    return list(dict.fromkeys(subnet(endpoint.ip) for endpoint in record.endpoints)) or [_UNDIALLED]


def member_limit(origin: bytes, config: DhtConfig) -> int:
    """How many members of one topic may come from there, outside a local network."""
    return config.topic_undialled if origin == _UNDIALLED else config.topic_members_per_subnet


class Lottery:
    """The key of this node's lots. `now` is Unix seconds."""

    __slots__ = ("_epoch", "_epoch_s", "_rng", "_secret")

    def __init__(self, rng: random.Random, epoch_s: float) -> None:
        self._rng = rng
        self._epoch_s = epoch_s
        self._epoch: int | None = None
        self._secret = b""

    def secret(self, now: float) -> bytes:
        """16 B, the same until the epoch ends. Drawn when first asked for: most nodes keep no topic that is full."""
        epoch = int(now // self._epoch_s)
        if epoch != self._epoch:
            self._epoch, self._secret = epoch, self._rng.randbytes(16)
        return self._secret


class Roster:
    """The members of the topic `key`, goodbyes among them, one record for each identity. `now` is Unix seconds.

    `losers` says what a record would cost, `enter` and `leave` do it: whether a record is newer, and whether the store
    has room, is the store's business.
    """

    __slots__ = ("_config", "_groups", "_local", "_lots", "_lottery", "_members", "_order", "_secret", "_sooner", "key")

    def __init__(self, key: bytes, config: DhtConfig, lottery: Lottery, *, local: bool) -> None:
        self.key = key
        self._config = config
        self._lottery = lottery
        self._local = local
        self._members: dict[bytes, MembershipRecord] = {}
        # Identity → when its record is over, where that is sooner than its own expiry
        self._sooner = _NOBODY
        # Goodbyes, members that cannot be dialled, members of a subnet: the identities of each group
        self._groups: dict[bytes, list[bytes]] = {}
        self._secret = b""
        # Lots under that secret, of those who had to draw one
        self._lots: dict[bytes, int] = {}
        # The seed that was last asked for, and (place, identity) in its order: pages are asked for one after another
        self._order: tuple[bytes, list[tuple[int, bytes]]] | None = None

    # --- getters ---

    def __len__(self) -> int:
        return len(self._members)

    @property
    def live_count(self) -> int:
        """How many have not left."""
        return len(self._members) - len(self._groups.get(_GOODBYES, ()))

    def records(self) -> list[MembershipRecord]:
        """All records as held, over or not."""
        return list(self._members.values())

    def get(self, identity: bytes) -> MembershipRecord | None:
        """The record of an identity (32 B) as held, over or not."""
        return self._members.get(identity)

    def live(self, identity: bytes, now: float) -> MembershipRecord | None:
        """The record of an identity, unless its time is over."""
        record = self._members.get(identity)
        return record if record is not None and self.until(record) > now else None

    def until(self, record: MembershipRecord) -> float:
        """When a record that is held is over: the earlier of its expiry and receipt + life."""
        return self._sooner.get(record.peer_id.key, record.expires)

    def page(self, seed: bytes, start: int, now: float, *, room: int, most: int) -> tuple[list[MembershipRecord], int]:
        """The records whose places are `start` or more, as many as fit into `room` (bytes, 3 beside each record), and
        where the next page starts; 0: nothing follows."""
        order = self._ordered(seed)
        page: list[MembershipRecord] = []
        for at in range(bisect_left(order, (start, b"")), len(order)):
            place, identity = order[at]
            record = self.live(identity, now)
            if record is None:
                continue
            room -= len(record.blob) + 3
            if room < 0 or len(page) >= most:
                return page, place
            page.append(record)
        return page, 0

    def following(self, identity: bytes, now: float) -> MembershipRecord | None:
        """The record whose identity comes next to `identity` (b"": the first): to go through all of them, whatever
        changes meanwhile."""
        later = [other for other in self._members if other > identity and self.live(other, now) is not None]
        return self._members[min(later)] if later else None

    def losers(self, record: MembershipRecord, now: float) -> list[MembershipRecord] | None:
        """Who would have to go so that `record` can stay; None if it cannot."""
        identity, held = record.peer_id.key, self._members.get(record.peer_id.key)
        old = self._groups_of(held) if held is not None else []
        losers: dict[bytes, None] = {}
        for group in self._groups_of(record):
            others = self._groups.get(group, [])
            if group not in old and not self._contest(identity, others, self._limit(group), losers, now):
                return None
        if not record.is_goodbye and (held is None or held.is_goodbye):
            limit = self._config.topic_members
            if self.live_count - len(losers) >= limit:
                others = [key for key, other in self._members.items() if key not in losers and not other.is_goodbye]
                if not self._contest(identity, others, limit, losers, now):
                    return None
        return [self._members[loser] for loser in losers]

    # --- commands ---

    def enter(self, record: MembershipRecord, until: float) -> None:
        """Hold `record`, in place of an older one of its identity, until then."""
        identity = record.peer_id.key
        held = self._members.get(identity)
        if held is None:
            self._order = None
        else:
            self._leave_groups(held)
        self._members[identity] = record
        for group in self._groups_of(record):
            self._groups.setdefault(group, []).append(identity)
        if until < record.expires:
            self._sooner = {**self._sooner, identity: until}
        elif identity in self._sooner:
            del self._sooner[identity]

    def leave(self, record: MembershipRecord) -> None:
        """Forget a record that is held."""
        identity = record.peer_id.key
        del self._members[identity]
        self._leave_groups(record)
        self._lots.pop(identity, None)
        if identity in self._sooner:
            del self._sooner[identity]
        self._order = None

    def last(self, now: float) -> MembershipRecord:
        """Who goes first if there has to be one less; there must be somebody."""
        return self._members[max(self._members, key=lambda identity: self._lot(identity, now))]

    # --- inside ---

    def _groups_of(self, record: MembershipRecord) -> list[bytes]:
        if record.is_goodbye:
            return [_GOODBYES]
        return [] if self._local else member_origins(record)

    def _limit(self, group: bytes) -> int:
        return self._config.topic_goodbyes if group == _GOODBYES else member_limit(group, self._config)

    def _leave_groups(self, record: MembershipRecord) -> None:
        for group in self._groups_of(record):
            others = self._groups[group]
            others.remove(record.peer_id.key)
            if not others:
                del self._groups[group]

    def _contest(self, identity: bytes, others: list[bytes], limit: int, losers: dict[bytes, None], now: float) -> bool:
        """Whether `identity` gets a place among `others`; who loses it joins the `losers`."""
        others = [other for other in others if other not in losers and other != identity]
        if len(others) < limit:
            return True
        last = max(others, key=lambda other: self._lot(other, now))
        if self._lot(identity, now) > self._lot(last, now):
            return False
        losers[last] = None
        return True

    def _lot(self, identity: bytes, now: float) -> int:
        secret = self._lottery.secret(now)
        if secret != self._secret:
            self._secret, self._lots = secret, {}
        lot = self._lots.get(identity)
        if lot is None:
            digest = hashlib.blake2b(self.key + identity, key=secret, digest_size=8).digest()
            lot = int.from_bytes(digest, "big")
            if identity in self._members:
                self._lots[identity] = lot
        return lot

    def _ordered(self, seed: bytes) -> list[tuple[int, bytes]]:
        if self._order is None or self._order[0] != seed:
            self._order = seed, sorted((place_of(seed, identity), identity) for identity in self._members)
        return self._order[1]
