"""Creating anew what ended without success."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import typer
from fleetwright.v1.task_service_pb2 import (
    ListTasksResponse,
    ReplayTaskRequest,
    ReplayTasksRequest,
    ReplayTasksResponse,
)

from controlplane.cli.calling import calling
from controlplane.cli.connection import Client
from controlplane.cli.output import Column, Output
from controlplane.cli.tasks import views
from controlplane.cli.tasks.app import app
from controlplane.cli.tasks.creating import surely
from controlplane.cli.tasks.naming import (
    TASKS,
    AgentOption,
    BatchOption,
    FilterOption,
    StateOption,
    filter_of,
    resource,
)


@app.command("replay")
@calling
def replay(
    client: Client,
    output: Output,
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="tasks/ID, each by its name.")
    ] = None,
    filter_text: FilterOption = "",
    agent: AgentOption = None,
    state: StateOption = None,
    batch: BatchOption = None,
    request_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="With one TASK: the same one twice replays once. [default: a new one]"
        ),
    ] = None,
) -> None:
    """Queue anew what tasks were to do that ended without success, such as those that are DEAD.

    The old task stays as it is, and the new one names it: `replay_of` in a filter. Named tasks are replayed
    each time they are named. What a filter or an option matches is replayed once: what is open, has succeeded
    or was replayed before is passed over, and so is what a later task of its key has followed.

    \b
    Examples:
      fleetwright tasks list --state DEAD
      fleetwright tasks replay tasks/NAME
      fleetwright tasks replay --state DEAD --batch taskBatches/NAME
      fleetwright tasks replay --filter 'state = (DEAD OR EXPIRED) AND state_time > 2026-11-01T00:00:00Z'
    """
    chosen = filter_of(filter_text, agent, state, batch)
    if bool(tasks) == bool(chosen):
        raise typer.BadParameter("name TASKs, or choose them with --filter, --state, --agent or --batch")
    if chosen:
        _replay_matching(client, output, chosen)
        return
    names = list(dict.fromkeys(map(resource, tasks or ())))
    if wrong := [name for name in names if not name.startswith(TASKS)]:
        raise typer.BadParameter(f"{wrong[0]} is no task: choose the tasks of a batch with --batch")
    if request_id is not None and len(names) > 1:
        raise typer.BadParameter("--request-id is of one call: give it with one TASK")
    made = [
        surely(
            client,
            client.tasks.ReplayTask,
            ReplayTaskRequest(name=name, request_id=request_id or str(uuid4())),
            output,
        ).task
        for name in names
    ]
    output.items(ListTasksResponse(tasks=made), "tasks", views.columns(output.now))


def _replay_matching(client: Client, output: Output, chosen: str) -> None:
    count = 0
    with output.progress("replaying") as progress:
        more = True
        while more:
            request = ReplayTasksRequest(filter=chosen, request_id=str(uuid4()))
            done = surely(client, client.tasks.ReplayTasks, request, output)
            count, more = count + done.replayed_count, done.more
            progress(f"{count:,} replayed")
    output.one(
        ReplayTasksResponse(replayed_count=count),
        [Column("Replayed", lambda all_: f"{all_.replayed_count:,} tasks")],
    )
