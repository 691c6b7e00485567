"""What agents say of attempts, as operations of the writer."""

from __future__ import annotations

from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import work_pb2

from controlplane.tasks.operations import Finish, Progress
from controlplane.tasks.records import InstallDetail
from controlplane.tasks.rules import Outcome

SUMMARY_BYTES = 4 << 10
"""A result's detail above this is left out of lists and watches."""


def progress_of(agent_id: str, progress: pb2.AttemptProgress, now: int) -> Progress:
    """Return what a report of progress asks for."""
    return Progress(
        agent_id, progress.attempt_id, progress.percent, progress.message, now, progress.deployment_status
    )


def finish_of(agent_id: str, finished: pb2.AttemptFinished, now: int) -> Finish:
    """Return what a result asks for."""
    result = finished.result
    wire = result.SerializeToString(deterministic=True)
    detail = result.WhichOneof("detail")
    return Finish(
        agent_id,
        finished.attempt_id,
        Outcome(int(result.outcome)),
        result.reason,
        wire,
        wire if detail is None or len(wire) <= SUMMARY_BYTES else _without(result, detail),
        (result.stdout_bytes, result.stderr_bytes, result.log_bytes),
        now,
        _install(result.install) if detail == "install" else None,
    )


def _install(install: work_pb2.InstallResult) -> InstallDetail:
    return InstallDetail(int(install.status), install.reason_code)


def _without(result: work_pb2.AttemptResult, detail: str) -> bytes:
    short = work_pb2.AttemptResult()
    short.CopyFrom(result)
    short.ClearField(detail)  # type: ignore[arg-type]  # the stub lists the names as literals
    return short.SerializeToString(deterministic=True)
