"""What calls with a request_id made."""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from controlplane.packaging.store.tables import packaging_requests as table
from controlplane.storage.unit_of_work import UnitOfWork


async def find(work: UnitOfWork, creator: str, request_id: str) -> tuple[bytes, str] | None:
    """Return (digest of what was asked for, id of what was made), or None."""
    found = await work.connection.execute(
        select(table.c.digest, table.c.created_id).where(
            table.c.creator == creator, table.c.request_id == request_id
        )
    )
    row = found.first()
    return (row.digest, row.created_id) if row else None


async def add(
    work: UnitOfWork, creator: str, request_id: str, digest: bytes, created_id: str, now: int
) -> None:
    """Remember what a call made."""
    values = {
        "creator": creator,
        "request_id": request_id,
        "digest": digest,
        "created_id": created_id,
        "create_time": now,
    }
    await work.connection.execute(insert(table).values(values))


async def forget(work: UnitOfWork, creator: str, request_id: str) -> None:
    """Forget one call, whose work is gone."""
    await work.connection.execute(
        delete(table).where(table.c.creator == creator, table.c.request_id == request_id)
    )


async def forget_before(work: UnitOfWork, before: int) -> int:
    """Forget the calls from before an instant; returns how many."""
    return (await work.connection.execute(delete(table).where(table.c.create_time < before))).rowcount
