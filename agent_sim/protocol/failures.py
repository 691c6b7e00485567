"""What a failed call says: its status, the ErrorInfo in it, and when to come back."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

ERROR_DOMAIN = "fleetwright"
"""ErrorInfo.domain of every error of this product."""

_LOCAL_WORDS = "Internal error from Core"
"""What grpc.aio says of a call whose end came while a message was written: the server's status is lost."""
_LONGER = "larger than max"
"""What gRPC says of a message beyond ``max_receive_message_length``."""
_DETAILS_KEY = "grpc-status-details-bin"
_IDENTITY_REASONS = frozenset(
    {
        "IDENTITY_INVALID",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_REVOKED",
        "AGENT_UNKNOWN",
        "IDENTITY_NOT_ALLOWED",
    }
)


@dataclass(frozen=True)
class Failure:
    """Why a call or a stream ended."""

    code: grpc.StatusCode
    reason: str = ""
    """ErrorReason without its prefix; empty where the server sent none."""
    message: str = ""
    """The server's, or gRPC's, words for people."""
    retry_after: timedelta | None = None
    """From RetryInfo: come back then, on the same channel."""
    metadata: dict[str, str] = field(default_factory=dict)
    """ErrorInfo's metadata."""
    fields: tuple[str, ...] = ()
    """From BadRequest: which fields of the message are wrong, by their paths."""

    @property
    def name(self) -> str:
        """What to count it under: the reason, or the status code where there is none."""
        return "STATUS_LOST" if self.status_lost else self.reason or self.code.name

    @property
    def status_lost(self) -> bool:
        """Whether the server ended the call, and gRPC lost its status to a write under way.

        Nothing is known then of what the server said; the connection is good, so ask again on it.
        """
        return not self.reason and self.code is grpc.StatusCode.INTERNAL and self.message == _LOCAL_WORDS

    @property
    def too_long(self) -> bool:
        """Whether what the server sent is longer than any message that this agent takes."""
        return not self.reason and self.code is grpc.StatusCode.RESOURCE_EXHAUSTED and _LONGER in self.message

    @property
    def refuses_identity(self) -> bool:
        """Whether the server does not accept who this agent says it is."""
        return self.reason in _IDENTITY_REASONS or self.code is grpc.StatusCode.UNAUTHENTICATED

    @property
    def session_stale(self) -> bool:
        """Whether the agent has to say Hello again."""
        return self.reason == "SESSION_STALE"

    @property
    def transport_broken(self) -> bool:
        """Whether the connection itself is in doubt: no answer of the product came with it."""
        return not self.reason and self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN)


def failure_of(error: grpc.aio.AioRpcError) -> Failure:
    """Read the rich status of ``error``; one that cannot be read leaves the plain status."""
    return _failure(error.code(), error.details() or "", _rich_status(error.trailing_metadata()))


def failure_of_status(status: status_pb2.Status) -> Failure:
    """Read a google.rpc.Status that came inside a message."""
    code = next((one for one in grpc.StatusCode if one.value[0] == status.code), grpc.StatusCode.UNKNOWN)
    return _failure(code, status.message, status)


def _rich_status(metadata: grpc.aio.Metadata | None) -> status_pb2.Status:
    status = status_pb2.Status()
    for key, value in metadata or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                status.ParseFromString(value)
            except DecodeError:
                status.Clear()
    return status


def _failure(code: grpc.StatusCode, message: str, status: status_pb2.Status) -> Failure:
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    bad_request = error_details_pb2.BadRequest()
    retry_after = None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            detail.Unpack(retry)
            retry_after = max(retry.retry_delay.ToTimedelta(), timedelta(0))
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            detail.Unpack(bad_request)
    fields = tuple(violation.field for violation in bad_request.field_violations)
    reason = info.reason if info.domain == ERROR_DOMAIN else ""
    return Failure(code, reason, message, retry_after, dict(info.metadata), fields)
