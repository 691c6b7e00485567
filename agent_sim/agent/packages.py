"""Installed packages, as the host's own package managers tell of them.

Each manager is asked in a subprocess with a time limit and an output limit. One
that is absent, fails or says too much leaves a line in ``missing``, so that a
short list is never taken for a whole one.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from fleetwright.v1 import work_pb2

# System folders only: the agent's own environment must not pass for the host's.
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

QUERY_TIME = timedelta(seconds=60)
QUERY_BYTES = 32 << 20

Tell = Callable[[int, str], None]
"""Hears how far a piece of work is: percent done, 0 to 100, and words for people."""

_READ_BYTES = 1 << 16
_NAME_CHARACTERS = 256
_ARCHITECTURE_CHARACTERS = 64

# importlib.metadata sees what pip installed also where pip itself is not installed, and in a tenth of
# the time of `pip list`. -I keeps the caller's environment and folder out.
_PIP_SCRIPT = (
    "import importlib.metadata as m, json; "
    "print(json.dumps([[d.metadata['Name'], d.version] for d in m.distributions()]))"
)


@dataclass(frozen=True, slots=True)
class PackageSource:
    """One package manager: what to run, and how to read what it prints."""

    manager: str
    program: str
    arguments: Sequence[str]
    parse: Callable[[str], Iterator[work_pb2.InstalledPackage]]


@dataclass(slots=True)
class PackageList:
    """Packages sorted by manager, name and version, and in words what could not be read."""

    packages: list[work_pb2.InstalledPackage] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class QueryError(Exception):
    """A package manager could not be asked; the text says why in a few words."""


def parse_dpkg(text: str) -> Iterator[work_pb2.InstalledPackage]:
    """Read lines of status, name, version and architecture; only what is installed counts.

    The status abbreviation is that of dpkg-query(1), ``db:Status-Abbrev``: its
    second letter is ``i`` for a package that is unpacked and configured.
    """
    for status, name, version, architecture in _rows(text, 4):
        if status[1:2] == "i":
            yield _package("dpkg", name, version, architecture)


def parse_rpm(text: str) -> Iterator[work_pb2.InstalledPackage]:
    """Read lines of name, epoch, version, release and architecture; no epoch is "(none)"."""
    for name, epoch, version, release, architecture in _rows(text, 5):
        prefix = "" if epoch in ("(none)", "0") else f"{epoch}:"
        # Keys that verify packages are listed among them (rpmkeys(8)), and are none.
        if name != "gpg-pubkey":
            found = "" if architecture == "(none)" else architecture
            yield _package("rpm", name, f"{prefix}{version}-{release}", found)


def parse_pip(text: str) -> Iterator[work_pb2.InstalledPackage]:
    """Read a JSON array of [name, version]; a broken installation without either is left out."""
    for name, version in json.loads(text):
        if name and version:
            yield _package("pip", str(name), str(version), "")


SOURCES: Sequence[PackageSource] = (
    PackageSource(
        "dpkg",
        "dpkg-query",
        ("-W", "-f", "${db:Status-Abbrev}\\t${Package}\\t${Version}\\t${Architecture}\\n"),
        parse_dpkg,
    ),
    PackageSource(
        "rpm",
        "rpm",
        ("-qa", "--qf", "%{NAME}\\t%{EPOCH}\\t%{VERSION}\\t%{RELEASE}\\t%{ARCH}\\n"),
        parse_rpm,
    ),
    PackageSource("pip", "python3", ("-I", "-c", _PIP_SCRIPT), parse_pip),
)


async def installed_packages(
    sources: Sequence[PackageSource] = SOURCES, path: str = SYSTEM_PATH, tell: Tell | None = None
) -> PackageList:
    """Ask every source that this host has, one after the other: an inventory is never urgent."""
    found = PackageList()
    for done, source in enumerate(sources):
        if tell is not None:
            tell(100 * done // len(sources), f"packages of {source.manager}")
        try:
            found.packages += await _ask(source, path)
        except QueryError as error:
            found.missing.append(f"{source.manager}: {error}"[:_NAME_CHARACTERS])
    unique = {(one.manager, one.name, one.version, one.architecture): one for one in found.packages}
    found.packages = [unique[key] for key in sorted(unique)]
    return found


async def _ask(source: PackageSource, path: str) -> list[work_pb2.InstalledPackage]:
    program = shutil.which(source.program, path=path)
    if program is None:
        raise QueryError("not installed")
    text = await query([program, *source.arguments], {"PATH": path, "LC_ALL": "C.UTF-8"})
    try:
        return list(source.parse(text))
    except (ValueError, TypeError) as error:
        raise QueryError("answered in a form that is not known") from error


async def query(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    time_limit: timedelta = QUERY_TIME,
    byte_limit: int = QUERY_BYTES,
) -> str:
    """Return what ``command`` prints; raises ``QueryError`` where it fails or a limit is reached."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(environment),
            cwd="/",
        )
    except OSError as error:
        raise QueryError(f"cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(time_limit.total_seconds()):
            output = await _read_all(process, byte_limit)
            status = await process.wait()
    except TimeoutError as error:
        raise QueryError(f"did not answer within {time_limit.total_seconds():g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status != 0:
        raise QueryError(f"exit status {status}")
    return output.decode("utf-8", "replace")


async def _read_all(process: asyncio.subprocess.Process, limit: int) -> bytes:
    output = bytearray()
    while process.stdout is not None and (data := await process.stdout.read(_READ_BYTES)):
        output += data
        if len(output) > limit:
            raise QueryError(f"answered more than {limit} bytes")
    return bytes(output)


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) == columns and all(cells):
            yield cells


def _package(manager: str, name: str, version: str, architecture: str) -> work_pb2.InstalledPackage:
    return work_pb2.InstalledPackage(
        manager=manager,
        name=name[:_NAME_CHARACTERS],
        version=version[:_NAME_CHARACTERS],
        architecture=architecture[:_ARCHITECTURE_CHARACTERS],
    )
