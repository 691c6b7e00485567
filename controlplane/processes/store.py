"""The room's table and its SQL."""

from __future__ import annotations

import json

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    Select,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.processes.records import ProcessRecord
from controlplane.storage.schema import metadata
from controlplane.storage.unit_of_work import UnitOfWork

processes = Table(
    "processes",
    metadata,
    Column("process_id", String(63), primary_key=True),
    Column("roles", String(63), nullable=False),
    Column("host", String(253), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("part", String(127), nullable=False, server_default=""),
    Column("start_time", BigInteger, nullable=False),
    Column("lease_expire_time", BigInteger, nullable=False),
    Column("addresses", Text, nullable=False, server_default="{}"),
    Column("version", String(64), nullable=False),
    Column("restarts", Integer, nullable=False, server_default=text("0")),
    comment="Every process that lives, or did until its lease lapsed; one that ends in order takes its"
    " row away.",
)


async def renew(work: UnitOfWork, process_id: str, expire: int) -> bool:
    """Prolong the lease of a process; returns False where it has none any more."""
    statement = update(processes).where(processes.c.process_id == process_id)
    return bool((await work.connection.execute(statement.values(lease_expire_time=expire))).rowcount)


async def add(work: UnitOfWork, record: ProcessRecord) -> None:
    """Add a process."""
    row = {name: getattr(record, name) for name in ProcessRecord.__slots__}
    row |= {
        "roles": ",".join(record.roles),
        "addresses": json.dumps(dict(record.addresses), separators=(",", ":")),
    }
    await work.connection.execute(insert(processes), row)


async def remove(work: UnitOfWork, process_id: str) -> None:
    """Take a process away that ends."""
    await work.connection.execute(delete(processes).where(processes.c.process_id == process_id))


async def remove_former(work: UnitOfWork, part: str) -> list[str]:
    """Take away those that were a supervisor's ``part`` before; returns their ids."""
    statement = delete(processes).where(processes.c.part == part).returning(processes.c.process_id)
    return list((await work.connection.execute(statement)).scalars())


async def remove_all(work: UnitOfWork) -> list[str]:
    """Take all processes away; returns their ids."""
    statement = delete(processes).returning(processes.c.process_id)
    return list((await work.connection.execute(statement)).scalars())


async def remove_lapsed(work: UnitOfWork, now: int) -> list[ProcessRecord]:
    """Take away the processes whose lease lapsed, and return them.

    One that renews meanwhile is not among them, or finds that it has no lease any more.
    """
    statement = delete(processes).where(processes.c.lease_expire_time <= now).returning(*processes.c)
    return [_record(row) for row in (await work.connection.execute(statement)).all()]


async def everyone(connection: AsyncConnection) -> list[ProcessRecord]:
    """Return all processes, oldest first."""
    statement = select(processes).order_by(processes.c.start_time, processes.c.process_id)
    return [_record(row) for row in (await connection.execute(statement)).all()]


def ids() -> Select[str]:
    """Return the ids of all processes, as a part of another room's statement."""
    return select(processes.c.process_id)


def _record(row: object) -> ProcessRecord:
    values = {name: getattr(row, name) for name in ProcessRecord.__slots__}
    values |= {
        "roles": tuple(filter(None, values["roles"].split(","))),
        "addresses": json.loads(values["addresses"]),
    }
    return ProcessRecord(**values)
