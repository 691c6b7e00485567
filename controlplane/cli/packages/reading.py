"""Listing and showing packages, and what is wrong with them."""

from __future__ import annotations

from typing import Annotated

import typer
from fleetwright.v1.packaging_service_pb2 import (
    GetPackageRequest,
    ListFindingsRequest,
    ListPackagesRequest,
    Pipeline,
    PolicyDecision,
)

from controlplane.cli.calling import calling
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Format, Output, table
from controlplane.cli.packages import pipeline_views, views, words
from controlplane.cli.packages.app import app
from controlplane.cli.packages.following import pipeline_of
from controlplane.cli.packages.naming import (
    PIPELINES,
    FilterOption,
    LimitOption,
    PackageName,
    joined,
    package_named,
)
from controlplane.cli.paging import print_all
from controlplane.cli.tasks.naming import quoted


@app.command("list")
@calling
def list_(
    client: Client,
    output: Output,
    filter_text: FilterOption = "",
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this name.")] = None,
    decision: Annotated[
        list[str] | None,
        typer.Option(metavar="DECISION", help="Only PASS, FAIL or EXCEPTION; repeatable."),
    ] = None,
    limit: LimitOption = 100,
) -> None:
    """List packages, newest first, with the decision that stands now and what is known against them.

    A filter compares package_name, version, artefact_type, target_platform, channel, decision, critical,
    high, medium, low, unknown, vulnerability, component and create_time; see docs/filters.md.

    \b
    Examples:
      fleetwright packages list
      fleetwright packages list --decision FAIL -o wide
      fleetwright packages list --filter 'vulnerability:CVE-2029-1 AND channel = stable'
      fleetwright packages list --filter 'component:"pkg:pypi/requests*"' -o json
    """
    decisions = words.chosen("--decision", decision, PolicyDecision, "POLICY_DECISION_")
    chosen = joined(
        filter_text,
        "" if name is None else f"package_name = {quoted(name)}",
        f"decision = {decisions}" if decisions else "",
    )
    empty = "no package matches" if chosen else "no packages yet: `fleetwright packages build` makes one"
    request, call = ListPackagesRequest(filter=chosen), client.packaging.ListPackages
    print_all(output, call, request, "packages", limit, views.columns(output.now), empty)


@app.command("show")
@calling
def show(client: Client, output: Output, package: PackageName) -> None:
    """Show a package with the decision on it and its evidence, or a pipeline with its stages.

    \b
    Examples:
      fleetwright packages show curl
      fleetwright packages show curl@8.1 -o json
      fleetwright packages show pipelines/NAME -o wide
    """
    if package.startswith(PIPELINES):
        _show_pipeline(output, pipeline_of(client, package))
        return
    request = GetPackageRequest(name=package_named(client, package))
    found = client.packaging.GetPackage(request).package
    output.one(found, views.details(found, output.now))


@app.command("findings")
@calling
def findings(client: Client, output: Output, package: PackageName, limit: LimitOption = 0) -> None:
    """List the vulnerabilities that affect a package, the most severe first, and what covers each.

    With -o wide it also says by which event of which advisory each was found, and by whom. No finding means
    that nothing is known: `packages log PIPELINE --stage SCAN` says what the advisories did not cover.

    \b
    Examples:
      fleetwright packages findings curl
      fleetwright packages findings curl@8.1 -o wide
    """
    if output.format is Format.NAME:
        raise CommandFailed("-o name: findings have no names: take table, wide, json or yaml", Exit.USAGE)
    request = ListFindingsRequest(package=package_named(client, package))
    print_all(
        output,
        client.packaging.ListFindings,
        request,
        "findings",
        limit,
        views.finding_columns(),
        "nothing is known against it",
    )


def _show_pipeline(output: Output, pipeline: Pipeline) -> None:
    output.one(pipeline, pipeline_views.details(output.now))
    if output.for_people and pipeline.stages:
        output.text("")
        stages = pipeline_views.stage_lines(pipeline.stages)
        output.lines(table(output.chosen(pipeline_views.stage_columns()), stages))
