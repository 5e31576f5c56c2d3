"""What others send us to keep: written, acknowledged, handed to the app, and forgotten when it may be."""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from dht_atonce.config import DurableConfig
from dht_atonce.durable.intake import Intake, Round, Verdict
from dht_atonce.durable.receipt import DurableReceipt
from dht_atonce.durable.store import Arrival, Held, Store
from dht_atonce.durable.wire import Note, Parcel, Refused, Settled, Stored, Why
from dht_atonce.durable.writer import Writer
from dht_atonce.errors import QueueFull, StoreError
from dht_atonce.identity import PeerId
from dht_atonce.messaging.inbox import Message
from dht_atonce.messaging.receipts import State

__all__ = ["DurableMessage", "Receiving"]


class DurableMessage(Message, frozen=True):
    """A message that is on our disk, and comes again after a restart until the app is done with it."""

    id: bytes
    """16 B; the same each time that it comes, and the sender's receipt has it."""
    again: bool
    """It came to us in an earlier run of this profile, and the app may have had it then."""
    on_done: "Callable[[], Awaitable[None]]"
    """What `done` calls."""

    async def done(self) -> None:
        """It need not come again; waits until that is on the disk. May be called twice. Raises `StoreError`,
        `PeerClosed`."""
        await self.on_done()


