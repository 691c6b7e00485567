"""The results that the engine itself gives to attempts."""

from __future__ import annotations

from datetime import datetime, timedelta

from fleetwright.v1 import work_pb2
from google.protobuf.timestamp_pb2 import Timestamp

MAX_RESULT_BYTES = 7 << 19
"""Above this a result might not fit into the message of a server with gRPC's usual 4 MiB, and would be
sent again for ever."""

_MAX_REASON_BYTES = 2048
_MAX_COUNT = 2**63 - 1
_NANOS = 10**9
_LAST_SECOND = 253_402_300_800
"""The year 10,000, where Timestamp ends."""


def complete(
    result: work_pb2.AttemptResult, begun: datetime, ended: datetime, discarded: int = 0
) -> work_pb2.AttemptResult:
    """Fill in the times that a host left out, cut a reason that is too long, refuse a detail that is.

    A refusal has no begin: nothing was done. ``discarded`` bytes of output were not journalled.
    """
    size = result.ByteSize()
    if size > MAX_RESULT_BYTES:
        result = work_pb2.AttemptResult(
            outcome=work_pb2.OUTCOME_FAILED,
            reason=f"done, but the result has {size} bytes and a server takes at most {MAX_RESULT_BYTES}",
        )
    if not result.HasField("start_time") and result.outcome != work_pb2.OUTCOME_REFUSED:
        result.start_time.FromDatetime(begun)
    if not result.HasField("end_time"):
        result.end_time.FromDatetime(ended)
    result.discarded_bytes += discarded
    reason = result.reason.encode()
    if len(reason) > _MAX_REASON_BYTES:
        result.reason = reason[:_MAX_REASON_BYTES].decode(errors="ignore")
    return result


def without_detail(result: work_pb2.AttemptResult, why: str) -> work_pb2.AttemptResult:
    """Return a result of the same outcome with ``why`` for its reason, without detail and without output.

    The output that it named counts as discarded. Nothing of the agent's own words is
    kept: they may be what was refused.
    """
    known = result.outcome in work_pb2.Outcome.values() and result.outcome != work_pb2.OUTCOME_UNSPECIFIED
    short = work_pb2.AttemptResult(
        outcome=result.outcome if known else work_pb2.OUTCOME_FAILED,
        reason=why.encode()[:_MAX_REASON_BYTES].decode(errors="ignore"),
        discarded_bytes=min(
            result.stdout_bytes + result.stderr_bytes + result.log_bytes + result.discarded_bytes, _MAX_COUNT
        ),
    )
    for field in ("start_time", "end_time"):
        time: Timestamp = getattr(result, field)
        if result.HasField(field) and 0 <= time.nanos < _NANOS and 0 <= time.seconds < _LAST_SECOND:
            getattr(short, field).CopyFrom(time)
    return short


def cancelled(now: datetime, begun: datetime | None) -> work_pb2.AttemptResult:
    """Return the result of an attempt that the server had stopped; no ``begun`` where it had only waited."""
    return _ended(work_pb2.OUTCOME_CANCELLED, "cancelled by the server", now, begun)


def cancelled_unknown(now: datetime) -> work_pb2.AttemptResult:
    """Return the answer to the cancellation of an attempt that this agent does not know."""
    return _ended(work_pb2.OUTCOME_CANCELLED, "the agent does not know this attempt: nothing runs", now, None)


def interrupted(now: datetime, begun: datetime | None) -> work_pb2.AttemptResult:
    """Return the result of an attempt that an orderly stop cut off."""
    return _ended(work_pb2.OUTCOME_INTERRUPTED, "the agent was stopped while the work ran", now, begun)


def timed_out(limit: timedelta) -> work_pb2.AttemptResult:
    """Return the result of an attempt that ran over its limit."""
    reason = f"ended after its run limit of {limit.total_seconds():g} s"
    return work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_TIMED_OUT, reason=reason)


def crashed(error: Exception) -> work_pb2.AttemptResult:
    """Return the result of an attempt whose host broke its word and raised."""
    reason = f"the agent failed while it did the work ({type(error).__name__}); its log says more"
    return work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_FAILED, reason=reason)


def _ended(
    outcome: work_pb2.Outcome.ValueType, reason: str, now: datetime, begun: datetime | None
) -> work_pb2.AttemptResult:
    result = work_pb2.AttemptResult(outcome=outcome, reason=reason)
    if begun is not None:
        result.start_time.FromDatetime(begun)
    result.end_time.FromDatetime(now)
    return result
