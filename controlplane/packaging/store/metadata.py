"""The TUF metadata as files, and what it releases: written together, one publication at a time.

Whoever publishes locks the row of the timestamp first and looks whether it still is the one that the
publication began with: two processes never give different files the same version.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.packaging.rules import Decision
from controlplane.packaging.store.tables import packages, tuf_files, tuf_targets
from controlplane.storage.backends import insert_into
from controlplane.storage.unit_of_work import UnitOfWork

TIMESTAMP = "timestamp.json"
_ROOTS = "%.root.json"

RELEASING = tuple(int(decision) for decision in Decision if decision.releases)
"""The decisions by which agents may have a package."""


@dataclass(frozen=True, slots=True)
class TargetRecord:
    """A path of the metadata: ``withdraw_time`` is None as long as it is released.

    ``package`` is empty for what belongs to none. ``evidence`` holds the digests of the lines of a file of
    attestations, with spaces between; empty for a package itself.
    """

    target_path: str
    channel: str
    package: str
    sha256: str
    size: int
    evidence: str = ""
    withdraw_time: int | None = None

    @property
    def live(self) -> bool:
        """Whether it is released now."""
        return self.withdraw_time is None


async def find_file(connection: AsyncConnection, file_name: str) -> bytes | None:
    """Return a file, or None."""
    return (await find_files(connection, [file_name])).get(file_name)


async def find_files(connection: AsyncConnection, file_names: Collection[str]) -> dict[str, bytes]:
    """Return those of the files that are there."""
    table = tuf_files.c
    statement = select(table.file_name, table.content).where(table.file_name.in_(file_names))
    return {row.file_name: bytes(row.content) for row in await connection.execute(statement)}


async def roots(connection: AsyncConnection) -> dict[str, bytes]:
    """Return every root."""
    table = tuf_files.c
    statement = select(table.file_name, table.content).where(table.file_name.like(_ROOTS))
    return {row.file_name: bytes(row.content) for row in await connection.execute(statement)}


async def lock_timestamp(connection: AsyncConnection) -> bytes | None:
    """Return the timestamp, which nobody else changes until the transaction ends; None for no repository."""
    # SQLite, which knows no such thing, writes one transaction at a time.
    statement = select(tuf_files.c.content).where(tuf_files.c.file_name == TIMESTAMP).with_for_update()
    row = (await connection.execute(statement)).first()
    return bytes(row.content) if row else None


async def begin(work: UnitOfWork, files: Mapping[str, bytes], now: int) -> bool:
    """Write the first files of a repository; False where there is one already."""
    stamp = {"file_name": TIMESTAMP, "content": files[TIMESTAMP], "create_time": now}
    fresh = insert_into(work.connection, tuf_files).values(stamp).on_conflict_do_nothing()
    if (await work.connection.execute(fresh.returning(tuf_files.c.file_name))).first() is None:
        return False
    await _insert(work, {name: content for name, content in files.items() if name != TIMESTAMP}, now)
    return True


async def add_files(work: UnitOfWork, files: Mapping[str, bytes], now: int) -> None:
    """Write the new files of a publication; of them, the timestamp alone takes the place of an older one."""
    await _insert(work, {name: content for name, content in files.items() if name != TIMESTAMP}, now)
    if TIMESTAMP in files:
        statement = update(tuf_files).where(tuf_files.c.file_name == TIMESTAMP)
        await work.connection.execute(statement.values(content=files[TIMESTAMP], create_time=now))


async def _insert(work: UnitOfWork, files: Mapping[str, bytes], now: int) -> None:
    rows = [{"file_name": name, "content": content, "create_time": now} for name, content in files.items()]
    if rows:
        await work.connection.execute(insert(tuf_files), rows)


async def prune(work: UnitOfWork, current: Collection[str], before: int) -> int:
    """Delete files from before a time that are not current, roots apart; returns how many."""
    table = tuf_files.c
    statement = delete(tuf_files).where(
        table.create_time < before, table.file_name.not_in(current), table.file_name.not_like(_ROOTS)
    )
    return int((await work.connection.execute(statement)).rowcount)


# --- what is released


async def targets_of(connection: AsyncConnection, package: str) -> list[TargetRecord]:
    """Return the paths that a package has or had, in their order."""
    return await _targets(connection, tuf_targets.c.package == package)


async def targets_at(connection: AsyncConnection, paths: Collection[str]) -> list[TargetRecord]:
    """Return those of the paths that are or were released."""
    return await _targets(connection, tuf_targets.c.target_path.in_(paths))


async def _targets(connection: AsyncConnection, condition: ColumnElement[bool]) -> list[TargetRecord]:
    statement = select(tuf_targets).where(condition).order_by(tuf_targets.c.target_path)
    return [
        TargetRecord(**{name: getattr(row, name) for name in TargetRecord.__slots__})
        for row in await connection.execute(statement)
    ]


async def put_targets(work: UnitOfWork, targets: Sequence[TargetRecord], now: int) -> None:
    """Note that paths are released."""
    for target in targets:
        values: dict[str, Any] = {name: getattr(target, name) for name in TargetRecord.__slots__}
        fresh = insert_into(work.connection, tuf_targets).values(**values, create_time=now)
        changed = {name: value for name, value in values.items() if name != "target_path"}
        statement = fresh.on_conflict_do_update(index_elements=["target_path"], set_=changed)
        await work.connection.execute(statement)


async def withdraw_targets(work: UnitOfWork, paths: Collection[str], now: int) -> None:
    """Note that paths are not released any more."""
    table = tuf_targets.c
    statement = update(tuf_targets).where(table.target_path.in_(paths), table.withdraw_time.is_(None))
    await work.connection.execute(statement.values(withdraw_time=now))


async def served(connection: AsyncConnection, sha256: str) -> int | None:
    """Return how many bytes agents get under a digest; None where they may not have them.

    They may have what is released, and of a package only while what was decided last lets them.
    """
    table = tuf_targets.c
    allowed = or_(table.package == "", packages.c.decision.in_(RELEASING))
    statement = (
        select(table.size)
        .select_from(tuf_targets.outerjoin(packages, packages.c.sha256 == table.package))
        .where(table.sha256 == sha256, table.withdraw_time.is_(None), allowed)
        .limit(1)
    )
    row = (await connection.execute(statement)).first()
    return int(row.size) if row else None


async def is_known(connection: AsyncConnection, sha256: str) -> bool:
    """Return whether a digest is that of a package, or of something that was released once."""
    package = select(packages.c.sha256).where(packages.c.sha256 == sha256)
    target = select(tuf_targets.c.sha256).where(tuf_targets.c.sha256 == sha256)
    return (await connection.execute(package.union(target).limit(1))).first() is not None


async def target_under(connection: AsyncConnection, path: str) -> TargetRecord | None:
    """Return what is released under a path now, or None."""
    found = [target for target in await targets_at(connection, [path]) if target.live]
    return found[0] if found else None


async def still_released(connection: AsyncConnection, digests: Collection[str]) -> set[str]:
    """Return those of the digests that a path is released with."""
    table = tuf_targets.c
    statement = select(table.sha256).where(table.sha256.in_(digests), table.withdraw_time.is_(None))
    return set((await connection.execute(statement)).scalars())
