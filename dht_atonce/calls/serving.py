"""Requests of others that hold room here. No I/O, no clock: `now` is monotonic seconds.

    begin ──▶ running ──reply()──▶ replied ──on_taken()──▶ gone
                 │ on_cancel()    whoever asked does not wait any more
                 │ due()          its time is over, or the link to who asked is gone for too long
                 │ on_linked()    who asked was started again
                 ▼
             cancelled ──on_ended()──▶ gone

A request holds its room until its reply is acknowledged: so who reads no replies has nothing carried out any more. And
one that was cancelled holds it until its handler has ended, as handlers may refuse to be cancelled.

A sender may hold as much as is left free (dynamic thresholds, Choudhury and Hahne 1998, as in the inbox): one that asks
all it can holds half of all, and others still find room.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any

from dht_atonce.calls.deadlines import Deadlines
from dht_atonce.config import CallConfig
from dht_atonce.identity import PeerId

__all__ = ["Refusal", "Running", "Serving"]


class Refusal(Enum):
    """Why a request is not carried out."""

    BUSY = "busy"
    DOUBLED = "doubled"
    """Another one of this number is being carried out: the sender breaks the rules."""


class Running:
    """One request that holds room."""

    __slots__ = ("deadline", "id", "is_cancelled", "is_replied", "of", "sender", "task")

    def __init__(self, sender: PeerId, of: "_Sender", number: int, deadline: float) -> None:
        self.sender = sender
        self.of = of
        self.id = number
        self.deadline = deadline
        self.is_cancelled = False
        """There is nobody to reply to."""
        self.is_replied = False
        self.task: Any = None
        """The shell's."""


class _Sender:
    __slots__ = ("held", "incarnation", "is_gone", "running")

    def __init__(self, incarnation: bytes) -> None:
        self.incarnation = incarnation
        self.is_gone = False
        """There is no link to it."""
        self.running: dict[int, Running] = {}
        self.held = 0
        """Requests, with those that were replied to and not acknowledged or cancelled and not ended."""


class Serving:
    """The table of requests."""

    def __init__(self, config: CallConfig) -> None:
        self._config = config
        self._senders: dict[PeerId, _Sender] = {}
        self._deadlines: Deadlines[Running] = Deadlines()
        self.held = 0
        """Requests that hold room, of all senders."""

    @property
    def deadline(self) -> float:
        """When `due` is to be called; inf: never."""
        return self._deadlines.next

    def held_by(self, peer_id: PeerId) -> int:
        """Requests of one sender that hold room."""
        sender = self._senders.get(peer_id)
        return sender.held if sender is not None else 0

    # --- commands ---

    def begin(
        self, peer_id: PeerId, number: int, deadline: float, incarnation: Callable[[], bytes]
    ) -> Running | Refusal:
        """A request came from `peer_id`: find room for it. If it is the only one, `incarnation` is asked whose process
        it came from."""
        config = self._config
        sender = self._senders.get(peer_id)
        held = sender.held if sender is not None else 0
        if sender is not None and number in sender.running:
            return Refusal.DOUBLED
        if held >= min(config.max_running_per_sender, config.max_running - self.held):
            return Refusal.BUSY
        if sender is None:
            sender = self._senders[peer_id] = _Sender(incarnation())
        running = sender.running[number] = Running(peer_id, sender, number, deadline)
        sender.held += 1
        self.held += 1
        self._deadlines.set(running, deadline)
        return running

    def reply(self, running: Running) -> None:
        """Its reply is on its way."""
        running.is_replied = True
        self._stop(running)

    # --- inputs ---

    def on_taken(self, running: Running) -> None:
        """Its reply was acknowledged, or given up."""
        self._free(running)

    def on_ended(self, running: Running) -> None:
        """Its handler has ended; if there was a reply, that still holds the room."""
        if not running.is_replied:
            self._stop(running)
            self._free(running)

    def on_cancel(self, peer_id: PeerId, number: int) -> Running | None:
        """Whoever asked does not wait any more. Gives what to cancel; None: it has ended, or never was."""
        sender = self._senders.get(peer_id)
        running = sender.running.get(number) if sender is not None else None
        if running is not None:
            self._cancel(running)
        return running

    def on_linked(self, peer_id: PeerId, incarnation: bytes) -> list[Running]:
        """There is a link to this process of the peer. Gives what to cancel: all that an earlier process asked for."""
        sender = self._senders.get(peer_id)
        if sender is None:
            return []
        is_new = sender.incarnation != incarnation
        sender.incarnation, sender.is_gone = incarnation, False
        if not is_new:
            for running in sender.running.values():
                self._deadlines.set(running, running.deadline)
            return []
        over = list(sender.running.values())
        for running in over:
            self._cancel(running)
        return over

    def on_unlinked(self, peer_id: PeerId, now: float, *, for_good: bool) -> None:
        """The link is gone; it may come back, unless it is gone `for_good`: then all is due now. Said again when it
        could not be had: that gives no more time."""
        sender = self._senders.get(peer_id)
        if sender is None or (sender.is_gone and not for_good):
            return
        sender.is_gone = True
        ends = now if for_good else now + self._config.lost_link_s
        for running in sender.running.values():
            self._deadlines.set(running, min(running.deadline, ends))

    def due(self, now: float) -> list[Running]:
        """Gives what to cancel: whose time is over, or whose sender is lost."""
        over = self._deadlines.due(now)
        for running in over:
            self._cancel(running)
        return over

    # --- inside ---

    def _cancel(self, running: Running) -> None:
        running.is_cancelled = True
        self._stop(running)

    def _stop(self, running: Running) -> None:
        self._deadlines.drop(running)
        of_sender = running.of.running
        if of_sender.get(running.id) is running:  # its number may be another's by now
            del of_sender[running.id]

    def _free(self, running: Running) -> None:
        running.of.held -= 1
        self.held -= 1
        if not running.of.held:
            del self._senders[running.sender]
