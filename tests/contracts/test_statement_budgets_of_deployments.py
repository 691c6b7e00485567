"""What deployments cost: two statements a commit where an installation moves, and nothing where none does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from fleetwright.v1 import task_service_pb2
from sqlalchemy import insert

from controlplane.agents.records import HostRecord
from controlplane.agents.service import Registration
from controlplane.packaging.deploying import Deployments
from controlplane.packaging.deployment.rules import DeploymentStatus
from controlplane.packaging.store.tables import packages
from controlplane.storage.writer import Operation
from controlplane.tasks.messages import options_of
from controlplane.tasks.operations import Accept, Adopt, Create, Finish, Lease, Progress
from controlplane.tasks.records import Chosen, InstallDetail
from controlplane.tasks.rules import Outcome
from tests.contracts.agents_world import OPERATOR
from tests.contracts.budget_world import MANY, Cost, World, describe, opened
from tests.contracts.deployments_world import deployments_of
from tests.contracts.test_statement_budgets_of_agents import GROUPS, MESSAGES, Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

PACKAGE = "a" * 64


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with opened(tmp_path_factory.mktemp("budgets") / "data") as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployments(world: World) -> Deployments:
    engines, rooms = world.server.engines, world.server.rooms
    row = {
        "sha256": PACKAGE, "package_name": "tool", "version": "1.0", "artefact_type": "archive",
        "target_platform": "any", "size": 7, "pipeline_id": "p1", "channel": "stable",
        "target_path": "stable/tool/1.0/tool.tar.gz", "decision": 1, "decision_time": 1,
        "component_count": 1, "file_count": 1, "claimed_file_count": 1, "create_time": 1,
    }  # fmt: skip
    async with engines.database.unit_of_work() as work:
        await work.connection.execute(insert(packages).values(row))
    return deployments_of(rooms, engines.database)


async def installing(world: World, deployments: Deployments, count: int) -> list[tuple[str, str]]:
    """Deploy to so many new agents, which begin; returns (agent id, attempt id)."""
    mark = world.name()
    ids = [world.name() for _ in range(count)]
    now = world.server.engines.clock.now()
    async with world.server.engines.database.unit_of_work() as work:
        for agent_id in ids:
            registration = Registration(agent_id, {"mark": mark}, HostRecord(hostname=agent_id))
            await world.server.rooms.agents.register(work, registration, replace=False, now=now)
    await deploy(deployments, f"labels.mark = {mark}")
    leased = await world.submit([Lease(agent_id, 1, 1, world.now) for agent_id in ids])
    found = [(agent_id, assigned[0].attempt_id) for agent_id, assigned in zip(ids, leased, strict=True)]
    await world.submit([Accept(agent_id, attempt, world.now) for agent_id, attempt in found])
    return found


async def deploy(deployments: Deployments, selector: str) -> None:
    options = options_of(task_service_pb2.TaskOptions())
    await deployments.deploy(OPERATOR, PACKAGE, Chosen(selector), options, "", allow_empty=False)


async def check(world: World, budget: Cost, operations: list[Operation[object]]) -> None:
    cost, issued = await world.cost(lambda: world.submit(operations))
    assert cost == budget, describe(issued)


@pytest.mark.usefixtures("deployments")
async def test_the_messages_of_other_work_cost_what_they_did(world: World) -> None:
    talk = Talk(world)
    await talk.run()
    assert {kind: cost for kind, (cost, _) in talk.found.items()} == MESSAGES, talk.found


@pytest.mark.usefixtures("deployments")
@pytest.mark.parametrize(
    "kind", [Create, Adopt, Lease, Accept, Progress, Finish], ids=lambda kind: kind.__name__
)
async def test_the_commits_of_other_work_cost_what_they_did(world: World, kind: type) -> None:
    budget, make = GROUPS[kind]
    await check(world, budget, await make(world, MANY))


@pytest.mark.parametrize("rows", [1, MANY])
async def test_a_commit_in_which_installations_move_has_two_statements_more(
    world: World, deployments: Deployments, rows: int
) -> None:
    running = await installing(world, deployments, rows)
    status = int(DeploymentStatus.DOWNLOADING)
    moved = [Progress(agent, attempt, 5, "", world.now, status) for agent, attempt in running]
    await check(world, Cost(GROUPS[Progress][0].statements + 2, 1), list(moved))
    detail = InstallDetail(int(DeploymentStatus.INSTALLED), "")
    ended = [
        Finish(agent, attempt, Outcome.SUCCEEDED, "", b"", b"", (0, 0, 0), world.now, detail)
        for agent, attempt in running
    ]
    await check(world, Cost(GROUPS[Finish][0].statements + 2, 1), list(ended))


@pytest.mark.parametrize("rows", [1, MANY])
async def test_deploying_costs_the_same_however_many_agents_it_is_to(
    world: World, deployments: Deployments, rows: int
) -> None:
    cost, issued = await world.cost(lambda: deploy(deployments, world.selector(rows)))
    assert cost == Cost(12, 2), describe(issued)
