"""How a node of the DHT behaves."""

from dataclasses import dataclass

__all__ = ["DhtConfig"]


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
