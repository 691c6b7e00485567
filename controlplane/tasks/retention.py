"""How long tasks are kept once they are final. Runs on a schedule.

A task that goes here is final since long: nobody waits for it, so no watch is told
(docs/task-states.md). What an agent may still say of one of its attempts is answered as of
one that is not known.
"""

from __future__ import annotations

from datetime import datetime

from controlplane.clock import to_micros
from controlplane.storage.database import Database
from controlplane.storage.slices import Slice, delete_in_slices
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.store import retention

TASKS = 100
"""Tasks that one transaction deletes, with their attempts. Each lies on pages of its own in every index, so
a transaction of 500 is one of 20 MB, for which others wait longer than they should."""

CHUNKS = 200
"""Chunks of output that one transaction deletes, 12 MiB at most; more than ``TASKS``, for most have one."""

BATCHES = 200
"""Batches that one transaction deletes; each has a spec of up to some MiB."""


async def prune(database: Database, before: datetime) -> int:
    """Delete tasks that are final since before an instant, with all that is theirs; returns how many.

    Then batches from before it that have no task left.
    """
    oldest = to_micros(before)

    async def some_tasks(work: UnitOfWork) -> Slice:
        task_ids = await retention.ended_before(work, oldest, TASKS)
        # A task goes with the last of its output, so one that is found has all of it or is about to go.
        if not task_ids or await retention.delete_output(work, task_ids, CHUNKS) == CHUNKS:
            return Slice(0, more=bool(task_ids))
        await retention.delete_tasks(work, task_ids)
        return Slice(len(task_ids), more=len(task_ids) == TASKS)

    async def some_batches(work: UnitOfWork) -> Slice:
        deleted = await retention.delete_batches(work, oldest, BATCHES)
        return Slice(deleted, more=deleted == BATCHES)

    pruned = await delete_in_slices(database, some_tasks)
    await delete_in_slices(database, some_batches)
    return pruned
