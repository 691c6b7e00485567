"""Reading agents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from sqlalchemy import RowMapping, and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.agents.records import AgentRecord, HostRecord
from controlplane.agents.rules import Presence, PresenceReason
from controlplane.agents.store.selecting import alive, matching
from controlplane.agents.store.tables import agent_groups, agent_labels, agents
from controlplane.storage.prepared import Prepared, each, listed
from controlplane.storage.watching import Cursor, Seen

Connection: TypeAlias = AsyncConnection
"""What other modules call a connection: it comes out of ``Database.reading`` or a unit of work."""

# What a record is made of; nonces and the like stay in the database.
_HIDDEN = ("nonce", "previous_nonce", "boot_id", "gateway_id", "bucket")
# Most agents are in no group or in one: a list in their row costs no statement. Names have no comma.
GROUPS = (
    select(func.aggregate_strings(agent_groups.c.name, ","))
    .where(agent_groups.c.agent_id == agents.c.agent_id)
    .correlate(agents)
    .scalar_subquery()
    .label("groups")
)
"""An agent's groups in one text; see ``groups_in``."""

_SHOWN = [*(column for column in agents.c if column.name not in _HIDDEN), GROUPS]


def groups_in(text: str | None) -> tuple[str, ...]:
    """Return the names that a ``GROUPS`` has, in order."""
    return tuple(sorted(text.split(","))) if text else ()


async def find(connection: AsyncConnection, agent_id: str) -> AgentRecord | None:
    """Return an agent that is not deleted, or None."""
    statement = select(*_SHOWN).where(agents.c.agent_id == agent_id, alive())
    rows = (await connection.execute(statement)).mappings().all()
    return (await _records(connection, rows))[0] if rows else None


_EXISTING = select(agents.c.agent_id, agents.c.presence).where(
    agents.c.agent_id.in_(each("agent_ids")), alive()
)
_PRESENCES = Prepared(_EXISTING)
_LOCKED = Prepared(_EXISTING.order_by(agents.c.agent_id).with_for_update(of=agents))


async def presences(
    connection: AsyncConnection, agent_ids: Iterable[str], *, lock: bool = False
) -> dict[str, Presence]:
    """Return the presence of those of ``agent_ids`` that are enrolled and not deleted.

    With ``lock``, no other transaction that locks them goes on before this one ends.
    """
    asked = _LOCKED if lock else _PRESENCES
    rows = await asked.rows(connection, {"agent_ids": listed(agent_ids)})
    return {row.agent_id: Presence(row.presence) for row in rows}


async def page(connection: AsyncConnection, text: str, after: str, limit: int) -> list[AgentRecord]:
    """Return at most ``limit`` agents that match a filter, ordered by id, above ``after``."""
    condition = and_(alive(), matching(text), agents.c.agent_id > after)
    statement = select(*_SHOWN).where(condition).order_by(agents.c.agent_id).limit(limit)
    return await _records(connection, (await connection.execute(statement)).mappings().all())


async def total(connection: AsyncConnection, text: str) -> int:
    """Return how many agents match a filter."""
    statement = select(func.count()).select_from(agents).where(and_(alive(), matching(text)))
    return int((await connection.execute(statement)).scalar_one())


async def counts(connection: AsyncConnection) -> Mapping[Presence, int]:
    """Return how many agents have each presence."""
    statement = select(agents.c.presence, func.count()).where(alive()).group_by(agents.c.presence)
    found = {Presence(presence): count for presence, count in await connection.execute(statement)}
    return {presence: found.get(presence, 0) for presence in Presence}


async def watched(
    connection: AsyncConnection, text: str, after: Cursor, limit: int
) -> Sequence[Seen[AgentRecord | None]]:
    """Return at most ``limit`` agents above the cursor in the order of commits.

    Of one that is deleted or does not match, only the place is returned.
    """
    matches = case((and_(alive(), matching(text)), 1), else_=0)
    revision, agent_id = after
    above = or_(
        agents.c.revision > revision, and_(agents.c.revision == revision, agents.c.agent_id > agent_id)
    )
    statement = (
        select(*_SHOWN, matches.label("matches"))
        .where(agents.c.revision >= revision, above)
        .order_by(agents.c.revision, agents.c.agent_id)
        .limit(limit)
    )
    rows = (await connection.execute(statement)).mappings().all()
    records = await _records(connection, [row for row in rows if row["matches"]])
    found = {record.agent_id: record for record in records}
    return [
        Seen(
            row=found.get(row["agent_id"]),
            cursor=(row["revision"], row["agent_id"]),
            matches=bool(row["matches"]),
        )
        for row in rows
    ]


async def labels_of(connection: AsyncConnection, agent_ids: Sequence[str]) -> Mapping[str, dict[str, str]]:
    """Return the labels of each of ``agent_ids``."""
    labels: dict[str, dict[str, str]] = {agent_id: {} for agent_id in agent_ids}
    if labels:
        statement = select(agent_labels).where(agent_labels.c.agent_id.in_(list(agent_ids)))
        for agent_id, key, value in await connection.execute(statement.order_by(agent_labels.c.key)):
            labels[agent_id][key] = value
    return labels


async def _records(connection: AsyncConnection, rows: Sequence[RowMapping]) -> list[AgentRecord]:
    labels = await labels_of(connection, [row["agent_id"] for row in rows])
    return [_record(row, labels[row["agent_id"]]) for row in rows]


def _record(row: RowMapping, labels: Mapping[str, str]) -> AgentRecord:
    return AgentRecord(
        agent_id=row["agent_id"],
        labels=labels,
        notes=row["notes"],
        presence=Presence(row["presence"]),
        presence_time=row["presence_time"],
        presence_reason=PresenceReason(row["presence_reason"]),
        presence_detail=row["presence_detail"],
        last_seen_time=row["last_seen_time"],
        host=HostRecord(**{name: row[name] for name in HostRecord.__slots__}),
        agent_version=row["agent_version"],
        task_kinds=tuple(json.loads(row["task_kinds"])),
        inventory_digest=row["inventory_digest"],
        clock_offset=row["clock_offset"],
        session_epoch=row["session_epoch"],
        journal_id=row["journal_id"],
        suspected_clone=row["suspected_clone"],
        certificate_expire_time=row["certificate_expire_time"],
        enroll_time=row["enroll_time"],
        update_time=row["update_time"],
        etag=etag(row["edit_version"]),
        groups=groups_in(row["groups"]),
    )


def etag(edit_version: int) -> str:
    """Return the etag of an agent's ``edit_version``."""
    return f"v{edit_version}"
