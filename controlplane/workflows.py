"""Durable pipelines: a workflow's steps run in their order, each until it is done, whichever worker lives.

A step that was done is not done again. One that was running when its worker died runs again on another, so
steps know by digests or keys what they have done already. What a step does is the business of who gave it;
this knows only names. DBOS (``docs/decisions``) keeps the books: in the site's PostgreSQL, in a schema of
its own, or, beside SQLite, in a file of its own. It is one object a process, and only this module imports
it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import structlog
from dbos import DBOS, DBOSConfig

QUEUE = "pipelines"
"""The queue that all workers share."""

AT_ONCE = 2
"""Workflows that one worker runs at once: their stages are processes, and a worker has few cores."""

POLL_SECONDS = 0.5
"""How often a worker looks for workflows that others queued; its own begin as soon."""

_APPLICATION = "fleetwright"
# Set, and not computed from the code: an upgrade would leave behind what the former version began.
_VERSION = "1"
_SCHEMA = "fleetwright_workflows"

Step = Callable[[str, str], Coroutine[Any, Any, str]]
"""``step(workflow_id, name)`` does one step and returns the name of the next; "" after the last."""

FIRST = "begin"
"""The name of every workflow's first step."""

_log = structlog.get_logger(__name__)
_current: Workflows | None = None


class Workflows:
    """The workflows of one process. ``url`` is of the database, ``worker_id`` this process's own id.

    ``step`` is run on the event loop of ``start``. A step that raises ends its workflow as failed: what can
    be said of a failure, a step says itself before it returns "".
    """

    def __init__(self, url: str, worker_id: str, step: Step) -> None:
        self._config = DBOSConfig(
            name=_APPLICATION,
            system_database_url=url,
            application_version=_VERSION,
            executor_id=worker_id,
            dbos_system_schema=_SCHEMA,
            log_level="ERROR",
            enable_otlp=False,
            # Connections of a worker that waits are few: it has few workflows.
            sys_db_pool_size=4,
        )
        self._step = step
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[concurrent.futures.Future[str]] = set()

    async def start(self) -> None:
        """Make the books where there are none, and begin to run what is queued. Once a process."""
        global _current  # noqa: PLW0603 # DBOS is one object a process, and its functions find us here
        self._loop = asyncio.get_running_loop()
        _current = self
        await asyncio.to_thread(self._launch)

    def _launch(self) -> None:
        # Its own handler prints these, with a traceback each.
        logging.getLogger("dbos").addFilter(_is_news)
        DBOS(config=self._config)
        DBOS.launch()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=AT_ONCE,
            polling_interval_sec=POLL_SECONDS,
            on_conflict="always_update",
        )

    async def stop(self) -> None:
        """Run no further step, and end those that run: another start goes on with them."""
        for running in list(self._running):
            running.cancel()
        await asyncio.to_thread(DBOS.destroy)

    async def queue(self, workflow_id: str) -> None:
        """Queue a workflow for any worker; one that was queued before is left as it is."""
        options: Any = {"workflow_name": _WORKFLOW, "queue_name": QUEUE, "workflow_id": workflow_id}
        await asyncio.to_thread(lambda: DBOS.enqueue_workflow_with_options(options, workflow_id))

    async def cancel(self, workflow_id: str) -> None:
        """Let no further step of a workflow begin; what runs is the business of who gave the step."""
        await asyncio.to_thread(DBOS.cancel_workflow, workflow_id)

    async def take_over(self, living: Collection[str]) -> list[str]:
        """Queue again what workers had in hand that are not among ``living``; returns which.

        To be called by one process at a time: two that take over the same would run it twice.
        """
        return await asyncio.to_thread(self._take_over, frozenset(living))

    def _take_over(self, living: frozenset[str]) -> list[str]:
        pending = DBOS.list_workflows(status="PENDING", name=_WORKFLOW, load_input=False, load_output=False)
        orphaned = [one.workflow_id for one in pending if one.executor_id not in living]
        for workflow_id in orphaned:
            _log.warning("workflow taken over", workflow=workflow_id)
            DBOS.resume_workflow(workflow_id, queue_name=QUEUE)
        return orphaned

    async def alive(self, workflow_ids: Collection[str]) -> set[str]:
        """Return which of these workflows wait or run; another one, or none at all, does nothing more."""
        return await asyncio.to_thread(self._alive, list(workflow_ids))

    def _alive(self, workflow_ids: list[str]) -> set[str]:
        found = DBOS.list_workflows(
            workflow_ids=workflow_ids, status=_ALIVE, load_input=False, load_output=False
        )
        return {one.workflow_id for one in found}

    def run_step(self, workflow_id: str, name: str) -> str:
        """Do one step on the event loop, from a thread of DBOS's."""
        if self._loop is None:
            raise RuntimeError("start() was not called")
        running = asyncio.run_coroutine_threadsafe(self._step(workflow_id, name), self._loop)
        self._running.add(running)
        try:
            return running.result()
        finally:
            self._running.discard(running)


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a line of DBOS tells of more than that a stop has cut off what another start does."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, concurrent.futures.CancelledError)


_WORKFLOW = "pipeline"
_ALIVE = ["PENDING", "ENQUEUED", "DELAYED"]


@DBOS.step(name="step", retries_allowed=False)
def _do(workflow_id: str, name: str) -> str:
    if _current is None:
        raise RuntimeError("no workflows were started in this process")
    return _current.run_step(workflow_id, name)


@DBOS.workflow(name=_WORKFLOW)
def _pipeline(workflow_id: str) -> None:
    name = FIRST
    while name:
        name = _do(workflow_id, name)
