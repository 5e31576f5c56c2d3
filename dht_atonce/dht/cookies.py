"""Proof of address: a cookie is the echo of something that only reached this address (as QUIC's tokens, RFC 9000
section 8)."""

import random
from enum import Enum
from hashlib import blake2b
from hmac import compare_digest

__all__ = ["CookieIssuer", "Proof"]


class Proof(Enum):
    """What a request shows of its sender's address."""

    NONE = 0
    PREVIOUS = 1
    """A valid cookie of the previous epoch: send a new one along."""
    CURRENT = 2


_MAX_SEEN = 1024  # cookies that were checked in this epoch: those who ask often show the same one each time

# Read from the class, these cost as much as the hash.
_NONE, _CURRENT = Proof.NONE, Proof.CURRENT


class CookieIssuer:
    """Makes and checks our cookies. Nothing has to be kept per address: two secrets are all its state, and which of
    the cookies that it saw lately were good.

    An address is given as on the wire, 6 or 18 B.
    """

    def __init__(self, rng: random.Random, epoch_s: float) -> None:
        self._rng = rng
        self._epoch_s = epoch_s
        self._secrets: dict[int, bytes] = {}
        self._seen_epoch = -1
        # Good ones of that epoch, by address and key
        self._seen: dict[bytes, bytes] = {}

    def issue(self, address: bytes, key: bytes, now: float) -> bytes:
        """A cookie, 16 B, for `key` at `address`; valid for one to two epochs. `now` is monotonic."""
        return self._cookie(self._epoch(now), address, key)

    def check(self, cookie: bytes, address: bytes, key: bytes, now: float) -> Proof:
        """What `cookie` (maybe empty) proves."""
        if not cookie:
            return _NONE
        epoch = int(now // self._epoch_s)
        if epoch == self._seen_epoch:
            seen = self._seen.get(address + key)
            if seen is not None and compare_digest(cookie, seen):
                return _CURRENT
        epoch = self._epoch(now)
        if compare_digest(cookie, self._cookie(epoch, address, key)):
            if epoch != self._seen_epoch or len(self._seen) >= _MAX_SEEN:
                self._seen_epoch, self._seen = epoch, {}
            self._seen[address + key] = cookie
            return _CURRENT
        if epoch - 1 in self._secrets and compare_digest(cookie, self._cookie(epoch - 1, address, key)):
            return Proof.PREVIOUS
        return _NONE

    def _epoch(self, now: float) -> int:
        epoch = int(now // self._epoch_s)
        if epoch not in self._secrets:
            previous = self._secrets.get(epoch - 1)
            self._secrets = {epoch: self._rng.randbytes(32)}
            if previous is not None:
                self._secrets[epoch - 1] = previous
        return epoch

    def _cookie(self, epoch: int, address: bytes, key: bytes) -> bytes:
        return blake2b(address + key, key=self._secrets[epoch], digest_size=16).digest()
