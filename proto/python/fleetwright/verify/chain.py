"""The chain of evidence from a package's digest to the verdict on it, judged from its attestations alone.

Pure: bytes, keys and the time in, a report out. It holds where

* every attestation is signed by a key that may attest what it says (``signature``);
* each kind of evidence has a statement whose **subject** is the digest of the bytes that are installed
  (``provenance``, ``sbom``, ``scan``, ``verdict``): a digest among the materials of a build is what went in,
  and says nothing of what came out;
* the scan is of that SBOM;
* the newest verdict is PASS or EXCEPTION, not past its end, and was made from these very attestations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from fleetwright.verify.envelopes import LARGEST_ENVELOPE, parse_envelope, verify
from fleetwright.verify.errors import Malformed, UnknownKey, VerificationError
from fleetwright.verify.keys import AttestationKeys, Purpose
from fleetwright.verify.predicates import Provenance, Sbom, Scan
from fleetwright.verify.reports import Check, missing, ok, wrong
from fleetwright.verify.statements import Predicate, Statement, parse_statement
from fleetwright.verify.verdicts import Decision, Verdict

MOST_ATTESTATIONS: Final = 256
LARGEST_ATTESTATIONS: Final = 4 * LARGEST_ENVELOPE

EVIDENCE: Final = (Purpose.PROVENANCE, Purpose.SBOM, Purpose.SCAN)
"""What a verdict has to be made from."""

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""By how much the clocks of the verifier and of this machine may differ."""

