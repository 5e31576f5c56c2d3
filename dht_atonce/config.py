"""Defaults, with their units and their reasons. A number that is not here is part of the wire (docs/wire.md)."""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache

from dht_atonce.errors import WireError

__all__ = [
    "CallConfig",
    "DhtConfig",
    "DurableConfig",
    "LinkConfig",
    "MessagingConfig",
    "NetworkConfig",
    "SeedConfig",
    "StayConfig",
]


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
        return _network_id(self.name.encode(), self.authority_key)

    def with_k(self, k: int) -> "NetworkConfig":
        """The same network with another k."""
        return replace(self, k=k)


@lru_cache(maxsize=64)
def _network_id(name: bytes, authority_key: bytes) -> bytes:
    """Asked for with each key and each record."""
    return hashlib.blake2b(bytes([len(name)]) + name + authority_key, digest_size=16).digest()


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
    eager_alpha: int = 8
    """The same of one that many must have answered before it is of any use: `fresh=True`, and publishing."""
    absent_alpha: int = 10
    """The same once one that ought to have the record has none: all of the region must say so then."""
    spare_share: int = 3
    """Such a lookup asks one more for so many that it waits for, in case some of these are dead; and so does one that
    has no record, for it waits for k."""
    first_timeout_s: float = 0.5
    """Retransmission timeout towards a node whose round trips are not known, while nobody's are."""
    min_timeout_s: float = 0.1
    max_timeout_s: float = 1.5
    tries: int = 2
    hedge_factor: float = 1.5
    """A request is late after this many times the 75th percentile of recent round trips."""
    stranger_factor: float = 2.0
    """A retransmission timeout, in times of lateness, towards a node whose own round trips are not known."""
    min_hedge_s: float = 0.005
    first_hedge_s: float = 0.25
    """Lateness before any round trip was seen."""
    lookup_deadline_s: float = 15.0
    lookup_max_requests: int = 100
    publish_max_requests: int = 300
    publish_lead_s: float = 0.01
    """Those nearest to a key, where the watchers wait, hear what is new so much sooner than all others."""
    near_alpha: int = 2
    """The same where the nearest we know are so near to a key that they ought to have its record."""
    agreement: int = 2
    """A lookup that has a record goes on behind its answer until so many gave the same, or so many of the nearest have
    answered (or k, if that is less); those of these without the newest record are mended."""
    fresh_agreement: int = 8
    """`fresh=True` waits for so many."""
    region: float = 0.75
    """Records are stored at all nodes that are nearer to the key than this many times k nodes ought to reach, and these
    are asked before absence is believed: the k nearest may all be somebody's who chose their ids."""
    scouted: int = 4
    """Of each search for those in the region who are crowded out of the nearest, so many must answer."""
    max_outstanding: int = 4096
    """Requests that wait for an answer, of the whole node."""
    max_pair_keys: int = 4096
    """Cached X25519 results; 33 µs each to make, about 200 B each to keep."""
    max_known_addresses: int = 8192
    """Addresses of which cookies and round trips are remembered."""
    cookie_epoch_s: float = 120.0
    cookie_use_s: float = 110.0
    requests_per_key_s: int = 200
    """Requests of one key whose address is proved, each second; see docs/decisions.md."""
    requests_per_key_burst: int = 1000
    unproved_per_owner_s: int = 20
    """Requests without a valid cookie from one IPv4 address or IPv6 /64; beyond it they are answered with cookies. As
    many new keys may come from a proved address (off in local networks)."""
    unproved_per_owner_burst: int = 50
    new_keys_per_s: int = 500
    """Requests from keys that are not known: each costs an X25519 operation. Once for those without a valid cookie, and
    once more for those with one."""
    cookie_answers_per_s: int = 5000
    """COOKIE packets, 42 B and some 15 µs each, of the whole node."""
    second_tries_per_s: int = 1000
    """So many more for those who were turned away and ask again from the same address."""
    second_try_s: float = 2.0
    """Who was turned away is remembered for so long, or twice as long. An honest node asks again after
    `max_timeout_s` at most."""
    key_answers_per_s: int = 500
    """KEY replies of the whole node."""
    unproved_datagrams: int = 2
    """Datagrams towards an IP that never proved itself, within `unproved_window_s`, from the whole node."""
    unproved_window_s: float = 10.0
    reply_contacts_per_ip: int = 1
    reply_contacts_per_subnet: int = 2
    """Of one reply's contacts at most so many are asked (off in local networks)."""
    bucket_seats_per_subnet: int = 2
    table_seats_per_subnet: int = 4
    """Of one /24 (/48). Whoever has two subnets, as many do who rent machines, has eight seats of some hundred."""
    failures_to_go: int = 3
    """A failing contact loses its seat after so many failures in a row, each of `tries` tries, some seconds apart: at
    10 % loss that befalls a living one once in 20,000 checks."""
    dead_seats: float = 0.03
    """The share of seats whose nodes have died unnoticed that the checks of seats aim at."""
    min_check_s: float = 20.0
    young_check_s: float = 60.0
    max_check_s: float = 900.0
    """A seat that was not heard for so long is asked whether it is there, however long sessions last."""
    check_pause_s: float = 10.0
    """Between two looks at who is to be asked, while somebody is failing; so also between two failures of one."""
    max_check_pause_s: float = 30.0
    max_checks: int = 32
    """Seats asked at one look, and failing ones beside them."""
    max_missing: int = 16
    """Of those that lost their seats, so many are asked now and then: a network that was cut in two finds together."""
    missing_first_s: float = 60.0
    missing_max_s: float = 600.0
    witness_s: float = 15.0
    """If nobody at all was heard for so long the network is ours to blame, and nobody's failures count."""
    max_records: int = 20_000
    """Some 20 MB. An honest network of 2,000 peers and more leaves a node far fewer."""
    records_per_source: int = 16
    """Of a full store that is everybody's due. Of the /24s (/48s) of proved addresses that brought more, whoever
    brought most loses first (off in local networks)."""
    records_per_origin: int = 64
    """Records from one subnet, and values of one identity, in a network of more than `origins_from_nodes`: of a
    thousand peers behind one address a node in such a network is to have forty."""
    origins_from_nodes: int = 500
    values_per_identity: int = 256
    """In a smaller network: as many as an identity may have in all."""
    topic_members: int = 1000
    """Of one topic at one node: a twentieth of the store, and 50 s of handing on. Beyond it, a fair sample."""
    topic_members_per_subnet: int = 8
    """Of one topic at one node (off in local networks): twice as many as a table has seats for a subnet."""
    topic_undialled: int = 250
    """Members that name no endpoint, and so no subnet, take at most a quarter of a topic (off in local networks)."""
    topic_goodbyes: int = 250
    """Of those who left a topic. They live for two hours and would otherwise crowd out those who are there."""
    lottery_epoch_s: float = 7200.0
    """For so long the same members stay of those that do not fit: a record's life."""
    members_deadline_s: float = 60.0
    members_at_once: int = 3
    """Pages that one holder is asked for at once to list a topic: at 15 ms to and fro it lets one key ask as much. On
    faster ways the burst covers it: the pages of a full topic are some 350."""
    members_stretch: int = 24
    """Members in a stretch of a topic's order, which is asked for page by page: four pages of six."""
    members_max_requests: int = 4000
    """To list a topic: all pages of all k holders, if each has a full topic, in memberships of average size."""
    members_walks: int = 3
    """A topic is believed to be listed when so many holders were gone through and nobody is known to one alone."""
    members_from_holder: int = 2048
    """What one holder may tell us: more than a node keeps, and a bound for one that makes members up."""
    refresh_s: float = 900.0
    """A bucket in which no lookup of our own ended for so long is refreshed; the same for our neighbourhood, unless
    those with seats stay less than four times as long."""
    min_look_around_s: float = 60.0
    refresh_need: int = 6
    """Answers from the nearest that a refresh waits for: it is to meet some that live there, not to find all."""
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
    watch_nodes: int = 4
    """A key is watched at so many of the nodes nearest to it: one may be dead, and one may withhold."""
    watch_lease_s: float = 300.0
    """What is asked for, and the longest that is granted; renewed at a third of it."""
    max_watched: int = 10_000
    """Keys that one node watches."""
    watch_lookups: int = 16
    """Lookups for the sake of watches that run at once; those of the app shall not wait for them."""
    watch_lookups_per_s: float = 10.0
    """Each watched key is looked up once per lease; beyond 3,000 of them, as often as this allows."""
    watch_lookup_pause_s: float = 10.0
    """Between a lookup of a watched key and the next because a holder was lost; doubled with each of those."""
    watch_retry_first_s: float = 1.0
    watch_retry_max_s: float = 30.0
    """A watched key for which nobody was found is looked up again after a pause that doubles."""
    keep_alive_s: float = 25.0
    """NATs forget a way through after 30 s (RFC 4787 asks for 120 s, few give it)."""
    max_keep_alives: int = 256
    """Nodes that are pinged to keep a way open; from others, news comes with the renewal at the latest."""
    reach_life_s: float = 600.0
    """How long it is believed that strangers can reach us, or that they cannot."""
    max_watches: int = 20_000
    """Watches that others have here, some 400 B each."""
    max_watches_per_key: int = 2_000
    max_watches_per_watcher: int = 4_096
    """One node that watches 10,000 keys in a network of ten has as many at each."""
    max_watches_per_subnet: int = 4_096
    """Off in local networks."""
    notify_per_s: float = 500.0
    """Pushes of one node, some 1.3 Mbit/s: a thousand watchers of one key hear of a change within two seconds."""
    notify_burst: int = 50
    notify_moment_s: float = 0.2
    """What changes at one key within this time is pushed as one."""
    notify_misses: int = 3
    """A watcher that misses so many pushes in a row is dropped."""
    notify_retry_s: float = 1.0
    """Until the next push to a watcher that missed one; doubled with each."""
    clock_warn_s: float = 60.0
    """A clock that differs by more from the median of others' is corrected for signing, and a warning is given."""
    clock_refuse_s: float = 86400.0


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """CURVE links."""

    heartbeat_s: float = 3.0
    timeout_s: float = 9.0
    handshake_s: float = 10.0
    """How long a stranger may take for the CURVE handshake. What bounds strangers is the cap on connections without a
    link; a short limit only hits those who dial a machine that stands still for a moment."""
    max_body_bytes: int = 253_952
    """docs/wire.md section 4."""
    max_message_bytes: int = 262_144
    """What libzmq itself refuses, before any login: without it one stranger can hold any amount of memory."""
    max_links: int = 1024
    max_links_per_ip: int = 16
    """Off for loopback, where all peers of a machine share one address."""
    high_water_mark: int = 10_000
    """Frames queued in libzmq per connection; the window above is what really bounds them."""
    drain: int = 128
    """Frames handled per wake-up of the loop."""


