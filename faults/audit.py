"""The count after a fault: the lists of callers and agents and the witness against what the product has."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from fleetwright.v1 import task_service_pb2

from faults.books import effects_by_task
from faults.hosts import METRIC
from tests.support.admin import Admin

if TYPE_CHECKING:
    from faults.world import World

_SHOWN = 3
_AT_ONCE = 16


async def count(world: World, admin: Admin) -> None:
    """Fill a row: what was acknowledged, and what of it is lost or doubled."""
    row, books, callers = world.row, world.books, world.callers
    tasks = {task.name: task for task in await admin.all_tasks()}
    effects = effects_by_task(world.witness)
    stored = Counter(point.point.value for point in await admin.points() if point.point.metric == METRIC)
    row.tasks, row.results, row.points = len(callers.acknowledged), len(books.results), len(books.points)
    row.effects = effects.total()

    created = set(callers.acknowledged.values())
    _lost(world, "tasks that were acknowledged", created - tasks.keys())
    _lost(world, "tasks that ended otherwise than they may", _badly_ended(world, tasks))
    succeeded = {name for name, task in tasks.items() if task.state == task_service_pb2.TASK_STATE_SUCCEEDED}
    _lost(world, "tasks that succeeded without an effect", succeeded - effects.keys())
    if books.results:
        _lost(world, "results that were acknowledged", set(books.results) - await _with_result(admin, tasks))
    refused = {attempt for attempt, how in books.results.items() if how not in ("COMMITTED", "DUPLICATE")}
    _lost(world, "results that were refused", refused)
    _lost(world, "points that were acknowledged", books.points - stored.keys())

    _doubled(world, "tasks without a request of their own", len(tasks.keys() - created))
    _doubled(world, "effects beyond one of a task", sum(times - 1 for times in effects.values()))
    _doubled(world, "effects of no task", len(effects.keys() - tasks.keys()))
    _doubled(world, "points stored twice", sum(times - 1 for times in stored.values()))
    if books.dropped and not world.drops_allowed:
        row.problems.append(f"agents dropped {books.dropped.total()} points")
    if created and not effects:
        row.problems.append("no work was done: nothing is shown")


def _badly_ended(world: World, tasks: dict[str, task_service_pb2.Task]) -> set[str]:
    interrupted = task_service_pb2.TASK_STATE_INTERRUPTED
    return {
        f"{name} {task_service_pb2.TaskState.Name(task.state)}"
        for name, task in tasks.items()
        if task.state != task_service_pb2.TASK_STATE_SUCCEEDED
        and not (task.state == interrupted and (world.interrupted_allowed or name in world.unfinished))
    }


async def _with_result(admin: Admin, tasks: dict[str, task_service_pb2.Task]) -> set[str]:
    """Return the attempts that have a result, of all tasks."""
    found: set[str] = set()
    names = iter(tasks)

    async def reader() -> None:
        for name in names:
            attempts = (await admin.task(name)).attempts
            found.update(attempt.attempt_id for attempt in attempts if attempt.HasField("result"))

    await asyncio.gather(*(reader() for _ in range(_AT_ONCE)))
    return found


def _lost(world: World, what: str, which: set[str] | set[float]) -> None:
    if which:
        world.row.lost += len(which)
        shown = ", ".join(str(one) for one in sorted(which, key=str)[:_SHOWN])
        world.row.problems.append(f"lost, {what}: {len(which)}, among them {shown}")


def _doubled(world: World, what: str, number: int) -> None:
    if number:
        world.row.doubled += number
        world.row.problems.append(f"doubled, {what}: {number}")
