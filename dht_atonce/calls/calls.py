"""Requests and replies of one peer: the shell round `asking` (what we ask) and `serving` (what others ask)."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf

import msgspec

from dht_atonce.calls.asking import Asked, Asking, Over
from dht_atonce.calls.serving import Refusal, Running, Serving
from dht_atonce.calls.wire import (
    CAPABILITY,
    MAX_DATA,
    MAX_NAME,
    Call,
    CallMessage,
    Cancel,
    Failed,
    Reply,
    Why,
    read,
    write,
)
from dht_atonce.codec import read_each
from dht_atonce.dht.node import DhtNode
from dht_atonce.errors import (
    AtOnceError,
    MessageTooLarge,
    NoSuchService,
    NotSupported,
    PeerBusy,
    PeerClosed,
    QueueFull,
    ReplyError,
    RequestFailed,
    RequestTimeout,
)
from dht_atonce.identity import PeerId
from dht_atonce.messaging.frames import Kind
from dht_atonce.messaging.linking import Ended
from dht_atonce.messaging.messenger import Messenger
from dht_atonce.messaging.receipts import Receipt, State
from dht_atonce.records import PresenceRecord

__all__ = ["Calls", "Handler", "Request"]


class Request(msgspec.Struct, frozen=True):
    """What a handler is given. The sender is verified."""

    sender: PeerId
    service: str
    data: bytes
    deadline: float
    """When the sender stops waiting, as far as is known here: seconds of the loop's `time()`, for
    `asyncio.timeout_at`."""


Handler = Callable[[Request], Awaitable[bytes]]


class _Untaken:
    """Replies on their way to one sender, oldest first, and the room that each of them holds."""

    __slots__ = ("replies",)

    def __init__(self) -> None:
        self.replies: deque[tuple[Receipt, Running | None]] = deque()

    def take_settled(self) -> list[Running]:
        """Forget those that arrived or were given up; gives what held room for them."""
        freed, replies = [], self.replies
        while replies and replies[0][0].state not in (State.QUEUED, State.SENT):
            running = replies.popleft()[1]
            if running is not None:
                freed.append(running)
        return freed


class Calls:
    """A `Feature` of a peer, and the `Service` for `Kind.CALL`."""

    def __init__(self, rng: random.Random, counters: Counter[str]) -> None:
        self._counters = counters
        self._first_id = rng.getrandbits(62)
        self._handlers: dict[str, Handler] = {}
        self._untaken: dict[PeerId, _Untaken] = {}
        self._tasks: dict[asyncio.Task[None], Running] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._closed = False
        self._messenger: Messenger
        self._asking: Asking | None = None
        self._serving: Serving
        self._loop: asyncio.AbstractEventLoop

    # --- life ---

    def start(self, node: DhtNode, messenger: Messenger) -> None:
        """Of `Feature`."""
        self._loop = asyncio.get_running_loop()
        self._config = config = messenger.config.calls
        self._messenger = messenger
        self._asking = Asking(config, self._first_id)
        self._serving = Serving(config)
        messenger.serve(Kind.CALL, self)
        messenger.when_linked.append(self._on_linked)
        messenger.when_unlinked.append(self._on_unlinked)

    async def aclose(self) -> None:
        """Of `Feature`: cancel what is carried out, and tell those of us who wait that we are closed."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is None:
            return
        for asked in self._asking.end_all():
            self._fail(asked, PeerClosed("this peer was closed before a reply came"))
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, stubborn = await asyncio.wait(list(self._tasks), timeout=self._config.end_s)
            self._counters["calls.handler_stays"] += len(stubborn)

    # --- asking ---

    async def request(self, to: PeerId, data: bytes, timeout_s: float, service: str) -> bytes:
        """As `Peer.request`."""
        if self._closed or self._asking is None:
            raise PeerClosed("this peer is closed" if self._closed else "this peer is not in a network yet")
        asking, messenger = self._asking, self._messenger
        if len(data) > MAX_DATA:
            raise MessageTooLarge(f"a request has at most {MAX_DATA} bytes, this has {len(data)}; streams carry more")
        if not 0.001 <= timeout_s <= self._config.max_timeout_s:
            raise ValueError(f"timeout_s is between 0.001 and {self._config.max_timeout_s:g}, not {timeout_s:g}")
        _check_name(service)
        if asking.is_full:
            raise QueueFull(f"{len(asking)} requests wait for their replies already; await some of them")
        record = messenger.record_of(to)
        if record is not None and CAPABILITY not in record.capabilities:
            raise NotSupported(f"the program of {to.short}… does not answer requests")
        waiter: asyncio.Future[bytes] = self._loop.create_future()
        deadline = self._loop.time() + timeout_s
        asked = asking.begin(to, record.incarnation if record is not None else b"", deadline, waiter)
        try:
            call = Call(asked.id, service, int(timeout_s * 1000), data)
            asked.receipt = messenger.post(to, write(call), timeout_s, Kind.CALL)
            self._arm(asking.deadline)
            return await waiter
        finally:
            if asking.end(asked):  # else it has ended by itself
                self._take_back(asked)

    def _take_back(self, asked: Asked) -> bool:
        """Nobody waits for the reply any more. Gives whether it may be carried out, for all that can be done."""
        receipt, messenger = asked.receipt, self._messenger
        if receipt is None or messenger.withdraw(asked.to, receipt):
            return False
        state = receipt.state
        if state in (State.SENT, State.DELIVERED):
            self._say(asked.to, Cancel(asked.id))
        return state not in (State.EXPIRED, State.REFUSED)

    @staticmethod
    def _fail(asked: Asked, error: AtOnceError) -> None:
        if not asked.waiter.done():
            asked.waiter.set_exception(error)

    def _fail_all(self, over: Over) -> None:
        for asked, error in over:
            if isinstance(error, NotSupported):
                self._take_back(asked)
            self._fail(asked, error)

    def _on_reply(self, sender: PeerId, message: Reply | Failed) -> None:
        assert self._asking is not None
        asked = self._asking.on_reply(sender, message.id)
        if asked is None:
            self._counters["calls.late_reply"] += 1
        elif isinstance(message, Reply):
            if not asked.waiter.done():
                asked.waiter.set_result(message.data)
        else:
            self._fail(asked, _failure(sender, message))

    # --- serving ---

    def serve(self, service: str, handler: Handler) -> None:
        """As `Peer.serve`."""
        _check_name(service)
        if service in self._handlers:
            raise ValueError(f"{service!r} is served already; stop that first")
        self._handlers[service] = handler

    def stop_serving(self, service: str) -> None:
        """As `Peer.stop_serving`."""
        self._handlers.pop(service, None)

    def room(self, sender: PeerId) -> int:
        """Of `Service`. What finds no room is refused in words: to hold it up would hold up what is behind it, the
        sender's replies to us and its cancellations."""
        return self._messenger.config.frame_messages

    def take(self, sender: PeerId, messages: list[bytes]) -> None:
        """Of `Service`."""
        for message in read_each(read, messages, self._counters, "calls.unreadable"):
            if isinstance(message, Call):
                self._on_call(sender, message)
            elif isinstance(message, Cancel):
                running = self._serving.on_cancel(sender, message.id)
                if running is not None:
                    self._counters["calls.cancelled"] += 1
                    running.task.cancel()
            else:
                self._on_reply(sender, message)

    def _on_call(self, sender: PeerId, call: Call) -> None:
        untaken = self._untaken.get(sender)
        if untaken is not None:
            self._settle(untaken)
            if len(untaken.replies) >= self._config.max_untaken:
                self._counters["calls.dropped"] += 1
                return
        handler = self._handlers.get(call.service)
        if handler is None:
            self._reply(sender, Failed.saying(call.id, Why.NO_SERVICE))
            return
        deadline = self._loop.time() + min(call.left_ms / 1000, self._config.max_timeout_s)
        running = self._begin(sender, call.id, deadline)
        if isinstance(running, Running):
            self._counters["calls.served"] += 1
            request = Request(sender, call.service, call.data, deadline)
            running.task = task = self._loop.create_task(self._run(running, handler, request), name="request")
            self._tasks[task] = running
            task.add_done_callback(self._on_ended)
            self._arm(deadline)
        else:
            self._counters[f"calls.{running.value}"] += 1
            if running is Refusal.BUSY:
                self._reply(sender, Failed.saying(call.id, Why.BUSY))

    def _begin(self, sender: PeerId, number: int, deadline: float) -> Running | Refusal:
        if self._closed:
            return Refusal.BUSY
        incarnation = partial(self._incarnation, sender)
        running = self._serving.begin(sender, number, deadline, incarnation)
        if running is Refusal.BUSY:
            # Replies to others may have arrived long ago: nobody looks at them before somebody wants their room.
            self._settle_all()
            running = self._serving.begin(sender, number, deadline, incarnation)
        return running

    def _incarnation(self, peer_id: PeerId) -> bytes:
        record = self._messenger.record_of(peer_id)
        return record.incarnation if record is not None else b""

    async def _run(self, running: Running, handler: Handler, request: Request) -> None:
        """Carry out a request. What is not said in `ReplyError` stays here: the other side learns that it failed."""
        message: Reply | Failed
        error: Exception | None = None
        try:
            data = await handler(request)
            if memoryview(data).nbytes > MAX_DATA:
                error = MessageTooLarge(f"a reply has at most {MAX_DATA} bytes; streams carry more")
        except ReplyError as raised:
            self._answer(running, Failed.saying(running.id, Why.RAISED, str(raised.code), str(raised.text)))
            return
        except asyncio.CancelledError:
            if running.task.cancelling():
                raise  # by us, or whoever ends the loop
            error = RuntimeError(f"the handler of {request.service!r} was cancelled from within")
        except Exception as raised:
            error = raised
        if error is None:
            message = Reply(running.id, bytes(data))
        else:
            message = Failed.saying(running.id, Why.INTERNAL)
            self._counters["calls.handler_failed"] += 1
            what = f"the handler of {request.service!r} failed"
            self._loop.call_exception_handler({"message": what, "exception": error})
        self._answer(running, message)

    def _answer(self, running: Running, message: Reply | Failed) -> None:
        if not running.is_cancelled and not self._closed:
            self._serving.reply(running)
            self._reply(running.sender, message, running)

    def _reply(self, sender: PeerId, message: Reply | Failed, running: Running | None = None) -> None:
        receipt = self._say(sender, message)
        if receipt is not None:
            untaken = self._untaken.get(sender)
            if untaken is None:
                if len(self._untaken) >= self._config.max_running:
                    self._settle_all()
                untaken = self._untaken[sender] = _Untaken()
            untaken.replies.append((receipt, running))
        elif running is not None:
            self._serving.on_taken(running)

    def _say(self, to: PeerId, message: CallMessage) -> Receipt | None:
        try:
            return self._messenger.post(to, write(message), None, Kind.CALL)
        except (QueueFull, PeerClosed):
            self._counters["calls.unsaid"] += 1
            return None

    def _settle(self, untaken: _Untaken) -> None:
        for running in untaken.take_settled():
            self._serving.on_taken(running)

    def _settle_all(self) -> None:
        for sender, untaken in list(self._untaken.items()):
            self._settle(untaken)
            if not untaken.replies:
                del self._untaken[sender]

    def _on_ended(self, task: "asyncio.Task[None]") -> None:
        self._serving.on_ended(self._tasks.pop(task))
        if not task.cancelled():
            task.result()  # _run raises nothing; if it does, the loop's exception handler hears of it

    # --- links and time ---

    def _on_linked(self, peer_id: PeerId, record: PresenceRecord) -> None:
        assert self._asking is not None
        for running in self._serving.on_linked(peer_id, record.incarnation):
            running.task.cancel()
        self._fail_all(self._asking.on_linked(peer_id, record.incarnation, CAPABILITY in record.capabilities))

    def _on_unlinked(self, peer_id: PeerId, ended: Ended) -> None:
        assert self._asking is not None
        self._serving.on_unlinked(peer_id, self._loop.time(), for_good=ended in (Ended.LEFT, Ended.REFUSED))
        self._arm(self._serving.deadline)
        over, shall_connect = self._asking.on_unlinked(peer_id, ended.name.lower())
        self._fail_all(over)
        if shall_connect:
            self._messenger.connect(peer_id)

    def _arm(self, at: float) -> None:
        """Have `_on_timer` called at `at`, or before."""
        if at >= self._timer_at or self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        assert self._asking is not None
        self._timer, self._timer_at = None, inf
        now = self._loop.time()
        for running in self._serving.due(now):
            self._counters["calls.overdue"] += 1
            running.task.cancel()
        for asked in self._asking.due(now):
            may_have_run = self._take_back(asked)
            outcome = "it may have been carried out" if may_have_run else "it was not carried out"
            text = f"no reply from {asked.to.short}… in its time; {outcome}"
            self._fail(asked, RequestTimeout(text, may_have_run))
        self._arm(min(self._serving.deadline, self._asking.deadline))


def _check_name(service: str) -> None:
    if not 0 < len(service) <= MAX_NAME:
        raise ValueError(f"a service's name has 1 to {MAX_NAME} characters")


def _failure(sender: PeerId, failed: Failed) -> AtOnceError:
    if failed.why == Why.NO_SERVICE:
        return NoSuchService("no-such-service", f"{sender.short}… serves nothing under this name")
    if failed.why == Why.BUSY:
        return PeerBusy("busy", f"{sender.short}… carries out as many requests as it can; try again later")
    if failed.why == Why.RAISED:
        return RequestFailed(failed.code, failed.text)
    return RequestFailed("internal", f"{sender.short}… failed to carry it out")
