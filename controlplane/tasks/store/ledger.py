"""The table of the delivery ledger, and its statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    Integer,
    String,
    Table,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import FromClause

from controlplane.filtering import BoundFilter, EnumField, FilterSchema, IntegerField, TextField
from controlplane.storage.filters import compile_filter
from controlplane.storage.prepared import Prepared
from controlplane.storage.schema import metadata
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.ledger.events import (
    MAX_DETAIL,
    Choice,
    DeliveryEvent,
    EventRecord,
    EventRow,
    bounded,
)
from controlplane.tasks.rules import AttemptState, TaskState
from controlplane.tasks.store.tables import IS_LIVE, IS_OPEN, task_attempts, tasks

# No foreign keys: events are kept for a time of their own, and may outlive their task.
task_events = Table(
    "task_events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("task_id", String(128), nullable=False),
    Column("attempt_id", String(64), nullable=True),
    Column("agent_id", String(63), nullable=False),
    Column("event", Integer, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("session_epoch", BigInteger, nullable=True),
    Column("detail", String(MAX_DETAIL), nullable=False, server_default=""),
    Index(None, "task_id"),
    Index(None, "time"),
    comment="What happened to tasks, in the order in which it was written.",
)


def _begins(events: FromClause) -> ColumnElement[bool]:
    # Numbers in the text itself, as SQLite wants them for a partial index.
    return or_(events.c.event == literal_column("1"), events.c.event > literal_column("8"))


# That a task was created leads to all that followed. With the leases and results in it, every commit would
# write a page of this index for each agent that it is about. Events above 8 are few, and may come when the
# creation is no longer kept.
Index(
    "ix_task_events_tasks_of_agent",
    task_events.c.agent_id,
    task_events.c.task_id,
    sqlite_where=_begins(task_events),
    postgresql_where=_begins(task_events),
)

FILTER = FilterSchema(
    {
        "event_type": EnumField(
            {event.name: int(event) for event in DeliveryEvent}, prefix="DELIVERY_EVENT_TYPE_"
        ),
        "attempt_id": TextField(),
        "session_epoch": IntegerField(),
        "detail": TextField(),
    }
)
"""What a filter over events may name."""

_COLUMNS = {
    "event_type": task_events.c.event,
    **{name: task_events.c[name] for name in ("attempt_id", "session_epoch", "detail")},
}

_INSERT = Prepared(
    insert(task_events),
    ("task_id", "attempt_id", "agent_id", "event", "time", "session_epoch", "detail"),
)
_OF_END = {
    TaskState.EXPIRED: DeliveryEvent.EXPIRED,
    TaskState.SKIPPED: DeliveryEvent.SKIPPED,
    TaskState.SUPERSEDED: DeliveryEvent.SUPERSEDED,
}


async def insert_events(work: UnitOfWork, rows: list[EventRow]) -> None:
    """Insert events; ``UnitOfWork.before_commit`` calls it with all of a transaction."""
    await _INSERT.run_each(work.connection, rows)


async def insert_of_tasks(
    work: UnitOfWork,
    chosen: ColumnElement[bool],
    event: DeliveryEvent,
    now: int,
    detail: str | ColumnElement[str] = "",
) -> None:
    """Insert one event for each of the tasks that a condition chooses, by one statement."""
    words = literal(bounded(detail), String) if isinstance(detail, str) else detail
    source = select(
        tasks.c.task_id,
        tasks.c.current_attempt_id,
        tasks.c.agent_id,
        literal(int(event), Integer),
        literal(now, BigInteger),
        words,
    ).where(chosen)
    columns = ["task_id", "attempt_id", "agent_id", "event", "time", "detail"]
    await work.connection.execute(insert(task_events).from_select(columns, source))


async def insert_ended(
    work: UnitOfWork, task_ids: Sequence[str], state: TaskState, reason: str, now: int
) -> None:
    """Insert that tasks ended in a state without a result; of at most as many as one statement may name."""
    event = _OF_END.get(state, DeliveryEvent.ENDED)
    detail = f"{state.name}: {reason}" if event is DeliveryEvent.ENDED else reason
    await insert_of_tasks(work, tasks.c.task_id.in_(task_ids), event, now, detail)


async def insert_overtaken(work: UnitOfWork, times: Mapping[str, int]) -> None:
    """Insert that leases end because the agent has an earlier attempt; ``times`` by task id."""
    source = select(
        task_attempts.c.task_id,
        task_attempts.c.attempt_id,
        task_attempts.c.agent_id,
        literal(int(DeliveryEvent.LAPSED), Integer),
        literal(max(times.values()), BigInteger),
        task_attempts.c.session_epoch,
        literal("the agent has an earlier attempt in its journal", String),
    ).where(
        task_attempts.c.task_id.in_(list(times)),
        IS_LIVE,
        task_attempts.c.state == int(AttemptState.LEASED),
    )
    columns = ["task_id", "attempt_id", "agent_id", "event", "time", "session_epoch", "detail"]
    await work.connection.execute(insert(task_events).from_select(columns, source))


async def insert_created(work: UnitOfWork, batch_id: str, now: int) -> None:
    """Insert that the tasks of a batch were created which this transaction has made."""
    made = and_(tasks.c.batch_id == batch_id, tasks.c.revision == await work.revision())
    await insert_of_tasks(work, made, DeliveryEvent.CREATED, now)


async def insert_unattempted(work: UnitOfWork, ended: list[tuple[TaskState, int]]) -> None:
    """Insert which tasks this transaction has ended that were in no attempt, by statements over many.

    ``ended`` are states and instants; ``UnitOfWork.before_commit`` calls it with all of a transaction.
    """
    for state, now in dict(ended).items():
        chosen = and_(
            tasks.c.revision == await work.revision(),
            tasks.c.state == int(state),
            tasks.c.current_attempt_id.is_(None),
        )
        event = _OF_END.get(state, DeliveryEvent.ENDED)
        words = (
            tasks.c.state_reason if event in _OF_END.values() else f"{state.name}: " + tasks.c.state_reason
        )
        await insert_of_tasks(work, chosen, event, now, func.substr(words, 1, MAX_DETAIL))


async def insert_cancel_requested(work: UnitOfWork, task_ids: Sequence[str], reason: str, now: int) -> None:
    """Insert which of these tasks this transaction has asked to stop."""
    asked = and_(tasks.c.task_id.in_(task_ids), tasks.c.revision == await work.revision(), IS_OPEN)
    await insert_of_tasks(work, asked, DeliveryEvent.CANCEL_REQUESTED, now, reason)


async def insert_replayed(work: UnitOfWork, now: int) -> None:
    """Insert which tasks this transaction has replayed, and that the new ones were created."""
    fresh = and_(tasks.c.revision == await work.revision(), tasks.c.replay_of.is_not(None))
    await insert_of_tasks(work, fresh, DeliveryEvent.CREATED, now)
    former = tasks.alias()
    of_fresh = select(former.c.replay_of).where(
        former.c.revision == await work.revision(), former.c.replay_of.is_not(None)
    )
    await insert_of_tasks(work, tasks.c.task_id.in_(of_fresh), DeliveryEvent.REPLAYED, now)


async def page(
    connection: AsyncConnection,
    choice: Choice,
    filtered: BoundFilter,
    after: tuple[int, int] | None,
    limit: int,
) -> list[EventRecord]:
    """Return at most ``limit`` events by (time, id), above ``after``."""
    events = task_events.c
    conditions = [*_within(choice), *_beyond(after), compile_filter(filtered, _COLUMNS)]
    if choice.task_id:
        conditions.append(events.task_id == choice.task_id)
    if choice.agent_id:
        begun = task_events.alias()
        of_agent = select(begun.c.task_id).where(begun.c.agent_id == choice.agent_id, _begins(begun))
        conditions += [events.task_id.in_(of_agent), events.agent_id == choice.agent_id]
    rows = await connection.execute(
        select(task_events).where(*conditions).order_by(events.time, events.id).limit(limit)
    )
    return [
        EventRecord(
            row.id,
            row.task_id,
            row.attempt_id,
            row.agent_id,
            row.event,
            row.time,
            row.session_epoch,
            row.detail,
        )
        for row in rows
    ]


async def lost(connection: AsyncConnection, choice: Choice) -> int:
    """Return how many observations of any task were dropped in the time that is asked for."""
    statement = select(task_events.c.detail).where(
        task_events.c.task_id == "",
        task_events.c.event == int(DeliveryEvent.OBSERVATIONS_LOST),
        *_within(choice),
    )
    return sum(int(number) for number in (await connection.execute(statement)).scalars())


async def prune(
    work: UnitOfWork, before: int, after: tuple[int, int] | None, limit: int
) -> tuple[int, tuple[int, int] | None]:
    """Look at ``limit`` events from before an instant, oldest first, and delete those that nobody needs.

    That a task was created is kept for as long as it is open or another event of it is: by it an agent's
    events are found. ``after`` is the (time, id) up to which was looked before. Returns how many were
    deleted, and up to where was looked; None once there is no older event beyond.
    """
    events, later = task_events.c, task_events.alias()
    open_task = exists().where(tasks.c.task_id == events.task_id, IS_OPEN)
    goes_on = exists().where(later.c.task_id == events.task_id, later.c.time >= before)
    needed = and_(events.event == int(DeliveryEvent.CREATED), or_(open_task, goes_on))
    looked = (
        select(events.id, events.time, needed.label("needed"))
        .where(events.time < before, *_beyond(after))
        .order_by(events.time, events.id)
        .limit(limit)
    )
    rows = (await work.connection.execute(looked)).all()
    over = [row.id for row in rows if not row.needed]
    if over:
        await work.connection.execute(delete(task_events).where(events.id.in_(over)))
    return len(over), (rows[-1].time, rows[-1].id) if len(rows) == limit else None


def _beyond(place: tuple[int, int] | None) -> list[ColumnElement[bool]]:
    if place is None:
        return []
    time, event_id = place
    events = task_events.c
    return [events.time >= time, or_(events.time > time, events.id > event_id)]


def _within(choice: Choice) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if choice.start is not None:
        conditions.append(task_events.c.time >= choice.start)
    if choice.end is not None:
        conditions.append(task_events.c.time < choice.end)
    return conditions
