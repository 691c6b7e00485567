"""Jars: MANIFEST.MF, and pom.properties where Maven made them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.packaging.archives.errors import BadArtefact, Code
from controlplane.packaging.archives.facts.archive import named
from controlplane.packaging.archives.facts.fields import SHOWN, Fields, manifest_fields, property_fields
from controlplane.packaging.archives.tree import Tree
from controlplane.packaging.records import ArtefactFacts, ArtefactType

MANIFEST = "META-INF/MANIFEST.MF"
POM = re.compile(r"META-INF/maven/(?P<group>[^/]+)/(?P<artifact>[^/]+)/pom\.properties")
POMS = 2000
"""Poms of one jar: one for each library within the widest."""
COORDINATE = re.compile(r"[A-Za-z0-9_.-]{1,200}")
VERSION = re.compile(r"[^\s:/\\]{1,200}")
SIGNATURE = re.compile(r"META-INF/[^/]+\.(?:SF|RSA|DSA|EC)", re.IGNORECASE)
NAMES = ("Bundle-SymbolicName", "Implementation-Title", "Automatic-Module-Name")
VERSIONS = ("Bundle-Version", "Implementation-Version", "Specification-Version")


@dataclass(frozen=True, slots=True)
class Coordinates:
    """What Maven calls a library."""

    group: str
    artifact: str
    version: str

    @property
    def name(self) -> str:
        """As advisories write it."""
        return f"{self.group}:{self.artifact}"


def jar_facts(tree: Tree, declared_name: str) -> ArtefactFacts:
    """Name and version of an extracted jar: Maven's where it is one library, else the manifest's or file's.

    Jars of several libraries have one pom for each; the jar itself is the one that the file is named after.
    Raises ``BAD_METADATA``, ``DUPLICATE_FIELD``, ``CONFLICTING_METADATA``.
    """
    manifest = manifest_fields(tree.read(MANIFEST), MANIFEST)
    for field in (*NAMES, *VERSIONS, "Main-Class"):
        manifest.one(field)
    poms = poms_of(tree)
    own = _own(poms, declared_name)
    details = manifest.details("Main-Class", "Implementation-Vendor", "Bundle-License", "Multi-Release")
    if poms:
        details["maven"] = ", ".join(f"{pom.name}:{pom.version}" for pom in poms)[:SHOWN]
    signatures = sorted(path for path in tree.files if SIGNATURE.fullmatch(path))
    if signatures:
        details["signature_files_not_verified"] = ", ".join(signatures)[:SHOWN]
    if own is not None:
        return ArtefactFacts(ArtefactType.JAR, own.name, own.version, details=details)
    guess = named(declared_name)
    name = _first(manifest, NAMES).partition(";")[0].strip() or guess.name
    version = _first(manifest, VERSIONS) or guess.version
    return ArtefactFacts(ArtefactType.JAR, name, version, details=details)


def poms_of(tree: Tree) -> list[Coordinates]:
    """The libraries whose pom.properties the jar holds, sorted."""
    paths = sorted(path for path in tree.files if POM.fullmatch(path))
    if len(paths) > POMS:
        raise BadArtefact(Code.METADATA_TOO_LARGE, "META-INF/maven", f"holds more than {POMS} poms")
    return [_coordinates(property_fields(tree.text(path), path), path) for path in paths]


def _coordinates(fields: Fields, path: str) -> Coordinates:
    found = Coordinates(
        fields.matching("groupId", COORDINATE),
        fields.matching("artifactId", COORDINATE),
        fields.matching("version", VERSION),
    )
    if path != f"META-INF/maven/{found.group}/{found.artifact}/pom.properties":
        message = f"is of {found.name} inside, in a folder named otherwise"
        raise BadArtefact(Code.CONFLICTING_METADATA, path, message)
    return found


def _own(poms: Sequence[Coordinates], declared_name: str) -> Coordinates | None:
    stem = declared_name.rpartition(".")[0]
    fits = [pom for pom in poms if stem == pom.artifact or stem.startswith(f"{pom.artifact}-{pom.version}")]
    if len(fits) == 1:
        return fits[0]
    return poms[0] if len(poms) == 1 else None


def _first(manifest: Fields, names: Sequence[str]) -> str:
    return next((value[:SHOWN] for name in names if (value := manifest.one(name))), "")
