"""What goes from our outbox to one peer, and when. No I/O; `now` is monotonic seconds.

Messages go in rounds. A round begins with the oldest that is not acknowledged, is named by eight random bytes, and
numbers what it sends, so that no acknowledgement of an earlier round, or towards an earlier process, can be taken for
one of this. Whatever goes wrong, a new round makes good.

             on_linked()               on_refused()
    AWAY ─────────────────▶ OPEN ─────────────────▶ PAUSED
     ▲ │  (no dur1: UNABLE)  │ ◀─────────────────────┘ on_timer(): a new round, as after a stall
     │ └─ on_timer(): CALL   │
     └── on_unlinked() ──────┘

What is in memory is a stretch of the outbox, from its oldest message on: those of the round that were sent, then those
to be sent. All else lies on the disk. Who is away has nothing in memory.
"""

import random
from collections import deque
from enum import Enum
from math import inf
from typing import NamedTuple

from dht_atonce.config import DurableConfig
from dht_atonce.durable.wire import Parcel, Settled

__all__ = ["Courier", "Load", "Row", "Stage"]


class Row(NamedTuple):
    """A message in the outbox."""

    number: int
    """Its place: the messages to one peer leave in this order."""
    id: bytes
    expires_ms: int
    data: bytes


class Load(NamedTuple):
    """Rows are wanted from the disk: those behind the row `after`. Handed back with them."""

    after: int
    limit: int
    life: int


class Stage(Enum):
    """Where a courier stands."""

    AWAY = "away"
    UNABLE = "unable"
    """There is a link, and the peer cannot take durable messages."""
    OPEN = "open"
    PAUSED = "paused"
    """The peer refused."""


