"""Listing, showing, watching and waiting for tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from fleetwright.v1.task_service_pb2 import (
    GetTaskBatchRequest,
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    WatchTasksRequest,
)

from controlplane.cli.calling import calling
from controlplane.cli.connection import Client
from controlplane.cli.output import Column, Output
from controlplane.cli.paging import read_all, summarize
from controlplane.cli.tasks import views
from controlplane.cli.tasks.app import app
from controlplane.cli.tasks.expanding import expanded
from controlplane.cli.tasks.naming import (
    BATCHES,
    AgentOption,
    BatchOption,
    FilterOption,
    StateOption,
    TaskName,
    TaskNames,
    filter_of,
    matching,
    resource,
)
from controlplane.cli.tasks.said import print_output, stream_named
from controlplane.cli.tasks.waiting import Counts, must_have_succeeded, wait_for
from controlplane.cli.watching import Watched, watch


@app.command("list")
@calling
def list_(
    client: Client,
    output: Output,
    filter_text: FilterOption = "",
    agent: AgentOption = None,
    state: StateOption = None,
    batch: BatchOption = None,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="At most so many; 0 for all.")] = 100,
) -> None:
    """List tasks, newest first.

    A filter compares task_id, agent_id, batch_id, kind, state, state_time, priority, attempt_count,
    cancel_requested, creator, create_time, expire_time, update_time, replay_of and supersede_key; see
    docs/filters.md.

    \b
    Examples:
      fleetwright tasks list --state QUEUED --state RUNNING
      fleetwright tasks list --agent web-1 --limit 10 -o wide
      fleetwright tasks list --filter 'state = (FAILED OR DEAD) AND create_time > 2026-11-01T00:00:00Z'
      fleetwright tasks list -o json --limit 0 | jq -r ".tasks[] | .name"
    """
    request = ListTasksRequest(filter=filter_of(filter_text, agent, state, batch))
    response: ListTasksResponse = read_all(client.tasks.ListTasks, request, "tasks", limit, output)
    output.items(
        response, "tasks", views.columns(output.now), "no task matches" if request.filter else "no tasks"
    )
    summarize(output, response, "tasks")


@app.command("show")
@calling
def show(client: Client, output: Output, task: TaskName) -> None:
    """Show a task with its attempts and its result, or a batch with the states of its tasks.

    \b
    Examples:
      fleetwright tasks show tasks/NAME
      fleetwright tasks show taskBatches/NAME -o json
    """
    name = resource(task)
    if name.startswith(BATCHES):
        batch = client.tasks.GetTaskBatch(GetTaskBatchRequest(name=name)).batch
        output.one(batch, views.batch_details())
    else:
        output.one(client.tasks.GetTask(GetTaskRequest(name=name)).task, views.details(output.now))


@app.command("output")
@calling
def output_(
    client: Client,
    task: TaskName,
    stream: Annotated[
        str | None, typer.Option(metavar="stdout|stderr|log", help="Only this one. [default: all]")
    ] = None,
) -> None:
    """Print what a task's script or log said: byte for byte into files and pipes, harmless to a terminal.

    What it wrote to its standard error goes to standard error.

    \b
    Examples:
      fleetwright tasks output tasks/NAME
      fleetwright tasks output tasks/NAME --stream stdout > report.txt
    """
    print_output(client, resource(task), stream_named(stream))


@app.command("wait")
@calling
def wait_(client: Client, output: Output, tasks: TaskNames) -> None:
    """Wait until tasks have ended; exit status 1 unless all of them succeeded.

    \b
    Examples:
      fleetwright tasks wait tasks/NAME
      timeout 10m fleetwright tasks wait taskBatches/NAME
    """
    counts: Counts = {}
    for name in dict.fromkeys(map(resource, tasks)):
        if name.startswith(BATCHES):
            expanded(client, output, client.tasks.GetTaskBatch(GetTaskBatchRequest(name=name)).batch)
        for state, count in wait_for(client, output, *matching(client, name)).items():
            counts[state] = counts.get(state, 0) + count
    output.one(_Ended(tasks, counts), [Column("Ended", lambda ended: views.counts_words(ended.counts))])
    must_have_succeeded(counts)


@dataclass(frozen=True, slots=True)
class _Ended:
    """What ``wait`` tells programs: how many tasks ended in which state."""

    tasks: Sequence[str]
    counts: Counts

    @property
    def name(self) -> str:
        return "\n".join(map(resource, self.tasks))

    def as_dict(self) -> dict[str, Any]:
        """Return the counts by the names of their states."""
        return {"stateCounts": {views.state_name(state): self.counts[state] for state in sorted(self.counts)}}


@app.command("watch")
@calling
def watch_(
    client: Client,
    output: Output,
    filter_text: FilterOption = "",
    agent: AgentOption = None,
    state: StateOption = None,
    batch: BatchOption = None,
) -> None:
    """Show tasks as they are, and every change of them, until Ctrl-C.

    On a terminal it is a table that is drawn again and again; elsewhere, a line for each change. A connection
    that is lost is made again, and the watch goes on where it was.

    \b
    Examples:
      fleetwright tasks watch --state QUEUED --state RUNNING
      fleetwright tasks watch --batch taskBatches/NAME -o json
    """
    chosen = filter_of(filter_text, agent, state, batch)
    watch(
        client,
        output,
        lambda token: client.tasks.WatchTasks(WatchTasksRequest(filter=chosen, resume_token=token)),
        Watched("task", views.columns, "tasks"),
    )
