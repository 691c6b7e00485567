"""Uploading artefacts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from fleetwright.v1.packaging_service_pb2 import Upload

from controlplane.cli.calling import calling
from controlplane.cli.connection import Client
from controlplane.cli.output import Format, Output, as_dict
from controlplane.cli.packages.app import app
from controlplane.cli.packages.sending import name_of, send_file


@dataclass
class Uploaded:
    """What was uploaded, in the order in which it was asked for."""

    uploads: list[Upload] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return what programs get."""
        return {"uploads": [as_dict(upload) for upload in self.uploads]}


@app.command("upload")
@calling
def upload(
    client: Client,
    output: Output,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Artefacts to upload.")],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With one FILE: the name to give it. [default: its own]"),
    ] = None,
) -> None:
    """Upload artefacts, and print the name of each: `packages build` takes it, as it takes a file.

    A file is announced by its digest: what the server has already is not sent. An upload that is cut off goes
    on by itself where the server stands; one that was ended, by Ctrl-C for example, goes on when the same
    command is run again.

    \b
    Examples:
      fleetwright packages upload ./curl_8.1_amd64.deb
      fleetwright packages upload dist/*.whl -o json
    """
    if name is not None and len(files) > 1:
        raise typer.BadParameter("--name is of one file: give it with one FILE")
    names = [name_of(file, name) for file in files]
    done = Uploaded()
    try:
        for file, called in zip(files, names, strict=True):
            done.uploads.append(send_file(client, output, file, called))
            if output.for_people:
                output.text(done.uploads[-1].artefact)
    finally:
        # Those before one that failed are there.
        if not output.for_people and done.uploads:
            _print_document(output, done)


def _print_document(output: Output, done: Uploaded) -> None:
    if output.format is Format.NAME:
        for one in done.uploads:
            output.text(one.artefact)
    else:
        output.document(done, done.uploads)
