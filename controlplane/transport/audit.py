"""One line in the log for each call that changes something: who, what, about what, with which outcome.

No content of a request is written: it may hold scripts, arguments and secrets.
"""

from __future__ import annotations

from typing import Any

import structlog

from controlplane.callers import Caller
from controlplane.transport.methods import Method

_RESOURCE_CHARACTERS = 256
_ID_KEYS = {"agents": "agent", "tasks": "task", "taskBatches": "batch"}

log = structlog.get_logger("audit")


def resource_name(method: Method, request: Any, response: Any) -> str:
    """Return the name of what the call is about; empty where the call did not come so far."""
    side, _, path = method.resource.partition(".")
    value = {"request": request, "response": response}.get(side)
    for name in path.split(".") if path else ():
        value = getattr(value, name, None)
    return value[:_RESOURCE_CHARACTERS] if isinstance(value, str) else ""


def record(method: Method, caller: Caller | None, resource: str, outcome: str, reason: str) -> None:
    """Write the audit line of one call; ``outcome`` is the name of its status code."""
    log.info(
        "audit",
        actor=caller.spiffe_id if caller is not None else "",
        kind=caller.kind.value if caller is not None else "",
        method=method.full_name,
        resource=resource,
        outcome=outcome,
        reason=reason,
        **_ids(resource),
    )


def _ids(resource: str) -> dict[str, str]:
    """Return the id in a resource name under the key that other lines have it under."""
    collection, _, ident = resource.partition("/")
    return {_ID_KEYS[collection]: ident} if ident and collection in _ID_KEYS else {}
