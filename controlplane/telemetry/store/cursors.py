"""How far each journal of an agent is committed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, exists, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.storage.backends import BACKENDS, POSTGRESQL, insert_for, insert_into
from controlplane.storage.prepared import Prepared
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.telemetry.rules import Stretches
from controlplane.telemetry.store.tables import telemetry_cursors

Key = tuple[str, str]
"""Agent id and journal id."""


@dataclass(frozen=True, slots=True)
class JournalCursor:
    """How far a journal is committed, how many of its numbers were given up, and which sessions stored it."""

    last_sequence: int
    dropped_total: int
    update_time: int
    stretches: Stretches = ()


NO_CURSOR = JournalCursor(0, 0, 0)
"""Of a journal that is not known."""


async def cursors(connection: AsyncConnection, agent_ids: Sequence[str]) -> dict[Key, JournalCursor]:
    """Return the cursors of all journals of ``agent_ids``, at most 10,000 of them."""
    statement = select(telemetry_cursors).where(telemetry_cursors.c.agent_id.in_(agent_ids))
    return _by_key(await connection.execute(statement))


def _by_key(rows: Iterable[Row[Any]]) -> dict[Key, JournalCursor]:
    return {
        (row.agent_id, row.journal_id): JournalCursor(
            row.last_sequence, row.dropped_total, row.update_time, _decoded(row.stretches)
        )
        for row in rows
    }


def _encoded(stretches: Stretches) -> str:
    return " ".join([f"{epoch}:{before}" for epoch, before in stretches])


def _decoded(text: str) -> Stretches:
    pairs = [stretch.partition(":") for stretch in text.split()]
    return tuple([(int(epoch), int(before)) for epoch, _, before in pairs])


async def cursors_of(connection: AsyncConnection, keys: Sequence[Key]) -> dict[Key, JournalCursor]:
    """Return the cursors of journals, and of others of their agents; one that is not known is left out."""
    return await cursors(connection, [agent_id for agent_id, _ in keys])


async def cursors_to_move(work: UnitOfWork, keys: Sequence[Key]) -> dict[Key, JournalCursor]:
    """Return the cursors of these journals, which nobody else moves until this transaction is over.

    On PostgreSQL one that is not there yet is made first, at 0: there is nothing else to lock, and two
    sessions of an agent may come with the same batch at the same moment.
    """
    if work.connection.dialect.name == POSTGRESQL:
        known = await _locked(work, keys)
        if missing := [key for key in keys if key not in known]:
            rows = [
                {"agent_id": agent_id, "journal_id": journal_id, "last_sequence": 0, "update_time": 0}
                for agent_id, journal_id in sorted(missing)
            ]
            fresh = insert_into(work.connection, telemetry_cursors).on_conflict_do_nothing()
            await work.connection.execute(fresh, rows)
            known |= await _locked(work, missing)
        return known
    return await cursors(work.connection, list({agent_id for agent_id, _ in keys}))


async def _locked(work: UnitOfWork, keys: Sequence[Key]) -> dict[Key, JournalCursor]:
    key = tuple_(telemetry_cursors.c.agent_id, telemetry_cursors.c.journal_id)
    ordered = select(telemetry_cursors).where(key.in_(keys)).order_by(*key)
    return _by_key(await work.connection.execute(ordered.with_for_update()))


_MOVED = ("last_sequence", "dropped_total", "update_time", "stretches")


def _upsert(dialect: str) -> Prepared:
    insert = insert_for(dialect, telemetry_cursors)
    written = {name: insert.excluded[name] for name in _MOVED}
    keys = [telemetry_cursors.c.agent_id, telemetry_cursors.c.journal_id]
    return Prepared(
        insert.on_conflict_do_update(index_elements=keys, set_=written),
        ("agent_id", "journal_id", *_MOVED),
    )


_UPSERTS = {dialect: _upsert(dialect) for dialect in BACKENDS}


async def write_cursors(work: UnitOfWork, moved: Mapping[Key, JournalCursor]) -> None:
    """Write the cursors of journals, known or not."""
    rows = [
        {
            "agent_id": agent_id,
            "journal_id": journal_id,
            "last_sequence": cursor.last_sequence,
            "dropped_total": cursor.dropped_total,
            "update_time": cursor.update_time,
            "stretches": _encoded(cursor.stretches),
        }
        for (agent_id, journal_id), cursor in moved.items()
    ]
    await _UPSERTS[work.connection.dialect.name].run_each(work.connection, rows)


async def prune_cursors(work: UnitOfWork, before: int, limit: int) -> int:
    """Delete at most ``limit`` cursors of journals that their agents left for a newer one before ``before``.

    The newest journal of an agent keeps its cursor however long it is silent: without it,
    what was committed would be asked for again and count as lost. Returns how many.
    """
    newer = telemetry_cursors.alias("newer")
    mine, theirs = telemetry_cursors.c, newer.c
    replaced = exists().where(theirs.agent_id == mine.agent_id, theirs.update_time > mine.update_time)
    old = (
        select(mine.agent_id, mine.journal_id)
        .where(mine.update_time < before, replaced.correlate(telemetry_cursors))
        .limit(limit)
    )
    statement = delete(telemetry_cursors).where(tuple_(mine.agent_id, mine.journal_id).in_(old))
    return (await work.connection.execute(statement)).rowcount
