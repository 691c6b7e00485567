"""Tasks as people read them: columns, lines of a watch, and how a result is put in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from fleetwright.v1 import task_service_pb2, work_pb2

from controlplane.cli.output import Column
from controlplane.cli.values import age, enum_name, instant, shown_duration, shown_time

FINAL: Final = frozenset(
    number
    for name, number in task_service_pb2.TaskState.items()
    if number >= task_service_pb2.TASK_STATE_SUCCEEDED
)
"""States that a task does not leave; the contract says that all from SUCCEEDED on are."""

_STYLES = {
    "SUCCEEDED": "green",
    "RUNNING": "cyan",
    "LEASED": "cyan",
    "FAILED": "red",
    "DEAD": "red",
    "INTERRUPTED": "red",
    "EXPIRED": "yellow",
    "CANCELLED": "yellow",
    "SKIPPED": "yellow",
    "SUPERSEDED": "yellow",
}


def state_name(state: int) -> str:
    """Return the name of a task's state, such as ``QUEUED``."""
    return enum_name(task_service_pb2.TaskState.DESCRIPTOR, state)


def state_style(name: str) -> str:
    """Return the colour of a state."""
    return _STYLES.get(name, "")


def columns(now: datetime) -> list[Column[Any]]:
    """Return the columns of a list of tasks."""
    return [
        Column("NAME", lambda task: task.name),
        Column("AGENT", lambda task: task.agent.removeprefix("agents/")),
        Column("KIND", lambda task: task.kind),
        Column("STATE", lambda task: state_name(task.state), style=state_style),
        Column("RESULT", result_words),
        Column("PROGRESS", _progress, wide=True),
        Column("AGE", lambda task: age(task, "create_time", now)),
        Column("SINCE", lambda task: age(task, "state_time", now), wide=True),
        Column("ATTEMPTS", lambda task: str(task.attempt_count), wide=True),
        Column("PRIORITY", lambda task: str(task.options.priority), wide=True),
        Column("CREATOR", lambda task: task.creator.rpartition("/")[2], wide=True),
    ]


def details(now: datetime) -> list[Column[Any]]:
    """Return what ``tasks show`` prints of one task, a line each."""
    return [
        Column("Name", lambda task: task.name),
        Column("Agent", lambda task: task.agent),
        Column("Batch", lambda task: task.batch),
        Column("Kind", lambda task: task.kind),
        Column("Work", lambda task: work_words(task.spec)),
        Column("State", lambda task: state_name(task.state), style=state_style),
        Column("Reason", lambda task: task.state_reason),
        Column("Since", lambda task: _since(task, now)),
        Column("Cancel requested", lambda task: "yes" if task.cancel_requested else ""),
        Column("Progress", _progress),
        Column("Result", result_words),
        Column("Output", _output_words),
        Column("Attempts", lambda task: _attempts(task.attempts)),
        Column("Priority", lambda task: str(task.options.priority or "")),
        Column("If offline", lambda task: offline_words(task.options)),
        Column("Replay of", lambda task: task.replay_of),
        Column("May be run again", lambda task: "yes" if task.options.idempotent else ""),
        Column("Creator", lambda task: task.creator),
        Column("Created", lambda task: shown_time(task, "create_time")),
        Column("Due", lambda task: _due(task, now)),
        Column("Waits until", lambda task: "" if task.state in FINAL else shown_time(task, "expire_time")),
    ]


def batch_details() -> list[Column[Any]]:
    """Return what ``tasks show`` prints of one batch, a line each."""
    return [
        Column("Name", lambda batch: batch.name),
        Column("Selector", lambda batch: batch.selector),
        Column("Kind", lambda batch: batch.kind),
        Column("Work", lambda batch: work_words(batch.spec)),
        Column("Percentage", _percentage),
        Column("State", lambda batch: enum_name(task_service_pb2.TaskBatchState.DESCRIPTOR, batch.state)),
        Column("Tasks", tasks_words),
        Column("If offline", lambda batch: offline_words(batch.options)),
        Column("States", lambda batch: counts_words({one.state: one.count for one in batch.state_counts})),
        Column("Creator", lambda batch: batch.creator),
        Column("Created", lambda batch: shown_time(batch, "create_time")),
    ]


def tasks_words(batch: Any) -> str:
    """Return how many tasks a batch has, and how many are still to be made."""
    words = f"{batch.task_count:,} tasks"
    if batch.state == task_service_pb2.TASK_BATCH_STATE_EXPANDING:
        words += f" made, {batch.target_count - batch.expanded_count:,} to be made"
    return words


