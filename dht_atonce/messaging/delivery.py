"""Delivery between two peers: sequence numbers, cumulative acknowledgements, retransmission, duplicates.

Sequence numbers belong to the pair and its two incarnations, not to a link. Whoever comes back over a new link goes
on where it was; whoever comes back as a new process begins at 1, and what was unacknowledged towards its old one has
an unknown outcome.

One `Delivery` is one side of one pair. No I/O, no clock: `now` is monotonic seconds.

    push ──▶ waiting ──take_frame()──▶ unacked ──ack──▶ DELIVERED
                │ abandon()                │ new incarnation, or given up
                ▼                          ▼
             dropped                    UNKNOWN
"""

from collections import deque
from enum import Enum
from typing import NamedTuple

from dht_atonce.config import MessagingConfig
from dht_atonce.messaging.frames import Frame, Hello, MessageFrame

__all__ = ["Delivery", "Memory", "Outcome", "Outgoing", "Settled"]

_MAX_SEQ = 1 << 63  # no pair gets there; a stranger who claims to be beyond must not make us count past 64 bits


class Outcome(Enum):
    """How it went with a message that left `waiting`."""

    DELIVERED = "delivered"
    """It is in the receiver's queue."""
    UNKNOWN = "unknown"
    """It was sent to a process that is gone: it may or may not have been in that one's queue."""


class Outgoing:
    """A message on its way. `was_sent`: it went over some link, so its outcome is unknown until it is acknowledged."""

    __slots__ = ("data", "was_sent")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.was_sent = False


class Settled(NamedTuple):
    """A message whose outcome is known to be this."""

    message: Outgoing
    outcome: Outcome


class Memory(NamedTuple):
    """Where an idle pair stands."""

    their_incarnation: bytes
    base: int
    expected: int


