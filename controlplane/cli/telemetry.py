"""``fleetwright telemetry``: what agents measured."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any, Final

import typer
from fleetwright.v1.telemetry_service_pb2 import (
    QueryTelemetryRequest,
    StoredPoint,
    WatchTelemetryRequest,
)
from rich.text import Text

from controlplane.cli import completion
from controlplane.cli.agents import resource as agent_resource
from controlplane.cli.calling import calling, noun
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Column, Format, Output, clean
from controlplane.cli.paging import read_all, summarize
from controlplane.cli.values import instant, moment, shown_labels, timestamp_message
from controlplane.cli.watching import following

app = noun(
    "What agents measured: query, watch.\n\n"
    "\b\nExamples:\n"
    "  fleetwright telemetry query --agent web-1 --metric memory.used_bytes --since 1h\n"
    "  fleetwright telemetry watch --metric cpu.used_ratio"
)

LARGEST_PAGE: Final = 10_000
"""The most that a server gives at once (QueryTelemetryRequest.page_size)."""

_STEPS = ("", "Ki", "Mi", "Gi", "Ti", "Pi")

AgentOption = Annotated[
    str | None,
    typer.Option(
        "--agent", metavar="AGENT", help="Only what this agent measured.", autocompletion=completion.agents
    ),
]
MetricOption = Annotated[
    str, typer.Option("--metric", metavar="NAME", help="Only this metric, such as memory.used_bytes.")
]

COLUMNS: Final = (
    Column[StoredPoint]("TIME", lambda stored: f"{instant(stored.point.time):%Y-%m-%d %H:%M:%SZ}"),
    Column[StoredPoint]("AGENT", lambda stored: stored.agent.removeprefix("agents/")),
    Column[StoredPoint]("METRIC", lambda stored: stored.point.metric),
    Column[StoredPoint]("VALUE", lambda stored: value_words(stored.point.metric, stored.point.value)),
    Column[StoredPoint]("ATTRIBUTES", lambda stored: shown_labels(stored.point.attributes)),
    Column[StoredPoint](
        "RECEIVED", lambda stored: f"{instant(stored.receive_time):%Y-%m-%d %H:%M:%SZ}", wide=True
    ),
    Column[StoredPoint]("EXACTLY", lambda stored: repr(stored.point.value), wide=True),
)


@app.command("query")
@calling
def query(
    client: Client,
    output: Output,
    agent: AgentOption = None,
    metric: MetricOption = "",
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="Measured then or later: 2026-11-23T08:00:00Z, or 15m for ago."),
    ] = "1h",
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Measured before that.")] = None,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="At most so many points; 0 for all.")] = 1000,
) -> None:
    """Print stored points of the last hour, or since another time, oldest first.

    A metric's last word is its unit. People get bytes in Ki, Mi and Gi and ratios in percent; programs, and
    -o wide, get the number as it was measured.

    \b
    Examples:
      fleetwright telemetry query --agent web-1 --since 15m
      fleetwright telemetry query --metric memory.used_bytes --since 2026-11-23T00:00:00Z --limit 0 -o json
    """
    _check_format(output)
    request = QueryTelemetryRequest(metric=metric)
    if agent is not None:
        request.agent = agent_resource(agent)
    request.start_time.CopyFrom(timestamp_message(moment(since, output.now, "--since")))
    if until is not None:
        request.end_time.CopyFrom(timestamp_message(moment(until, output.now, "--until")))
    response = read_all(client.telemetry.QueryTelemetry, request, "points", limit, output, LARGEST_PAGE)
    output.items(
        response,
        "points",
        COLUMNS,
        f"no points since {since}: agents send them every 30 s unless set otherwise",
    )
    summarize(output, response, "points")


@app.command("watch")
@calling
def watch(client: Client, output: Output, agent: AgentOption = None, metric: MetricOption = "") -> None:
    """Show points as they are committed, from now on, until Ctrl-C.

    A connection that is lost is made again, and the watch goes on where it was.

    \b
    Examples:
      fleetwright telemetry watch --agent web-1
      fleetwright telemetry watch -o json | jq --unbuffered -c ".points[].point"
    """
    _check_format(output)
    name = "" if agent is None else agent_resource(agent)

    def start(token: str) -> Iterable[Any]:
        request = WatchTelemetryRequest(agent=name, metric=metric, resume_token=token)
        return client.telemetry.WatchTelemetry(request)

    for message in following(client, start, lambda text: output.note(f"watch: {text}")):
        output.change(message, message, partial(_lines, output, message.points))


def value_words(metric: str, value: float) -> str:
    """Return a measured value as people read it; the unit is the last word of the metric's name."""
    unit = metric.rpartition(".")[2].rpartition("_")[2]
    if unit == "ratio":
        return f"{value * 100:.1f} %"
    if unit != "bytes":
        return f"{value:,.0f}" if value == int(value) else f"{value:,.3f}"
    step = 0
    while abs(value) >= 1024 and step < len(_STEPS) - 1:
        value, step = value / 1024, step + 1
    return f"{value:,.1f} {_STEPS[step]}B" if step else f"{value:,.0f} B"


def _check_format(output: Output) -> None:
    if output.format is Format.NAME:
        raise CommandFailed("-o name: points have no names: take table, wide, json or yaml", Exit.USAGE)


def _lines(output: Output, points: Iterable[StoredPoint]) -> Iterable[Text]:
    chosen = output.chosen(COLUMNS)
    for stored in points:
        yield Text("   ".join(clean(column.value(stored)) for column in chosen))
