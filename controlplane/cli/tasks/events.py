"""The ledger of tasks: what happened to them, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from fleetwright.v1.delivery_service_pb2 import DeliveryEvent, DeliveryEventType, ListDeliveryEventsRequest

from controlplane.cli import completion
from controlplane.cli.agents import resource as agent_resource
from controlplane.cli.calling import calling
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Column, Format, Output
from controlplane.cli.paging import read_all, summarize
from controlplane.cli.tasks.app import app
from controlplane.cli.tasks.naming import BATCHES, resource
from controlplane.cli.values import enum_name, instant, moment, timestamp_message

SHORT_ID = 8
"""Characters at the end of an attempt's id that tell a task's attempts apart: it begins with its moment."""

_COLORS = {
    "COMMITTED": "green",
    "LAPSED": "yellow",
    "ABANDONED": "red",
    "RETRIED": "yellow",
    "EXPIRED": "yellow",
    "CANCEL_REQUESTED": "yellow",
    "DUPLICATE_SUPPRESSED": "yellow",
    "OBSERVATIONS_LOST": "red",
}


def columns(*, of_task: bool) -> Sequence[Column[DeliveryEvent]]:
    """Return the columns of a table of events; ``of_task``: all of them are one task's."""
    return (
        Column("TIME", lambda event: f"{instant(event.time):%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z"),
        Column("EVENT", event_name, style=lambda value: _COLORS.get(value, "")),
        Column("TASK", lambda event: event.task, wide=of_task),
        Column("AGENT", lambda event: event.agent.removeprefix("agents/"), wide=of_task),
        Column("ATTEMPT", lambda event: event.attempt_id[-SHORT_ID:]),
        Column("SESSION", lambda event: str(event.session_epoch or "")),
        Column("DETAIL", lambda event: event.detail),
        Column("ATTEMPT ID", lambda event: event.attempt_id, wide=True),
    )


def event_name(event: DeliveryEvent) -> str:
    """Return what happened as people read it, such as ``JOURNALED``."""
    return enum_name(DeliveryEventType.DESCRIPTOR, event.event_type)


@app.command("events")
@calling
def events(
    client: Client,
    output: Output,
    task: Annotated[
        str | None, typer.Argument(metavar="[TASK]", help="tasks/ID; of all tasks without it.")
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent", metavar="AGENT", help="Only tasks of this agent.", autocompletion=completion.agents
        ),
    ] = None,
    filter_text: Annotated[
        str,
        typer.Option("--filter", metavar="FILTER", help="Only those that match: 'event_type = LAPSED'."),
    ] = "",
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Then or later: 2026-11-23T08:00:00Z, or 15m for ago."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Before that.")] = None,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="At most so many; 0 for all.")] = 1000,
) -> None:
    """Print what happened to a task, or to all of an agent, oldest first.

    SENT, RESULT_RECEIVED, ACKNOWLEDGED and DUPLICATE_SUPPRESSED are observations, written a moment later: a
    crash of the server may lose some, so that one which is missing proves nothing. All others were committed
    with what they tell of. A filter compares event_type, attempt_id, session_epoch and detail. Events are
    kept for 7 days unless the server is set otherwise.

    \b
    Examples:
      fleetwright tasks events tasks/NAME
      fleetwright tasks events --agent web-1 --since 1h
      fleetwright tasks events --filter 'event_type = (LAPSED OR ABANDONED)' --since 1d --limit 0 -o json
    """
    if output.format is Format.NAME:
        raise CommandFailed("-o name: events have no names: take table, wide, json or yaml", Exit.USAGE)
    request = ListDeliveryEventsRequest(filter=filter_text)
    if task is not None:
        request.task = task_named(task)
    if agent is not None:
        request.agent = agent_resource(agent)
    if since is not None:
        request.start_time.CopyFrom(timestamp_message(moment(since, output.now, "--since")))
    if until is not None:
        request.end_time.CopyFrom(timestamp_message(moment(until, output.now, "--until")))
    response: Any = read_all(client.delivery.ListDeliveryEvents, request, "events", limit, output)
    output.items(
        response,
        "events",
        columns(of_task=task is not None),
        "no events: none happened in this time, or they are older than the ledger keeps them",
    )
    summarize(output, response, "events")
    if response.lost_observations:
        output.more(f"{response.lost_observations:,} observations of this time were dropped by the server")


def task_named(name: str) -> str:
    """Return the name of a task's resource; raises ``CommandFailed`` for a batch's."""
    if name.startswith(BATCHES):
        raise CommandFailed(
            f"{name}: a batch is many tasks: name one of them, from `fleetwright tasks list --batch {name}`",
            Exit.USAGE,
        )
    return resource(name)
