"""Which packages and pipelines are meant, as people write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from fleetwright.v1.packaging_service_pb2 import (
    GetPipelineRequest,
    ListPackagesRequest,
    Package,
)

from controlplane.cli import completion
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.packages.views import package_words
from controlplane.cli.packages.words import decision_name
from controlplane.cli.tasks.naming import quoted

PACKAGES: Final = "packages/"
PIPELINES: Final = "pipelines/"
ARTEFACTS: Final = "artefacts/"
EXCEPTIONS: Final = "exceptions/"

PackageName = Annotated[
    str,
    typer.Argument(
        metavar="PACKAGE",
        help="NAME, NAME@VERSION, or packages/SHA256; pipelines/ID is the package that it made.",
        autocompletion=completion.packages,
    ),
]
PipelineName = Annotated[str, typer.Argument(metavar="PIPELINE", help="pipelines/ID.")]
FilterOption = Annotated[
    str, typer.Option("--filter", metavar="FILTER", help="Only those that match; see docs/filters.md.")
]
LimitOption = Annotated[int, typer.Option(min=0, metavar="N", help="At most so many; 0 for all.")]

_DIGEST: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_ASKED: Final = 100
"""Packages of one name that are looked at; of more than a few none is chosen anyway."""
_TOLD: Final = 8


def digest_named(text: str, prefix: str) -> str | None:
    """Return the digest of ``packages/SHA256``, ``sha256:SHA256`` or a bare one; None for another text."""
    match = _DIGEST.fullmatch(text.removeprefix(prefix))
    return None if match is None else match[1]


def pipeline_resource(text: str) -> str:
    """Return the name of a pipeline's resource; a bare id will do."""
    return text if text.startswith(PIPELINES) else f"{PIPELINES}{text}"


def exception_resource(text: str) -> str:
    """Return the name of an exception's resource; a bare id will do."""
    return text if text.startswith(EXCEPTIONS) else f"{EXCEPTIONS}{text}"


def package_named(client: Client, text: str, *, released: bool = False) -> str:
    """Return the resource of the one package that is meant; ``released``: of those that agents can have.

    Raises ``CommandFailed`` where there is none, or several; nothing is guessed.
    """
    digest = digest_named(text, PACKAGES)
    if digest is not None:
        return f"{PACKAGES}{digest}"
    if text.startswith(PIPELINES):
        return _made_by(client, text)
    if text.startswith(PACKAGES):
        raise CommandFailed(
            f"{text}: after {PACKAGES} stand the 64 hexadecimal digits of its SHA-256; or give its NAME",
            Exit.USAGE,
        )
    return _by_name(client, text, released=released)


def _made_by(client: Client, name: str) -> str:
    pipeline = client.packaging.GetPipeline(GetPipelineRequest(name=name)).pipeline
    if not pipeline.package:
        raise CommandFailed(
            f"{name}: has made no package yet: see `fleetwright packages show {name}`", Exit.NOT_FOUND
        )
    return str(pipeline.package)


def _by_name(client: Client, text: str, *, released: bool) -> str:
    name, version = _split(text)
    chosen = f"package_name = {quoted(name)}" + (f" AND version = {quoted(version)}" if version else "")
    request = ListPackagesRequest(filter=chosen, page_size=_ASKED)
    found = list(client.packaging.ListPackages(request).packages)
    if not found:
        raise CommandFailed(
            f"{text}: there is no such package: see `fleetwright packages list`, and `fleetwright packages "
            "pipelines` for those that are being made",
            Exit.NOT_FOUND,
        )
    fitting = [package for package in found if package.channel] if released else found
    if not fitting:
        raise _not_released(text, found[0])
    if len(fitting) > 1:
        raise _ambiguous(text, fitting)
    return str(fitting[0].name)


def _split(text: str) -> tuple[str, str]:
    """Return name and version of NAME[@VERSION]; the @ of an npm scope is of the name."""
    name, at, version = text.rpartition("@")
    return (name, version) if at and name else (text, "")


def _not_released(text: str, package: Package) -> CommandFailed:
    reasons = "; ".join(package.decision_reasons) or "it is in no channel"
    return CommandFailed(
        f"{text}: no agent can have it: {decision_name(package.decision)}: {reasons}",
        hint=f"See `fleetwright packages show {package.name}`.",
    )


def _ambiguous(text: str, found: Sequence[Package]) -> CommandFailed:
    lines = [
        "  ".join(("", package_words(one), one.target_platform, decision_name(one.decision), one.name))
        for one in found[:_TOLD]
    ]
    more = [f"  and {len(found) - _TOLD} more"] if len(found) > _TOLD else []
    return CommandFailed(
        f"{text}: several packages are called so: name one with its version, or by packages/SHA256",
        Exit.USAGE,
        hint="\n".join(lines + more),
    )


def joined(*parts: str) -> str:
    """Return one filter of those that are given. A typed text stands first: errors count its characters."""
    # OR binds tighter than AND in AIP-160, so no part needs parentheses.
    return " AND ".join(part for part in parts if part.strip())
