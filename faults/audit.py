"""The count after a fault: the lists of callers and agents and the witness against what the product has."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetwright.v1 import task_service_pb2, work_pb2

from faults.books import effects_by_attempt, effects_by_task
from faults.hosts import METRIC
from faults.work import Kind, Order, ends, output_of
from tests.support.admin import Admin

if TYPE_CHECKING:
    from faults.world import World

_SHOWN = 3
_AT_ONCE = 16
# What a host reports of an attempt that it has carried to its end.
_CARRIED_OUT = (work_pb2.OUTCOME_SUCCEEDED, work_pb2.OUTCOME_FAILED)


@dataclass(frozen=True, slots=True)
class _Audited:
    """One task of the product, and what it was asked for as; None of a task that nobody asked for."""

    task: task_service_pb2.Task
    kind: Kind | None


async def count(world: World, admin: Admin) -> None:
    """Fill a row: what was acknowledged, and what of it is lost or doubled."""
    row, books, callers = world.row, world.books, world.callers
    orders = {name: callers.orders[request] for request, name in callers.acknowledged.items()}
    batches = {name: callers.orders[request] for request, name in callers.batches.items()}
    tasks = await _tasks(admin, orders, batches)
    stored = Counter(point.point.value for point in await admin.points() if point.point.metric == METRIC)
    row.tasks = len(orders) + sum(len(order.agents) for order in batches.values())
    row.results, row.points = len(books.results), len(books.points)

    _lost(world, "tasks that were acknowledged", orders.keys() - tasks.keys())
    _doubled(world, "tasks that nobody asked for", sum(one.kind is None for one in tasks.values()))
    _count_batches(world, tasks, batches)
    _lost(world, "tasks that ended otherwise than they may", _badly_ended(world, tasks))
    _count_cancellations(world, tasks)
    _count_effects(world, tasks)
    with_result = {
        attempt.attempt_id
        for one in tasks.values()
        for attempt in one.task.attempts
        if attempt.HasField("result")
    }
    _lost(world, "results that were acknowledged", books.results.keys() - with_result)
    refused = {attempt for attempt, how in books.results.items() if how not in ("COMMITTED", "DUPLICATE")}
    _lost(world, "results that were refused", refused)
    _lost(world, "output of tasks that succeeded", await _without_output(admin, tasks))
    _lost(world, "points that were acknowledged", books.points - stored.keys())
    _doubled(world, "points stored twice", sum(times - 1 for times in stored.values()))
    if books.dropped and not world.drops_allowed:
        row.problems.append(f"agents dropped {books.dropped.total()} points")
    if row.tasks and not row.effects:
        row.problems.append("no work was done: nothing is shown")


async def _tasks(
    admin: Admin, orders: Mapping[str, Order], batches: Mapping[str, Order]
) -> dict[str, _Audited]:
    """Return every task with its attempts, by name."""
    found: dict[str, _Audited] = {}
    names = iter([task.name for task in await admin.all_tasks()])

    async def reader() -> None:
        for name in names:
            task = await admin.task(name)
            order = batches.get(task.batch) if task.batch else orders.get(name)
            found[name] = _Audited(task, order.kind if order else None)

    await asyncio.gather(*(reader() for _ in range(_AT_ONCE)))
    return found


def _count_batches(world: World, tasks: Mapping[str, _Audited], batches: Mapping[str, Order]) -> None:
    """Hold every batch to one task for each of its agents."""
    made = Counter((one.task.batch, one.task.agent) for one in tasks.values() if one.task.batch in batches)
    wanted = {(name, f"agents/{agent}") for name, order in batches.items() for agent in order.agents}
    _lost(world, "tasks of batches", {" ".join(one) for one in wanted - made.keys()})
    _doubled(world, "tasks of batches", made.total() - len(made.keys() & wanted))


def _badly_ended(world: World, tasks: Mapping[str, _Audited]) -> set[str]:
    wrong = set()
    for name, one in tasks.items():
        allowed = ends(one.kind) if one.kind else set()
        interrupted = world.interrupted_allowed or name in world.unfinished
        if interrupted and one.kind is not Kind.EXPIRING:
            allowed = allowed | {task_service_pb2.TASK_STATE_INTERRUPTED}
        if one.kind and one.task.state not in allowed:
            wrong.add(f"{name} {one.kind.name} {task_service_pb2.TaskState.Name(one.task.state)}")
    return wrong


def _count_cancellations(world: World, tasks: Mapping[str, _Audited]) -> None:
    """Hold the product to what it said when a task was to be cancelled."""
    cancelled = {name: one.task.state == task_service_pb2.TASK_STATE_CANCELLED for name, one in tasks.items()}
    forgotten = {
        name
        for name in world.callers.cancelled & tasks.keys()
        if not (cancelled[name] or tasks[name].task.cancel_requested)
    }
    _lost(world, "cancellations that were acknowledged", forgotten)
    changed = {name for name in world.callers.too_late & tasks.keys() if cancelled[name]}
    _lost(world, "ends that were told when it was too late to cancel", changed)


def _count_effects(world: World, tasks: Mapping[str, _Audited]) -> None:
    """Hold the witness to one effect of each attempt, and of a task to as many as its kind allows."""
    by_task, by_attempt = effects_by_task(world.witness), Counter[str]()
    for (attempt_id, _), times in effects_by_attempt(world.witness).items():
        by_attempt[attempt_id] += times
    world.row.effects += by_task.total()
    _doubled(world, "effects beyond one of an attempt", sum(times - 1 for times in by_attempt.values()))
    known = {attempt.attempt_id for one in tasks.values() for attempt in one.task.attempts}
    _doubled(world, "effects of no attempt", len(by_attempt.keys() - known))
    carried_out = {
        attempt.attempt_id
        for one in tasks.values()
        for attempt in one.task.attempts
        if attempt.HasField("result") and attempt.result.outcome in _CARRIED_OUT
    }
    _lost(world, "effects of attempts that were carried out", carried_out - by_attempt.keys())
    succeeded = {
        name for name, one in tasks.items() if one.task.state == task_service_pb2.TASK_STATE_SUCCEEDED
    }
    _lost(world, "tasks that succeeded without an effect", succeeded - by_task.keys())
    beyond = 0
    for name, one in tasks.items():
        if one.kind is Kind.RETRIED:
            beyond += max(0, _successes(one.task) - 1)
        else:
            beyond += max(0, by_task[name] - (0 if one.kind is Kind.EXPIRING else 1))
    _doubled(world, "effects beyond those that a task may have", beyond)


def _successes(task: task_service_pb2.Task) -> int:
    return sum(attempt.result.outcome == work_pb2.OUTCOME_SUCCEEDED for attempt in task.attempts)


async def _without_output(admin: Admin, tasks: Mapping[str, _Audited]) -> set[str]:
    """Return the tasks whose output is not what their hosts wrote."""
    wrong = set()
    for name, one in tasks.items():
        if one.kind is Kind.OUTPUT and one.task.state == task_service_pb2.TASK_STATE_SUCCEEDED:
            text = (await admin.output(name)).get(work_pb2.OUTPUT_STREAM_STDOUT, b"")
            if not text.startswith(output_of(one.task.spec)) or len(text) != one.task.result.stdout_bytes:
                wrong.add(name)
    return wrong


def _lost(world: World, what: str, which: set[str] | set[float]) -> None:
    if which:
        world.row.lost += len(which)
        shown = ", ".join(str(one) for one in sorted(which, key=str)[:_SHOWN])
        world.row.problems.append(f"lost, {what}: {len(which)}, among them {shown}")


def _doubled(world: World, what: str, number: int) -> None:
    if number:
        world.row.doubled += number
        world.row.problems.append(f"doubled, {what}: {number}")
