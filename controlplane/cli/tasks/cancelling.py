"""Cancelling tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import grpc
from fleetwright.errors import Failure
from fleetwright.v1.task_service_pb2 import CancelTaskRequest, ListTasksRequest, ListTasksResponse, Task

from controlplane.cli.calling import UNANSWERED, calling
from controlplane.cli.connection import Client
from controlplane.cli.output import Output
from controlplane.cli.paging import read_all
from controlplane.cli.tasks import views
from controlplane.cli.tasks.app import app
from controlplane.cli.tasks.naming import BATCHES, TaskNames, matching, resource

_ENDED_MEANWHILE = {"TASK_FINAL", "TASK_UNKNOWN"}


@app.command("cancel")
@calling
def cancel(client: Client, output: Output, tasks: TaskNames) -> None:
    """Cancel tasks: at once where they are queued; where they run, the agent is asked to stop them.

    A task that has ended is an error where it is named, and passed over in a batch.

    \b
    Examples:
      fleetwright tasks cancel tasks/NAME
      fleetwright tasks cancel taskBatches/NAME
    """
    cancelled, failed = cancel_all(client, output, tasks)
    if cancelled or not failed:
        changed = ListTasksResponse(tasks=cancelled)
        output.items(changed, "tasks", views.columns(output.now), "nothing was left to cancel")
    if failed:
        raise failed[-1]


def cancel_all(client: Client, output: Output, names: list[str]) -> tuple[list[Task], list[grpc.RpcError]]:
    """Cancel what is open of ``names``; return what was cancelled, and what failed, in their order.

    A task of a batch that has ended meanwhile is no failure, and a server that does not answer is the last.
    """
    cancelled: list[Task] = []
    failed: list[grpc.RpcError] = []
    with output.progress("cancelling") as progress:
        for name, of_a_batch in _open_tasks(client, output, names):
            try:
                cancelled.append(client.tasks.CancelTask(CancelTaskRequest(name=name)).task)
            except grpc.RpcError as error:
                failure = Failure.of(error)
                if of_a_batch and failure.reason in _ENDED_MEANWHILE:
                    continue
                failed.append(error)
                if failure.code in UNANSWERED:
                    break
                _tell_unless_last(output, name, failure, names)
            progress(f"{len(cancelled):,} cancelled")
    return cancelled, failed


def _open_tasks(client: Client, output: Output, names: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yield the names of tasks, and whether a batch stands for them."""
    for name in map(resource, names):
        if not name.startswith(BATCHES):
            yield name, False
            continue
        filter_, _ = matching(client, name)
        request = ListTasksRequest(filter=f"{filter_} AND state = (QUEUED OR LEASED OR RUNNING)")
        found = read_all(client.tasks.ListTasks, request, "tasks", 0, output)
        yield from ((task.name, True) for task in found.tasks)


def _tell_unless_last(output: Output, name: str, failure: Failure, names: list[str]) -> None:
    """Say what could not be cancelled; the last failure ends the command, and is told then."""
    if resource(names[-1]) != name:
        output.note(f"{name}: {failure.message}")
