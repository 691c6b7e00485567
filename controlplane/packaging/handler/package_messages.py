"""The contract's form of packages, findings, exceptions and deployments."""

from __future__ import annotations

from fleetwright.v1 import packaging_service_pb2 as pb2
from fleetwright.v1 import work_pb2

from controlplane import redaction
from controlplane.packaging.handler.pipeline_messages import counts_message
from controlplane.packaging.packages import PackageView
from controlplane.packaging.store.deployments import DeploymentRecord
from controlplane.packaging.store.exceptions import ExceptionRecord
from controlplane.packaging.store.packages import FindingRecord
from controlplane.transport.messages import timestamp


def package_message(view: PackageView) -> pb2.Package:
    """Return the contract's form of a package."""
    package = view.package
    return pb2.Package(
        name=f"packages/{package.sha256}",
        package_name=package.package_name,
        version=package.version,
        artefact_type=package.artefact_type,
        target_platform=package.target_platform,
        size_bytes=package.size,
        pipeline=f"pipelines/{package.pipeline_id}",
        channel=package.channel,
        target_path=package.target_path,
        decision=pb2.PolicyDecision.ValueType(int(package.decision)),
        decision_time=timestamp(package.decision_time),
        decision_reasons=package.decision_reasons,
        vulnerabilities=counts_message(package.counts),
        component_count=package.component_count,
        file_count=package.file_count,
        claimed_file_count=package.claimed_file_count,
        attestations=view.attestations,
        create_time=timestamp(package.create_time),
        installed_count=view.installed_count,
        not_covered=package.scan.get("not_covered", ()),
    )


def finding_message(found: FindingRecord) -> pb2.Finding:
    """Return the contract's form of a finding."""
    finding = found.finding
    return pb2.Finding(
        vulnerability=finding.vulnerability,
        aliases=finding.aliases,
        component=finding.component,
        severity=finding.severity.value,
        severity_source=finding.severity_source,
        score=finding.score,
        matched=finding.matched,
        fixed_version=finding.fixed,
        found_by=finding.found_by,
        state=finding.state,
        justification=finding.justification,
        exception=f"exceptions/{found.exception_id}" if found.exception_id else "",
    )


def exception_message(exception: ExceptionRecord) -> pb2.PolicyException:
    """Return the contract's form of an exception."""
    return pb2.PolicyException(
        name=f"exceptions/{exception.exception_id}",
        package=f"packages/{exception.package}",
        vulnerability=exception.vulnerability,
        justification=redaction.text(exception.justification),
        requester=exception.requester,
        approver=exception.approver,
        expire_time=timestamp(exception.expire_time),
        create_time=timestamp(exception.create_time),
        approve_time=timestamp(exception.approve_time),
        revoke_time=timestamp(exception.revoke_time),
    )


def deployment_message(deployment: DeploymentRecord) -> pb2.Deployment:
    """Return the contract's form of a deployment."""
    standing = deployment.standing
    return pb2.Deployment(
        name=f"deployments/{deployment.task_id}",
        agent=f"agents/{deployment.agent_id}",
        package=f"packages/{deployment.package}",
        package_name=deployment.package_name,
        version=deployment.version,
        task=f"tasks/{deployment.task_id}",
        status=work_pb2.DeploymentStatus.ValueType(int(standing.status)),
        status_time=timestamp(standing.time),
        reason=redaction.text(standing.reason),
        reason_code=standing.reason_code,
        create_time=timestamp(deployment.create_time),
    )
