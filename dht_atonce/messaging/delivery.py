"""Delivery between two peers: one side of one pair. No I/O, no clock: `now` is monotonic seconds.

Sequence numbers belong to the pair and its two incarnations, not to a link. Whoever comes back over a new link goes
on where it was; whoever comes back as a new process begins at 1, and what was unacknowledged towards its old one has
an unknown outcome.
"""

from typing import NamedTuple

from dht_atonce.config import MessagingConfig
from dht_atonce.messaging.frames import Frame, Held, Hello, Window
from dht_atonce.messaging.inflow import Inflow, Room, Taken
from dht_atonce.messaging.outflow import Outflow
from dht_atonce.messaging.receipts import Batch

__all__ = ["Delivery", "Memory"]

_MAX_SEQ = 1 << 63  # no pair gets there; a stranger who claims to be beyond must not make us count past 64 bits


class Memory(NamedTuple):
    """Where an idle pair stands."""

    their_incarnation: bytes
    base: int
    expected: int


class Delivery:
    """One side of the pair of ourselves and one peer."""

    __slots__ = ("_own_incarnation", "inflow", "outflow", "their_incarnation")

    def __init__(self, config: MessagingConfig, own_incarnation: bytes, memory: Memory | None = None) -> None:
        self._own_incarnation = own_incarnation
        self.their_incarnation = memory.their_incarnation if memory else b""
        """8 B once a HELLO was heard."""
        self.outflow = Outflow(config, memory.base if memory else 1)
        self.inflow = Inflow(config, memory.expected if memory else 1)

    @property
    def is_idle(self) -> bool:
        """Whether `memory` is all that has to be remembered."""
        return not self.outflow.queued

    def memory(self) -> Memory:
        """What has to be remembered when all else is forgotten; only of a pair with nothing queued."""
        return Memory(self.their_incarnation, self.outflow.base, self.inflow.expected)

    def hello(self, record: bytes) -> Hello:
        """The HELLO with which we greet, as far as we remember the other."""
        if not self.their_incarnation:
            return Hello(0, record, b"", 0, 0)
        return Hello(0, record, self.their_incarnation, self.outflow.base, self.inflow.ack + 1)

    # --- inputs ---

    def on_hello(self, hello: Hello, their_incarnation: bytes) -> list[Batch]:
        """A link passed HELLO. What is unacknowledged will be sent again over it. Gives the batches that it settled."""
        settled: list[Batch] = []
        outflow, inflow = self.outflow, self.inflow
        if their_incarnation != self.their_incarnation:
            if self.their_incarnation:
                settled = outflow.lose("the other side was started again before an acknowledgement came")
                inflow.restart()
            self.their_incarnation = their_incarnation
        if hello.yours == self._own_incarnation and 0 < hello.expect < _MAX_SEQ and hello.base < _MAX_SEQ:
            settled += outflow.on_ack(hello.expect - 1)
            outflow.skip_to(hello.expect)
            inflow.skip_to(hello.base)
        self.on_switched()
        return settled

    def on_switched(self) -> None:
        """Another link that passed HELLO is used from now on; what was said over the last one may be lost."""
        self.outflow.rewind()
        self.inflow.untell()

    def on_frame(self, frame: Frame, room: Room) -> tuple[list[Taken], list[Batch]]:
        """A frame came. Gives what is new, as far as there is room for it, and the batches that it settled."""
        outflow = self.outflow
        settled = outflow.on_ack(frame.ack) if frame.ack >= outflow.base else []
        held: Held | None = None
        for special in frame.specials:
            if isinstance(special, Window):
                outflow.on_limit(min(special.limit, _MAX_SEQ))
            elif isinstance(special, Held):
                held = special  # one names all that there is
        if held is not None:
            outflow.on_held(held.ranges)
        if not frame.messages or frame.seq0 >= _MAX_SEQ:
            return [], settled
        taken = self.inflow.on_messages(frame.kind, frame.seq0, frame.messages, room, frame.unhurried)
        return taken, settled

    # --- drain ---

    def take_frame(self, now: float, room: int | None = None) -> Frame | None:
        """The next frame to send, None if there is none. Acknowledgements and the `room` that we have (None: as told)
        ride along or go alone."""
        inflow = self.inflow
        batch = self.outflow.take(now)
        limit = inflow.limit(room) if room is not None else None
        specials: list[Held | Window] = [] if limit is None else [Window(limit)]
        if inflow.ack_due:
            if inflow.behind_gap:
                specials.append(Held(inflow.held))
            inflow.tell()
        elif batch is None and limit is None:
            return None
        ack = inflow.expected - 1
        if batch is None:
            return Frame(0, 0, ack, [], specials)
        settled = batch.settled
        messages = batch.messages[settled:] if settled else batch.messages
        return Frame(batch.kind, batch.seq0 + settled, ack, messages, specials, batch.unhurried)

    def untake_frame(self, frame: Frame) -> None:
        """`frame`, just taken, could not be sent."""
        if frame.messages:
            self.outflow.untake()
        self.inflow.untell()
