"""A stream that is opened when there is something for it, and opened again when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import grpc

from agent_sim.protocol.backoff import Backoff, to_wait
from agent_sim.protocol.context import EngineContext
from agent_sim.protocol.errors import JournalError
from agent_sim.protocol.failures import Failure
from agent_sim.protocol.streams import StreamFailedError

_SHORT_BASE = timedelta(milliseconds=200)


class OnDemand:
    """Keeps one stream of a session: none while nothing is wanted, one otherwise.

    ``serve`` opens the stream, serves it to its end, and raises StreamFailedError. It
    returns True where it has mended what the stream ended over: the next one is then
    opened soon, and the backoff does not grow.
    """

    def __init__(
        self,
        context: EngineContext,
        serve: Callable[[], Awaitable[bool]],
        on_stale: Callable[[Failure], None],
    ) -> None:
        config = context.config
        self._context = context
        self._serve = serve
        self._on_stale = on_stale
        base = min(_SHORT_BASE, config.backoff_base)
        self._soon = base.total_seconds()
        self._backoff = Backoff(base, config.backoff_cap, timedelta(seconds=10), context.rng)
        self._wanted = False
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def want(self) -> None:
        """Open the stream if it is not open; where it is closing, open it again afterwards."""
        self._wanted = True
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def open(self) -> bool:
        """Whether the stream is open, or waits to be opened again."""
        return self._task is not None

    async def close(self, grace: timedelta) -> None:
        """Open nothing more, and wait for the stream to end; cancel it after ``grace``."""
        self._closed = True
        task = self._task
        if task is not None:
            await asyncio.wait({task}, timeout=grace.total_seconds())
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._wanted and not self._closed:
                self._wanted = False
                await self._once()
        except JournalError as error:
            self._context.fail(error)
        finally:
            self._task = None

    async def _once(self) -> None:
        clock = self._context.clock
        self._backoff.connected(clock.monotonic())
        failure = Failure(grpc.StatusCode.OK)
        try:
            if await self._serve() and not self._closed:
                self._wanted = True
                await asyncio.sleep(self._context.rng.uniform(0.0, self._soon))
                return
            if not self._wanted:
                return
        except StreamFailedError as error:
            failure = error.failure
        if self._closed:
            return
        if failure.code is not grpc.StatusCode.OK and not self._goes_on_after(failure):
            return
        # After a clean end too: a server that ends every stream at once must not be hammered.
        self._wanted = True
        delay = self._backoff.next_delay(clock.monotonic())
        await asyncio.sleep(to_wait(failure.retry_after, delay).total_seconds())

    def _goes_on_after(self, failure: Failure) -> bool:
        if failure.reason == "SESSION_REPLACED":
            # The lifeline hears it too, and knows whether the newer session is this agent's own.
            self._closed = True
            return False
        self._context.observer.failed(failure.name, failure.message)
        if failure.session_stale or failure.refuses_identity:
            self._closed = True
            self._on_stale(failure)
        return not self._closed