class Delivery:
    """One side of the pair of ourselves and one peer."""

    def __init__(self, config: MessagingConfig, own_incarnation: bytes, memory: "Memory | None" = None) -> None:
        self._config = config
        self._own_incarnation = own_incarnation
        self.their_incarnation = memory.their_incarnation if memory else b""
        """8 B once a HELLO was heard."""
        # Sending: unacked[i] has the sequence number base + i; those before _next_index were sent over the present
        # link.
        self._waiting: deque[Outgoing] = deque()
        self._unacked: deque[Outgoing] = deque()
        self._unacked_bytes = 0
        self._base = memory.base if memory else 1
        self._next_index = 0
        self._probing = False
        self._retransmit_s = config.retransmit_s
        self._retransmit_at: float | None = None
        # Receiving
        self._expected = memory.expected if memory else 1
        self._ack_due = False

    # --- getters ---

    @property
    def queued(self) -> int:
        """Messages that are not acknowledged."""
        return len(self._waiting) + len(self._unacked)

    @property
    def has_unsent(self) -> bool:
        return bool(self._waiting)

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is to be called; None: nothing is due."""
        return self._retransmit_at

    def memory(self) -> Memory:
        """What has to be remembered when all else is forgotten; only of a pair with nothing queued."""
        return Memory(self.their_incarnation, self._base, self._expected)

    def hello(self, record: bytes) -> Hello:
        """The HELLO with which we greet, as far as we remember the other."""
        if not self.their_incarnation:
            return Hello(0, record, b"", 0, 0)
        return Hello(0, record, self.their_incarnation, self._base, self._expected)

    # --- commands ---

    def push(self, data: bytes) -> Outgoing:
        """Queue a message. The caller bounds `queued`."""
        message = Outgoing(data)
        self._waiting.append(message)
        return message

    def abandon(self, message: Outgoing) -> bool:
        """Nobody waits for `message` any more. True if it never left and is dropped; otherwise it stays in its place
        in the sequence until it is acknowledged."""
        if message.was_sent or message not in self._waiting:
            return False  # also if it was given back by `give_up` in the same moment
        self._waiting.remove(message)
        return True

    # --- inputs ---

    def on_hello(self, hello: Hello, their_incarnation: bytes) -> list[Settled]:
        """A link passed HELLO. What is unacknowledged will be sent again over it."""
        settled: list[Settled] = []
        if their_incarnation != self.their_incarnation:
            if self.their_incarnation:
                settled = [Settled(message, Outcome.UNKNOWN) for message in self._unacked]
                self._forget()
            self.their_incarnation = their_incarnation
        if hello.yours == self._own_incarnation and 0 < hello.expect < _MAX_SEQ and hello.base < _MAX_SEQ:
            settled += self._on_ack(hello.expect - 1)
            if not self._unacked and hello.expect > self._base:
                self._base = hello.expect  # we had forgotten the pair, the other had not
            self._expected = max(self._expected, hello.base)
        self._next_index = 0
        self._probing = False
        self._retransmit_s = self._config.retransmit_s
        self._retransmit_at = None
        self._ack_due = True
        return settled

    def on_frame(self, frame: MessageFrame, room: int) -> tuple[list[bytes], list[Settled]]:
        """A frame came. Gives the messages that are new, at most `room` of them, and what was settled.

        What finds no room is not acknowledged, and the sender will send it again.
        """
        settled = self._on_ack(frame.ack) if frame.ack else []
        accepted: list[bytes] = []
        if frame.messages:
            self._ack_due = True
            # A gap: what lies in it found no room earlier and comes again, and so will this.
            if frame.seq0 <= self._expected:
                accepted = frame.messages[self._expected - frame.seq0 :][: max(0, room)]
                self._expected += len(accepted)
        return accepted, settled

    def on_timer(self, now: float) -> None:
        """The retransmission time has come: send the first frame again, to see whether the other takes it."""
        if self._retransmit_at is None or now < self._retransmit_at:
            return
        self._next_index = 0
        self._probing = True
        self._retransmit_s = min(self._config.retransmit_max_s, self._retransmit_s * 2)
        self._retransmit_at = None

    def on_link_lost(self) -> None:
        """There is no link any more: nothing is sent again before the next HELLO."""
        self._retransmit_at = None

    def give_up(self) -> list[Outgoing]:
        """The peer cannot be reached: all that never left is dropped, and given back."""
        dropped = list(self._waiting)
        self._waiting.clear()
        return dropped

    # --- drain ---

    def take_frame(self, now: float) -> Frame | None:
        """The next frame to send, None if there is none. Acknowledgements ride along or go alone."""
        config = self._config
        if self._next_index and self._retransmit_at is None:
            self._retransmit_at = now + self._retransmit_s
        if self._probing and self._next_index:
            return self._ack_only()
        messages: list[bytes] = []
        size = 0
        seq0 = self._base + self._next_index
        while len(messages) < config.frame_messages:
            if self._next_index == len(self._unacked) and not self._refill():
                break
            data = self._unacked[self._next_index].data
            if messages and size + len(data) + 5 > config.frame_bytes:
                break
            messages.append(data)
            size += len(data) + 5
            self._next_index += 1
        if not messages:
            return self._ack_only()
        self._ack_due = False
        if self._retransmit_at is None:
            self._retransmit_at = now + self._retransmit_s
        return Frame(0, seq0, self._expected - 1, messages, [])

    # --- inside ---

    def _refill(self) -> bool:
        """Move one message from waiting into the window, if there is one and it fits."""
        if not self._waiting or self._probing or len(self._unacked) >= self._config.window_messages:
            return False
        size = len(self._waiting[0].data)
        if self._unacked and self._unacked_bytes + size > self._config.window_bytes:
            return False
        message = self._waiting.popleft()
        message.was_sent = True
        self._unacked.append(message)
        self._unacked_bytes += size
        return True

    def _ack_only(self) -> Frame | None:
        if not self._ack_due:
            return None
        self._ack_due = False
        return Frame(0, 0, self._expected - 1, [], [])

    def _on_ack(self, ack: int) -> list[Settled]:
        count = ack - self._base + 1
        if count <= 0 or count > len(self._unacked):
            return []  # old news, or an acknowledgement of what was never sent
        settled = []
        for _ in range(count):
            message = self._unacked.popleft()
            self._unacked_bytes -= len(message.data)
            settled.append(Settled(message, Outcome.DELIVERED))
        self._base += count
        self._next_index = max(0, self._next_index - count)
        self._probing = False
        self._retransmit_s = self._config.retransmit_s
        self._retransmit_at = None
        return settled

    def _forget(self) -> None:
        self._unacked.clear()
        self._unacked_bytes = 0
        self._base = 1
        self._expected = 1
