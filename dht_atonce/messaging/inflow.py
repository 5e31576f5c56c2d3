"""The receiving half of a delivery: order, duplicates, acknowledgements, how much room is told. No I/O, no clock."""

from collections.abc import Callable, Sequence

import msgspec

from dht_atonce.config import MessagingConfig

__all__ = ["Inflow", "Room", "Taken"]

Messages = Sequence[bytes | None]
Room = Callable[[int], int]
"""How many more messages of a kind find room now."""


class Taken(msgspec.Struct, frozen=True, gc=False):
    """Messages of one kind that are new, in order; withdrawn ones are left out."""

    kind: int
    messages: list[bytes]


class Inflow:
    """What comes from one peer. `expected` is the next number to be taken.

    What comes behind a gap is held, up to a bound, and named to the sender, who need not send it again. What finds no
    room is not taken, so it is not acknowledged and comes again.
    """

    __slots__ = (
        "_config",
        "_held_bytes",
        "_must_tell",
        "_untold",
        "ack_due",
        "ack_is_urgent",
        "behind_gap",
        "expected",
        "told",
    )

    def __init__(self, config: MessagingConfig, expected: int = 1) -> None:
        self._config = config
        self.expected = expected
        self.ack_due = False
        """Something came that the sender has to hear of."""
        self.ack_is_urgent = False
        """And at once, for somebody waits for it, or may do something about it."""
        self._untold = 0
        """Frames of which the sender has not heard."""
        self.behind_gap: dict[int, tuple[int, Messages]] = {}
        """What is held, by first number: kind and messages."""
        self._held_bytes = 0
        self._must_tell = False
        """The sender has to hear of the room, even if there is none."""
        self.told = expected - 1 + config.first_window
        """The highest number for which the sender was told that there is room."""

    @property
    def ack(self) -> int:
        """All up to it is acknowledged."""
        return self.expected - 1

    @property
    def held(self) -> list[tuple[int, int]]:
        """(first, count) of what waits behind gaps, at most 16 of them."""
        return [(first, len(messages)) for first, (_, messages) in sorted(self.behind_gap.items())[:16]]

    def on_messages(self, kind: int, seq0: int, messages: Messages, room: Room, unhurried: bool = False) -> list[Taken]:
        """Messages came, with numbers from `seq0` on."""
        if not messages:
            return []
        self.ack_due = True
        if seq0 == self.expected and not self.behind_gap and len(messages) <= room(kind) and None not in messages:
            self.expected = seq0 + len(messages)  # all but always
            self._untold += 1
            if not unhurried or self._untold >= self._config.ack_frames:
                self.ack_is_urgent = True
            return [Taken(kind, messages)]  # type: ignore[arg-type]
        self.ack_is_urgent = True  # a gap, a repetition, or no room, all but always: what the sender wants to know
        if seq0 > self.expected:
            self._hold(kind, seq0, messages)
            return []
        taken: list[Taken] = []
        self._take(kind, seq0, messages, room, taken)
        while self.behind_gap and (first := min(self.behind_gap)) <= self.expected:
            kind, messages = self.behind_gap[first]
            self._take(kind, first, messages, room, taken)
            if self.expected < first + len(messages):
                break  # no room: it was named to the sender, so it is kept
            self._held_bytes -= _size(self.behind_gap.pop(first)[1])
        return taken

    def limit(self, room: int) -> int | None:
        """The highest number for which there is room, if the sender should hear of it; to be sent when it is given."""
        limit = max(0, self.expected - 1 + room)
        more = limit - self.told
        if not self._must_tell and (more < 1 or (more < self._config.window_step and more < room // 2)):
            return None
        self.told, self._must_tell = limit, False
        return limit

    def tell(self) -> None:
        """The sender is told now."""
        self.ack_due = self.ack_is_urgent = False
        self._untold = 0

    def untell(self) -> None:
        """What was last said may not have been heard: it is to be said again."""
        self.ack_due = self.ack_is_urgent = self._must_tell = True
        self.told = self.expected - 1

    def skip_to(self, base: int) -> None:
        """The sender never sends anything below `base` again."""
        if base > self.expected:
            self.expected = base
            self._forget_old()

    def restart(self) -> None:
        """The sender is a new process: numbers begin at 1 again."""
        self.behind_gap.clear()
        self._held_bytes = 0
        self.expected = 1
        self.told = self._config.first_window

    # --- inside ---

    def _take(self, kind: int, seq0: int, messages: Messages, room: Room, taken: list[Taken]) -> None:
        skip = self.expected - seq0
        if skip >= len(messages) or skip < 0:
            return
        new = messages[skip:] if skip else messages
        count = max(0, room(kind) - sum(len(one.messages) for one in taken if one.kind == kind))
        if count < len(new):
            new = new[:count]
        if new:
            whole = [message for message in new if message is not None] if None in new else new
            if whole:
                taken.append(Taken(kind, whole))  # type: ignore[arg-type]
            self.expected += len(new)

    def _hold(self, kind: int, seq0: int, messages: Messages) -> None:
        size = _size(messages)
        if (
            seq0 not in self.behind_gap
            and len(self.behind_gap) < self._config.max_held
            and self._held_bytes + size <= self._config.window_bytes
        ):
            # Views would keep all of their frame, whatever else it held.
            self.behind_gap[seq0] = (kind, [one if one is None else bytes(one) for one in messages])
            self._held_bytes += size

    def _forget_old(self) -> None:
        held = self.behind_gap.items()
        for first in [first for first, (_, messages) in held if first + len(messages) <= self.expected]:
            self._held_bytes -= _size(self.behind_gap.pop(first)[1])


def _size(messages: Messages) -> int:
    return sum(len(message) if message is not None else 1 for message in messages)
