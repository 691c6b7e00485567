"""Waits of one length, many at a time, on one timer.

A timer for each message that is written and each call costs five times what the wait without it does, and
hardly one of ten thousand ever fires. All waits here are as long as each other, so they end in the order in
which they began: one timer, set for the oldest that is left, does for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")


class OutOfPatienceError(TimeoutError):
    """It took too long."""


class _Wait:
    __slots__ = ("cancels", "due", "over", "task")

    def __init__(self, task: asyncio.Task[Any], due: float) -> None:
        self.task = task
        self.due = due
        self.cancels = task.cancelling()
        self.over = False


class Patience:
    """Lets nobody wait longer than ``length``. All waits are in one event loop, that of the first."""

    def __init__(self, length: timedelta) -> None:
        self.length = length
        self._seconds = length.total_seconds()
        # In the order in which they are due.
        self._waits: dict[_Wait, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Await ``awaitable``; raises ``OutOfPatienceError`` once ``length`` is over."""
        loop = self._loop
        if loop is None:
            # Asked once: the question asks the kernel for this process's id each time, in Python 3.11.
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - a coroutine that runs has a task
        wait = _Wait(task, loop.time() + self._seconds)
        self._waits[wait] = None
        if self._timer is None:
            self._timer = loop.call_at(wait.due, self._look, loop)
        try:
            return await awaitable
        except asyncio.CancelledError as error:
            # Ours alone is the end of patience; one that others asked for as well stays what it is.
            if wait.over and task.cancelling() - 1 <= wait.cancels:
                raise OutOfPatienceError from error
            raise
        finally:
            if wait.over:
                task.uncancel()
            del self._waits[wait]

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for wait in self._waits:
            if wait.due > now:
                self._timer = loop.call_at(wait.due, self._look, loop)
                return
            if not wait.over:
                wait.over = True
                wait.task.cancel()
