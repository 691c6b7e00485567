"""Making a package of an artefact: creating a pipeline, and waiting for its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import uuid4

import grpc
import typer
from fleetwright.v1.packaging_service_pb2 import CreatePipelineRequest, Pipeline

from controlplane.cli.calling import calling
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Output
from controlplane.cli.packages.app import app
from controlplane.cli.packages.following import follow_to_end, must_be_released
from controlplane.cli.packages.naming import ARTEFACTS, digest_named
from controlplane.cli.packages.pipeline_views import log_line, outcome
from controlplane.cli.packages.sending import name_of, send_file
from controlplane.cli.tasks.creating import surely

MANIFEST_BYTES: Final = 262_144
"""CreatePipelineRequest.manifest takes no more."""

VEX_BYTES: Final = 1_048_576
"""CreatePipelineRequest.vex takes no more."""

WAIT_HELP: Final = "Follow it to its end; exit status 1 unless agents can have the package."


@app.command("build")
@calling
def build(
    client: Client,
    output: Output,
    artefact: Annotated[
        str, typer.Argument(metavar="FILE", help="A file, which is uploaded; or artefacts/SHA256.")
    ],
    platform: Annotated[
        str | None,
        typer.Option(metavar="OS/ARCH", help="What it is for, such as linux/amd64. [default: as it says]"),
    ] = None,
    channel: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where it is released. [default: the server's]")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The file's name. [default: its own]")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Fields of the package's manifest that differ from what is derived, as JSON: "
            '{"version": "1.0"}.',
        ),
    ] = None,
    vex: Annotated[
        Path | None, typer.Option(metavar="FILE", help="OpenVEX document about what does not affect it.")
    ] = None,
    build_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Of the run that made the file. [default: a new one]")
    ] = None,
    repository: Annotated[
        str | None, typer.Option(metavar="URL", help="The source that the file was made from.")
    ] = None,
    commit: Annotated[str | None, typer.Option(metavar="ID", help="The commit of it.")] = None,
    on_demand: Annotated[
        bool, typer.Option("--on-demand", help="Only create it; `packages execute` starts it.")
    ] = False,
    request_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The same one twice creates once. [default: a new one]"),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help=WAIT_HELP)] = False,
) -> None:
    """Make a package of an artefact: upload it, if it is a file, and create a pipeline for it.

    What the artefact is follows from its content: wheel, sdist, npm tarball, jar, deb, archive or binary.
    With --wait its log is printed on standard error as it is written. A pipeline goes on without this
    command: `packages watch` follows it again.

    \b
    Examples:
      fleetwright packages build ./curl_8.1_amd64.deb --wait
      fleetwright packages build dist/app-1.0-py3-none-any.whl --channel beta --commit "$(git rev-parse HEAD)"
      fleetwright packages build ./agent --platform linux/arm64 --manifest manifest.json --vex vex.json
      fleetwright packages build artefacts/SHA256 --on-demand -o name
    """
    if on_demand and wait:
        raise typer.BadParameter("--on-demand and --wait: what is not started has no end to wait for")
    request = CreatePipelineRequest(
        target_platform=platform or "",
        channel=channel or "",
        on_demand=on_demand,
        build_id=build_id or "",
        source_repository=repository or "",
        source_commit=commit or "",
        manifest=_document(manifest, MANIFEST_BYTES, "--manifest"),
        vex=_document(vex, VEX_BYTES, "--vex"),
        request_id=request_id or str(uuid4()),
    )
    request.artefact = _uploaded(client, output, artefact, name)
    pipeline: Pipeline = surely(client, client.packaging.CreatePipeline, request, output).pipeline
    if wait:
        finish(client, output, pipeline)
    else:
        _say_created(output, pipeline)


def finish(client: Client, output: Output, pipeline: Pipeline, after: int = 0) -> None:
    """Follow a pipeline to its end and print how it ended; raises ``CommandFailed`` for a bad end.

    Of its log the lines after number ``after`` are told.
    """
    try:
        ended = follow_to_end(client, output, pipeline.name, lambda line: _tell(output, line), after)
    except (KeyboardInterrupt, grpc.RpcError):
        output.note(f"{pipeline.name} goes on: `fleetwright packages watch {pipeline.name}` follows it")
        raise
    output.one(ended, outcome())
    must_be_released(client, ended)


def _tell(output: Output, line: Any) -> None:
    # Standard output is for how it ends.
    if output.for_people:
        output.errors.print(log_line(line))


def _say_created(output: Output, pipeline: Pipeline) -> None:
    if output.for_people:
        output.text(pipeline.name)
        output.summary(f"follow it with `fleetwright packages watch {pipeline.name}`")
    else:
        output.one(pipeline, [])


def _uploaded(client: Client, output: Output, artefact: str, name: str | None) -> str:
    """Return the resource of an artefact; a file is uploaded for it."""
    digest = digest_named(artefact, ARTEFACTS) if artefact.startswith((ARTEFACTS, "sha256:")) else None
    if digest is not None:
        if name is not None:
            raise typer.BadParameter(f"--name is of a file, and {artefact} is uploaded already: leave it out")
        return f"{ARTEFACTS}{digest}"
    path = Path(artefact)
    if artefact.startswith(ARTEFACTS) and not path.exists():
        raise CommandFailed(
            f"{artefact}: after {ARTEFACTS} stand the 64 hexadecimal digits of its SHA-256; or give a file",
            Exit.USAGE,
        )
    return str(send_file(client, output, path, name_of(path, name)).artefact)


def _document(path: Path | None, most: int, option: str) -> str:
    """Return a file of JSON as it is; empty for none. Raises ``CommandFailed`` and ``OSError``."""
    if path is None:
        return ""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise CommandFailed(f"{option} {path}: more than {most:,} bytes", Exit.USAGE)
    try:
        text = content.decode()
        is_object = isinstance(json.loads(text), dict)
    except UnicodeDecodeError as error:
        raise CommandFailed(f"{option} {path}: not UTF-8 text (byte {error.start:,})", Exit.USAGE) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise CommandFailed(f"{option} {path}, {where}: no JSON: {error.msg}", Exit.USAGE) from None
    except (ValueError, RecursionError):
        raise CommandFailed(f"{option} {path}: JSON that no reader takes", Exit.USAGE) from None
    if not is_object:
        raise CommandFailed(f"{option} {path}: is no JSON object, and one is expected", Exit.USAGE)
    return text
