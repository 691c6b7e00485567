"""Errors that cross a room's door, grouped by who can mend them.

Each carries a reason of the contract's ``ErrorReason`` (by name, without its
prefix), a message that names the field, the value and the remedy, and what the
wire needs beside it. ``transport.errors`` is the one place that turns them into
``google.rpc.Status``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that breaks a rule."""

    field: str
    description: str


class ServiceError(Exception):
    """A refusal that the caller is told of."""

    default_retry_after: ClassVar[timedelta | None] = None
    """When to come back where whoever refuses cannot say better; None where coming back is no remedy."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        violations: Sequence[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.retry_after = self.default_retry_after if retry_after is None else retry_after


class InvalidArgument(ServiceError):
    """The caller must send something else."""


class NotFound(ServiceError):
    """The caller names something that does not exist."""


class AlreadyExists(ServiceError):
    """The caller wants to make something that exists."""


class FailedPrecondition(ServiceError):
    """The caller must do something else first."""


class Aborted(ServiceError):
    """The caller lost against another; read again and decide."""


class Unauthenticated(ServiceError):
    """The caller must show another identity."""


class PermissionDenied(ServiceError):
    """An administrator must allow the caller more."""


class ResourceExhausted(ServiceError):
    """The caller must send less, or later."""


class DataLoss(ServiceError):
    """An operator must put back what was stored; coming back is no remedy."""


class Unavailable(ServiceError):
    """An operator must mend the server, or time will; the caller comes back later, and is told when."""

    default_retry_after = timedelta(seconds=5)


def invalid(field: str, description: str, *, reason: str = "VALIDATION_FAILED") -> InvalidArgument:
    """Return the error for one bad field."""
    return InvalidArgument(reason, f"{field}: {description}", violations=[FieldViolation(field, description)])