@dataclass(frozen=True, slots=True)
class CallConfig:
    """Requests and replies."""

    max_outstanding: int = 10_000
    """Requests of ours that wait for their replies, before `QueueFull`."""
    max_timeout_s: float = 3600.0
    max_running: int = 1024
    """Requests of others that hold room here, each with at most 60,000 B: from their coming until their reply is
    acknowledged."""
    max_running_per_sender: int = 256
    """Of one sender; and never more than are left for others."""
    max_untaken: int = 512
    """Replies to one sender that it has not acknowledged; beyond them its requests are not even refused."""
    lost_link_s: float = 5.0
    """So long a request goes on when the link to who asked is gone, which may come back."""
    end_s: float = 0.5
    """How long cancelled handlers may take when we are closed."""


@dataclass(frozen=True, slots=True)
class DurableConfig:
    """Messages that are kept on both sides' disks."""

    outbox_messages: int = 100_000
    """Of ours that are not acknowledged; beyond either bound `QueueFull`."""
    outbox_bytes: int = 256 << 20
    inbox_messages: int = 100_000
    """Acknowledged, and the app is not done with them. One sender gets half of what is left at most, so half of it all.
    What finds no room is refused and stays in its sender's outbox."""
    inbox_bytes: int = 256 << 20
    remembered: int = 1_000_000
    """Ids in all, with those of what is done, some 100 B on the disk each; shared as the inbox is."""
    expires_s: float = 7 * 86400.0
    """Unless told otherwise."""
    max_expires_s: float = 30 * 86400.0
    """Part of the protocol: a receiver refuses what would have to be remembered for longer."""
    clock_slack_s: float = 86400.0
    """By so much the sender's clock may be ahead of ours."""
    window_messages: int = 4096
    """On their way to one peer, and not acknowledged."""
    window_bytes: int = 4 << 20
    pending_messages: int = 8192
    """Of one sender that wait to be written; beyond it the link holds him up."""
    ready_messages: int = 4096
    """In memory for the app, read ahead of it; the others lie on the disk until then."""
    ready_bytes: int = 4 << 20
    retry_s: float = 2.0
    """Until a peer that could not be reached, or refused, is tried again; doubled each time."""
    retry_max_s: float = 120.0
    stall_s: float = 20.0
    """When nothing of what is under way was acknowledged for so long, it is sent again."""
    max_watches: int = 256
    """Peers whose return is watched for in the DHT; further ones are only tried now and then."""
    max_senders: int = 10_000
    """Senders of whom it is remembered where they are; beyond it the one not heard of for longest begins anew."""
    close_s: float = 0.6
    """For what is being written when the peer is closed."""


