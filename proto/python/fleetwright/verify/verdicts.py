"""The verdict of policy: a verification summary of SLSA (VSA v1), with what Fleetwright adds to it.

SLSA has two results. An exception lets a package pass that the rules alone would have blocked, so it is
PASSED too, under another level; the fields that begin with ``fleetwright_`` (SLSA's way to add some) say the
rest: the decision, until when it holds, which rules led to it, and which exceptions were used.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from fleetwright.verify.documents import JsonObject

MOST_INPUTS: Final = 64
MOST_RULES: Final = 10_000


class Decision(Enum):
    """What policy decided."""

    PASS = "PASS"  # noqa: S105 - a decision, and no password
    EXCEPTION = "EXCEPTION"
    FAIL = "FAIL"


RESULTS: Final = {Decision.PASS: "PASSED", Decision.EXCEPTION: "PASSED", Decision.FAIL: "FAILED"}
LEVELS: Final = {
    Decision.PASS: ("FLEETWRIGHT_POLICY_PASS",),
    Decision.EXCEPTION: ("FLEETWRIGHT_POLICY_EXCEPTION",),
    Decision.FAIL: (),
}


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """What one rule of the policy came to."""

    rule: str
    outcome: str
    """In the policy's own words, for example "allow", "block", "undecided"."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ExceptionUsed:
    """An exception that let a vulnerability pass."""

    name: str
    vulnerability: str
    approver: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What policy decided of a package, by what, and until when."""

    decision: Decision
    verifier: str
    verifier_version: str
    verified: datetime
    expires: datetime
    """From then on the package must be judged again."""
    resource: str
    """URI of the package, for example a purl."""
    policy: str
    """URI of the policy."""
    policy_sha256: str
    inputs: tuple[str, ...]
    """SHA-256 of the envelopes that were judged."""
    rules: tuple[RuleOutcome, ...] = ()
    exceptions: tuple[ExceptionUsed, ...] = ()


def read_verdict(predicate: JsonObject) -> Verdict:
    """Read a predicate. Raises ``Malformed``, also where its parts say different things."""
    decision = _decision(predicate)
    verifier, policy = predicate.child("verifier"), predicate.child("policy")
    version = verifier.child("version").text("fleetwright", default="") if "version" in verifier else ""
    verdict = Verdict(
        decision=decision,
        verifier=verifier.text("id"),
        verifier_version=version,
        verified=predicate.instant("timeVerified"),
        expires=predicate.instant("fleetwright_expires"),
        resource=predicate.text("resourceUri"),
        policy=policy.text("uri"),
        policy_sha256=policy.sha256("digest"),
        inputs=tuple(item.sha256("digest") for item in predicate.children("inputAttestations", MOST_INPUTS)),
        rules=tuple(
            RuleOutcome(item.text("rule"), item.text("outcome"), item.text("reason", default=""))
            for item in predicate.children("fleetwright_rules", MOST_RULES)
        ),
        exceptions=tuple(
            _exception(item) for item in predicate.children("fleetwright_exceptions", MOST_RULES)
        ),
    )
    if (decision is Decision.EXCEPTION) != bool(verdict.exceptions):
        raise predicate.wrong("fleetwright_exceptions", f"{len(verdict.exceptions)} for a {decision.value}")
    if any(used.expires < verdict.expires for used in verdict.exceptions):
        raise predicate.wrong("fleetwright_expires", "later than the end of an exception that it stands on")
    return verdict


def _decision(predicate: JsonObject) -> Decision:
    word = predicate.text("fleetwright_decision", longest=32)
    if word not in Decision.__members__:
        raise predicate.wrong("fleetwright_decision", f"{word!r}, where PASS, EXCEPTION or FAIL is expected")
    decision = Decision[word]
    result = predicate.text("verificationResult", longest=32)
    if result != RESULTS[decision]:
        raise predicate.wrong("verificationResult", f"{result!r}, where the decision is {word}")
    if tuple(predicate.texts("verifiedLevels", MOST_INPUTS)) != LEVELS[decision]:
        raise predicate.wrong("verifiedLevels", f"not the levels of a {word}")
    return decision


def _exception(item: JsonObject) -> ExceptionUsed:
    return ExceptionUsed(
        item.text("name"), item.text("vulnerability"), item.text("approver"), item.instant("expires")
    )
