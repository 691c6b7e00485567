"""A decision as a verification summary says it: the verdict, its reasons in words, and its whole trace.

``fleetwright.verify.verdicts`` has the shape that agents and auditors read, and ``controlplane/trust`` writes
it (VSA v1, https://slsa.dev/spec/v1.0/verification_summary). Here is what goes into it. The trace stands
beside, as SLSA's rules for extensions want it; no SLSA level is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetwright.verify.documents import instant_text
from fleetwright.verify.verdicts import Decision as Word
from fleetwright.verify.verdicts import ExceptionUsed, RuleOutcome, Verdict

from controlplane.clock import from_micros
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

POLICIES: Final = "https://example.org/fleetwright/policies"
"""Below which every policy has its name."""
MOST_NAMED: Final = 20
"""Vulnerabilities that the reason of one rule names; the findings have all of them."""
MOST_MATCHED: Final = 1_000
"""Findings of one rule that the trace has in full."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A decision with all that it follows from."""

    policy: CompiledPolicy
    facts: Mapping[str, Any]
    evaluation: Evaluation
    judgement: Judgement
    time: int
    """Microseconds since 1970, UTC: when exceptions were looked at."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """Who judges: a URI, and the version of the program."""

    uri: str
    version: str


def judge_package(
    policy: CompiledPolicy, facts: Mapping[str, Any], exceptions: Sequence[PolicyException], now: int
) -> Judged:
    """Return the decision on the package that ``facts``, made by ``policy_input``, are about.

    The same call again, with what is known by then, is how a package is judged again. Raises ``PolicyError``.
    """
    evaluation = evaluate(policy, facts)
    judgement = judge(str(facts["package"]["sha256"]), evaluation.objections, exceptions, now)
    return Judged(policy, facts, evaluation, judgement, now)


def used(judged: Judged) -> tuple[PolicyException, ...]:
    """Return the exceptions that the decision stands on: none where it is not EXCEPTION."""
    if judged.judgement.decision is not Decision.EXCEPTION:
        return ()
    lifting = {ruling.exception_id for ruling in judged.judgement.rulings}
    known = [weighing.exception for weighing in judged.judgement.weighings]
    return tuple(one for one in known if one.exception_id in lifting)


def verdict(
    judged: Judged, *, verifier: Verifier, resource: str, inputs: Sequence[str], expires: int
) -> Verdict:
    """Return what is signed. ``resource`` is a URI of the package; ``inputs`` are digests of the envelopes.

    ``expires`` (microseconds) is no later than the end of an exception that was used. Raises ``PolicyError``
    where something is empty without which a verdict says nothing.
    """
    for name, value in (("verifier", verifier.uri), ("resource", resource), ("inputs", inputs)):
        if not value:
            raise PolicyError("", f"{name} is empty, and a verdict without it says nothing")
    policy = judged.policy.policy
    why = reasons_by_rule(judged)
    return Verdict(
        decision=Word[judged.judgement.decision.value],
        verifier=verifier.uri,
        verifier_version=verifier.version,
        verified=from_micros(judged.time),
        expires=from_micros(expires),
        resource=resource,
        policy=f"{POLICIES}/{policy.name}/{policy.version}",
        policy_sha256=policy.sha256,
        inputs=tuple(inputs),
        rules=tuple(
            RuleOutcome(one.rule.name, one.outcome.value, why.get(one.rule.name, ""))
            for one in judged.evaluation.traces
        ),
        exceptions=tuple(
            ExceptionUsed(
                f"exceptions/{one.exception_id}", one.vulnerability, one.approver, from_micros(one.expires)
            )
            for one in used(judged)
        ),
    )


def reasons_by_rule(judged: Judged) -> dict[str, str]:
    """Return, for each rule that did not pass, why, in words for people."""
    rulings: dict[str, list[Ruling]] = {}
    for ruling in judged.judgement.rulings:
        rulings.setdefault(ruling.objection.rule, []).append(ruling)
    described = {one.rule.name: one.rule.description for one in judged.policy.rules}
    return {
        rule: f"{rule} ({against[0].objection.outcome.value}): {described[rule] or 'it objects'}"
        f"{_named(against)}"
        for rule, against in rulings.items()
    }


def _named(against: Sequence[Ruling]) -> str:
    said = [_said(ruling) for ruling in against if ruling.objection.about or ruling.exception_id]
    if not said:
        return ""
    more = f"; and {len(said) - MOST_NAMED} more" if len(said) > MOST_NAMED else ""
    return f" {'; '.join(said[:MOST_NAMED])}{more}"[:3_500]


def _said(ruling: Ruling) -> str:
    objection = ruling.objection
    where = f" in {objection.about}" if objection.about else ""
    lifted = f", lifted by exceptions/{ruling.exception_id}" if ruling.exception_id else ""
    return f"{objection.vulnerabilities[0]}{where}{lifted}"


def trace(judged: Judged) -> dict[str, Any]:
    """Return how the decision came about, as plain JSON."""
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


def _rule(one: RuleTrace) -> dict[str, Any]:
    return {
        "name": one.rule.name,
        "about": one.rule.about,
        "when": one.rule.when,
        "outcome": one.outcome.value,
        "excusable": one.rule.excusable,
        "asked": one.asked,
        "objections": one.objections,
        "inputs": dict(one.inputs),
        "matched": [dict(match) for match in one.matched[:MOST_MATCHED]],
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
        "expires": instant_text(from_micros(exception.expires)),
        "counts": refusal is None,
        "refusal": "" if refusal is None else refusal.name,
        "reason": "" if refusal is None else refusal.value,
    }
