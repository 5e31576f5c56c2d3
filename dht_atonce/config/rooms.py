"""The bounds and times of rooms. Seconds are of the monotonic clock."""

from dataclasses import dataclass

__all__ = ["RoomsConfig"]


@dataclass(frozen=True, slots=True)
class RoomsConfig:
    """Defaults; those marked so are part of the protocol."""

    max_rooms: int = 64
    """Rooms that one peer is in at a time."""
    max_members: int = 4096
    """Members of one room that are known by name; of those beyond it only what they say is known."""
    direct_max: int = 32
    """Members, ourselves included, above which a room is a tree."""
    direct_again: int = 24
    """Below it, it is direct again. Between the two whatever it was, it stays."""

    # HyParView
    active: int = 5
    """Neighbours: links that carry the room."""
    passive: int = 30
    """Members who may become neighbours."""
    join_ttl: int = 6
    """Steps of the walk on which a newcomer's name goes."""
    passive_ttl: int = 3
    """Where on that walk it is noted in a passive view."""
    shuffle_active: int = 3
    shuffle_passive: int = 4
    shuffle_s: float = 20.0
    neighbour_s: float = 6.0
    """How long somebody may take to answer that it is our neighbour, a lookup and a dial included."""
    seek_s: float = 1.0
    """Between two tries to find a neighbour while there are fewer than half of `active`; thirty times that above."""
    evictions_per_s: int = 1
    evictions: int = 20
    """At once. Strangers that come in droves push out no more neighbours than this."""

    # Plumtree
    have_s: float = 0.05
    """What came meanwhile is announced to lazy neighbours together."""
    graft_s: float = 1.0
    """After an announcement, how long the message itself may take through the tree."""
    graft_again_s: float = 0.5
    """How long a graft may take before the next neighbour is asked."""
    shortcut_hops: int = 5
    """A lazy neighbour over which a message would have come by so many links less takes the place of the eager one."""
    shortcut_s: float = 5.0
    """No more often than this: the tree must not change faster than messages go through it."""
    under_way_s: float = 2.0
    """So long a message may be under way to others. Of several authors who speak within it one prunes. Part of the
    protocol."""
    max_missing: int = 4096
    """Announced messages that are waited for."""

    # Repair
    digest_s: float = 5.0
    """Each neighbour is told so often where the authors are that spoke lately; it is also the room's heartbeat."""
    digest_age_s: float = 1.0
    """What came later than this is still under way to others, and not told of."""
    digest_authors: int = 128
    silent_s: float = 32.0
    """A neighbour of whom nothing is heard for so long is none, though its link lives."""
    repair_first_s: float = 1.5
    repair_s: float = 1.0
    """The first pause between two tries; each is longer by a quarter."""
    repair_max_s: float = 4.0
    repair_tries: int = 9
    """Then the gap is told to the app: after 20 s. A neighbour whose link is dead is known to be so after 12."""
    want_max: int = 64
    """Messages asked for at once."""
    serve_per_s: int = 200
    serve_burst: int = 1024
    """Messages that one neighbour gets out of our history."""
    welcomes_per_s: int = 1
    welcomes: int = 5
    """At once. The list of members is told to one peer no more often."""
    roster_s: float = 10.0
    """We ask for the list of members no more often."""

    # Members
    join_s: float = 5.0
    """How long a member may take to welcome us, before another is asked."""
    here_s: float = 600.0
    """A member says so often that it is there."""
    here_life_s: float = 1500.0
    """Who has not said so for so long has left."""
    lost_s: float = 3.0
    """How long a broken link to a neighbour may take to come back before others are told."""
    probe_s: float = 60.0
    """Between two looks whether some member at random can be reached."""
    suspect_s: float = 10.0
    """How long a suspect has for its answer."""
    max_gone: int = 4096
    """Members that left and are remembered, so that old news does not bring them back."""

    # Messages
    max_shout_bytes: int = 59_000
    max_name_bytes: int = 64
    history: int = 512
    """Shouts that are kept for late joiners and for repair."""
    history_bytes: int = 4 << 20
    max_last: int = 256
    max_authors: int = 8192
    """Authors whose sequence numbers are remembered."""
    held: int = 2048
    """Shouts held behind gaps, of all authors."""
    held_bytes: int = 8 << 20
    relay_per_s: int = 100
    relay_burst: int = 500
    """Shouts of one author that go through the tree; what is above it is not taken, and repaired when there is room
    again. An author in a tree keeps to nine tenths of it."""
    news_per_s: int = 2
    news_burst: int = 20
    """The same for what one member says of itself or of others."""
    events: int = 8192
    """Events that wait for the app."""
    event_bytes: int = 32 << 20

    # Finding
    sample: int = 12
    """Members of the topic that are asked for at once."""
    search_s: float = 2.0
    """The first pause until the DHT is asked again; doubled up to `search_max_s` for who is alone."""
    search_max_s: float = 30.0
    island_s: float = 120.0
    """The same for others: a room that fell apart, or that two began at once, grows together."""
    linger_s: float = 10.0
    """How long a link that no room needs any more is kept."""
    leave_s: float = 0.5
    """How long the DHT may take to be told that we left."""
