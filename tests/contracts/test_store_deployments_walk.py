"""Whatever befalls installations, in whatever order: their book says what their tasks say."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from controlplane.errors import ServiceError
from controlplane.packaging.deployment.rules import DeploymentStatus
from controlplane.storage.location import Location
from controlplane.tasks.rules import OfflinePolicy, Outcome, TaskState
from tests.contracts.agents_world import OPERATOR
from tests.contracts.deployments_world import PACKAGE, DeploymentsWorld, open_deployments_world
from tests.contracts.tasks_world import WINDOW

STEPS = 60
OPTIONS: list[dict[str, object]] = [
    {},
    {"queue": 120},
    {"attempts": 3},
    {"attempts": 2, "idempotent": True},
    {"offline": OfflinePolicy.SKIP},
    {"offline": OfflinePolicy.LATEST, "key": "tool"},
    WINDOW,
]


class Walk:
    """One agent, to which things happen by chance; ``live`` are attempts that it may still speak of."""

    def __init__(self, world: DeploymentsWorld, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.live: list[str] = []

    async def step(self) -> str:
        often = (self.lease, self.say, self.end) * 2
        seldom = (self.cancel, self.cancel_batch, self.replay, self.sweep, self.lose, self.away)
        doing: Callable[[], Awaitable[object]] = self.chance.choice(
            (*often, *seldom, self.deploy, self.accept, self.accept, self.wait)
        )
        try:
            await doing()
        except ServiceError as refused:
            return f"{doing.__name__}: {refused.reason}"
        return doing.__name__

    async def deploy(self) -> None:
        await self.world.deploy(**self.chance.choice(OPTIONS))  # type: ignore[arg-type]  # by name

    async def lease(self) -> None:
        self.live += [one.attempt_id for one in await self.world.work.lease(limit=2)]

    async def accept(self) -> None:
        if self.live:
            await self.world.work.accept(self.chance.choice(self.live))

    async def say(self) -> None:
        if self.live:
            await self.world.say(self.chance.choice(self.live), self.chance.randint(0, 8))

    async def end(self) -> None:
        if self.live:
            attempt = self.chance.choice(self.live)
            await self.world.end(attempt, self.chance.choice(list(Outcome)), self.chance.randint(0, 8), "X")

    async def cancel(self) -> None:
        found = await self.world.listed()
        if found:
            await self.world.work.tasks.cancel(OPERATOR, self.chance.choice(found).task_id)

    async def cancel_batch(self) -> None:
        found = await self.world.listed()
        if found:
            await self.world.work.tasks.batches.cancel(OPERATOR, self.chance.choice(found).batch_id)

    async def replay(self) -> None:
        found = await self.world.listed()
        if found:
            await self.world.work.tasks.replays.replay(OPERATOR, self.chance.choice(found).task_id, "")

    async def wait(self) -> None:
        self.world.work.advance(self.chance.choice([1, 30, 600, 3_600]))

    async def sweep(self) -> None:
        await self.world.work.sweep.run()

    async def lose(self) -> None:
        await self.world.work.lose_journal()

    async def away(self) -> None:
        await self.world.work.leave(self.chance.choice(["a1", "a2"]))


@pytest_asyncio.fixture
async def world(location: Location) -> AsyncIterator[DeploymentsWorld]:
    async with open_deployments_world(location) as opened:
        yield opened


@pytest.mark.parametrize("seed", range(6))
async def test_a_deployment_says_what_its_task_says(world: DeploymentsWorld, seed: int) -> None:
    walk, story = Walk(world, seed), []
    for _ in range(STEPS):
        story.append(await walk.step())
        tasks = {
            row.task_id: TaskState(row.state)
            for row in await world.work.rows("SELECT task_id, state FROM tasks WHERE kind = 'install'")
        }
        found = {one.task_id: one.standing for one in await world.listed()}
        assert found.keys() == tasks.keys(), story
        for task_id, state in tasks.items():
            standing = found[task_id]
            assert standing.status.final == (state >= TaskState.SUCCEEDED), (story, state, standing)
            if standing.status.final and standing.status is not DeploymentStatus.INSTALLED:
                assert standing.reason_code, story
            if state is TaskState.QUEUED:
                assert standing.status is DeploymentStatus.PENDING, story
    assert await world.deployments.reconcile() == 0, "nothing was left behind"
    installed = await world.listed(f"package = {PACKAGE} AND status = INSTALLED")
    assert {one.agent_id for one in installed} == set(await world.having())
