"""How many statements each call, message and group commit may issue, with one row and with many.

The allowance is the same for both, so a statement for each row cannot creep in. Who makes
something cheaper lowers its number here; who makes it dearer says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import pytest
import pytest_asyncio
from fleetwright.v1 import agent_registry_service_pb2 as registry
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import (
    enrollment_service_pb2,
    enrollment_token_service_pb2,
    identity_service_pb2,
    identity_service_pb2_grpc,
    server_service_pb2,
    server_service_pb2_grpc,
    task_service_pb2,
    telemetry_service_pb2,
    work_pb2,
)
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent_sim.protocol.identity import certificate_signing_request, generate_key
from certs.requests import good
from controlplane.agents.operations import ChangePresence, OpenSession
from controlplane.agents.rules import Presence, PresenceReason
from controlplane.identity.operations import AdoptCertificate, UseCertificate
from controlplane.storage.writer import Operation
from controlplane.tasks.operations import (
    Accept,
    Adopt,
    AppendOutput,
    Create,
    Finish,
    Lease,
    Progress,
)
from controlplane.tasks.records import Chunk, NewTask, Options
from controlplane.tasks.rules import Outcome
from controlplane.telemetry.operations import StoreBatch
from controlplane.transport.methods import METHODS
from tests.contracts.budget_world import ECHO, MANY, Cost, World, opened
from tests.support.agents import RawSession, accepted, succeeded
from tests.support.streams import Stream, read

pytestmark = pytest.mark.asyncio(loop_scope="module")

Doing = Callable[[], Awaitable[object]]
Prepare = Callable[[World, int], Awaitable[Doing]]
"""Makes what must be there before so many rows are asked for; returns what is measured."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with opened(tmp_path_factory.mktemp("budgets") / "data") as made:
        yield made


async def check(world: World, budget: Cost, prepare: Prepare, rows: int) -> None:
    doing = await prepare(world, rows)
    cost, issued = await world.cost(doing)
    assert cost == budget, f"{rows} rows: {describe(issued)}"


def describe(issued: Counter[tuple[str, str]]) -> str:
    return ", ".join(f"{number} {query} ({engine})" for (query, engine), number in sorted(issued.items()))


# --- calls


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
    "EnrollmentService/Enroll": (Cost(11, 2), enroll),
    "AgentRegistryService/GetAgent": (Cost(2, 1), get_agent),
    "AgentRegistryService/ListAgents": (Cost(3, 1), list_agents),
    "AgentRegistryService/WatchAgents": (Cost(2, 1), watch_agents),
    "AgentRegistryService/UpdateAgent": (Cost(8, 1), update_agent),
    "AgentRegistryService/DeleteAgent": (Cost(9, 1), delete_agent),
    "TaskService/GetTask": (Cost(2, 2), get_task),
    "TaskService/GetTaskBatch": (Cost(2, 1), get_task_batch),
    "TaskService/ListTasks": (Cost(2, 1), list_tasks),
    "TaskService/WatchTasks": (Cost(1, 1), watch_tasks),
    "TaskService/ReadTaskOutput": (Cost(3, 3), read_output),
    "TaskService/CreateTask": (Cost(5, 1), create_task),
    "TaskService/CreateTaskBatch": (Cost(8, 2), create_task_batch),
    "TaskService/CancelTask": (Cost(4, 2), cancel_task),
    "TelemetryService/QueryTelemetry": (Cost(1, 1), query_telemetry),
    "TelemetryService/WatchTelemetry": (Cost(8, 6), watch_telemetry),
    "EnrollmentTokenService/CreateEnrollmentToken": (Cost(1, 1), create_token),
    "EnrollmentTokenService/ListEnrollmentTokens": (Cost(1, 1), list_tokens),
    "EnrollmentTokenService/RevokeEnrollmentToken": (Cost(2, 1), revoke_token),
    "IdentityService/IssueIdentity": (Cost(1, 1), issue_identity),
    "IdentityService/ListIdentities": (Cost(1, 1), list_identities),
    "IdentityService/RevokeIdentity": (Cost(4, 1), revoke_identity),
    "ServerService/GetServerInfo": (Cost(0, 0), get_server_info),
}


@pytest.mark.parametrize("rows", [1, MANY])
@pytest.mark.parametrize("method", CALLS)
async def test_a_call_issues_its_statements_and_no_more(world: World, method: str, rows: int) -> None:
    budget, prepare = CALLS[method]
    await check(world, budget, prepare, rows)


