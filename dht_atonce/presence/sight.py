"""What we can say of one peer, going by its link, its record, and what it said at the end. No I/O, no clock.

    link up, or a newer record ──▶ ONLINE ◀──────────────────┐
                                     │ link lost             │ link up again
                                     ▼ (for `suspect_s`)     │
                                  SUSPECT ───────────────────┘
                                     │ no new link within `offline_s`, or nobody listens there
    goodbye, expiry ─────────────▶ OFFLINE

A link that breaks and is back within `suspect_s` changes nothing: a lost packet makes nobody blink. A peer with whom we
never had a link is judged by its record alone; it is suspect if it says where it listens and cannot be reached there.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf

from dht_atonce.config import PresenceConfig
from dht_atonce.identity import PeerId
from dht_atonce.records import PresenceRecord

__all__ = ["Basis", "PresenceChange", "PresenceEvent", "PresenceState", "Sight"]


class PresenceState(StrEnum):
    """What is thought of a peer."""

    ONLINE = "online"
    SUSPECT = "suspect"
    """It says that it is there, and cannot be reached."""
    OFFLINE = "offline"


class PresenceChange(StrEnum):
    """What an event is about."""

    ONLINE = "online"
    SUSPECT = "suspect"
    OFFLINE = "offline"
    CHANGED = "changed"
    """It is as it was, but says something else of itself."""


class Basis(StrEnum):
    """What a state goes by."""

    LINK = "link"
    """A link to it, with heartbeats; or that there was one and is none."""
    RECORD = "record"
    """What it published, its goodbye, or that nothing newer came before that expired."""


@dataclass(frozen=True, slots=True)
class PresenceEvent:
    """A peer's presence, and what is new about it."""

    peer: PeerId
    change: PresenceChange
    state: PresenceState
    basis: Basis
    status: str
    """What it said of itself last: `online`, `away`, or a word of its app's; "" if nothing is known."""
    capabilities: tuple[str, ...]
    at: float
    """Monotonic seconds: since when, as far as we can tell."""


class Sight:
    """One watched peer. Each input gives the event that it makes, None for none."""

    __slots__ = (
        "_config",
        "_deadline",
        "_has_link",
        "_lost_at",
        "_record",
        "_said",
        "_was_linked",
        "basis",
        "peer",
        "since",
        "state",
    )

    def __init__(self, peer: PeerId, config: PresenceConfig) -> None:
        self.peer = peer
        self.state: PresenceState | None = None
        """None: nothing is known yet."""
        self.basis = Basis.RECORD
        self.since = 0.0
        self._config = config
        self._record: PresenceRecord | None = None
        self._said: tuple[str, tuple[str, ...]] = ("", ())
        self._has_link = False
        self._was_linked = False
        """There was a link to the process that the record speaks of."""
        self._lost_at = 0.0
        self._deadline = inf

    @property
    def deadline(self) -> float:
        """When `on_timer` is to be called, in monotonic seconds; inf: nothing is due."""
        return self._deadline

    @property
    def wants_link(self) -> bool:
        """Whether a link would tell more than we know."""
        record = self._record
        return not self._has_link and record is not None and not record.is_goodbye

    # --- inputs ---

    def on_record(self, record: PresenceRecord, now: float) -> PresenceEvent | None:
        """It published this, or greeted us with it."""
        known = self._record
        if known is not None and record.seq <= known.seq:
            return None
        self._record = record
        if known is not None and record.incarnation != known.incarnation and not self._has_link:
            self._was_linked = False
        if record.is_goodbye:
            self._was_linked = self._has_link = False
            return self._become(PresenceState.OFFLINE, Basis.RECORD, now)
        if self._has_link or self.state is PresenceState.SUSPECT:
            return self._become(self.state or PresenceState.ONLINE, self.basis, now)
        return self._become(PresenceState.ONLINE, Basis.RECORD, now)

    def on_expired(self, now: float) -> PresenceEvent | None:
        """Nothing newer came before its record expired."""
        if self._has_link:
            return None
        return self._become(PresenceState.OFFLINE, Basis.RECORD, now)

    def on_linked(self, record: PresenceRecord, now: float) -> PresenceEvent | None:
        """There is a link, over which it greeted us with `record`."""
        if self._record is None or record.seq > self._record.seq or self._record.is_goodbye:
            self._record = record
        self._has_link = self._was_linked = True
        self._deadline = inf
        return self._become(PresenceState.ONLINE, Basis.LINK, now)

    def on_lost(self, now: float) -> None:
        """The link broke."""
        if self._has_link:
            self._has_link = False
            self._lost_at = now
            self._deadline = now + self._config.suspect_s

    def on_left(self, now: float) -> PresenceEvent | None:
        """It said over the link that it goes."""
        self._has_link = self._was_linked = False
        return self._become(PresenceState.OFFLINE, Basis.LINK, now)

    def on_unreachable(self, now: float) -> PresenceEvent | None:
        """It was dialled in vain."""
        record = self._record
        if self._has_link or record is None or self.state is PresenceState.OFFLINE:
            return None
        if self._was_linked:
            return self._become(PresenceState.OFFLINE, Basis.LINK, now)
        if record.endpoints:
            return self._become(PresenceState.SUSPECT, Basis.RECORD, now)
        return None  # nobody can dial it, which it says itself

    def on_timer(self, now: float) -> PresenceEvent | None:
        """The `deadline` has come."""
        if now < self._deadline:
            return None
        self._deadline = inf
        if self._has_link or not self._was_linked or self.state is PresenceState.OFFLINE:
            return None
        if self.state is PresenceState.ONLINE:
            self._deadline = self._lost_at + self._config.offline_s
            return self._become(PresenceState.SUSPECT, Basis.LINK, now)
        return self._become(PresenceState.OFFLINE, Basis.LINK, now)

    # --- inside ---

    def _become(self, state: PresenceState, basis: Basis, now: float) -> PresenceEvent | None:
        record = self._record
        said = (record.status, record.capabilities) if record is not None else ("", ())
        before, self.basis = self.state, basis
        if state is PresenceState.OFFLINE:
            self._deadline = inf
        if state is not before:
            self.state, self.since, self._said = state, now, said
            return self.event(PresenceChange(state.value))
        if said != self._said:
            self._said = said
            return self.event(PresenceChange.CHANGED)
        return None

    def event(self, change: PresenceChange) -> PresenceEvent:
        """How it is now, called `change`."""
        assert self.state is not None
        status, capabilities = self._said
        return PresenceEvent(self.peer, change, self.state, self.basis, status, capabilities, self.since)
