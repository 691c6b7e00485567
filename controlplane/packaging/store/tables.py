"""The tables of the packaging room. Digests are SHA-256 in lower-case hexadecimal, instants microseconds."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    false,
    literal_column,
    text,
)
from sqlalchemy import Boolean as Bool

from controlplane.storage.schema import metadata


def _digest(name: str = "sha256", **more: Any) -> Column[Any]:
    return Column(name, String(64), **more)


def _counts() -> list[Column[Any]]:
    """Return the columns of vulnerability counts, NULL before the scan."""
    names = ("critical", "high", "medium", "low", "unknown")
    return [Column(name, Integer, nullable=True) for name in names]


artefact_uploads = Table(
    "artefact_uploads",
    metadata,
    Column("upload_id", String(63), primary_key=True),
    Column("file_name", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    _digest(nullable=False),
    # Bytes that are on disk for certain; more may be there after a crash, and are written again.
    Column("committed", BigInteger, nullable=False, server_default=text("0")),
    Column("complete", Bool, nullable=False, server_default=false()),
    Column("creator", String(512), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
    comment="Artefacts on their way in.",
)
Index("ix_artefact_uploads_expire_time", artefact_uploads.c.expire_time)

artefacts = Table(
    "artefacts",
    metadata,
    _digest(primary_key=True),
    Column("file_name", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("creator", String(512), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    comment="What was uploaded, by its digest.",
)

pipelines = Table(
    "pipelines",
    metadata,
    Column("pipeline_id", String(63), primary_key=True),
    _digest("artefact", nullable=False),
    Column("file_name", String(255), nullable=False),
    Column("artefact_type", String(32), nullable=False, server_default=""),
    Column("target_platform", String(64), nullable=False, server_default=""),
    Column("package_name", String(256), nullable=False, server_default=""),
    Column("package_version", String(256), nullable=False, server_default=""),
    Column("channel", String(32), nullable=False),
    Column("state", Integer, nullable=False),
    Column("state_time", BigInteger, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("stage", Integer, nullable=False, server_default=text("0")),
    *_counts(),
    Column("decision", Integer, nullable=False, server_default=text("0")),
    Column("build_id", String(128), nullable=False),
    Column("source_repository", String(512), nullable=False, server_default=""),
    Column("source_commit", String(128), nullable=False, server_default=""),
    Column("manifest", Text, nullable=False, server_default=""),
    Column("vex", Text, nullable=False, server_default=""),
    _digest("package", nullable=True),
    Column("creator", String(512), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("run_count", Integer, nullable=False, server_default=text("0")),
    # Grows with each step that begins: a worker that was taken for dead commits nothing any more.
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    Column("cancel_requested", Bool, nullable=False, server_default=false()),
    Column("revision", BigInteger, nullable=False),
    Index(None, "revision"),
    Index(None, "create_time"),
    Index(None, "package"),
    comment="Ways of artefacts through the factory.",
)
# The number stands in the statement: SQLite proves the use of a partial index from the text.
IS_UNDER_WAY = pipelines.c.state < literal_column("4")
"""The condition of a pipeline that has not ended."""
Index(
    "ix_pipelines_under_way",
    pipelines.c.create_time,
    sqlite_where=IS_UNDER_WAY,
    postgresql_where=IS_UNDER_WAY,
)

pipeline_stages = Table(
    "pipeline_stages",
    metadata,
    Column("pipeline_id", String(63), ForeignKey(pipelines.c.pipeline_id), primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("state", Integer, nullable=False),
    Column("start_time", BigInteger, nullable=True),
    Column("end_time", BigInteger, nullable=True),
    Column("reason", Text, nullable=False, server_default=""),
    Column("reason_code", String(64), nullable=False, server_default=""),
    Column("run_count", Integer, nullable=False, server_default=text("0")),
    # JSON: tools, inputs, outputs and isolation for people, and what later stages need.
    Column("report", Text, nullable=False, server_default="{}"),
    Column("outcome", Text, nullable=False, server_default="{}"),
    comment="What each stage of a pipeline did.",
)

pipeline_log = Table(
    "pipeline_log",
    metadata,
    Column("pipeline_id", String(63), ForeignKey(pipelines.c.pipeline_id), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("level", String(16), nullable=False),
    Column("text", Text, nullable=False),
    comment="What stages say while they run.",
    sqlite_with_rowid=False,
)

packages = Table(
    "packages",
    metadata,
    _digest(primary_key=True),
    Column("package_name", String(256), nullable=False),
    Column("version", String(256), nullable=False),
    Column("artefact_type", String(32), nullable=False),
    Column("target_platform", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("pipeline_id", String(63), nullable=False),
    Column("channel", String(32), nullable=False, server_default=""),
    Column("target_path", String(1024), nullable=False, server_default=""),
    Column("decision", Integer, nullable=False),
    Column("decision_time", BigInteger, nullable=False),
    Column("decision_reasons", Text, nullable=False, server_default="[]"),
    *_counts(),
    Column("component_count", Integer, nullable=False),
    Column("file_count", Integer, nullable=False),
    Column("claimed_file_count", Integer, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("purl", String(1024), nullable=False, server_default=""),
    # JSON: what rules ask about and what never changes, and how the scan went that the verdict stands on.
    Column("facts", Text, nullable=False, server_default="{}"),
    Column("scan", Text, nullable=False, server_default="{}"),
    # By what it was looked at last: the imports of advisories, and the policy.
    _digest("known", nullable=False, server_default=""),
    _digest("policy", nullable=False, server_default=""),
    # Grows with every decision and with all that may change one: who looked before does not commit.
    Column("judgement", BigInteger, nullable=False, server_default=text("0")),
    Column("due_time", BigInteger, nullable=False, server_default=text("0")),
    Column("verdict_expire_time", BigInteger, nullable=False, server_default=text("0")),
    Index(None, "package_name", "version"),
    Index(None, "create_time"),
    comment="What the factory made, by the digest of its bytes.",
)

package_attestations = Table(
    "package_attestations",
    metadata,
    _digest("package", primary_key=True),
    Column("kind", String(64), primary_key=True),
    _digest(nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    comment="Signed statements about a package, the one that stands of each kind.",
)

package_components = Table(
    "package_components",
    metadata,
    _digest("package", primary_key=True),
    Column("purl", String(1024), primary_key=True),
    Column("ecosystem", String(64), nullable=False),
    Column("name", String(256), nullable=False),
    Column("version", String(256), nullable=False),
    Column("scope", String(16), nullable=False, server_default="contained"),
    Column("found_by", Text, nullable=False),
    Index(None, "ecosystem", "name"),
    Index(None, "purl"),
    comment="The components of packages, to scan them again when more is known.",
)

package_findings = Table(
    "package_findings",
    metadata,
    _digest("package", primary_key=True),
    # From 1, the most severe first.
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("severity", String(16), nullable=False),
    Column("state", String(32), nullable=False),
    Column("exception_id", String(63), nullable=False, server_default=""),
    # JSON of the whole finding.
    Column("finding", Text, nullable=False),
    comment="The vulnerabilities of packages as of the last scan.",
)

package_vulnerabilities = Table(
    "package_vulnerabilities",
    metadata,
    _digest("package", primary_key=True),
    Column("vulnerability", String(512), primary_key=True),
    Index(None, "vulnerability"),
    comment="Every id of every vulnerability of packages, to find them by.",
)

policy_exceptions = Table(
    "policy_exceptions",
    metadata,
    Column("exception_id", String(63), primary_key=True),
    _digest("package", nullable=False),
    Column("vulnerability", String(128), nullable=False),
    Column("justification", Text, nullable=False),
    Column("requester", String(512), nullable=False),
    Column("approver", String(512), nullable=False, server_default=""),
    Column("expire_time", BigInteger, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("approve_time", BigInteger, nullable=True),
    Column("revoke_time", BigInteger, nullable=True),
    Index(None, "package"),
    Index(None, "expire_time"),
    comment="Vulnerabilities that shall not block a package for a time.",
)

deployments = Table(
    "deployments",
    metadata,
    Column("task_id", String(128), primary_key=True),
    Column("agent_id", String(63), nullable=False),
    Column("batch_id", String(64), nullable=False, server_default=""),
    _digest("package", nullable=False),
    # Of the package: deployments of one name to an agent follow each other, and outlive a package's row.
    Column("package_name", String(256), nullable=False),
    Column("version", String(256), nullable=False),
    Column("status", Integer, nullable=False),
    Column("status_time", BigInteger, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("reason_code", String(64), nullable=False, server_default=""),
    Column("create_time", BigInteger, nullable=False),
    Index(None, "agent_id", "package_name", "create_time"),
    Index(None, "package", "status"),
    Index(None, "batch_id"),
    Index(None, "status_time", "task_id"),
    comment="Where packages stand on agents.",
)
IS_DEPLOYING = deployments.c.status < literal_column("5")
"""The condition of a deployment that has not ended."""
Index(
    "ix_deployments_under_way",
    deployments.c.create_time,
    sqlite_where=IS_DEPLOYING,
    postgresql_where=IS_DEPLOYING,
)

packaging_requests = Table(
    "packaging_requests",
    metadata,
    Column("creator", String(512), primary_key=True),
    Column("request_id", String(64), primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("created_id", String(63), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Index(None, "create_time"),
    comment="What a request_id made, so that the same call again gives the first answer.",
)

tuf_files = Table(
    "tuf_files",
    metadata,
    Column("file_name", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    comment="The TUF metadata that agents fetch; a version that is there is never written again.",
)

tuf_targets = Table(
    "tuf_targets",
    metadata,
    Column("target_path", String(1024), primary_key=True),
    Column("channel", String(32), nullable=False),
    # Empty for what belongs to no package: the document of the keys that attest.
    _digest("package", nullable=False, server_default=""),
    _digest(nullable=False),
    Column("size", BigInteger, nullable=False),
    # Of a file of attestations: the digests of its lines, to see when others stand.
    Column("evidence", Text, nullable=False, server_default=""),
    Column("create_time", BigInteger, nullable=False),
    # A path that was released once never means other bytes, also after it was withdrawn.
    Column("withdraw_time", BigInteger, nullable=True),
    Index(None, "package"),
    Index(None, "sha256"),
    comment="What the TUF metadata releases, and released; written with it in one transaction.",
)
