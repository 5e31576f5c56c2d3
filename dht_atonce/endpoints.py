"""Addresses: their bytes, which of them are acceptable, and seed URLs."""

import contextlib
import ipaddress
import socket
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from dht_atonce.errors import EndpointError, PeerIdError, SeedUrlError, WireError
from dht_atonce.identity import PeerId

__all__ = [
    "MIN_PORT",
    "Address",
    "Family",
    "SeedUrl",
    "is_acceptable",
    "is_local",
    "pack_acceptable",
    "pack_address",
    "parse_address",
    "subnet",
    "unpack_address",
]

MIN_PORT = 1024
"""Contacts on lower ports are refused: nobody's DNS or NTP server shall be asked in our name."""


class Family(IntEnum):
    """Address family; the value is the bit that `want` has for it on the wire."""

    IPV4 = 1
    IPV6 = 2


class Address(NamedTuple):
    """An IP literal and a port; what sockets take and give."""

    ip: str
    port: int

    @property
    def family(self) -> Family:
        return Family.IPV6 if ":" in self.ip else Family.IPV4

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@lru_cache(maxsize=1 << 16)
def pack_address(address: Address) -> bytes:
    """6 B (IPv4) or 18 B (IPv6), as in docs/wire.md."""
    kind = socket.AF_INET6 if ":" in address.ip else socket.AF_INET
    return socket.inet_pton(kind, address.ip) + address.port.to_bytes(2, "big")


def unpack_address(data: bytes) -> Address:
    """Read 6 B or 18 B; raises `WireError` for another length. Whether it is acceptable is another question."""
    if len(data) == 6:
        return Address(socket.inet_ntop(socket.AF_INET, data[:4]), int.from_bytes(data[4:], "big"))
    if len(data) == 18:
        return Address(socket.inet_ntop(socket.AF_INET6, data[:16]), int.from_bytes(data[16:], "big"))
    raise WireError("an address has 6 or 18 bytes")


def parse_address(text: str, default_port: int | None = None) -> Address:
    """Read "IP:PORT", "[IPv6]:PORT" or, with a default port, the bare IP. Raises `EndpointError`."""
    if default_port is not None:
        with contextlib.suppress(ValueError):
            return Address(_ip_literal(text.removeprefix("[").removesuffix("]")), default_port)
    host, _, port_text = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = _ip_literal(host[1:-1] if bracketed else host)
        if bracketed != (":" in ip):
            raise ValueError
    except ValueError:
        raise EndpointError(f"{text[:80]!r} is not IP:PORT (an IPv6 address stands in brackets)") from None
    if not port_text.isascii() or not port_text.isdigit() or len(port_text) > 5 or int(port_text) > 65535:
        raise EndpointError(f"{text[:80]!r} has no port between 0 and 65535")
    return Address(ip, int(port_text))


def _ip_literal(text: str) -> str:
    """The canonical form; ValueError for what is none, or has a scope (which means something on this machine only)."""
    parsed = ipaddress.ip_address(text)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id is not None:
        raise ValueError
    return str(parsed)


_EMBEDDING = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "::/96",  # IPv4-compatible (RFC 4291), long deprecated
        "64:ff9b::/96",  # NAT64 (RFC 6052)
        "64:ff9b:1::/48",  # NAT64, local use (RFC 8215)
        "2001::/32",  # Teredo (RFC 4380)
        "2002::/16",  # 6to4 (RFC 3056)
        "fec0::/10",  # site-local (RFC 3879)
    )
)
"""IPv6 ranges that lead to somebody's private IPv4 address or site; Python's versions differ about some of them."""


_SPECIAL_OCTETS = frozenset((0, 10, 100, 127, 169, 172, 192, 198, 203, *range(224, 256)))
"""First octets of IPv4 ranges in which not everything is global (the IANA special-purpose registry, RFC 6890)."""

_MULTICAST_OCTET = 224
"""The first octet from which on no address is a host's: multicast, reserved, broadcast."""


@lru_cache(maxsize=65536)
def _is_acceptable_ip(ip: str, local: bool) -> bool:
    # Spoofed addresses are always new ones: most are judged here, at a tenth of the price.
    if ":" not in ip:
        with contextlib.suppress(OSError):
            first = socket.inet_pton(socket.AF_INET, ip)[0]
            if first not in _SPECIAL_OCTETS or (local and 0 < first < _MULTICAST_OCTET):
                return True
    parsed = ipaddress.ip_address(ip)
    if parsed.is_unspecified or parsed.is_multicast:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None or parsed.scope_id is not None:
            return False
        if not local and any(parsed in net for net in _EMBEDDING):
            return False
    elif parsed.is_reserved:  # 240.0.0.0/4 and the broadcast address
        return False
    return local or parsed.is_global


def is_acceptable(address: Address, *, local: bool) -> bool:
    """Whether a contact or an endpoint may be at `address`.

    Outside of a `local` network only global addresses are: otherwise a stranger could have us probe our own router
    (SSRF).
    """
    return MIN_PORT <= address.port <= 65535 and _is_acceptable_ip(address.ip, local)


@lru_cache(maxsize=1 << 16)
def pack_acceptable(address: Address, local: bool) -> bytes:
    """`pack_address` of an acceptable address, b"" for another: what is asked for each packet."""
    return pack_address(address) if is_acceptable(address, local=local) else b""


def is_local(ip: str) -> bool:
    """Whether `ip` is loopback, link-local or private: only a seed there may declare a network local."""
    return not ipaddress.ip_address(ip).is_global


@lru_cache(maxsize=65536)
def subnet(ip: str) -> bytes:
    """The /24 (IPv4, 3 B) or /48 (IPv6, 6 B) that `ip` belongs to: the unit in which one owner is suspected."""
    packed = ipaddress.ip_address(ip).packed
    return packed[:3] if len(packed) == 4 else packed[:6]


class SeedUrl(NamedTuple):
    """`atonce://<PeerId>@host:port`: where a seed is, and the key that it must prove."""

    peer_id: PeerId
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "SeedUrl":
        """Raises `SeedUrlError`, which says which part is wrong."""
        form = "a seed URL looks like atonce://PEERID@HOST:PORT"
        text = text.strip()
        try:
            parts = urlsplit(text)
            host, port, user = parts.hostname, parts.port, parts.username
        except ValueError as error:
            raise SeedUrlError(f"{form}: {error}") from None
        if parts.scheme != "atonce":
            raise SeedUrlError(f"{form}; this does not begin with atonce://")
        if not host or not port or not user:
            missing = "PeerId" if not user else "host" if not host else "port"
            raise SeedUrlError(f"{form}; this has no {missing}")
        rest = text.partition("@")[2]
        if parts.password is not None or not set(rest).isdisjoint("/?#@ \t\n\r"):
            raise SeedUrlError(f"{form}; nothing follows the port")
        try:
            return cls(PeerId.parse(user), host, port)
        except PeerIdError as error:
            raise SeedUrlError(f"the seed URL's key is wrong: {error}") from None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"atonce://{self.peer_id}@{host}:{self.port}"
