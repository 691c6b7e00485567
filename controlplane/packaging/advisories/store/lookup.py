"""Asking for many packages and records in few statements."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.packaging.advisories.records import Record, Standing
from controlplane.packaging.advisories.rows import EntryError, decode_brief
from controlplane.packaging.advisories.rules import CorruptError
from controlplane.packaging.advisories.store import imports
from controlplane.packaging.advisories.store.tables import advisories, advisory_aliases, advisory_packages
from controlplane.storage.prepared import Prepared, each, listed

MAX_KEYS = 5_000
"""Names in one statement."""

T = TypeVar("T")

_packages, _aliases, _records = advisory_packages.c, advisory_aliases.c, advisories.c

_ENTRIES = Prepared(
    select(_packages.name, _packages.advisory_id, _packages.affected).where(
        _packages.import_version == bindparam("version"),
        _packages.ecosystem == bindparam("ecosystem"),
        _packages.name.in_(each("names")),
    )
)
_LINKED = Prepared(
    select(_aliases.alias, _aliases.advisory_id).where(
        _aliases.import_version == bindparam("version"), _aliases.alias.in_(each("names"))
    )
)
_BRIEFS = Prepared(
    select(_records.advisory_id, _records.modified, _records.withdrawn, _records.brief).where(
        _records.import_version == bindparam("version"), _records.advisory_id.in_(each("names"))
    )
)


class StoredAdvisories:
    """What is in force, as one snapshot of the database sees it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def standings(self) -> Sequence[Standing]:
        """Return the imports that are in force."""
        return await imports.standings(self._connection)

    async def counted(self, version: int) -> tuple[int, int]:
        """Return how many records and entries of an import are there now."""
        return await imports.counted(self._connection, version)

    async def entries(
        self, version: int, ecosystem: str, names: Collection[str]
    ) -> list[tuple[str, str, bytes]]:
        """Return name, advisory id and stored entry of every record about the packages, in no order."""
        return [
            (row.name, row.advisory_id, bytes(row.affected))
            for part in _parts(names)
            for row in await self._ask(_ENTRIES, version, part, ecosystem=ecosystem)
        ]

    async def linked(self, version: int, aliases: Collection[str]) -> list[tuple[str, str]]:
        """Return alias and id of every record that has one of the names as an alias, in no order."""
        return [
            (row.alias, row.advisory_id)
            for part in _parts(aliases)
            for row in await self._ask(_LINKED, version, part)
        ]

    async def briefs(self, version: int, ids: Collection[str]) -> dict[str, Record]:
        """Return what a scan needs of records, by id. Raises ``CorruptError``."""
        try:
            return {
                row.advisory_id: decode_brief(row.advisory_id, row.modified, row.withdrawn, row.brief)
                for part in _parts(ids)
                for row in await self._ask(_BRIEFS, version, part)
            }
        except EntryError as error:
            raise CorruptError(f"import {version}: {error}; import the advisories again") from None

    async def document(self, version: int, identifier: str) -> bytes | None:
        """Return a record's own bytes, None where there is none. Raises ``CorruptError``."""
        statement = select(_records.document).where(
            _records.import_version == version, _records.advisory_id == identifier
        )
        stored = (await self._connection.execute(statement)).scalar()
        try:
            return None if stored is None else zlib.decompress(stored)
        except zlib.error as error:
            raise CorruptError(f"import {version}: {identifier} cannot be read: {error}") from None

    async def _ask(self, statement: Prepared, version: int, names: Iterable[str], **more: Any) -> list[Any]:
        return await statement.rows(self._connection, {"version": version, "names": listed(names), **more})


def _parts(names: Collection[str]) -> Iterator[list[str]]:
    # In order: an index is read along, and the same question has the same statements.
    ordered = sorted(names)
    return (ordered[start : start + MAX_KEYS] for start in range(0, len(ordered), MAX_KEYS))
