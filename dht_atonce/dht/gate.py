"""Who may ask how much: decided from a datagram's header, before its box costs a public-key operation.

A cookie that holds proves that the asker is at its address, and only then do limits by key bind: a key is public, and
whoever writes it on a spoofed packet shall not use up its owner's share. Keys that proved themselves within the last
one to two cookie epochs are *known*; a key that is not costs an X25519 operation, so all such keys share a limit.
Whoever is over a limit without a proof is not dropped but sent a cookie: that costs one round trip and starves nobody.
If so many strangers ask that not all can have one, some are left for those who were turned away and ask again from the
same address, as honest nodes do and a flood of made-up addresses does not.

Rates are kept as in the generic cell rate algorithm (ITU-T I.371): a full bucket needs no entry, another one a number.
"""

from enum import Enum
from typing import Generic, TypeVar
from zlib import crc32

from dht_atonce.config import DhtConfig

__all__ = ["Bucket", "Buckets", "Gate", "TurnedAway", "Verdict"]

_FEW = 64  # buckets that are not worth a look which of them are full again
_BATCH = 64  # a full table forgets 1/64 of itself at once
_ONE = 0.99  # request that must fit; sums of fractions of a second are a little more or less than they should be
_LONG_AGO = float("-inf")
_AWAY_BITS = 21  # 256 KiB: of 15,000 turned away each second, one in 50 others looks as if it were one of them

K = TypeVar("K")


class Verdict(Enum):
    """What is to become of a datagram."""

    def __init__(self, word: str) -> None:
        self.counter = f"dht.{word}"
        """Where those are counted that do not pass."""

    PASS = "passed"  # noqa: S105
    COOKIE = "cookies"
    """Answer with a COOKIE."""
    KEY_RATE = "over_key_rate"
    """Drop: this known key asks too much."""
    NEW_RATE = "over_new_rate"
    """Drop: too many new keys from proved addresses, or from this one."""
    COOKIE_RATE = "over_cookie_rate"
    """Drop: so many strangers ask that not even each of them can be sent a cookie."""
    CROWD = "over_waiting"
    """Drop: more requests without a proof come than we have time to look at."""
    PLAIN_RATE = "over_plain_rate"
    """Drop: too many KEY requests, or too many from this address."""


# Read from the class, these cost more than what is decided.
_PASS, _KEY_RATE = Verdict.PASS, Verdict.KEY_RATE


