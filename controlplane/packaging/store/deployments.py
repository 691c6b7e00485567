"""Where packages stand on agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Row,
    Select,
    Subquery,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.filtering import (
    BooleanField,
    BoundFilter,
    EnumField,
    FilterSchema,
    TextField,
    TimestampField,
)
from controlplane.packaging.deployment.rules import DeploymentStatus, Standing
from controlplane.packaging.rules import Decision
from controlplane.packaging.store.tables import IS_DEPLOYING, deployments, packages
from controlplane.storage.filters import compile_filter
from controlplane.storage.prepared import updating
from controlplane.storage.unit_of_work import UnitOfWork

FILTER = FilterSchema(
    {
        "agent_id": TextField(),
        "package": TextField(),
        "package_name": TextField(),
        "version": TextField(),
        "status": EnumField(
            {status.name: int(status) for status in DeploymentStatus}, prefix="DEPLOYMENT_STATUS_"
        ),
        "task_id": TextField(),
        "batch_id": TextField(),
        "reason_code": TextField(),
        "latest": BooleanField(),
        "create_time": TimestampField(),
        "status_time": TimestampField(),
    }
)
"""What a filter over deployments may name. ``latest`` is the last one of packages of its name to its agent;
every other field is a column of the same name."""

Connection = AsyncConnection

FollowedTasks = Subquery
"""Tasks of the kind ``install``, as the tasks room gives them; opaque to all but stores."""

_INSTALLED = int(DeploymentStatus.INSTALLED)


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """A deployment. Its id is that of the task that installs the package; ``batch_id`` may be empty."""

    task_id: str
    agent_id: str
    batch_id: str
    package: str
    package_name: str
    version: str
    standing: Standing
    create_time: int


@dataclass(frozen=True, slots=True)
class Releasable:
    """What deploying wants to know of a package; ``target_path`` is empty where it is not released."""

    package_name: str
    version: str
    decision: Decision
    target_path: str


@dataclass(frozen=True, slots=True)
class Followed:
    """A deployment with its task; ``state`` is a number, None where the task is no longer kept."""

    task_id: str
    standing: Standing
    state: int | None
    state_time: int
    state_reason: str


@dataclass(frozen=True, slots=True)
class Holder:
    """An agent that has a package, since the instant ``time``."""

    agent_id: str
    time: int


def _standing(row: Row[Any]) -> Standing:
    return Standing(DeploymentStatus(row.status), row.status_time, row.reason, row.reason_code)


async def releasable(connection: AsyncConnection, package: str) -> Releasable | None:
    """Return a package by its digest, or None."""
    table = packages.c
    statement = select(table.package_name, table.version, table.decision, table.target_path)
    row = (await connection.execute(statement.where(table.sha256 == package))).first()
    if row is None:
        return None
    return Releasable(row.package_name, row.version, Decision(row.decision), row.target_path)


# --- writing


async def insert_made(
    work: UnitOfWork, made: FollowedTasks, package: str, package_name: str, version: str
) -> None:
    """Insert the deployments of tasks that were made for a package, by one statement."""
    of_package = (literal(package), literal(package_name), literal(version))
    await _insert(work, select(*_of_task(made), *of_package))


async def insert_replayed(work: UnitOfWork, made: FollowedTasks) -> None:
    """Insert the deployments of replays, which are of the packages of the tasks that they replay."""
    former = deployments.alias()
    of_package = (former.c.package, former.c.package_name, former.c.version)
    joined = select(*_of_task(made), *of_package).join_from(
        made, former, former.c.task_id == made.c.replay_of
    )
    await _insert(work, joined)


def _of_task(made: FollowedTasks) -> tuple[ColumnElement[Any], ...]:
    return (
        made.c.task_id,
        made.c.agent_id,
        func.coalesce(made.c.batch_id, ""),
        made.c.create_time,
        made.c.create_time.label("status_time"),
        literal(int(DeploymentStatus.PENDING)),
    )


async def _insert(work: UnitOfWork, source: Select[Any]) -> None:
    columns = ["task_id", "agent_id", "batch_id", "create_time", "status_time", "status"]
    columns += ["package", "package_name", "version"]
    await work.connection.execute(insert(deployments).from_select(columns, source))


async def followed(work: UnitOfWork, tasks: FollowedTasks) -> list[Followed]:
    """Return the deployments of tasks."""
    statement = _with_task(tasks).join(tasks, tasks.c.task_id == deployments.c.task_id)
    return [_followed(row) for row in await work.connection.execute(statement)]


async def left_behind(
    connection: AsyncConnection, tasks: FollowedTasks, final: int, limit: int
) -> list[Followed]:
    """Return deployments that have not ended though their task has, or is no longer kept.

    A state of at least ``final`` is one of a task that has ended.
    """
    statement = (
        _with_task(tasks)
        .outerjoin(tasks, tasks.c.task_id == deployments.c.task_id)
        .where(IS_DEPLOYING, or_(tasks.c.task_id.is_(None), tasks.c.state >= final))
        .order_by(deployments.c.create_time)
        .limit(limit)
    )
    return [_followed(row) for row in await connection.execute(statement)]


def _with_task(tasks: FollowedTasks) -> Select[Any]:
    own = deployments.c
    return select(
        own.task_id,
        own.status,
        own.status_time,
        own.reason,
        own.reason_code,
        tasks.c.state,
        tasks.c.state_time,
        tasks.c.state_reason,
    ).select_from(deployments)


def _followed(row: Row[Any]) -> Followed:
    return Followed(row.task_id, _standing(row), row.state, row.state_time or 0, row.state_reason or "")


async def write(work: UnitOfWork, standings: Mapping[str, Standing]) -> None:
    """Write where deployments stand, by task id."""
    update = updating(deployments, "task_id", ("status", "status_time", "reason", "reason_code"))
    rows = [
        {
            "task_id": task_id,
            "status": int(standing.status),
            "status_time": standing.time,
            "reason": standing.reason,
            "reason_code": standing.reason_code,
        }
        for task_id, standing in standings.items()
    ]
    await update.run_each(work.connection, rows)


async def delete_of_agent(work: UnitOfWork, agent_id: str) -> None:
    """Delete the deployments of an agent that is being deleted."""
    await work.connection.execute(delete(deployments).where(deployments.c.agent_id == agent_id))


def _overtaken(before: int) -> ColumnElement[bool]:
    own = deployments.c
    over = and_(own.status_time < before, ~IS_DEPLOYING, _has_later())
    return and_(over, or_(own.status != _INSTALLED, _was_replaced()))


async def overtaken(connection: AsyncConnection, before: int, limit: int) -> Sequence[str]:
    """Return the task ids of deployments that ended before an instant and say nothing of today.

    What an agent has, and what was last tried with it, is never among them.
    """
    own = deployments.c
    statement = select(own.task_id).where(_overtaken(before)).order_by(own.status_time).limit(limit)
    return (await connection.execute(statement)).scalars().all()


async def delete_overtaken(work: UnitOfWork, task_ids: Sequence[str], before: int) -> int:
    """Delete those of at most 1,000 deployments that are overtaken still; returns how many."""
    statement = delete(deployments).where(deployments.c.task_id.in_(task_ids), _overtaken(before))
    return (await work.connection.execute(statement)).rowcount


# --- questions


def _has_later() -> ColumnElement[bool]:
    """Return the condition of a deployment that is not the last one of its name to its agent."""
    own, other = deployments.c, deployments.alias().c
    same_time = and_(other.create_time == own.create_time, other.task_id > own.task_id)
    return exists().where(
        other.agent_id == own.agent_id,
        other.package_name == own.package_name,
        or_(other.create_time > own.create_time, same_time),
    )


def _was_replaced() -> ColumnElement[bool]:
    """Return the condition of a deployment after which another one of its name was installed on its agent."""
    own, other = deployments.c, deployments.alias().c
    same_time = and_(other.status_time == own.status_time, other.task_id > own.task_id)
    return exists().where(
        other.agent_id == own.agent_id,
        other.package_name == own.package_name,
        other.status == _INSTALLED,
        or_(other.status_time > own.status_time, same_time),
    )


def condition(chosen: BoundFilter) -> ColumnElement[bool]:
    """Return the condition of a filter over deployments."""
    latest = case((_has_later(), literal(False, Boolean())), else_=literal(True, Boolean()))
    columns = {name: deployments.c[name] for name in FILTER.fields if name != "latest"}
    return compile_filter(chosen, {**columns, "latest": latest})


def _record(row: Row[Any]) -> DeploymentRecord:
    return DeploymentRecord(
        row.task_id,
        row.agent_id,
        row.batch_id,
        row.package,
        row.package_name,
        row.version,
        _standing(row),
        row.create_time,
    )


async def page(
    connection: AsyncConnection, chosen: BoundFilter, before: tuple[int, str] | None, limit: int
) -> list[DeploymentRecord]:
    """Return deployments that match, the last change first, after the place ``before``.

    That is the (status_time, task_id) of the last one of the former page. One that changes between two
    pages may come twice or, having moved to the front, not at all.
    """
    own = deployments.c
    statement = select(deployments).where(condition(chosen))
    if before is not None:
        time, task_id = before
        statement = statement.where(
            or_(own.status_time < time, and_(own.status_time == time, own.task_id < task_id))
        )
    ordered = statement.order_by(own.status_time.desc(), own.task_id.desc()).limit(limit)
    return [_record(row) for row in await connection.execute(ordered)]


async def count(connection: AsyncConnection, chosen: BoundFilter) -> int:
    """Return how many deployments match."""
    statement = select(func.count()).select_from(deployments).where(condition(chosen))
    return int((await connection.execute(statement)).scalar_one())


async def holders(connection: AsyncConnection, package: str, after: str, limit: int) -> list[Holder]:
    """Return agents that have a package now, in the order of their ids, after one of them."""
    own = deployments.c
    statement = (
        select(own.agent_id, func.max(own.status_time).label("time"))
        .where(own.package == package, own.status == _INSTALLED, own.agent_id > after, ~_was_replaced())
        .group_by(own.agent_id)
        .order_by(own.agent_id)
        .limit(limit)
    )
    return [Holder(row.agent_id, row.time) for row in await connection.execute(statement)]


async def installed_counts(connection: AsyncConnection, package_ids: Sequence[str]) -> dict[str, int]:
    """Return on how many agents each package is now, by its digest; none that is on none."""
    own = deployments.c
    statement = (
        select(own.package, func.count(own.agent_id.distinct()).label("agents"))
        .where(own.package.in_(package_ids), own.status == _INSTALLED, ~_was_replaced())
        .group_by(own.package)
    )
    return {row.package: row.agents for row in await connection.execute(statement)}


async def status_counts(connection: AsyncConnection, chosen: BoundFilter) -> dict[DeploymentStatus, int]:
    """Return how many of the deployments that match stand how."""
    own = deployments.c
    statement = select(own.status, func.count().label("deployments")).where(condition(chosen))
    rows = await connection.execute(statement.group_by(own.status).order_by(own.status))
    return {DeploymentStatus(row.status): row.deployments for row in rows}
