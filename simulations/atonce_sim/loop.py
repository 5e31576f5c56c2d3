"""An asyncio loop whose clock jumps to the next event: an hour passes in the time that its work takes.

There is one heap of events in their order, and no selector: nothing outside can happen. Events of one moment come in
the order in which they were scheduled, so that a run depends on nothing but its code and its seed. asyncio's own heap
compares handles in Python and makes a handle for each event; most events here are datagrams, which nobody cancels.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from heapq import heapify, heappop, heappush
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from atonce_sim.escapes import no_escape
from atonce_sim.transport import VirtualTransport, open_endpoint
from dht_atonce.datagrams import DatagramNet
from dht_atonce.errors import Deadlock, Escape

__all__ = ["VirtualLoop", "run"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_BATCH = 256  # events between two looks at whether the loop is to stop
_MIN_CANCELLED = 1000  # before it is worth while to throw cancelled timers out

# (when, number, callback, arguments); a timer of asyncio's has no callback here and its handle for arguments.
_Event = tuple[float, int, Callable[..., object] | None, Any]


class VirtualLoop(asyncio.BaseEventLoop):
    """Time begins at 0. What would leave the world (threads, name resolution, sockets) raises `Escape`."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._events: list[_Event] = []
        self._number = 0
        self._cancelled = 0
        self.holds: Callable[[asyncio.Handle], bool] | None = None
        """Asked of each call before it is made, while a host sleeps: whether it is kept for later."""
        self.datagrams: Callable[[str], DatagramNet] | None = None
        """The datagrams of the host with this IP, for code that opens its endpoints through the loop."""

    # --- time ---

    def time(self) -> float:
        return self._now

    def post(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback` after `delay_s`; it cannot be cancelled."""
        self._number += 1
        heappush(self._events, (self._now + delay_s, self._number, callback, args))

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._number += 1
        heappush(self._events, (when, self._number, None, handle))
        return handle

    def pending(self) -> int:
        """Events that are scheduled and not cancelled: datagrams under way and timers."""
        return sum(1 for *_, callback, args in self._events if callback is not None or not args.cancelled())

    def waiting(self) -> str:
        """The names of all tasks that are not done."""
        return ", ".join(sorted(task.get_name() for task in asyncio.all_tasks(self))) or "no task"

    # --- what asyncio's base class asks of a loop ---

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled += 1
        if self._cancelled > _MIN_CANCELLED and self._cancelled * 2 > len(self._events):
            self._events = [event for event in self._events if event[2] is not None or not event[3].cancelled()]
            heapify(self._events)
            self._cancelled = 0

    def _run_once(self) -> None:
        """Run what is ready; then let the next moments come, until something is ready again."""
        ready = self._ready  # type: ignore[attr-defined] # of BaseEventLoop: call_soon appends here
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled and (self.holds is None or not self.holds(handle)):
                handle._run()
        for _ in range(_BATCH):
            if ready or self._stopping:  # type: ignore[attr-defined]
                return
            if not self._events:
                raise Deadlock(f"nothing is scheduled, and these wait: {self.waiting()}")
            when, _, callback, args = heappop(self._events)
            if callback is not None:
                if when > self._now:
                    self._now = when
                try:
                    callback(*args)
                except Exception as error:
                    self.call_exception_handler({"message": f"in {callback!r}", "exception": error})
            elif args._cancelled:
                self._cancelled -= 1
            else:
                if when > self._now:
                    self._now = when
                if self.holds is None or not self.holds(args):
                    args._run()

    def _process_events(self, event_list: list[Any]) -> None:
        """There is no selector."""

    def _write_to_self(self) -> None:
        """Nothing sleeps, so nothing has to be woken."""

    # --- ways out ---

    def run_in_executor(self, *args: Any, **kwargs: Any) -> NoReturn:  # type: ignore[override] # never returns
        raise Escape("there are no threads in the virtual world")

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Escape("there is no name resolution in the virtual world")

    async def create_datagram_endpoint(  # type: ignore[override] # what a virtual network can offer of it
        self,
        protocol_factory: Callable[[], Any],
        local_addr: tuple[str, int] | None = None,
        **_: Any,
    ) -> tuple[VirtualTransport, Any]:
        """An endpoint on the host whose IP is in `local_addr`."""
        if self.datagrams is None or local_addr is None:
            raise Escape("there is no real socket in the virtual world")
        return await open_endpoint(self.datagrams(local_addr[0]), protocol_factory, local_addr)

    async def create_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Escape("there is no real socket in the virtual world")

    async def create_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Escape("there is no real socket in the virtual world")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in a loop of its own, in virtual time."""
    with no_escape(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
