"""INTAKE: one artefact read to its end, or refused with one clear reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from controlplane.packaging.archives.deb import opened_deb
from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.extract import extract
from controlplane.packaging.archives.facts.archive import archive_facts
from controlplane.packaging.archives.facts.binary import binary_facts
from controlplane.packaging.archives.facts.deb import deb_facts
from controlplane.packaging.archives.facts.jar import jar_facts
from controlplane.packaging.archives.facts.npm import npm_facts
from controlplane.packaging.archives.facts.sdist import sdist_facts
from controlplane.packaging.archives.facts.wheel import wheel_facts
from controlplane.packaging.archives.folder import Folder, filled
from controlplane.packaging.archives.formats import EXECUTABLES, Format, Shape, shape_of
from controlplane.packaging.archives.kinds import check_name, check_shape, check_type, type_of
from controlplane.packaging.archives.limits import DEFAULT, Budget, Limits
from controlplane.packaging.archives.members import Member, MemberKind
from controlplane.packaging.archives.names import PORTABLE, POSIX
from controlplane.packaging.archives.nested import Nest
from controlplane.packaging.archives.outcome import Intake
from controlplane.packaging.archives.readers import open_entries
from controlplane.packaging.archives.streams import Pull, decompressed
from controlplane.packaging.archives.tar import tar_members
from controlplane.packaging.archives.tree import Tree
from controlplane.packaging.archives.window import Window, opened
from controlplane.packaging.records import ArtefactFacts, ArtefactType, FileEntry

GIVEN_CHARACTERS = 200
"""Of a name or version that a person gives."""
FACTS: Mapping[ArtefactType, Callable[[Tree, str], ArtefactFacts]] = {
    ArtefactType.WHEEL: wheel_facts,
    ArtefactType.SDIST: sdist_facts,
    ArtefactType.NPM: npm_facts,
    ArtefactType.JAR: jar_facts,
    ArtefactType.DEB: deb_facts,
    ArtefactType.ARCHIVE: archive_facts,
}
SAY_NOTHING_THEMSELVES = (ArtefactType.ARCHIVE, ArtefactType.BINARY)


def inspect(
    path: Path,
    declared_name: str,
    into: Path,
    limits: Limits = DEFAULT,
    *,
    name: str = "",
    version: str = "",
    expected_sha256: str = "",
    nested_into: Path | None = None,
) -> Intake:
    """Read the artefact at ``path``, extract it into the empty folder ``into``, and say what it is.

    ``declared_name`` is the file's name in its owner's words. ``name`` and ``version`` are the owner's for
    what says nothing itself (archives, executables); other types must agree with them. ``expected_sha256``
    is what the bytes must be. Nested archives are extracted into the empty folder ``nested_into``, or noted
    only where it is None.

    Raises ``BadArtefact`` for whatever is wrong with the artefact, with both folders empty again; OSError
    where this machine fails; ValueError for a folder that is not empty.
    """
    try:
        with filled(into) as folder, _filled_or_none(nested_into) as nest_folder:
            check_name(declared_name)
            with opened(path, declared_name, limits.artefact_bytes) as window:
                digests = _digests(window, expected_sha256)
                found = _inspected(window, folder, nest_folder, limits, digests)
                return replace(found, facts=_with_given(found.facts, name, version))
    except MemoryError:
        # Whoever runs this sets a limit: an artefact that comes up against it is refused as one.
        message = "needs more memory to read than it may have"
        raise BadArtefact(Code.MEMORY_EXCEEDED, declared_name, message) from None


def _inspected(
    window: Window, folder: Folder, nest_folder: Folder | None, limits: Limits, digests: tuple[str, str]
) -> Intake:
    budget = Budget(limits, window.size)
    shape = shape_of(window, budget)
    check_shape(shape, window.name)
    kind, files, extras = _unpacked(window, shape, folder, budget)
    check_type(kind, window.name)
    facts = _facts(kind, window, shape, Tree(folder, files, limits))
    facts = replace(facts, details={**facts.details, **extras})
    nested = list(Nest(nest_folder, budget).look(folder, files))
    return Intake(window.name, window.size, *digests, kind, facts, files, nested)


@contextmanager
def _filled_or_none(path: Path | None) -> Iterator[Folder | None]:
    if path is None:
        yield None
        return
    with filled(path) as folder:
        yield folder


def _digests(window: Window, expected_sha256: str) -> tuple[str, str]:
    sha256, sha512 = hashlib.sha256(), hashlib.sha512()
    for piece in window.chunks():
        sha256.update(piece)
        sha512.update(piece)
    if expected_sha256 and expected_sha256.lower() != sha256.hexdigest():
        message = f"its SHA-256 is {sha256.hexdigest()}, and {printable(expected_sha256)} was declared"
        raise BadArtefact(Code.DIGEST_MISMATCH, window.name, message)
    return sha256.hexdigest(), sha512.hexdigest()


def _unpacked(
    window: Window, shape: Shape, folder: Folder, budget: Budget
) -> tuple[ArtefactType, list[FileEntry], dict[str, str]]:
    """The type, the files on disk, and details that the container alone knows."""
    if shape.format is Format.AR:
        files, extras = _unpacked_deb(window, folder, budget)
        return ArtefactType.DEB, files, extras
    if shape.format in EXECUTABLES:
        member = Member(window.name, MemberKind.FILE, window.size, 0o755)
        files = extract(iter([(member, window.chunks())]), folder, "", PORTABLE, budget)
        return ArtefactType.BINARY, files, {}
    entries, rule = open_entries(window, shape, budget)
    files = extract(entries, folder, "", rule, budget)
    if not files:
        raise BadArtefact(Code.EMPTY, window.name, "holds no files")
    return type_of(shape, [entry.path for entry in files]), files, {}


def _unpacked_deb(window: Window, folder: Folder, budget: Budget) -> tuple[list[FileEntry], dict[str, str]]:
    deb = opened_deb(window, budget)
    files: list[FileEntry] = []
    for part, below in ((deb.control, "control"), (deb.data, "data")):
        folder.at(below, create=True)
        source = Pull(decompressed(part.window, part.compression, budget), part.window.name)
        files += extract(tar_members(source, budget), folder, below, POSIX, budget)
    extras = {"members_not_read": ", ".join(deb.extras)} if deb.extras else {}
    return files, extras


def _facts(kind: ArtefactType, window: Window, shape: Shape, tree: Tree) -> ArtefactFacts:
    if kind is ArtefactType.BINARY:
        return binary_facts(window, shape.format, window.name)
    return FACTS[kind](tree, window.name)


def _with_given(facts: ArtefactFacts, name: str, version: str) -> ArtefactFacts:
    """The facts with the owner's name and version, where the artefact has none of its own."""
    for what, given, own in (("name", name, facts.name), ("version", version, facts.version)):
        if not given:
            continue
        if len(given) > GIVEN_CHARACTERS or not given.isprintable() or given != given.strip():
            message = f"the {what} that was given is longer than {GIVEN_CHARACTERS}, or not printable"
            raise BadArtefact(Code.BAD_METADATA, "", message)
        if facts.type not in SAY_NOTHING_THEMSELVES and given != own:
            message = f"its {what} is {printable(own)!r} inside, and {given!r} was given; leave it out"
            raise BadArtefact(Code.CONFLICTING_METADATA, "", message)
    return replace(facts, name=name or facts.name, version=version or facts.version)
