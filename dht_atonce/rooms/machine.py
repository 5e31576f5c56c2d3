"""One member of a room: how it comes in, whose neighbour it is, and what it does with what it is told. No I/O, no
clock: `now` is monotonic seconds, `wall` Unix seconds.

    joining ──Welcome──▶ in ──leave()──▶ left
       └──nobody to ask──▶ in, alone ──a candidate──▶ asks it to be let in

Members are keys, 32 B. Each input may make sends, events and changed wishes for links: whoever gives the input drains
them.
"""

import random
from collections import Counter
from collections.abc import Iterable
from enum import Enum

from dht_atonce.config import RoomsConfig
from dht_atonce.identity import PeerId
from dht_atonce.rooms.authors import Given
from dht_atonce.rooms.digests import Digests
from dht_atonce.rooms.doorman import Doorman
from dht_atonce.rooms.entrance import Entrance
from dht_atonce.rooms.events import Entered, Left, Missed, RoomEvent, Said, Whispered
from dht_atonce.rooms.gossip import Gossip
from dht_atonce.rooms.hyparview import HyParView
from dht_atonce.rooms.outbox import Outbox
from dht_atonce.rooms.signing import Sign, Signer, Verify
from dht_atonce.rooms.vigil import Vigil
from dht_atonce.rooms.wire import (
    AskRoster,
    Digest,
    Disconnect,
    Have,
    Join,
    Mode,
    NeighbourReply,
    Past,
    Prune,
    RoomMessage,
    Say,
    Want,
    Welcome,
    Whisper,
    Why,
)

__all__ = ["RoomMachine"]

_FOR_EVER = float("inf")
_MAX_EARLY = 256  # messages that come before we are in
_MAX_WAITING = 64
_MAX_LIES = 4
_MAX_LIARS = 1024  # that are remembered


class _State(Enum):
    JOINING = 0
    IN = 1
    LEFT = 2


