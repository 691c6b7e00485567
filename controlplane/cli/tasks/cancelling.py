"""Cancelling tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import grpc
from fleetwright.errors import Failure
from fleetwright.v1.task_service_pb2 import CancelTaskRequest, ListTasksRequest, ListTasksResponse

from controlplane.cli.calling import calling
from controlplane.cli.connection import Client
from controlplane.cli.output import Output
from controlplane.cli.paging import read_all
from controlplane.cli.tasks import views
from controlplane.cli.tasks.app import app
from controlplane.cli.tasks.naming import BATCHES, TASKS, TaskNames, matching, resource


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
    changed = ListTasksResponse()
    failed: list[grpc.RpcError] = []
    with output.progress("cancelling") as progress:
        for name in _open_tasks(client, output, tasks):
            try:
                changed.tasks.append(client.tasks.CancelTask(CancelTaskRequest(name=name)).task)
            except grpc.RpcError as error:
                failed.append(error)
                _tell_unless_last(output, name, error, tasks)
            progress(f"{len(changed.tasks):,} cancelled")
    if changed.tasks or not failed:
        output.items(changed, "tasks", views.columns(output.now), "nothing was left to cancel")
    if failed:
        raise failed[-1]


def _open_tasks(client: Client, output: Output, names: Iterable[str]) -> Iterator[str]:
    for name in map(resource, names):
        if not name.startswith(BATCHES):
            yield name
            continue
        filter_, _ = matching(client, name)
        request = ListTasksRequest(filter=f"{filter_} AND state = (QUEUED OR LEASED OR RUNNING)")
        found = read_all(client.tasks.ListTasks, request, "tasks", 0, output)
        yield from (task.name for task in found.tasks)


def _tell_unless_last(output: Output, name: str, error: grpc.RpcError, names: list[str]) -> None:
    """Say what could not be cancelled; the last failure ends the command, and is told then."""
    if name.startswith(TASKS) and resource(names[-1]) != name:
        output.note(f"{name}: {Failure.of(error).message}")
