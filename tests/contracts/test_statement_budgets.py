"""How many statements each call may issue, with one row and with many.

The allowance is the same for both, so a statement for each row cannot creep in. Who makes
something cheaper lowers its number here; who makes it dearer says why. Those of agents'
messages and of group commits stand in test_statement_budgets_of_agents.py.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from fleetwright.v1 import agent_registry_service_pb2 as registry
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import (
    delivery_service_pb2,
    delivery_service_pb2_grpc,
    enrollment_service_pb2,
    enrollment_token_service_pb2,
    identity_service_pb2,
    identity_service_pb2_grpc,
    server_service_pb2,
    server_service_pb2_grpc,
    task_service_pb2,
    telemetry_service_pb2,
)
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent_sim.protocol.identity import certificate_signing_request, generate_key
from certs.requests import good
from controlplane.tasks.operations import (
    AppendOutput,
)
from controlplane.tasks.records import Chunk
from controlplane.transport.methods import METHODS
from tests.contracts.budget_world import ECHO, MANY, Cost, Doing, Prepare, World, check, describe, opened
from tests.support.streams import read

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with opened(tmp_path_factory.mktemp("budgets") / "data") as made:
        yield made


async def renew(world: World, rows: int) -> Doing:
    del rows
    [agent] = await world.enrolled(1)
    request = pb2.RenewCertificateRequest(
        certificate_signing_request=certificate_signing_request(generate_key(), agent.agent_id)
    )
    stub = agent.connect()
    return lambda: stub.RenewCertificate(request)


async def enroll(world: World, rows: int) -> Doing:
    del rows
    _, token = await world.admin.token()
    name = world.name()
    request = enrollment_service_pb2.EnrollRequest(
        join_token=token, agent_id=name, certificate_signing_request=good(name).der
    )
    stub = world.site.enrollment()
    return lambda: stub.Enroll(request)


async def get_agent(world: World, rows: int) -> Doing:
    del rows
    return lambda: world.admin.agents.GetAgent(registry.GetAgentRequest(name="agents/a0"))


async def list_agents(world: World, rows: int) -> Doing:
    return lambda: world.admin.agents.ListAgents(
        registry.ListAgentsRequest(page_size=rows, filter='labels.fleet = "yes"')
    )


async def update_agent(world: World, rows: int) -> Doing:
    labels = {f"l{number}": world.name() for number in range(min(rows, 20))} | {"fleet": "yes"}
    request = registry.UpdateAgentRequest(agent=registry.Agent(name="agents/a2", labels=labels))
    request.update_mask.paths.append("labels")
    return lambda: world.admin.agents.UpdateAgent(request)


async def delete_agent(world: World, rows: int) -> Doing:
    [agent] = await world.enrolled(1)
    await world.tasks([agent.agent_id] * rows)
    return lambda: world.admin.agents.DeleteAgent(registry.DeleteAgentRequest(name=agent.name))


async def get_task(world: World, rows: int) -> Doing:
    del rows
    [name] = await world.tasks(["a0"])
    return lambda: world.admin.tasks.GetTask(task_service_pb2.GetTaskRequest(name=name))


async def get_task_batch(world: World, rows: int) -> Doing:
    batch = await world.batch(rows)
    return lambda: world.admin.tasks.GetTaskBatch(task_service_pb2.GetTaskBatchRequest(name=batch.name))


async def list_tasks(world: World, rows: int) -> Doing:
    await world.batch(MANY)
    return lambda: world.admin.tasks.ListTasks(task_service_pb2.ListTasksRequest(page_size=rows))


async def create_task(world: World, rows: int) -> Doing:
    del rows
    request = task_service_pb2.CreateTaskRequest(agent="agents/a0", spec=ECHO, request_id=world.name())
    return lambda: world.admin.tasks.CreateTask(request)


async def create_task_batch(world: World, rows: int) -> Doing:
    request = task_service_pb2.CreateTaskBatchRequest(
        selector=world.selector(rows), spec=ECHO, request_id=world.name()
    )
    return lambda: world.admin.tasks.CreateTaskBatch(request)


async def cancel_task(world: World, rows: int) -> Doing:
    del rows
    [name] = await world.tasks(["a0"])
    return lambda: world.admin.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=name))


def delivery(world: World) -> Any:
    return delivery_service_pb2_grpc.DeliveryServiceStub(world.admin.channel)


async def list_events(world: World, rows: int) -> Doing:
    await world.batch(MANY)
    request = delivery_service_pb2.ListDeliveryEventsRequest(page_size=rows)
    return lambda: delivery(world).ListDeliveryEvents(request)


async def explain_task(world: World, rows: int) -> Doing:
    names = await world.tasks(["a0"] * rows)
    request = delivery_service_pb2.ExplainTaskRequest(name=names[-1])
    return lambda: delivery(world).ExplainTask(request)


async def explain_agent(world: World, rows: int) -> Doing:
    await world.tasks(["a0"] * rows)
    request = delivery_service_pb2.ExplainAgentRequest(name="agents/a0")
    return lambda: delivery(world).ExplainAgent(request)


async def cancel_task_batch(world: World, rows: int) -> Doing:
    batch = await world.batch(rows)
    request = task_service_pb2.CancelTaskBatchRequest(name=batch.name)
    return lambda: world.admin.tasks.CancelTaskBatch(request)


async def cancelled(world: World, rows: int) -> task_service_pb2.TaskBatch:
    batch = await world.batch(rows)
    await world.admin.tasks.CancelTaskBatch(task_service_pb2.CancelTaskBatchRequest(name=batch.name))
    return batch


async def replay_task(world: World, rows: int) -> Doing:
    del rows
    id_ = (await cancelled(world, 1)).name.partition("/")[2]
    request = task_service_pb2.ReplayTaskRequest(name=f"tasks/{id_}.a0", request_id=world.name())
    return lambda: world.admin.tasks.ReplayTask(request)


async def replay_tasks(world: World, rows: int) -> Doing:
    id_ = (await cancelled(world, rows)).name.partition("/")[2]
    request = task_service_pb2.ReplayTasksRequest(filter=f'batch_id = "{id_}"', request_id=world.name())
    return lambda: world.admin.tasks.ReplayTasks(request)


async def query_telemetry(world: World, rows: int) -> Doing:
    await world.submit([world.batch_of_points("a0", world.name(), MANY)])
    request = telemetry_service_pb2.QueryTelemetryRequest(agent="agents/a0", page_size=rows)
    return lambda: world.admin.telemetry.QueryTelemetry(request)


async def create_token(world: World, rows: int) -> Doing:
    del rows
    return world.admin.token


async def list_tokens(world: World, rows: int) -> Doing:
    for _ in range(rows):
        await world.admin.token()
    request = enrollment_token_service_pb2.ListEnrollmentTokensRequest(page_size=rows)
    return lambda: world.admin.tokens.ListEnrollmentTokens(request)


async def revoke_token(world: World, rows: int) -> Doing:
    del rows
    name, _ = await world.admin.token()
    request = enrollment_token_service_pb2.RevokeEnrollmentTokenRequest(name=name)
    return lambda: world.admin.tokens.RevokeEnrollmentToken(request)


def identities(world: World) -> Any:
    return identity_service_pb2_grpc.IdentityServiceStub(world.admin.channel)


def issuing(world: World) -> identity_service_pb2.IssueIdentityRequest:
    name = world.name()
    return identity_service_pb2.IssueIdentityRequest(
        role=identity_service_pb2.ADMIN_ROLE_INTEGRATOR,
        display_name=name,
        certificate_signing_request=good(name).der,
    )


async def issue_identity(world: World, rows: int) -> Doing:
    del rows
    request = issuing(world)
    return lambda: identities(world).IssueIdentity(request)


async def list_identities(world: World, rows: int) -> Doing:
    for _ in range(rows + 1):
        await identities(world).IssueIdentity(issuing(world))
    await identities(world).ListIdentities(identity_service_pb2.ListIdentitiesRequest())  # once for good
    request = identity_service_pb2.ListIdentitiesRequest(page_size=rows)
    return lambda: identities(world).ListIdentities(request)


async def revoke_identity(world: World, rows: int) -> Doing:
    del rows
    made = (await identities(world).IssueIdentity(issuing(world))).identity
    request = identity_service_pb2.RevokeIdentityRequest(name=made.name)
    return lambda: identities(world).RevokeIdentity(request)


async def get_server_info(world: World, rows: int) -> Doing:
    del rows
    stub: Any = server_service_pb2_grpc.ServerServiceStub(world.admin.channel)
    return lambda: stub.GetServerInfo(server_service_pb2.GetServerInfoRequest())


async def list_processes(world: World, rows: int) -> Doing:
    del rows
    stub: Any = server_service_pb2_grpc.ServerServiceStub(world.admin.channel)
    return lambda: stub.ListProcesses(server_service_pb2.ListProcessesRequest())


async def watch_agents(world: World, rows: int) -> Doing:
    async def watched() -> None:
        (await world.admin.watch_agents(world.selector(rows))).cancel()

    return watched


async def watch_tasks(world: World, rows: int) -> Doing:
    batch = await world.batch(rows)

    async def watched() -> None:
        (await world.admin.watch_tasks(f'batch_id = "{batch.name.partition("/")[2]}"')).cancel()

    return watched


async def read_output(world: World, rows: int) -> Doing:
    count = min(rows, 30)  # a page of chunks
    [(agent_id, attempt)] = await world.attempts(1, running=True)
    for at in range(count):
        await world.submit([AppendOutput(agent_id, attempt, Chunk(1, at, b"x"))])
    task = (await world.admin.all_tasks(f'agent_id = "{agent_id}" AND state = RUNNING'))[0].name

    async def reading() -> None:
        assert await world.admin.output(task) == {1: b"x" * count}

    return reading


async def watch_telemetry(world: World, rows: int) -> Doing:
    batch = world.batch_of_points("a0", world.name(), rows)

    async def watched() -> None:
        request = telemetry_service_pb2.WatchTelemetryRequest(agent="agents/a0")
        call = world.admin.telemetry.WatchTelemetry(request)
        assert not (await read(call)).points  # where the watch begins
        await world.settled()  # it has looked once more then, and waits
        await world.submit([batch])
        got = 0
        while got < rows:
            message = await read(call)
            assert message is not grpc.aio.EOF
            got += len(message.points)
        call.cancel()

    return watched


CALLS: dict[str, tuple[Cost, Prepare]] = {
    "AgentService/RenewCertificate": (Cost(3, 1), renew),
    "EnrollmentService/Enroll": (Cost(12, 3), enroll),
    "AgentRegistryService/GetAgent": (Cost(2, 1), get_agent),
    "AgentRegistryService/ListAgents": (Cost(3, 1), list_agents),
    "AgentRegistryService/WatchAgents": (Cost(2, 1), watch_agents),
    "AgentRegistryService/UpdateAgent": (Cost(8, 1), update_agent),
    "AgentRegistryService/DeleteAgent": (Cost(12, 1), delete_agent),
    "TaskService/GetTask": (Cost(2, 2), get_task),
    "TaskService/GetTaskBatch": (Cost(2, 1), get_task_batch),
    "TaskService/ListTasks": (Cost(2, 1), list_tasks),
    "TaskService/WatchTasks": (Cost(1, 1), watch_tasks),
    "TaskService/ReadTaskOutput": (Cost(3, 3), read_output),
    "TaskService/CreateTask": (Cost(6, 1), create_task),
    "TaskService/CreateTaskBatch": (Cost(11, 2), create_task_batch),
    "TaskService/CancelTask": (Cost(5, 2), cancel_task),
    "TaskService/CancelTaskBatch": (Cost(10, 3), cancel_task_batch),
    "TaskService/ReplayTask": (Cost(10, 2), replay_task),
    "TaskService/ReplayTasks": (Cost(7, 1), replay_tasks),
    "DeliveryService/ListDeliveryEvents": (Cost(2, 1), list_events),
    "DeliveryService/ExplainTask": (Cost(7, 2), explain_task),
    "DeliveryService/ExplainAgent": (Cost(3, 2), explain_agent),
    "TelemetryService/QueryTelemetry": (Cost(1, 1), query_telemetry),
    "TelemetryService/WatchTelemetry": (Cost(9, 6), watch_telemetry),
    "EnrollmentTokenService/CreateEnrollmentToken": (Cost(1, 1), create_token),
    "EnrollmentTokenService/ListEnrollmentTokens": (Cost(1, 1), list_tokens),
    "EnrollmentTokenService/RevokeEnrollmentToken": (Cost(2, 1), revoke_token),
    "IdentityService/IssueIdentity": (Cost(1, 1), issue_identity),
    "IdentityService/ListIdentities": (Cost(1, 1), list_identities),
    "IdentityService/RevokeIdentity": (Cost(4, 1), revoke_identity),
    "ServerService/GetServerInfo": (Cost(0, 0), get_server_info),
    "ServerService/ListProcesses": (Cost(1, 1), list_processes),
}


@pytest.mark.parametrize("rows", [1, MANY])
@pytest.mark.parametrize("method", CALLS)
async def test_a_call_issues_its_statements_and_no_more(world: World, method: str, rows: int) -> None:
    budget, prepare = CALLS[method]
    await check(world, budget, prepare, rows)


async def test_every_call_of_the_contract_has_a_budget() -> None:
    streams_of_agents = {f"AgentService/{name}" for name in ("Heartbeat", "Tasks", "Telemetry")}
    # Of these, test_statement_budgets_of_packaging.py.
    packaging = re.compile(r"(PackagingService|AdvisoryService|TrustService)/|AgentService/(Fetch|Download)")
    ours = {name.removeprefix("/fleetwright.v1.") for name in METHODS if name.startswith("/fleetwright.")}
    assert set(CALLS) == {name for name in ours - streams_of_agents if not packaging.match(name)}


@pytest.mark.parametrize("asking", ["health", "channelz"])
async def test_calls_of_the_libraries_ask_the_database_nothing(world: World, asking: str) -> None:
    channel = world.admin.channel
    health: Any = health_pb2_grpc.HealthStub(channel)
    channelz: Any = channelz_pb2_grpc.ChannelzStub(channel)  # type: ignore[arg-type]  # its stubs know grpc.Channel alone
    calls: dict[str, Doing] = {
        "health": lambda: health.Check(health_pb2.HealthCheckRequest()),
        "channelz": lambda: channelz.GetServers(channelz_pb2.GetServersRequest()),
    }
    cost, issued = await world.cost(calls[asking])
    assert cost == Cost(0, 0), describe(issued)
