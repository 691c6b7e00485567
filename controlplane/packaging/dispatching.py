"""The pipelines of one worker: what is queued becomes a workflow, what is to stop is stopped.

The table of pipelines is what counts. Whoever queues one writes its state and nothing else, and every worker
that sees it gives it to the engine of workflows, which takes the same id once. So nothing is lost between the
two, a process that only serves callers needs no engine, and a worker starts its own when there is work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from datetime import timedelta
from typing import Any, Protocol

import structlog

from controlplane.errors import ServiceError
from controlplane.packaging.running import TOPIC, Running, workflow_of
from controlplane.packaging.store import pipelines as stored
from controlplane.packaging.store import queue
from controlplane.packaging.store.queue import Run
from controlplane.storage.database import Database
from controlplane.wakeups import WakeUps

POLL = timedelta(seconds=5)
"""A lost wake-up delays a pipeline by at most this."""

MOST_LOOKED_AT = 1_000
"""Pipelines that one look reads; more are seen once these have ended."""

_LONGEST_PAUSE = timedelta(minutes=1)

_log = structlog.get_logger(__name__)


class Engine(Protocol):
    """What runs workflows durably, see ``controlplane/workflows.py``."""

    async def start(self) -> None:
        """Begin to run what is queued."""

    async def stop(self) -> None:
        """End what runs; another start goes on with it."""

    async def queue(self, workflow_id: str) -> None:
        """Queue a workflow; one that was queued before is left as it is."""

    async def take_over(self, living: Collection[str]) -> list[str]:
        """Queue again what workers had in hand that do not live."""

    async def alive(self, workflow_ids: Collection[str]) -> set[str]:
        """Return which workflows wait or run."""


class Steps:
    """The steps of pipelines as the engine calls them: a database that cannot be had is waited for."""

    def __init__(self, running: Running, pause: timedelta = timedelta(seconds=1)) -> None:
        self._running = running
        self._pause = pause

    async def step(self, workflow_id: str, name: str) -> str:
        """Do one step, see ``workflows.Step``."""
        pause = self._pause
        while True:
            try:
                return await self._running.step(workflow_id, name)
            except ServiceError as error:
                # Done again, it finds what it had committed.
                _log.warning("a step is tried again", workflow=workflow_id, step=name, error=error.message)
            except Exception:  # noqa: BLE001 # a defect must not leave a pipeline that never ends
                # A defect would come again and again; what the pipeline has done so far is kept.
                _log.exception("a step failed", workflow=workflow_id, step=name)
                return await self._running.give_up(workflow_id)
            await asyncio.sleep(pause.total_seconds())
            pause = min(2 * pause, _LONGEST_PAUSE)


class Dispatching:
    """Gives this process's engine what is queued; ``engine`` is started with the first pipeline.

    ``poll`` is after how long a lost wake-up is made good, long where none can be lost.
    """

    def __init__(
        self,
        database: Database,
        wakeups: WakeUps,
        running: Running,
        engine: Engine,
        poll: timedelta = POLL,
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._running = running
        self._engine = engine
        self._poll = poll
        self._starting = asyncio.Lock()
        self._started = self._ending = False
        self._queued: set[Run] = set()

    async def run(self, living: Collection[str] | None = None) -> None:
        """Look whenever a pipeline changes, until cancelled.

        ``living`` is given where no others can live: what they had in hand is taken over first.
        """
        if living is not None:
            await self._outlive(self.take_over(living))
        with self._wakeups.listening(TOPIC) as listener:
            while True:
                await listener.wait(self._poll if await self._outlive(self.look()) else POLL)

    async def _outlive(self, looking: Coroutine[Any, Any, object]) -> bool:
        """Return whether it went well."""
        try:
            await looking
        except ServiceError as error:
            _log.warning("could not look for pipelines", error=error.message)
        except Exception:  # noqa: BLE001 # looking must outlive whatever the database or the engine says
            _log.exception("could not look for pipelines")
        else:
            return True
        return False

    async def look(self) -> None:
        """Queue what waits for a worker, and stop here what is to stop."""
        here = self._running.here
        async with self._database.reading() as connection:
            waiting = await queue.waiting(connection, MOST_LOOKED_AT)
            stopping = await queue.to_stop(connection, here) if here else []
        for pipeline_id in stopping:
            self._running.cancel(pipeline_id)
        # Forgotten as soon as it waits no longer: this stays as small as what waits.
        self._queued.intersection_update(waiting)
        for run in waiting:
            if run not in self._queued:
                await self._queue(run)

    async def _queue(self, run: Run) -> None:
        if await self._start():
            await self._engine.queue(workflow_of(run.pipeline_id, run.number))
            self._queued.add(run)

    async def _start(self) -> bool:
        async with self._starting:
            if not self._started and not self._ending:
                await self._engine.start()
                self._started = True
            return self._started

    async def take_over(self, living: Collection[str]) -> list[str]:
        """Go on with what workers had in hand that do not live; returns the workflows.

        To be called by one process of the installation at a time. A pipeline that has not ended and has no
        workflow any more, after a restore or because its worker was only taken for dead, gets another one.
        """
        async with self._database.reading() as connection:
            under_way = await queue.under_way(connection, MOST_LOOKED_AT)
        if not under_way or not await self._start():
            return []
        taken = await self._engine.take_over(living)
        lost = await self._lost({workflow_of(run.pipeline_id, run.number): run for run in under_way})
        for run in lost:
            taken += await self._revive(run)
        return taken

    async def _lost(self, named: dict[str, Run]) -> list[Run]:
        """Return the runs whose workflow is over, though they are not; one that has none yet gets it."""
        missing = named.keys() - await self._engine.alive(named)
        for workflow_id in missing:
            await self._engine.queue(workflow_id)
        over = missing - await self._engine.alive(missing) if missing else set()
        return [named[workflow_id] for workflow_id in sorted(over)]

    async def _revive(self, run: Run) -> list[str]:
        async with self._database.unit_of_work() as work:
            found = await stored.find(work.connection, run.pipeline_id, lock=True)
            if found is None or found.state.final or found.run_count != run.number:
                return []
            await stored.change(work, run.pipeline_id, run_count=run.number + 1)
        workflow = workflow_of(run.pipeline_id, run.number + 1)
        _log.warning("a pipeline has lost its workflow, and gets another one", pipeline=run.pipeline_id)
        await self._engine.queue(workflow)
        return [workflow]

    async def stop(self) -> None:
        """End what runs here; another worker, or the next start, goes on with it."""
        async with self._starting:
            self._ending = True
            if self._started:
                await self._engine.stop()
                self._started = False
