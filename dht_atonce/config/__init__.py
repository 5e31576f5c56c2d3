"""Defaults, with their units and their reasons: a module for each part, and all can be had from here. A number that is
not among them is part of the wire (docs/wire.md)."""

from dht_atonce.config.calls import CallConfig
from dht_atonce.config.dht import DhtConfig
from dht_atonce.config.durable import DurableConfig
from dht_atonce.config.messaging import LinkConfig, MessagingConfig
from dht_atonce.config.network import NetworkConfig, checked_network
from dht_atonce.config.presence import PresenceConfig
from dht_atonce.config.rooms import RoomsConfig
from dht_atonce.config.seed import SeedConfig
from dht_atonce.config.staying import StayConfig
from dht_atonce.config.streams import StreamConfig

__all__ = [
    "CallConfig",
    "DhtConfig",
    "DurableConfig",
    "LinkConfig",
    "MessagingConfig",
    "NetworkConfig",
    "PresenceConfig",
    "RoomsConfig",
    "SeedConfig",
    "StayConfig",
    "StreamConfig",
    "checked_network",
]
