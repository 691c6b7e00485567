"""Packages to agents: install tasks, and where they stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import uuid4

import grpc
import typer
from fleetwright.v1 import task_service_pb2, work_pb2
from fleetwright.v1.packaging_service_pb2 import (
    DeployPackageRequest,
    ListDeploymentsRequest,
    ListDeploymentsResponse,
)

from controlplane.cli import completion
from controlplane.cli.calling import calling
from controlplane.cli.connection import Client
from controlplane.cli.output import Output
from controlplane.cli.packages import views, words
from controlplane.cli.packages.app import app
from controlplane.cli.packages.naming import (
    PACKAGES,
    FilterOption,
    LimitOption,
    PackageName,
    joined,
    package_named,
)
from controlplane.cli.paging import print_all, read_all
from controlplane.cli.tasks import spec as task_spec
from controlplane.cli.tasks.creating import surely
from controlplane.cli.tasks.expanding import expanded
from controlplane.cli.tasks.naming import BATCHES, quoted
from controlplane.cli.tasks.views import counts_words, tasks_words
from controlplane.cli.tasks.waiting import Counts, must_have_succeeded, wait_for

TOLD_FAILURES = 10
"""Deployments that went wrong that ``--wait`` tells one by one; `packages deployments` lists all."""


def _delivery(option: str, metavar: str | None, text: str, **more: Any) -> Any:
    return typer.Option(option, metavar=metavar, help=text, rich_help_panel="Delivery", **more)


@app.command("deploy")
@calling
def deploy(
    client: Client,
    output: Output,
    package: PackageName,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="SELECTOR",
            help="Every agent that matches now, such as 'groups:canary'; '*' is all of them.",
        ),
    ],
    percent: Annotated[
        int | None,
        typer.Option("--percent", metavar="N", help="Of those only so many, 1 to 100.", min=1, max=100),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="N", help="Which ones: the same, unless it is another.", min=0, max=2**32 - 1
        ),
    ] = None,
    priority: Annotated[
        int | None, _delivery("--priority", "N", "Higher goes first to its agent, 0 to 100.", min=0, max=100)
    ] = None,
    queue_time: Annotated[
        str | None, _delivery("--queue-time", "DURATION", "Given up when not begun by then. [default: 7d]")
    ] = None,
    run_limit: Annotated[
        str | None, _delivery("--run-limit", "DURATION", "Given up when it takes longer. [default: 10m]")
    ] = None,
    idempotent: Annotated[
        bool, _delivery("--idempotent", None, "May be begun again after an interruption.")
    ] = False,
    max_attempts: Annotated[
        int | None, _delivery("--max-attempts", "N", "How often it may fail, 1 to 20.", min=1, max=20)
    ] = None,
    if_offline: Annotated[
        task_spec.IfOffline | None,
        _delivery("--if-offline", None, "What becomes of it while its agent is away. [default: queue]"),
    ] = None,
    supersede_key: Annotated[
        str | None, _delivery("--supersede-key", "KEY", "For latest: of what it is a version, such as curl.")
    ] = None,
    window: Annotated[
        str | None, _delivery("--window", "CRON", "For window: when it opens, such as '0 2 * * SAT'.")
    ] = None,
    window_zone: Annotated[
        str | None, _delivery("--window-zone", "ZONE", "Where that is, such as Europe/Berlin. [default: UTC]")
    ] = None,
    window_duration: Annotated[
        str | None, _delivery("--window-duration", "DURATION", "For how long it is open. [default: 1h]")
    ] = None,
    request_id: Annotated[
        str | None, _delivery("--request-id", "ID", "The same one twice creates once. [default: a new one]")
    ] = None,
    allow_empty: Annotated[
        bool, _delivery("--allow-empty", None, "No error where the selector matches no agent.")
    ] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", "-w", help="Wait for the end; exit status 1 unless it is on all of them."),
    ] = False,
) -> None:
    """Have agents install a package: a task for each that the selector matches at this moment.

    Only a package that policy let through can be deployed. Each agent downloads it, verifies its evidence by
    itself, installs it, looks whether it is there, and goes back to what was before where it is not. A NAME
    of which several are released needs a version.

    \b
    Examples:
      fleetwright packages deploy curl --to 'groups:canary' --wait
      fleetwright packages deploy curl@8.1 --to 'labels.env = prod' --percent 10
      fleetwright packages deploy curl --to '*' --if-offline latest --supersede-key curl
      fleetwright packages deploy curl --to '*' --window '0 2 * * SAT' --window-zone Europe/Berlin
    """
    options = task_spec.options(
        task_spec.Delivery(priority, queue_time, run_limit, idempotent, max_attempts),
        task_spec.Absence(if_offline, supersede_key, window, window_zone, window_duration),
    )
    if seed is not None and percent is None:
        raise typer.BadParameter("--seed says which agents --percent chooses: give both")
    request = DeployPackageRequest(
        package=package_named(client, package, released=True),
        selector=to,
        options=options,
        percentage=percent or 0,
        seed=seed or 0,
        allow_empty=allow_empty,
        request_id=request_id or str(uuid4()),
    )
    batch = surely(client, client.packaging.DeployPackage, request, output).batch
    _created(client, output, batch, wait=wait)


@app.command("deployments")
@calling
def deployments(
    client: Client,
    output: Output,
    filter_text: FilterOption = "",
    package: Annotated[
        str | None, typer.Option(metavar="PACKAGE", help="Only of this package, by name or digest.")
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(metavar="AGENT", help="Only on this agent.", autocompletion=completion.agents),
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(metavar="STATUS", help="Only in this one, such as FAILED; repeatable."),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="BATCH", help="Only those of this batch of tasks.")
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="Of each agent and package name only the last one.")
    ] = False,
    limit: LimitOption = 100,
) -> None:
    """List where packages stand on agents, the last change first, each with its reason.

    A filter compares agent_id, package, package_name, version, status, task_id, batch_id, reason_code,
    latest, create_time and status_time; see docs/filters.md.

    \b
    Examples:
      fleetwright packages deployments --package curl@8.1
      fleetwright packages deployments --status FAILED --status ROLLED_BACK
      fleetwright packages deployments --agent web-1 --latest
      fleetwright packages deployments --filter 'reason_code = METADATA_EXPIRED' -o json
    """
    statuses = words.chosen("--status", status, work_pb2.DeploymentStatus, "DEPLOYMENT_STATUS_")
    named = "" if package is None else package_named(client, package).removeprefix(PACKAGES)
    chosen = joined(
        filter_text,
        f"package = {quoted(named)}" if named else "",
        f"agent_id = {quoted(agent.removeprefix('agents/'))}" if agent else "",
        f"status = {statuses}" if statuses else "",
        f"batch_id = {quoted(batch.removeprefix(BATCHES))}" if batch else "",
        "latest = true" if latest else "",
    )
    empty = "no deployment matches" if chosen else "no deployments: `fleetwright packages deploy` makes them"
    request, call = ListDeploymentsRequest(filter=chosen), client.packaging.ListDeployments
    columns = views.deployment_columns(output.now)
    print_all(output, call, request, "deployments", limit, columns, empty)


def _created(client: Client, output: Output, batch: Any, *, wait: bool) -> None:
    counts: Counts = {}
    try:
        if wait or output.live:
            batch = expanded(client, output, batch)
        if wait and batch.task_count:
            counts = wait_for(client, output, _of(batch.name), batch.task_count)
    except (KeyboardInterrupt, grpc.RpcError):
        output.note(
            f"{batch.name} goes on: `fleetwright tasks wait {batch.name}` waits for it, `cancel` ends it"
        )
        raise
    if counts:
        request = task_service_pb2.GetTaskBatchRequest(name=batch.name)
        batch = client.tasks.GetTaskBatch(request).batch
    if output.for_people:
        output.text(batch.name)
        output.note(_batch_words(batch))
    else:
        output.one(batch, [])
    if counts:
        if output.for_people:
            _tell_statuses(client, output, batch.name)
        must_have_succeeded(counts)


def _batch_words(batch: Any) -> str:
    states = counts_words({one.state: one.count for one in batch.state_counts})
    return f"{tasks_words(batch)}: {states}" if states else tasks_words(batch)


def _tell_statuses(client: Client, output: Output, batch: str) -> None:
    """Tell where the package stands on the agents of a batch, and why it is not where it is not."""
    request, call = ListDeploymentsRequest(filter=_of(batch)), client.packaging.ListDeployments
    found: ListDeploymentsResponse = read_all(call, request, "deployments", 0, output)
    output.note(statuses_words([one.status for one in found.deployments]))
    good = work_pb2.DEPLOYMENT_STATUS_INSTALLED
    wrong = [one for one in found.deployments if one.status != good]
    for one in wrong[:TOLD_FAILURES]:
        reason = ": ".join(filter(None, (words.status_name(one.status), one.reason_code, one.reason)))
        output.note(f"  {one.agent}: {reason}")
    if len(wrong) > TOLD_FAILURES:
        output.note(f"  and {len(wrong) - TOLD_FAILURES:,} more: `packages deployments --batch {batch}`")


def statuses_words(statuses: Sequence[int]) -> str:
    """Return counts by status as ``98 INSTALLED, 2 FAILED``."""
    counts = Counter(statuses)
    return ", ".join(f"{counts[status]:,} {words.status_name(status)}" for status in sorted(counts))


def _of(batch: str) -> str:
    return f"batch_id = {quoted(batch.removeprefix(BATCHES))}"
