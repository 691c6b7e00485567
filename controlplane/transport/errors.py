"""The one place where a refusal becomes a ``google.rpc.Status``.

Every status carries ErrorInfo (domain ``fleetwright``), and BadRequest and
RetryInfo where they apply (AIP-193). What is not a ``ServiceError`` is a defect:
the caller gets a fixed text and an incident id, the log gets the traceback.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, NoReturn

import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc import StatusCode
from grpc.aio import ServicerContext
from grpc_status import rpc_status

from controlplane import errors
from controlplane.errors import FieldViolation, ServiceError

DOMAIN = "fleetwright"
"""``domain`` of every ErrorInfo that we send."""

INTERNAL_TEXT = "The server failed to answer; its log knows the incident by the id in ErrorInfo."

STATUS_SECONDS = 5.0
"""How long a status may wait for its peer to read what was sent before it."""

# Status details travel in HTTP/2 trailers, of which clients take 8 KiB by default, base64 included.
_DETAILS_BYTES = 4 * 1024
_MESSAGE_CHARACTERS = 512
_DESCRIPTION_CHARACTERS = 256
_VIOLATIONS = 16

log = structlog.get_logger(__name__)


class DeadlineExceeded(ServiceError):
    """The call took longer than the server allows; ask for less, or again."""


class MethodUnknown(ServiceError):
    """The listener has no such method; another port may have it."""


_CODES_BY_CLASS: dict[type[ServiceError], StatusCode] = {
    errors.InvalidArgument: StatusCode.INVALID_ARGUMENT,
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.AlreadyExists: StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: StatusCode.FAILED_PRECONDITION,
    errors.Aborted: StatusCode.ABORTED,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: StatusCode.PERMISSION_DENIED,
    errors.ResourceExhausted: StatusCode.RESOURCE_EXHAUSTED,
    errors.DataLoss: StatusCode.DATA_LOSS,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    MethodUnknown: StatusCode.UNIMPLEMENTED,
}

_REASONS_BY_CODE: dict[StatusCode, str] = {
    StatusCode.INVALID_ARGUMENT: (
        "VALIDATION_FAILED FILTER_INVALID PAGE_TOKEN_INVALID FIELD_MASK_INVALID REQUEST_ID_REUSED"
        " CSR_MALFORMED CSR_KEY_WEAK CSR_SUBJECT_MISMATCH CSR_EXTRA_NAMES SELECTOR_EMPTY PROTOCOL_VIOLATION"
        " DIGEST_MISMATCH ADVISORIES_MALFORMED"
    ),
    StatusCode.NOT_FOUND: (
        "AGENT_UNKNOWN TASK_UNKNOWN ENROLLMENT_TOKEN_UNKNOWN IDENTITY_UNKNOWN ATTEMPT_UNKNOWN"
        " UPLOAD_UNKNOWN ARTEFACT_UNKNOWN PIPELINE_UNKNOWN PACKAGE_UNKNOWN EXCEPTION_UNKNOWN METADATA_UNKNOWN"
    ),
    StatusCode.ALREADY_EXISTS: "AGENT_ALREADY_ENROLLED",
    StatusCode.FAILED_PRECONDITION: (
        "TASK_FINAL TASK_NOT_REPLAYABLE OPERATOR_LAST SESSION_STALE PROTOCOL_VERSION_UNSUPPORTED SEQUENCE_GAP"
        " UPLOAD_OFFSET PIPELINE_STATE PACKAGE_NOT_RELEASED ADVISORIES_ROLLED_BACK TRUST_NOT_SET_UP"
        " TRUST_REFUSED"
    ),
    StatusCode.ABORTED: "ETAG_MISMATCH SESSION_REPLACED",
    StatusCode.UNAUTHENTICATED: (
        "IDENTITY_INVALID CERTIFICATE_EXPIRED CERTIFICATE_REVOKED TOKEN_UNKNOWN TOKEN_EXPIRED TOKEN_REVOKED"
    ),
    StatusCode.PERMISSION_DENIED: "IDENTITY_NOT_ALLOWED CLONE_SUSPECTED APPROVER_IS_REQUESTER",
    StatusCode.RESOURCE_EXHAUSTED: "RATE_LIMITED TOKEN_EXHAUSTED SLOW_READER LIMIT_EXCEEDED",
    StatusCode.DATA_LOSS: "BYTES_DAMAGED",
    StatusCode.UNAVAILABLE: "UNAVAILABLE",
    StatusCode.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
    StatusCode.UNIMPLEMENTED: "METHOD_UNKNOWN",
    StatusCode.INTERNAL: "INTERNAL",
}

CODES_BY_REASON = MappingProxyType(
    {reason: code for code, reasons in _REASONS_BY_CODE.items() for reason in reasons.split()}
)
"""The status code of each reason, as the contract documents it (proto/fleetwright/v1/errors.proto)."""


def code_of(error: ServiceError) -> StatusCode:
    """Return the code that the contract gives the reason; for one it does not know, that of the class."""
    code = CODES_BY_REASON.get(error.reason)
    if code is not None:
        return code
    return next(
        (_CODES_BY_CLASS[c] for c in type(error).__mro__ if c in _CODES_BY_CLASS), StatusCode.INTERNAL
    )


def _shortened(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _bad_request(violations: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field=_shortened(v.field, _DESCRIPTION_CHARACTERS),
                description=_shortened(v.description, _DESCRIPTION_CHARACTERS),
            )
            for v in violations[:_VIOLATIONS]
        ]
    )


def _details(error: ServiceError) -> list[Message]:
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason,
            domain=DOMAIN,
            metadata={k: _shortened(str(v), _DESCRIPTION_CHARACTERS) for k, v in error.metadata.items()},
        )
    ]
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(error.retry_after)
        details.append(retry)
    if error.violations:
        bad_request = _bad_request(error.violations)
        while bad_request.ByteSize() > _DETAILS_BYTES:
            del bad_request.field_violations[-1]
        details.append(bad_request)
    return details


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def _refusal(error: ServiceError) -> status_pb2.Status:
    return status_pb2.Status(
        code=code_of(error).value[0],
        message=_shortened(error.message, _MESSAGE_CHARACTERS),
        details=[_packed(detail) for detail in _details(error)],
    )


def _defect(error: BaseException) -> status_pb2.Status:
    incident = secrets.token_hex(8)
    log.error("call failed", incident=incident, exc_info=error)
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"incident": incident})
    return status_pb2.Status(code=code_pb2.INTERNAL, message=INTERNAL_TEXT, details=[_packed(info)])


def to_status(error: BaseException) -> status_pb2.Status:
    """Return what the wire may know of ``error``.

    For a ``ServiceError`` its reason, message and details; for anything else a fixed text with an
    incident id, under which the traceback is logged. ``asyncio.CancelledError`` is no error of a
    call: let it pass instead.
    """
    return _refusal(error) if isinstance(error, ServiceError) else _defect(error)


def reason_of(error: BaseException) -> str:
    """Return the reason that ``to_status`` gives ``error``."""
    return error.reason if isinstance(error, ServiceError) else "INTERNAL"


async def abort(context: ServicerContext[Any, Any], error: BaseException) -> NoReturn:
    """End the call with the status of ``error``; raises ``grpc.aio.AbortError``.

    A status waits behind all that was sent before it, so a peer that reads nothing would
    hold the call and its buffers for ever. After ``STATUS_SECONDS`` this raises
    ``asyncio.CancelledError`` instead: gRPC then drops the call, which resets its stream.
    """
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            await context.abort_with_status(rpc_status.to_status(to_status(error)))
    except TimeoutError:
        raise asyncio.CancelledError from None
    raise AssertionError("abort_with_status returned")
