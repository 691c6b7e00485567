"""What happens to a call between the wire and its handler, and back."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from typing import Any

import grpc
import pytest
import structlog
from fleetwright.v1 import agent_service_pb2, enrollment_token_service_pb2
from grpc import StatusCode

from controlplane.errors import FailedPrecondition, Unavailable
from controlplane.transport import methods
from controlplane.transport.context import current_request_id, remaining
from controlplane.transport.methods import RateLimit
from tests.integration.transport.doors import Doors, Refusal, opened, read_refusal, refusal

LIST = enrollment_token_service_pb2.ListEnrollmentTokensRequest()
LIST_METHOD = "/fleetwright.v1.EnrollmentTokenService/ListEnrollmentTokens"
SECRET = "postgresql://user:hunter2@db/fleet"


def beat(sequence: int) -> agent_service_pb2.HeartbeatRequest:
    return agent_service_pb2.HeartbeatRequest(beat=agent_service_pb2.Beat(sequence=sequence))


def with_list(**changes: Any) -> dict[str, methods.Method]:
    """The method table with another row for ListEnrollmentTokens."""
    row = dataclasses.replace(methods.METHODS[LIST_METHOD], **changes)
    return {**methods.METHODS, LIST_METHOD: row}


async def fails_with(doors: Doors, error: BaseException) -> Refusal:
    async def fail() -> None:
        raise error

    doors.tokens.on_list = fail
    return await refusal(doors.tokens_stub().ListEnrollmentTokens(LIST))


async def test_text_of_an_exception_never_reaches_the_wire(doors: Doors) -> None:
    with structlog.testing.capture_logs() as logs:
        refused = await fails_with(doors, RuntimeError(SECRET))
    assert (refused.code, refused.reason) == (StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in repr(refused)
    [line] = [line for line in logs if line["event"] == "call failed"]
    assert line["incident"] == refused.metadata["incident"]
    assert SECRET in str(line["exc_info"])


async def test_text_of_an_exception_in_a_stream_never_reaches_the_wire(doors: Doors) -> None:
    doors.agents.failure = RuntimeError(SECRET)
    stream = doors.agents_stub().Heartbeat()
    await stream.write(beat(1))
    with pytest.raises(grpc.aio.AioRpcError) as caught, structlog.testing.capture_logs():
        await stream.read()
    refused = read_refusal(caught.value)
    assert (refused.code, refused.reason) == (StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in repr(refused)


async def test_service_error_reaches_the_caller_with_reason_metadata_and_delay(doors: Doors) -> None:
    error = Unavailable(
        "UNAVAILABLE", "stopping: come back", metadata={"slot": "3"}, retry_after=timedelta(seconds=2.5)
    )
    assert await fails_with(doors, error) == Refusal(
        StatusCode.UNAVAILABLE,
        "stopping: come back",
        "UNAVAILABLE",
        {"slot": "3"},
        {},
        timedelta(seconds=2.5),
    )


async def test_service_error_ends_a_stream_with_its_reason(doors: Doors) -> None:
    doors.agents.failure = FailedPrecondition("SESSION_STALE", "session_epoch: 3 is not live; say Hello")
    stream = doors.agents_stub().Heartbeat()
    await stream.write(beat(1))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    refused = read_refusal(caught.value)
    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "SESSION_STALE")


async def test_invalid_request_names_each_field(doors: Doors) -> None:
    request = enrollment_token_service_pb2.CreateEnrollmentTokenRequest(
        max_uses=2_000_000, labels={"Bad!": "x"}
    )
    refused = await refusal(doors.tokens_stub().CreateEnrollmentToken(request))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "VALIDATION_FAILED")
    assert set(refused.fields) == {"max_uses", 'labels["Bad!"]'}
    assert refused.fields["max_uses"] == "must be less than or equal to 1000000"


async def test_invalid_message_of_a_stream_names_the_field_in_the_message(doors: Doors) -> None:
    stream = doors.agents_stub().Heartbeat()
    await stream.write(beat(1))
    await stream.read()
    await stream.write(beat(0))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert read_refusal(caught.value).fields == {"beat.sequence": "must be greater than or equal to 1"}


async def test_handler_that_iterates_gets_valid_messages_only(doors: Doors) -> None:
    stream = doors.agents_stub().Tasks()
    accepted = agent_service_pb2.AttemptAccepted(attempt_id="a1")
    await stream.write(agent_service_pb2.TasksRequest(accepted=accepted))
    assert (await stream.read()).result_acknowledged.attempt_id == "a1"
    await stream.write(agent_service_pb2.TasksRequest())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert read_refusal(caught.value).reason == "VALIDATION_FAILED"


@pytest.mark.parametrize("arity", ["unary_unary", "stream_stream"])
async def test_bytes_that_are_no_message_are_refused_as_invalid(doors: Doors, arity: str) -> None:
    if arity == "unary_unary":
        call: Any = doors.channel("operator").unary_unary(LIST_METHOD)
        refused = await refusal(call(b"\xff\xff\xff"))
    else:
        stream: Any = doors.channel("agent").stream_stream("/fleetwright.v1.AgentService/Heartbeat")()
        await stream.write(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        refused = read_refusal(caught.value)
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "VALIDATION_FAILED")
    assert "parse" not in refused.text.lower()


@pytest.mark.parametrize("arity", ["unary_unary", "stream_stream"])
async def test_message_over_the_limit_is_refused_with_the_limit_and_counted(doors: Doors, arity: str) -> None:
    too_long = bytes(4 * 1024 * 1024 + 1)
    if arity == "unary_unary":
        call: Any = doors.channel("operator").unary_unary(LIST_METHOD)
        refused = await refusal(call(too_long))
    else:
        stream: Any = doors.channel("agent").stream_stream("/fleetwright.v1.AgentService/Heartbeat")()
        await stream.write(too_long)
        refused = await refusal(stream.read())
    assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert refused.metadata == {"max_message_bytes": "4194304"}
    assert doors.sample("fleetwright_refused_total", reason="LIMIT_EXCEEDED") == 1


async def test_message_far_over_the_limit_ends_its_call_and_leaves_the_server_unharmed(doors: Doors) -> None:
    call: Any = doors.channel("operator").unary_unary(LIST_METHOD)
    refused = await refusal(call(bytes(6 * 1024 * 1024)))
    assert refused.code is StatusCode.RESOURCE_EXHAUSTED
    await doors.tokens_stub().ListEnrollmentTokens(LIST)


async def test_anonymous_callers_may_send_little(doors: Doors) -> None:
    call: Any = doors.anonymous().unary_unary("/fleetwright.v1.EnrollmentService/Enroll")
    refused = await refusal(call(bytes(64 * 1024 + 1)))
    assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")


@pytest.mark.parametrize("arity", ["unary_unary", "stream_stream"])
@pytest.mark.parametrize(
    "name",
    [
        "/fleetwright.v1.EnrollmentTokenService/Conjure",
        "/fleetwright.v1.AgentService/Heartbeat",  # of another listener
        "/fleetwright.v1.TaskService/CreateTask",  # listed, and without a servicer here
    ],
)
async def test_method_that_is_not_served_here_is_refused_with_its_reason(
    doors: Doors, arity: str, name: str
) -> None:
    channel: Any = doors.channel("operator")
    if arity == "unary_unary":
        refused = await refusal(channel.unary_unary(name)(b""))
    else:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_stream(name)().read()
        refused = read_refusal(caught.value)
    assert (refused.code, refused.reason) == (StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")
    assert doors.sample("fleetwright_refused_total", reason="METHOD_UNKNOWN") == 1


async def test_caller_over_its_rate_is_told_when_to_come_back() -> None:
    async with opened(methods=with_list(rate=RateLimit(per_second=0.001, burst=2))) as doors:
        stub = doors.tokens_stub()
        await stub.ListEnrollmentTokens(LIST)
        await stub.ListEnrollmentTokens(LIST)
        refused = await refusal(stub.ListEnrollmentTokens(LIST))
        assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert refused.retry_after is not None
        assert refused.retry_after > timedelta(minutes=1)
        await doors.tokens_stub("operator", doors.identity("operator", "another")).ListEnrollmentTokens(LIST)


async def test_unary_call_ends_at_the_deadline_of_the_server() -> None:
    async with opened(methods=with_list(deadline=timedelta(milliseconds=20))) as doors:
        left = []

        async def hang() -> None:
            left.append(remaining())
            await asyncio.Event().wait()

        doors.tokens.on_list = hang
        refused = await refusal(doors.tokens_stub().ListEnrollmentTokens(LIST))
    assert (refused.code, refused.reason) == (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert left[0] is not None
    assert left[0] <= timedelta(milliseconds=20)


async def test_timeout_of_a_handler_itself_is_a_defect_not_a_deadline(doors: Doors) -> None:
    with structlog.testing.capture_logs():
        refused = await fails_with(doors, TimeoutError("of something inside"))
    assert refused.reason == "INTERNAL"


async def test_code_of_an_abort_by_the_handler_is_kept_and_counted(doors: Doors) -> None:
    stream = doors.agents_stub().Telemetry()
    opening = agent_service_pb2.TelemetryOpen(session_epoch=1)
    await stream.write(agent_service_pb2.TelemetryRequest(open=opening))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is StatusCode.DATA_LOSS
    assert handled(doors, "Telemetry", "DataLoss", grpc_type="bidi_stream") == 1


def handled(doors: Doors, method: str, code: str, *, grpc_type: str = "unary") -> float:
    service = "EnrollmentTokenService" if method.endswith(("Token", "Tokens")) else "AgentService"
    return doors.sample(
        "grpc_server_handled_total",
        grpc_type=grpc_type,
        grpc_service=f"fleetwright.v1.{service}",
        grpc_method=method,
        grpc_code=code,
    )


async def test_calls_and_messages_are_counted(doors: Doors) -> None:
    await doors.tokens_stub().ListEnrollmentTokens(LIST)
    stream = doors.agents_stub().Heartbeat()
    for sequence in (1, 2, 3):
        await stream.write(beat(sequence))
        await stream.read()
    labels = {
        "grpc_type": "bidi_stream",
        "grpc_service": "fleetwright.v1.AgentService",
        "grpc_method": "Heartbeat",
    }
    assert doors.sample("fleetwright_open_streams", stream="Heartbeat") == 1
    assert doors.sample("grpc_server_started_total", **labels) == 1
    assert doors.sample("grpc_server_msg_received_total", **labels) == 3
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    # A message counts as sent once its write has ended, and its reader may be faster.
    assert doors.sample("grpc_server_msg_sent_total", **labels) == 3
    assert doors.sample("fleetwright_open_streams", stream="Heartbeat") == 0
    assert handled(doors, "Heartbeat", "OK", grpc_type="bidi_stream") == 1
    assert handled(doors, "ListEnrollmentTokens", "OK") == 1


async def test_change_leaves_an_audit_line_without_its_content(doors: Doors) -> None:
    with structlog.testing.capture_logs() as logs:
        request = enrollment_token_service_pb2.CreateEnrollmentTokenRequest(description="for site A")
        await doors.tokens_stub().CreateEnrollmentToken(request)
        await doors.tokens_stub().ListEnrollmentTokens(LIST)
    [line] = [line for line in logs if line["event"] == "audit"]
    assert line["actor"] == "spiffe://fleetwright.local/operator/one"
    assert line["resource"] == "enrollmentTokens/made"
    assert (line["outcome"], line["reason"]) == ("OK", "")
    assert "s3cr3t" not in repr(logs)
    assert "site A" not in repr(logs)


async def test_refused_change_leaves_an_audit_line_too(doors: Doors) -> None:
    with structlog.testing.capture_logs() as logs:
        request = enrollment_token_service_pb2.CreateEnrollmentTokenRequest()
        await refusal(doors.tokens_stub("integrator").CreateEnrollmentToken(request))
    [line] = [line for line in logs if line["event"] == "audit"]
    assert (line["outcome"], line["reason"]) == ("PERMISSION_DENIED", "IDENTITY_NOT_ALLOWED")
    assert line["actor"] == "spiffe://fleetwright.local/integrator/one"


async def test_request_id_is_taken_from_the_caller_only_where_it_is_harmless(doors: Doors) -> None:
    seen = []

    async def look() -> None:
        seen.append(current_request_id())

    doors.tokens.on_list = look
    stub = doors.tokens_stub()
    await stub.ListEnrollmentTokens(LIST, metadata=[("x-request-id", "r-1")])
    await stub.ListEnrollmentTokens(LIST, metadata=[("x-request-id", "r 2; drop")])
    await stub.ListEnrollmentTokens(LIST)
    assert seen[0] == "r-1"
    assert len({*seen}) == 3
    assert "drop" not in "".join(seen)


async def test_client_that_goes_away_leaves_nothing_open_and_is_no_defect(doors: Doors) -> None:
    with structlog.testing.capture_logs() as logs:
        stream = doors.agents_stub().Heartbeat()
        await stream.write(beat(1))
        await stream.read()
        stream.cancel()
        await doors.agents.ended.wait()
        await doors.tokens_stub().ListEnrollmentTokens(LIST)
    assert doors.sample("fleetwright_open_streams", stream="Heartbeat") == 0
    assert [line for line in logs if line["event"] == "call failed"] == []


async def test_trailers_of_a_very_bad_request_still_fit(doors: Doors) -> None:
    labels = {f"{'Ä' * 200}{number}": "x" * 300 for number in range(60)}
    request = enrollment_token_service_pb2.CreateEnrollmentTokenRequest(labels=labels)
    refused = await refusal(doors.tokens_stub().CreateEnrollmentToken(request))
    assert refused.reason == "VALIDATION_FAILED"
    assert refused.fields
