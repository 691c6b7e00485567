"""Cancelling tasks, and batches as one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import grpc
import typer
from fleetwright.errors import Failure
from fleetwright.v1.task_service_pb2 import (
    CancelTaskBatchRequest,
    CancelTaskBatchResponse,
    CancelTaskRequest,
    Task,
)

from controlplane.cli.calling import UNANSWERED, calling
from controlplane.cli.connection import Client
from controlplane.cli.output import Output, as_dict, table
from controlplane.cli.tasks import views
from controlplane.cli.tasks.app import app
from controlplane.cli.tasks.naming import BATCHES, batch_resource, resource


@dataclass
class Cancelled:
    """What was cancelled, and what failed, in the order in which it was asked for."""

    tasks: list[Task] = field(default_factory=list)
    batches: list[CancelTaskBatchResponse] = field(default_factory=list)
    failed: list[grpc.RpcError] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return what programs get."""
        return {
            "tasks": [as_dict(task) for task in self.tasks],
            "batches": [as_dict(batch) for batch in self.batches],
        }


@app.command("cancel")
@calling
def cancel(
    client: Client,
    output: Output,
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TASK]...", help="tasks/ID, or taskBatches/ID for all of a batch."),
    ] = None,
    batch: Annotated[
        list[str] | None,
        typer.Option("--batch", metavar="BATCH", help="All of this batch; repeatable."),
    ] = None,
) -> None:
    """Cancel tasks: at once where they are queued; where they run, the agent is asked to stop them.

    A batch is cancelled as one: no further task of it is made, and what has ended stays as it is. A single
    task that has ended is an error. One whose agent never comes back is cancelled at its deadline:
    docs/task-states.md has the answer for every state.

    \b
    Examples:
      fleetwright tasks cancel tasks/NAME
      fleetwright tasks cancel --batch taskBatches/NAME
    """
    names = [*map(resource, tasks or ()), *map(batch_resource, batch or ())]
    if not names:
        raise typer.BadParameter("name TASKs, or a batch with --batch")
    done = cancel_all(client, output, list(dict.fromkeys(names)))
    if done.tasks or done.batches or not done.failed:
        _show(output, done)
    if done.failed:
        raise done.failed[-1]


def cancel_all(client: Client, output: Output, names: list[str]) -> Cancelled:
    """Cancel what is named; a server that does not answer is asked for nothing more."""
    done = Cancelled()
    with output.progress("cancelling"):
        for name in names:
            try:
                if name.startswith(BATCHES):
                    done.batches.append(client.tasks.CancelTaskBatch(CancelTaskBatchRequest(name=name)))
                else:
                    done.tasks.append(client.tasks.CancelTask(CancelTaskRequest(name=name)).task)
            except grpc.RpcError as error:
                failure = Failure.of(error)
                done.failed.append(error)
                if failure.code in UNANSWERED:
                    break
                if name != names[-1]:
                    # The last failure ends the command, and is told then.
                    output.note(f"{name}: {failure.message}")
    return done


def _show(output: Output, done: Cancelled) -> None:
    if not output.for_people:
        output.document(done, [*done.tasks, *(one.batch for one in done.batches)])
        return
    if done.tasks:
        output.lines(table(output.chosen(views.columns(output.now)), done.tasks))
    for one in done.batches:
        output.text(
            f"{one.batch.name} cancelled; {one.cancelled_count:,} waiting tasks ended, "
            f"{one.asked_count:,} in agents' hands are to be stopped"
        )
