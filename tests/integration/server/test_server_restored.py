"""An agent that renewed after the backup meets a server that was put back to the time of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1 import agent_registry_service_pb2 as registry
from fleetwright.v1 import task_service_pb2, telemetry_service_pb2

from controlplane.storage.backup import restoring, taking
from controlplane.trust.adoption import allow_adoption
from controlplane.trust.layout import DATABASE
from tests.integration.transport.doors import Refusal
from tests.support.admin import Admin
from tests.support.agents import RawAgent
from tests.support.in_process import LocalSite, serving
from tests.support.site import HOST
from tests.support.streams import read
from tests.support.streams import refused as stream_refused


def copied(folder: Path) -> bytes:
    """Return the database as its last commit left it."""
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        return connection.serialize()


def put_back(folder: Path, database: bytes) -> None:
    for name in (f"{DATABASE}-wal", f"{DATABASE}-shm"):
        (folder / name).unlink(missing_ok=True)
    (folder / DATABASE).write_bytes(database)


def at(site: LocalSite, agent: RawAgent) -> RawAgent:
    """Return the agent with the address of the server that serves now."""
    return replace(agent, address=f"{HOST}:{site.ports.agents}", channels=[])


async def refused(agent: RawAgent) -> Refusal:
    stream = agent.heartbeat()
    await stream.send(hello=agent.hello())
    return await stream.refused()


async def renewed_after_the_backup(folder: Path) -> tuple[bytes, RawAgent, RawAgent]:
    """Return the backup, and the agent with the certificate that it knows and the one that it does not."""
    async with serving(folder) as site:
        _, token = await site.admin().token()
        agent = await site.enroll("node-1", token)
        session = await agent.come()
        backup = copied(folder)
        later = replace(agent, identity=await agent.renew(session.stub), channels=[])
        await later.come()
        await later.close()
    return backup, agent, later


async def test_an_agent_that_renewed_since_is_refused_without_leave_and_adopted_with_it(folder: Path) -> None:
    backup, former, agent = await renewed_after_the_backup(folder)
    now = datetime.now(UTC)
    put_back(folder, backup)
    async with serving(folder) as site:
        kept_out = at(site, agent)
        answer = await refused(kept_out)
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_REVOKED")
        await kept_out.close()
    put_back(folder, backup)
    allow_adoption(folder, now, datetime.now(UTC), timedelta(hours=24))
    async with serving(folder) as site:
        let_in, old = at(site, agent), at(site, former)
        session = await let_in.come()
        await session.beat()
        assert (await refused(old)).reason == "CERTIFICATE_REVOKED"
        following = replace(let_in, identity=await let_in.renew(session.stub), channels=[])
        await following.come()
        for one in (let_in, old, following):
            await one.close()


async def test_what_was_adopted_stays_so_when_the_leave_is_over(folder: Path) -> None:
    backup, _, agent = await renewed_after_the_backup(folder)
    put_back(folder, backup)
    now = datetime.now(UTC)
    allow_adoption(folder, now, now, timedelta(hours=24))
    async with serving(folder) as site:
        let_in = at(site, agent)
        await let_in.come()
        await let_in.close()
    allow_adoption(folder, now - timedelta(days=2), now - timedelta(days=1), timedelta(hours=1))
    async with serving(folder) as site:
        again = at(site, agent)
        again.nonce = let_in.nonce
        await again.come()
        await again.close()


WATCHES: dict[str, Callable[[Admin, str], Any]] = {
    "agents": lambda admin, token: admin.agents.WatchAgents(registry.WatchAgentsRequest(resume_token=token)),
    "tasks": lambda admin, token: admin.tasks.WatchTasks(
        task_service_pb2.WatchTasksRequest(resume_token=token)
    ),
    "telemetry": lambda admin, token: admin.telemetry.WatchTelemetry(
        telemetry_service_pb2.WatchTelemetryRequest(resume_token=token)
    ),
}


@pytest.mark.parametrize("watched", WATCHES)
async def test_a_watch_of_before_a_restore_is_told_to_begin_anew(
    folder: Path, tmp_path: Path, watched: str
) -> None:
    """What it has seen may be undone, and what comes may have numbers that it has passed."""
    now, watch = datetime.now(UTC), WATCHES[watched]
    async with serving(folder) as site:
        backup = taking.take(folder, tmp_path / "backup.tar", product="1", now=now)
        token = (await read(watch(site.admin(), ""))).resume_token
    restoring.restore(folder, backup.path, now=now, force=True)
    async with serving(folder) as site:
        refusal = await stream_refused(watch(site.admin(), token))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")
        assert (await read(watch(site.admin(), ""))).resume_token
