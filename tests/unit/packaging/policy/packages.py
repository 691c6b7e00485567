"""Inputs and policies for tests."""

from __future__ import annotations

import json
from typing import Any

from controlplane.packaging.policy.cel import CompiledPolicy, load_policy
from controlplane.packaging.policy.facts import AdvisoryFacts, Coverage, ProvenanceFacts, policy_input
from controlplane.packaging.records import ArtefactFacts, ArtefactType, Finding, Severity

SHA256 = "a" * 64


def finding(severity: Severity = Severity.HIGH, vulnerability: str = "CVE-1", **changes: Any) -> Finding:
    parts: dict[str, Any] = {
        "vulnerability": vulnerability,
        "aliases": (vulnerability, f"GHSA-{vulnerability}"),
        "component": "pkg:pypi/x@1",
        "severity": severity,
        "severity_source": "CVSS:3.1",
        "score": 7.5,
        "matched": "introduced 0",
        "fixed": "2",
        "found_by": ("fleetwright",),
    }
    return Finding(**{**parts, **changes})


def facts(*findings: Finding, uncovered: tuple[str, ...] = ()) -> dict[str, Any]:
    return policy_input(
        ArtefactFacts(ArtefactType.WHEEL, "x", "1"),
        SHA256,
        findings,
        Coverage(10, 9, 2, uncovered),
        AdvisoryFacts("7", 3_600),
        ProvenanceFacts("https://builder.example.org", "b1", signature="NOT_APPLICABLE"),
    )


def policy(when: str, about: str = "package", outcome: str = "FAIL") -> CompiledPolicy:
    rule = {"name": "the-rule", "about": about, "outcome": outcome, "when": when}
    document = {"schema": "fleetwright.policy/v1", "name": "test", "version": "1", "rules": [rule]}
    return load_policy(json.dumps(document).encode())
