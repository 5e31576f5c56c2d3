"""Requests of ours that wait for their replies. No I/O, no clock: `now` is monotonic seconds.

    begin ──▶ waiting ──on_reply()──▶ answered
                 │ due()          time is over
                 │ on_linked()    the other side was started again, or does not answer requests
                 │ on_unlinked()  the request was not sent, or the other side is lost
                 ▼
               ended

What became of the request itself its receipt knows. So nobody waits for that: it is looked at when a link comes or
goes, which is when receipts are settled otherwise than by an acknowledgement.
"""

from typing import Any

from dht_atonce.calls.deadlines import Deadlines
from dht_atonce.config import CallConfig
from dht_atonce.errors import AtOnceError, DeliveryUnknown, NotSupported, RequestLost
from dht_atonce.identity import PeerId
from dht_atonce.messaging.receipts import Receipt, State

__all__ = ["Asked", "Asking"]


class Asked:
    """One request."""

    __slots__ = ("callee", "deadline", "id", "receipt", "to", "waiter")

    def __init__(self, number: int, to: PeerId, callee: "_Callee", deadline: float, waiter: Any) -> None:
        self.id = number
        self.to = to
        self.callee = callee
        self.deadline = deadline
        self.waiter = waiter
        """The shell's."""
        self.receipt: Receipt | None = None
        """Set once it is queued."""

    @property
    def state(self) -> State:
        """Of the request on its way."""
        return self.receipt.state if self.receipt is not None else State.QUEUED

    def error(self) -> AtOnceError | None:
        """What its receipt says against it: it was not sent, or its outcome is unknown."""
        error = self.receipt.batch.error(self.receipt.index) if self.receipt is not None else None
        return RequestLost(f"{error}; it may have been carried out") if isinstance(error, DeliveryUnknown) else error


class _Callee:
    __slots__ = ("asked", "incarnation", "returning")

    def __init__(self) -> None:
        self.asked: dict[int, Asked] = {}
        self.incarnation = b""
        """Of the process that we had a link to last; empty: there was none."""
        self.returning = False
        """The link is gone, and we try to have another."""


Over = list[tuple[Asked, AtOnceError]]


class Asking:
    """The table of requests. Ids begin at `first_id`, a random one: a reply that was meant for an earlier process of
    ours must not be taken for one of this process's."""

    def __init__(self, config: CallConfig, first_id: int) -> None:
        self._config = config
        self._next_id = first_id
        self._asked: dict[int, Asked] = {}
        self._callees: dict[PeerId, _Callee] = {}
        self._deadlines: Deadlines[int] = Deadlines()

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def is_full(self) -> bool:
        """Whether no more may be asked now."""
        return len(self._asked) >= self._config.max_outstanding

    @property
    def deadline(self) -> float:
        """When `due` is to be called; inf: never."""
        return self._deadlines.next

    # --- commands ---

    def begin(self, to: PeerId, incarnation: bytes, deadline: float, waiter: Any) -> Asked:
        """Ask `to`, to whose process `incarnation` there is a link (empty: there is none)."""
        callee = self._callees.get(to)
        if callee is None:
            callee = self._callees[to] = _Callee()
            callee.incarnation = incarnation
        asked = Asked(self._next_id, to, callee, deadline, waiter)
        self._next_id += 1
        self._asked[asked.id] = asked
        callee.asked[asked.id] = asked
        self._deadlines.set(asked.id, deadline)
        return asked

    def end(self, asked: Asked) -> bool:
        """Nobody waits for it any more. False: it has ended already."""
        if self._asked.pop(asked.id, None) is None:
            return False
        self._deadlines.drop(asked.id)
        del asked.callee.asked[asked.id]
        if not asked.callee.asked:
            del self._callees[asked.to]
        return True

    def end_all(self) -> list[Asked]:
        """Nobody waits for anything any more."""
        ended = list(self._asked.values())
        for asked in ended:
            self.end(asked)
        return ended

    # --- inputs ---

    def on_reply(self, sender: PeerId, number: int) -> Asked | None:
        """A reply came. None: to nothing that we asked of this sender and still wait for."""
        asked = self._asked.get(number)
        if asked is None or asked.to != sender:
            return None
        self.end(asked)
        return asked

    def on_linked(self, peer_id: PeerId, incarnation: bytes, answers: bool) -> Over:
        """There is a link to this process of the peer; `answers`: it answers requests. What has not left may still be
        withdrawn."""
        callee = self._callees.get(peer_id)
        if callee is None:
            return []
        is_new = callee.incarnation not in (b"", incarnation)
        callee.incarnation, callee.returning = incarnation, False
        ended: Over = []
        for asked in callee.asked.values():
            error = asked.error()
            if error is None and is_new and asked.state is State.DELIVERED:
                text = "was started again before it replied; the request may have been carried out"
                error = RequestLost(f"{peer_id.short}… {text}")
            elif error is None and not answers:
                error = NotSupported(f"the program of {peer_id.short}… does not answer requests")
            if error is not None:
                ended.append((asked, error))
        return self._ended(ended)

    def on_unlinked(self, peer_id: PeerId, reason: str) -> tuple[Over, bool]:
        """The link is gone, or could not be had. Gives what ended by it, and whether to try for a link: the other side
        has requests of ours, and may not be able to dial us."""
        callee = self._callees.get(peer_id)
        if callee is None:
            return [], False
        ended: Over = []
        for asked in callee.asked.values():
            error = asked.error()
            if error is None and callee.returning and asked.state is State.DELIVERED:
                text = f"{peer_id.short}… was lost before it replied ({reason}); the request may have been carried out"
                error = RequestLost(text)
            if error is not None:
                ended.append((asked, error))
        self._ended(ended)
        callee.returning = bool(callee.asked)
        return ended, callee.returning

    def due(self, now: float) -> list[Asked]:
        """Those whose time is over, the earliest first; they have ended."""
        late = [self._asked[number] for number in self._deadlines.due(now)]
        for asked in late:
            self.end(asked)
        return late

    # --- inside ---

    def _ended(self, ended: Over) -> Over:
        for asked, _ in ended:
            self.end(asked)
        return ended
