"""What targets are made of: good input to begin from, and who made it."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from atonce_sim.world import EPOCH
from dht_atonce.config import NetworkConfig
from dht_atonce.endpoints import Address
from dht_atonce.identity import Identity
from dht_atonce.records import MembershipRecord, PresenceRecord, ValueRecord

__all__ = ["NETWORK", "NOW", "Target", "identity", "membership", "presence", "value", "vectors"]

VECTORS = Path(__file__).parent.parent / "tests" / "vectors"
NETWORK = NetworkConfig.local_network("test", k=4)
NOW = int(EPOCH)


class Target(NamedTuple):
    """One parser."""

    feed: Callable[[bytes], None]
    """Raises whatever was not to be raised."""
    corpus: list[bytes]
    """Good input to begin from."""
    close: Callable[[], None] = lambda: None
    """Ends what it runs on."""


def vectors(file: str, *keys: str, within: str = "") -> list[bytes]:
    """All values of these names in a file of tests/vectors, in its groups that are named so."""
    found: list[bytes] = []

    def look(tree: Any) -> None:
        if isinstance(tree, dict):
            found.extend(bytes.fromhex(tree[key]) for key in keys if isinstance(tree.get(key), str))
            for value in tree.values():
                look(value)
        elif isinstance(tree, list):
            for value in tree:
                look(value)

    groups = json.loads((VECTORS / f"{file}.json").read_text("utf-8"))
    look([groups[name] for name in groups if within in name])
    return list(dict.fromkeys(found))


def identity(number: int) -> Identity:
    return Identity.generate(random.Random(f"identity {number}"))


def presence(number: int = 0) -> PresenceRecord:
    endpoints = (Address("10.0.0.1", 4710), Address("fd00::1", 4711))
    says = {"seq": 1, "incarnation": b"one life", "expires": NOW + 3600}
    return PresenceRecord.sign(identity(number), NETWORK, endpoints=endpoints, capabilities=("room",), **says)


def membership() -> MembershipRecord:
    endpoints = (Address("10.0.0.1", 4710), Address("fd00::1", 4710))
    says = {"seq": 1, "incarnation": b"one life", "expires": NOW + 3600}
    return MembershipRecord.sign(identity(0), NETWORK, topic="a room", endpoints=endpoints, data=b"flute", **says)


def value(number: int = 0) -> ValueRecord:
    says = {"seq": 1, "incarnation": b"one life", "expires": NOW + 3600}
    return ValueRecord.sign(identity(number), NETWORK, name="name", value=b"value", **says)
