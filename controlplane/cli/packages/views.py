"""Packages, findings, deployments and exceptions as people read them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fleetwright.v1.packaging_service_pb2 import Finding, Package, PolicyException

from controlplane.cli.output import Column
from controlplane.cli.packages.words import decision_name, status_name, style, vulnerabilities_words
from controlplane.cli.values import age, instant, shown_time


def columns(now: datetime) -> list[Column[Any]]:
    """Return the columns of a list of packages."""
    return [
        Column("PACKAGE", package_words),
        Column("PLATFORM", lambda package: package.target_platform),
        Column("CHANNEL", lambda package: package.channel),
        Column("DECISION", lambda package: decision_name(package.decision), style=style),
        Column("VULNERABILITIES", vulnerabilities_words),
        Column("INSTALLED", lambda package: f"{package.installed_count:,}"),
        Column("AGE", lambda package: age(package, "create_time", now)),
        Column("TYPE", lambda package: package.artefact_type, wide=True),
        Column("SIZE", lambda package: shown_size(package.size_bytes), wide=True),
        Column("COMPONENTS", lambda package: f"{package.component_count:,}", wide=True),
        Column("NAME", lambda package: package.name, wide=True),
    ]


def details(package: Package, now: datetime) -> list[Column[Any]]:
    """Return what ``packages show`` prints of one package, a line each, and one for each reason."""
    return [
        Column("Name", lambda package: package.name),
        Column("Package", package_words),
        Column("Decision", lambda package: decision_name(package.decision), style=style),
        *(_line("Because", reason) for reason in package.decision_reasons),
        Column("Decided", lambda package: _decided(package, now)),
        Column("Channel", lambda package: package.channel or "in none: no agent can have it"),
        Column("Target", lambda package: package.target_path),
        Column("Vulnerabilities", vulnerabilities_words),
        Column("Components", lambda package: f"{package.component_count:,}"),
        Column("Files", coverage_words),
        Column("Type", lambda package: package.artefact_type),
        Column("Platform", lambda package: package.target_platform),
        Column("Size", lambda package: shown_size(package.size_bytes)),
        Column("Installed", lambda package: f"on {package.installed_count:,} agents"),
        Column("Attestations", lambda package: ", ".join(sorted(package.attestations))),
        Column("Pipeline", lambda package: package.pipeline),
        Column("Created", lambda package: shown_time(package, "create_time")),
    ]


def finding_columns() -> list[Column[Any]]:
    """Return the columns of a list of findings."""
    return [
        Column("VULNERABILITY", lambda finding: finding.vulnerability),
        Column("SEVERITY", lambda finding: finding.severity, style=style),
        Column("COMPONENT", lambda finding: finding.component),
        Column("FIXED IN", lambda finding: finding.fixed_version),
        Column("STATE", state_words),
        Column("SCORE", _score, wide=True),
        Column("SEVERITY BY", lambda finding: finding.severity_source, wide=True),
        Column("FOUND BY", lambda finding: ", ".join(finding.found_by), wide=True),
        Column("BECAUSE", lambda finding: finding.matched, wide=True),
        Column("ALIASES", _aliases, wide=True),
    ]


def deployment_columns(now: datetime) -> list[Column[Any]]:
    """Return the columns of a list of deployments."""
    return [
        Column("AGENT", lambda deployment: deployment.agent.removeprefix("agents/")),
        Column("PACKAGE", package_words),
        Column("STATUS", lambda deployment: status_name(deployment.status), style=style),
        Column("SINCE", lambda deployment: age(deployment, "status_time", now)),
        Column("REASON", _deployment_reason),
        Column("TASK", lambda deployment: deployment.task, wide=True),
        Column("DIGEST", lambda deployment: deployment.package, wide=True),
        Column("NAME", lambda deployment: deployment.name, wide=True),
    ]


def exception_columns(now: datetime) -> list[Column[Any]]:
    """Return the columns of a list of exceptions."""
    return [
        Column("NAME", lambda exception: exception.name),
        Column("VULNERABILITY", lambda exception: exception.vulnerability),
        Column("STATE", lambda exception: exception_state(exception, now), style=style),
        Column("ENDS", lambda exception: shown_time(exception, "expire_time")),
        Column("REQUESTER", lambda exception: _who(exception.requester)),
        Column("APPROVER", lambda exception: _who(exception.approver)),
        Column("REASON", lambda exception: exception.justification),
        Column("PACKAGE", lambda exception: exception.package, wide=True),
        Column("AGE", lambda exception: age(exception, "create_time", now), wide=True),
    ]


def exception_details(now: datetime) -> list[Column[Any]]:
    """Return what is printed of one exception, a line each."""
    return [
        Column("Name", lambda exception: exception.name),
        Column("State", lambda exception: exception_state(exception, now), style=style),
        Column("Package", lambda exception: exception.package),
        Column("Vulnerability", lambda exception: exception.vulnerability),
        Column("Reason", lambda exception: exception.justification),
        Column("Requester", lambda exception: exception.requester),
        Column("Approver", lambda exception: exception.approver),
        Column("Ends", lambda exception: shown_time(exception, "expire_time")),
        Column("Revoked", lambda exception: shown_time(exception, "revoke_time")),
    ]


def _line(title: str, text: str) -> Column[Any]:
    return Column(title, lambda _: text)


def package_words(package: Any) -> str:
    """Return ``NAME@VERSION`` of a package or a deployment, as commands take it."""
    return f"{package.package_name}@{package.version}" if package.version else str(package.package_name)


def coverage_words(package: Package) -> str:
    """Return how many of the files a component claims."""
    if not package.file_count:
        return ""
    share = 100 * package.claimed_file_count // package.file_count
    return f"{package.claimed_file_count:,} of {package.file_count:,} are of a known component ({share} %)"


def state_words(finding: Finding) -> str:
    """Return whether a finding counts, and why not."""
    if finding.exception:
        return f"{finding.state}, {finding.exception}"
    return f"{finding.state}: {finding.justification}" if finding.justification else str(finding.state)


def exception_state(exception: PolicyException, now: datetime) -> str:
    """Return whether an exception counts: ``WAITING``, ``APPROVED``, ``EXPIRED`` or ``REVOKED``."""
    if exception.HasField("revoke_time"):
        return "REVOKED"
    if instant(exception.expire_time) <= now:
        return "EXPIRED"
    return "APPROVED" if exception.approver else "WAITING"


def shown_size(count: int) -> str:
    """Return a number of bytes as people say it."""
    size, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count:,} bytes" if unit == "bytes" else f"{size:.1f} {unit}"


def _decided(package: Package, now: datetime) -> str:
    if not package.HasField("decision_time"):
        return ""
    return f"{shown_time(package, 'decision_time')} ({age(package, 'decision_time', now)} ago)"


def _score(finding: Finding) -> str:
    return f"{finding.score:.1f}" if finding.HasField("score") else ""


def _aliases(finding: Finding) -> str:
    return ", ".join(one for one in finding.aliases if one != finding.vulnerability)


def _deployment_reason(deployment: Any) -> str:
    return ": ".join(filter(None, (deployment.reason_code, deployment.reason)))


def _who(spiffe_id: str) -> str:
    return spiffe_id.rpartition("/")[2]
