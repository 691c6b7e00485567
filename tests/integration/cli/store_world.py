"""A scripted factory with a package that is released and one that is not any more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fleetwright.v1 import packaging_service_pb2 as pb

from tests.integration.cli.factory import Factory, sha

CONTENT = os.urandom(300_000)
"""Of a package, in several pieces."""

CURL = f"packages/{sha(CONTENT)}"
OLD = f"packages/{sha(b'old')}"
SBOM = b'{"payload": "..."}'


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def package(name: str, version: str, decision: str = "PASS", **fields: Any) -> Any:
    return pb.Package(
        name=name,
        package_name="curl",
        version=version,
        target_platform="linux/amd64",
        decision=pb.PolicyDecision.Value(f"POLICY_DECISION_{decision}"),
        **fields,
    )


def fill(factory: Factory) -> None:
    """Fill in curl 8.1, which is released, and 8.0, which is not any more."""
    factory.packages = [
        package(
            CURL,
            "8.1",
            channel="stable",
            target_path="stable/curl/8.1/curl_8.1_amd64.deb",
            size_bytes=len(CONTENT),
            vulnerabilities=pb.VulnerabilityCounts(low=1),
            component_count=3,
            file_count=8,
            claimed_file_count=6,
            attestations={"sbom": sha(SBOM), "scan": sha(b"scan")},
            installed_count=1_200,
        ),
        package(OLD, "8.0", "FAIL", decision_reasons=["critical: CVE-2029-1", "unknown: CVE-2029-7"]),
    ]
    factory.parts = {"package": CONTENT, "sbom": SBOM, "bundle": b"PK" + CONTENT}