@dataclass(frozen=True, slots=True)
class MessagingConfig:
    """Delivery from peer to peer."""

    max_message_bytes: int = 60_000
    max_service_bytes: int = 60_400
    """A message of another kind than the app's: as many bytes of the app, and what the service writes round them."""
    max_piece_bytes: int = 250_000
    """Of a message that is a piece of a stream: a frame of its own."""
    window_messages: int = 16_384
    """Messages towards one peer that wait for their acknowledgement; further ones wait to be sent. As many as one
    sender may have in an inbox: with half of it a busy machine's pauses leave the sender idle."""
    window_bytes: int = 4 << 20
    first_window: int = 1024
    """So many may be sent to somebody new before it says how much room it has. Part of the protocol."""
    window_step: int = 1024
    """The sender hears of more room when it is so much more, or half of all."""
    max_held: int = 64
    """Frames that are held behind a gap."""
    max_waiting: int = 65_536
    """Messages to one peer, in the window or waiting for it, before `QueueFull`."""
    max_waiting_bytes: int = 64 << 20
    frame_messages: int = 256
    frame_bytes: int = 60_000
    inbox_messages: int = 32_768
    """Messages that wait for the app. One sender gets half of it at most. Where there is no room nothing is accepted or
    acknowledged, and senders wait; but whoever has nothing in it has room for one frame."""
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
    redials: int = 3
    """Of a peer whose links end as soon as they are open."""
    redial_s: float = 0.1
    """Before the second; doubled with each."""
    crossed_s: float = 1.0
    """Two links of a pair, one dialled by each side, that open within so long were dialled in the same moment."""
    max_links: int = 1000
    """Beyond it the least used one without anything queued is ended."""
    unsent_retry_s: float = 0.05
    """Until a frame is tried again for which a link's queue had no room."""
    refused_burst: int = 4
    """So many times the HELLO of a peer that is not accepted is read; then once every `refused_s`."""
    refused_s: float = 10.0
    max_refused: int = 10_000
    """Keys whose refusals are remembered."""
    calls: CallConfig = CallConfig()
    durable: DurableConfig = DurableConfig()