class Courier:
    """One for each peer for whom there is something in the outbox. `rng` names rounds."""

    def __init__(self, config: DurableConfig, rng: random.Random, now: float) -> None:
        self.stage = Stage.AWAY
        self.count = 0
        """Messages on the disk."""
        self._config = config
        self._rng = rng
        self._rows: deque[Row] = deque()
        self._bytes = 0
        self._sent = 0
        """So many of `_rows` are on their way in this round."""
        self._sent_bytes = 0
        self._round = b""
        self._first = 0
        """The index in the round of the first of `_rows`."""
        self._last = 0
        """The number of the last row that was in memory; behind it others may lie on the disk."""
        self._on_disk = False
        """Whether they do."""
        self._loading = False
        self._came_meanwhile = False
        self._life = 0
        self._told_settled = self._settled = 0
        self._pause_s = config.retry_s
        self._wake_at = now
        self._stall_at = inf

    # --- getters ---

    @property
    def deadline(self) -> float:
        """When `on_timer` has something to do."""
        if self.stage is Stage.OPEN:
            return self._stall_at
        return self._wake_at if self.count and self.stage is not Stage.UNABLE else inf

    # --- inputs ---

    def on_linked(self, *, able: bool) -> None:
        """There is a new link; `able`: the peer takes durable messages."""
        self._forget()
        self.stage = Stage.OPEN if able else Stage.UNABLE
        if able:
            self._begin()

    def on_unlinked(self, now: float) -> None:
        """There is no link, or none could be had."""
        self._forget()
        self.stage = Stage.AWAY
        self._pause(now)

    def on_return(self, now: float) -> None:
        """The peer seems to be back."""
        if self.stage is Stage.AWAY:
            self._pause_s = self._config.retry_s
            self._wake_at = now

    def on_added(self, row: Row) -> None:
        """A message is on the disk now."""
        self.count += 1
        if self._loading:
            self._came_meanwhile = True
        elif self.stage not in (Stage.OPEN, Stage.PAUSED) or self._on_disk or self._is_full():
            self._on_disk = True
        else:
            self._add(row)

    def on_found(self, count: int) -> None:
        """So many messages are on the disk from earlier runs."""
        self.count += count
        self._on_disk = True

    def on_not_loaded(self, load: Load, now: float) -> None:
        """What `take_load` asked for cannot be read: another round begins after a pause."""
        if load.life == self._life:
            self._loading = self._came_meanwhile = False
            self._on_disk = True
            if self.stage is Stage.OPEN:
                self.stage = Stage.PAUSED
                self._pause(now)

    def on_loaded(self, load: Load, rows: list[Row]) -> None:
        """What `take_load` asked for."""
        if load.life != self._life:
            return
        for row in rows:
            self._add(row)
        self._on_disk = len(rows) == load.limit or self._came_meanwhile
        self._loading = self._came_meanwhile = False

    def on_stored(self, round_: bytes, count: int, now: float) -> list[Row]:
        """The peer acknowledged the first `count` of the round. Gives those of which that is news."""
        news = count - self._first
        if round_ != self._round or not 0 < news <= self._sent:
            return []
        rows = [self._rows.popleft() for _ in range(news)]
        size = sum(len(row.data) for row in rows)
        self._first += news
        self._sent -= news
        self._sent_bytes -= size
        self._bytes -= size
        self._stall_at = now + self._config.stall_s if self._sent else inf
        self._pause_s = self._config.retry_s
        return rows

    def on_refused(self, round_: bytes, now: float) -> None:
        """The peer takes nothing more of the round."""
        if round_ == self._round and self.stage is Stage.OPEN:
            self.stage = Stage.PAUSED
            self._pause(now)

    def on_deleted(self, round_: bytes, upto: int, count: int) -> None:
        """`count` messages are off the disk: with them all of the first `upto` of that round."""
        self.count -= count
        if round_ == self._round:
            self._settled = max(self._settled, upto)

    def on_timer(self, now: float) -> bool:
        """The `deadline` has come. True: call the peer, there is no link to it."""
        if now < self.deadline:
            return False
        if self.stage is Stage.AWAY:
            self._wake_at = now + self._config.retry_max_s  # if nobody tells what came of it
            return True
        self.stage = Stage.OPEN
        self._begin()
        return False

    # --- drains ---

    @property
    def position(self) -> tuple[bytes, int]:
        """The round, and how many of it are acknowledged."""
        return self._round, self._first

    def take(self, now: float, now_ms: int) -> Parcel | None:
        """The next one to send; None: nothing, or nothing now. What is over is left out."""
        config = self._config
        while self.stage is Stage.OPEN and self._sent < len(self._rows):
            row = self._rows[self._sent]
            if row.expires_ms <= now_ms:
                del self._rows[self._sent]
                self._bytes -= len(row.data)
                continue
            size = self._sent_bytes + len(row.data)
            if self._sent and (self._sent >= config.window_messages or size > config.window_bytes):
                return None
            self._sent += 1
            self._sent_bytes = size
            if self._stall_at == inf:
                self._stall_at = now + config.stall_s
            return Parcel(self._round, self._first + self._sent - 1, row.id, row.expires_ms, row.data)
        return None

    def take_load(self) -> Load | None:
        """What is wanted from the disk."""
        if self.stage is not Stage.OPEN or not self._on_disk or self._loading:
            return None
        if len(self._rows) * 2 > self._config.window_messages or self._bytes * 2 > self._config.window_bytes:
            return None
        self._loading = True
        return Load(self._last, self._config.window_messages, self._life)

    def take_settled(self) -> Settled | None:
        """What the peer may forget, if it has not been told."""
        if self._settled <= self._told_settled or self.stage not in (Stage.OPEN, Stage.PAUSED):
            return None
        self._told_settled = self._settled
        return Settled(self._round, self._settled)

    # --- inside ---

    def _is_full(self) -> bool:
        return len(self._rows) >= 2 * self._config.window_messages or self._bytes >= 2 * self._config.window_bytes

    def _add(self, row: Row) -> None:
        self._rows.append(row)
        self._bytes += len(row.data)
        self._last = row.number

    def _begin(self) -> None:
        self._round = self._rng.randbytes(8)
        self._first = self._sent = self._sent_bytes = 0
        self._told_settled = self._settled = 0
        self._stall_at = inf

    def _forget(self) -> None:
        """Nothing is in memory any more: what the round holds will be asked for again."""
        self._rows.clear()
        self._bytes = self._sent = self._sent_bytes = self._last = 0
        self._round = b""
        self._stall_at = inf
        self._on_disk = self.count > 0
        self._loading = self._came_meanwhile = False
        self._life += 1

    def _pause(self, now: float) -> None:
        self._wake_at = now + self._pause_s
        self._pause_s = min(self._config.retry_max_s, self._pause_s * 2)
