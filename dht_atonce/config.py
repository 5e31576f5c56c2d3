"""Defaults, with their units and their reasons. A number that is not here is part of the wire (docs/wire.md)."""

import hashlib
from dataclasses import dataclass, replace

from dht_atonce.errors import WireError

__all__ = ["DhtConfig", "LinkConfig", "MessagingConfig", "NetworkConfig", "SeedConfig"]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What all members of a network agree on. A seed tells newcomers."""

    name: str = "atonce"
    """1-64 B in UTF-8."""
    authority_key: bytes = b""
    """32 B in a certified network, else empty."""
    k: int = 20
    """Replicas of a record, and seats in a bucket."""
    local: bool = False
    """All on one machine or LAN: private addresses are accepted, limits per subnet and towards unproved addresses are
    off."""
    record_life_s: int = 7200
    """How long a presence record lives; its owner renews it four times in that span."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.name.encode()) <= 64:
            raise ValueError("a network's name has 1 to 64 bytes")
        if len(self.authority_key) not in (0, 32):
            raise ValueError("an authority key has 32 bytes")
        if not 1 <= self.k <= 64:
            raise ValueError("k is between 1 and 64")
        if not 60 <= self.record_life_s <= 7 * 86400:
            raise ValueError("a record's life is between a minute and a week")

    @classmethod
    def internet(cls, name: str = "atonce") -> "NetworkConfig":
        """Public addresses, k = 20."""
        return cls(name=name)

    @classmethod
    def local_network(cls, name: str = "atonce", k: int = 20) -> "NetworkConfig":
        """One machine or LAN: private addresses are accepted."""
        return cls(name=name, k=k, local=True)

    @property
    def network_id(self) -> bytes:
        """BLAKE2b-128(length of name ‖ name ‖ authority key): everything signed or sealed is bound to it."""
        name = self.name.encode()
        return hashlib.blake2b(bytes([len(name)]) + name + self.authority_key, digest_size=16).digest()

    def with_k(self, k: int) -> "NetworkConfig":
        """The same network with another k."""
        return replace(self, k=k)


def checked_network(name: str, authority_key: bytes, k: int, local: bool, record_life_s: int) -> NetworkConfig:
    """A `NetworkConfig` from a stranger's words. Raises `WireError`."""
    try:
        return NetworkConfig(name, authority_key, k, local, record_life_s)
    except ValueError as error:
        raise WireError(str(error)) from None


