"""A decision with its whole trace, as the predicate of a verification summary (VSA v1).

https://slsa.dev/spec/v1.0/verification_summary. What SLSA has no word for stands under a field whose name
is a URI, as its rules for extensions want it. PASSED is said of PASS and of EXCEPTION, and
``verifiedLevels`` says of which; no SLSA level is claimed. Statement and signature are the business of
``controlplane/trust``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from controlplane.packaging.policy.cel import CompiledPolicy, Evaluation, RuleTrace, evaluate
from controlplane.packaging.policy.document import PolicyError
from controlplane.packaging.policy.rules import (
    Decision,
    Judgement,
    PolicyException,
    Ruling,
    Weighing,
    judge,
)

PREDICATE_TYPE: Final = "https://slsa.dev/verification_summary/v1"
EXTENSION: Final = "https://example.org/fleetwright/verdict/v1"
"""The field of the predicate that holds our decision and its trace."""
_LEVELS: Final = {
    Decision.PASS: "FLEETWRIGHT_POLICY_PASS",
    Decision.EXCEPTION: "FLEETWRIGHT_POLICY_EXCEPTION",
    Decision.FAIL: "FAILED",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class InputAttestation:
    """An attestation that the decision stands on: all of them must be named."""

    uri: str
    sha256: str
    """Of the envelope's bytes."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A decision with all that it follows from."""

    policy: CompiledPolicy
    facts: Mapping[str, Any]
    evaluation: Evaluation
    judgement: Judgement
    time: int
    """Microseconds since 1970, UTC: when exceptions were looked at."""


def judge_package(
    policy: CompiledPolicy, facts: Mapping[str, Any], exceptions: Sequence[PolicyException], now: int
) -> Judged:
    """Return the decision on the package that ``facts``, made by ``policy_input``, are about.

    The same call again, with what is known by then, is how a package is judged again. Raises ``PolicyError``.
    """
    evaluation = evaluate(policy, facts)
    judgement = judge(str(facts["package"]["sha256"]), evaluation.objections, exceptions, now)
    return Judged(policy, facts, evaluation, judgement, now)


def predicate(
    judged: Judged,
    *,
    verifier_id: str,
    verifier_version: str,
    resource_uri: str,
    inputs: Sequence[InputAttestation],
) -> dict[str, Any]:
    """Return the predicate as plain JSON. ``verifier_id`` is a URI, ``resource_uri`` names the package (a
    purl).

    Raises ``PolicyError`` where one of them is empty.
    """
    for name, value in (("verifier_id", verifier_id), ("resource_uri", resource_uri)):
        if not value:
            raise PolicyError("", f"{name} is empty, and a verdict without it says nothing")
    policy, decision = judged.policy.policy, judged.judgement.decision
    return {
        "verifier": {"id": verifier_id, "version": {"fleetwright": verifier_version}},
        "timeVerified": _timestamp(judged.time),
        "resourceUri": resource_uri,
        "policy": {
            "uri": f"https://example.org/fleetwright/policies/{policy.name}/{policy.version}",
            "digest": {"sha256": policy.sha256},
        },
        "inputAttestations": [{"uri": one.uri, "digest": {"sha256": one.sha256}} for one in inputs],
        "verificationResult": "FAILED" if decision is Decision.FAIL else "PASSED",
        "verifiedLevels": [_LEVELS[decision]],
        EXTENSION: _trace(judged),
    }


def _trace(judged: Judged) -> dict[str, Any]:
    judgement = judged.judgement
    return {
        "decision": judgement.decision.value,
        "beforeExceptions": judgement.outcome.value,
        "counts": dict(judged.facts["counts"]),
        "advisories": dict(judged.facts["advisories"]),
        "uncovered": list(judged.facts["coverage"]["uncovered"]),
        "rules": [_rule(one) for one in judged.evaluation.traces],
        "objections": [_ruling(one) for one in judgement.rulings],
        "exceptions": [_weighing(one) for one in judgement.weighings],
    }


def _rule(trace: RuleTrace) -> dict[str, Any]:
    return {
        "name": trace.rule.name,
        "about": trace.rule.about,
        "when": trace.rule.when,
        "outcome": trace.outcome.value,
        "excusable": trace.rule.excusable,
        "asked": trace.asked,
        "objections": trace.objections,
        "inputs": dict(trace.inputs),
        "matched": [dict(one) for one in trace.matched],
    }


def _ruling(ruling: Ruling) -> dict[str, Any]:
    objection = ruling.objection
    return {
        "rule": objection.rule,
        "outcome": objection.outcome.value,
        "vulnerability": objection.vulnerabilities[0],
        "aliases": list(objection.vulnerabilities[1:]),
        "component": objection.about,
        "liftedBy": ruling.exception_id,
    }


def _weighing(weighing: Weighing) -> dict[str, Any]:
    exception, refusal = weighing.exception, weighing.refusal
    return {
        "id": exception.exception_id,
        "package": exception.package_sha256,
        "vulnerability": exception.vulnerability,
        "requester": exception.requester,
        "approver": exception.approver,
        "expires": _timestamp(exception.expires),
        "counts": refusal is None,
        "refusal": "" if refusal is None else refusal.name,
        "reason": "" if refusal is None else refusal.value,
    }


def _timestamp(instant: int) -> str:
    try:
        return (
            (_EPOCH + timedelta(microseconds=instant))
            .isoformat(timespec="microseconds")
            .replace("+00:00", "Z")
        )
    except OverflowError as error:
        raise PolicyError("", f"{instant} microseconds is no time that can be written") from error
