"""@Once: presence and direct messages between peers, without a server in between.

async with Peer.open(profile="~/.my-app", seeds=["atonce://PEERID@HOST:PORT"]) as peer:
    await peer.send(friend, b"hello")
"""

from dht_atonce.config import MessagingConfig, NetworkConfig
from dht_atonce.dht.node import DhtNode, FindResult, KeyChange, KeyWatch, PublishResult, WatchEvent
from dht_atonce.endpoints import Address, SeedUrl
from dht_atonce.errors import (
    AtOnceError,
    ClockWrong,
    DeliveryUnknown,
    EntryFailed,
    IdentityInUse,
    MessageTooLarge,
    NetworkMismatch,
    NotAccepted,
    PeerClosed,
    PeerIdError,
    PeerOffline,
    PeerUnknown,
    PortInUse,
    ProfileError,
    ProfileInUse,
    QueueFull,
    SeedUrlError,
)
from dht_atonce.identity import Identity, PeerId
from dht_atonce.messaging.inbox import Message
from dht_atonce.peer import Peer
from dht_atonce.records import MembershipRecord, PresenceRecord, ValueRecord
from dht_atonce.rooms.events import Entered, Left, Missed, Said, Whispered
from dht_atonce.rooms.room import Room

__all__ = [
    "Address",
    "AtOnceError",
    "ClockWrong",
    "DeliveryUnknown",
    "DhtNode",
    "Entered",
    "EntryFailed",
    "FindResult",
    "Identity",
    "IdentityInUse",
    "KeyChange",
    "KeyWatch",
    "Left",
    "MembershipRecord",
    "Message",
    "MessageTooLarge",
    "MessagingConfig",
    "Missed",
    "NetworkConfig",
    "NetworkMismatch",
    "NotAccepted",
    "Peer",
    "PeerClosed",
    "PeerId",
    "PeerIdError",
    "PeerOffline",
    "PeerUnknown",
    "PortInUse",
    "PresenceRecord",
    "ProfileError",
    "ProfileInUse",
    "PublishResult",
    "QueueFull",
    "Room",
    "Said",
    "SeedUrl",
    "SeedUrlError",
    "ValueRecord",
    "WatchEvent",
    "Whispered",
]
