"""The loop of the virtual world: one heap of events, in their order."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from atonce_sim.loop import VirtualLoop, run
from dht_atonce.errors import Deadlock, Escape


def in_loop(main: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    """Run `main` with its loop, which has to be a virtual one."""

    async def runs() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        await main(loop)

    run(runs())


# --- order ---


def test_what_is_posted_comes_with_its_arguments_at_its_moment() -> None:
    async def main(loop: VirtualLoop) -> None:
        came: list[tuple[float, int, str]] = []
        loop.post(2.0, lambda number, word: came.append((loop.time(), number, word)), 2, "late")
        loop.post(0.5, lambda number, word: came.append((loop.time(), number, word)), 1, "early")
        await asyncio.sleep(1)
        assert came == [(0.5, 1, "early")]
        await asyncio.sleep(1.5)
        assert came == [(0.5, 1, "early"), (2.0, 2, "late")]

    in_loop(main)


def test_events_of_one_moment_come_in_the_order_in_which_they_were_scheduled() -> None:
    async def main(loop: VirtualLoop) -> None:
        came: list[int] = []
        ways: list[Callable[[int], object]] = [
            lambda number: loop.post(1.0, came.append, number),
            lambda number: loop.call_later(1.0, came.append, number),
            lambda number: loop.call_at(1.0, came.append, number),
        ]
        # More of them than a batch, and each way beside each other way.
        for number in range(600):
            ways[number * 7 % 3](number)
        await asyncio.sleep(2)
        assert came == list(range(600))

    in_loop(main)


def test_what_an_event_calls_soon_comes_before_the_next_event_of_its_moment() -> None:
    async def main(loop: VirtualLoop) -> None:
        came: list[str] = []

        def first() -> None:
            came.append("first")
            loop.call_soon(came.append, "soon")
            loop.post(0.0, came.append, "posted at once")

        loop.post(1.0, first)
        loop.post(1.0, came.append, "second")
        await asyncio.sleep(2)
        assert came == ["first", "soon", "second", "posted at once"]

    in_loop(main)


def test_what_should_have_come_already_comes_now_and_time_never_goes_back() -> None:
    async def main(loop: VirtualLoop) -> None:
        came: list[tuple[str, float]] = []
        await asyncio.sleep(5)
        loop.call_at(1.0, lambda: came.append(("timer", loop.time())))
        loop.post(-3.0, lambda: came.append(("post", loop.time())))
        await asyncio.sleep(1)
        assert came == [("timer", 5.0), ("post", 5.0)]
        assert loop.time() == 6.0

    in_loop(main)


# --- what is pending ---


def test_pending_counts_what_is_posted_and_timers_that_were_not_cancelled() -> None:
    async def main(loop: VirtualLoop) -> None:
        assert loop.pending() == 0
        loop.post(1.0, int)
        timers = [loop.call_later(1.0, int) for _ in range(3)]
        assert loop.pending() == 4
        timers[0].cancel()
        timers[0].cancel()
        assert loop.pending() == 3
        await asyncio.sleep(2)
        assert loop.pending() == 0

    in_loop(main)


def test_a_cancelled_timer_never_rings() -> None:
    async def main(loop: VirtualLoop) -> None:
        came: list[str] = []
        timer = loop.call_later(1.0, came.append, "cancelled")
        loop.call_later(0.5, timer.cancel)
        loop.call_later(1.0, came.append, "kept")
        await asyncio.sleep(2)
        assert came == ["kept"]

    in_loop(main)


def test_cancelled_timers_are_thrown_out_long_before_their_time() -> None:
    async def main(loop: VirtualLoop) -> None:
        came: list[int] = []
        for number in range(1, 51):
            loop.call_later(10 + number, came.append, number)
            loop.post(10.5 + number, came.append, -number)
        cancelled = []
        for _ in range(5000):
            timer = loop.call_later(1e6, int)
            timer.cancel()
            cancelled.append(weakref.ref(timer))
        del timer
        gc.collect()
        assert sum(reference() is not None for reference in cancelled) < 2000
        assert loop.pending() == 100
        await asyncio.sleep(100)
        assert came == [sign * number for number in range(1, 51) for sign in (1, -1)]

    in_loop(main)


def test_timers_that_are_cancelled_after_they_rang_do_no_harm() -> None:
    async def main(loop: VirtualLoop) -> None:
        came: list[int] = []
        rung = [loop.call_later(1.0, came.append, number) for number in range(3000)]
        await asyncio.sleep(2)
        for timer in rung:
            timer.cancel()
        loop.call_later(1.0, came.append, 3000)
        assert loop.pending() == 1
        await asyncio.sleep(2)
        assert came == list(range(3001))

    in_loop(main)


# --- what goes wrong ---


@pytest.mark.parametrize("way", ["post", "call_later", "call_soon"])
def test_what_a_callback_raises_reaches_the_exception_handler_and_the_world_goes_on(way: str) -> None:
    async def main(loop: VirtualLoop) -> None:
        told: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: told.append(context))

        def breaks() -> None:
            raise LookupError("nobody there")

        match way:
            case "post":
                loop.post(1.0, breaks)
            case "call_later":
                loop.call_later(1.0, breaks)
            case _:
                loop.call_soon(breaks)
        came: list[str] = []
        loop.post(1.0, came.append, "the next")
        await asyncio.sleep(2)
        assert came == ["the next"]
        assert [str(context["exception"]) for context in told] == ["nobody there"]
        assert "breaks" in told[0]["message"]

    in_loop(main)


def test_a_deadlock_ends_the_run_and_clears_away_who_waited() -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("the waiter")

    async def main() -> None:
        asyncio.current_task().set_name("main")  # type: ignore[union-attr]
        task = asyncio.create_task(waits(), name="the waiter")
        timer = asyncio.get_running_loop().call_later(9.0, int)
        timer.cancel()  # one that was cancelled is nothing to wait for
        await task

    with pytest.raises(Deadlock, match="these wait: main, the waiter"):
        run(main())
    assert ended == ["the waiter"]


def test_two_worlds_one_after_another_do_not_know_of_each_other() -> None:
    async def main() -> float:
        asyncio.get_running_loop().call_later(1e9, print, "never")
        await asyncio.sleep(3)
        return asyncio.get_running_loop().time()

    assert [run(main()), run(main())] == [3.0, 3.0]


def test_code_that_opens_its_datagrams_through_the_loop_is_told_that_there_is_no_socket() -> None:
    async def main(loop: VirtualLoop) -> None:
        with pytest.raises(Escape):
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))

    in_loop(main)