def _percentage(batch: Any) -> str:
    return f"{batch.percentage} % by seed {batch.seed}" if 0 < batch.percentage < 100 else ""


def offline_words(options: Any) -> str:
    """Return what becomes of a task while its agent is away; empty where it waits."""
    if options.offline_policy == task_service_pb2.OFFLINE_POLICY_SKIP:
        return "skipped"
    if options.offline_policy == task_service_pb2.OFFLINE_POLICY_LATEST:
        return f"the latest of {options.supersede_key} waits"
    if options.offline_policy == task_service_pb2.OFFLINE_POLICY_WINDOW:
        window = options.window
        length = shown_duration(window.duration.ToTimedelta())
        return f"window {window.cron} {window.time_zone} for {length}"
    return ""


def counts_words(counts: dict[int, int]) -> str:
    """Return counts by state as ``3 SUCCEEDED, 1 FAILED``."""
    return ", ".join(f"{counts[state]:,} {state_name(state)}" for state in sorted(counts) if counts[state])


def work_words(spec: Any) -> str:
    """Return what is to be done, in one line."""
    kind = spec.WhichOneof("kind")
    if kind == "script":
        lines = spec.script.body.strip().splitlines() or [""]
        more = f" (and {len(lines) - 1} lines more)" if len(lines) > 1 else ""
        arguments = "".join(f" {one}" for one in spec.script.arguments)
        return f"{spec.script.interpreter}: {lines[0]}{more}{arguments}"
    if kind == "logs":
        return f"{spec.logs.path}" + (f", lines with {spec.logs.contains!r}" if spec.logs.contains else "")
    if kind == "inventory":
        return "with packages" if spec.inventory.include_packages else "without packages"
    if kind == "install":
        install = spec.install
        return f"{install.package_name} {install.version}, {install.package} at {install.target_path}"
    return ""


def result_words(task: Any) -> str:
    """Return how a task ended, in a few words; empty where it has not."""
    if not task.HasField("result"):
        return ""
    result = task.result
    detail = result.WhichOneof("detail")
    if detail == "script" and result.script.HasField("exit_status"):
        return f"exit {result.script.exit_status}"
    if detail == "script":
        return f"signal {result.script.signal}"
    if detail == "install":
        return _install_words(result)
    if result.outcome != work_pb2.OUTCOME_SUCCEEDED:
        return str(result.reason) or enum_name(work_pb2.Outcome.DESCRIPTOR, result.outcome)
    if detail == "echo":
        return str(result.echo.payload.decode("utf-8", "replace"))
    return "done"


def _install_words(result: Any) -> str:
    install = result.install
    status = enum_name(work_pb2.DeploymentStatus.DESCRIPTOR, install.status)
    words = [f"{status} ({install.reason_code})" if install.reason_code else status]
    if install.previous_version:
        there = "in the place of" if install.status == work_pb2.DEPLOYMENT_STATUS_INSTALLED else "before:"
        words.append(f"{there} {install.previous_version}")
    if install.verified:
        words.append(f"verified {', '.join(install.verified)}")
    said = f": {result.reason}" if result.reason else ""
    return "; ".join(words) + said


def _since(task: Any, now: datetime) -> str:
    return f"{shown_time(task, 'state_time')} ({age(task, 'state_time', now)} ago)"


def _due(task: Any, now: datetime) -> str:
    waits = task.state == task_service_pb2.TASK_STATE_QUEUED
    return shown_time(task, "due_time") if waits and instant(task.due_time) > now else ""


def _progress(task: Any) -> str:
    if task.state in FINAL or not (task.progress_percent or task.progress_message):
        return ""
    return f"{task.progress_percent} % {task.progress_message}".rstrip()


def _output_words(task: Any) -> str:
    result = task.result
    kept = {"stdout": result.stdout_bytes, "stderr": result.stderr_bytes, "log": result.log_bytes}
    words = [f"{count:,} bytes of {name}" for name, count in kept.items() if count]
    if result.discarded_bytes:
        words.append(f"{result.discarded_bytes:,} bytes beyond the limit discarded")
    return ", ".join(words)


def _attempts(attempts: Sequence[Any]) -> str:
    return "; ".join(_attempt(one) for one in attempts)


def _attempt(attempt: Any) -> str:
    state = enum_name(task_service_pb2.AttemptState.DESCRIPTOR, attempt.state)
    took = ""
    if attempt.HasField("lease_time") and attempt.HasField("end_time"):
        took = f" in {shown_duration(instant(attempt.end_time) - instant(attempt.lease_time))}"
    reason = f": {attempt.result.reason}" if attempt.result.reason else ""
    return f"{attempt.number} {state}{took}{reason}"
