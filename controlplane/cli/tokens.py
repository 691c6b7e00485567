"""``fleetwright tokens``: who may let agents in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

import typer
from fleetwright.v1.enrollment_token_service_pb2 import (
    CreateEnrollmentTokenRequest,
    EnrollmentToken,
    EnrollmentTokenState,
    ListEnrollmentTokensRequest,
    RevokeEnrollmentTokenRequest,
)

from controlplane.cli.calling import calling, noun
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed
from controlplane.cli.output import Column, Output
from controlplane.cli.paging import print_all
from controlplane.cli.values import (
    DURATION_HELP,
    age,
    duration,
    duration_message,
    enum_name,
    labels,
    shown_labels,
    shown_time,
)

app = noun(
    "Enrolment tokens, which let agents in: create, list, revoke.\n\n"
    "\b\nExamples:\n"
    "  (umask 077; fleetwright tokens create > join-token)\n"
    "  fleetwright tokens list\n"
    "  fleetwright tokens revoke 4k2m9x"
)

LARGEST_MAX_USES: Final = 1_000_000
"""CreateEnrollmentTokenRequest.max_uses takes no more."""

_COLORS = {"ACTIVE": "green", "EXPIRED": "yellow", "EXHAUSTED": "yellow", "REVOKED": "red"}


def _columns(now: datetime) -> Sequence[Column[EnrollmentToken]]:
    return (
        Column("ID", lambda token: token.name.removeprefix("enrollmentTokens/")),
        Column("STATE", _state, style=lambda value: _COLORS.get(value, "")),
        Column("USED", lambda token: f"{token.use_count} of {token.max_uses}"),
        Column("AGE", lambda token: age(token, "create_time", now)),
        Column("ENDS", lambda token: shown_time(token, "expire_time")),
        Column("LABELS", lambda token: shown_labels(token.labels)),
        Column("DESCRIPTION", lambda token: token.description),
        Column("REPLACES AGENTS", lambda token: "yes" if token.allow_reenrollment else "no", wide=True),
        Column("MADE BY", lambda token: token.creator, wide=True),
        Column("REVOKED", lambda token: shown_time(token, "revoke_time"), wide=True),
    )


@app.command("create")
@calling
def create(
    client: Client,
    output: Output,
    ttl: Annotated[
        str, typer.Option(metavar="DURATION", help=f"How long it lets agents in. {DURATION_HELP}")
    ] = "1h",
    max_uses: Annotated[
        int, typer.Option(metavar="N", help="How many agents it may enrol.", min=1, max=LARGEST_MAX_USES)
    ] = 1,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Label that each agent gets; repeatable."),
    ] = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="For people.")] = "",
    allow_reenrollment: Annotated[
        bool, typer.Option("--allow-reenrollment", help="May replace agents that are enrolled.")
    ] = False,
) -> None:
    """Make a join token and print it, alone, on standard output.

    It is a secret, and is shown this once: whoever has it can enrol agents. With -o json or yaml its record
    is printed too.

    \b
    Examples:
      (umask 077; fleetwright tokens create > join-token)
      fleetwright tokens create --max-uses 200 --ttl 24h --label env=prod --description "rack 12"
    """
    request = CreateEnrollmentTokenRequest(
        description=description,
        ttl=duration_message(duration(ttl, "--ttl")),
        max_uses=max_uses,
        allow_reenrollment=allow_reenrollment,
        labels=labels(label or ()),
    )
    response = client.tokens.CreateEnrollmentToken(request)
    try:
        if output.for_people:
            output.text(response.join_token)
            agents = f"{max_uses} agent{'' if max_uses == 1 else 's'}"
            output.summary(f"a secret; lets {agents} in until {shown_time(response.token, 'expire_time')}")
        else:
            output.document(response, [response.token])
        sys.stdout.flush()
    except OSError as error:
        # Nobody can know its secret, so nobody can mean it to be used.
        client.tokens.RevokeEnrollmentToken(RevokeEnrollmentTokenRequest(name=response.token.name))
        raise CommandFailed(
            f"standard output: {error.strerror}: the token that was made could not be shown and is revoked "
            "again: make another where it can be written"
        ) from None


@app.command("list")
@calling
def list_(
    client: Client,
    output: Output,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="At most so many; 0 for all.")] = 0,
) -> None:
    """List the tokens, newest first, without their secrets.

    \b
    Examples:
      fleetwright tokens list
      fleetwright tokens list -o json | jq '.tokens[] | select(.state == "ENROLLMENT_TOKEN_STATE_ACTIVE")'
    """
    request, call = ListEnrollmentTokensRequest(), client.tokens.ListEnrollmentTokens
    print_all(output, call, request, "tokens", limit, _columns(output.now), "no tokens yet")


@app.command("revoke")
@calling
def revoke(
    client: Client,
    output: Output,
    token: Annotated[
        str, typer.Argument(metavar="TOKEN", help="Its id, from `tokens list`, or enrollmentTokens/ID.")
    ],
) -> None:
    """End a token at once. Agents that it let in stay.

    Example: fleetwright tokens revoke 4k2m9x
    """
    name = token if token.startswith("enrollmentTokens/") else f"enrollmentTokens/{token}"
    revoked = client.tokens.RevokeEnrollmentToken(RevokeEnrollmentTokenRequest(name=name)).token
    if output.for_people:
        output.text(f"{name} is revoked; it let {revoked.use_count} of {revoked.max_uses} in")
    else:
        output.document(revoked, [revoked])


def _state(token: EnrollmentToken) -> str:
    return enum_name(EnrollmentTokenState.DESCRIPTOR, token.state)
