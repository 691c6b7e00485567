from __future__ import annotations

import pytest
from fleetwright.v1 import (
    agent_service_pb2,
    enrollment_token_service_pb2,
    task_service_pb2,
    telemetry_service_pb2,
    work_pb2,
)
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from controlplane.errors import InvalidArgument
from controlplane.transport import instants
from controlplane.transport.instants import duration_in_range, out_of_range, timestamp_in_range
from controlplane.transport.validation import parser, validate


def fields(message: object) -> set[str]:
    with pytest.raises(InvalidArgument) as refused:
        validate(message)  # type: ignore[arg-type] # any message
    assert refused.value.reason == "VALIDATION_FAILED"
    return {violation.field for violation in refused.value.violations}


def test_path_goes_through_messages_and_lists() -> None:
    batch = agent_service_pb2.TelemetryBatch(journal_id="j", first_sequence=1)
    batch.points.add()
    assert "batch.points[0].metric" in fields(agent_service_pb2.TelemetryRequest(batch=batch))


def test_path_goes_through_map_keys() -> None:
    message = enrollment_token_service_pb2.CreateEnrollmentTokenRequest(labels={"Bad!": "x"})
    assert fields(message) == {'labels["Bad!"]'}


def test_oneof_that_must_be_set_is_named() -> None:
    assert fields(agent_service_pb2.HeartbeatRequest()) == {"message"}


def test_valid_message_passes() -> None:
    parse = parser(enrollment_token_service_pb2.ListEnrollmentTokensRequest.FromString, 64)
    assert parse(b"").page_size == 0


def test_bytes_that_are_no_message_are_refused() -> None:
    parse = parser(enrollment_token_service_pb2.ListEnrollmentTokensRequest.FromString, 64)
    with pytest.raises(InvalidArgument, match="not a message"):
        parse(b"\xff\xff")


def test_result_is_not_lost_for_want_of_a_reason() -> None:
    finished = agent_service_pb2.AttemptFinished(attempt_id="a")
    finished.result.outcome = work_pb2.OUTCOME_FAILED
    validate(agent_service_pb2.TasksRequest(finished=finished))


FAR = 10**15


def test_a_timestamp_out_of_range_is_refused_wherever_it_stands() -> None:
    hello = agent_service_pb2.Hello(protocol_version=1, agent_version="1", boot_id="b", journal_id="j")
    hello.agent_time.seconds = FAR
    assert fields(agent_service_pb2.HeartbeatRequest(hello=hello)) == {"hello.agent_time"}
    query = telemetry_service_pb2.QueryTelemetryRequest()
    query.end_time.nanos = -1
    assert fields(query) == {"end_time"}
    batch = agent_service_pb2.TelemetryBatch(journal_id="j", first_sequence=1)
    for seconds in (0, FAR, 1, -FAR):
        batch.points.add(metric="m").time.seconds = seconds
    assert fields(agent_service_pb2.TelemetryRequest(batch=batch)) == {
        "batch.points[1].time",
        "batch.points[3].time",
    }


def test_a_duration_out_of_range_is_refused_before_the_rules_convert_it() -> None:
    request = task_service_pb2.CreateTaskRequest()
    request.spec.script.time_limit.seconds = 2**62
    assert fields(request) == {"spec.script.time_limit"}


def test_messages_that_can_hold_no_instant_are_not_searched() -> None:
    assert instants._places(agent_service_pb2.Beat.DESCRIPTOR) == ()
    assert instants._places(Struct.DESCRIPTOR) == ()
    beat = agent_service_pb2.HeartbeatRequest(beat=agent_service_pb2.Beat(sequence=1))
    assert out_of_range(beat) == []


numbers = st.integers(-(2**63), 2**63 - 1) | st.integers(-62_135_596_810, 253_402_300_810)
nanos = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, -1, 999_999_999, -999_999_999])


@given(numbers, nanos)
def test_what_passes_as_a_timestamp_can_be_converted(seconds: int, nanos: int) -> None:
    request = telemetry_service_pb2.QueryTelemetryRequest()
    request.start_time.seconds, request.start_time.nanos = seconds, nanos
    if timestamp_in_range(seconds, nanos):
        request.start_time.ToDatetime()
        assert request.start_time.ToMicroseconds() // 1_000_000 == seconds
    else:
        assert [violation.field for violation in out_of_range(request)] == ["start_time"]


@given(numbers, nanos)
def test_what_passes_as_a_duration_can_be_converted(seconds: int, nanos: int) -> None:
    request = task_service_pb2.CreateTaskRequest()
    limit = request.spec.script.time_limit
    limit.seconds, limit.nanos = seconds, nanos
    if duration_in_range(seconds, nanos):
        assert abs(limit.ToMicroseconds()) <= 315_576_000_001 * 10**6
    else:
        assert [violation.field for violation in out_of_range(request)] == ["spec.script.time_limit"]
