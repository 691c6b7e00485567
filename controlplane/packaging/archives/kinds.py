"""What an artefact is, by its content, and whether its name says the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from controlplane.packaging.archives.deb import opened_deb
from controlplane.packaging.archives.errors import BadArtefact, Code
from controlplane.packaging.archives.formats import Format, Shape, shape_of
from controlplane.packaging.archives.limits import DEFAULT, Budget, Limits
from controlplane.packaging.archives.names import PORTABLE, checked_path
from controlplane.packaging.archives.readers import MANIFEST, open_entries
from controlplane.packaging.archives.streams import Compression
from controlplane.packaging.archives.window import Window, opened
from controlplane.packaging.records import ArtefactType

WHEEL_FILE = re.compile(r"[^/]+\.dist-info/WHEEL")
SDIST_FILE = re.compile(r"[^/]+-[^/]+(?<!\.egg-info)(?<!\.dist-info)(?<!\.data)/PKG-INFO")
NPM_FILE = "package/package.json"

A = ArtefactType
TARS = {A.SDIST, A.NPM, A.ARCHIVE}
TAR_ENDINGS: Mapping[str, Compression] = {
    ".tar": Compression.NONE,
    ".tar.gz": Compression.GZIP,
    ".tgz": Compression.GZIP,
    ".tar.xz": Compression.XZ,
    ".txz": Compression.XZ,
    ".tar.bz2": Compression.BZIP2,
    ".tbz2": Compression.BZIP2,
    ".tbz": Compression.BZIP2,
    ".tar.zst": Compression.ZSTD,
    ".tar.lzma": Compression.LZMA,
}
TYPE_ENDINGS: Mapping[str, set[ArtefactType]] = {
    ".whl": {A.WHEEL},
    ".jar": {A.JAR},
    ".war": {A.JAR},
    ".ear": {A.JAR},
    ".deb": {A.DEB},
    ".udeb": {A.DEB},
    ".zip": {A.ARCHIVE, A.SDIST},
}
BINARY_ENDINGS: Mapping[str, Format] = {
    ".exe": Format.PE,
    ".dll": Format.PE,
    ".so": Format.ELF,
    ".elf": Format.ELF,
    ".dylib": Format.MACH_O,
}
ANY_BINARY = re.compile(
    r"\.(?:bin|run|out|(?:rc|alpha|beta|dev|post)\d*"
    r"|(?:linux|darwin|macos|windows|freebsd)?_?"
    r"(?:amd64|arm64|armhf|armv\d\w*|x86_64|aarch64|i[3-6]86|x64|x86|riscv64|ppc64le|s390x)?)"
)
"""What stands behind a dot in executables' names and claims no format."""
ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9_]{0,9}|\.7z")


def kind_of(path: Path, declared_name: str, limits: Limits = DEFAULT) -> ArtefactType:
    """The type of the file at ``path`` by its content, without writing anything.

    ``declared_name`` is the file's name in its owner's words; ``NOT_WHAT_IT_SAYS`` where its ending says
    another type. The whole archive is read once, and everything that is wrong with it raised.
    """
    check_name(declared_name)
    with opened(path, declared_name, limits.artefact_bytes) as window:
        budget = Budget(limits, window.size)
        shape = shape_of(window, budget)
        check_shape(shape, declared_name)
        kind = type_of(shape, _paths(window, shape, budget))
    check_type(kind, declared_name)
    return kind


def _paths(window: Window, shape: Shape, budget: Budget) -> Iterable[str]:
    if shape.format is Format.AR:
        opened_deb(window, budget)
    if shape.format not in (Format.ZIP, Format.TAR):
        return []
    entries, rule = open_entries(window, shape, budget)
    return [checked_path(member.name, rule, budget.limits) for member, _ in entries]


