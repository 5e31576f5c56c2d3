"""What a node remembers of the addresses that it talks to: cookies, round trips, proofs.

Bounded by use: the address that was not needed for longest is forgotten, which costs one padded request.
"""

import contextlib
from collections import Counter, OrderedDict, deque
from typing import Generic, TypeVar

from dht_atonce.config import DhtConfig
from dht_atonce.dht.contact import Contact
from dht_atonce.endpoints import Family, subnet, unpack_address
from dht_atonce.errors import WireError

__all__ = ["KnownAddresses", "ObservedAddress", "RoundTrips", "UnprovedBudget", "pick_diverse"]

_SAMPLES = 64  # round trips over which the node-wide percentile is taken
_RESORT = 8  # samples between two looks at the percentile: sorting is the dear part

K = TypeVar("K")
V = TypeVar("V")


class _Bounded(OrderedDict[K, V], Generic[K, V]):
    """A dict that forgets what was set longest ago."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._limit:
            self.popitem(last=False)


class RoundTrips:
    """How long answers take: from each contact (RFC 6298), and from this node's neighbours as a whole."""

    def __init__(self, config: DhtConfig) -> None:
        self._config = config
        self._each: _Bounded[Contact, tuple[float, float]] = _Bounded(config.max_known_addresses)
        self._recent: deque[float] = deque(maxlen=_SAMPLES)
        self._hedge_s = config.first_hedge_s
        self._seen = 0

    def on_sample(self, contact: Contact, rtt_s: float) -> None:
        """An answer to a request that was sent once (Karn: one that was sent twice says nothing)."""
        known = self._each.get(contact)
        if known is None:
            self._each[contact] = (rtt_s, rtt_s / 2)
        else:
            srtt, rttvar = known
            self._each[contact] = (srtt + (rtt_s - srtt) / 8, rttvar + (abs(rtt_s - srtt) - rttvar) / 4)
        self._recent.append(rtt_s)
        self._seen += 1
        if self._seen > _RESORT and self._seen % _RESORT:
            return
        ordered = sorted(self._recent)
        percentile = ordered[len(ordered) * 3 // 4]
        self._hedge_s = max(self._config.min_hedge_s, self._config.hedge_factor * percentile)

    def timeout_s(self, contact: Contact) -> float:
        """Retransmission timeout: it decides failure."""
        known = self._each.get(contact)
        if known is None:
            return self._config.first_timeout_s
        srtt, rttvar = known
        return min(self._config.max_timeout_s, max(self._config.min_timeout_s, srtt + 4 * rttvar))

    @property
    def hedge_s(self) -> float:
        """After this long a lookup counts a request as late and asks somebody else too; it says nothing about
        failure."""
        return self._hedge_s


class KnownAddresses:
    """The cookies that others gave us."""

    def __init__(self, config: DhtConfig) -> None:
        self._use_s = config.cookie_use_s
        self._cookies: _Bounded[Contact, tuple[bytes, float]] = _Bounded(config.max_known_addresses)

    def on_cookie(self, contact: Contact, cookie: bytes, now: float) -> None:
        self._cookies[contact] = (cookie, now)

    def forget(self, contact: Contact) -> None:
        """The cookie was refused."""
        self._cookies.pop(contact, None)

    def cookie(self, contact: Contact, now: float) -> bytes:
        """A cookie that its issuer will still take, or b""."""
        cookie, received = self._cookies.get(contact, (b"", 0.0))
        return cookie if cookie and now - received < self._use_s else b""


class ObservedAddress:
    """Our own IP as others see it: what a majority of the latest voices says (BEP 42 learns it so too)."""

    _MAX_VOICES = 31

    def __init__(self) -> None:
        self._voices: dict[Family, _Bounded[bytes, str]] = {family: _Bounded(self._MAX_VOICES) for family in Family}

    def on_you(self, key: bytes, raw: bytes) -> None:
        """The node `key` says that we are at `raw` (6 or 18 B)."""
        with contextlib.suppress(WireError):
            address = unpack_address(raw)
            self._voices[address.family][key] = address.ip

    def ip(self, family: Family) -> str | None:
        """Our IP in `family`, None before anybody spoke."""
        counts = Counter(self._voices[family].values())
        return counts.most_common(1)[0][0] if counts else None


class UnprovedBudget:
    """How much may go to an IP that never proved itself: 2 datagrams in 10 s from the whole node.

    Without it anybody could list a victim's address in replies and have the whole network knock there.
    """

    def __init__(self, config: DhtConfig) -> None:
        self._limit = config.unproved_datagrams
        self._window_s = config.unproved_window_s
        self._proved: _Bounded[str, None] = _Bounded(config.max_known_addresses)
        self._sent: _Bounded[str, list[float]] = _Bounded(config.max_known_addresses)

    def on_proved(self, ip: str) -> None:
        """It answered us, or showed one of our cookies."""
        self._proved[ip] = None
        self._sent.pop(ip, None)

    def take(self, ip: str, now: float) -> bool:
        """Whether one more datagram may go to `ip`; it is counted as sent."""
        if ip in self._proved:
            return True
        times = [at for at in self._sent.get(ip, ()) if now - at < self._window_s]
        if len(times) >= self._limit:
            return False
        self._sent[ip] = [*times, now]
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
