"""The room's own shapes. Digests are SHA-256 in lower-case hexadecimal, instants microseconds, UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum


class ArtefactType(Enum):
    """What an artefact is, by its content."""

    WHEEL = "wheel"
    SDIST = "sdist"
    NPM = "npm"
    JAR = "jar"
    DEB = "deb"
    ARCHIVE = "archive"
    """A zip or tar that is none of the above."""
    BINARY = "binary"
    """One executable file."""


class Ecosystem(Enum):
    """Where a component comes from; the value is OSV's name for it."""

    PYPI = "PyPI"
    NPM = "npm"
    GO = "Go"
    MAVEN = "Maven"
    DEBIAN = "Debian"
    RPM = "RPM"
    """Every distribution of RPM packages: OSV names each by itself, and their versions compare alike."""


class Severity(Enum):
    """How bad a finding is. UNKNOWN is not harmless: nobody has said."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ArtefactFacts:
    """What an artefact says of itself; empty texts where it says nothing."""

    type: ArtefactType
    name: str
    version: str
    architecture: str = ""
    """In the format's own notation: "amd64", "x86_64", "any"; empty where the format has none."""
    os_family: str = ""
    """"linux", "windows", "darwin"; empty where it runs on any."""
    details: Mapping[str, str] = field(default_factory=dict)
    """More of the format's own metadata, for people and evidence."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file that was extracted: its path below the root, with "/" between parts."""

    path: str
    size: int
    sha256: str
    mode: int
    """Permission bits, set-id bits cleared."""
    link_target: str = ""
    """Of a symbolic link, which stays below the root; empty for a file."""
    sha1: str = ""
    """SHA-1, which SPDX 2.3 wants of every file and nothing of ours trusts; may be empty."""


class Scope(Enum):
    """How a component belongs to a package. The first that applies, from the top, is the one that is kept."""

    CONTAINED = "contained"
    """Its bytes are in the package."""
    REQUIRED = "required"
    """The package needs exactly this version at run time and does not bring it."""
    OPTIONAL = "optional"
    """As REQUIRED, for a feature that somebody may choose."""
    DEVELOPMENT = "development"
    """Who builds or tests the package needs it; who runs it does not."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a component says that it needs, without bringing it."""

    name: str
    """By the rules of the ecosystem of the component that says it."""
    constraint: str
    """In the ecosystem's notation, with its condition: ">=2; python_version < '3.12'"; empty for any."""
    scope: Scope
    purl: str = ""
    """Of the component that meets it, where the constraint leaves one version only."""


@dataclass(frozen=True, slots=True)
class Component:
    """A piece of software within a package, or one that it needs at exactly one version."""

    ecosystem: str
    """OSV's name, with a release where OSV has one ("Debian:12"); empty where none is known."""
    name: str
    version: str
    purl: str
    files: Sequence[str] = ()
    """Paths of the files that it claims, sorted."""
    found_by: Sequence[str] = ()
    """Which cataloguers found it, sorted: "fleetwright", "syft", "trivy"."""
    licences: Sequence[str] = ()
    """SPDX expressions, or the package's own words."""
    scope: Scope = Scope.CONTAINED
    requires: Sequence[Requirement] = ()
    """What it needs besides itself, sorted."""
    source_name: str = ""
    """Source package that it was built from (Debian, RPM): advisories of Debian speak of those."""
    source_version: str = ""
    notes: Sequence[str] = ()
    """What could not be found out about it, in words, sorted."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The components of a package, from which CycloneDX and SPDX documents are written."""

    facts: ArtefactFacts
    sha256: str
    components: Sequence[Component]
    """Sorted by purl."""
    files: Sequence[FileEntry]
    tools: Mapping[str, str] = field(default_factory=dict)
    """Name to version, of what looked; for what could not look, why."""
    problems: Sequence[str] = ()
    """Metadata that could not be read, each with its member and what is wrong with it; bounded."""

    @property
    def claimed(self) -> int:
        """How many of the files a component claims."""
        known = {entry.path for entry in self.files}
        return len(known & {path for component in self.components for path in component.files})


@dataclass(frozen=True, slots=True)
class Finding:
    """A vulnerability that affects a component."""

    vulnerability: str
    """The id that leads: a CVE where one of the aliases is one, else the record's own."""
    aliases: Sequence[str]
    """All ids, the leading one too, sorted."""
    component: str
    """purl."""
    severity: Severity
    severity_source: str
    """Where the severity comes from, for example "CVSS:3.1 of GHSA-…"; empty for UNKNOWN."""
    score: float | None
    matched: str
    """Which event or entry of which record matched, in words."""
    fixed: str
    """Lowest version that is not affected any more; empty where none is known."""
    found_by: Sequence[str]
    state: str = "affected"
    """"affected", or what an OpenVEX statement says: "not_affected", "fixed", "under_investigation"."""
    justification: str = ""
    """Of the OpenVEX statement."""
    certain: bool = True
    """False where the versions could not be compared: it may be affected, and nobody can say."""
    sources: Sequence[str] = ()
    """Ids of the records that matched, sorted."""
    disagreements: Sequence[str] = ()
    """In what those records, or the engines that found it, differ; in words."""
