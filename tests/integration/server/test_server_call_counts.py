"""What /metrics says of calls is what clients made, for every kind of call and every way to end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1 import agent_registry_service_pb2 as registry
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import (
    enrollment_service_pb2,
    enrollment_token_service_pb2,
    identity_service_pb2,
    identity_service_pb2_grpc,
    task_service_pb2,
    work_pb2,
)
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from certs.requests import good
from controlplane.transport.methods import METHODS
from tests.support.admin import Admin
from tests.support.agents import RawAgent, accepted, succeeded
from tests.support.in_process import LocalSite
from tests.support.site import HOST, http_get
from tests.support.streams import PATIENCE, read

Key = tuple[str, ...]
UNKNOWN = ("unknown", "unknown", "unknown")
CHECK = health_pb2.HealthCheckRequest()


def labels_of(name: str) -> Key:
    """Return the labels of a method, by its own name."""
    [method] = [method for method in METHODS.values() if method.name == name]
    return method.arity.value, method.service, method.name


def code_label(code: StatusCode) -> str:
    return "OK" if code is StatusCode.OK else code.name.title().replace("_", "")


@dataclass
class Books:
    """What clients did, by the labels of the metrics that must say the same."""

    port: int
    started: Counter[Key] = field(default_factory=Counter)
    handled: Counter[Key] = field(default_factory=Counter)
    received: Counter[Key] = field(default_factory=Counter)
    sent: Counter[Key] = field(default_factory=Counter)
    before: dict[str, Counter[Key]] = field(default_factory=dict)

    async def counted(self) -> dict[str, Counter[Key]]:
        """Return what the server counts."""
        text = (await http_get(self.port, "/metrics"))[1]
        found: dict[str, Counter[Key]] = {name: Counter() for name in vars(self) if name in METRICS}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                for name, metric in METRICS.items():
                    if sample.name == metric:
                        found[name][key_of(sample.labels)] += int(sample.value)
        return found

    def write(self, labels: Key, code: StatusCode, *, received: int = 1, sent: int = 0) -> None:
        """Write down a call that ended; ``received`` messages went to the server."""
        self.started[labels] += 1
        self.handled[*labels, code_label(code)] += 1
        self.received[labels] += received
        self.sent[labels] += sent

    async def unary(self, call: Awaitable[Any], labels: Key) -> Any:
        """Make a unary call, which may fail, and write it down as its client saw it."""
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            self.write(labels, error.code(), received=0 if labels == UNKNOWN else 1)
            return error
        self.write(labels, StatusCode.OK, sent=1)
        return answer

    async def check(self) -> None:
        """Compare, once the server has counted as many ends as there were."""
        wanted = {name: +getattr(self, name) for name in METRICS}
        async with asyncio.timeout(PATIENCE):
            while (now := self.since(await self.counted()))["handled"].total() < self.handled.total():
                pass
        assert now == wanted

    def since(self, counted: dict[str, Counter[Key]]) -> dict[str, Counter[Key]]:
        return {name: counted[name] - self.before[name] for name in METRICS}


METRICS = {
    "started": "grpc_server_started_total",
    "handled": "grpc_server_handled_total",
    "received": "grpc_server_msg_received_total",
    "sent": "grpc_server_msg_sent_total",
}


def key_of(labels: dict[str, str]) -> Key:
    names = ("grpc_type", "grpc_service", "grpc_method", "grpc_code")
    return tuple(labels[name] for name in names if name in labels)


@pytest.fixture
async def books(site: LocalSite, agent: RawAgent) -> AsyncIterator[Books]:
    """Books that begin when the agent is enrolled, and must agree at the end of the test."""
    opened = Books(site.ports.health)
    async with asyncio.timeout(PATIENCE):
        while (before := await opened.counted())["handled"].total() < 2:  # the token, and the enrolment
            pass
    opened.before = before
    yield opened
    await opened.check()


def get(name: str) -> registry.GetAgentRequest:
    return registry.GetAgentRequest(name=name)


async def test_unary_calls_that_are_answered(books: Books, admin: Admin, agent: RawAgent) -> None:
    for _ in range(5):
        await books.unary(admin.agents.GetAgent(get(agent.name)), labels_of("GetAgent"))
    request = registry.ListAgentsRequest()
    await books.unary(admin.agents.ListAgents(request), labels_of("ListAgents"))


async def test_unary_calls_that_a_handler_refuses(books: Books, admin: Admin, agent: RawAgent) -> None:
    labels = labels_of("CancelTask")
    cancel = task_service_pb2.CancelTaskRequest
    unknown = await books.unary(admin.tasks.CancelTask(cancel(name="tasks/none")), labels)
    invalid = await books.unary(admin.tasks.CancelTask(cancel(name="no name")), labels)
    assert (unknown.code(), invalid.code()) == (StatusCode.NOT_FOUND, StatusCode.INVALID_ARGUMENT)
    create = task_service_pb2.CreateTaskRequest(
        agent=agent.name, spec=work_pb2.TaskSpec(echo=work_pb2.EchoSpec())
    )
    made = await books.unary(admin.tasks.CreateTask(create), labels_of("CreateTask"))
    for _ in range(2):
        await books.unary(admin.tasks.CancelTask(cancel(name=made.task.name)), labels)


async def test_calls_that_are_refused_at_the_door(
    books: Books, site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    # An agent on a method of agents with another certificate's rights: none are left after the deletion.
    deletion = registry.DeleteAgentRequest(name=agent.name)
    await books.unary(admin.agents.DeleteAgent(deletion), labels_of("DeleteAgent"))
    denied = await books.unary(
        agent.connect().RenewCertificate(pb2.RenewCertificateRequest(certificate_signing_request=b"x")),
        labels_of("RenewCertificate"),
    )
    assert denied.code() is StatusCode.UNAUTHENTICATED
    unlisted: Any = admin.channel.unary_unary("/fleetwright.v1.NoService/Nothing")
    refused = await books.unary(unlisted(b""), UNKNOWN)
    assert refused.code() is StatusCode.UNIMPLEMENTED
    other_port: Any = admin.channel.unary_unary("/fleetwright.v1.EnrollmentService/Enroll")
    await books.unary(other_port(b""), UNKNOWN)


async def test_calls_of_an_identity_that_may_not_make_them(
    books: Books, site: LocalSite, admin: Admin, tmp_path: Path
) -> None:
    key = good("ticketing")
    stub: Any = identity_service_pb2_grpc.IdentityServiceStub(admin.channel)
    request = identity_service_pb2.IssueIdentityRequest(
        role=identity_service_pb2.ADMIN_ROLE_INTEGRATOR,
        display_name="ticketing",
        certificate_signing_request=key.der,
    )
    issued = await books.unary(stub.IssueIdentity(request), labels_of("IssueIdentity"))
    for name, pem in (("key", key.key_pem), ("cert", issued.certificate), ("ca", issued.root)):
        (tmp_path / f"{name}.pem").write_bytes(pem)
    integrator = site.admin(tmp_path)
    tokens = enrollment_token_service_pb2.ListEnrollmentTokensRequest()
    labels = labels_of("ListEnrollmentTokens")
    refused = await books.unary(integrator.tokens.ListEnrollmentTokens(tokens), labels)
    assert refused.code() is StatusCode.PERMISSION_DENIED


async def test_calls_over_the_rate(books: Books, site: LocalSite) -> None:
    [method] = [method for method in METHODS.values() if method.full_name == "/grpc.health.v1.Health/Check"]
    async with grpc.aio.insecure_channel(f"{HOST}:{site.ports.health}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answers = [
            await books.unary(stub.Check(CHECK), labels_of("Check")) for _ in range(method.rate.burst * 2)
        ]
    codes = {answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)}
    assert codes == {StatusCode.RESOURCE_EXHAUSTED}


async def test_enrolments_good_and_bad(books: Books, site: LocalSite, admin: Admin) -> None:
    tokens = enrollment_token_service_pb2.CreateEnrollmentTokenRequest()
    made = await books.unary(admin.tokens.CreateEnrollmentToken(tokens), labels_of("CreateEnrollmentToken"))
    request = enrollment_service_pb2.EnrollRequest(
        join_token=made.join_token, agent_id="two", certificate_signing_request=b"none"
    )
    refused = await books.unary(site.enrollment().Enroll(request), labels_of("Enroll"))
    assert isinstance(refused, grpc.aio.AioRpcError)


async def test_a_server_stream_that_its_client_cancels(books: Books, admin: Admin, agent: RawAgent) -> None:
    call = admin.agents.WatchAgents(registry.WatchAgentsRequest())
    got = 1
    while (await read(call)).change_type != registry.CHANGE_TYPE_SYNCED:
        got += 1
    call.cancel()
    books.write(labels_of("WatchAgents"), StatusCode.CANCELLED, sent=got)
    assert got == 2


async def test_server_streams_that_end(books: Books, admin: Admin, agent: RawAgent) -> None:
    refused = admin.agents.WatchAgents(registry.WatchAgentsRequest(filter="hostnam = x"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(refused)
    books.write(labels_of("WatchAgents"), caught.value.code())
    create = task_service_pb2.CreateTaskRequest(
        agent=agent.name, spec=work_pb2.TaskSpec(echo=work_pb2.EchoSpec())
    )
    made = (await books.unary(admin.tasks.CreateTask(create), labels_of("CreateTask"))).task
    request = task_service_pb2.ReadTaskOutputRequest(name=made.name)
    assert await read(admin.tasks.ReadTaskOutput(request)) is grpc.aio.EOF
    books.write(labels_of("ReadTaskOutput"), StatusCode.OK)


async def test_streams_of_an_agent(books: Books, admin: Admin, agent: RawAgent) -> None:
    session = await agent.come()
    for _ in range(7):
        await session.beat()
    tasks = await session.tasks()
    await tasks.expect("opened")
    create = task_service_pb2.CreateTaskRequest(
        agent=agent.name, spec=work_pb2.TaskSpec(echo=work_pb2.EchoSpec())
    )
    await books.unary(admin.tasks.CreateTask(create), labels_of("CreateTask"))
    attempt = (await tasks.expect("assignment")).attempt_id
    await tasks.send(accepted=accepted(attempt))
    await tasks.send(finished=succeeded(attempt))
    await tasks.expect("result_acknowledged")
    await tasks.half_close()
    code, left = await tasks.ended()
    books.write(labels_of("Tasks"), code, received=3, sent=3 + len(left))
    telemetry = await session.telemetry()
    await telemetry.expect("opened")
    await telemetry.send(batch=session.batch(1, [1.0, 2.0]))
    await telemetry.expect("acknowledged")
    await telemetry.send(open=pb2.TelemetryOpen(session_epoch=session.epoch))
    refused = await telemetry.refused()
    books.write(labels_of("Telemetry"), refused.code, received=3, sent=2)
    await session.goodbye()
    books.write(labels_of("Heartbeat"), StatusCode.OK, received=1 + 7 + 1, sent=1 + 7)


async def test_a_session_that_is_replaced_and_one_that_is_refused(books: Books, agent: RawAgent) -> None:
    first, second = await agent.come(), await agent.come()
    reconnect = await first.stream.expect("reconnect")
    assert reconnect.reason == pb2.RECONNECT_REASON_SESSION_REPLACED
    books.write(labels_of("Heartbeat"), (await first.stream.refused()).code, received=1, sent=2)
    await second.goodbye()
    books.write(labels_of("Heartbeat"), StatusCode.OK, received=2, sent=1)
    stream = agent.heartbeat()
    await stream.send(hello=agent.hello(protocol_version=99))
    books.write(labels_of("Heartbeat"), (await stream.refused()).code)


@asynccontextmanager
async def busy(site: LocalSite) -> AsyncIterator[None]:
    """Hold the writing connection, so that a call that writes waits."""
    assert site.server is not None
    async with site.server.engines.database.unit_of_work():
        yield


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param(lambda call: call.cancel(), StatusCode.CANCELLED, id="cancelled"),
        # Slow, because the call must have come to the server before its deadline, whatever else runs here.
        pytest.param(None, StatusCode.DEADLINE_EXCEEDED, id="deadline", marks=pytest.mark.slow),
    ],
)
async def test_a_unary_call_that_its_client_gives_up(
    books: Books,
    site: LocalSite,
    admin: Admin,
    agent: RawAgent,
    end: Callable[[Any], object] | None,
    code: StatusCode,
) -> None:
    labels = labels_of("UpdateAgent")
    request = registry.UpdateAgentRequest(agent=registry.Agent(name=agent.name, labels={"a": "b"}))
    request.update_mask.paths.append("labels")
    async with busy(site):
        call = admin.agents.UpdateAgent(request, timeout=None if end else 4)
        async with asyncio.timeout(PATIENCE):
            while not books.since(await books.counted())["started"][labels]:
                pass
        if end is not None:
            end(call)
        with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
            await call
        assert await call.code() is code
        books.write(labels, code)
        await books.check()


async def test_a_bidirectional_stream_whose_client_is_gone(books: Books, agent: RawAgent) -> None:
    session = await agent.come()
    await session.beat()
    await agent.close()
    books.write(labels_of("Heartbeat"), StatusCode.CANCELLED, received=2, sent=2)
