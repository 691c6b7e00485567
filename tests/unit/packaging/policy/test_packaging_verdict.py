"""The verdict: a decision with its trace, in the words of a verification summary."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.packaging.policy.cel import load_policy
from controlplane.packaging.policy.default import DEFAULT_POLICY
from controlplane.packaging.policy.document import PolicyError
from controlplane.packaging.policy.rules import Decision, PolicyException
from controlplane.packaging.policy.verdict import EXTENSION, InputAttestation, judge_package, predicate
from controlplane.packaging.records import Finding, Severity
from tests.unit.packaging.policy.packages import SHA256, facts, finding, policy

NOW = 1_700_000_000_000_000
HOUR = 3_600_000_000
GOOD = PolicyException("e1", SHA256, "CVE-1", "alice", "bob", NOW + HOUR)


def verdict(
    *findings: Finding, exceptions: tuple[PolicyException, ...] = (), now: int = NOW
) -> dict[str, Any]:
    judged = judge_package(load_policy(DEFAULT_POLICY), facts(*findings), exceptions, now)
    return predicate(
        judged,
        verifier_id="https://fleet.example.org/policy",
        verifier_version="0.1.0",
        resource_uri="pkg:generic/x@1",
        inputs=[InputAttestation("https://fleet.example.org/attestations/1", "d" * 64)],
    )


def test_a_pass_has_all_that_a_verification_summary_needs() -> None:
    found = verdict()
    assert found["verificationResult"] == "PASSED"
    assert found["verifiedLevels"] == ["FLEETWRIGHT_POLICY_PASS"]
    assert found["timeVerified"] == "2023-11-14T22:13:20.000000Z"
    assert found["policy"]["digest"] == {"sha256": load_policy(DEFAULT_POLICY).policy.sha256}
    assert found["inputAttestations"] == [
        {"uri": "https://fleet.example.org/attestations/1", "digest": {"sha256": "d" * 64}}
    ]
    assert found["resourceUri"] == "pkg:generic/x@1"
    assert found["verifier"]["id"] == "https://fleet.example.org/policy"


def test_a_failure_says_which_rule_objected_to_what() -> None:
    found = verdict(finding(Severity.CRITICAL))
    assert found["verificationResult"] == "FAILED"
    assert found["verifiedLevels"] == ["FAILED"]
    assert found[EXTENSION]["decision"] == "FAIL"
    assert found[EXTENSION]["objections"] == [
        {
            "rule": "no-critical",
            "outcome": "FAIL",
            "vulnerability": "CVE-1",
            "aliases": ["GHSA-CVE-1"],
            "component": "pkg:pypi/x@1",
            "liftedBy": "",
        }
    ]


def test_an_exception_passes_and_is_told_apart_from_a_pass() -> None:
    found = verdict(finding(Severity.CRITICAL), exceptions=(GOOD,))
    assert found["verificationResult"] == "PASSED"
    assert found["verifiedLevels"] == ["FLEETWRIGHT_POLICY_EXCEPTION"]
    assert found[EXTENSION]["objections"][0]["liftedBy"] == "e1"
    assert found[EXTENSION]["exceptions"][0]["counts"] is True


def test_an_exception_that_does_not_count_is_in_the_trace_with_its_reason() -> None:
    found = verdict(finding(Severity.CRITICAL), exceptions=(GOOD,), now=NOW + HOUR)
    assert found["verificationResult"] == "FAILED"
    assert found[EXTENSION]["exceptions"][0]["refusal"] == "EXPIRED"
    assert found[EXTENSION]["exceptions"][0]["reason"] == "it has expired"


def test_the_trace_has_every_rule_with_what_it_read() -> None:
    rules = {rule["name"]: rule for rule in verdict(finding(Severity.HIGH))[EXTENSION]["rules"]}
    assert rules["no-critical"]["outcome"] == "PASS"
    assert rules["no-high"]["matched"][0]["read"]["finding.severity"] == "high"
    assert rules["covered"]["inputs"] == {"coverage.uncovered": []}


def test_a_verdict_is_plain_json_and_the_same_each_time() -> None:
    first = json.dumps(verdict(finding(), exceptions=(GOOD,)), allow_nan=False, sort_keys=True)
    assert json.dumps(verdict(finding(), exceptions=(GOOD,)), sort_keys=True) == first


def test_no_level_of_slsa_is_claimed() -> None:
    for found in (verdict(), verdict(finding()), verdict(finding(), exceptions=(GOOD,))):
        assert not any(level.startswith("SLSA_") for level in found["verifiedLevels"])


def test_a_policy_that_errs_gives_no_verdict() -> None:
    with pytest.raises(PolicyError):
        judge_package(policy("counts.high / counts.critical > 0"), facts(), (), NOW)


def test_a_verdict_without_its_verifier_is_none() -> None:
    judged = judge_package(load_policy(DEFAULT_POLICY), facts(), (), NOW)
    assert judged.judgement.decision is Decision.PASS
    with pytest.raises(PolicyError, match="verifier_id"):
        predicate(judged, verifier_id="", verifier_version="1", resource_uri="x", inputs=())
