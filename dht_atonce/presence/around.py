"""Who wants to be found in this network: members of one well-known topic, all of whom chose to be in it."""

from dataclasses import dataclass
from typing import Final

from dht_atonce.dht.node import DhtNode
from dht_atonce.endpoints import Address
from dht_atonce.identity import PeerId

__all__ = ["AROUND", "MAX_TEXT", "Neighbour", "list_around"]

AROUND: Final = "@around"
"""The topic."""
MAX_TEXT: Final = 128
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A peer that wants to be found."""

    peer: PeerId
    text: str
    """What it says of itself, at most 128 B: a nickname, as a rule. Anybody can say anything."""
    endpoints: tuple[Address, ...]
    """Where it said that it can be dialled."""


async def list_around(node: DhtNode, limit: int | None = None) -> list[Neighbour]:
    """All who want to be found, or a random sample of `limit`, without ourselves, sorted by text and `PeerId`."""
    own = node.identity.id
    members = await node.members(AROUND, limit=limit)
    found = [
        Neighbour(member.peer_id, member.data.decode(errors="replace"), member.endpoints)
        for member in members
        if member.peer_id != own
    ]
    return sorted(found, key=lambda one: (one.text, one.peer))
