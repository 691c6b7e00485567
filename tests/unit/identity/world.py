"""An identity room on a real database, with a clock that tests turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from sqlalchemy import insert, select

from certs import requests
from controlplane.agents.rules import HealthLimits
from controlplane.agents.service import AgentsService, HostRecord
from controlplane.callers import Caller, IdentityKind
from controlplane.clock import to_micros
from controlplane.identity.operations import register_operations
from controlplane.identity.records import NewIdentity
from controlplane.identity.service import Enrolled, IdentityPolicy, IdentityService, Issued
from controlplane.storage.schema import commit_counter, metadata
from controlplane.storage.sqlite.database import SqliteDatabase
from controlplane.storage.writer import Writer
from controlplane.trust.adoption import Adoption
from controlplane.trust.authority import CertificateAuthority
from controlplane.wakeups import WakeUps

DOMAIN = "fleetwright.local"
START = datetime(2030, 1, 1, 12, tzinfo=UTC)
LIFE = timedelta(minutes=2)
HOST = HostRecord(hostname="node-1.example.com", os_family="linux")
ADMIN = Caller(IdentityKind.OPERATOR, "admin", f"spiffe://{DOMAIN}/operator/admin", "ad", 2**62)


class TurnedClock:
    """A clock that stands still until it is turned."""

    def __init__(self, start: datetime = START) -> None:
        self.time = start

    def now(self) -> datetime:
        return self.time

    def turn(self, duration: timedelta) -> None:
        self.time += duration


@dataclass
class World:
    database: SqliteDatabase
    agents: AgentsService
    identity: IdentityService
    authority: CertificateAuthority
    operators: CertificateAuthority
    clock: TurnedClock

    @property
    def now(self) -> int:
        return to_micros(self.clock.now())

    async def token(self, **wishes: Any) -> str:
        return (await self.identity.tokens.create(ADMIN, **wishes)).join_token

    async def issued(
        self, name: str, kind: IdentityKind = IdentityKind.OPERATOR, ttl: timedelta | None = None
    ) -> NewIdentity:
        return await self.identity.administrators.issue(ADMIN, kind, name, requests.good(name).der, ttl)

    async def enroll(
        self, agent_id: str = "node-1", token: str | None = None, csr: bytes | None = None
    ) -> Enrolled:
        joined = await self.token() if token is None else token
        request = requests.good(agent_id).der if csr is None else csr
        return await self.identity.enroll(joined, agent_id, request, HOST)

    async def contents(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything that the database holds."""
        async with self.database.reading() as connection:
            return {
                table.name: [tuple(row) for row in await connection.execute(select(table))]
                for table in metadata.sorted_tables
            }


def caller_of(issued: Issued, agent_id: str = "node-1") -> Caller:
    """Who the owner of a certificate is to the server."""
    certificate = x509.load_der_x509_certificate(issued.chain[0])
    return Caller(
        IdentityKind.AGENT,
        agent_id,
        f"spiffe://{DOMAIN}/agent/{agent_id}",
        f"{certificate.serial_number:x}",
        issued.not_after,
    )


@asynccontextmanager
async def making_world(
    folder: Path,
    authority: CertificateAuthority | None = None,
    clock: TurnedClock | None = None,
    operators: CertificateAuthority | None = None,
    adoption: Adoption | None = None,
) -> AsyncIterator[World]:
    clock, database = clock or TurnedClock(), SqliteDatabase(folder / "identity.db")
    async with database.write_engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(insert(commit_counter).values(id=1, value=0))
    writer = Writer(database)
    committing = asyncio.create_task(writer.run())
    limits = HealthLimits(timedelta(seconds=15), timedelta(seconds=45), timedelta(seconds=180))
    agents = AgentsService(database, WakeUps(), clock, limits, bytes(32))
    register_operations(writer, agents)
    authority = authority or CertificateAuthority.create("Test agents root", DOMAIN, START)
    operators = operators or CertificateAuthority.create("Test operators root", DOMAIN, START)
    policy = IdentityPolicy(LIFE, ("server.example.com:7443",), adoption)
    identity = IdentityService(database, writer, agents, authority, operators, clock, policy, bytes(32))
    agents.on_delete.append(identity.agent_deleted)
    try:
        yield World(database, agents, identity, authority, operators, clock)
    finally:
        committing.cancel()
        with suppress(asyncio.CancelledError):
            await committing
        await database.close()
