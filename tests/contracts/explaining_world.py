"""The tasks room on a real database file, with its explanations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from controlplane.storage.location import Location
from controlplane.tasks.explaining.rules import Code
from controlplane.tasks.explaining.service import ExplainingService
from tests.contracts.tasks_world import TasksWorld, open_tasks_world


@dataclass
class Explaining:
    """The room with its explanations."""

    work: TasksWorld
    service: ExplainingService

    async def codes(self, task_id: str) -> tuple[list[Code], list[Code]]:
        """Return the codes of the reasons and of the next steps of a task."""
        explanation = (await self.service.task(task_id)).explanation
        return (
            [sentence.code for sentence in explanation.because],
            [step.code for step in explanation.next_steps],
        )

    async def text(self, task_id: str, code: Code) -> str:
        """Return the reason of this code."""
        because = (await self.service.task(task_id)).explanation.because
        (found,) = [sentence.text for sentence in because if sentence.code is code]
        return found

    async def step(self, task_id: str, code: Code) -> str:
        """Return the next step of this code."""
        steps = (await self.service.task(task_id)).explanation.next_steps
        (found,) = [step.text for step in steps if step.code is code]
        return found

    async def commands(self, task_id: str) -> list[str]:
        """Return the commands that an administrator is told, without their first word."""
        remedies = (await self.service.task(task_id)).explanation.remedies
        return [remedy.command.removeprefix("fleetwright ") for remedy in remedies if remedy.command]


@asynccontextmanager
async def open_explaining(location: Location) -> AsyncIterator[Explaining]:
    """Open a fresh database with the agents a1 and a2, both in session 1."""
    async with open_tasks_world(location) as work:
        world = work.world
        yield Explaining(work, ExplainingService(world.database, world.agents, world.clock))
