"""HyParView (Leitão, Pereira, Rodrigues 2007): who is whose neighbour in a large room. No I/O, no clock.

Each member has a small *active* view, its neighbours, the same in both directions, and a larger *passive* view of
members that may take the place of one that fails. A newcomer is taken in by whom it asks, and its name goes on a random
walk that gives it further neighbours; shuffles keep passive views fresh.

    passive ──ask──▶ asked ──accepted──▶ active ──on_failed() / Disconnect──▶ gone / passive

Departure from the paper: what pushes out a neighbour (a join, a neighbour without any) has a rate. Whoever sends
thousands of identities into a room pushes out some neighbours a second and not all at once.
"""

import random

from dht_atonce.config import RoomsConfig
from dht_atonce.dht.gate import Bucket
from dht_atonce.rooms.outbox import Outbox
from dht_atonce.rooms.wire import (
    Disconnect,
    ForwardJoin,
    Neighbour,
    NeighbourReply,
    RoomMessage,
    Shuffle,
    ShuffleReply,
)

__all__ = ["HyParView"]

_FOR_EVER = float("inf")


class HyParView:
    """The views of one member. Members are keys, 32 B. `take_changes` tells who became a neighbour and who is none
    any more."""

    def __init__(self, own: bytes, room: bytes, config: RoomsConfig, rng: random.Random, outbox: Outbox) -> None:
        self.active: dict[bytes, None] = {}
        self.passive: dict[bytes, None] = {}
        self._own = own
        self._room = room
        self._config = config
        self._rng = rng
        self._asked: dict[bytes, float] = {}
        """Whom we asked to be our neighbour, and until when it may answer."""
        self._evictions = Bucket(config.evictions_per_s, config.evictions)
        self._say = outbox.say
        self._changes: list[tuple[bytes, bool]] = []
        self._shuffle_at = _FOR_EVER
        self._seek_at = _FOR_EVER

    # --- getters ---

    @property
    def deadline(self) -> float:
        """When `on_time` has something to do."""
        return min(self._shuffle_at, self._seek_at, min(self._asked.values(), default=_FOR_EVER))

    @property
    def asked(self) -> list[bytes]:
        """Whom we asked and who has not answered."""
        return list(self._asked)

    # --- inputs ---

    def start(self, now: float) -> None:
        """Take part from now on."""
        self._shuffle_at = now + self._config.shuffle_s * (0.5 + self._rng.random())
        self._seek_at = now + self._config.seek_s

    def on_join(self, newcomer: bytes, now: float) -> None:
        """Somebody asked us to let it in."""
        if newcomer == self._own:
            return
        if not self._make_neighbour(newcomer, now):
            self._walk(newcomer, self._config.join_ttl, newcomer)
            return
        for other in list(self.active):
            if other != newcomer:
                self._say(other, ForwardJoin(self._room, newcomer, self._config.join_ttl))

    def on_message(self, source: bytes, message: RoomMessage, now: float) -> None:
        """Somebody said something about who is whose neighbour."""
        match message:
            case ForwardJoin():
                self.on_forward_join(source, message, now)
            case Neighbour():
                self.on_neighbour(source, message, now)
            case NeighbourReply():
                self.on_neighbour_reply(source, message, now)
            case Disconnect():
                self.on_disconnect(source, message.leaving, now)
            case Shuffle():
                self.on_shuffle(source, message, now)
            case ShuffleReply():
                self.on_shuffle_reply(source, message)

    def on_forward_join(self, source: bytes, message: ForwardJoin, now: float) -> None:
        """A newcomer's name came by. Only neighbours send it."""
        newcomer = message.newcomer
        ttl = min(message.ttl, self._config.join_ttl)
        if source not in self.active or newcomer == self._own:
            return
        if ttl == 0 or len(self.active) <= 1:
            if newcomer not in self.active:
                self._ask(newcomer, now, high=True)
            return
        if ttl == self._config.passive_ttl:
            self.note(newcomer)
        if not self._walk(newcomer, ttl - 1, source) and newcomer not in self.active:
            self._ask(newcomer, now, high=True)

    def on_neighbour(self, source: bytes, message: Neighbour, now: float) -> None:
        """Somebody wants to be our neighbour."""
        is_full = len(self.active) >= self._config.active
        accepted = source in self.active or ((message.high or not is_full) and self._make_neighbour(source, now))
        self._say(source, NeighbourReply(self._room, accepted))

    def on_neighbour_reply(self, source: bytes, message: NeighbourReply, now: float) -> None:
        """The answer, if we asked."""
        if self._asked.pop(source, None) is None:
            if message.accepted and source not in self.active:
                self._say(source, Disconnect(self._room, False))
            return
        if not message.accepted:
            self.note(source)
        elif not self._make_neighbour(source, now):
            self._say(source, Disconnect(self._room, False))

    def on_welcome(self, source: bytes, now: float) -> None:
        """Whom we asked to let us in did so: it may count us as its neighbour."""
        self._ask(source, now, high=True)

    def on_disconnect(self, source: bytes, leaving: bool, now: float) -> None:
        """A neighbour has found another."""
        self._asked.pop(source, None)
        if source in self.active:
            self._drop(source)
            self._seek_at = min(self._seek_at, now + self._config.seek_s * self._rng.random())
        if leaving:
            self.passive.pop(source, None)
        else:
            self.note(source)

    def on_shuffle(self, source: bytes, message: Shuffle, now: float) -> None:
        """Somebody's sample came by. Only neighbours send it."""
        if source not in self.active or message.origin == self._own:
            return
        ttl = min(message.ttl, self._config.join_ttl)
        others = [peer for peer in self.active if peer not in (source, message.origin)]
        if ttl > 1 and others:
            self._say(self._rng.choice(others), Shuffle(self._room, message.origin, ttl - 1, message.peers))
            return
        sample = self._sample(list(self.passive), len(message.peers) + 1)
        if message.origin == source:
            self._say(source, ShuffleReply(self._room, sample))
        elif message.origin in self.active:
            self._say(message.origin, ShuffleReply(self._room, sample))
        # To anybody else a link would have to be dialled, for the sake of a few names: they go without.
        for peer in message.peers:
            self.note(peer)

    def on_shuffle_reply(self, source: bytes, message: ShuffleReply) -> None:
        """What a neighbour knows."""
        if source in self.active:
            for peer in message.peers:
                self.note(peer)

    def on_failed(self, peer: bytes, now: float) -> None:
        """It cannot be reached, or is silent."""
        self._asked.pop(peer, None)
        self.passive.pop(peer, None)
        if peer in self.active:
            self._drop(peer)
        self._seek_at = now

    def on_time(self, now: float) -> None:
        """Time has passed."""
        config = self._config
        for peer, until in list(self._asked.items()):
            if until <= now:
                del self._asked[peer]
                self.passive.pop(peer, None)
                self._seek_at = now
        if now >= self._seek_at:
            self._seek(now)
        if now >= self._shuffle_at:
            self._shuffle_at = now + config.shuffle_s * (0.5 + self._rng.random())
            if self.active:
                peers = [
                    *self._sample(list(self.active), config.shuffle_active),
                    *self._sample(list(self.passive), config.shuffle_passive),
                ]
                to = self._rng.choice(list(self.active))
                shuffle = Shuffle(self._room, self._own, config.join_ttl, [peer for peer in peers if peer != to])
                self._say(to, shuffle)

    # --- commands ---

    def note(self, peer: bytes) -> None:
        """A member that may become a neighbour."""
        if peer == self._own or peer in self.active or peer in self.passive or peer in self._asked:
            return
        if len(self.passive) >= self._config.passive:
            del self.passive[self._rng.choice(list(self.passive))]
        self.passive[peer] = None

    def forget(self, peer: bytes) -> None:
        """It has left."""
        self.passive.pop(peer, None)

    def ask(self, peer: bytes, now: float) -> None:
        """Have `peer` as a neighbour, even at the cost of another."""
        self._ask(peer, now, high=True)

    def leave(self) -> None:
        """Tell our neighbours that we go."""
        for peer in list(self.active):
            self._say(peer, Disconnect(self._room, True))
        self._shuffle_at = self._seek_at = _FOR_EVER
        self._asked.clear()

    # --- drain ---

    def take_changes(self) -> list[tuple[bytes, bool]]:
        """Who became a neighbour (True), who is none any more (False), in order."""
        changes, self._changes = self._changes, []
        return changes

    # --- inside ---

    def _sample(self, peers: list[bytes], count: int) -> list[bytes]:
        return self._rng.sample(peers, min(count, len(peers)))

    def _walk(self, newcomer: bytes, ttl: int, source: bytes) -> bool:
        """Send a newcomer's name on; whether there was anybody."""
        others = [peer for peer in self.active if peer not in (newcomer, source)]
        if others:
            self._say(self._rng.choice(others), ForwardJoin(self._room, newcomer, ttl))
        return bool(others)

    def _ask(self, peer: bytes, now: float, *, high: bool) -> None:
        if peer == self._own or peer in self.active or len(self._asked) >= 2 * self._config.active:
            return
        self.passive.pop(peer, None)
        self._asked[peer] = now + self._config.neighbour_s
        self._say(peer, Neighbour(self._room, high))

    def _make_neighbour(self, peer: bytes, now: float) -> bool:
        """Whether it is one now, even at the cost of another."""
        if peer in self.active:
            return True
        if len(self.active) >= self._config.active:
            if not self._evictions.take(now):
                return False
            victim = self._rng.choice(list(self.active))
            self._drop(victim)
            self._say(victim, Disconnect(self._room, False))
            self.note(victim)
        self.passive.pop(peer, None)
        self._asked.pop(peer, None)
        self.active[peer] = None
        self._changes.append((peer, True))
        return True

    def _drop(self, peer: bytes) -> None:
        del self.active[peer]
        self._changes.append((peer, False))

    def _seek(self, now: float) -> None:
        """Find a neighbour, if one is missing."""
        config = self._config
        have = len(self.active)
        is_short = have < (config.active + 1) // 2
        self._seek_at = now + config.seek_s * (1 if is_short else 30) * (0.75 + 0.5 * self._rng.random())
        if have + len(self._asked) < config.active and self.passive:
            self._ask(self._rng.choice(list(self.passive)), now, high=not have)
