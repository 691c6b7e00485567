"""Which tasks are meant: names and filters, as people write them."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from fleetwright.v1.task_service_pb2 import GetTaskBatchRequest, GetTaskRequest, TaskState

from controlplane.cli import completion
from controlplane.cli.connection import Client
from controlplane.cli.tasks import views

BATCHES: Final = "taskBatches/"
TASKS: Final = "tasks/"

TaskName = Annotated[str, typer.Argument(metavar="TASK", help="tasks/ID, or taskBatches/ID for a batch.")]
TaskNames = Annotated[
    list[str], typer.Argument(metavar="TASK...", help="tasks/ID, or taskBatches/ID for all of a batch.")
]
FilterOption = Annotated[
    str, typer.Option("--filter", metavar="FILTER", help="Only those that match, such as 'state = FAILED'.")
]
AgentOption = Annotated[
    str | None,
    typer.Option(
        "--agent", metavar="AGENT", help="Only those of this agent.", autocompletion=completion.agents
    ),
]
BatchOption = Annotated[
    str | None, typer.Option("--batch", metavar="BATCH", help="Only those of this batch.")
]
StateOption = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help="Only those in this state; repeatable."),
]


def resource(name: str) -> str:
    """Return the name of a task's or a batch's resource; a bare id is a task's."""
    return name if name.startswith((TASKS, BATCHES)) else f"{TASKS}{name}"


def batch_resource(name: str) -> str:
    """Return the name of a batch's resource; a bare id is a batch's."""
    return name if name.startswith(BATCHES) else f"{BATCHES}{name}"


def filter_of(filter_text: str, agent: str | None, states: list[str] | None, batch: str | None) -> str:
    """Return one filter of the text and the options. The text stands first: errors count its characters."""
    parts = []
    if filter_text.strip():
        parts.append(filter_text)
    if agent is not None:
        parts.append(f"agent_id = {quoted(agent.removeprefix('agents/'))}")
    if states:
        parts.append(f"state = ({' OR '.join(_state(one) for one in states)})")
    if batch is not None:
        parts.append(f"batch_id = {quoted(batch.removeprefix(BATCHES))}")
    # OR binds tighter than AND in AIP-160, so the text needs no parentheses.
    return " AND ".join(parts)


def matching(client: Client, name: str) -> tuple[str, int]:
    """Return the filter of a task or of a batch, and how many tasks there are; raises for an unknown name."""
    if name.startswith(BATCHES):
        batch = client.tasks.GetTaskBatch(GetTaskBatchRequest(name=name)).batch
        # Not task_count: retention may have taken tasks that ended long ago.
        there = sum(one.count for one in batch.state_counts)
        return f"batch_id = {quoted(name.removeprefix(BATCHES))}", there
    client.tasks.GetTask(GetTaskRequest(name=name))
    return f"task_id = {quoted(name.removeprefix(TASKS))}", 1


def _state(text: str) -> str:
    name = text.upper().removeprefix("TASK_STATE_")
    known = [views.state_name(number) for number in TaskState.values() if number]
    if name not in known:
        raise typer.BadParameter(f"--state {text!r}: choose one of {', '.join(known)}")
    return name


def quoted(text: str) -> str:
    """Return a text as a value of a filter that means just this text."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*") + '"'
