"""One end of one stream: what waits to be sent, what waits to be read, the credit for both. No I/O, no clock.

sending     write()* ─▶ finish() ─▶ END is taken ─▶ all is acknowledged
receiving   on_data()* ─▶ on_end()
both        fail(): the rest of either direction does not come; what was received before an END can still be read
"""

from collections import deque
from typing import Final

from dht_atonce.errors import AtOnceError
from dht_atonce.streams.wire import FIRST_CREDIT

__all__ = ["Flow", "Why"]

Why = tuple[type[AtOnceError], str]

_SMALL: Final = 1024
_MERGED: Final = 8192
"""What is small is put to what came before it, up to here: else two bytes that wait would take sixty."""


class Flow:
    """A stream as one of its ends knows it."""

    __slots__ = (
        "_chunks",
        "_offset",
        "_pieces",
        "consumed",
        "end_sent",
        "error",
        "finished",
        "has_ended",
        "in_turn",
        "is_open",
        "is_ours",
        "name",
        "number",
        "receive_limit",
        "received",
        "send_limit",
        "sent",
        "short_on_way",
        "undelivered",
        "unsettled",
        "waiting",
    )

    def __init__(self, number: int, name: str, *, is_ours: bool) -> None:
        self.number = number
        self.name = name
        self.is_ours = is_ours
        """We opened it."""
        self.is_open = not is_ours
        """The other side has heard of it."""
        self.error: Why | None = None
        """Why it is over before its end."""
        self._pieces: deque[memoryview] = deque()
        self.waiting = 0
        """Bytes that were written and not taken yet."""
        self.undelivered = 0
        """Bytes that were written and are not acknowledged; after a failure, those that were not."""
        self.sent = 0
        self.send_limit = FIRST_CREDIT
        self.finished = False
        """Nothing more will be written."""
        self.end_sent = False
        self.unsettled = 0
        """Messages that were taken and are not acknowledged."""
        self.short_on_way = 0
        """Of those the ones that were not full chunks."""
        self.in_turn = False
        """It is in the mux's round."""
        self._chunks: deque[bytes] = deque()
        self._offset = 0
        """What of the first chunk was read."""
        self.received = self.consumed = 0
        self.receive_limit = FIRST_CREDIT
        self.has_ended = False
        """The other side sends nothing more."""

    # --- getters ---

    @property
    def readable(self) -> int:
        """Bytes that can be read."""
        return self.received - self.consumed

    @property
    def may_send(self) -> bool:
        """Whether it has something to send, and credit for it."""
        if self.error is not None or self.end_sent:
            return False
        return self.sent < self.send_limit if self.waiting else self.finished

    @property
    def is_drained(self) -> bool:
        """Whether all that was written is acknowledged."""
        return not self.waiting and not self.unsettled and self.end_sent == self.finished

    @property
    def is_over(self) -> bool:
        """Whether nothing will be said in it any more."""
        return self.error is not None or (self.end_sent and not self.unsettled and self.has_ended)

    # --- commands ---

    def write(self, data: bytes) -> None:
        """Have `data` sent, after all before it."""
        if data:
            if len(data) < _SMALL and self._pieces and len(self._pieces[-1]) < _MERGED:
                self._pieces[-1] = memoryview(bytes(self._pieces[-1]) + data)
            else:
                self._pieces.append(memoryview(data))
            self.waiting += len(data)
            self.undelivered += len(data)

    def finish(self) -> None:
        """Nothing more will be written."""
        self.finished = True

    def read(self, most: int) -> bytes:
        """At least one byte of what came and at most `most`; b"" if there is none."""
        if not self._chunks or most <= 0:
            return b""
        chunk, offset = self._chunks[0], self._offset
        if len(chunk) - offset <= most:
            self._chunks.popleft()
            self._offset = 0
            data = chunk[offset:] if offset else chunk
        else:
            self._offset = offset + most
            data = chunk[offset : self._offset]
        self.consumed += len(data)
        return data

    def fail(self, why: Why) -> None:
        """It is over. What came before an END stays to be read; else nobody shall take a part for the whole."""
        if self.error is None:
            self.error = why
            self._pieces.clear()
            self.waiting = 0
            if not self.has_ended:
                self._chunks.clear()
                self._offset = 0
                self.consumed = self.received

    # --- inputs ---

    def on_data(self, data: bytes) -> bool:
        """More came. False: it had no right to."""
        if self.has_ended or self.received + len(data) > self.receive_limit:
            return False
        self.received += len(data)
        if len(data) < _SMALL and self._chunks and len(self._chunks[-1]) < _MERGED:
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
        return True

    def on_credit(self, limit: int) -> None:
        """The other side takes so many bytes in all."""
        self.send_limit = max(self.send_limit, limit)

    def on_end(self) -> None:
        """The other side sends nothing more."""
        self.has_ended = True

    # --- drains ---

    def take(self, most: int) -> tuple[list[memoryview], int]:
        """The next bytes to send, as far as there is credit, in pieces, and how many they are."""
        count = size = min(most, self.waiting, self.send_limit - self.sent)
        self.waiting -= count
        self.sent += count
        taken: list[memoryview] = []
        while count:
            piece = self._pieces[0]
            if len(piece) <= count:
                self._pieces.popleft()
                taken.append(piece)
                count -= len(piece)
            else:
                taken.append(piece[:count])
                self._pieces[0] = piece[count:]
                count = 0
        return taken, size

    def grant(self, window: int) -> int | None:
        """The limit to tell the other side, when its writer is to have `window` bytes of credit; None: what it knows
        is near enough."""
        limit = self.consumed + window
        if self.has_ended or self.error is not None or limit - self.receive_limit < max(1, window // 4):
            return None
        self.receive_limit = limit
        return limit
