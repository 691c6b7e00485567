"""Pipelines: listing and watching them, their logs, and changing their course."""

from __future__ import annotations

from typing import Annotated

import typer
from fleetwright.v1.packaging_service_pb2 import (
    PIPELINE_STATE_CREATED,
    CancelPipelineRequest,
    ExecutePipelineRequest,
    ListPipelinesRequest,
    Pipeline,
    PipelineLogLine,
    PipelineState,
    RetryPipelineRequest,
)

from controlplane.cli.calling import calling
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Format, Output
from controlplane.cli.packages import words
from controlplane.cli.packages.app import app
from controlplane.cli.packages.building import WAIT_HELP, finish
from controlplane.cli.packages.following import follow_to_end, lines_of, must_be_released, pipeline_of
from controlplane.cli.packages.naming import (
    FilterOption,
    LimitOption,
    PipelineName,
    joined,
    pipeline_resource,
)
from controlplane.cli.packages.pipeline_views import columns, log_line
from controlplane.cli.packages.watching import watch_pipelines
from controlplane.cli.paging import print_all

StateOption = Annotated[
    list[str] | None, typer.Option("--state", metavar="STATE", help="Only those in this state; repeatable.")
]
WaitOption = Annotated[bool, typer.Option("--wait", "-w", help=WAIT_HELP)]


@app.command("pipelines")
@calling
def pipelines(
    client: Client,
    output: Output,
    filter_text: FilterOption = "",
    state: StateOption = None,
    limit: LimitOption = 100,
) -> None:
    """List pipelines, newest first: what is being made, and what became of what was.

    A filter compares pipeline_id, artefact, artefact_type, target_platform, package_name, package_version,
    channel, state, decision, build_id, source_repository, source_commit, creator, create_time and
    update_time; see docs/filters.md.

    \b
    Examples:
      fleetwright packages pipelines --state RUNNING --state QUEUED
      fleetwright packages pipelines --filter 'package_name = curl AND decision = FAIL' -o wide
      fleetwright packages pipelines --limit 0 -o json | jq -r ".pipelines[] | .name"
    """
    request = ListPipelinesRequest(filter=_filter(filter_text, state))
    empty = "no pipeline matches" if request.filter else "no pipelines"
    print_all(output, client.packaging.ListPipelines, request, "pipelines", limit, columns(output.now), empty)


@app.command("watch")
@calling
def watch(
    client: Client,
    output: Output,
    pipeline: Annotated[
        str | None, typer.Argument(metavar="[PIPELINE]", help="pipelines/ID; all pipelines without it.")
    ] = None,
    filter_text: FilterOption = "",
    state: StateOption = None,
) -> None:
    """Follow one pipeline, its log, until it has ended; or show all pipelines and their changes until Ctrl-C.

    Of one pipeline the log is printed from its first line on, and the exit status is 1 unless agents can have
    the package. Of all of them it is a table that is drawn again and again on a terminal; elsewhere, a line
    for each change. A connection that is lost is made again, and the watch goes on where it was.

    \b
    Examples:
      fleetwright packages watch pipelines/NAME
      fleetwright packages watch --state RUNNING
      fleetwright packages watch --filter 'channel = stable' -o json
    """
    chosen = _filter(filter_text, state)
    if pipeline is None:
        watch_pipelines(client, output, chosen)
        return
    if chosen:
        raise typer.BadParameter("--filter and --state choose among all pipelines: leave PIPELINE out")
    _no_names(output)
    found = pipeline_of(client, pipeline_resource(pipeline))
    if found.state == PIPELINE_STATE_CREATED:
        output.note(f"{found.name} waits for `fleetwright packages execute {found.name}`")
    ended = follow_to_end(client, output, found.name, lambda line: _print_line(output, line))
    must_be_released(client, ended)
    output.note(f"{ended.name} is {words.state_name(ended.state)}: {ended.package}")


