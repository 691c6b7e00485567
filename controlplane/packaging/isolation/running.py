"""Calls a function in isolation. The door for whatever reads bytes that others made."""

from __future__ import annotations

import json

from controlplane.packaging.isolation.calling import CODE_CHARS, MEMBER_CHARS, MESSAGE_CHARS
from controlplane.packaging.isolation.functions import FUNCTIONS, Functions, target_of
from controlplane.packaging.isolation.guarding import Ended, guarded
from controlplane.packaging.isolation.logs import printable
from controlplane.packaging.isolation.protocol import Order
from controlplane.packaging.isolation.records import (
    FailureKind,
    IsolationFailed,
    IsolationLimits,
    IsolationSettings,
    Job,
    JobError,
    JsonValue,
    Log,
    Outcome,
)

_SAID_BY_JOBS = (FailureKind.MEMORY, FailureKind.TOO_MUCH_OUTPUT, FailureKind.BAD_RESULT)
"""Failures that only the job's own process sees; all others are the guard's word."""


async def run(
    job: Job,
    limits: IsolationLimits,
    *,
    settings: IsolationSettings,
    functions: Functions = FUNCTIONS,
    log: Log | None = None,
) -> Outcome:
    """Call a function of the table in a process of its own; return what it answered and which limits held.

    Raises ``IsolationFailed`` for everything but the job's own errors, which are in the outcome. Cancelling
    ends the job and removes its scratch folder before the cancellation is raised.
    """
    order = Order(
        scratch="",
        uid=settings.uid,
        gid=settings.gid,
        limits=limits,
        require=sorted(name.value for name in settings.require),
        target=target_of(job.function, functions),
        arguments=dict(job.arguments),
    )

    def read(ended: Ended) -> tuple[Outcome, bool]:
        outcome = outcome_of(ended, limits)
        return outcome, outcome.error is None

    return await guarded(order, job.inputs, job.outputs, settings, log, read)


def outcome_of(ended: Ended, limits: IsolationLimits) -> Outcome:
    """Return the outcome of a function's answer, which may be anything; raises ``IsolationFailed``."""
    report = ended.report
    if not ended.answer or report.status != 0:
        raise IsolationFailed(
            FailureKind.KILLED, f"the job ended without an answer (status {report.status})", report.facts
        )
    try:
        told = _parsed(ended.answer)
        if "failed" in told:
            raise _failed(told, ended, limits)
        value, error = told.get("value"), _error(told)
    except ValueError as problem:
        raise IsolationFailed(
            FailureKind.BAD_RESULT, f"the job's answer cannot be read: {problem}", report.facts
        ) from None
    return Outcome(value, error, report.facts, report.usage)


def _parsed(answer: bytes) -> dict[str, JsonValue]:
    """Return the answer; raises ``ValueError`` for what is not one of the three that ``calling`` writes."""
    try:
        text = answer.decode("ascii")
        told = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:
            json.dumps(told, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError as error:
        raise ValueError(f"no JSON ({type(error).__name__})") from None
    if not isinstance(told, dict) or len(told.keys() & {"value", "error", "failed"}) != 1:
        raise ValueError("neither a value nor an error")
    return told


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _error(told: dict[str, JsonValue]) -> JobError | None:
    if "error" not in told:
        return None
    error = told["error"]
    if not isinstance(error, dict):
        raise ValueError("an error without fields")
    code, member, message = (error.get(name) for name in ("code", "member", "message"))
    if not (isinstance(code, str) and isinstance(member, str) and isinstance(message, str)):
        raise ValueError("an error without code, member and message")
    if len(code) > CODE_CHARS or len(member) > MEMBER_CHARS or len(message) > MESSAGE_CHARS:
        raise ValueError("an error with a text that is too long")
    return JobError(code, member, message)


def _failed(told: dict[str, JsonValue], ended: Ended, limits: IsolationLimits) -> IsolationFailed:
    kind = next((kind for kind in _SAID_BY_JOBS if kind.value == told["failed"]), None)
    message = told.get("message")
    if kind is None or not isinstance(message, str) or len(message) > MESSAGE_CHARS:
        raise ValueError("a failure that a job cannot have")
    message = message or f"needed more than {limits.memory_bytes} bytes"
    return IsolationFailed(kind, f"the job failed: {printable(message)}", ended.report.facts)
