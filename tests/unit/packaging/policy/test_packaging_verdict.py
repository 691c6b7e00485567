"""The verdict: a decision with its reasons and its trace, as the verifier of agents and auditors reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fleetwright.verify.statements import Subject, parse_statement
from fleetwright.verify.verdicts import Decision as Word
from fleetwright.verify.verdicts import Verdict

from controlplane.packaging.policy.cel import load_policy
from controlplane.packaging.policy.default import DEFAULT_POLICY
from controlplane.packaging.policy.document import PolicyError
from controlplane.packaging.policy.rules import Decision, PolicyException
from controlplane.packaging.policy.verdict import (
    Judged,
    Verifier,
    judge_package,
    reasons_by_rule,
    trace,
    used,
    verdict,
)
from controlplane.packaging.records import Finding, Severity
from controlplane.trust import statements
from tests.unit.packaging.policy.packages import SHA256, facts, finding, policy

NOW = 1_700_000_000_000_000
HOUR = 3_600_000_000
GOOD = PolicyException("e1", SHA256, "CVE-1", "alice", "bob", NOW + HOUR)
VERIFIER = Verifier("https://fleet.example.org/policy", "0.1.0")


def judged(*findings: Finding, exceptions: tuple[PolicyException, ...] = (), now: int = NOW) -> Judged:
    return judge_package(load_policy(DEFAULT_POLICY), facts(*findings), exceptions, now)


def payload(
    *findings: Finding,
    exceptions: tuple[PolicyException, ...] = (),
    now: int = NOW,
    expires: int = NOW + HOUR,
) -> bytes:
    made = judged(*findings, exceptions=exceptions, now=now)
    said = verdict(made, verifier=VERIFIER, resource="pkg:generic/x@1", inputs=["d" * 64], expires=expires)
    return statements.verdict([Subject("x", SHA256)], said, trace(made))


def predicate(*findings: Finding, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(payload(*findings, **more))["predicate"]
    return found


def test_what_is_written_is_what_a_verifier_reads() -> None:
    read = parse_statement(payload(finding(Severity.CRITICAL), exceptions=(GOOD,))).read()
    assert isinstance(read, Verdict)
    assert read.decision is Word.EXCEPTION
    assert [(one.name, one.vulnerability, one.approver) for one in read.exceptions] == [
        ("exceptions/e1", "CVE-1", "bob")
    ]
    assert read.inputs == ("d" * 64,)
    assert {rule.rule: rule.outcome for rule in read.rules}["no-critical"] == "FAIL"


def test_a_pass_has_all_that_a_verification_summary_needs() -> None:
    found = predicate()
    assert found["verificationResult"] == "PASSED"
    assert found["verifiedLevels"] == ["FLEETWRIGHT_POLICY_PASS"]
    assert found["timeVerified"] == "2023-11-14T22:13:20Z"
    assert found["policy"]["digest"] == {"sha256": load_policy(DEFAULT_POLICY).policy.sha256}
    assert found["inputAttestations"] == [{"digest": {"sha256": "d" * 64}}]
    assert found["resourceUri"] == "pkg:generic/x@1"
    assert found["verifier"] == {"id": VERIFIER.uri, "version": {"fleetwright": "0.1.0"}}


def test_a_failure_says_which_rule_objected_to_what() -> None:
    made = judged(finding(Severity.CRITICAL))
    assert made.judgement.decision is Decision.FAIL
    assert reasons_by_rule(made) == {
        "no-critical": "no-critical (FAIL): A critical vulnerability affects a component. "
        "CVE-1 in pkg:pypi/x@1"
    }
    assert trace(made)["objections"] == [
        {
            "rule": "no-critical",
            "outcome": "FAIL",
            "vulnerability": "CVE-1",
            "aliases": ["GHSA-CVE-1"],
            "component": "pkg:pypi/x@1",
            "liftedBy": "",
        }
    ]


def test_a_failure_stands_on_no_exception_although_one_lifts_a_part_of_it() -> None:
    both = (finding(Severity.CRITICAL), finding(Severity.HIGH, "CVE-2"))
    assert used(judged(*both, exceptions=(GOOD,))) == ()
    assert predicate(*both, exceptions=(GOOD,))["verificationResult"] == "FAILED"


def test_an_exception_passes_and_is_told_apart_from_a_pass() -> None:
    found = predicate(finding(Severity.CRITICAL), exceptions=(GOOD,))
    assert found["verificationResult"] == "PASSED"
    assert found["verifiedLevels"] == ["FLEETWRIGHT_POLICY_EXCEPTION"]
    assert found["fleetwright_trace"]["objections"][0]["liftedBy"] == "e1"
    assert found["fleetwright_trace"]["exceptions"][0]["counts"] is True


def test_an_exception_that_does_not_count_is_in_the_trace_with_its_reason() -> None:
    found = predicate(finding(Severity.CRITICAL), exceptions=(GOOD,), now=NOW + HOUR, expires=NOW + 2 * HOUR)
    assert found["verificationResult"] == "FAILED"
    assert found["fleetwright_trace"]["exceptions"][0]["refusal"] == "EXPIRED"
    assert found["fleetwright_trace"]["exceptions"][0]["reason"] == "it has expired"


def test_the_trace_has_every_rule_with_what_it_read() -> None:
    rules = {rule["name"]: rule for rule in trace(judged(finding(Severity.HIGH)))["rules"]}
    assert rules["no-critical"]["outcome"] == "PASS"
    assert rules["no-high"]["matched"][0]["read"]["finding.severity"] == "high"
    assert rules["covered"]["inputs"] == {"coverage.uncovered": []}


def test_a_verdict_is_the_same_bytes_each_time() -> None:
    assert payload(finding(), exceptions=(GOOD,)) == payload(finding(), exceptions=(GOOD,))


def test_no_level_of_slsa_is_claimed() -> None:
    for found in (predicate(), predicate(finding()), predicate(finding(), exceptions=(GOOD,))):
        assert not any(level.startswith("SLSA_") for level in found["verifiedLevels"])


def test_a_thousand_findings_make_reasons_that_people_can_read() -> None:
    many = [finding(Severity.HIGH, f"CVE-{number}") for number in range(1_000)]
    (reason,) = reasons_by_rule(judged(*many)).values()
    assert len(reason) < 4_000
    assert "and 980 more" in reason


def test_a_policy_that_errs_gives_no_verdict() -> None:
    with pytest.raises(PolicyError):
        judge_package(policy("counts.high / counts.critical > 0"), facts(), (), NOW)


def test_a_verdict_without_its_verifier_is_none() -> None:
    with pytest.raises(PolicyError, match="verifier"):
        verdict(judged(), verifier=Verifier("", "1"), resource="x", inputs=["d" * 64], expires=NOW)
