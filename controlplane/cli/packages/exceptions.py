"""Exceptions: asked for by one, approved by another, ended by their time or by anybody."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import typer
from fleetwright.v1.packaging_service_pb2 import (
    ApproveExceptionRequest,
    CreateExceptionRequest,
    ListExceptionsRequest,
    PolicyException,
    RevokeExceptionRequest,
)

from controlplane.cli.calling import calling
from controlplane.cli.connection import Client
from controlplane.cli.output import Output
from controlplane.cli.packages.app import exceptions_app as app
from controlplane.cli.packages.naming import (
    PACKAGES,
    FilterOption,
    LimitOption,
    PackageName,
    exception_resource,
    joined,
    package_named,
)
from controlplane.cli.packages.views import exception_columns, exception_details
from controlplane.cli.paging import print_all
from controlplane.cli.tasks.creating import surely
from controlplane.cli.tasks.naming import quoted
from controlplane.cli.values import DURATION_HELP, duration, duration_message

ExceptionName = Annotated[str, typer.Argument(metavar="EXCEPTION", help="exceptions/ID.")]


@app.command("create")
@calling
def create(
    client: Client,
    output: Output,
    package: PackageName,
    vulnerability: Annotated[
        str, typer.Argument(metavar="VULNERABILITY", help="Any id of it, such as CVE-2029-1.")
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="For whoever approves: why it can be borne.")],
    length: Annotated[
        str, typer.Option("--for", metavar="DURATION", help=f"How long it holds, from now. {DURATION_HELP}")
    ],
    request_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The same one twice creates once. [default: a new one]"),
    ] = None,
) -> None:
    """Ask that one vulnerability shall not block one package for a time. Somebody else has to approve it.

    It is of this very package, by its digest: another build needs another one. When its time is over the
    package is judged again, and withdrawn if nothing else covers it.

    \b
    Examples:
      fleetwright packages exceptions create curl@8.1 CVE-2029-1 --for 30d --reason 'no network here'
      fleetwright packages exceptions create packages/SHA256 GHSA-xxxx-xxxx-xxxx --for 48h --reason 'fix due'
    """
    valid_for = duration_message(duration(length, "--for"))
    request = CreateExceptionRequest(
        package=package_named(client, package),
        vulnerability=vulnerability,
        justification=reason,
        valid_for=valid_for,
        request_id=request_id or str(uuid4()),
    )
    _print(output, surely(client, client.packaging.CreateException, request, output).exception)


@app.command("approve")
@calling
def approve(client: Client, output: Output, exception: ExceptionName) -> None:
    """Let an exception count. Who asked for it cannot approve it.

    The package is judged again at once, and released if nothing else blocks it.

    Example: fleetwright packages exceptions approve exceptions/NAME
    """
    request = ApproveExceptionRequest(name=exception_resource(exception))
    _print(output, client.packaging.ApproveException(request).exception)


@app.command("revoke")
@calling
def revoke(client: Client, output: Output, exception: ExceptionName) -> None:
    """End an exception before its time. The package that stood on it is judged again, and withdrawn.

    Example: fleetwright packages exceptions revoke exceptions/NAME
    """
    request = RevokeExceptionRequest(name=exception_resource(exception))
    _print(output, client.packaging.RevokeException(request).exception)


@app.command("list")
@calling
def list_(
    client: Client,
    output: Output,
    filter_text: FilterOption = "",
    package: Annotated[
        str | None, typer.Option(metavar="PACKAGE", help="Only those of this package, by name or digest.")
    ] = None,
    limit: LimitOption = 100,
) -> None:
    """List exceptions, newest first, with who asked for each and who approved it.

    A filter compares exception_id, package, vulnerability, requester, approver, approved, revoked,
    expire_time and create_time; see docs/filters.md.

    \b
    Examples:
      fleetwright packages exceptions list --package curl@8.1
      fleetwright packages exceptions list --filter 'approved = false AND revoked = false'
    """
    named = "" if package is None else package_named(client, package).removeprefix(PACKAGES)
    chosen = joined(filter_text, f"package = {quoted(named)}" if named else "")
    print_all(
        output,
        client.packaging.ListExceptions,
        ListExceptionsRequest(filter=chosen),
        "exceptions",
        limit,
        exception_columns(output.now),
        "no exception matches" if chosen else "no exceptions",
    )


def _print(output: Output, exception: PolicyException) -> None:
    output.one(exception, exception_details(output.now))
