"""Tasks that somebody waits for: none is lost, none fails in silence."""

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["TaskGroup"]


class TaskGroup:
    """Background tasks of one owner, ended together. An unexpected exception goes to the loop's exception handler."""

    __slots__ = ("_closed", "_tasks")

    def __init__(self) -> None:
        # A dict, not a set: they are ended in the order in which they began, the same in each replay.
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._closed = False

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any] | None:
        """Run `coroutine` until it ends or `aclose` ends it; None after `close`."""
        if self._closed:
            coroutine.close()
            return None
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._on_done)
        return task

    def close(self) -> None:
        """Cancel all; new ones are refused."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()

    async def aclose(self) -> None:
        """Cancel all and wait for them."""
        self.close()
        current = asyncio.current_task()
        while others := [task for task in self._tasks if task is not current]:
            await asyncio.wait(others)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler(
                {"message": f"background task {task.get_name()} failed", "exception": error, "task": task}
            )
