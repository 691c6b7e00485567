"""The door to the advisories: importing them, what is in force, and scanning with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from controlplane.clock import Clock, duration_micros, to_micros
from controlplane.packaging.advisories import exports, importing, scanning, vex
from controlplane.packaging.advisories.importing import Imported, Progress
from controlplane.packaging.advisories.records import Scanned, Standing
from controlplane.packaging.advisories.store import imports
from controlplane.packaging.advisories.store.lookup import StoredAdvisories
from controlplane.packaging.advisories.telling import Told, told
from controlplane.packaging.records import Component
from controlplane.storage.database import Database


class AdvisoriesService:
    """Use cases around advisories."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def import_path(
        self,
        path: Path,
        *,
        ecosystem: str = "",
        progress: Progress | None = None,
        exported: datetime | None = None,
        accept_rollback: bool = False,
    ) -> list[Imported]:
        """Import every export below a path (``exports.find``), one after the other.

        Raises as ``importing.import_export``; the ecosystems before the one that failed are in force then.
        """
        done = []
        for export in exports.find(path, ecosystem):
            imported = await importing.import_export(
                self._database,
                export,
                now=to_micros(self._clock.now()),
                progress=progress,
                exported=0 if exported is None else to_micros(exported),
                accept_rollback=accept_rollback,
            )
            done.append(imported)
        return done

    async def status(self) -> Sequence[Standing]:
        """Return the imports that are in force, by ecosystem."""
        return await self._database.read(imports.standings)

    async def scan(
        self,
        components: Iterable[Component],
        *,
        max_age: timedelta,
        statements: Sequence[vex.Statement] = (),
        product: str = "",
        required: Collection[str] = (),
    ) -> Scanned:
        """Return what is known against components (``scanning.scan``), by one snapshot of the store.

        Raises ``rules.AdvisoryDataError`` for advisories that cannot be used.
        """
        given = list(components)
        now = to_micros(self._clock.now())

        async def question(connection: Any) -> Scanned:
            # On SQLite all of it runs in the connection's thread: the event loop is not held up.
            return await scanning.scan(
                given,
                StoredAdvisories(connection),
                now=now,
                max_age=duration_micros(max_age),
                statements=statements,
                product=product,
                required=required,
            )

        return await self._database.read(question)

    async def told(
        self, components: Iterable[Component], ecosystems: Collection[str]
    ) -> tuple[Sequence[Standing], Sequence[Told]]:
        """Return the imports in force, and what they say of components of ecosystems (``telling.told``)."""
        given = list(components)

        async def question(connection: Any) -> tuple[Sequence[Standing], Sequence[Told]]:
            stored = StoredAdvisories(connection)
            return await stored.standings(), await told(given, stored, ecosystems)

        return await self._database.read(question)

    async def document(self, version: int, advisory: str) -> bytes | None:
        """Return a record as it came, None where the import has none of that id."""
        return await self._database.read(
            lambda connection: StoredAdvisories(connection).document(version, advisory)
        )
