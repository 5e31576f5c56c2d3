"""Pushes what changes here to those who watch it: the shell round `watching`."""

import asyncio
import math
from functools import partial

from dht_atonce.dht.contact import Contact
from dht_atonce.dht.family import FamilyServer
from dht_atonce.dht.operations import Granted
from dht_atonce.dht.protocol import Answer
from dht_atonce.dht.shared import Shared
from dht_atonce.dht.watching import Push, Watchers
from dht_atonce.dht.wire import NEARER, WATCHED, Noted, NoteOutcome, Notify, Watch, unpack_watch
from dht_atonce.endpoints import Family
from dht_atonce.records import AnyRecord

__all__ = ["Notifier"]

_RECORD_HEAD = 3  # bytes of msgpack before a record


class Notifier:
    """The holder's side of all watches at one node, in all families."""

    __slots__ = ("_is_running", "_made", "_own_id", "_servers", "_shared", "_timer", "_timer_at")

    def __init__(self, shared: Shared, servers: dict[Family, FamilyServer]) -> None:
        self._shared = shared
        self._servers = servers
        self._own_id = int.from_bytes(shared.node_key.id, "big")
        self._made: Watchers | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._is_running = True

    def __len__(self) -> int:
        """How many watches others have here."""
        return len(self._made) if self._made is not None else 0

    def stop(self) -> None:
        """Push nothing more."""
        self._is_running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_change(self, key: bytes) -> None:
        """Our store has a newer record of `key`, or has lost it to time."""
        if self._made is not None and self._made.is_watched(key):
            now = self._shared.now()
            self._watchers.on_change(key, now)
            if self._is_running and self._watchers.deadline() <= now:
                # At once: the loop may have much to read before it comes to its timers.
                self._push_due(now)
            self._arm()

    def on_watch(self, sender: Contact, request: Watch, room: int, wall: float) -> Granted:
        """`sender`, whose address is proved, watches keys here, or ends that."""
        now = self._shared.now()
        lease_s = min(request.lease_s, int(self._shared.config.watch_lease_s))
        outcomes, records = bytearray(), []
        for packed in request.watches:
            key, seq, mark = unpack_watch(packed)
            if not lease_s:
                self._watchers.unwatch(sender, key)
                outcomes.append(0)
                continue
            # A topic has no newest record to push.
            is_topic = self._shared.store.roster(key) is not None
            is_watched = not is_topic and self._watchers.watch(sender, key, lease_s, now)
            if not is_watched and not is_topic:
                self._shared.counters["dht.watch_full"] += 1
            outcomes.append(is_watched * WATCHED | self._has_nearer(sender, key) * NEARER)
            record = self._shared.store.live(key, wall)
            if record is None or not _differs(record, seq, mark):
                continue
            if len(record.blob) + _RECORD_HEAD <= room:
                records.append(record.blob)
                room -= len(record.blob) + _RECORD_HEAD
            else:
                self._watchers.tell(sender, key)
        self._arm()
        return Granted(lease_s, bytes(outcomes), records)

    # --- inside ---

    @property
    def _watchers(self) -> Watchers:
        """Made when it is needed: most nodes of a small simulation never are watched, and all have to fit."""
        if self._made is None:
            shared = self._shared
            self._made = Watchers(shared.config, shared.host.rng, local=shared.network.local)
        return self._made

    def _has_nearer(self, sender: Contact, key: bytes) -> bool:
        """Whether we know as many nodes nearer to `key` than us as a key is watched at, without `sender`."""
        router, most = self._servers[sender.address.family].router, self._shared.config.watch_nodes
        target = int.from_bytes(key, "big")
        nearer = router.count_nearer(target, self._own_id, most + 1)
        if sender.long_id ^ target < self._own_id ^ target and router.is_live(sender):
            nearer -= 1
        return nearer >= most

    def _arm(self) -> None:
        """See to it that the timer fires no later than something is due."""
        deadline = self._watchers.deadline()
        if not self._is_running or deadline == math.inf:
            return
        if self._timer is not None:
            if self._timer_at <= deadline:
                return  # too early is looked at once too often, and cheaper than a new one
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._on_timer)
        self._timer_at = deadline

    def _on_timer(self) -> None:
        self._timer = None
        self._push_due(self._shared.now())
        self._arm()

    def _push_due(self, now: float) -> None:
        for push in self._watchers.take(now):
            self._push(push)

    def _push(self, push: Push) -> None:
        shared, protocol = self._shared, self._servers[push.contact.address.family].protocol
        record = shared.store.live(push.key, shared.wall())
        shared.counters["dht.notified"] += 1
        blob = record.blob if record is not None else b""
        request = Notify(0, protocol.request_id(), protocol.flags, push.key, blob)
        protocol.ask(push.contact, request, partial(self._on_answer, push))

    def _on_answer(self, push: Push, answer: Answer | None) -> None:
        if answer is None:
            self._shared.counters["dht.notify_missed"] += 1
            if self._watchers.on_missed(push, self._shared.now()):
                self._shared.counters["dht.watcher_dropped"] += 1
        else:
            # A refusal is an answer too: by their clock it may be over.
            reply = answer.reply
            gone = isinstance(reply, Noted) and reply.outcome == NoteOutcome.NOT_WATCHED
            self._watchers.on_noted(push, still_watched=not gone)
        self._arm()


def _differs(record: AnyRecord, seq: int, mark: bytes) -> bool:
    """Whether a watcher that holds this seq and mark may lack `record`."""
    return record.seq > seq or (record.seq == seq and record.tie_hash[: len(mark)] != mark)
