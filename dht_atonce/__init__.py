"""@Once: presence and direct messages between peers, without a server in between.

async with Peer.open(profile="~/.my-app", seeds=["atonce://PEERID@HOST:PORT"]) as peer:
    await peer.send(friend, b"hello")
"""

from dht_atonce.access import Contacts
from dht_atonce.calls.calls import Request
from dht_atonce.config import CallConfig, DurableConfig, MessagingConfig, NetworkConfig
from dht_atonce.dht.node import DhtNode, FindResult, KeyChange, KeyWatch, PublishResult, WatchEvent
from dht_atonce.durable.receipt import DurableReceipt
from dht_atonce.durable.receiving import DurableMessage
from dht_atonce.endpoints import Address, SeedUrl
from dht_atonce.errors import (
    AtOnceError,
    ClockWrong,
    DeliveryUnknown,
    EntryFailed,
    IdentityInUse,
    MessageTooLarge,
    NetworkMismatch,
    NoSuchService,
    NotAccepted,
    NotSupported,
    PeerBusy,
    PeerClosed,
    PeerIdError,
    PeerOffline,
    PeerUnknown,
    PortInUse,
    ProfileError,
    ProfileInUse,
    QueueFull,
    ReplyError,
    RequestFailed,
    RequestLost,
    RequestTimeout,
    SeedUrlError,
    StoreError,
    StreamBroken,
    StreamReset,
    TransferFailed,
)
from dht_atonce.identity import Identity, PeerId
from dht_atonce.messaging.inbox import Message
from dht_atonce.messaging.receipts import Receipt, State
from dht_atonce.peer import Peer
from dht_atonce.presence.around import Neighbour
from dht_atonce.presence.sight import Basis, PresenceChange, PresenceEvent, PresenceState
from dht_atonce.presence.watching import PresenceWatch
from dht_atonce.records import MembershipRecord, PresenceRecord, ValueRecord
from dht_atonce.rooms.events import Entered, Left, Missed, Said, Whispered
from dht_atonce.rooms.room import Room
from dht_atonce.streams.files import FileEvent
from dht_atonce.streams.stream import Stream

__all__ = [
    "Address",
    "AtOnceError",
    "Basis",
    "CallConfig",
    "ClockWrong",
    "Contacts",
    "DeliveryUnknown",
    "DhtNode",
    "DurableConfig",
    "DurableMessage",
    "DurableReceipt",
    "Entered",
    "EntryFailed",
    "FileEvent",
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
    "Neighbour",
    "NetworkConfig",
    "NetworkMismatch",
    "NoSuchService",
    "NotAccepted",
    "NotSupported",
    "Peer",
    "PeerBusy",
    "PeerClosed",
    "PeerId",
    "PeerIdError",
    "PeerOffline",
    "PeerUnknown",
    "PortInUse",
    "PresenceChange",
    "PresenceEvent",
    "PresenceRecord",
    "PresenceState",
    "PresenceWatch",
    "ProfileError",
    "ProfileInUse",
    "PublishResult",
    "QueueFull",
    "Receipt",
    "ReplyError",
    "Request",
    "RequestFailed",
    "RequestLost",
    "RequestTimeout",
    "Room",
    "Said",
    "SeedUrl",
    "SeedUrlError",
    "State",
    "StoreError",
    "Stream",
    "StreamBroken",
    "StreamReset",
    "TransferFailed",
    "ValueRecord",
    "WatchEvent",
    "Whispered",
]
