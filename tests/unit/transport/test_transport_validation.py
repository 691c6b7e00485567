from __future__ import annotations

import pytest
from fleetwright.v1 import agent_service_pb2, enrollment_token_service_pb2

from controlplane.errors import InvalidArgument
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
    parse = parser(enrollment_token_service_pb2.ListEnrollmentTokensRequest.FromString)
    assert parse(b"").page_size == 0


def test_bytes_that_are_no_message_are_refused() -> None:
    parse = parser(enrollment_token_service_pb2.ListEnrollmentTokensRequest.FromString)
    with pytest.raises(InvalidArgument, match="not a message"):
        parse(b"\xff\xff")
