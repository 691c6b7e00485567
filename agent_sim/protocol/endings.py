"""How a session may end, and what follows from it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import timedelta

from fleetwright.v1 import agent_service_pb2

from agent_sim.protocol.failures import Failure


class Cause(enum.Enum):
    """Why a session is over."""

    STOPPED = "stopped"
    """This agent was told to stop."""
    SUPERSEDED = "superseded"
    """A newer session of this engine took over."""
    RECONNECT = "reconnect"
    """The server asked to leave and come back."""
    STALE = "stale"
    """The server does not know the session any more: say Hello again, on the same channel."""
    CLOSED = "closed"
    """The server ended the stream without a reason."""
    UNANSWERED = "unanswered"
    """The server is connected, but answers no beat or no Hello."""
    FAILED = "failed"
    """The stream ended with a status."""


@dataclass(frozen=True)
class Ending:
    """The end of a session."""

    cause: Cause
    failure: Failure | None = None
    after: timedelta = timedelta(0)
    """When to come back, for RECONNECT."""
    reconnect_reason: agent_service_pb2.ReconnectReason.ValueType = (
        agent_service_pb2.RECONNECT_REASON_UNSPECIFIED
    )

    @property
    def name(self) -> str:
        """What to count it under."""
        if self.failure is not None:
            return self.failure.name
        if self.cause is Cause.RECONNECT:
            name = agent_service_pb2.ReconnectReason.Name(self.reconnect_reason)
            return name.removeprefix("RECONNECT_REASON_")
        return self.cause.name

    @property
    def replaced(self) -> bool:
        """Whether a newer session of the same identity took over."""
        if self.failure is not None:
            return self.failure.reason == "SESSION_REPLACED"
        return self.reconnect_reason == agent_service_pb2.RECONNECT_REASON_SESSION_REPLACED

    @property
    def keeps_channel(self) -> bool:
        """Whether the connection is good: the handshake is the dear part of coming back."""
        if self.failure is None:
            return self.cause is Cause.STALE or self.cause is Cause.CLOSED
        failure = self.failure
        return failure.retry_after is not None or failure.session_stale or failure.status_lost
