"""Who may log in: the ZAP handler (RFC 27) of one context, and the caps it applies.

ZAP is the first moment at which libzmq tells an address, so the caps per address are here. By then CURVE has proved
that the client holds its key. Whoever holds one is let in as far as the caps go: who that is, the layer above asks.
"""

import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

import zmq

from dht_atonce.messaging.pump import Pump, Socket

__all__ = ["ZAP_DOMAIN", "Admission", "ZapHandler"]

ZAP_DOMAIN = "atonce"

_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_BATCH = 64


@lru_cache(maxsize=4096)
def _is_loopback(ip: str) -> bool:
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return False


class Admission:
    """Counts connections by address and says who may log in.

    ZAP tells an address but not which connection asks, and the monitor tells which connection ended but not whether it
    had logged in. So a login is taken back when a connection ends that surely had one, and otherwise as soon as an
    address has fewer connections than logins. Logins are never counted too low; too high at most by connections which
    that address holds open anyway.
    """

    def __init__(self, max_links: int, max_links_per_ip: int) -> None:
        self._max_links = max_links
        self._max_links_per_ip = max_links_per_ip
        self._connections: dict[str, int] = {}
        self._logins: dict[str, int] = {}
        self._total = 0

    @property
    def logins(self) -> int:
        """Connections that are logged in now, of all addresses."""
        return self._total

    def on_accepted(self, ip: str) -> None:
        """A TCP connection began, before any proof."""
        self._connections[ip] = self._connections.get(ip, 0) + 1

    def on_ended(self, ip: str, logged_in: bool) -> None:
        """A TCP connection ended. `logged_in`: it surely had logged in; False if that is not known."""
        left = self._connections.get(ip, 0) - 1
        if left > 0:
            self._connections[ip] = left
        else:
            left = 0
            self._connections.pop(ip, None)
        logins = self._logins.get(ip, 0)
        self._set_logins(ip, min(left, logins - logged_in))

    def admit(self, ip: str) -> str:
        """Whether one more connection from `ip` may log in: "" and it is counted, or the name of the refusal."""
        connections = self._connections.get(ip, 0)
        logins = self._logins.get(ip, 0)
        if not connections:
            return "gone"  # it ended while its question waited for us
        if self._total >= self._max_links:
            return "full"
        if logins >= self._max_links_per_ip and not _is_loopback(ip):
            return "address"
        self._set_logins(ip, min(logins + 1, connections))
        return ""

    def _set_logins(self, ip: str, logins: int) -> None:
        logins = max(logins, 0)
        self._total += logins - self._logins.get(ip, 0)
        if logins:
            self._logins[ip] = logins
        else:
            self._logins.pop(ip, None)


class ZapHandler:
    """Answers libzmq's questions. Sockets with ZAP_ENFORCE_DOMAIN let nobody in before it is made, nor after `close`.

    `refresh` is called before each decision: it brings `admission` up to date. An admitted client's User-Id is its
    X25519 public key, 64 hexadecimal digits. Refusals are counted as "link.refused_" and the reason.
    """

    def __init__(
        self,
        context: zmq.Context[Socket],
        admission: Admission,
        refresh: Callable[[], None],
        counters: Counter[str],
    ) -> None:
        self._admission = admission
        self._refresh = refresh
        self._counters = counters
        # ROUTER, not REP: a REP that fails to answer once never answers again.
        self._sock: Socket = context.socket(zmq.ROUTER)
        self._sock.bind(_ENDPOINT)
        self._pump = Pump(self._sock, self._read_one, _BATCH)

    def _read_one(self) -> bool:
        try:
            frames = self._sock.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return False
        envelope, request = frames[:2], frames[2:]
        request_id = request[1] if len(request) > 1 else b""
        refusal, user_id = self._judge(request)
        if refusal:
            self._counters[f"link.refused_{refusal}"] += 1
            status, text = b"400", refusal.encode()
        else:
            status, text = b"200", b""
        # A client that vanished meanwhile has no pipe any more; ROUTER then drops the answer.
        self._sock.send_multipart([*envelope, _VERSION, request_id, status, text, user_id, b""], zmq.NOBLOCK)
        self._pump.kick()
        return True

    def _judge(self, request: Sequence[bytes]) -> tuple[str, bytes]:
        """The refusal, or "" and the user id."""
        if len(request) != 7:
            return "mechanism", b""
        version, _, domain, address, _, mechanism, key = request
        if version != _VERSION or domain != ZAP_DOMAIN.encode() or mechanism != b"CURVE" or len(key) != 32:
            return "mechanism", b""
        self._refresh()
        refusal = self._admission.admit(address.decode("ascii", "replace").partition("%")[0])
        return refusal, b"" if refusal else key.hex().encode()

    def close(self) -> None:
        """From now on nobody gets in. May be called twice."""
        self._pump.close()
