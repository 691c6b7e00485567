"""Importing exports: read in processes of their own, written beside what is in force, changed over in one
step.

A crash, a bad member or a refusal leaves the import before in force. What was written until then is deleted
by a later import. Bounded transactions, so that others write in between.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from controlplane.packaging.advisories import rules
from controlplane.packaging.advisories.exports import Export, ExportError
from controlplane.packaging.advisories.records import Standing
from controlplane.packaging.advisories.scanning import facts_of
from controlplane.packaging.advisories.store import imports
from controlplane.packaging.advisories.store.imports import Batch
from controlplane.storage.database import Database
from controlplane.storage.slices import Slice, delete_in_slices
from controlplane.storage.unit_of_work import UnitOfWork

ROWS = 10_000
"""Rows in one transaction: a tenth of a second on SQLite, where nobody else can write meanwhile."""

PARTS = 2
"""Processes that read one export. More than two do not help: this one writes what they read."""

ALONE_BELOW = 500
"""Records in a folder that one process reads faster than a second one starts."""

ALONE_BELOW_BYTES = 500_000
"""The same for a zip, which this process does not open."""

DISCARDED = 10_000
"""Rows that one transaction deletes."""

LOADING_LIFE = 3_600_000_000
"""Microseconds after which an import that is still being loaded is of a process that died."""

_MAX_LINE = 32 * 1024 * 1024
"""Bytes of a line of a reading process, which are three times those of its record at most."""

_AHEAD = 256
"""Lines of a process that may wait to be written."""

_ROOT = Path(__file__).parents[3]

Progress = Callable[["Stage"], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """How far an import is: records read, of how many. Told of again and again."""

    ecosystem: str
    read: int
    total: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    ecosystem: str
    version: int
    digest: str
    records: int
    entries: int
    withdrawn: int
    newest_modified: int
    unchanged: bool = False
    """True where the same records were in force already; they are written anew, under a new version."""
    loss: rules.Loss = field(default_factory=rules.Loss)
    """Records that are missing or went back, within what is allowed or was accepted."""


@dataclass(slots=True)
class _Loaded:
    """What was read of an export so far."""

    digests: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By id: the record's digest, and the member that it was in."""
    entries: int = 0
    withdrawn: int = 0
    newest: int = 0
    releases: dict[str, int] = field(default_factory=dict)

    def add(self, line: dict[str, Any]) -> None:
        """Count a record. Raises ``ExportError`` for an id that was there before."""
        identifier = line["id"]
        if identifier in self.digests:
            members = f"{self.digests[identifier][1]} and {line['member']}"
            raise ExportError(f"{identifier} is the id of two records, {members}; get the export anew")
        self.digests[identifier] = (line["sha256"], line["member"])
        self.withdrawn += line["withdrawn"] is not None
        self.newest = max(self.newest, line["modified"])
        self.entries += len(line["packages"])
        for release, _, _ in line["packages"]:
            self.releases[release] = self.releases.get(release, 0) + 1

    def facts(self, ecosystem: str) -> rules.Facts:
        """Return what the rules ask; the digest is the same for a zip and a folder of the same records."""
        told = "".join(f"{identifier} {digest}\n" for identifier, (digest, _) in sorted(self.digests.items()))
        digest = hashlib.sha256(told.encode()).hexdigest()
        return rules.Facts(ecosystem, digest, len(self.digests), self.entries, self.newest)


async def import_export(
    database: Database,
    export: Export,
    *,
    now: int,
    progress: Progress | None = None,
    exported: int = 0,
    accept_rollback: bool = False,
) -> Imported:
    """Import one export and put it in force.

    ``exported`` is an operator's word when it was made, in microseconds, for exports whose records do not
    tell how far they know; 0 for none. ``accept_rollback`` is one that it may know less than what is in
    force. Raises ``exports.ExportError`` for what cannot be read, and ``rules.AdvisoryDataError`` for what
    may not come into force; both leave in force what was.
    """
    standing = await _standing(database, export.ecosystem)
    async with database.unit_of_work() as work:
        version = await imports.begin(work, export.ecosystem, now)
    try:
        loaded = await _load(database, version, export, progress)
        loaded.newest = max(loaded.newest, exported)
        imported = await _change_over(database, version, standing, loaded, now, export, accept_rollback)
    except BaseException:
        # Also where the caller is cancelled; where the process dies, ``LOADING_LIFE`` tells.
        with suppress(Exception):
            async with database.unit_of_work() as work:
                await imports.fail(work, version)
        raise
    await discard(database, now)
    return imported


async def discard(database: Database, now: int) -> int:
    """Delete rows of imports that are not in force; returns how many."""

    async def step(work: UnitOfWork) -> Slice:
        deleted = await imports.discard(work, now - LOADING_LIFE, DISCARDED)
        return Slice(deleted, more=deleted >= DISCARDED)

    return await delete_in_slices(database, step)


async def _standing(database: Database, ecosystem: str) -> Standing | None:
    found = await database.read(imports.standings)
    return next((one for one in found if one.ecosystem == ecosystem), None)


async def _load(database: Database, version: int, export: Export, progress: Progress | None) -> _Loaded:
    loaded, batch, total = _Loaded(), Batch(), 0
    async with aclosing(_lines(export)) as lines:
        async for line in lines:
            if "members" in line:
                total += line["members"]
                continue
            loaded.add(line)
            _gather(batch, line)
            if len(batch) >= ROWS:
                await _write(database, version, batch)
                batch = Batch()
                _tell(progress, export, loaded, total)
    await _write(database, version, batch)
    _tell(progress, export, loaded, total)
    return loaded


