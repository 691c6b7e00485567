"""What is known of the call at hand: who calls, its request id, how long it may take.

The outermost interceptor sets all of it before the handler runs; each call runs
in a task of its own, so that one call never sees another's. Tasks that a handler
starts inherit it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import timedelta
from time import monotonic

from controlplane.callers import Caller

_caller: ContextVar[Caller] = ContextVar("fleetwright_caller")
_request_id: ContextVar[str] = ContextVar("fleetwright_request_id", default="")
# In seconds of the monotonic clock; None where the call may take for ever.
_expires: ContextVar[float | None] = ContextVar("fleetwright_expires", default=None)


def current_caller() -> Caller:
    """Return who makes the call at hand.

    Raises ``LookupError`` outside of a call: whoever acts without a caller must say
    so instead of being taken for one.
    """
    return _caller.get()


def set_caller(caller: Caller) -> Token[Caller]:
    """Say who makes the call at hand; for the interceptor and for tests of handlers."""
    return _caller.set(caller)


@contextmanager
def calling_as(caller: Caller) -> Iterator[None]:
    """Run the block as a call of ``caller``; for tests and for work on a caller's behalf."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


def current_request_id() -> str:
    """Return the id of the call at hand, as it stands in the log; empty outside of a call."""
    return _request_id.get()


def set_request_id(request_id: str) -> Token[str]:
    """Name the call at hand."""
    return _request_id.set(request_id)


def remaining() -> timedelta | None:
    """Return how long the call at hand may still take, at least zero; None without a limit."""
    expires = _expires.get()
    return None if expires is None else timedelta(seconds=max(0.0, expires - monotonic()))


def set_remaining(duration: timedelta | None) -> None:
    """Let the call at hand take ``duration`` from now on; None for no limit."""
    _expires.set(None if duration is None else monotonic() + duration.total_seconds())
