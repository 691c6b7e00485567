"""Imports: filling one beside the one in force, changing over in one step, deleting what is left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, Table, and_, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.packaging.advisories.records import Standing
from controlplane.packaging.advisories.rules import Facts, Loss
from controlplane.packaging.advisories.store.tables import (
    FAILED,
    IN_FORCE,
    LOADING,
    SUPERSEDED,
    advisories,
    advisory_aliases,
    advisory_imports,
    advisory_packages,
)
from controlplane.storage.prepared import Prepared
from controlplane.storage.unit_of_work import UnitOfWork

MAX_LOST = 10_000
"""Lost records that are looked for; more than any import may lose."""

_OF_RECORDS = ("import_version", "advisory_id", "modified", "withdrawn", "brief", "document")
_OF_PACKAGES = ("import_version", "ecosystem", "name", "advisory_id", "affected")
_OF_ALIASES = ("import_version", "alias", "advisory_id")
_INSERT_RECORDS = Prepared(insert(advisories), _OF_RECORDS)
_INSERT_PACKAGES = Prepared(insert(advisory_packages), _OF_PACKAGES)
_INSERT_ALIASES = Prepared(insert(advisory_aliases), _OF_ALIASES)


@dataclass(slots=True)
class Batch:
    """Rows to write in one transaction, each without the version of its import, columns in their order."""

    records: list[tuple[str, int, int | None, bytes, bytes]] = field(default_factory=list)
    packages: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    aliases: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records) + len(self.packages) + len(self.aliases)


async def begin(work: UnitOfWork, ecosystem: str, now: int) -> int:
    """Make an import that is being loaded; returns its version."""
    statement = insert(advisory_imports).values(ecosystem=ecosystem, state=LOADING, import_time=now)
    return int((await work.connection.execute(statement.returning(advisory_imports.c.version))).scalar_one())


async def add(work: UnitOfWork, version: int, batch: Batch) -> None:
    """Write rows of an import that is being loaded."""
    for statement, columns, rows in (
        (_INSERT_RECORDS, _OF_RECORDS, batch.records),
        (_INSERT_PACKAGES, _OF_PACKAGES, batch.packages),
        (_INSERT_ALIASES, _OF_ALIASES, batch.aliases),
    ):
        await statement.run_each(
            work.connection, [dict(zip(columns, (version, *row), strict=True)) for row in rows]
        )


async def change_over(
    work: UnitOfWork,
    version: int,
    former: int | None,
    facts: Facts,
    *,
    withdrawn: int,
    releases: Mapping[str, int],
    rollback_accepted: bool,
) -> bool:
    """Put a loaded import in force instead of the ``former`` one, in the transaction of ``work``.

    Returns False, and changes nothing, where that one is not in force any more: another import was faster.
    """
    if await _in_force(work.connection, facts.ecosystem) != former:
        return False
    imports = advisory_imports
    if former is not None:
        retired = update(imports).where(imports.c.version == former, imports.c.state == IN_FORCE)
        if (await work.connection.execute(retired.values(state=SUPERSEDED))).rowcount != 1:
            return False
    values = {
        "state": IN_FORCE,
        "digest": facts.digest,
        "records": facts.records,
        "entries": facts.entries,
        "withdrawn": withdrawn,
        "newest_modified": facts.newest,
        "rollback_accepted": int(rollback_accepted),
        "releases": json.dumps(dict(sorted(releases.items()))),
    }
    loaded = update(imports).where(imports.c.version == version, imports.c.state == LOADING)
    return (await work.connection.execute(loaded.values(values))).rowcount == 1


async def fail(work: UnitOfWork, version: int) -> None:
    """Give up an import that is being loaded; its rows are deleted by ``discard``."""
    imports = advisory_imports
    statement = update(imports).where(imports.c.version == version, imports.c.state == LOADING)
    await work.connection.execute(statement.values(state=FAILED))


async def discard(work: UnitOfWork, loading_before: int, limit: int) -> int:
    """Delete at most ``limit`` rows of imports that are not in force; returns how many.

    One that is being loaded is left alone if it began since ``loading_before``: its process may live.
    """
    imports = advisory_imports.c
    dead = or_(
        imports.state.in_([SUPERSEDED, FAILED]),
        and_(imports.state == LOADING, imports.import_time < loading_before),
    )
    deleted = 0
    for table in (advisory_packages, advisory_aliases, advisories):
        if deleted < limit:
            deleted += await _discard_of(work, table, select(imports.version).where(dead), limit - deleted)
    return deleted


async def _discard_of(work: UnitOfWork, table: Table, versions: Any, limit: int) -> int:
    keys = [*table.primary_key.columns]
    some = select(*keys).where(table.c.import_version.in_(versions)).limit(limit)
    statement = delete(table).where(tuple_(*keys).in_(some))
    return (await work.connection.execute(statement)).rowcount


async def standings(connection: AsyncConnection) -> list[Standing]:
    """Return the imports that are in force, by ecosystem."""
    imports = advisory_imports
    known = select(imports).where(imports.c.state.in_([IN_FORCE, SUPERSEDED])).order_by(imports.c.version)
    newest: dict[str, int] = {}
    found: list[Row[Any]] = []
    for row in await connection.execute(known):
        # What an operator let go back begins anew from there.
        former = None if row.rollback_accepted else newest.get(row.ecosystem)
        newest[row.ecosystem] = row.newest_modified if former is None else max(former, row.newest_modified)
        if row.state == IN_FORCE:
            found.append(row)
    return [
        _standing(row, newest[row.ecosystem]) for row in sorted(found, key=lambda row: str(row.ecosystem))
    ]


def _standing(row: Row[Any], newest_ever: int) -> Standing:
    return Standing(
        ecosystem=row.ecosystem,
        version=row.version,
        digest=row.digest,
        records=row.records,
        newest_modified=row.newest_modified,
        import_time=row.import_time,
        releases=json.loads(row.releases),
        entries=row.entries,
        withdrawn=row.withdrawn,
        newest_ever=newest_ever,
    )


async def counted(connection: AsyncConnection, version: int) -> tuple[int, int]:
    """Return how many records and entries of an import are there now."""
    of_records = select(func.count()).select_from(advisories).where(advisories.c.import_version == version)
    packages = advisory_packages
    of_entries = select(func.count()).select_from(packages).where(packages.c.import_version == version)
    statement = select(of_records.scalar_subquery().label("a"), of_entries.scalar_subquery().label("b"))
    row = (await connection.execute(statement)).one()
    return int(row.a), int(row.b)


async def loss(connection: AsyncConnection, former: int, version: int) -> Loss:
    """Return what an import lacks of a former one."""
    old, new = advisories.alias("old"), advisories.alias("new")
    same = and_(new.c.import_version == version, new.c.advisory_id == old.c.advisory_id)
    statement = (
        select(old.c.advisory_id, new.c.advisory_id.label("kept"))
        .select_from(old.outerjoin(new, same))
        .where(
            old.c.import_version == former,
            or_(
                and_(new.c.advisory_id.is_(None), old.c.withdrawn.is_(None)),
                new.c.modified < old.c.modified,
            ),
        )
        .limit(MAX_LOST)
    )
    rows = (await connection.execute(statement)).all()
    return Loss([row.advisory_id for row in rows if row.kept is None], [row.kept for row in rows if row.kept])


async def _in_force(connection: AsyncConnection, ecosystem: str) -> int | None:
    imports = advisory_imports.c
    statement = select(imports.version).where(imports.state == IN_FORCE, imports.ecosystem == ecosystem)
    return (await connection.execute(statement)).scalar()
