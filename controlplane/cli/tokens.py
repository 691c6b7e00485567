"""``fleetwright tokens``: a client of EnrollmentTokenService."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import grpc
import typer
from fleetwright.v1 import enrollment_token_service_pb2 as pb2
from fleetwright.v1 import enrollment_token_service_pb2_grpc as pb2_grpc
from google.protobuf.duration_pb2 import Duration
from grpc_status import rpc_status

from controlplane.trust.layout import Layout

app = typer.Typer(
    help="Enrolment tokens: who may let agents in.", no_args_is_help=True, rich_markup_mode=None
)

CALL_TIMEOUT = timedelta(seconds=15)


@app.callback()
def _tokens() -> None:
    """Keep ``create`` a verb of its own although it is the only one."""


@app.command("create")
def create(
    data_dir: Annotated[
        Path, typer.Option(envvar="FLEETWRIGHT_DATA_DIR", help="Data folder that holds the identity.")
    ] = Path("fleetwright-data"),
    identity: Annotated[
        Path | None,
        typer.Option(help="Folder with key.pem, cert.pem and ca.pem. [default: the first administrator's]"),
    ] = None,
    server: Annotated[str, typer.Option(help="host:port of the admin listener.")] = "localhost:7444",
    ttl: Annotated[int, typer.Option(help="Seconds for which it lets agents in.", min=1)] = 3600,
    max_uses: Annotated[int, typer.Option(help="How many agents it may enrol.", min=1)] = 1,
    label: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE that each agent gets; repeatable.")
    ] = None,
    allow_reenrollment: Annotated[
        bool, typer.Option("--allow-reenrollment", help="May replace agents that are enrolled.")
    ] = False,
) -> None:
    """Make a join token and print it, alone, on standard output. It is a secret.

    Example: fleetwright tokens create --max-uses 10 --label env=test > join-token
    """
    folder = identity or Layout(data_dir).identity("operator", "admin")
    request = pb2.CreateEnrollmentTokenRequest(
        ttl=Duration(seconds=ttl),
        max_uses=max_uses,
        allow_reenrollment=allow_reenrollment,
        labels=dict(_label(text) for text in label or ()),
    )
    try:
        credentials = grpc.ssl_channel_credentials(
            (folder / "ca.pem").read_bytes(),
            (folder / "key.pem").read_bytes(),
            (folder / "cert.pem").read_bytes(),
        )
    except OSError as error:
        typer.echo(f"error: identity {folder}: {error.strerror}; name its folder with --identity", err=True)
        raise typer.Exit(1) from None
    try:
        with grpc.secure_channel(server, credentials) as channel:
            stub = pb2_grpc.EnrollmentTokenServiceStub(channel)
            response = stub.CreateEnrollmentToken(request, timeout=CALL_TIMEOUT.total_seconds())
    except grpc.RpcError as error:
        typer.echo(f"error: {server}: {_text(error)}", err=True)
        raise typer.Exit(1) from None
    typer.echo(response.join_token)


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"--label {text!r}: write KEY=VALUE")
    return key, value


def _text(error: grpc.RpcError) -> str:
    if not isinstance(error, grpc.Call):
        return "the call failed"
    status = rpc_status.from_call(error)
    if status is not None:
        return str(status.message)
    return f"{error.code().name}: {error.details()}; is the server running, and is this its root?"