class RoomMachine:
    """`room` is the topic's key, 20 B; `session` when we came in, Unix µs; `last`: how many of the latest shouts we ask
    for.

    A `guest` is there for a moment: it may shout and whisper, is nobody's neighbour and hears no shouts.
    """

    def __init__(
        self,
        own: bytes,
        room: bytes,
        network_id: bytes,
        *,
        session: int,
        name: str,
        last: int,
        guest: bool,
        config: RoomsConfig,
        rng: random.Random,
        sign: Sign,
        verify: Verify,
        counters: Counter[str],
    ) -> None:
        self.room = room
        self.counters = counters
        self.outbox = Outbox()
        self.views = HyParView(own, room, config, rng, self.outbox)
        signer = Signer(own, room, network_id, session, sign, verify, counters)
        self.gossip = Gossip(signer, room, config, rng, self.outbox, counters)
        self._doorman = Doorman(room, config, self.gossip, self.outbox, counters)
        self._digests = Digests(room, config, self.gossip, self.outbox, counters)
        self._entrance = Entrance(room, config, self.outbox, counters, last=last, guest=guest)
        self._vigil = Vigil(config)
        self._own = own
        self._name = name
        self._guest = guest
        self._config = config
        self._rng = rng
        self._state = _State.JOINING
        self._waiting: dict[bytes, Join] = {}
        """Who came when we did, and waits for us to be in."""
        self._early: list[tuple[bytes, Say]] = []
        self._events: list[RoomEvent] = []
        self._lies: Counter[bytes] = Counter()
        self._probe_at = _FOR_EVER
        self._digest_at = _FOR_EVER
        self._here_at = _FOR_EVER

    # --- getters ---

    @property
    def is_guest(self) -> bool:
        """Whether we are there only to say something."""
        return self._guest

    @property
    def is_in(self) -> bool:
        """Whether we came in: with the list of members, or alone."""
        return self._state is _State.IN

    @property
    def is_alone(self) -> bool:
        """Whether we have no neighbour, and ask nobody."""
        return not self.views.active and not self.views.asked and self._entrance.contact is None

    @property
    def mode(self) -> int:
        """How our own shouts travel."""
        return self.gossip.mode

    @property
    def deadline(self) -> float:
        """When `on_time` has something to do."""
        ours = min(self._probe_at, self._digest_at, self._here_at)
        return min(ours, self._entrance.deadline, self._vigil.deadline, self.gossip.deadline, self.views.deadline)

    @property
    def members(self) -> int:
        """How many are in the room, ourselves included unless we are a guest."""
        return len(self.gossip.roster) + (not self._guest)

    def wanted(self) -> list[bytes]:
        """With whom the room wants a link."""
        links = dict.fromkeys([*self.views.active, *self.views.asked])
        if self._entrance.contact is not None:
            links[self._entrance.contact] = None
        if self.gossip.mode == Mode.DIRECT:
            links.update(dict.fromkeys(self.gossip.roster.keys()))
        return list(links)

    # --- commands ---

    def on_candidates(self, members: Iterable[bytes], now: float, wall: float) -> None:
        """The DHT lists these as members: in random order."""
        fresh = [one for one in members if one != self._own and not self._lies[one] >= _MAX_LIES]
        if self._state is _State.JOINING or (self._state is _State.IN and self.is_alone):
            self._entrance.offer(fresh)
            self._ask_next(now, wall)
        elif self._state is _State.IN and not self._guest:
            # Whom we do not know may be in another part of a room that fell apart, or have just left.
            strangers = [one for one in fresh if one not in self.gossip.roster]
            if strangers:
                self.views.ask(self._rng.choice(strangers), now)
        self._settle_changes(now)

    def shout(self, data: bytes, now: float) -> int:
        """Say something to all. Gives its number."""
        return self.gossip.shout(data, now)

    def whisper(self, to: bytes, data: bytes) -> None:
        """Say something to one."""
        self.outbox.say(to, Whisper(self.room, data))

    def leave(self, now: float, wall: float) -> None:
        """Tell the others that we go."""
        if self._state is _State.IN and not self._guest:
            self.gossip.say_gone(now, wall)
            self.gossip.on_time(_FOR_EVER)
            self.views.leave()
        self._state = _State.LEFT
        self._entrance.stop()
        self._probe_at = self._digest_at = self._here_at = _FOR_EVER

    # --- inputs ---

    def on_message(self, source: bytes, message: RoomMessage, now: float, wall: float) -> None:
        """A member said something to us."""
        if self._state is _State.LEFT or self._lies[source] >= _MAX_LIES:
            return
        self._vigil.on_heard(source, now)
        match message:
            case Say():
                self._on_say(source, message, now, wall)
            case Have():
                self.gossip.on_have(source, message, now)
            case Want():
                self.gossip.on_want(source, message, now)
            case Prune():
                self.gossip.tree.on_prune(source)
            case Digest():
                self._on_digest(source, message, now)
            case Whisper():
                self._events.append(Whispered(PeerId(source), message.data))
            case Past():
                self._on_past(source, message)
            case Welcome():
                self._on_welcome(source, message, now, wall)
            case NeighbourReply() if source == self._entrance.contact:
                if not message.accepted:
                    self._entrance.on_not_yet(source)
                    self._ask_next(now, wall)
            case _ if self._guest:
                self.counters["rooms.not_for_guests"] += 1
            case Join():
                self._on_join(source, message, now)
            case AskRoster():
                self._doorman.on_ask(source, now)
            case _:
                self.views.on_message(source, message, now)
        self._settle_changes(now)

    def on_linked(self, peer: bytes) -> None:
        """There is a link to it."""
        self._vigil.on_answered(peer)

    def on_unlinked(self, peer: bytes, now: float, wall: float) -> None:
        """Its link is gone, or none could be had."""
        if self._state is _State.LEFT:
            return
        if peer == self._entrance.contact:
            self._ask_next(now, wall)
        if peer in self.views.active and not self._vigil.is_broken(peer):
            self._vigil.on_broken(peer, now)
            self._digests.say([peer], now)  # which dials it
        elif peer in self.views.active or peer in self.views.asked or self._vigil.is_probed(peer):
            self._on_lost(peer, now, wall)
        elif self.gossip.mode == Mode.DIRECT and peer in self.gossip.roster:
            self._probe(peer, now)
        self._settle_changes(now)

    def on_time(self, now: float, wall: float) -> None:
        """Time has passed."""
        if self._state is _State.LEFT:
            return
        config = self._config
        self.gossip.on_time(now)
        if now >= self._entrance.deadline:
            self._ask_next(now, wall)
        for peer in self._vigil.lost(now):
            self._on_lost(peer, now, wall)
        if now >= self._digest_at:
            self._digest_at = now + config.digest_s * (0.75 + 0.5 * self._rng.random())
            self.gossip.roster.expire(wall)
            for peer in self._vigil.silent(now):
                self.counters["rooms.silent"] += 1
                self._on_lost(peer, now, wall)
            self._digests.say(list(self.views.active), now)
        if now >= self._probe_at:
            # Whose neighbours all went at once is missed by nobody else.
            self._probe_at = now + config.probe_s * (0.75 + 0.5 * self._rng.random())
            others = [one for one in self.gossip.roster.keys() if one not in self.views.active]  # noqa: SIM118 # no dict
            if others:
                self._probe(self._rng.choice(others), now)
        if now >= self._here_at:
            self._say_here(now, wall)
        if now >= self.views.deadline:
            self.views.on_time(now)
        self._settle_changes(now)

    # --- drain ---

    def take_events(self) -> list[RoomEvent]:
        """What the app is told."""
        for change in self.gossip.roster.take_changes():
            peer = PeerId(change.member)
            self._events.append(Entered(peer, change.word) if change.entered else Left(peer, change.word))
            self._on_change(change.member, entered=change.entered)
        for one in self.gossip.authors.take_ready():
            if isinstance(one, Given):
                self._events.append(Said(PeerId(one.author), one.data, one.seq, one.hops))
            else:
                self.counters["rooms.missed"] += one.count
                self._events.append(Missed(PeerId(one.author), one.first, one.count))
        events, self._events = self._events, []
        return events

    # --- inside: coming in ---

    def _ask_next(self, now: float, wall: float) -> None:
        """Ask the next candidate to let us in; if there is none, we are in."""
        if self._entrance.ask_next(now, is_in=self.is_in):
            self._come_in(now, wall)

    def _come_in(self, now: float, wall: float) -> None:
        self._state = _State.IN
        if not self._guest:
            self._digest_at = now + self._config.digest_s * self._rng.random()
            self._probe_at = now + self._config.probe_s * self._rng.random()
            self.views.start(now)
            self._say_here(now, wall)
        waiting, self._waiting = self._waiting, {}
        for source, join in waiting.items():
            self._on_join(source, join, now)
        early, self._early = self._early, []
        for source, message in early:
            self._on_say(source, message, now, wall)

    def _on_past(self, source: bytes, message: Past) -> None:
        if source != self._entrance.contact or self._state is not _State.JOINING:
            return
        for statement in self._entrance.take_past(message.statements):
            if self.gossip.on_past(statement):
                said = Said(PeerId(statement.author), statement.data, statement.seq, 0, is_past=True)
                self._events.append(said)

    def _on_welcome(self, source: bytes, message: Welcome, now: float, wall: float) -> None:
        if source != self._entrance.contact and not self._digests.has_asked(source):
            self.counters["rooms.unasked"] += 1
            return
        for statement, highest in message.members:
            self.gossip.on_hint(statement.author, statement.session, highest)
            self.gossip.on_member(statement, now, wall)
        for entry in message.authors:
            self.gossip.on_hint(entry.author, entry.session, entry.highest)
        if source != self._entrance.contact or message.more:
            return
        self._entrance.on_let_in()
        self._set_mode()
        if self._guest:
            self.gossip.guest_of = source
        else:
            self.views.on_welcome(source, now)
        if self._state is _State.JOINING:
            self._come_in(now, wall)

    def _on_join(self, source: bytes, message: Join, now: float) -> None:
        if self._state is not _State.IN:
            # Of those who come at the same time the higher key waits for the lower one: so nobody waits in a circle.
            if self._own < source and len(self._waiting) < _MAX_WAITING:
                self._waiting[source] = message
            else:
                self.outbox.say(source, NeighbourReply(self.room, False))
            return
        if not self._doorman.on_join(source, message.last, now):
            self.outbox.say(source, NeighbourReply(self.room, False))
            return
        if not message.guest:
            self.views.on_join(source, now)

    def _say_here(self, now: float, wall: float) -> None:
        self.gossip.say_here(self._name, now, wall)
        self._here_at = now + self._config.here_s * (0.75 + 0.5 * self._rng.random())

    # --- inside: neighbours ---

    def _on_say(self, source: bytes, message: Say, now: float, wall: float) -> None:
        if self._state is _State.JOINING:
            if len(self._early) < _MAX_EARLY and message.why != Why.ASKED:
                self._early.append((source, message))
            return
        if not self.gossip.on_say(source, message, now, wall):
            self._lies[source] += 1
            if len(self._lies) > _MAX_LIARS:
                del self._lies[next(iter(self._lies))]
            if self._lies[source] >= _MAX_LIES:
                self.counters["rooms.liars"] += 1
                self.views.on_failed(source, now)
        self._set_mode()

    def _set_mode(self) -> None:
        members, mode = self.members, self.gossip.mode
        if members > self._config.direct_max and mode == Mode.DIRECT:
            self.gossip.mode = Mode.TREE
        elif members < self._config.direct_again and mode == Mode.TREE:
            self.gossip.mode = Mode.DIRECT
        if self.gossip.mode != mode:
            self.counters["rooms.mode_changes"] += 1

    def _on_change(self, member: bytes, *, entered: bool) -> None:
        """Somebody came or went."""
        if entered:
            if len(self.views.passive) < self._config.passive:
                self.views.note(member)
        else:
            self.views.forget(member)
        self._set_mode()

    def _on_lost(self, peer: bytes, now: float, wall: float) -> None:
        """A neighbour cannot be reached."""
        self._vigil.on_answered(peer)
        self.views.on_failed(peer, now)
        self.gossip.suspect(peer, now, wall)

    def _probe(self, peer: bytes, now: float) -> None:
        """Whether it can be reached: a digest, which dials it; if not, `on_unlinked` says so."""
        self._vigil.on_probe(peer, now)
        self._digests.say([peer], now)

    def _settle_changes(self, now: float) -> None:
        """Neighbours that are new, and those that are none any more."""
        for peer, is_up in self.views.take_changes():
            self.counters["rooms.neighbours_changed"] += 1
            if is_up:
                self.gossip.tree.on_up(peer)
                self._vigil.on_up(peer, now)
                self._digests.greet(peer, now)
                if len(self.views.active) == 1 and self._state is _State.IN:
                    self._here_at = now  # what we said before was heard by nobody
            else:
                self.gossip.tree.on_down(peer, now)
                self._vigil.on_down(peer)
                self._digests.on_down(peer)

    def _on_digest(self, source: bytes, message: Digest, now: float) -> None:
        if source in self.views.active:
            self._digests.on_digest(source, message, now)
        elif source != self._entrance.contact and source not in self.views.asked and self._state is _State.IN:
            self.outbox.say(source, Disconnect(self.room, False))
