"""Taking packages and their evidence out of the factory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import grpc
import typer
from fleetwright.errors import Failure
from fleetwright.v1.packaging_service_pb2 import (
    DownloadPackageRequest,
    ExportBundleRequest,
    GetPackageRequest,
    Package,
)

from controlplane.cli.bars import TransferBar
from controlplane.cli.calling import calling, explain
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Output
from controlplane.cli.packages.app import app
from controlplane.cli.packages.naming import PACKAGES, PackageName, package_named
from controlplane.cli.packages.receiving import PART, Wanted, must_be_free, receive
from controlplane.cli.packages.views import package_words, shown_size
from controlplane.cli.persevering import Perseverance

WHOLE: Final = "package"
"""The part that is the package itself, and not one of its attestations."""

_STRANGE = re.compile(r"[^A-Za-z0-9._+~-]+")

OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Where to. [default: here, by its name]")
]


@dataclass(frozen=True)
class Received:
    """What is printed of a file that was received."""

    path: Path
    package: Package
    part: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """What ``-o name`` prints."""
        return str(self.path)

    def as_dict(self) -> dict[str, Any]:
        """Return what programs get."""
        return {
            "file": str(self.path),
            "package": self.package.name,
            "part": self.part,
            "sizeBytes": self.size,
            "sha256": self.sha256,
        }


@app.command("download")
@calling
def download(
    client: Client,
    output: Output,
    package: PackageName,
    out: OutOption = None,
    part: Annotated[
        str,
        typer.Option(metavar="PART", help="package, or one of its attestations, such as sbom or verdict."),
    ] = WHOLE,
) -> None:
    """Download a package, or one of its attestations, also of one that no agent can have.

    Its digest is checked; no file is overwritten. A download that is cut off goes on by itself, and one that
    was ended goes on when the same command is run again. That the package can be trusted is another matter:
    `packages export` and `packages verify` are for that.

    \b
    Examples:
      fleetwright packages download curl
      fleetwright packages download curl@8.1 --part sbom --out curl.sbom.json
    """
    found = _package(client, package)
    sha256 = _digest_of(found, part)
    path = out or Path(_file_name(found, part))

    def begin(offset: int) -> Any:
        return client.packaging.DownloadPackage(
            DownloadPackageRequest(name=found.name, part=part, offset=offset)
        )

    wanted = Wanted(begin, resumes=True, sha256=sha256)
    size = _received(client, output, wanted, path, found.size_bytes if part == WHOLE else 0)
    _print(output, Received(path, found, part, size, sha256))


@app.command("export")
@calling
def export(client: Client, output: Output, package: PackageName, out: OutOption = None) -> None:
    """Write a package with all the evidence for it into one file, a bundle, for machines that know no server.

    `packages verify` checks it there. It is current for as long as the release's metadata is, mostly a day:
    one that is kept is verified as of the time of its export.

    \b
    Examples:
      fleetwright packages export curl
      fleetwright packages export curl@8.1 --out /media/usb/curl.zip
    """
    found = _package(client, package)
    path = out or Path(f"{_plain(package_words(found))}.bundle.zip")

    def begin(_offset: int) -> Any:
        return client.packaging.ExportBundle(ExportBundleRequest(name=found.name))

    size = _received(client, output, Wanted(begin, resumes=False), path, 0)
    _print(output, Received(path, found, "bundle", size, ""))
    output.summary(f"verify it with `fleetwright packages verify {path} --root root.json`")


def _package(client: Client, text: str) -> Package:
    request = GetPackageRequest(name=package_named(client, text))
    package: Package = client.packaging.GetPackage(request).package
    return package


def _digest_of(package: Package, part: str) -> str:
    if part == WHOLE:
        return package.name.removeprefix(PACKAGES)
    if part not in package.attestations:
        known = ", ".join((WHOLE, *sorted(package.attestations)))
        raise CommandFailed(f"--part {part!r}: {package.name} has {known}", Exit.NOT_FOUND)
    return str(package.attestations[part])


def _received(client: Client, output: Output, wanted: Wanted, path: Path, total: int) -> int:
    must_be_free(path)
    with TransferBar(output, f"receiving {path.name}", total) as bar:
        perseverance = Perseverance(lambda text: output.note(f"{path.name}: {text}"))
        try:
            return receive(wanted, path, perseverance, bar.at)
        except grpc.RpcError as error:
            failed = explain(Failure.of(error), client)
            if wanted.resumes and not failed.reason:
                failed.hint = _goes_on(path)
            raise failed from None
        except KeyboardInterrupt:
            if wanted.resumes:
                output.note(_goes_on(path))
            raise


def _goes_on(path: Path) -> str:
    return f"What came is in {path}{PART}: the same command goes on there."


def _file_name(package: Package, part: str) -> str:
    """Return a name for a file in this folder: a server does not choose where anything is written."""
    if part != WHOLE:
        return f"{_plain(package_words(package))}.{_plain(part)}.json"
    return _plain(package.target_path.rpartition("/")[2] or package_words(package))


def _plain(text: str) -> str:
    return _STRANGE.sub("-", text).lstrip(".-") or "package"


def _print(output: Output, received: Received) -> None:
    if output.for_people:
        output.text(f"{received.path}: {received.package.name}, {shown_size(received.size)}")
    else:
        output.document(received, [received])
