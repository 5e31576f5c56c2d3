"""What datagrams cost the machine that they reach: in a world where that counts, a host does one thing after another.

What arrives while it is busy waits in its socket's buffer, and is lost when that is full; so a flood is felt. Costs are
counted, not timed: a run gives the same on any machine.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from dht_atonce.cipher import Cipher, CipherFactory
from dht_atonce.datagrams import OnDatagram
from dht_atonce.endpoints import Address
from dht_atonce.identity import NodeKey

if TYPE_CHECKING:
    from atonce_sim.loop import VirtualLoop

__all__ = ["Effort", "Toil"]

Us = Annotated[float, Meta(ge=0, le=1_000_000)]


class Effort(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Microseconds of one core. Chosen, of the order that docs/performance.md measures: a scenario says how slow its
    machines are, and then what it expects of them."""

    datagram_us: Us = 20.0
    """To receive one, or to send one."""
    box_us: Us = 10.0
    """To seal or to open one."""
    pair_us: Us = 50.0
    """X25519 with somebody whose key is not remembered, and the two keys that are made of it."""
    buffer_bytes: Annotated[int, Meta(ge=2048, le=1 << 30)] = 1 << 20
    """What waits in a socket."""


class Toil:
    """One host's work."""

    def __init__(self, effort: Effort, loop: "Callable[[], VirtualLoop]") -> None:
        self.dropped = 0
        """Datagrams that found the buffer full."""
        self._effort = effort
        self._loop = loop
        self._free_at = 0.0
        self._spent_s = 0.0  # since it was last added to `_free_at`
        self._waiting: deque[tuple[OnDatagram, bytes, Address]] = deque()
        self._waiting_bytes = 0

    def on_sent(self) -> None:
        """A datagram was sent, sealed or not."""
        self.spend(self._effort.datagram_us)

    def spend(self, us: float) -> None:
        """Something was done that takes so long."""
        self._spent_s += us / 1_000_000

    def cipher(self, factory: CipherFactory) -> CipherFactory:
        """The same ciphers, whose work counts."""
        return lambda own, network_id, max_pairs: _Metered(
            factory(_MeteredKey(own, self._on_pair), network_id, max_pairs), self, self._effort
        )

    def hears(self, on_datagram: OnDatagram) -> OnDatagram:
        """Hands datagrams on as soon as there is time for them."""

        def hears(data: bytes, source: Address) -> None:
            now = self._loop().time()
            if not self._waiting and self._free_at <= now:
                self._handle(on_datagram, data, source, now)
                return
            if self._waiting_bytes + len(data) > self._effort.buffer_bytes:
                self.dropped += 1
                return
            if not self._waiting:
                self._loop().post(self._free_at - now, self._next)
            self._waiting.append((on_datagram, data, source))
            self._waiting_bytes += len(data)

        return hears

    def _next(self) -> None:
        now = self._loop().time()
        on_datagram, data, source = self._waiting.popleft()
        self._waiting_bytes -= len(data)
        self._handle(on_datagram, data, source, now)
        if self._waiting:
            self._loop().post(self._free_at - now, self._next)

    def _handle(self, on_datagram: OnDatagram, data: bytes, source: Address, now: float) -> None:
        self.spend(self._effort.datagram_us)
        on_datagram(data, source)
        self._free_at = max(self._free_at, now) + self._spent_s
        self._spent_s = 0.0

    def _on_pair(self) -> None:
        self.spend(self._effort.pair_us)


class _Metered:
    """A cipher whose work counts."""

    __slots__ = ("_cipher", "_effort", "_toil")

    def __init__(self, cipher: Cipher, toil: Toil, effort: Effort) -> None:
        self._cipher = cipher
        self._toil = toil
        self._effort = effort

    def seal(self, content: bytes, nonce: bytes, to: bytes) -> bytes:
        self._toil.spend(self._effort.box_us)
        return self._cipher.seal(content, nonce, to)

    def open(self, box: bytes, nonce: bytes, sender: bytes) -> bytes:
        self._toil.spend(self._effort.box_us)
        return self._cipher.open(box, nonce, sender)


class _MeteredKey(NodeKey):
    """Tells of each use of its secret: there is one for each X25519, wherever results are remembered."""

    __slots__ = ("_kept", "_on_use")

    def __init__(self, node_key: NodeKey, on_use: Callable[[], None]) -> None:
        self._on_use: Callable[[], None] = lambda: None
        super().__init__(node_key.secret)
        self._on_use = on_use

    @property
    def secret(self) -> bytes:
        self._on_use()
        return self._kept

    @secret.setter
    def secret(self, secret: bytes) -> None:
        self._kept = secret
