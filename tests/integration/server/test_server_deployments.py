"""Deployments over the real server, to an agent that speaks the contract by hand."""

from __future__ import annotations

import grpc
import pytest
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import task_service_pb2, work_pb2
from sqlalchemy import insert

from controlplane.filtering import read
from controlplane.packaging.deploying import FILTER, Deployments
from controlplane.packaging.deployment.rules import DeploymentStatus, Standing
from controlplane.packaging.store.tables import packages
from controlplane.tasks.messages import options_of
from controlplane.tasks.records import Chosen
from tests.contracts.agents_world import OPERATOR
from tests.contracts.deployments_world import deployments_of
from tests.integration.transport.doors import refusal
from tests.support.admin import Admin
from tests.support.agents import RawAgent, RawSession, accepted, succeeded
from tests.support.in_process import LocalSite
from tests.support.streams import Stream

PACKAGE = "a" * 64
S = DeploymentStatus


@pytest.fixture
async def deployments(site: LocalSite) -> Deployments:
    """The room's use cases, with a released package called tool."""
    assert site.server is not None
    engines, rooms = site.server.engines, site.server.rooms
    made = deployments_of(rooms, engines.database)
    row = {
        "sha256": PACKAGE, "package_name": "tool", "version": "1.0", "artefact_type": "archive",
        "target_platform": "any", "size": 7, "pipeline_id": "p1", "channel": "stable",
        "target_path": "stable/tool/1.0/tool.tar.gz", "decision": 1, "decision_time": 1,
        "component_count": 1, "file_count": 1, "claimed_file_count": 1, "create_time": 1,
    }  # fmt: skip
    async with engines.database.unit_of_work() as work:
        await work.connection.execute(insert(packages).values(row))
    return made


async def deploy(deployments: Deployments) -> None:
    options = options_of(task_service_pb2.TaskOptions())
    await deployments.deploy(OPERATOR, PACKAGE, Chosen("*"), options, "", allow_empty=False)


async def standing(deployments: Deployments) -> Standing:
    (one,) = await deployments.page(read("", FILTER), None, 10)
    return one.standing


async def begun(session: RawSession) -> tuple[Stream, pb2.Assignment]:
    """Take the one assignment that waits."""
    tasks = await session.tasks()
    await tasks.expect("opened")
    assignment = await tasks.expect("assignment")
    await tasks.send(accepted=accepted(assignment.attempt_id))
    return tasks, assignment


async def say(session: RawSession, tasks: Stream, attempt: str, status: int) -> None:
    progress = pb2.AttemptProgress(
        attempt_id=attempt, deployment_status=work_pb2.DeploymentStatus.ValueType(status)
    )
    await tasks.send(progress=progress)


def result(
    attempt: str, outcome: work_pb2.Outcome.ValueType, status: int, code: str = "", reason: str = ""
) -> pb2.AttemptFinished:
    detail = work_pb2.InstallResult(
        status=work_pb2.DeploymentStatus.ValueType(status), reason_code=code, verified=["digest", "verdict"]
    )
    ended = work_pb2.AttemptResult(outcome=outcome, reason=reason, install=detail)
    return pb2.AttemptFinished(attempt_id=attempt, result=ended)


async def test_a_package_goes_to_an_agent_and_its_statuses_come_back(
    deployments: Deployments, admin: Admin, agent: RawAgent
) -> None:
    session = await agent.come()
    await deploy(deployments)
    await session.stream.until("work_available")
    tasks, assignment = await begun(session)
    attempt = assignment.attempt_id
    assert assignment.spec.install == work_pb2.InstallSpec(
        package=f"packages/{PACKAGE}",
        target_path="stable/tool/1.0/tool.tar.gz",
        package_name="tool",
        version="1.0",
    )
    # Faster than one a second: each step of an installation is kept all the same.
    for status in (S.DOWNLOADING, S.VERIFYING, S.INSTALLING):
        await say(session, tasks, attempt, status)
    await tasks.send(finished=result(attempt, work_pb2.OUTCOME_SUCCEEDED, S.INSTALLED))
    assert (await tasks.expect("result_acknowledged")).disposition == pb2.RESULT_DISPOSITION_COMMITTED
    assert (await standing(deployments)).status is S.INSTALLED
    task = await admin.task(assignment.task)
    assert (task.kind, list(task.result.install.verified)) == ("install", ["digest", "verdict"])
    assert [one.agent_id for one in await deployments.agents_having(PACKAGE)] == [agent.agent_id]


async def test_each_step_is_told_however_fast_they_come(deployments: Deployments, agent: RawAgent) -> None:
    session = await agent.come()
    await deploy(deployments)
    tasks, assignment = await begun(session)
    for _ in range(5):
        await say(session, tasks, assignment.attempt_id, S.DOWNLOADING)
    await say(session, tasks, assignment.attempt_id, S.INSTALLING)
    # What was read before the stream ended has been committed.
    await tasks.half_close()
    await tasks.ended()
    assert (await standing(deployments)).status is S.INSTALLING


async def test_why_an_installation_failed_is_kept_as_the_agent_said_it(
    deployments: Deployments, agent: RawAgent
) -> None:
    session = await agent.come()
    await deploy(deployments)
    tasks, assignment = await begun(session)
    said = result(
        assignment.attempt_id,
        work_pb2.OUTCOME_FAILED,
        S.ROLLED_BACK,
        "NOT_DETECTED",
        "tool --version said nothing",
    )
    await tasks.send(finished=said)
    await tasks.expect("result_acknowledged")
    found = await standing(deployments)
    assert (found.status, found.reason_code, found.reason) == (
        S.ROLLED_BACK,
        "NOT_DETECTED",
        "tool --version said nothing",
    )


async def test_other_work_beside_it_is_as_before(
    deployments: Deployments, admin: Admin, agent: RawAgent
) -> None:
    await deploy(deployments)
    echo = await admin.create(agent.agent_id, b"ping")
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    for _ in range(2):
        assignment = await tasks.expect("assignment")
        await tasks.send(accepted=accepted(assignment.attempt_id))
        # A status of what is no installation is nobody's.
        await say(session, tasks, assignment.attempt_id, S.DOWNLOADING)
        if assignment.task == echo.name:
            await tasks.send(finished=succeeded(assignment.attempt_id, b"ping"))
    await tasks.until("result_acknowledged")
    await tasks.half_close()
    await tasks.ended()
    assert (await standing(deployments)).status is S.DOWNLOADING
    assert (await admin.task(echo.name)).state == task_service_pb2.TASK_STATE_SUCCEEDED


async def test_installations_are_not_created_around_the_factory(admin: Admin, agent: RawAgent) -> None:
    spec = work_pb2.TaskSpec(
        install=work_pb2.InstallSpec(package=f"packages/{PACKAGE}", target_path="stable/x/1/x.tar.gz")
    )
    one = task_service_pb2.CreateTaskRequest(agent=agent.name, spec=spec)
    many = task_service_pb2.CreateTaskBatchRequest(selector="*", spec=spec)
    for call in (admin.tasks.CreateTask(one), admin.tasks.CreateTaskBatch(many)):
        refused = await refusal(call)
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "DeployPackage" in refused.fields["spec.install"]