async def test_every_call_of_the_contract_has_a_budget() -> None:
    streams_of_agents = {f"AgentService/{name}" for name in ("Heartbeat", "Tasks", "Telemetry")}
    ours = {name.removeprefix("/fleetwright.v1.") for name in METHODS if name.startswith("/fleetwright.")}
    assert set(CALLS) == ours - streams_of_agents


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


# --- messages of an agent's streams


MESSAGES = {
    "heartbeat hello": Cost(5, 3),
    "heartbeat beat": Cost(0, 0),
    "heartbeat goodbye": Cost(3, 1),
    "tasks open": Cost(5, 1),
    "tasks credits": Cost(4, 1),
    "tasks accepted": Cost(4, 1),
    "tasks progress": Cost(3, 1),
    "tasks chunk": Cost(3, 1),
    "tasks finished": Cost(5, 1),
    "telemetry open": Cost(1, 1),
    "telemetry batch": Cost(3, 1),
}


async def test_every_message_of_an_agent_has_a_budget() -> None:
    kinds = {
        f"{stream} {field.name}"
        for stream, request in (
            ("heartbeat", pb2.HeartbeatRequest),
            ("tasks", pb2.TasksRequest),
            ("telemetry", pb2.TelemetryRequest),
        )
        for field in request.DESCRIPTOR.oneofs_by_name["message"].fields
    }
    assert set(MESSAGES) == kinds


