"""in-toto statements (version 1) and the predicates that Fleetwright attests: reading them.

A statement says something, its predicate, of subjects that it names by digest. The shapes below are what the
chain of evidence needs of each predicate; fields beyond them are left alone, as in-toto's parsing rules ask.

``controlplane/trust/statements.py`` writes the same shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fleetwright.verify.documents import JsonObject, parse_object
from fleetwright.verify.errors import Malformed
from fleetwright.verify.keys import Purpose
from fleetwright.verify.predicates import Provenance, Sbom, Scan, read_provenance, read_sbom, read_scan
from fleetwright.verify.verdicts import Verdict, read_verdict

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"

PROVENANCE: Final = "https://slsa.dev/provenance/v1"
CYCLONEDX: Final = "https://cyclonedx.org/bom"
SPDX: Final = "https://spdx.dev/Document/v2.3"
SCAN: Final = "https://example.org/fleetwright/vulnerability-scan/v1"
"""Ours; below the name under which the project's Go module stands as well."""
VERDICT: Final = "https://slsa.dev/verification_summary/v1"

_PURPOSES: Final = {
    PROVENANCE: Purpose.PROVENANCE,
    CYCLONEDX: Purpose.SBOM,
    f"{CYCLONEDX}/v1.6": Purpose.SBOM,  # as in-toto's example writes it
    SPDX: Purpose.SBOM,
    "https://spdx.dev/Document": Purpose.SBOM,  # as older tools write it
    SCAN: Purpose.SCAN,
    VERDICT: Purpose.VERDICT,
}

LARGEST_STATEMENT: Final = 32 * 1024 * 1024
MOST_SUBJECTS: Final = 64

Predicate = Provenance | Sbom | Scan | Verdict


@dataclass(frozen=True, slots=True)
class Subject:
    """What a statement is about."""

    name: str
    """For people: subjects are told apart by digest alone."""
    sha256: str


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that could be read. Who says it is the envelope's matter."""

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: JsonObject

    @property
    def purpose(self) -> Purpose | None:
        """What a key must be for to say this; None for a predicate that is not known here."""
        return _PURPOSES.get(self.predicate_type)

    def is_about(self, sha256: str) -> bool:
        """Return whether one of the subjects has this digest."""
        return any(subject.sha256 == sha256 for subject in self.subjects)

    def read(self) -> Predicate:
        """Return the predicate. Raises ``Malformed`` where it is of no known type, or not what that says."""
        if self.purpose is Purpose.PROVENANCE:
            return read_provenance(self.predicate)
        if self.purpose is Purpose.SBOM:
            return read_sbom(self.predicate, cyclonedx=self.predicate_type.startswith(CYCLONEDX))
        if self.purpose is Purpose.SCAN:
            return read_scan(self.predicate)
        if self.purpose is Purpose.VERDICT:
            return read_verdict(self.predicate)
        raise Malformed(f"{self.predicate.where}: predicate type {self.predicate_type!r} is not known here")


def parse_statement(payload: bytes, where: str = "statement") -> Statement:
    """Read a statement. ``where`` names it in errors. Raises ``Malformed``."""
    document = parse_object(payload, where, LARGEST_STATEMENT)
    kind = document.text("_type", longest=256)
    if kind != STATEMENT_TYPE:
        raise document.wrong("_type", f"{kind!r}, where {STATEMENT_TYPE!r} is expected")
    subjects = tuple(
        Subject(item.text("name", default=""), item.sha256("digest"))
        for item in document.children("subject", MOST_SUBJECTS)
    )
    if not subjects:
        raise document.wrong("subject", "empty: a statement about nothing")
    return Statement(subjects, document.text("predicateType", longest=512), document.child("predicate"))
