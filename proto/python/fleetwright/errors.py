"""What can go wrong between a client and a server, in a form to decide by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

ERROR_DOMAIN = "fleetwright"
"""``ErrorInfo.domain`` of every error of this product."""

_DETAILS_KEY = "grpc-status-details-bin"


class IdentityError(Exception):
    """An identity's folder cannot be used; the text names the file and the remedy."""


class AddressError(ValueError):
    """A server's address is not HOST:PORT; the text says what is wrong with it."""


class Violation(NamedTuple):
    """A field of the request that breaks a rule of the contract, and which rule."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed, as the server says it in ``google.rpc.Status``.

    ``reason`` is the name of a value of ``ErrorReason`` without its prefix, for example
    ``AGENT_UNKNOWN``; it is empty where no server of this product answered, and then
    ``message`` has gRPC's own words. ``retry_after`` is how long the server asks to wait.
    """

    code: grpc.StatusCode
    reason: str = ""
    message: str = ""
    violations: tuple[Violation, ...] = ()
    retry_after: timedelta | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, error: grpc.RpcError) -> Failure:
        """Read a failed call of a synchronous or an asyncio channel.

        Details that cannot be read leave the plain status.
        """
        # Both kinds have these methods; the type of the error that callers catch declares none of them.
        call = cast("Any", error)
        if not hasattr(call, "code"):
            return cls(grpc.StatusCode.UNKNOWN, message=str(error))
        code = call.code() or grpc.StatusCode.UNKNOWN
        return _read(code, call.details() or "", _rich_status(call.trailing_metadata()))

    @property
    def answered(self) -> bool:
        """Whether a server of this product said so, and not the network or gRPC."""
        return bool(self.reason)


def _rich_status(metadata: Any) -> Any:
    for key, value in metadata or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _read(code: grpc.StatusCode, message: str, status: Any) -> Failure:
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        for kind in (info, bad, retry):
            if detail.Is(kind.DESCRIPTOR):
                detail.Unpack(kind)
    return Failure(
        code=code,
        reason=info.reason if info.domain == ERROR_DOMAIN else "",
        message=message,
        violations=tuple(Violation(one.field, one.description) for one in bad.field_violations),
        retry_after=(
            max(retry.retry_delay.ToTimedelta(), timedelta()) if retry.HasField("retry_delay") else None
        ),
        metadata=MappingProxyType(dict(info.metadata)),
    )
