"""Deployments on a real database, with the agents and the tasks that they work through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, update

from controlplane.filtering import read
from controlplane.packaging.deploying import FILTER, Deployments
from controlplane.packaging.deployment.rules import DeploymentStatus
from controlplane.packaging.rules import Decision
from controlplane.packaging.store.deployments import DeploymentRecord
from controlplane.packaging.store.tables import packages
from controlplane.storage.database import Database
from controlplane.storage.location import Location
from controlplane.tasks.operations import Finish, Progress
from controlplane.tasks.records import BatchRecord, Chosen, InstallDetail
from controlplane.tasks.rules import Outcome
from tests.contracts.agents_world import OPERATOR
from tests.contracts.tasks_world import TasksWorld, new_task, open_tasks_world

PACKAGE, OTHER = "a" * 64, "b" * 64
S = DeploymentStatus


@dataclass
class DeploymentsWorld:
    """The room, and short words for what happens to an installation."""

    work: TasksWorld
    deployments: Deployments

    async def package(
        self,
        sha256: str = PACKAGE,
        version: str = "1.0",
        decision: Decision = Decision.PASS,
        target_path: str = "stable/tool/1.0/tool.tar.gz",
    ) -> None:
        """Keep a package called tool, as the factory leaves it."""
        row = {
            "sha256": sha256, "package_name": "tool", "version": version, "artefact_type": "archive",
            "target_platform": "any", "size": 7, "pipeline_id": "p1", "channel": "stable",
            "target_path": target_path, "decision": int(decision), "decision_time": self.work.now,
            "component_count": 1, "file_count": 1, "claimed_file_count": 1, "create_time": self.work.now,
        }  # fmt: skip
        async with self.work.world.database.unit_of_work() as work:
            await work.connection.execute(insert(packages).values(row))

    async def withdraw(self, sha256: str = PACKAGE) -> None:
        async with self.work.world.database.unit_of_work() as work:
            await work.connection.execute(
                update(packages).where(packages.c.sha256 == sha256).values(target_path="", channel="")
            )

    async def deploy(
        self, selector: str = "*", package: str = PACKAGE, request_id: str = "", **options: Any
    ) -> BatchRecord:
        return await self.deployments.deploy(
            OPERATOR, package, Chosen(selector), new_task(**options).options, request_id, allow_empty=False
        )

    async def begin(self, agent_id: str = "a1", package: str = PACKAGE, **options: Any) -> str:
        """Deploy to one agent, which begins; returns the attempt's id."""
        await self.deploy(f"agent_id = {agent_id}", package, **options)
        return await self.run(agent_id)

    async def run(self, agent_id: str = "a1") -> str:
        (assigned,) = await self.work.lease(agent_id)
        await self.work.accept(assigned.attempt_id, agent_id)
        return assigned.attempt_id

    async def say(self, attempt_id: str, status: int, agent_id: str = "a1") -> None:
        """Let the agent report progress with a status."""
        operation = Progress(agent_id, attempt_id, 1, "", self.work.now, status)
        await self.work.world.writer.submit(operation)

    async def end(
        self,
        attempt_id: str,
        outcome: Outcome = Outcome.SUCCEEDED,
        status: int = S.INSTALLED,
        code: str = "",
        reason: str = "",
        agent_id: str = "a1",
    ) -> None:
        """Let the agent report a result; ``status`` 0 is one without a detail."""
        detail = InstallDetail(status, code) if status else None
        operation = Finish(
            agent_id, attempt_id, outcome, reason, b"r", b"r", (0, 0, 0), self.work.now, detail
        )
        await self.work.world.writer.submit(operation)

    async def install(self, agent_id: str = "a1", package: str = PACKAGE) -> None:
        """Deploy to one agent, with success."""
        await self.end(await self.begin(agent_id, package), agent_id=agent_id)
        self.work.advance(1)

    async def listed(self, filter_text: str = "") -> Sequence[DeploymentRecord]:
        return await self.deployments.page(read(filter_text, FILTER), None, 1_000)

    async def only(self, filter_text: str = "") -> DeploymentRecord:
        (one,) = await self.listed(filter_text)
        return one

    async def stands(self, filter_text: str = "") -> tuple[DeploymentStatus, str]:
        """Return the status and reason code of the one deployment that matches."""
        standing = (await self.only(filter_text)).standing
        return standing.status, standing.reason_code

    async def having(self, package: str = PACKAGE) -> list[str]:
        return [holder.agent_id for holder in await self.deployments.agents_having(package)]


def deployments_of(rooms: Any, database: Database) -> Deployments:
    """Return the use cases of a server: those of its room of packaging, where it has one."""
    packaging = getattr(rooms, "packaging", None)
    if packaging is not None:
        served: Deployments = packaging.deployments
        return served
    return Deployments(database, rooms.tasks, rooms.delivery)


@asynccontextmanager
async def open_deployments_world(location: Location) -> AsyncIterator[DeploymentsWorld]:
    """Open a fresh database with the agents a1 and a2, and a released package."""
    async with open_tasks_world(location) as work:
        deployments = Deployments(work.world.database, work.tasks, work.delivery)
        work.world.agents.on_delete.append(deployments.agent_deleted)
        world = DeploymentsWorld(work, deployments)
        await world.package()
        yield world