class Talk:
    """One agent's session from Hello to Goodbye, with one task; ``found`` is what each message cost."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.found: dict[str, tuple[Cost, str]] = {}
        self._session: RawSession
        self._tasks: Stream
        self._telemetry: Stream
        self._attempt = ""

    async def measure(self, kind: str, doing: Doing) -> None:
        cost, issued = await self._world.cost(doing)
        self.found[kind] = cost, describe(issued)

    async def run(self) -> None:
        agent = self._world.agents[3]
        await self._world.tasks([agent.agent_id])
        await self.measure("heartbeat hello", self._hello)
        await self.measure("heartbeat beat", self._session.beat)
        await self.measure("tasks open", self._open_tasks)
        attempt = self._attempt
        chunk = pb2.OutputChunk(attempt_id=attempt, stream=work_pb2.OUTPUT_STREAM_STDOUT, data=b"x")
        for kind, message in (
            ("accepted", accepted(attempt)),
            ("progress", pb2.AttemptProgress(attempt_id=attempt, percent=1)),
            ("chunk", chunk),
            ("finished", succeeded(attempt, stdout_bytes=1)),
            ("credits", pb2.CreditsAdded(credits=1)),
        ):
            await self.measure(f"tasks {kind}", partial(self._say, **{kind: message}))
        await self.measure("telemetry open", self._open_telemetry)
        await self.measure("telemetry batch", self._store)
        await self.measure("heartbeat goodbye", self._session.goodbye)

    async def _hello(self) -> None:
        self._session = await self._world.agents[3].come()

    async def _open_tasks(self) -> None:
        self._tasks = await self._session.tasks(allowed=1)
        await self._tasks.expect("opened")
        self._attempt = (await self._tasks.expect("assignment")).attempt_id

    async def _say(self, **message: Any) -> None:
        await self._tasks.send(**message)
        # Most have no answer. What comes later on the same connection is read later.
        await self._session.beat()

    async def _open_telemetry(self) -> None:
        self._telemetry = await self._session.telemetry()
        await self._telemetry.expect("opened")

    async def _store(self) -> None:
        await self._telemetry.send(batch=self._session.batch(1, [1.0] * MANY))
        await self._telemetry.expect("acknowledged")


async def test_messages_of_an_agent_issue_their_statements_and_no_more(world: World) -> None:
    talk = Talk(world)
    await talk.run()
    assert {kind: cost for kind, (cost, _) in talk.found.items()} == MESSAGES, talk.found


# --- group commits


Operations = Callable[[World, int], Awaitable[list[Operation[Any]]]]


async def open_sessions(world: World, rows: int) -> list[Operation[Any]]:
    return [world.opening(agent_id) for agent_id in await world.registered(rows)]


async def change_presences(world: World, rows: int) -> list[Operation[Any]]:
    ids = await world.registered(rows)
    sessions = await world.submit([world.opening(agent_id) for agent_id in ids])
    return [
        ChangePresence(agent_id, session.epoch, Presence.OFFLINE, PresenceReason.STREAM_LOST, "", world.now)
        for agent_id, session in zip(ids, sessions, strict=True)
    ]


async def create(world: World, rows: int) -> list[Operation[Any]]:
    options = Options(0, 3_600_000_000, 600_000_000, idempotent=False, max_attempts=1)
    new_task = NewTask("echo", ECHO.SerializeToString(), options)
    return [
        Create("ada", world.name(), b"d", world.name(), agent_id, new_task, world.now)
        for agent_id in await world.registered(rows)
    ]


async def adopt(world: World, rows: int) -> list[Operation[Any]]:
    held = await world.attempts(rows, running=False)
    return [
        Adopt(agent_id, 2, ((attempt, False), ("unknown", True)), world.now) for agent_id, attempt in held
    ]


async def lease(world: World, rows: int) -> list[Operation[Any]]:
    ids = await world.registered(rows)
    await world.tasks(ids)
    return [Lease(agent_id, 1, 4, world.now) for agent_id in ids]


async def accept(world: World, rows: int) -> list[Operation[Any]]:
    return [
        Accept(agent_id, attempt, world.now)
        for agent_id, attempt in await world.attempts(rows, running=False)
    ]


async def progress(world: World, rows: int) -> list[Operation[Any]]:
    return [
        Progress(agent_id, attempt, 5, "five", world.now)
        for agent_id, attempt in await world.attempts(rows, running=True)
    ]


async def append(world: World, rows: int) -> list[Operation[Any]]:
    return [
        AppendOutput(agent_id, attempt, Chunk(1, 0, b"x"))
        for agent_id, attempt in await world.attempts(rows, running=True)
    ]


async def finish(world: World, rows: int) -> list[Operation[Any]]:
    return [
        Finish(agent_id, attempt, Outcome.SUCCEEDED, "", b"", b"", (0, 0, 0), world.now)
        for agent_id, attempt in await world.attempts(rows, running=True)
    ]


async def store_batches(world: World, rows: int) -> list[Operation[Any]]:
    return [world.batch_of_points(agent_id, world.name(), MANY) for agent_id in await world.registered(rows)]


async def use_certificates(world: World, rows: int) -> list[Operation[Any]]:
    renewed = []
    for agent in await world.enrolled(rows):
        identity = await agent.renew(agent.connect())
        renewed.append(UseCertificate(agent.agent_id, f"{identity.serial_number:x}", world.now))
        await agent.close()
    return list(renewed)


async def adopt_certificates(world: World, rows: int) -> list[Operation[Any]]:
    day = 86_400_000_000
    return [
        AdoptCertificate(agent_id, f"{next(world.numbers):x}", world.now - 1, world.now + day, world.now)
        for agent_id in await world.registered(rows)
    ]


GROUPS: dict[type, tuple[Cost, Operations]] = {
    OpenSession: (Cost(3, 1), open_sessions),
    ChangePresence: (Cost(3, 1), change_presences),
    Create: (Cost(5, 1), create),
    Adopt: (Cost(5, 1), adopt),
    Lease: (Cost(4, 1), lease),
    Accept: (Cost(4, 1), accept),
    Progress: (Cost(3, 1), progress),
    AppendOutput: (Cost(3, 1), append),
    Finish: (Cost(5, 1), finish),
    StoreBatch: (Cost(3, 1), store_batches),
    AdoptCertificate: (Cost(5, 1), adopt_certificates),
    UseCertificate: (Cost(3, 1), use_certificates),
}


async def test_every_operation_of_the_writer_has_a_budget(world: World) -> None:
    assert set(GROUPS) == set(world.writer._appliers)


@pytest.mark.parametrize("rows", [1, MANY])
@pytest.mark.parametrize("kind", GROUPS, ids=lambda kind: kind.__name__)
async def test_a_group_commit_issues_its_statements_and_no_more(world: World, kind: type, rows: int) -> None:
    budget, make = GROUPS[kind]
    operations = await make(world, rows)
    assert {type(operation) for operation in operations} == {kind}

    async def ready(world: World, rows: int) -> Doing:
        del rows
        return lambda: world.submit(operations)

    await check(world, budget, ready, rows)
