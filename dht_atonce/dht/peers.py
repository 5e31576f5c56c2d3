"""What a node remembers of the addresses that it talks to: cookies, round trips, proofs.

Bounded by use: the address that was not needed for longest is forgotten, which costs one padded request.
"""

from array import array
from bisect import bisect_left
from collections import Counter

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.dht.voices import Voices
from dht_atonce.endpoints import Family, subnet, unpack_address
from dht_atonce.memo import Memo

__all__ = ["KnownAddresses", "ObservedAddress", "UnprovedBudget", "pick_diverse"]

_SAMPLES = 64  # round trips over which the node-wide percentile is taken
_RESORT = 8  # samples between two looks at the percentile: sorting is the dear part
_COOKIE_SIZE = 16
_NEVER = float("-inf")
_UNKNOWN = -1.0
_BATCH = 64  # a full table forgets 1/64 of itself at once: each of its columns has to be closed up
_LAST_STAMP = (1 << 32) - 1
_ADDRESS_SIZES = {Family.IPV4: 6, Family.IPV6: 18}  # bytes on the wire


class KnownAddresses:
    """The cookies that others gave us, and how long answers take: from each contact (RFC 6298), and from this node's
    neighbours as a whole.

    A node knows hundreds, and a simulation has thousands of nodes: so an address has 48 B, at one index of all columns.
    They are sorted by the contacts' ids.
    """

    __slots__ = (
        "_config",
        "_contacts",
        "_cookie_at",
        "_cookies",
        "_hedge_s",
        "_ids",
        "_made",
        "_recent",
        "_rttvar",
        "_seen",
        "_srtt",
        "_used",
    )

    def __init__(self, config: DhtConfig) -> None:
        self._config = config
        self._ids: list[int] = []
        self._contacts: list[Contact] = []
        self._cookies = bytearray()
        self._cookie_at = array("f")  # monotonic seconds, to fractions of one; _NEVER without a cookie
        self._srtt = array("f")  # seconds; _UNKNOWN before the first sample
        self._rttvar = array("f")
        self._used = array("I")  # how many rows had been made when something was last set here
        self._made = 0
        self._recent = array("f")
        self._seen = 0
        self._hedge_s = config.first_hedge_s

    def __len__(self) -> int:
        return len(self._ids)

    # --- cookies ---

    def on_cookie(self, contact: Contact, cookie: bytes, now: float) -> None:
        """`contact` gave us `cookie` (16 B)."""
        row = self._use(contact)
        self._cookies[row * _COOKIE_SIZE : (row + 1) * _COOKIE_SIZE] = cookie
        self._cookie_at[row] = now

    def forget(self, contact: Contact) -> None:
        """The cookie was refused."""
        row = self._row(contact)
        if row >= 0:
            self._cookie_at[row] = _NEVER

    def forget_cookies(self) -> None:
        """We are at another address, or slept: none of them holds any more."""
        for row in range(len(self._cookie_at)):
            self._cookie_at[row] = _NEVER

    def cookie(self, contact: Contact, now: float) -> bytes:
        """A cookie that its issuer will still take, or b""."""
        row = self._row(contact)
        if row < 0 or now - self._cookie_at[row] >= self._config.cookie_use_s:
            return b""
        return bytes(self._cookies[row * _COOKIE_SIZE : (row + 1) * _COOKIE_SIZE])

    def towards(self, contact: Contact, now: float) -> tuple[bytes, float]:
        """`cookie` and `timeout_s` at once: what each request begins with."""
        row = self._row(contact)
        timeout_s = self._timeout_s(row)
        if row < 0 or now - self._cookie_at[row] >= self._config.cookie_use_s:
            return b"", timeout_s
        at = row * _COOKIE_SIZE
        return bytes(self._cookies[at : at + _COOKIE_SIZE]), timeout_s

    # --- round trips ---

    def on_sample(self, contact: Contact, rtt_s: float) -> None:
        """An answer to a request that was sent once (Karn: one that was sent twice says nothing)."""
        row = self._use(contact)
        srtt = self._srtt[row]
        if srtt < 0:
            self._srtt[row] = rtt_s
            self._rttvar[row] = rtt_s / 2
        else:
            off = rtt_s - srtt
            self._srtt[row] = srtt + off / 8
            self._rttvar[row] += ((off if off > 0 else -off) - self._rttvar[row]) / 4
        recent, seen = self._recent, self._seen
        if len(recent) < _SAMPLES:
            recent.append(rtt_s)
        else:
            recent[seen % _SAMPLES] = rtt_s
        self._seen = seen = seen + 1
        if seen > _RESORT and seen % _RESORT:
            return
        percentile = sorted(recent)[len(recent) * 3 // 4]
        self._hedge_s = max(self._config.min_hedge_s, self._config.hedge_factor * percentile)

    def timeout_s(self, contact: Contact) -> float:
        """Retransmission timeout: it decides failure. Towards a stranger it is what would be a long one for most whom
        we know, once some are known."""
        return self._timeout_s(self._row(contact))

    def _timeout_s(self, row: int) -> float:
        config = self._config
        if row >= 0 and (srtt := self._srtt[row]) >= 0:
            timeout_s = srtt + 4 * self._rttvar[row]
        elif self._seen >= _RESORT:
            timeout_s = config.stranger_factor * self._hedge_s
        else:
            return min(config.max_timeout_s, config.first_timeout_s)
        if timeout_s < config.min_timeout_s:
            return config.min_timeout_s
        return min(config.max_timeout_s, timeout_s)

    @property
    def hedge_s(self) -> float:
        """After this long a lookup counts a request as late and asks somebody else too; it says nothing about
        failure."""
        return self._hedge_s

    # --- inside ---

    def _row(self, contact: Contact) -> int:
        """Where `contact` stands, -1 if it is not known."""
        ids, long_id = self._ids, contact.long_id
        row = bisect_left(ids, long_id)
        if row < len(self._contacts) and self._contacts[row] is contact:
            return row
        # A node may be known at several addresses, one in each family at least.
        while row < len(ids) and ids[row] == long_id:
            known = self._contacts[row]
            if known is contact or known == contact:
                return row
            row += 1
        return -1

    def _use(self, contact: Contact) -> int:
        """The row of `contact`, a new one if need be, which now is the latest used."""
        row = self._row(contact)
        if row < 0:
            if len(self._ids) >= self._config.max_known_addresses:
                self._forget_oldest()
            row = bisect_left(self._ids, contact.long_id)
            self._ids.insert(row, contact.long_id)
            self._contacts.insert(row, contact)
            self._cookies[row * _COOKIE_SIZE : row * _COOKIE_SIZE] = bytes(_COOKIE_SIZE)
            self._cookie_at.insert(row, _NEVER)
            self._srtt.insert(row, _UNKNOWN)
            self._rttvar.insert(row, 0.0)
            self._used.insert(row, 0)
            self._made = min(self._made + 1, _LAST_STAMP)
        self._used[row] = self._made
        return row

    def _forget_oldest(self) -> None:
        by_use = sorted(range(len(self._ids)), key=self._used.__getitem__)
        for row in sorted(by_use[: 1 + len(by_use) // _BATCH], reverse=True):
            del self._ids[row], self._contacts[row], self._cookies[row * _COOKIE_SIZE : (row + 1) * _COOKIE_SIZE]
            del self._cookie_at[row], self._srtt[row], self._rttvar[row], self._used[row]


class ObservedAddress:
    """Our own IP as others see it: what a majority of the latest voices says (BEP 42 learns it so too)."""

    __slots__ = ("_voices",)

    def __init__(self) -> None:
        # Length of an address on the wire → what was said of that family
        self._voices: dict[int, Voices[bytes]] = {}

    def on_you(self, key: bytes, raw: bytes) -> None:
        """The node `key` says that we are at `raw` (6 or 18 B)."""
        voices = self._voices.get(len(raw))
        if voices is None:
            if len(raw) not in _ADDRESS_SIZES.values():
                return
            voices = self._voices[len(raw)] = Voices([])
        latest = voices.latest()
        # They mostly say the same: one object is enough.
        voices.on_voice(key, raw if latest is None or latest != raw else latest)

    def forget(self) -> None:
        """We are elsewhere: what was said so far is of no use."""
        self._voices.clear()

    def ip(self, family: Family) -> str | None:
        """Our IP in `family`, None before anybody spoke."""
        voices = self._voices.get(_ADDRESS_SIZES[family])
        if voices is None:
            return None
        counts = Counter(raw[:-2] for raw in voices)
        packed = counts.most_common(1)[0][0]
        return unpack_address(packed + bytes(2)).ip


class UnprovedBudget:
    """How much may go to an IP that never proved itself: 2 datagrams in 10 s from the whole node.

    Without it anybody could list a victim's address in replies and have the whole network knock there. In a `local`
    network there is no limit, and nothing is remembered.
    """

    __slots__ = ("_limit", "_local", "_proved", "_sent", "_window_s")

    def __init__(self, config: DhtConfig, *, local: bool = False) -> None:
        self._local = local
        self._limit = config.unproved_datagrams
        self._window_s = config.unproved_window_s
        self._proved: Memo[str, bool] = Memo(config.max_known_addresses)
        self._sent: Memo[str, tuple[float, ...]] = Memo(config.max_known_addresses)

    def on_proved(self, ip: str) -> None:
        """It answered us, or showed one of our cookies."""
        if not self._local:
            self._proved.put(ip, True)

    def take(self, ip: str, now: float) -> bool:
        """Whether one more datagram may go to `ip`; it is counted as sent."""
        if self._local or self._proved.get(ip):
            return True
        times = tuple(at for at in self._sent.get(ip) or () if now - at < self._window_s)
        if len(times) >= self._limit:
            return False
        self._sent.put(ip, (*times, now))
        return True


def pick_diverse(contacts: list[Contact], config: DhtConfig) -> list[Contact]:
    """Of one reply's contacts those that may be asked: at most 1 per IP and 2 per /24 (/48), the nearest first."""
    ips: dict[str, int] = {}
    subnets: dict[bytes, int] = {}
    picked = []
    for contact in contacts:
        net = subnet(contact.ip)
        if (
            ips.get(contact.ip, 0) < config.reply_contacts_per_ip
            and subnets.get(net, 0) < config.reply_contacts_per_subnet
        ):
            ips[contact.ip] = ips.get(contact.ip, 0) + 1
            subnets[net] = subnets.get(net, 0) + 1
            picked.append(contact)
    return picked