@dataclass(frozen=True, slots=True)
class DhtConfig:
    """How one node behaves; nobody else needs to know."""

    alpha: int = 4
    """Requests of one lookup in flight that are not late."""
    first_timeout_s: float = 0.5
    """Retransmission timeout towards a node whose round trips are not known."""
    min_timeout_s: float = 0.1
    max_timeout_s: float = 1.5
    tries: int = 2
    hedge_factor: float = 2.0
    """A request is late after this many times the 75th percentile of recent round trips."""
    min_hedge_s: float = 0.005
    first_hedge_s: float = 0.25
    """Lateness before any round trip was seen."""
    lookup_deadline_s: float = 15.0
    lookup_max_requests: int = 100
    publish_max_requests: int = 300
    agreement: int = 8
    """`fresh=True` waits until this many of the nodes nearest to the key have answered (or k, if that is less)."""
    max_outstanding: int = 4096
    """Requests that wait for an answer, of the whole node."""
    max_pair_keys: int = 4096
    """Cached X25519 results; 33 µs each to make, about 200 B each to keep."""
    max_known_addresses: int = 8192
    """Addresses of which cookies and round trips are remembered."""
    cookie_epoch_s: float = 120.0
    cookie_use_s: float = 110.0
    unproved_datagrams: int = 2
    """Datagrams towards an IP that never proved itself, within `unproved_window_s`, from the whole node."""
    unproved_window_s: float = 10.0
    reply_contacts_per_ip: int = 1
    reply_contacts_per_subnet: int = 2
    """Of one reply's contacts at most so many are asked (off in local networks)."""
    bucket_seats_per_subnet: int = 2
    table_seats_per_subnet: int = 8
    failures_to_go: int = 3
    failing_life_s: float = 900.0
    """A failing contact goes after `failures_to_go` failures and either a verified replacement or this long."""
    everybody_fails: int = 3
    """After so many failures in a row without any answer the network is ours to blame, and nobody's failures count."""
    max_records: int = 20_000
    """Some 20 MB. An honest network of 2,000 peers and more leaves a node far fewer; when full, the farthest goes."""
    records_per_origin: int = 64
    """Records from one subnet, and values of one identity, in a network of more than `origins_from_nodes`: of a
    thousand peers behind one address a node in such a network is to have forty."""
    origins_from_nodes: int = 500
    values_per_identity: int = 256
    """In a smaller network: as many as an identity may have in all."""
    topic_members: int = 1000
    """Of one topic at one node: a twentieth of the store, and 50 s of handing on. Beyond it, a fair sample."""
    topic_members_per_subnet: int = 8
    """Of one topic at one node (off in local networks): as many as a table has seats for a subnet."""
    topic_undialled: int = 250
    """Members that name no endpoint, and so no subnet, take at most a quarter of a topic (off in local networks)."""
    topic_goodbyes: int = 250
    """Of those who left a topic. They live for two hours and would otherwise crowd out those who are there."""
    lottery_epoch_s: float = 7200.0
    """For so long the same members stay of those that do not fit: a record's life."""
    members_deadline_s: float = 60.0
    members_max_requests: int = 4000
    """To list a topic: all pages of all k holders, if each has a full topic, in memberships of average size."""
    members_walks: int = 3
    """A topic is believed to be listed when so many holders were gone through and nobody is known to one alone."""
    members_from_holder: int = 2048
    """What one holder may tell us: more than a node keeps, and a bound for one that makes members up."""
    refresh_s: float = 900.0
    """A bucket in which no lookup of our own ended for so long is refreshed."""
    look_around: int = 6
    """A minute after a join, this many neighbours are asked whom they know near us."""
    handoff_senders: int = 2
    """Only so many of the holders nearest to a key hand its record to a newcomer: k would send it k times, and one may
    be dead."""
    handoff_per_s: float = 20.0
    max_handoff_queue: int = 10_000
    max_lookups: int = 64
    """Lookups of one node that run at once; more wait their turn."""
    publish_backoff_first_s: float = 1.0
    publish_backoff_max_s: float = 60.0
    clock_warn_s: float = 60.0
    """A clock that differs by more from the median of others' is corrected for signing, and a warning is given."""
    clock_refuse_s: float = 86400.0


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """CURVE links."""

    heartbeat_s: float = 3.0
    timeout_s: float = 9.0
    handshake_s: float = 3.0
    """How long a stranger may take for the CURVE handshake, and a dialled peer to open the link."""
    max_body_bytes: int = 61_440
    """docs/wire.md section 4."""
    max_message_bytes: int = 65_536
    """What libzmq itself refuses, before any login: without it one stranger can hold any amount of memory."""
    max_links: int = 1024
    max_links_per_ip: int = 16
    """Off for loopback, where all peers of a machine share one address."""
    high_water_mark: int = 10_000
    """Frames queued in libzmq per connection; the window above is what really bounds them."""
    drain: int = 128
    """Frames handled per wake-up of the loop."""


@dataclass(frozen=True, slots=True)
class MessagingConfig:
    """Delivery from peer to peer."""

    max_message_bytes: int = 60_000
    window_messages: int = 1024
    """Messages towards one peer that wait for their acknowledgement; further `send`s wait."""
    window_bytes: int = 4 << 20
    max_waiting: int = 10_000
    """Sends to one peer, in the window or waiting for it, before `QueueFull`."""
    frame_messages: int = 256
    frame_bytes: int = 60_000
    inbox_messages: int = 10_000
    """Messages that wait for the app. Beyond it nothing is accepted or acknowledged, and senders wait."""
    inbox_bytes: int = 64 << 20
    retransmit_s: float = 0.25
    retransmit_max_s: float = 2.0
    send_timeout_s: float = 10.0
    hello_timeout_s: float = 3.0
    max_pairs: int = 10_000
    """Peers whose sequence numbers are remembered; the longest idle without anything unacknowledged go first."""
    max_memories: int = 100_000
    """Peers of which only the sequence numbers are remembered, some 200 B each. Who is forgotten even here and had not
    heard our last acknowledgement can have a message enqueued twice."""
    max_dials: int = 64


@dataclass(frozen=True, slots=True)
class SeedConfig:
    """The seed server."""

    directory_size: int = 200
    directory_life_s: float = 7200.0
    fresh_s: float = 60.0
    """When the newest answer is older and a newcomer arrives, the seed first looks up a random id."""
    max_contacts: int = 16
    check_s: float = 1.0
    """Contacts not heard of for so long are asked before they are named to a newcomer."""
    check_timeout_s: float = 1.0
    handshake_s: float = 30.0
    max_handshakes: int = 1024
    save_s: float = 30.0
