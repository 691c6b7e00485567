"""A data folder with a fleet that is enrolled already: nobody waits for 10,000 enrolments.

The certificates are signed by the site's root and entered by the rooms that enrolment enters them
with, all in one transaction; that is the only difference to 10,000 calls of Enroll.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from controlplane.agents.rules import HealthLimits
from controlplane.agents.service import AgentsService, HostRecord, Registration
from controlplane.callers import IdentityKind
from controlplane.clock import SystemClock, to_micros
from controlplane.identity.records import CertificateRecord
from controlplane.identity.rules import CertificateState
from controlplane.identity.store import certificates
from controlplane.storage import migrate
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.trust import setup
from controlplane.trust.authority import CertificateAuthority, new_key, private_pem
from controlplane.trust.layout import AGENTS_ROOT, Layout, load_authority
from controlplane.wakeups import WakeUps

LABELS = {"site": "bench"}
_LIFE = timedelta(hours=24)


def make(folder: Path, location: Location, agents: int) -> Path:
    """Make a data folder and its database with ``agents`` enrolled agents; return their identities' file.

    The file has a line of JSON for each agent: ``id``, ``key`` and ``chain``.
    """
    now = datetime.now(UTC)
    setup.init(folder, "fleetwright.local", [], now)
    migrate.upgrade(location)
    identities = folder / "agents.jsonl"
    identities.touch(mode=0o600)
    identities.write_text("\n".join(asyncio.run(_enrol(folder, location, agents, now))) + "\n")
    return identities


async def _enrol(folder: Path, location: Location, agents: int, now: datetime) -> list[str]:
    database = open_database(location)
    limits = HealthLimits(timedelta(seconds=10), timedelta(seconds=45), timedelta(minutes=3))
    service = AgentsService(database, WakeUps(), SystemClock(), limits, b"")
    authority = load_authority(Layout(folder).trust, AGENTS_ROOT)
    try:
        async with database.unit_of_work() as work:
            return [
                await _enrol_one(service, authority, work, f"bench-{number:05d}", now)
                for number in range(agents)
            ]
    finally:
        await database.close()


async def _enrol_one(
    service: AgentsService, authority: CertificateAuthority, work: UnitOfWork, agent_id: str, now: datetime
) -> str:
    host = HostRecord(hostname=f"{agent_id}.bench", os_family="linux")
    await service.register(work, Registration(agent_id, LABELS, host), replace=False, now=now)
    key = new_key()
    public = key.public_key()
    leaf = authority.sign_client(public, IdentityKind.AGENT.value, agent_id, _LIFE, now)
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    record = CertificateRecord(
        serial=leaf.serial,
        agent_id=agent_id,
        key_digest=hashlib.sha256(spki).digest(),
        state=CertificateState.CURRENT,
        not_before=to_micros(leaf.not_before),
        not_after=to_micros(leaf.not_after),
        issue_time=to_micros(now),
        der=leaf.der,
    )
    await certificates.add(work, record)
    return json.dumps({"id": agent_id, "key": private_pem(key).decode(), "chain": leaf.pem.decode()})