@dataclass(frozen=True, slots=True)
class PresenceConfig:
    """Watching other peers."""

    suspect_s: float = 1.0
    """A link that is lost for so long makes its peer suspect."""
    offline_s: float = 2.5
    """… and for so long offline. With the heartbeats' 12 s at most, a crash is seen within 15 s."""
    max_links: int = 64
    """Peers to whom a link is kept because they are watched; others are judged by their records."""
    max_watched: int = 10_000
    retry_s: float = 30.0
    """Until a peer that could not be reached is dialled again, though nothing new is heard of it; doubled each time."""
    retry_max_s: float = 300.0


@dataclass(frozen=True, slots=True)
class StayConfig:
    """Staying in a network."""

    look_s: float = 1.0
    """Between two looks whether we slept or are alone; one costs some microseconds."""
    addresses_every: int = 3
    """Looks between two at our own addresses, which cost a system call for each family."""
    asleep_s: float = 3.0
    """When a look is later than that, by either clock, we were asleep."""
    silent_requests: int = 8
    """So many failures in a row without any answer cast doubt on our being in the network."""
    reach_contacts: int = 16
    """Contacts that are asked at once whether anybody is there: if half of all are dead, all of these are once in
    65,536 times."""
    reach_s: float = 3.0
    """How long they may take."""
    reach_max_s: float = 30.0
    """The longest pause between two such rounds of who is out: the cheap way back."""
    backoff_first_s: float = 1.0
    climb_max_s: float = 300.0
    """The longest pause between two rounds of the ladder, seeds included."""
    republish_s: float = 60.0
    """At least so long between two publishes because others see us at another address."""


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