@app.command("log")
@calling
def log(
    client: Client,
    output: Output,
    pipeline: PipelineName,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until it has ended, whatever its end is.")
    ] = False,
    stage: Annotated[
        list[str] | None, typer.Option("--stage", metavar="STAGE", help="Only of this stage; repeatable.")
    ] = None,
) -> None:
    """Print the log of a pipeline: what each stage did, with times. What looks like a secret is not in it.

    \b
    Examples:
      fleetwright packages log pipelines/NAME
      fleetwright packages log pipelines/NAME --stage SCAN --stage POLICY
      fleetwright packages log pipelines/NAME --follow -o json
    """
    _no_names(output)
    name, stages = pipeline_resource(pipeline), _stages(stage)

    def show(line: PipelineLogLine) -> None:
        if not stages or words.stage_name(line.stage) in stages:
            _print_line(output, line)

    if follow:
        pipeline_of(client, name)  # one that there is not is told at once
        follow_to_end(client, output, name, show)
        return
    for line in lines_of(client, name):
        show(line)


@app.command("execute")
@calling
def execute(client: Client, output: Output, pipeline: PipelineName, wait: WaitOption = False) -> None:
    """Start a pipeline that was created with --on-demand.

    Example: fleetwright packages execute pipelines/NAME --wait
    """
    request = ExecutePipelineRequest(name=pipeline_resource(pipeline))
    _changed(client, output, client.packaging.ExecutePipeline(request).pipeline, wait=wait)


@app.command("retry")
@calling
def retry(client: Client, output: Output, pipeline: PipelineName, wait: WaitOption = False) -> None:
    """Run a pipeline again that ended as ERROR, from the stage that failed; what was done before it stands.

    One that policy refused is not run again: its package is judged anew when advisories or exceptions change.

    Example: fleetwright packages retry pipelines/NAME --wait
    """
    request = RetryPipelineRequest(name=pipeline_resource(pipeline))
    # What it said before it failed is known.
    said = max((line.number for line in lines_of(client, request.name)), default=0) if wait else 0
    _changed(client, output, client.packaging.RetryPipeline(request).pipeline, wait=wait, after=said)


@app.command("cancel")
@calling
def cancel(
    client: Client,
    output: Output,
    names: Annotated[
        list[str], typer.Argument(metavar="PIPELINE...", help="pipelines/ID, each by its name.")
    ],
) -> None:
    """Cancel pipelines: at once where they wait, else as soon as the stage that runs has been stopped.

    Example: fleetwright packages cancel pipelines/NAME
    """
    for name in dict.fromkeys(map(pipeline_resource, names)):
        found = client.packaging.CancelPipeline(CancelPipelineRequest(name=name)).pipeline
        if output.for_people:
            is_over = found.state in words.FINAL
            output.text(
                f"{found.name} {'is ' + words.state_name(found.state) if is_over else 'is being ended'}"
            )
        else:
            output.one(found, [])


def _changed(client: Client, output: Output, pipeline: Pipeline, *, wait: bool, after: int = 0) -> None:
    if wait:
        finish(client, output, pipeline, after)
    elif output.for_people:
        output.text(f"{pipeline.name} is {words.state_name(pipeline.state)}")
    else:
        output.one(pipeline, [])


def _filter(text: str, states: list[str] | None) -> str:
    chosen = words.chosen("--state", states, PipelineState, "PIPELINE_STATE_")
    return joined(text, f"state = {chosen}" if chosen else "")


def _stages(names: list[str] | None) -> set[str]:
    known = [words.stage_name(stage) for stage in words.STAGES]
    for name in names or ():
        if name.upper() not in known:
            raise typer.BadParameter(f"--stage {name!r}: choose one of {', '.join(known)}")
    return {name.upper() for name in names or ()}


def _print_line(output: Output, line: PipelineLogLine) -> None:
    if output.live and output.errors.is_terminal:
        output.errors.print(log_line(line))  # above the bar, which is on the same terminal
    else:
        output.change(line, line, lambda: [log_line(line)])


def _no_names(output: Output) -> None:
    if output.format is Format.NAME:
        raise CommandFailed("-o name: lines have no names: take table, wide, json or yaml", Exit.USAGE)
