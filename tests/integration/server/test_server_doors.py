"""Who and what the doors of the real server keep out; the doors alone are tested in transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from fleetwright.v1 import agent_registry_service_pb2 as registry
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import agent_service_pb2_grpc, task_service_pb2, work_pb2

from certs.authority import Identity, Root, issue_client
from certs.bad import BAD_CERTIFICATES
from controlplane.trust.layout import AGENTS_ROOT, OPERATORS_ROOT, Layout
from tests.integration.transport.doors import Refusal, refusal
from tests.support.admin import OPTIONS, Admin
from tests.support.agents import RawAgent, succeeded
from tests.support.in_process import LocalSite
from tests.support.process import running
from tests.support.site import HOST
from tests.support.streams import PATIENCE, Stream

MIB = 1024 * 1024
AT_THE_HANDSHAKE = {"wrong-root", "expired", "not-yet-valid", "wrong-usage"}


def root_of(site: LocalSite, role: str) -> Root:
    """The root that ``fleetwright init`` made, with its key."""
    trust = Layout(site.folder).trust
    name = AGENTS_ROOT if role == "agent" else OPERATORS_ROOT
    return Root.from_pem((trust / f"{name}.key").read_bytes(), (trust / f"{name}.pem").read_bytes())


async def knock(site: LocalSite, role: str, identity: Identity) -> Refusal:
    """Come with ``identity`` to the door of its role, as one who wants in."""
    port = site.ports.agents if role == "agent" else site.ports.admin
    credentials = grpc.ssl_channel_credentials(root_of(site, role).pem, identity.key_pem, identity.chain_pem)
    async with grpc.aio.secure_channel(f"{HOST}:{port}", credentials, OPTIONS) as channel:
        if role != "agent":
            return await refusal(Admin(channel).agent("node-1"))
        stub: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
        stream = Stream(stub.Heartbeat(), pb2.HeartbeatRequest)
        hello = pb2.Hello(protocol_version=1, agent_version="bad", boot_id="b", journal_id="j")
        # The handshake may fail before the first message; the status is read below.
        with suppress(grpc.aio.AioRpcError):
            await stream.send(hello=hello)
        return await stream.refused()


@pytest.mark.parametrize("role", ["agent", "operator"])
@pytest.mark.parametrize("kind", BAD_CERTIFICATES)
async def test_a_bad_certificate_of_our_own_root_gets_nowhere(
    site: LocalSite, agent: RawAgent, role: str, kind: str
) -> None:
    # It claims to be one that exists, so that only the certificate can be what is refused.
    name = agent.agent_id if role == "agent" else "admin"
    bad = BAD_CERTIFICATES[kind](root_of(site, role), role, name, now=datetime.now(UTC))
    if kind in AT_THE_HANDSHAKE:
        async with site.nothing_changes():
            assert (await knock(site, role, bad)).code is grpc.StatusCode.UNAVAILABLE
    else:
        async with site.nothing_changes("IDENTITY_INVALID"):
            assert (await knock(site, role, bad)).reason == "IDENTITY_INVALID"
    await agent.come()


async def test_a_certificate_that_the_server_never_issued_opens_nothing(
    site: LocalSite, agent: RawAgent
) -> None:
    forged = issue_client(root_of(site, "agent"), "agent", agent.agent_id, now=datetime.now(UTC))
    async with site.nothing_changes("CERTIFICATE_REVOKED"):
        refused = await knock(site, "agent", forged)
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_REVOKED")


async def test_an_integrator_reads_and_gives_work_and_does_not_decide_who_exists(
    site: LocalSite, agent: RawAgent, tmp_path: Path
) -> None:
    identity = issue_client(root_of(site, "operator"), "integrator", "ticketing", now=datetime.now(UTC))
    files = {"key": identity.key_pem, "cert": identity.chain_pem, "ca": site.operators_root}
    for name, content in files.items():
        (tmp_path / f"{name}.pem").write_bytes(content)
    integrator = site.admin(tmp_path)
    async with site.nothing_changes("IDENTITY_NOT_ALLOWED", times=2):
        assert (await refusal(integrator.delete(agent.agent_id))).reason == "IDENTITY_NOT_ALLOWED"
        assert (await refusal(integrator.token())).reason == "IDENTITY_NOT_ALLOWED"
    assert (await integrator.create(agent.agent_id)).creator.endswith("/integrator/ticketing")


async def test_a_message_over_the_limit_ends_its_stream_and_not_the_session(
    site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    async with site.nothing_changes():
        result = work_pb2.AttemptResult(
            outcome=work_pb2.OUTCOME_SUCCEEDED, echo=work_pb2.EchoResult(payload=bytes(5 * MIB))
        )
        # The refusal may come while the message is still being written.
        with suppress(grpc.aio.AioRpcError):
            await tasks.send(finished=pb2.AttemptFinished(attempt_id="a", result=result))
        # INTERNAL is the client's own word for a write that the refusal cut short.
        assert (await tasks.refused()).code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
    await session.beat()
    assert (await admin.agent(agent.agent_id)).presence == registry.PRESENCE_ONLINE


async def flood(stream: Stream) -> None:
    """Send results of nothing, and read no answer, until the stream is at its end."""
    finished = succeeded("x" * 64)
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            await stream.send(finished=finished)


async def refused_slow(site: Any) -> None:
    """Wait until the server has counted a slow reader."""
    async with asyncio.timeout(PATIENCE):
        while not await site.refusals("SLOW_READER"):
            pass


@pytest.fixture
async def slow(folder: Path) -> AsyncIterator[Any]:
    async with running(folder, slow_reader_after="500ms", tasks_linger="1s") as server:
        yield server


@pytest.mark.slow
async def test_one_who_is_given_much_work_and_never_reads_is_closed(slow: Any) -> None:
    admin = slow.admin()
    _, token = await admin.token()
    agent = await slow.enroll("node-1", token)
    body = "#" * 250_000
    spec = work_pb2.TaskSpec(script=work_pb2.ScriptSpec(interpreter="sh", body=body))
    request = task_service_pb2.CreateTaskRequest(agent=agent.name, spec=spec)
    for _ in range(64):
        await admin.tasks.CreateTask(request)
    before = psutil.Process(slow.pid).memory_info().rss
    session = await agent.come()
    tasks = await session.tasks(allowed=64)
    await refused_slow(slow)
    assert psutil.Process(slow.pid).memory_info().rss - before < 64 * MIB
    # The status had no way past what was not read, so the stream was reset.
    assert (await tasks.ended())[0] is not grpc.StatusCode.OK
    await session.beat()
    # What it did not read is handed out again, as the same attempts.
    again = await session.tasks(allowed=1)
    assert (await again.until("assignment")).number == 1


@pytest.mark.slow
async def test_one_who_floods_and_never_reads_is_closed_and_fills_no_memory(slow: Any) -> None:
    _, token = await slow.admin().token()
    agent = await slow.enroll("node-1", token)
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    before = psutil.Process(slow.pid).memory_info().rss
    flooding = asyncio.create_task(flood(tasks))
    await refused_slow(slow)
    # It was read from no further than answers could be kept for it.
    assert await slow.refusals("ATTEMPT_UNKNOWN") < 2000
    assert (await tasks.ended())[0] is not grpc.StatusCode.OK
    await flooding
    assert psutil.Process(slow.pid).memory_info().rss - before < 64 * MIB
    await session.beat()
