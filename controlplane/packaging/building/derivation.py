"""The manifest that follows from an artefact's type and content, and what a user puts in its place.

A wheel, an sdist, an npm package and an archive are copied as trees, without the one folder that holds all
where there is one; a jar and a binary are one file; a .deb is dpkg's. Commands are linked for binaries and
for what an archive has in ``bin``. What a wheel or an npm package would install as commands needs an
interpreter of the endpoint, which nobody here knows: such links must be given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fleetwright.manifest import (
    SCHEMA,
    CopyTree,
    Detect,
    DpkgDetect,
    DpkgInstall,
    DpkgRemove,
    Fields,
    FileDetect,
    InstallStep,
    Link,
    Manifest,
    ManifestError,
    PackagedFile,
    RemoveTree,
    Rollback,
    Unlink,
    dump,
    parse_part,
)
from fleetwright.manifest.checks import copies

from controlplane.packaging.building import payload as payloads
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.payload import PayloadFile
from controlplane.packaging.building.platforms import platforms_of
from controlplane.packaging.records import ArtefactFacts, ArtefactType, FileEntry

_FOLDED: Final = frozenset({ArtefactType.SDIST, ArtefactType.NPM, ArtefactType.ARCHIVE})
"""Types whose files usually lie in one folder, named after the version or "package"."""
_PLACES: Final = frozenset(
    ["bin", "etc", "include", "lib", "lib64", "libexec", "opt", "sbin", "share", "usr", "var"]
)
"""Folders that say where their files belong, even where there is no other one."""
_COMMAND: Final = re.compile(r"bin/([A-Za-z0-9_][A-Za-z0-9_.+-]{0,127})")
_NO_FILE_NAME: Final = re.compile(r"[^A-Za-z0-9_.+-]")


@dataclass(frozen=True, slots=True)
class Artefact:
    """The unsigned bytes that came in."""

    path: Path
    sha256: str
    size: int


def identified(facts: ArtefactFacts, overrides: Mapping[str, Any]) -> ArtefactFacts:
    """Return the facts with the name and version that are given, where the artefact does not say its own.

    Raises ``BuildFailed`` where it says another one, or nobody says any.
    """
    return replace(facts, name=_given(facts, overrides, "name"), version=_given(facts, overrides, "version"))


def _given(facts: ArtefactFacts, overrides: Mapping[str, Any], name: str) -> str:
    own = str(getattr(facts, name))
    given = overrides.get(name, own)
    if not given:
        raise BuildFailed(
            "NAME_MISSING", name, f"the artefact does not say its {name}: give it with the manifest"
        )
    if not isinstance(given, str):
        raise BuildFailed("MANIFEST", name, "is not a text")
    if own and given != own:
        raise BuildFailed(
            "CONTRADICTS", name, f"is {given[:64]!r}, but the artefact says {own[:64]!r} of itself"
        )
    return given


def payload(
    facts: ArtefactFacts, artefact: Artefact, tree: Path, entries: Iterable[FileEntry]
) -> list[PayloadFile]:
    """Return the files that go into the package; of a .deb those that dpkg will install."""
    if facts.type is ArtefactType.JAR:
        name = f"{_file_name(facts.name)}-{_file_name(facts.version)}.jar"
    elif facts.type is ArtefactType.BINARY:
        name = f"bin/{_file_name(facts.name)}"
    else:
        return payloads.of_tree(tree, entries)
    executable = facts.type is ArtefactType.BINARY
    return payloads.of_file(artefact.path, name, artefact.size, artefact.sha256, executable=executable)


def _file_name(name: str) -> str:
    # The last part of "@scope/name" and "group:artifact".
    return _NO_FILE_NAME.sub("-", re.split(r"[/:]", name)[-1]).lstrip(".-") or "package"


def derive(
    facts: ArtefactFacts, source_sha256: str, files: Sequence[PackagedFile], overrides: Mapping[str, Any]
) -> Manifest:
    """Return the manifest of a package of these files, with the user's fields in place of the derived ones.

    ``overrides`` is a JSON object with some of the fields of a manifest. Raises ``BuildFailed``, which
    names the field.
    """
    try:
        given = _parts(overrides)
        manifest = _derived(identified(facts, overrides), source_sha256, tuple(files), given)
        dump(manifest)
    except ManifestError as error:
        raise BuildFailed("MANIFEST", error.field, error.problem) from error
    return manifest


def _parts(overrides: Mapping[str, Any]) -> dict[str, Any]:
    fields = Fields(overrides)
    if "schema" in fields and fields.text("schema") != SCHEMA:
        raise ManifestError("schema", f"is not {SCHEMA!r}")
    return {name: parse_part(name, fields) for name in overrides if name != "schema"}


def _derived(
    facts: ArtefactFacts, source_sha256: str, files: tuple[PackagedFile, ...], given: Mapping[str, Any]
) -> Manifest:
    def part(name: str, default: Callable[[], Any]) -> Any:
        return given[name] if name in given else default()

    install = part("install", lambda: _install(facts, files))
    return Manifest(
        name=facts.name,
        version=facts.version,
        type=facts.type.value,
        platforms=part("platforms", lambda: platforms_of(facts)),
        install=install,
        uninstall=part("uninstall", lambda: _uninstall(install)),
        detect=part("detect", lambda: _detect(facts, files, install)),
        rollback=part("rollback", lambda: _rollback(facts)),
        disk_bytes=part("disk_bytes", lambda: payloads.disk_bytes(files)),
        files=files,
        source_sha256=source_sha256,
    )


def _install(facts: ArtefactFacts, files: Sequence[PackagedFile]) -> tuple[InstallStep, ...]:
    if facts.type is ArtefactType.DEB:
        return (DpkgInstall(facts.name),)
    copied = CopyTree(_single_folder(files) if facts.type in _FOLDED else ".", ".")
    if facts.type not in (ArtefactType.BINARY, ArtefactType.ARCHIVE):
        return (copied,)
    places = [
        (path, file) for path, file in copies(files, copied) if file.mode == 0o755 and not file.link_target
    ]
    commands = [Link(found[1], path) for path, _ in places if (found := _COMMAND.fullmatch(path))]
    return (copied, *commands)


def _single_folder(files: Sequence[PackagedFile]) -> str:
    tops = {file.path.partition("/")[0] for file in files}
    folder = tops.pop() if len(tops) == 1 else ""
    # A link that counts its way up would lead elsewhere one folder higher; a file beside it is no folder.
    fixed = any(file.link_target or "/" not in file.path for file in files)
    return "." if not folder or fixed or folder in _PLACES else folder


def _uninstall(install: Sequence[InstallStep]) -> tuple[Any, ...]:
    by_dpkg = [DpkgRemove(step.package) for step in install if isinstance(step, DpkgInstall)]
    links = [Unlink(step.name) for step in install if isinstance(step, Link)]
    return tuple(by_dpkg) or (*links, RemoveTree("."))


def _rollback(facts: ArtefactFacts) -> Rollback:
    return Rollback("reinstall" if facts.type is ArtefactType.DEB else "switch_back", keep_versions=1)


def _detect(facts: ArtefactFacts, files: Sequence[PackagedFile], install: Sequence[InstallStep]) -> Detect:
    if facts.type is ArtefactType.DEB:
        return DpkgDetect(facts.name, facts.version)
    places = [found for step in install if isinstance(step, CopyTree) for found in copies(files, step)]
    regular = [(path, file) for path, file in places if not file.link_target]
    if not regular:
        raise BuildFailed(
            "NOTHING_TO_DETECT", "detect", "no file is installed by which the package could be found"
        )
    named = [one for one in regular if _names_the_version(facts.type, one[0])]
    path, file = min(named or regular, key=lambda one: (not one[1].size, one[0].count("/"), one[0]))
    return FileDetect(path, file.sha256)


def _names_the_version(kind: ArtefactType, path: str) -> bool:
    # The file that differs between any two versions.
    if kind is ArtefactType.WHEEL:
        return path.endswith(".dist-info/METADATA")
    if kind is ArtefactType.SDIST:
        return path.rpartition("/")[2] == "PKG-INFO"
    return kind is ArtefactType.NPM and path.rpartition("/")[2] == "package.json"
