"""What can end an engine or an enrolment, grouped by what its user can do."""

from __future__ import annotations


class AgentError(Exception):
    """Base of what this package raises. The message is for people and never holds a secret."""


class IdentityError(AgentError):
    """An identity cannot be read, or does not fit together."""


class EnrollmentError(AgentError):
    """The server could not be reached, could not be trusted, or refused to enrol.

    ``reason`` is the ErrorReason of the server's refusal, or "" where there was none.
    ``retryable`` is true where the same call may succeed later.
    """

    def __init__(self, message: str, *, reason: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


class EnrollmentRequiredError(AgentError):
    """The identity is missing, expired, revoked, or its agent was deleted: enrol again."""


class SessionReplacedError(AgentError):
    """Another process took over with the same identity: a copy of this agent runs somewhere."""


class ProtocolVersionError(AgentError):
    """The server does not speak this agent's version of the protocol: update one of the two."""


class JournalError(AgentError):
    """The journal cannot be opened or written, and setting it aside would not help."""


class JournalFullError(JournalError):
    """The disk has no room for what was to be journalled. It is not the end: there may be room later."""
