"""Whatever parses bytes of strangers, each as one call that must not raise.

A target is fed one input at a time; what is refused in the way that docs/wire.md says is fine, all else is a find.
"""

from collections.abc import Callable

from fuzz import entrance, kept, kinds, links, nodes
from fuzz.nodes import REQUESTS, FuzzedNode
from fuzz.seeds import Target

__all__ = ["REQUESTS", "TARGETS", "FuzzedNode", "Target", "make"]

TARGETS: dict[str, Callable[[], Target]] = {
    "datagram": nodes.datagram,
    "request": nodes.request,
    "reply": nodes.reply,
    "record": kept.record,
    "signed-record": kept.signed_record,
    "frame": kinds.frame,
    "link": links.link,
    "call": kinds.call,
    "contacts": kept.contacts,
    "durable": kinds.durable_note,
    "stream": kinds.stream,
    "room": kinds.room,
    "handshake": entrance.handshake,
    "challenge": entrance.challenge,
    "state": kept.state,
    "text": kept.text,
}
"""All of them, by name."""


def make(name: str) -> Target:
    """The target of this name, new."""
    return TARGETS[name]()