class Bucket:
    """At most `burst` at once, and `per_s` in the long run."""

    __slots__ = ("_burst", "_full_at", "_per_s")

    def __init__(self, per_s: int, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._full_at = _LONG_AGO

    def take(self, now: float) -> bool:
        """Whether one more fits; if so it is counted."""
        full_at = max(self._full_at, now)
        if full_at - now > (self._burst - _ONE) / self._per_s:
            return False
        self._full_at = full_at + 1 / self._per_s
        return True


class Buckets(Generic[K]):
    """A bucket for each key, the latest `limit` of those that are not full."""

    __slots__ = ("_burst", "_full_at", "_limit", "_look_at", "_per_s")

    def __init__(self, per_s: int, burst: int, limit: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._limit = limit
        self._look_at = min(_FEW, limit)
        # When each will be full again
        self._full_at: dict[K, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: K, now: float) -> bool:
        """Whether one more fits into the bucket of `key`; if so it is counted."""
        at = self._full_at.get(key)
        if at is None:
            if len(self._full_at) >= self._look_at:
                self._make_room(now)
            at = now
        elif at < now:
            at = now
        elif at - now > (self._burst - _ONE) / self._per_s:
            return False
        self._full_at[key] = at + 1 / self._per_s
        return True

    def _make_room(self, now: float) -> None:
        left = {key: at for key, at in self._full_at.items() if at > now}
        if len(left) >= self._limit:
            for key in list(left)[: 1 + self._limit // _BATCH]:
                del left[key]
        self._full_at = left
        self._look_at = min(self._limit, max(_FEW, 2 * len(left)))


class TurnedAway:
    """Addresses that were turned away, for one to two times `remembered_s`: two Bloom filters of one hash each, made
    when the first one is turned away."""

    __slots__ = ("_old", "_remembered_s", "_turn_at", "_young")

    def __init__(self, remembered_s: float) -> None:
        self._remembered_s = remembered_s
        self._young = self._old = bytearray()
        self._turn_at = _LONG_AGO

    def again(self, address: bytes, now: float) -> bool:
        """`address` is turned away now; gives whether it was before (or, seldom, another one was)."""
        if now >= self._turn_at:
            size = 1 << (_AWAY_BITS - 3)
            is_old = now < self._turn_at + self._remembered_s
            self._young, self._old = bytearray(size), self._young if is_old else bytearray(size)
            self._turn_at = now + self._remembered_s
        # No secret is in it: who knows which addresses collide may as well ask twice from each.
        place = crc32(address) >> (32 - _AWAY_BITS)
        at, bit = place >> 3, 1 << (place & 7)
        was = (self._young[at] | self._old[at]) & bit
        self._young[at] |= bit
        return bool(was)


class Gate:
    """Decides for one node about what arrives; `now` is monotonic seconds, an owner is whoever has one IPv4 address or
    one /64 of IPv6.

    In a `local` network, where many peers share one address, nothing is limited by address.
    """

    __slots__ = (
        "_config",
        "_cookies",
        "_each_s",
        "_fits_s",
        "_local",
        "_new",
        "_new_of",
        "_old",
        "_plain",
        "_proved_new",
        "_second_tries",
        "_turn_at",
        "_turned_away",
        "_unproved_of",
        "_young",
    )

    def __init__(self, config: DhtConfig, *, local: bool) -> None:
        self._config = config
        self._local = local
        self._new = Bucket(config.new_keys_per_s, config.new_keys_per_s)
        self._proved_new = Bucket(config.new_keys_per_s, config.new_keys_per_s)
        self._cookies = Bucket(config.cookie_answers_per_s, config.cookie_answers_per_s)
        self._second_tries = Bucket(config.second_tries_per_s, config.second_tries_per_s)
        self._turned_away = TurnedAway(config.second_try_s)
        self._plain = Bucket(config.key_answers_per_s, config.key_answers_per_s)
        per_owner = config.unproved_per_owner_s, config.unproved_per_owner_burst, config.max_known_addresses
        # Apart: whoever spoofs an address shall not use up what belongs to those who are there.
        self._unproved_of: Buckets[bytes] = Buckets(*per_owner)
        self._new_of: Buckets[bytes] = Buckets(*per_owner)
        # Known keys and when the bucket of each will be full again, in two generations
        self._young: dict[bytes, float] = {}
        self._old: dict[bytes, float] = {}
        self._turn_at = _LONG_AGO
        # Of one key: until when its bucket may be full at most and one more fits, and what each takes of it
        self._fits_s = (config.requests_per_key_burst - _ONE) / config.requests_per_key_s
        self._each_s = 1 / config.requests_per_key_s

    def knows(self, key: bytes, now: float) -> bool:
        """Whether the holder of `key` proved itself in this cookie epoch or in the one before."""
        if now < self._turn_at:
            return key in self._young or key in self._old
        return now < self._turn_at + self._config.cookie_epoch_s and key in self._young

    def on_proved(self, key: bytes, now: float) -> None:
        """The holder of the node key `key` (32 B) opened or sealed a box, and is at its address."""
        if key not in self._young:
            self._know(key, self._old.get(key, _LONG_AGO), now)

    def on_request(self, key: bytes, address: bytes, *, is_proved: bool, now: float) -> Verdict:
        """A REQUEST with the sender key `key` came from `address` (as on the wire: 6 or 18 B). `is_proved`: its cookie
        holds."""
        full_at = self._young.get(key)
        if is_proved and full_at is not None and now < self._turn_at:  # nearly all there are
            if full_at < now:
                full_at = now
            elif full_at - now > self._fits_s:
                return _KEY_RATE
            self._young[key] = full_at + self._each_s
            return _PASS
        if full_at is None:
            full_at = self._old.get(key)
        if is_proved:
            if full_at is not None:
                return self._take_of_key(key, full_at, now)
            is_within = (self._local or self._new_of.take(_owner(address), now)) and self._proved_new.take(now)
            return Verdict.PASS if is_within else Verdict.NEW_RATE
        if (self._local or self._unproved_of.take(_owner(address), now)) and (
            full_at is not None or self._new.take(now)
        ):
            return Verdict.PASS
        if self._cookies.take(now) or self._has_second_try(address, now):
            return Verdict.COOKIE
        return Verdict.COOKIE_RATE

    def on_crowded_out(self, address: bytes, now: float) -> Verdict:
        """A REQUEST without a proof came from `address`, and so many wait that it cannot."""
        return Verdict.COOKIE if self._has_second_try(address, now) else Verdict.CROWD

    def was_turned_away(self, address: bytes, now: float) -> bool:
        """A REQUEST without a proof came from `address` in a crowd; whether it deserves a look, since one came before.
        The next one does."""
        return self._turned_away.again(address, now)

    def on_key_request(self, address: bytes, now: float) -> Verdict:
        """A KEY request came from `address`."""
        is_within = (self._local or self._unproved_of.take(_owner(address), now)) and self._plain.take(now)
        return Verdict.PASS if is_within else Verdict.PLAIN_RATE

    def _has_second_try(self, address: bytes, now: float) -> bool:
        return self._turned_away.again(address, now) and self._second_tries.take(now)

    def _take_of_key(self, key: bytes, full_at: float, now: float) -> Verdict:
        full_at = max(full_at, now)
        if full_at - now > self._fits_s:
            return _KEY_RATE
        self._know(key, full_at + self._each_s, now)
        return _PASS

    def _know(self, key: bytes, full_at: float, now: float) -> None:
        is_full = len(self._young) >= max(1, self._config.max_pair_keys // 2) and key not in self._young
        if is_full or now >= self._turn_at:
            epoch_s = self._config.cookie_epoch_s
            self._young, self._old = {}, self._young if now < self._turn_at + epoch_s else {}
            self._turn_at = now + epoch_s
        self._young[key] = full_at


def _owner(address: bytes) -> bytes:
    return address[:4] if len(address) == 6 else address[:8]