_SHORT = 16
"""Hexadecimal digits of a digest that people are shown."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """An attestation that could be read: what it says, of what, and whether its signature holds."""

    sha256: str
    purpose: Purpose
    statement: Statement
    predicate: Predicate
    trusted: bool
    where: str


@dataclass(slots=True)
class Evidence:
    """All that could be read of a package's attestations."""

    read: list[Attestation] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What cannot be read, or is not signed as it must be; one text for each attestation."""
    unknown: int = 0
    """Attestations of other types than those of this chain; well signed or not, they are passed over."""

    def about(self, purpose: Purpose, sha256: str) -> list[Attestation]:
        """Return those that are trusted, of a kind, and about a subject."""
        return [item for item in self.of(purpose) if item.trusted and item.statement.is_about(sha256)]

    def of(self, purpose: Purpose) -> list[Attestation]:
        """Return those of a kind, trusted or not."""
        return [item for item in self.read if item.purpose is purpose]


def verify_attestations(
    package: str, lines: bytes, keys: AttestationKeys | None, now: datetime
) -> tuple[Check, ...]:
    """Judge the attestations of a package.

    ``package`` is the SHA-256 of the bytes that are installed, ``lines`` one DSSE envelope on each line,
    ``keys`` who may attest, or None where nobody is known: then nothing is trusted, and what is missing is
    still named. Returns the checks ``signature``, ``provenance``, ``sbom``, ``scan`` and ``verdict``; raises
    nothing.
    """
    evidence = read_evidence(lines, keys, now)
    return (
        _signature(evidence, keys),
        _provenance(evidence, package),
        _sbom(evidence, package),
        _scan(evidence, package),
        _verdict(evidence, package, now),
    )


def read_evidence(lines: bytes, keys: AttestationKeys | None, now: datetime) -> Evidence:
    """Read every attestation, and judge the signature of each."""
    evidence = Evidence()
    if len(lines) > LARGEST_ATTESTATIONS:
        evidence.problems.append(
            f"{len(lines)} bytes of attestations, where at most {LARGEST_ATTESTATIONS} are read"
        )
        return evidence
    for number, line in enumerate(_lines(lines), 1):
        if number > MOST_ATTESTATIONS:
            evidence.problems.append(f"more than {MOST_ATTESTATIONS} attestations; the rest was not read")
            break
        _read(evidence, line, f"attestation {number}", keys, now)
    return evidence


def _lines(lines: bytes) -> Iterator[bytes]:
    return (line for line in lines.split(b"\n") if line.strip())


def _read(evidence: Evidence, line: bytes, where: str, keys: AttestationKeys | None, now: datetime) -> None:
    try:
        envelope = parse_envelope(line, where)
        statement = parse_statement(envelope.payload, where)
        purpose = statement.purpose
        if purpose is None:
            evidence.unknown += 1
            return
        predicate = statement.read()
    except Malformed as error:
        evidence.problems.append(str(error))
        return
    try:
        trusted = keys is not None and bool(verify(envelope, keys.of_purpose(purpose, now)))
    except VerificationError as error:
        trusted = False
        why = _whose(list(envelope.signatures), purpose, keys) if isinstance(error, UnknownKey) else ""
        evidence.problems.append(f"{where} ({purpose.value}): {why or error}")
    evidence.read.append(Attestation(envelope.sha256, purpose, statement, predicate, trusted, where))


def _whose(signers: Sequence[str], purpose: Purpose, keys: AttestationKeys | None) -> str:
    """Say of known keys why they do not count; nothing of unknown ones."""
    for key_id in signers:
        purposes = keys.purposes_of(key_id) if keys is not None else frozenset()
        if purpose in purposes:
            return f"signed by {key_id[:_SHORT]}, whose time is over: have it attested again"
        if purposes:
            named = ", ".join(sorted(found.value for found in purposes))
            return f"signed by {key_id[:_SHORT]}, which may attest {named} only: do not install it"
    return ""


def _signature(evidence: Evidence, keys: AttestationKeys | None) -> Check:
    name = "signature"
    if keys is None:
        return wrong(name, ["no trusted keys to judge signatures by", *evidence.problems])
    if evidence.problems:
        return wrong(name, evidence.problems)
    if not evidence.read:
        return missing(name, "there is no attestation of the package: get the bundle from its source again")
    passed = f"; {evidence.unknown} of other types passed over" if evidence.unknown else ""
    return ok(name, f"{len(evidence.read)} attestations are signed by keys that may{passed}")


def _about(evidence: Evidence, purpose: Purpose, package: str) -> list[Attestation] | Check:
    """Return what can be built on, or the check that says why there is none."""
    found = evidence.about(purpose, package)
    if found:
        return found
    of_kind = evidence.of(purpose)
    name = purpose.value
    if not of_kind:
        return missing(name, f"no {name} is among the attestations: get the bundle from its source again")
    reasons = []
    for item in of_kind:
        if not item.statement.is_about(package):
            reasons.append(f"{item.where} {_other_subject(item, package)}")
        elif not item.trusted:
            reasons.append(f"{item.where} is not signed by a key that may attest it")
    return wrong(name, reasons)


def _other_subject(item: Attestation, package: str) -> str:
    predicate = item.predicate
    if isinstance(predicate, Provenance) and any(
        material.sha256 == package for material in predicate.materials
    ):
        return f"names {package[:_SHORT]} as a material only: it was built from that, and that was not built"
    subjects = ", ".join(subject.sha256[:_SHORT] for subject in item.statement.subjects[:4])
    return f"is about {subjects}, and not about {package[:_SHORT]}"


def _provenance(evidence: Evidence, package: str) -> Check:
    found = _about(evidence, Purpose.PROVENANCE, package)
    if isinstance(found, Check):
        return found
    built = [item.predicate for item in found if isinstance(item.predicate, Provenance)]
    newest = max(built, key=lambda provenance: provenance.finished)
    return ok(
        "provenance", f"built by {newest.builder} from {len(newest.materials)} materials, {newest.finished}"
    )


def _sbom(evidence: Evidence, package: str) -> Check:
    found = _about(evidence, Purpose.SBOM, package)
    if isinstance(found, Check):
        return found
    boms = [item.predicate for item in found if isinstance(item.predicate, Sbom)]
    listed = ", ".join(f"{bom.format} {bom.version} with {bom.components} components" for bom in boms)
    return ok("sbom", listed)


def _scan(evidence: Evidence, package: str) -> Check:
    found = _about(evidence, Purpose.SCAN, package)
    if isinstance(found, Check):
        return found
    boms = {item.sha256 for item in evidence.about(Purpose.SBOM, package)}
    scans = [item.predicate for item in found if isinstance(item.predicate, Scan)]
    fitting = [scan for scan in scans if scan.sbom in boms]
    if not fitting:
        named = scans[0].sbom[:_SHORT]
        return wrong("scan", f"it is of the SBOM {named}, which is not among the trusted attestations")
    newest = max(fitting, key=lambda scan: scan.scanned)
    counts = ", ".join(f"{number} {severity}" for severity, number in newest.counts.items())
    gaps = f"; not covered: {', '.join(newest.not_covered)}" if newest.not_covered else ""
    covered = f"{newest.covered} of {newest.components} components covered{gaps}"
    return ok("scan", f"{counts}; {covered}; {newest.scanned}")


def _verdict(evidence: Evidence, package: str, now: datetime) -> Check:
    found = _about(evidence, Purpose.VERDICT, package)
    if isinstance(found, Check):
        return found
    verdicts = [item.predicate for item in found if isinstance(item.predicate, Verdict)]
    newest = max(verdicts, key=lambda verdict: (verdict.verified, verdict.decision is Decision.FAIL))
    reasons = [*_against(newest, now), *_unfounded(evidence, package, newest)]
    if reasons:
        return wrong("verdict", reasons)
    used = "".join(f"; {item.vulnerability} allowed by {item.approver}" for item in newest.exceptions)
    return ok("verdict", f"{newest.decision.value} by {newest.policy}, until {newest.expires}{used}")


def _against(verdict: Verdict, now: datetime) -> Iterator[str]:
    if verdict.decision is Decision.FAIL:
        yield f"policy decided FAIL on {verdict.verified}: do not install it"
    if now >= verdict.expires:
        yield f"it ended at {verdict.expires}, and it is {now}: have the package judged again"
    if verdict.verified > now + CLOCK_TOLERANCE:
        yield f"it was made at {verdict.verified}, and it is {now}: set this machine's clock"


def _unfounded(evidence: Evidence, package: str, verdict: Verdict) -> Iterator[str]:
    for purpose in EVIDENCE:
        found = evidence.about(purpose, package)
        if purpose is Purpose.SCAN:
            found = _newest_scan(found)
        if {item.sha256 for item in found}.isdisjoint(verdict.inputs):
            newest = "newest " if purpose is Purpose.SCAN else ""
            yield f"it was not made from the {newest}{purpose.value} that is here: have it judged again"


def _newest_scan(found: list[Attestation]) -> list[Attestation]:
    """A package is judged by what is known last; an older scan may not know what the newest does."""
    scanned = [(item.predicate.scanned, item) for item in found if isinstance(item.predicate, Scan)]
    newest = max((moment for moment, _ in scanned), default=None)
    return [item for moment, item in scanned if moment == newest]