def _tell(progress: Progress | None, export: Export, loaded: _Loaded, total: int) -> None:
    if progress is not None:
        progress(Stage(export.ecosystem, len(loaded.digests), total))


def _gather(batch: Batch, line: dict[str, Any]) -> None:
    identifier = line["id"]
    document = base64.b64decode(line["document"])
    batch.records.append((identifier, line["modified"], line["withdrawn"], line["brief"].encode(), document))
    batch.packages += [
        (release, name, identifier, base64.b64decode(entry)) for release, name, entry in line["packages"]
    ]
    batch.aliases += [(alias, identifier) for alias in line["aliases"]]


async def _write(database: Database, version: int, batch: Batch) -> None:
    async def body(work: UnitOfWork) -> None:
        await imports.add(work, version, batch)

    await database.transact(body)


async def _change_over(
    database: Database,
    version: int,
    standing: Standing | None,
    loaded: _Loaded,
    now: int,
    export: Export,
    accept_rollback: bool,
) -> Imported:
    facts = loaded.facts(export.ecosystem)
    rules.check_content(facts, now)
    unchanged = standing is not None and standing.digest == facts.digest
    if standing is not None and unchanged:
        # What was known to be as new as that, by an operator's word, does not grow older by coming again.
        facts = replace(facts, newest=max(facts.newest, standing.newest_modified))
    loss, accepted = rules.Loss(), False
    if standing is not None and not unchanged:
        former = standing.version
        loss = await database.read(lambda connection: imports.loss(connection, former, version))
        accepted = _went_back(facts, standing, loss, accept_rollback)

    async def body(work: UnitOfWork) -> bool:
        return await imports.change_over(
            work,
            version,
            standing.version if standing else None,
            facts,
            withdrawn=loaded.withdrawn,
            releases=loaded.releases,
            rollback_accepted=accepted,
        )

    # The same records are put in force anew: what is damaged in the store is whole again.
    if not await database.transact(body):
        raise rules.AdvisoryDataError(
            f"{export.ecosystem}: another import came into force meanwhile; import again if this one is newer"
        )
    return Imported(
        ecosystem=facts.ecosystem,
        version=version,
        digest=facts.digest,
        records=facts.records,
        entries=facts.entries,
        withdrawn=loaded.withdrawn,
        newest_modified=facts.newest,
        unchanged=unchanged,
        loss=loss,
    )


def _went_back(facts: rules.Facts, standing: Standing, loss: rules.Loss, accept: bool) -> bool:
    """Return whether an import takes knowledge back, which an operator accepts. Raises where none does."""
    try:
        rules.check_progress(facts, facts_of(standing), standing.newest_ever, loss)
    except rules.RolledBackError:
        if not accept:
            raise
        return True
    return False


async def _lines(export: Export) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the lines of all reading processes as they come; ends them, whatever happens."""
    parts = await asyncio.to_thread(_parts, export)
    processes = [await _start(export, part, parts) for part in range(parts)]
    queue: _Queue = asyncio.Queue(_AHEAD * parts)
    readers = [asyncio.create_task(_hear(process, export, queue)) for process in processes]
    try:
        open_readers = len(readers)
        while open_readers:
            heard = await queue.get()
            if isinstance(heard, ExportError):
                raise heard
            if heard is None:
                open_readers -= 1
            else:
                yield heard
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await _end(processes)


def _parts(export: Export) -> int:
    try:
        if export.is_zip:
            return PARTS if export.path.stat().st_size >= ALONE_BELOW_BYTES else 1
        return PARTS if len(os.listdir(export.path)) >= ALONE_BELOW else 1
    except OSError as error:
        raise ExportError(f"{export.path}: cannot be read: {error.strerror}") from None


async def _start(export: Export, part: int, parts: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, {str(_ROOT)!r}); "
        "from controlplane.packaging.advisories.reading import main; main()",
        str(export.path.resolve()),
        export.ecosystem,
        str(part),
        str(parts),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_MAX_LINE,
        env={"PYTHONIOENCODING": "utf-8"},
    )


_Queue = asyncio.Queue[dict[str, Any] | ExportError | None]


async def _hear(process: asyncio.subprocess.Process, export: Export, queue: _Queue) -> None:
    """Put what a reading process says into the queue, then None; or the error that it told of."""
    done = False
    try:
        while raw := await _line(process):
            line = json.loads(raw)
            if "error" in line:
                await queue.put(ExportError(line["error"]))
                return
            done = "done" in line
            if not done:
                await queue.put(line)
    except (OSError, ValueError) as error:
        await queue.put(ExportError(f"{export.path}: what reads it cannot be understood: {error}"))
        return
    status = await process.wait()
    early = ExportError(f"{export.path}: the process that reads it ended early (status {status})")
    await queue.put(None if done else early)


async def _line(process: asyncio.subprocess.Process) -> bytes:
    return await process.stdout.readline() if process.stdout is not None else b""


async def _end(processes: Sequence[asyncio.subprocess.Process]) -> None:
    for process in processes:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        # Whatever is left in its pipe goes, so that nothing of it stays open.
        await process.communicate()
