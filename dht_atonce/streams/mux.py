"""The streams of ourselves and one peer: who may send next, who gets credit, what a stranger may not. No I/O, no clock.

Streams take turns, a chunk each, while the pace lets anything go; what is not data goes before all data. A stream
without credit is not in the round, so a slow reader slows its own writer only. Of each stream one chunk that is not
full is on its way at most (Minshall's form of Nagle's rule, RFC 896): small writes in a row go together.
"""

from collections import Counter, deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from dht_atonce.config import StreamConfig
from dht_atonce.errors import QueueFull, StreamReset
from dht_atonce.streams.flow import Flow, Why
from dht_atonce.streams.pace import Pace
from dht_atonce.streams.wire import (
    FIRST_CREDIT,
    Credit,
    Data,
    End,
    Open,
    Reset,
    ResetCode,
    StreamMessage,
    write_data,
    write_message,
)

__all__ = ["Budget", "Mux", "Post"]

_MAX_REMEMBERED: Final = 64
"""Streams that are over, to whose last pieces nobody answers."""
_WORDS: Final = {
    ResetCode.REFUSED: "the other side did not take the stream",
    ResetCode.UNKNOWN: "the other side has given the stream up",
    ResetCode.BEYOND_CREDIT: "the other side says that we sent more than it allowed",
    ResetCode.CLOSED: "the other side has closed the stream and reads no more",
}


class Budget:
    """What the streams with all peers share."""

    __slots__ = ("_config", "claimed", "streams")

    def __init__(self, config: StreamConfig) -> None:
        self._config = config
        self.streams = 0
        self.claimed = 0
        """Bytes that others may send us, or have sent, and that are not read."""

    @property
    def window(self) -> int:
        """What a stream may have. Half of what is free, so that who comes later finds some too."""
        left = (self._config.buffered_bytes - self.claimed) // 2
        return min(self._config.window_bytes, max(FIRST_CREDIT, left))


class Post(NamedTuple):
    """A message to be posted."""

    data: bytes
    size: int
    """Bytes of the stream in it."""
    flow: Flow | None
    """None: a reply to which nobody listens."""
    is_short: bool = False
    """It was not a full chunk."""


