"""Uploads and the artefacts that they become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.packaging.store.tables import artefact_uploads, artefacts
from controlplane.storage.backends import insert_into
from controlplane.storage.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """An upload. ``committed`` bytes of ``size`` are on disk for certain."""

    upload_id: str
    file_name: str
    size: int
    sha256: str
    committed: int
    complete: bool
    creator: str
    create_time: int
    expire_time: int


@dataclass(frozen=True, slots=True)
class ArtefactRecord:
    """An artefact that is there whole."""

    sha256: str
    file_name: str
    size: int
    creator: str
    create_time: int


def _upload(row: Row[Any]) -> UploadRecord:
    return UploadRecord(
        row.upload_id,
        row.file_name,
        row.size,
        row.sha256,
        row.committed,
        bool(row.complete),
        row.creator,
        row.create_time,
        row.expire_time,
    )


async def insert_upload(work: UnitOfWork, upload: UploadRecord) -> None:
    """Insert a new upload."""
    values = {name: getattr(upload, name) for name in UploadRecord.__slots__}
    await work.connection.execute(insert(artefact_uploads).values(values))


async def find_upload(connection: AsyncConnection, upload_id: str) -> UploadRecord | None:
    """Return an upload, or None."""
    found = await connection.execute(
        select(artefact_uploads).where(artefact_uploads.c.upload_id == upload_id)
    )
    row = found.first()
    return _upload(row) if row else None


async def advance(work: UnitOfWork, upload_id: str, before: int, committed: int) -> bool:
    """Move an upload from ``before`` to ``committed``; False where another call has moved it."""
    statement = (
        update(artefact_uploads)
        .where(
            artefact_uploads.c.upload_id == upload_id,
            artefact_uploads.c.committed == before,
            artefact_uploads.c.complete.is_(False),
        )
        .values(committed=committed)
    )
    return (await work.connection.execute(statement)).rowcount == 1


async def complete(work: UnitOfWork, upload: UploadRecord, now: int) -> None:
    """Note that the artefact of an upload is there whole, by the name that it has here."""
    artefact = {
        "sha256": upload.sha256,
        "file_name": upload.file_name,
        "size": upload.size,
        "creator": upload.creator,
        "create_time": now,
    }
    fresh = insert_into(work.connection, artefacts)
    named = fresh.on_conflict_do_update(index_elements=["sha256"], set_={"file_name": upload.file_name})
    await work.connection.execute(named, [artefact])
    await work.connection.execute(
        update(artefact_uploads)
        .where(artefact_uploads.c.upload_id == upload.upload_id)
        .values(complete=True, committed=upload.size)
    )


async def rename_artefact(work: UnitOfWork, sha256: str, file_name: str) -> None:
    """Let an artefact be called as it was called last: one that came by a wrong name can be put right."""
    statement = update(artefacts).where(artefacts.c.sha256 == sha256).values(file_name=file_name)
    await work.connection.execute(statement)


async def restart(work: UnitOfWork, upload_id: str) -> None:
    """Begin an upload again whose bytes were wrong."""
    await work.connection.execute(
        update(artefact_uploads).where(artefact_uploads.c.upload_id == upload_id).values(committed=0)
    )


async def find_artefact(connection: AsyncConnection, sha256: str) -> ArtefactRecord | None:
    """Return an artefact, or None."""
    row = (await connection.execute(select(artefacts).where(artefacts.c.sha256 == sha256))).first()
    return ArtefactRecord(row.sha256, row.file_name, row.size, row.creator, row.create_time) if row else None


async def expired(connection: AsyncConnection, now: int, limit: int) -> list[str]:
    """Return at most ``limit`` uploads that may be thrown away: their time is over."""
    found = await connection.execute(
        select(artefact_uploads.c.upload_id).where(artefact_uploads.c.expire_time <= now).limit(limit)
    )
    return [row.upload_id for row in found]


async def delete_uploads(work: UnitOfWork, upload_ids: list[str]) -> None:
    """Forget uploads; what they became stays."""
    await work.connection.execute(
        delete(artefact_uploads).where(artefact_uploads.c.upload_id.in_(upload_ids))
    )
