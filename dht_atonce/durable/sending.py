"""What we send for others to keep: written to the outbox, brought to whoever is there, and awaited who is not."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import NamedTuple

from dht_atonce.config import DurableConfig
from dht_atonce.dht.node import DhtNode
from dht_atonce.durable.courier import Courier, Load, Row, Stage
from dht_atonce.durable.receipt import DurableReceipt
from dht_atonce.durable.store import Held
from dht_atonce.durable.wire import Refused, Stored, pack
from dht_atonce.durable.writer import Writer
from dht_atonce.errors import AtOnceError, DeliveryUnknown, PeerClosed, PeerOffline, QueueFull, StoreError
from dht_atonce.identity import PeerId
from dht_atonce.messaging.frames import Kind
from dht_atonce.messaging.linking import Ended
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.messaging.receipts import State
from dht_atonce.records import PresenceRecord, presence_key
from dht_atonce.tasks import TaskGroup

__all__ = ["CAPABILITY", "Sending"]

CAPABILITY = "dur1"
"""In the presence records of those who take durable messages."""

_MAX_CALLS = 16  # peers who are dialled at one time on account of the outbox: the app's own dials go beside them
_TICK_S = 0.05  # between two looks at all couriers, at least


class _Outgoing(NamedTuple):
    """A message that is being written."""

    receiver: PeerId
    id: bytes
    expires_ms: int
    data: bytes


class Sending:
    """The outbox's side of durable messages."""

    def __init__(
        self,
        config: DurableConfig,
        writer: Writer,
        counters: Counter[str],
        rng: random.Random,
        node: DhtNode,
        messenger: Messenger,
        now_ms: Callable[[], int],
    ) -> None:
        self.messages = self.size = 0
        """In the outbox, with those that are being written; bytes."""
        self._config = config
        self._writer = writer
        self._counters = counters
        self._rng = rng
        self._node = node
        self._messenger = messenger
        self._now_ms = now_ms
        self._couriers: dict[PeerId, Courier] = {}
        self._receipts: dict[bytes, DurableReceipt] = {}
        """Of what was posted in this run and is not settled, by id."""
        self._new: list[_Outgoing] = []
        self._calls: dict[PeerId, float] = {}
        """Those who are being dialled, and since when."""
        self._watches: dict[PeerId, asyncio.Task[None]] = {}
        self._tasks = TaskGroup()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._closed = False

    async def aclose(self) -> None:
        """Hand what is new to the writer; call and watch nobody any more."""
        self._flush_new()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.aclose()

    def fail_receipts(self) -> None:
        """Nobody will hear any more in this run."""
        for receipt in self._receipts.values():
            receipt.on_failed(PeerClosed("this peer was closed; the message goes on at the next start"))
        self._receipts.clear()

    # --- the app's side ---

    def post(self, to: PeerId, receipt: DurableReceipt, expires_ms: int, data: bytes) -> None:
        """Write a message to the outbox, and send it. Raises `QueueFull`."""
        config = self._config
        if self.messages >= config.outbox_messages or self.size + len(data) > config.outbox_bytes:
            raise QueueFull(f"the outbox holds {self.messages} messages, {self.size} bytes; wait for receipts")
        self.messages += 1
        self.size += len(data)
        self._receipts[receipt.id] = receipt
        if not self._new:
            self._loop.call_soon(self._flush_new)
        self._new.append(_Outgoing(to, receipt.id, expires_ms, data))

    # --- inputs ---

    def on_opened(self, held: Sequence[Held]) -> None:
        """This is in the outbox from earlier runs."""
        for one in held:
            self.messages += one.messages
            self.size += one.size
            receiver = PeerId(one.peer)
            courier = self._courier(receiver)
            courier.on_found(one.messages)
            self._pump(receiver, courier)

    def on_linked(self, peer_id: PeerId, record: PresenceRecord) -> None:
        """Of `Messenger.when_linked`."""
        self._calls.pop(peer_id, None)
        courier = self._couriers.get(peer_id)
        if courier is not None:
            self._end_watch(peer_id)
            courier.on_linked(able=CAPABILITY in record.capabilities)
            self._pump(peer_id, courier)

    def on_unlinked(self, peer_id: PeerId, _: Ended) -> None:
        """Of `Messenger.when_unlinked`."""
        self._calls.pop(peer_id, None)
        courier = self._couriers.get(peer_id)
        if courier is not None and not self._closed:
            courier.on_unlinked(self._loop.time())
            self._watch(peer_id)
            self._arm(courier.deadline)

    def on_stored(self, sender: PeerId, note: Stored) -> None:
        """A peer acknowledged."""
        courier = self._couriers.get(sender)
        rows = courier.on_stored(note.round, note.count, self._loop.time()) if courier is not None else []
        if courier is None or not rows:
            return
        self._counters["durable.delivered"] += len(rows)
        for row in rows:
            receipt = self._receipts.pop(row.id, None)
            if receipt is not None:
                receipt.on_delivered()
        numbers = [row.number for row in rows]
        then = partial(self._on_deleted, sender, courier, courier.position, rows)
        if not self._writer.is_closed:
            self._writer.submit(lambda store: store.delete_outgoing(numbers), then)
        self._pump(sender, courier)

    def on_refused(self, sender: PeerId, note: Refused) -> None:
        """A peer takes nothing more for now."""
        courier = self._couriers.get(sender)
        if courier is not None:
            self._counters["durable.refused_by_others"] += 1
            courier.on_refused(note.round, self._loop.time())
            self._arm(courier.deadline)

    def on_expired(self, expired: Sequence[tuple[bytes, bytes, int]]) -> None:
        """These are over and off the disk: receiver, id, bytes."""
        for key, message_id, size in expired:
            self._counters["durable.outbox_expired"] += 1
            receiver = PeerId(key)
            self._count_out(1, size)
            receipt = self._receipts.pop(message_id, None)
            if receipt is not None and receipt.state is State.SENT:
                why = f"no acknowledgement came from {receiver.short}… before the message expired"
                receipt.on_failed(DeliveryUnknown(why), State.UNKNOWN)
            elif receipt is not None:
                why = f"{receiver.short}… was not there before the message expired"
                receipt.on_failed(PeerOffline(why), State.EXPIRED)
            courier = self._couriers.get(receiver)
            if courier is not None:
                courier.on_deleted(b"", 0, 1)
                self._drop_if_empty(receiver, courier)

    # --- inside: the outbox ---

    def _flush_new(self) -> None:
        new, self._new = self._new, []
        if not new:
            return
        rows = [(one.receiver.key, one.id, one.expires_ms, one.data) for one in new]
        then = partial(self._on_written, new)
        if self._writer.is_closed:
            then(StoreError("this peer is closed"))
        else:
            self._writer.submit(lambda store: store.add_outgoing(rows), then)

    def _on_written(self, new: list[_Outgoing], numbers: list[int] | StoreError) -> None:
        if isinstance(numbers, StoreError):
            self._counters["durable.not_kept"] += len(new)
            for one in new:
                self._count_out(1, len(one.data))
                self._receipts.pop(one.id).on_failed(numbers, State.EXPIRED)
            return
        touched: dict[PeerId, Courier] = {}
        for one, number in zip(new, numbers, strict=True):
            courier = touched[one.receiver] = self._courier(one.receiver)
            courier.on_added(Row(number, one.id, one.expires_ms, one.data))
            self._receipts[one.id].on_kept()
        for receiver, courier in touched.items():
            self._pump(receiver, courier)

    def _on_deleted(
        self,
        receiver: PeerId,
        courier: Courier,
        position: tuple[bytes, int],
        rows: list[Row],
        deleted: list[bool] | StoreError,
    ) -> None:
        if isinstance(deleted, StoreError):
            return  # with the next link they are sent once more, and found to be known
        there = [row for row, was_there in zip(rows, deleted, strict=True) if was_there]
        self._count_out(len(there), sum(len(row.data) for row in there))
        courier.on_deleted(*position, len(there))
        settled = courier.take_settled()
        if settled is not None:
            self._post(receiver, pack(settled))
        self._drop_if_empty(receiver, courier)

    def _count_out(self, messages: int, size: int) -> None:
        self.messages -= messages
        self.size -= size

    # --- inside: couriers ---

    def _courier(self, receiver: PeerId) -> Courier:
        courier = self._couriers.get(receiver)
        if courier is None:
            courier = self._couriers[receiver] = Courier(self._config, self._rng, self._loop.time())
            record = self._messenger.record_of(receiver)
            if record is not None:
                courier.on_linked(able=CAPABILITY in record.capabilities)
        return courier

    def _drop_if_empty(self, receiver: PeerId, courier: Courier) -> None:
        if not courier.count and self._couriers.get(receiver) is courier:
            del self._couriers[receiver]
            self._end_watch(receiver)

    def _pump(self, receiver: PeerId, courier: Courier) -> None:
        """Send what may be sent, and ask the disk for more."""
        if self._closed:
            return
        now, now_ms = self._loop.time(), self._now_ms()
        while (parcel := courier.take(now, now_ms)) is not None:
            if not self._post(receiver, pack(parcel)):
                courier.on_refused(parcel.round, now)
                break
            receipt = self._receipts.get(parcel.id)
            if receipt is not None:
                receipt.on_sent()
        load = courier.take_load()
        if load is not None:
            key = receiver.key
            self._writer.submit(
                lambda store: store.outgoing(key, load.after, load.limit), partial(self._on_loaded, receiver, load)
            )
        self._arm(courier.deadline)

    def _on_loaded(self, receiver: PeerId, load: Load, rows: list[Row] | StoreError) -> None:
        courier = self._couriers.get(receiver)
        if courier is None:
            return
        if isinstance(rows, StoreError):
            courier.on_not_loaded(load, self._loop.time())
        else:
            courier.on_loaded(load, rows)
        self._pump(receiver, courier)

    def _post(self, to: PeerId, data: bytes) -> bool:
        try:
            self._messenger.post(to, data, self._config.stall_s, Kind.DURABLE)
        except (QueueFull, PeerClosed):
            return False
        return True

    # --- inside: those who are away ---

    def _arm(self, deadline: float) -> None:
        if deadline < self._timer_at and not self._closed:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = max(deadline, self._loop.time() + _TICK_S)
            self._timer = self._loop.call_at(self._timer_at, self._on_tick)

    def _on_tick(self) -> None:
        self._timer, self._timer_at = None, inf
        now = self._loop.time()
        long_ago = now - self._config.retry_max_s
        self._calls = {receiver: at for receiver, at in self._calls.items() if at > long_ago}
        for receiver, courier in list(self._couriers.items()):
            if courier.deadline > now or (courier.stage is Stage.AWAY and len(self._calls) >= _MAX_CALLS):
                continue
            if courier.on_timer(now):
                self._calls[receiver] = now
                self._messenger.connect(receiver)
            else:
                self._pump(receiver, courier)
        waiting = len(self._calls) >= _MAX_CALLS
        self._arm(self._next(courier for courier in self._couriers.values() if not waiting or courier.deadline > now))
        if waiting:
            self._arm(now + self._config.retry_s)

    @staticmethod
    def _next(couriers: Iterable[Courier]) -> float:
        return min((courier.deadline for courier in couriers), default=inf)

    def _watch(self, receiver: PeerId) -> None:
        """Hear of it when the peer publishes that it is back."""
        if receiver not in self._watches and len(self._watches) < self._config.max_watches:
            task = self._tasks.start(self._watch_for(receiver), f"watch for {receiver.short}")
            if task is not None:
                self._watches[receiver] = task

    def _end_watch(self, receiver: PeerId) -> None:
        task = self._watches.pop(receiver, None)
        if task is not None:
            task.cancel()

    async def _watch_for(self, receiver: PeerId) -> None:
        try:
            async with self._node.watch(presence_key(self._node.shared.network, receiver)) as watch:
                async for event in watch:
                    record, courier = event.record, self._couriers.get(receiver)
                    if courier is not None and isinstance(record, PresenceRecord) and not record.is_goodbye:
                        courier.on_return(self._loop.time())
                        self._arm(courier.deadline)
        except (AtOnceError, ValueError):
            self._counters["durable.not_watched"] += 1  # it is tried now and then all the same