class Mux:
    """All streams with one peer."""

    def __init__(self, config: StreamConfig, budget: Budget, counters: Counter[str], numbers: Iterator[int]) -> None:
        self.flows: dict[tuple[bool, int], Flow] = {}
        """By who opened them (True: we) and number."""
        self.pace = Pace(config)
        self._config = config
        self._budget = budget
        self._counters = counters
        self._numbers = numbers
        self._round: deque[Flow] = deque()
        self._first: deque[Post] = deque()
        """What goes before all data."""
        self._replies = 0
        """Such messages that are not acknowledged."""
        self._remembered: dict[tuple[bool, int], None] = {}

    # --- getters ---

    @property
    def is_idle(self) -> bool:
        """Whether there is no stream, and nothing to be said of one."""
        return not self.flows and not self._first and not self._replies

    @property
    def has_first(self) -> bool:
        """Whether there is something to be said that is not data."""
        return bool(self._first)

    # --- commands ---

    def open(self, name: str) -> Flow:
        """A new stream. Raises `QueueFull`."""
        if not self._has_room():
            raise QueueFull(f"{len(self.flows)} streams with this peer are open, {self._budget.streams} in all")
        flow = self._add(next(self._numbers), name, is_ours=True)
        self._say(Open(0, flow.number, name), flow)
        return flow

    def write(self, flow: Flow, data: bytes) -> None:
        """Have `data` sent."""
        flow.write(data)
        self._enter(flow)

    def finish(self, flow: Flow) -> None:
        """Nothing more will be written."""
        flow.finish()
        self._enter(flow)

    def read(self, flow: Flow, most: int) -> bytes:
        """At most `most` bytes of what came."""
        data = flow.read(most)
        if self.flows.get((flow.is_ours, flow.number)) is flow:
            self._budget.claimed -= len(data)
            self.give_credit(flow)
        return data

    def give_credit(self, flow: Flow) -> None:
        """Let the other side send more, if it is worth a message."""
        told = flow.receive_limit
        if self._replies < self._config.max_replies and (limit := flow.grant(self._budget.window)) is not None:
            self._budget.claimed += limit - told
            self._say(Credit(flow.is_ours, flow.number, limit), flow)

    def reset(self, flow: Flow, code: int, text: str, why: Why) -> None:
        """End it at once, in both directions; `text` is for the other side, `why` for our own."""
        if (flow.is_ours, flow.number) in self.flows:
            self._say(Reset(flow.is_ours, flow.number, code, text[:128]), flow)
            self.drop(flow, why)

    def drop(self, flow: Flow, why: Why) -> None:
        """It is over, and the other side is not told."""
        self._remove(flow)
        flow.fail(why)

    def drop_all(self, why: Why) -> list[Flow]:
        """All are over, and the other side cannot be told: if it ever asks it is answered. Gives them."""
        flows = list(self.flows.values())
        for flow in flows:
            self.drop(flow, why)
        self._remembered.clear()
        return flows

    def restate(self) -> None:
        """There is a new link: whoever has lost a stream meanwhile is to say so."""
        for flow in self.flows.values():
            if self._replies < self._config.max_replies:
                self._say(Credit(flow.is_ours, flow.number, flow.receive_limit), flow)

    # --- inputs ---

    def on_message(self, message: StreamMessage, untaken: int) -> tuple[Flow | None, bool]:
        """A message came while `untaken` streams of this peer wait for the app. Gives the stream that it changed, and
        whether that is new."""
        if isinstance(message, Open):
            return self._on_open(message, untaken)
        key = (not message.mine, message.number)
        flow = self.flows.get(key)
        if flow is None:
            if key not in self._remembered and not isinstance(message, Reset):
                self._counters["streams.unknown"] += 1
                self._remember(key)
                self._refuse(message.mine, message.number, ResetCode.UNKNOWN, "")
            return None, False
        if isinstance(message, Data):
            if not flow.on_data(message.data):
                self._counters["streams.beyond_credit"] += 1
                why = "the other side sent more than it was allowed"
                self.reset(flow, ResetCode.BEYOND_CREDIT, "", (StreamReset, why))
        elif isinstance(message, Credit):
            flow.on_credit(message.limit)
            self._enter(flow)
        elif isinstance(message, End):
            flow.on_end()
            self._remove_if_over(flow)
        else:
            words = _WORDS.get(message.code, "the other side has given the stream up")
            self.drop(flow, (StreamReset, f"{words}: {message.text}" if message.text else words))
        return flow, False

    def on_settled(self, post: Post, took_s: float, now: float) -> None:
        """What was taken is acknowledged, after `took_s`."""
        if post.size:
            self.pace.on_acknowledged(post.size, took_s, now)
            if post.flow is not None and post.flow.error is None:
                post.flow.undelivered -= post.size
        elif post.flow is not None:
            post.flow.is_open = True
        self._settle(post)

    def on_given_up(self, post: Post) -> None:
        """What was taken will not be acknowledged."""
        self.pace.on_lost(post.size)
        self._settle(post)

    # --- drain ---

    def take(self) -> Post | None:
        """What to post next; None: nothing, or nothing that the pace lets go."""
        if self._first:
            return self._first.popleft()
        pace = self.pace
        for _ in range(len(self._round)):
            if not pace.has_room:
                break
            flow = self._round.popleft()
            if flow.short_on_way and 0 < flow.waiting < pace.chunk and not flow.finished:
                self._round.append(flow)  # it waits for more to be written: a frame costs what it costs
                continue
            flow.in_turn = False
            if not flow.may_send:
                continue
            flow.unsettled += 1
            if not flow.waiting:
                flow.end_sent = True
                self._replies += 1
                return Post(write_message(End(flow.is_ours, flow.number)), 0, flow)
            pieces, size = flow.take(pace.chunk)
            self._enter(flow)
            pace.on_sent(size)
            is_short = size < pace.chunk
            flow.short_on_way += is_short
            return Post(write_data(flow.is_ours, flow.number, pieces, size), size, flow, is_short)
        return None

    # --- inside ---

    def _has_room(self) -> bool:
        config = self._config
        return len(self.flows) < config.max_streams_per_peer and self._budget.streams < config.max_streams

    def _add(self, number: int, name: str, *, is_ours: bool) -> Flow:
        flow = self.flows[is_ours, number] = Flow(number, name, is_ours=is_ours)
        self._budget.streams += 1
        self._budget.claimed += FIRST_CREDIT
        return flow

    def _remove(self, flow: Flow) -> None:
        key = (flow.is_ours, flow.number)
        if self.flows.pop(key, None) is not None:
            self._budget.streams -= 1
            self._budget.claimed -= flow.receive_limit - flow.consumed
            self._remember(key)

    def _remove_if_over(self, flow: Flow) -> None:
        if flow.is_over:
            self._remove(flow)

    def _remember(self, key: tuple[bool, int]) -> None:
        self._remembered[key] = None
        if len(self._remembered) > _MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def _on_open(self, message: Open, untaken: int) -> tuple[Flow | None, bool]:
        key = (False, message.number)
        if key in self.flows or key in self._remembered:
            self._counters["streams.opened_twice"] += 1
        elif not self._has_room() or untaken >= self._config.max_untaken_per_peer:
            self._counters["streams.refused"] += 1
            self._remember(key)
            self._refuse(True, message.number, ResetCode.REFUSED, "it has too many streams")
        else:
            return self._add(message.number, message.name, is_ours=False), True
        return None, False

    def _refuse(self, mine: bool, number: int, code: int, text: str) -> None:
        """`mine` as the other side said it."""
        if self._replies < self._config.max_replies:
            self._say(Reset(not mine, number, code, text), None)
        else:
            self._counters["streams.unanswered"] += 1

    def _say(self, message: StreamMessage, flow: Flow | None) -> None:
        if flow is not None:
            flow.unsettled += 1
        self._replies += 1
        self._first.append(Post(write_message(message), 0, flow))

    def _enter(self, flow: Flow) -> None:
        if not flow.in_turn and flow.may_send:
            flow.in_turn = True
            self._round.append(flow)

    def _settle(self, post: Post) -> None:
        flow = post.flow
        if not post.size:
            self._replies -= 1
        if flow is not None:
            flow.unsettled -= 1
            flow.short_on_way -= post.is_short
            self._remove_if_over(flow)