class Receiving:
    """The inbox's side of durable messages."""

    def __init__(
        self,
        config: DurableConfig,
        writer: Writer,
        counters: Counter[str],
        say: Callable[[PeerId, Note], None],
        now_ms: Callable[[], int],
    ) -> None:
        self.arrived = asyncio.Event()
        """Set whenever there may be something to `take`."""
        self.intake = Intake(config)
        self._config = config
        self._writer = writer
        self._counters = counters
        self._say = say
        self._now_ms = now_ms
        self._pending: Counter[PeerId] = Counter()
        """Messages that are being written."""
        self._people: dict[bytes, PeerId] = {}
        """Those who have a share, by key."""
        self._ready: deque[Arrival] = deque()
        self._ready_bytes = 0
        self._last = 0
        """The place of the last one that was made ready."""
        self._on_disk = self._loading = self._came_meanwhile = False
        self._earlier = 0
        """All up to this place came in an earlier run."""

    # --- inputs ---

    def on_opened(self, held: Sequence[Held], last: int) -> None:
        """This is in the inbox from earlier runs."""
        for one in held:
            sender = self._person(PeerId(one.peer))
            self.intake.count(sender, one.messages, one.size, one.ids)
        self._earlier = last
        self._on_disk = True
        self._load()

    def room(self, sender: PeerId) -> int:
        """Of `Service`."""
        return self._config.pending_messages - self._pending[sender]

    def on_parcels(self, sender: PeerId, parcels: Sequence[Parcel]) -> None:
        """Messages came."""
        taken: list[Arrival] = []
        round_: Round | None = None
        now_ms = self._now_ms()
        for parcel in parcels:
            verdict = self.intake.on_parcel(sender, parcel, now_ms)
            if verdict is Verdict.TAKE:
                if round_ is None or round_.name != parcel.round:
                    self._write(sender, round_, taken)
                    taken, round_ = [], self.intake.round(sender)
                taken.append(Arrival(0, sender.key, parcel.id, parcel.expires_ms, parcel.data))
                continue
            self._counters["durable.not_taken"] += 1
            if verdict.why is not None:
                self._counters[f"durable.refused_{verdict.name.lower()}"] += 1
                self._say(sender, Refused(parcel.round, verdict.why))
        self._write(sender, round_, taken)

    def on_settled(self, sender: PeerId, note: Settled) -> None:
        """A sender says what it never sends again."""
        numbers = self.intake.on_settled(sender, note.round, note.count)
        if numbers:
            self._writer.submit(lambda store: store.settle(numbers), partial(self._on_forgotten, sender))

    def on_expired(self, expired: Sequence[tuple[bytes, int | None]]) -> None:
        """These are over and off the disk: sender, and bytes of those that the app was not done with."""
        for key, size in expired:
            sender = self._person(PeerId(key))
            self.intake.count(sender, -1 if size is not None else 0, -(size or 0), -1)
            if size is not None:
                self._counters["durable.inbox_expired"] += 1
        self._forget_people()

    def add_own(self, own_id: PeerId, receipt: DurableReceipt, expires_ms: int, data: bytes) -> None:
        """A note to ourselves. Raises `QueueFull`."""
        if not self.intake.has_room(own_id, len(data)):
            raise QueueFull("the inbox holds too much that the app is not done with")
        sender = self._person(own_id)
        self.intake.count(sender, 1, len(data), 1)
        arrival = Arrival(0, own_id.key, receipt.id, expires_ms, data)

        def add(store: Store) -> int:
            number = store.add_arrivals([arrival])[0][0]
            store.settle([number])
            return number

        def then(number: int | StoreError) -> None:
            if isinstance(number, StoreError):
                self.intake.count(sender, -1, -len(data), -1)
                receipt.on_failed(number, State.EXPIRED)
                return
            receipt.on_kept()
            receipt.on_delivered()
            self._make_ready(arrival._replace(number=number))

        self._writer.submit(add, then)

    # --- the app's side ---

    @property
    def has_ready(self) -> bool:
        """Whether `take` may have something to give."""
        return bool(self._ready)

    def take(self) -> DurableMessage | None:
        """The next message for the app; None: there is none now."""
        while self._ready:
            arrival = self._ready.popleft()
            self._ready_bytes -= len(arrival.data)
            self._load()
            if arrival.expires_ms > self._now_ms():
                sender, number = self._person(PeerId(arrival.sender)), arrival.number
                again = number <= self._earlier
                self._counters["durable.again" if again else "durable.received"] += 1
                done = partial(self._done, sender, number, len(arrival.data))
                return DurableMessage(sender, arrival.data, arrival.id, again, done)
        return None

    async def _done(self, sender: PeerId, number: int, size: int) -> None:
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def then(result: list[tuple[bool, bool]] | StoreError) -> None:
            if isinstance(result, StoreError):
                if not finished.done():
                    finished.set_exception(result)
                return
            is_news, is_forgotten = result[0]
            if is_news:
                self.intake.count(sender, -1, -size, -1 if is_forgotten else 0)
                self._counters["durable.done"] += 1
                self._forget_people()
            if not finished.done():
                finished.set_result(None)

        self._writer.submit(lambda store: store.done([number]), then)
        await finished

    # --- inside ---

    def _write(self, sender: PeerId, round_: Round | None, arrivals: list[Arrival]) -> None:
        if round_ is None or not arrivals:
            return
        sender = self._person(sender)
        self._pending[sender] += len(arrivals)

        def add(store: Store) -> list[tuple[int, bool]] | None:
            # Behind what could not be written nothing is: order, and what `Stored` counts, would be wrong.
            return None if round_.has_failed else store.add_arrivals(arrivals)

        self._writer.submit(add, partial(self._on_written, sender, round_, arrivals))

    def _on_written(
        self, sender: PeerId, round_: Round, arrivals: list[Arrival], places: list[tuple[int, bool]] | StoreError | None
    ) -> None:
        self._pending[sender] -= len(arrivals)
        if not self._pending[sender]:
            del self._pending[sender]
        if places is None or isinstance(places, StoreError):
            self._counters["durable.not_written"] += len(arrivals)
            for arrival in arrivals:
                self.intake.count(sender, -1, -len(arrival.data), -1)
            if not round_.has_failed:
                self.intake.on_failed(round_)
                self._say(sender, Refused(round_.name, Why.DISK))
            return
        for arrival, (number, is_new) in zip(arrivals, places, strict=True):
            if is_new:
                self._make_ready(arrival._replace(number=number))
            else:
                self._counters["durable.duplicates"] += 1
                self.intake.count(sender, -1, -len(arrival.data), -1)
        self._say(sender, Stored(round_.name, self.intake.on_written(round_, [number for number, _ in places])))

    def _on_forgotten(self, sender: PeerId, count: int | StoreError) -> None:
        if not isinstance(count, StoreError) and count:
            self.intake.count(sender, 0, 0, -count)
            self._forget_people()

    def _make_ready(self, arrival: Arrival) -> None:
        """It is on the disk. In memory only if there is room for it, and nothing before it is on the disk only."""
        config = self._config
        if self._loading:
            self._came_meanwhile = True
        elif self._on_disk or len(self._ready) >= config.ready_messages or self._ready_bytes >= config.ready_bytes:
            self._on_disk = True
        else:
            self._add(arrival)
        self.arrived.set()

    def _add(self, arrival: Arrival) -> None:
        self._ready.append(arrival)
        self._ready_bytes += len(arrival.data)
        self._last = arrival.number

    def _load(self) -> None:
        """Have more made ready, if there is more and most of what was is read."""
        config = self._config
        if not self._on_disk or self._loading or self._writer.is_closed or len(self._ready) * 2 > config.ready_messages:
            return
        if self._ready_bytes * 2 > config.ready_bytes:
            return
        self._loading = True
        after, limit = self._last, config.ready_messages
        self._writer.submit(lambda store: store.arrivals(after, limit), self._on_loaded)

    def _on_loaded(self, arrivals: list[Arrival] | StoreError) -> None:
        self._loading = False
        if isinstance(arrivals, StoreError):
            asyncio.get_running_loop().call_later(self._config.retry_s, self._load)
            return
        for arrival in arrivals:
            self._add(arrival)
        self._on_disk = len(arrivals) == self._config.ready_messages or self._came_meanwhile
        self._came_meanwhile = False
        self.arrived.set()

    def _person(self, peer_id: PeerId) -> PeerId:
        """The one object that stands for a peer who has a share."""
        return self._people.setdefault(peer_id.key, peer_id)

    def _forget_people(self) -> None:
        if len(self._people) > 2 * len(self.intake.shares) + self._config.max_watches:
            self._people = {peer_id.key: peer_id for peer_id in self.intake.shares}
