"""The decision itself: what rules and exceptions make of a scan, until when it holds, and in which words.

Invariants:

* A decision that lets agents have a package ends with the first of its exceptions, and when the advisories
  are too old that it was scanned with; it never outlives the terms' ``verdict_life``.
* The same arguments give the same decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleetwright.verify.errors import Malformed
from fleetwright.verify.statements import Subject as Named

from controlplane.clock import duration_micros
from controlplane.packaging.judging.subjects import JudgingFailed, Scan, Subject, Terms
from controlplane.packaging.policy.document import PolicyError
from controlplane.packaging.policy.facts import AdvisoryFacts, Coverage, counts, policy_input
from controlplane.packaging.policy.rules import PolicyException
from controlplane.packaging.policy.verdict import (
    Judged,
    judge_package,
    reasons_by_rule,
    trace,
    used,
    verdict,
)
from controlplane.packaging.rules import Decision
from controlplane.packaging.store.pipelines import Counts
from controlplane.trust import statements

NEVER = 2**62
"""When what no time changes is judged again: only new knowledge changes it."""
SOONEST = 10 * 60 * 1_000_000
"""Microseconds that lie at least between two renewals of a verdict by time alone."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that nobody has committed yet. Instants are microseconds."""

    decision: Decision
    reasons: tuple[str, ...]
    counts: Counts
    lifted: Mapping[tuple[str, str], str]
    """By component and vulnerability: the exception by which it does not block."""
    time: int
    expires: int
    due: int
    payload: bytes
    """The statement of the verdict."""


def decide(
    terms: Terms, subject: Subject, scan: Scan, exceptions: Sequence[PolicyException], now: int
) -> Decided:
    """Return what becomes of a package. Takes CPU: run it in a thread. Raises ``JudgingFailed``."""
    judged = _judged(terms, subject, scan, exceptions, now)
    decision = Decision[judged.judgement.decision.value]
    expires = _end(terms, scan, judged, decision, now)
    found = counts(scan.findings)
    return Decided(
        decision=decision,
        reasons=tuple(reasons_by_rule(judged).values()),
        counts=(found["critical"], found["high"], found["medium"], found["low"], found["unknown"]),
        lifted=_lifted(judged),
        time=now,
        expires=expires,
        due=renewal(decision, now, expires),
        payload=_payload(terms, subject, scan, judged, expires),
    )


def renewal(decision: Decision, now: int, expires: int) -> int:
    """Return when a decision is looked at again if nothing happens before."""
    if not decision.releases:
        return NEVER
    return min(expires, now + max((expires - now) // 2, SOONEST))


def _judged(
    terms: Terms, subject: Subject, scan: Scan, exceptions: Sequence[PolicyException], now: int
) -> Judged:
    facts = scan.facts
    known = policy_input(
        subject.facts,
        subject.sha256,
        scan.findings,
        Coverage(subject.files, subject.claimed, facts.components, facts.not_covered),
        AdvisoryFacts(
            ", ".join(f"{name} {facts.imports[name]}" for name in sorted(facts.imports)),
            max(facts.age + now - facts.time, 0) // 1_000_000,
        ),
        subject.provenance,
    )
    try:
        return judge_package(terms.policy, known, exceptions, now)
    except PolicyError as error:
        raise JudgingFailed("POLICY_ERRED", str(error)) from None


def _end(terms: Terms, scan: Scan, judged: Judged, decision: Decision, now: int) -> int:
    longest = now + duration_micros(terms.verdict_life)
    if not decision.releases:
        return longest
    expires = min(longest, scan.facts.usable_until, *(one.expires for one in used(judged)))
    if expires <= now:
        raise JudgingFailed(
            "ADVISORIES_STALE",
            "the advisories that the package was scanned with are too old; import newer ones",
        )
    return expires


def _lifted(judged: Judged) -> dict[tuple[str, str], str]:
    return {
        (one.objection.about, one.objection.vulnerabilities[0]): one.exception_id
        for one in judged.judgement.rulings
        if one.exception_id and one.objection.about
    }


def _payload(terms: Terms, subject: Subject, scan: Scan, judged: Judged, expires: int) -> bytes:
    inputs = [*(subject.attestations[kind] for kind in sorted(subject.attestations)), scan.facts.attestation]
    try:
        said = verdict(judged, verifier=terms.verifier, resource=subject.purl, inputs=inputs, expires=expires)
        return statements.verdict([Named(subject.file_name, subject.sha256)], said, trace(judged))
    except (Malformed, PolicyError) as error:
        raise JudgingFailed("ATTESTATION", f"verdict: cannot be attested: {error}") from None
