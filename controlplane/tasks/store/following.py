"""Tasks as parts of the statements of rooms that follow a kind."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, Subquery, or_, select

from controlplane.tasks.store.tables import tasks

FollowedTasks = Subquery
"""(task_id, agent_id, batch_id, state, state_time, state_reason, create_time, replay_of) of tasks; opaque to
all but stores."""

_COLUMNS = (
    tasks.c.task_id,
    tasks.c.agent_id,
    tasks.c.batch_id,
    tasks.c.state,
    tasks.c.state_time,
    tasks.c.state_reason,
    tasks.c.create_time,
    tasks.c.replay_of,
)


def _those(*conditions: ColumnElement[bool]) -> FollowedTasks:
    return select(*_COLUMNS).where(*conditions).subquery("followed_tasks")


def all_of(kind: str) -> FollowedTasks:
    """Return all tasks of a kind."""
    return _those(tasks.c.kind == kind)


def changed(kind: str, revision: int, task_ids: Collection[str]) -> FollowedTasks:
    """Return the tasks of a kind that the transaction of this number wrote, and those that are named."""
    written = tasks.c.revision == revision
    chosen = or_(written, tasks.c.task_id.in_(sorted(task_ids))) if task_ids else written
    return _those(tasks.c.kind == kind, chosen)


def slice_of(batch_id: str, revision: int) -> FollowedTasks:
    """Return the tasks of a batch that the transaction of this number made."""
    # A replay of one of them is of the batch too, and is told of by itself.
    return _those(tasks.c.batch_id == batch_id, tasks.c.revision == revision, tasks.c.replay_of.is_(None))


def replays(kind: str, revision: int) -> FollowedTasks:
    """Return the tasks of a kind that the transaction of this number made as replays."""
    return _those(tasks.c.kind == kind, tasks.c.revision == revision, tasks.c.replay_of.is_not(None))
