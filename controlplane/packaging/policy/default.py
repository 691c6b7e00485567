"""The policy that holds where nobody has written another."""

from __future__ import annotations

from typing import Final

DEFAULT_POLICY: Final = b"""\
schema: fleetwright.policy/v1
name: default
version: "1"
description: Critical and high vulnerabilities block; what nobody knows needs a decision.
rules:
  - name: no-critical
    about: finding
    when: finding.in_force && finding.severity == "critical"
    outcome: FAIL
    description: A critical vulnerability affects a component.
  - name: no-high
    about: finding
    when: finding.in_force && finding.severity == "high"
    outcome: FAIL
    description: A high vulnerability affects a component.
  - name: known-severity
    about: finding
    when: finding.in_force && !(finding.severity in ["critical", "high", "medium", "low"])
    outcome: UNDECIDED
    description: A vulnerability affects a component, and no source says how bad it is.
  - name: covered
    about: package
    when: size(coverage.uncovered) > 0
    outcome: UNDECIDED
    description: There are components that no advisories are known for; not covered is not clean.
  - name: identified
    about: package
    when: coverage.components == 0
    outcome: UNDECIDED
    description: No component was found in it, so that nothing could be looked up; that is not clean either.
"""
