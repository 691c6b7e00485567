"""What the wire may know of an error."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import structlog
from google.rpc import error_details_pb2
from grpc import StatusCode

from controlplane import errors
from controlplane.errors import FieldViolation, invalid
from controlplane.transport.errors import DOMAIN, INTERNAL_TEXT, code_of, reason_of, to_status


def details(status: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for detail in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            message = kind()
            if detail.Unpack(message):
                found[kind.__name__] = message
    return found


def test_reason_decides_the_code_where_class_and_contract_differ() -> None:
    assert code_of(errors.FailedPrecondition("SESSION_REPLACED", "replaced")) is StatusCode.ABORTED
    assert code_of(errors.InvalidArgument("SEQUENCE_GAP", "gap")) is StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.NotFound, StatusCode.NOT_FOUND),
        (errors.Aborted, StatusCode.ABORTED),
        (errors.Unavailable, StatusCode.UNAVAILABLE),
        (errors.AlreadyExists, StatusCode.ALREADY_EXISTS),
    ],
)
def test_class_decides_the_code_of_a_reason_that_is_not_in_the_contract(kind: Any, code: StatusCode) -> None:
    assert code_of(kind("SOMETHING_NEW", "x")) is code


def test_status_carries_reason_metadata_fields_and_delay() -> None:
    error = errors.ResourceExhausted(
        "RATE_LIMITED",
        "CreateTask: too often",
        violations=[FieldViolation("agent", "too often")],
        metadata={"limit": "5"},
        retry_after=timedelta(milliseconds=1500),
    )
    status = to_status(error)
    found = details(status)
    assert (status.code, status.message) == (StatusCode.RESOURCE_EXHAUSTED.value[0], "CreateTask: too often")
    info = found["ErrorInfo"]
    assert (info.domain, info.reason, dict(info.metadata)) == (DOMAIN, "RATE_LIMITED", {"limit": "5"})
    assert found["BadRequest"].field_violations[0].field == "agent"
    assert found["RetryInfo"].retry_delay.ToTimedelta() == timedelta(milliseconds=1500)


def test_defect_says_nothing_but_its_incident() -> None:
    with structlog.testing.capture_logs() as logs:
        status = to_status(KeyError("password=hunter2"))
    info = details(status)["ErrorInfo"]
    assert (status.code, status.message, info.reason) == (
        StatusCode.INTERNAL.value[0],
        INTERNAL_TEXT,
        "INTERNAL",
    )
    assert logs[0]["incident"] == info.metadata["incident"]
    assert b"hunter2" not in status.SerializeToString()


def test_reason_of_a_defect_is_internal() -> None:
    assert reason_of(ValueError()) == "INTERNAL"
    assert reason_of(invalid("page_size", "too many")) == "VALIDATION_FAILED"


def test_status_with_many_violations_fits_into_trailers() -> None:
    violations = [FieldViolation(f"field_{n}" * 50, "x" * 5000) for n in range(500)]
    error = errors.InvalidArgument("VALIDATION_FAILED", "y" * 10_000, violations=violations)
    status = to_status(error)
    assert status.ByteSize() < 6 * 1024
    assert details(status)["BadRequest"].field_violations
