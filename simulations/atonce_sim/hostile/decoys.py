"""Ids that belong to nobody: any 32 bytes are a node key, and a liar needs no secret to name it."""

import random
from typing import Final

from atonce_sim.keyspace import KeySpace, as_long
from dht_atonce.endpoints import Address, pack_address
from dht_atonce.identity import node_id

__all__ = ["Decoys", "nowhere"]

_POOL: Final = 1 << 14  # ids to choose from: the nearest shares some 14 bits with any target, more than honest nodes do


def nowhere(number: int, *, local: bool) -> Address:
    """An address where nobody ever is, each in a subnet of its own; acceptable in a network of that kind."""
    port = 4000 + number % 50_000
    if local:
        return Address(f"10.255.{number >> 8 & 255}.{number & 255}", port)
    return Address(f"{90 + (number >> 16 & 3)}.{number >> 8 & 255}.{number & 255}.1", port)


class Decoys:
    """A pool of such ids."""

    def __init__(self, rng: random.Random, *, local: bool) -> None:
        self._local = local
        keys = (rng.randbytes(32) for _ in range(_POOL))
        self._keys = {as_long(node_id(key)): key for key in keys}
        self._space = KeySpace(self._keys)
        self._number = 0

    def nearest(self, target: bytes, count: int) -> list[bytes]:
        """Node keys whose ids lie nearest to `target`, nearest first."""
        return [self._keys[long_id] for long_id in self._space.nearest(as_long(target), count)]

    def dead(self, target: bytes, count: int) -> list[bytes]:
        """Contacts nearest to `target`, packed, each at an address of its own where nobody is."""
        return [key + self.address() for key in self.nearest(target, count)]

    def address(self) -> bytes:
        """Another address where nobody is, packed."""
        self._number += 1
        return pack_address(nowhere(self._number, local=self._local))
