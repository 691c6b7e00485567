"""Bad input to the real server: refused with its reason, counted, and nothing changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fleetwright.v1 import agent_registry_service_pb2 as registry
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import (
    enrollment_service_pb2,
    enrollment_token_service_pb2,
    task_service_pb2,
    telemetry_service_pb2,
    work_pb2,
)
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from certs.requests import BAD_REQUESTS, good
from tests.integration.transport.doors import refusal
from tests.support.admin import Admin
from tests.support.agents import RawAgent, accepted, point, succeeded
from tests.support.in_process import LocalSite, serving
from tests.support.streams import Stream, until
from tests.unit.identity.world import TurnedClock

ECHO = work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=b"x"))


async def enroll(site: LocalSite, token: str, agent_id: str, request: bytes) -> Any:
    return await site.enrollment().Enroll(
        enrollment_service_pb2.EnrollRequest(
            join_token=token, agent_id=agent_id, certificate_signing_request=request
        )
    )


async def spoilt_token(site: LocalSite, clock: TurnedClock, how: str) -> str:
    """Return a token that lets no one in."""
    admin = site.admin()
    name, token = await admin.token(max_uses=1)
    if how == "TOKEN_EXPIRED":
        clock.turn((await _expiry(admin, name)) - clock.now())
    elif how == "TOKEN_EXHAUSTED":
        await site.enroll("first", token)
    elif how == "TOKEN_REVOKED":
        await admin.tokens.RevokeEnrollmentToken(
            enrollment_token_service_pb2.RevokeEnrollmentTokenRequest(name=name)
        )
    else:
        head, secret, root = token.rsplit(".", 2)
        token = ".".join((head, secret[::-1], root))
    return token


async def _expiry(admin: Admin, name: str) -> Any:
    listed = await admin.tokens.ListEnrollmentTokens(
        enrollment_token_service_pb2.ListEnrollmentTokensRequest()
    )
    [token] = [one for one in listed.tokens if one.name == name]
    return token.expire_time.ToDatetime(UTC) + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("TOKEN_UNKNOWN", StatusCode.UNAUTHENTICATED),
        ("TOKEN_EXPIRED", StatusCode.UNAUTHENTICATED),
        ("TOKEN_EXHAUSTED", StatusCode.RESOURCE_EXHAUSTED),
        ("TOKEN_REVOKED", StatusCode.UNAUTHENTICATED),
    ],
)
async def test_a_token_that_is_no_good_lets_no_one_in(folder: Any, reason: str, code: StatusCode) -> None:
    clock = TurnedClock(datetime.now(UTC))
    async with serving(folder, clock) as site:
        token = await spoilt_token(site, clock, reason)
        async with site.nothing_changes(reason):
            refused = await refusal(enroll(site, token, "node-1", good("node-1").der))
        assert (refused.code, refused.reason) == (code, reason)
        assert token.split(".")[2] not in refused.text
        _, fresh = await site.admin().token()
        await site.enroll("node-1", fresh)


CSR_REASONS = {
    "csr-weak-key-1024": "CSR_KEY_WEAK",
    "csr-weak-key-2048": "CSR_KEY_WEAK",
    "csr-wrong-subject": "CSR_SUBJECT_MISMATCH",
    "csr-extra-subject": "CSR_SUBJECT_MISMATCH",
    "csr-no-subject": "CSR_SUBJECT_MISMATCH",
    "csr-extra-dns-name": "CSR_EXTRA_NAMES",
    "csr-another-spiffe-id": "CSR_EXTRA_NAMES",
    "csr-extra-extension": "CSR_EXTRA_NAMES",
    "csr-broken-signature": "CSR_MALFORMED",
    "csr-not-a-request": "CSR_MALFORMED",
    "csr-truncated": "CSR_MALFORMED",
}


def test_every_kind_of_bad_signing_request_is_tried() -> None:
    assert set(CSR_REASONS) == set(BAD_REQUESTS)


@pytest.mark.parametrize("kind", CSR_REASONS)
async def test_a_bad_signing_request_is_refused_at_enrolment_and_renewal_and_uses_nothing_up(
    site: LocalSite, admin: Admin, agent: RawAgent, kind: str
) -> None:
    _, token = await admin.token()
    session = await agent.come()
    bad = BAD_REQUESTS[kind](agent.agent_id).der
    renewal = pb2.RenewCertificateRequest(certificate_signing_request=bad)
    async with site.nothing_changes(CSR_REASONS[kind], times=2):
        for call in (
            enroll(site, token, "node-2", BAD_REQUESTS[kind]("node-2").der),
            session.stub.RenewCertificate(renewal),
        ):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, CSR_REASONS[kind])
            assert list(refused.fields) == ["certificate_signing_request"]
    await enroll(site, token, "node-2", good("node-2").der)
    await agent.renew(session.stub)


@dataclass(frozen=True)
class Bad:
    """A call of an administrator that is refused."""

    call: Callable[[Admin], Awaitable[Any]]
    code: StatusCode
    reason: str
    fields: tuple[str, ...] = ()


def _update(*paths: str) -> registry.UpdateAgentRequest:
    agent = registry.Agent(name="agents/node-1", notes="x")
    return registry.UpdateAgentRequest(agent=agent, update_mask=FieldMask(paths=paths) if paths else None)


def _create(agent_id: str, **changes: Any) -> task_service_pb2.CreateTaskRequest:
    return task_service_pb2.CreateTaskRequest(**{"agent": f"agents/{agent_id}", "spec": ECHO, **changes})


_INVALID = StatusCode.INVALID_ARGUMENT
_MISSING = StatusCode.NOT_FOUND
_LIST_TASKS, _LIST_AGENTS = task_service_pb2.ListTasksRequest, registry.ListAgentsRequest
_QUERY = telemetry_service_pb2.QueryTelemetryRequest

BAD_CALLS = {
    "task without a kind": Bad(
        lambda a: a.tasks.CreateTask(_create("node-1", spec=work_pb2.TaskSpec())),
        _INVALID,
        "VALIDATION_FAILED",
        ("spec.kind",),
    ),
    "task of a bad agent name": Bad(
        lambda a: a.tasks.CreateTask(_create("Node 1")), _INVALID, "VALIDATION_FAILED", ("agent",)
    ),
    "task for an unknown agent": Bad(
        lambda a: a.tasks.CreateTask(_create("nobody")), _MISSING, "AGENT_UNKNOWN"
    ),
    "batch for no one": Bad(
        lambda a: a.tasks.CreateTaskBatch(
            task_service_pb2.CreateTaskBatchRequest(selector='agent_id = "nobody"', spec=ECHO)
        ),
        _INVALID,
        "SELECTOR_EMPTY",
        ("selector",),
    ),
    "unknown agent read": Bad(lambda a: a.agent("nobody"), _MISSING, "AGENT_UNKNOWN"),
    "unknown agent deleted": Bad(lambda a: a.delete("nobody"), _MISSING, "AGENT_UNKNOWN"),
    "unknown task read": Bad(lambda a: a.task("tasks/nothing"), _MISSING, "TASK_UNKNOWN"),
    "unknown task cancelled": Bad(
        lambda a: a.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name="tasks/nothing")),
        _MISSING,
        "TASK_UNKNOWN",
    ),
    "unknown token revoked": Bad(
        lambda a: a.tokens.RevokeEnrollmentToken(
            enrollment_token_service_pb2.RevokeEnrollmentTokenRequest(name="enrollmentTokens/nothing")
        ),
        _MISSING,
        "ENROLLMENT_TOKEN_UNKNOWN",
    ),
    "filter of agents": Bad(
        lambda a: a.agents.ListAgents(_LIST_AGENTS(filter="presence = ")),
        _INVALID,
        "FILTER_INVALID",
        ("filter",),
    ),
    "filter of tasks": Bad(
        lambda a: a.tasks.ListTasks(_LIST_TASKS(filter="colour = 3")), _INVALID, "FILTER_INVALID", ("filter",)
    ),
    "filter of a watch": Bad(
        lambda a: a.agents.WatchAgents(registry.WatchAgentsRequest(filter="(")).read(),
        _INVALID,
        "FILTER_INVALID",
        ("filter",),
    ),
    "selector": Bad(
        lambda a: a.tasks.CreateTaskBatch(
            task_service_pb2.CreateTaskBatchRequest(selector="labels.", spec=ECHO)
        ),
        _INVALID,
        "FILTER_INVALID",
        ("selector",),
    ),
    "page token of agents": Bad(
        lambda a: a.agents.ListAgents(_LIST_AGENTS(page_token="made-up")),
        _INVALID,
        "PAGE_TOKEN_INVALID",
        ("page_token",),
    ),
    "page token of tasks": Bad(
        lambda a: a.tasks.ListTasks(_LIST_TASKS(page_token="made-up")),
        _INVALID,
        "PAGE_TOKEN_INVALID",
        ("page_token",),
    ),
    "page token of telemetry": Bad(
        lambda a: a.telemetry.QueryTelemetry(_QUERY(page_token="made-up")),
        _INVALID,
        "PAGE_TOKEN_INVALID",
        ("page_token",),
    ),
    "resume token": Bad(
        lambda a: a.tasks.WatchTasks(task_service_pb2.WatchTasksRequest(resume_token="made-up")).read(),
        _INVALID,
        "PAGE_TOKEN_INVALID",
        ("resume_token",),
    ),
    "page size": Bad(
        lambda a: a.agents.ListAgents(_LIST_AGENTS(page_size=1001)),
        _INVALID,
        "VALIDATION_FAILED",
        ("page_size",),
    ),
    "field mask of an unknown field": Bad(
        lambda a: a.agents.UpdateAgent(_update("colour")), _INVALID, "FIELD_MASK_INVALID", ("update_mask",)
    ),
    "field mask of a field that is not writable": Bad(
        lambda a: a.agents.UpdateAgent(_update("presence")), _INVALID, "FIELD_MASK_INVALID", ("update_mask",)
    ),
    "field mask that is missing": Bad(
        lambda a: a.agents.UpdateAgent(
            registry.UpdateAgentRequest(agent=registry.Agent(name="agents/node-1"))
        ),
        _INVALID,
        "VALIDATION_FAILED",
        ("update_mask",),
    ),
    "etag that is not current": Bad(
        lambda a: a.agents.DeleteAgent(registry.DeleteAgentRequest(name="agents/node-1", etag="old")),
        StatusCode.ABORTED,
        "ETAG_MISMATCH",
    ),
}


@pytest.fixture
async def known(agent: RawAgent) -> RawAgent:
    """An agent that the bad calls speak of."""
    assert agent.agent_id == "node-1"
    return agent


async def test_bad_calls_of_administrators_are_refused_and_change_nothing(
    site: LocalSite, admin: Admin, known: RawAgent
) -> None:
    for name, bad in BAD_CALLS.items():
        async with site.nothing_changes(bad.reason):
            refused = await refusal(bad.call(admin))
        found = (refused.code, refused.reason, tuple(refused.fields))
        assert found == (bad.code, bad.reason, bad.fields), name
    await admin.create(known.agent_id)


async def test_a_filter_says_at_which_character_it_fails(admin: Admin) -> None:
    request = _LIST_AGENTS(filter='agent_id = "a" AND colour = 3')
    assert (await refusal(admin.agents.ListAgents(request))).metadata["position"] == "19"


async def test_a_page_token_serves_only_the_request_that_it_was_made_for(
    site: LocalSite, admin: Admin
) -> None:
    _, token = await admin.token(max_uses=3)
    for number in range(3):
        await site.enroll(f"node-{number}", token)
    page = await admin.agents.ListAgents(_LIST_AGENTS(page_size=1))
    async with site.nothing_changes("PAGE_TOKEN_INVALID"):
        request = _LIST_AGENTS(page_token=page.next_page_token, filter='agent_id = "node-1"')
        assert (await refusal(admin.agents.ListAgents(request))).reason == "PAGE_TOKEN_INVALID"
    following = await admin.agents.ListAgents(_LIST_AGENTS(page_size=1, page_token=page.next_page_token))
    assert following.agents[0].agent_id == "node-1"


async def test_a_request_id_with_another_content_is_refused(
    site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    await admin.create(agent.agent_id, b"one", request_id="r")
    async with site.nothing_changes("REQUEST_ID_REUSED"):
        refused = await refusal(admin.create(agent.agent_id, b"two", request_id="r"))
    assert (refused.code, refused.reason) == (_INVALID, "REQUEST_ID_REUSED")


# --- what agents send


async def assigned(admin: Admin, agent: RawAgent) -> tuple[Stream, str]:
    """Return a Tasks stream of a new session, and the attempt that it was handed."""
    await admin.create(agent.agent_id)
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    return tasks, (await tasks.expect("assignment")).attempt_id


async def test_a_result_for_an_attempt_of_another_agent_is_rejected_and_the_stream_lives_on(
    site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    tasks, attempt = await assigned(admin, agent)
    _, token = await admin.token()
    other = await site.enroll("node-2", token)
    session = await other.come()
    others = await session.tasks()
    await others.expect("opened")
    for foreign in (attempt, "never-heard-of"):
        async with site.nothing_changes("ATTEMPT_UNKNOWN"):
            await others.send(finished=succeeded(foreign))
            rejected = await others.expect("result_acknowledged")
        assert (rejected.attempt_id, rejected.disposition) == (foreign, pb2.RESULT_DISPOSITION_REJECTED)
        assert rejected.error.code == StatusCode.NOT_FOUND.value[0]
        assert "ATTEMPT_UNKNOWN" in str(rejected.error.details[0])
    await admin.create(other.agent_id)
    await others.expect("assignment")
    await tasks.send(finished=succeeded(attempt))
    acknowledged = await tasks.expect("result_acknowledged")
    assert acknowledged.disposition == pb2.RESULT_DISPOSITION_COMMITTED


async def test_progress_and_output_for_an_unknown_attempt_change_nothing(
    site: LocalSite, agent: RawAgent
) -> None:
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    async with site.nothing_changes("ATTEMPT_UNKNOWN", times=3):
        await tasks.send(progress=pb2.AttemptProgress(attempt_id="no", percent=1))
        chunk = pb2.OutputChunk(attempt_id="no", stream=work_pb2.OUTPUT_STREAM_STDOUT, data=b"x")
        await tasks.send(chunk=chunk)
        await tasks.send(accepted=accepted("no"))
        assert (await tasks.expect("cancel")).attempt_id == "no"


async def test_the_same_result_twice_is_answered_as_a_duplicate(
    site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    tasks, attempt = await assigned(admin, agent)
    await tasks.send(finished=succeeded(attempt, b"first"))
    first = await tasks.expect("result_acknowledged")
    assert first.disposition == pb2.RESULT_DISPOSITION_COMMITTED
    counted = await site.metric("fleetwright_results_total", disposition="DUPLICATE")
    async with site.nothing_changes():
        for finished in (succeeded(attempt, b"first"), succeeded(attempt, b"other")):
            await tasks.send(finished=finished)
            again = await tasks.expect("result_acknowledged")
            assert again.disposition == pb2.RESULT_DISPOSITION_DUPLICATE
    assert await site.metric("fleetwright_results_total", disposition="DUPLICATE") == counted + 2
    assert (await admin.all_tasks())[0].result.echo.payload == b"first"


async def test_a_telemetry_gap_that_does_not_say_so_ends_the_stream_and_says_what_is_expected(
    site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    session = await agent.come()
    telemetry = await session.telemetry()
    await telemetry.expect("opened")
    await telemetry.send(batch=session.batch(1, [1.0, 2.0]))
    await telemetry.expect("acknowledged")
    async with site.nothing_changes("SEQUENCE_GAP"):
        await telemetry.send(batch=session.batch(5, [5.0], dropped=1))
        refused = await telemetry.refused()
    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "SEQUENCE_GAP")
    assert refused.metadata == {"expected_sequence": "3"}
    again = await session.telemetry()
    assert (await again.expect("opened")).last_sequence == 2
    await again.send(batch=session.batch(3, [3.0]))
    assert (await again.expect("acknowledged")).last_sequence == 3


async def test_telemetry_of_another_journal_is_refused(site: LocalSite, agent: RawAgent) -> None:
    session = await agent.come()
    telemetry = await session.telemetry()
    await telemetry.expect("opened")
    batch = session.batch(1, [1.0])
    batch.journal_id = "another"
    async with site.nothing_changes("PROTOCOL_VIOLATION"):
        await telemetry.send(batch=batch)
        assert (await telemetry.refused()).reason == "PROTOCOL_VIOLATION"


@pytest.mark.parametrize("kind", ["tasks", "telemetry"])
@pytest.mark.parametrize("dead", ["replaced", "made up", "left"])
async def test_a_stream_of_a_dead_session_is_told_to_say_hello_again(
    site: LocalSite, admin: Admin, agent: RawAgent, kind: str, dead: str
) -> None:
    session = await agent.come()
    epoch = session.epoch
    if dead == "replaced":
        session = await agent.come()
    elif dead == "made up":
        epoch += 1000
    else:
        watch = await admin.watch_agents()
        await session.goodbye()
        await until(watch, lambda c: c.agent.presence == registry.PRESENCE_OFFLINE)
        watch.cancel()
    async with site.nothing_changes("SESSION_STALE"):
        refused = await (await getattr(session, kind)(epoch=epoch)).refused()
    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "SESSION_STALE")


BEAT, HELLO = {"beat": pb2.Beat(sequence=1)}, {"hello": pb2.Hello()}

BAD_FIRST: dict[str, tuple[dict[str, Any], StatusCode, str, tuple[str, ...]]] = {
    "a beat before hello": (BEAT, _INVALID, "PROTOCOL_VIOLATION", ()),
    "a goodbye before hello": ({"goodbye": pb2.Goodbye()}, _INVALID, "PROTOCOL_VIOLATION", ()),
    "an empty message": ({}, _INVALID, "VALIDATION_FAILED", ("message",)),
    "an empty hello": (
        HELLO,
        _INVALID,
        "VALIDATION_FAILED",
        ("hello.protocol_version", "hello.agent_version", "hello.boot_id", "hello.journal_id"),
    ),
    "an agent's clock that shows no time": (
        {
            "hello": pb2.Hello(
                protocol_version=1,
                agent_version="x",
                boot_id="x",
                journal_id="x",
                agent_time=Timestamp(seconds=-(2**62)),
            )
        },
        _INVALID,
        "VALIDATION_FAILED",
        ("hello.agent_time",),
    ),
    "another protocol": (
        {"hello": pb2.Hello(protocol_version=2, agent_version="x", boot_id="x", journal_id="x")},
        StatusCode.FAILED_PRECONDITION,
        "PROTOCOL_VERSION_UNSUPPORTED",
        (),
    ),
}


@pytest.mark.parametrize("name", BAD_FIRST)
async def test_a_bad_first_message_opens_no_session(site: LocalSite, agent: RawAgent, name: str) -> None:
    message, code, reason, fields = BAD_FIRST[name]
    async with site.nothing_changes(reason):
        stream = agent.heartbeat()
        await stream.send(**message)
        refused = await stream.refused()
    assert (refused.code, refused.reason, tuple(refused.fields)) == (code, reason, fields)
    assert (await agent.come()).epoch == 1


@pytest.mark.parametrize(
    ("kind", "reason"), [("hello twice", "PROTOCOL_VIOLATION"), ("too fast", "RATE_LIMITED")]
)
async def test_a_heartbeat_that_breaks_its_rules_is_ended_and_lost(
    site: LocalSite, admin: Admin, agent: RawAgent, kind: str, reason: str
) -> None:
    session = await agent.come()
    watch = await admin.watch_agents()
    async with site.nothing_changes(reason, ignoring=("agents", "commit_counter")):
        if kind == "hello twice":
            await session.stream.send(hello=agent.hello())
        else:
            for sequence in range(1, 20):
                await session.stream.send(beat=pb2.Beat(sequence=sequence))
        refused = await session.stream.refused()
        change = await until(watch, lambda c: c.agent.presence == registry.PRESENCE_STALE)
    watch.cancel()
    assert refused.reason == reason
    assert (refused.retry_after is not None) == (reason == "RATE_LIMITED")
    assert change.agent.presence_reason == registry.PRESENCE_REASON_STREAM_LOST
    assert (await agent.come()).epoch == session.epoch + 1


@pytest.mark.parametrize("second", ["open", "nothing", "progress over 100", "chunk of nothing"])
async def test_a_bad_message_ends_a_tasks_stream_and_not_the_session(
    site: LocalSite, agent: RawAgent, second: str
) -> None:
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    message: dict[str, dict[str, Any]] = {
        "open": {"open": pb2.TasksOpen(session_epoch=session.epoch)},
        "nothing": {},
        "progress over 100": {"progress": pb2.AttemptProgress(attempt_id="a", percent=101)},
        "chunk of nothing": {"chunk": pb2.OutputChunk(attempt_id="a")},
    }
    reason = "PROTOCOL_VIOLATION" if second == "open" else "VALIDATION_FAILED"
    async with site.nothing_changes(reason):
        await tasks.send(**message[second])
        assert (await tasks.refused()).reason == reason
    await session.beat()


@pytest.mark.parametrize("kind", ["not finite", "bad name", "no time", "time out of range", "too many"])
async def test_bad_points_end_a_telemetry_stream_and_none_of_their_batch_is_stored(
    site: LocalSite, admin: Admin, agent: RawAgent, kind: str
) -> None:
    session = await agent.come()
    telemetry = await session.telemetry()
    await telemetry.expect("opened")
    batch = session.batch(1, [1.0])
    bad = {
        "not finite": [point(float("nan"))],
        "bad name": [point(1.0, "Not A Metric")],
        "no time": [work_pb2.TelemetryPoint(metric="a.b_count")],
        "time out of range": [
            work_pb2.TelemetryPoint(metric="a.b_count", time=Timestamp(seconds=2**62), value=1.0)
        ],
        "too many": [point(1.0)] * 1000,
    }
    batch.points.extend(bad[kind])
    async with site.nothing_changes("VALIDATION_FAILED"):
        await telemetry.send(batch=batch)
        refused = await telemetry.refused()
    assert refused.reason == "VALIDATION_FAILED"
    assert all(name.startswith("batch.points") for name in refused.fields)
    assert await admin.points() == []
    await session.beat()


async def test_progress_that_comes_too_fast_is_dropped_and_the_stream_lives_on(
    site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    tasks, attempt = await assigned(admin, agent)
    await tasks.send(accepted=accepted(attempt))
    for percent in range(50):
        await tasks.send(progress=pb2.AttemptProgress(attempt_id=attempt, percent=percent))
    await tasks.send(finished=succeeded(attempt))
    await tasks.expect("result_acknowledged")
    [task] = await admin.all_tasks()
    assert task.progress_percent < 49