def check_name(declared_name: str) -> None:
    """Raise ``NAME_NOT_PORTABLE`` and the like unless this is the plain name of one file."""
    path = checked_path(declared_name, PORTABLE, DEFAULT)
    if not path or path != declared_name or "/" in path:
        message = "is not the plain name of a file; give the name alone, without folders"
        raise BadArtefact(Code.NAME_NOT_PORTABLE, declared_name, message)


def ending_of(name: str) -> str:
    """The ending of a file name that says a type, in lower case: ".tar.gz", ".whl"; empty where none does."""
    lower = name.lower()
    for ending in TAR_ENDINGS:
        if lower.endswith(ending):
            return ending
    # The "3" of "tool-1.2.3" says nothing, nor does the number behind ".so".
    stem = re.sub(r"(?<=\.so)(\.\d+)+$", "", lower)
    suffix = "." + stem.rpartition(".")[2] if "." in stem.lstrip(".") else ""
    return suffix if ENDING.fullmatch(suffix) else ""


def type_of(shape: Shape, paths: Iterable[str]) -> ArtefactType:
    """The type of an artefact of this shape with files at these paths.

    ``POLYGLOT`` where it is two at once.
    """
    if shape.format is Format.AR:
        return ArtefactType.DEB
    if shape.format not in (Format.ZIP, Format.TAR):
        return ArtefactType.BINARY
    every = list(paths)
    marks = {kind for path in every for kind in _marked(path, shape.format)}
    if len({path.partition("/")[0] for path in every}) > 1:
        # A sdist is one folder; several are an archive that holds what once were sdists.
        marks.discard(ArtefactType.SDIST)
    found = sorted(marks, key=lambda kind: kind.value)
    if len(found) > 1:
        names = " and ".join(kind.value for kind in found)
        raise BadArtefact(Code.POLYGLOT, "", f"is {names} at once; ship one of them")
    return found[0] if found else ArtefactType.ARCHIVE


def _marked(path: str, container: Format) -> list[ArtefactType]:
    if SDIST_FILE.fullmatch(path):
        return [ArtefactType.SDIST]
    if container is Format.TAR:
        return [ArtefactType.NPM] if path == NPM_FILE else []
    if WHEEL_FILE.fullmatch(path):
        return [ArtefactType.WHEEL]
    return [ArtefactType.JAR] if path == MANIFEST else []


def check_shape(shape: Shape, declared_name: str) -> None:
    """Raise ``NOT_WHAT_IT_SAYS`` where the name's ending claims another format or compression."""
    ending = ending_of(declared_name)
    if ending in TAR_ENDINGS:
        fits = shape == Shape(Format.TAR, TAR_ENDINGS[ending])
    elif ending in TYPE_ENDINGS:
        fits = shape.format is (Format.AR if TYPE_ENDINGS[ending] == {A.DEB} else Format.ZIP)
    elif ending in BINARY_ENDINGS:
        fits = shape.format is BINARY_ENDINGS[ending]
    elif ANY_BINARY.fullmatch(ending):
        fits = shape.format in (Format.ELF, Format.PE, Format.MACH_O)
    else:
        fits = not ending
    if not fits:
        compressed = f", {shape.compression.value}-compressed" if shape.compression.value else ""
        message = f"its name ends with {ending}, and it is {shape.format.value}{compressed}; rename it"
        raise BadArtefact(Code.NOT_WHAT_IT_SAYS, declared_name, message)


def check_type(kind: ArtefactType, declared_name: str) -> None:
    """Raise ``NOT_WHAT_IT_SAYS`` where the name's ending claims another type than the content has."""
    ending = ending_of(declared_name)
    fits = TARS if ending in TAR_ENDINGS else TYPE_ENDINGS.get(ending, set(ArtefactType))
    if kind not in fits:
        wanted = " or ".join(sorted(one.value for one in fits))
        message = f"its name ends with {ending}, which is {wanted}, and its content is {kind.value}"
        raise BadArtefact(Code.NOT_WHAT_IT_SAYS, declared_name, message)
