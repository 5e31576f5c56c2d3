"""Background tasks: none is lost, none fails in silence."""

import asyncio
from typing import Any

import pytest
from support_peers import now, other_tasks, virtual

from atonce_sim.loop import run
from dht_atonce.tasks import TaskGroup


async def for_ever() -> None:
    await asyncio.Event().wait()


def test_a_task_runs_under_its_name() -> None:
    async def main() -> None:
        group = TaskGroup()
        done: list[str] = []

        async def work() -> str:
            await asyncio.sleep(1)
            done.append("done")
            return "result"

        task = group.start(work(), "some work")
        assert task is not None
        assert task.get_name() == "some work"
        assert other_tasks() == ["some work"]
        assert await task == "result"
        assert done == ["done"]
        await group.aclose()

    virtual(main())


def test_closing_ends_all_in_the_order_in_which_they_began() -> None:
    async def main() -> None:
        group, ended = TaskGroup(), []

        async def work(number: int) -> None:
            try:
                await for_ever()
            finally:
                ended.append(number)

        for number in range(20):
            group.start(work(number), f"work {number}")
        await asyncio.sleep(1)
        await group.aclose()
        assert ended == list(range(20))
        assert other_tasks() == []

    virtual(main())


def test_closing_waits_for_those_who_clean_up() -> None:
    async def main() -> None:
        group = TaskGroup()

        async def work() -> None:
            try:
                await for_ever()
            finally:
                await asyncio.sleep(3)

        group.start(work(), "tidy")
        await asyncio.sleep(1)
        await group.aclose()
        assert now() == pytest.approx(4)
        assert other_tasks() == []

    virtual(main())


def test_after_closing_nothing_begins() -> None:
    async def main() -> None:
        group = TaskGroup()
        group.close()
        began: list[int] = []

        async def work() -> None:
            began.append(1)

        # Its coroutine is closed too: else Python would warn that nobody awaited it.
        assert group.start(work(), "too late") is None
        await asyncio.sleep(1)
        assert began == []
        await group.aclose()
        await group.aclose()

    virtual(main())


def test_what_a_task_starts_while_it_is_ended_is_refused() -> None:
    async def main() -> None:
        group, started = TaskGroup(), []

        async def work() -> None:
            try:
                await for_ever()
            finally:
                started.append(group.start(for_ever(), "child"))

        group.start(work(), "parent")
        await asyncio.sleep(1)
        await group.aclose()
        assert started == [None]
        assert other_tasks() == []

    virtual(main())


def test_a_task_may_close_its_own_group() -> None:
    async def main() -> None:
        group = TaskGroup()

        async def work() -> None:
            group.start(for_ever(), "sibling")
            await asyncio.sleep(1)
            await group.aclose()

        task = group.start(work(), "last one out")
        assert task is not None
        await asyncio.gather(task, return_exceptions=True)
        assert other_tasks() == []

    virtual(main())


def test_a_task_that_ended_is_let_go() -> None:
    async def main() -> None:
        group = TaskGroup()
        for number in range(100):
            group.start(asyncio.sleep(0.01 * number), "short")
        await asyncio.sleep(10)
        assert other_tasks() == []
        await group.aclose()

    virtual(main())


def test_a_failure_is_told_to_the_loop() -> None:
    heard: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        group = TaskGroup()

        async def fail() -> None:
            raise LookupError("nothing there")

        group.start(fail(), "search")
        survivor = group.start(asyncio.sleep(5, "fine"), "survivor")
        assert survivor is not None
        assert await survivor == "fine"  # one failure ends nobody else
        await group.aclose()

    run(main())
    assert [context["message"] for context in heard] == ["background task search failed"]
    assert isinstance(heard[0]["exception"], LookupError)


def test_to_be_cancelled_is_no_failure() -> None:
    heard: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        group = TaskGroup()
        task = group.start(for_ever(), "waits")
        assert task is not None
        task.cancel()
        group.start(for_ever(), "waits too")
        await asyncio.sleep(1)
        await group.aclose()

    run(main())
    assert heard == []


def test_a_failure_while_closing_is_told_too() -> None:
    heard: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        group = TaskGroup()

        async def clumsy() -> None:
            try:
                await for_ever()
            finally:
                raise ValueError("fell over the cable")

        group.start(clumsy(), "clumsy")
        await asyncio.sleep(1)
        await group.aclose()
        await asyncio.sleep(0)

    run(main())
    assert [str(context["exception"]) for context in heard] == ["fell over the cable"]
