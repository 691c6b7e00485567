"""The packaging factory: uploads, pipelines, packages, exceptions, deployments and TUF metadata.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    _make_uploads()
    _make_pipelines()
    _make_packages()
    _make_releases()


def _make_uploads() -> None:
    op.create_table(
        "artefact_uploads",
        sa.Column("upload_id", sa.String(length=63), nullable=False),
        sa.Column("file_name", sa.String(length=255), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("committed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("complete", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("creator", sa.String(length=512), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("upload_id", name=op.f("pk_artefact_uploads")),
        comment="Artefacts on their way in.",
    )
    op.create_index("ix_artefact_uploads_expire_time", "artefact_uploads", ["expire_time"], unique=False)
    op.create_table(
        "artefacts",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("file_name", sa.String(length=255), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("creator", sa.String(length=512), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_artefacts")),
        comment="What was uploaded, by its digest.",
    )


def _make_pipelines() -> None:
    op.create_table(
        "pipelines",
        sa.Column("pipeline_id", sa.String(length=63), nullable=False),
        sa.Column("artefact", sa.String(length=64), nullable=False),
        sa.Column("file_name", sa.String(length=255), nullable=False),
        sa.Column("artefact_type", sa.String(length=32), server_default="", nullable=False),
        sa.Column("target_platform", sa.String(length=64), server_default="", nullable=False),
        sa.Column("package_name", sa.String(length=256), server_default="", nullable=False),
        sa.Column("package_version", sa.String(length=256), server_default="", nullable=False),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("state_time", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("stage", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("critical", sa.Integer(), nullable=True),
        sa.Column("high", sa.Integer(), nullable=True),
        sa.Column("medium", sa.Integer(), nullable=True),
        sa.Column("low", sa.Integer(), nullable=True),
        sa.Column("unknown", sa.Integer(), nullable=True),
        sa.Column("decision", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("build_id", sa.String(length=128), nullable=False),
        sa.Column("source_repository", sa.String(length=512), server_default="", nullable=False),
        sa.Column("source_commit", sa.String(length=128), server_default="", nullable=False),
        sa.Column("manifest", sa.Text(), server_default="", nullable=False),
        sa.Column("vex", sa.Text(), server_default="", nullable=False),
        sa.Column("package", sa.String(length=64), nullable=True),
        sa.Column("creator", sa.String(length=512), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("run_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("pipeline_id", name=op.f("pk_pipelines")),
        comment="Ways of artefacts through the factory.",
    )
    op.create_index(op.f("ix_pipelines_create_time"), "pipelines", ["create_time"], unique=False)
    op.create_index(op.f("ix_pipelines_package"), "pipelines", ["package"], unique=False)
    op.create_index(op.f("ix_pipelines_revision"), "pipelines", ["revision"], unique=False)
    op.create_index(
        "ix_pipelines_under_way",
        "pipelines",
        ["create_time"],
        unique=False,
        sqlite_where=sa.text("state < 4"),
        postgresql_where=sa.text("state < 4"),
    )
    op.create_table(
        "pipeline_log",
        sa.Column("pipeline_id", sa.String(length=63), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["pipeline_id"], ["pipelines.pipeline_id"], name=op.f("fk_pipeline_log_pipeline_id")
        ),
        sa.PrimaryKeyConstraint("pipeline_id", "number", name=op.f("pk_pipeline_log")),
        comment="What stages say while they run.",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pipeline_stages",
        sa.Column("pipeline_id", sa.String(length=63), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("reason_code", sa.String(length=64), server_default="", nullable=False),
        sa.Column("run_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("report", sa.Text(), server_default="{}", nullable=False),
        sa.Column("outcome", sa.Text(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(
            ["pipeline_id"], ["pipelines.pipeline_id"], name=op.f("fk_pipeline_stages_pipeline_id")
        ),
        sa.PrimaryKeyConstraint("pipeline_id", "stage", name=op.f("pk_pipeline_stages")),
        comment="What each stage of a pipeline did.",
    )


def _make_packages() -> None:
    op.create_table(
        "package_attestations",
        sa.Column("package", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("package", "kind", name=op.f("pk_package_attestations")),
        comment="Signed statements about a package, the one that stands of each kind.",
    )
    op.create_table(
        "package_components",
        sa.Column("package", sa.String(length=64), nullable=False),
        sa.Column("purl", sa.String(length=1024), nullable=False),
        sa.Column("ecosystem", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("version", sa.String(length=256), nullable=False),
        sa.Column("scope", sa.String(length=16), server_default="contained", nullable=False),
        sa.Column("found_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("package", "purl", name=op.f("pk_package_components")),
        comment="The components of packages, to scan them again when more is known.",
    )
    op.create_index(
        op.f("ix_package_components_ecosystem_name"),
        "package_components",
        ["ecosystem", "name"],
        unique=False,
    )
    op.create_index(op.f("ix_package_components_purl"), "package_components", ["purl"], unique=False)
    op.create_table(
        "package_findings",
        sa.Column("package", sa.String(length=64), nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("exception_id", sa.String(length=63), server_default="", nullable=False),
        sa.Column("finding", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("package", "place", name=op.f("pk_package_findings")),
        comment="The vulnerabilities of packages as of the last scan.",
    )
    op.create_table(
        "package_vulnerabilities",
        sa.Column("package", sa.String(length=64), nullable=False),
        sa.Column("vulnerability", sa.String(length=512), nullable=False),
        sa.PrimaryKeyConstraint("package", "vulnerability", name=op.f("pk_package_vulnerabilities")),
        comment="Every id of every vulnerability of packages, to find them by.",
    )
    op.create_index(
        op.f("ix_package_vulnerabilities_vulnerability"),
        "package_vulnerabilities",
        ["vulnerability"],
        unique=False,
    )
    op.create_table(
        "packages",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("package_name", sa.String(length=256), nullable=False),
        sa.Column("version", sa.String(length=256), nullable=False),
        sa.Column("artefact_type", sa.String(length=32), nullable=False),
        sa.Column("target_platform", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("pipeline_id", sa.String(length=63), nullable=False),
        sa.Column("channel", sa.String(length=32), server_default="", nullable=False),
        sa.Column("target_path", sa.String(length=1024), server_default="", nullable=False),
        sa.Column("decision", sa.Integer(), nullable=False),
        sa.Column("decision_time", sa.BigInteger(), nullable=False),
        sa.Column("decision_reasons", sa.Text(), server_default="[]", nullable=False),
        sa.Column("critical", sa.Integer(), nullable=True),
        sa.Column("high", sa.Integer(), nullable=True),
        sa.Column("medium", sa.Integer(), nullable=True),
        sa.Column("low", sa.Integer(), nullable=True),
        sa.Column("unknown", sa.Integer(), nullable=True),
        sa.Column("component_count", sa.Integer(), nullable=False),
        sa.Column("file_count", sa.Integer(), nullable=False),
        sa.Column("claimed_file_count", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("purl", sa.String(length=1024), server_default="", nullable=False),
        sa.Column("facts", sa.Text(), server_default="{}", nullable=False),
        sa.Column("scan", sa.Text(), server_default="{}", nullable=False),
        sa.Column("known", sa.String(length=64), server_default="", nullable=False),
        sa.Column("policy", sa.String(length=64), server_default="", nullable=False),
        sa.Column("judgement", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_time", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("verdict_expire_time", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_packages")),
        comment="What the factory made, by the digest of its bytes.",
    )
    op.create_index(op.f("ix_packages_create_time"), "packages", ["create_time"], unique=False)
    op.create_index(
        op.f("ix_packages_package_name_version"), "packages", ["package_name", "version"], unique=False
    )


def _make_releases() -> None:
    op.create_table(
        "deployments",
        sa.Column("task_id", sa.String(length=128), nullable=False),
        sa.Column("agent_id", sa.String(length=63), nullable=False),
        sa.Column("batch_id", sa.String(length=64), server_default="", nullable=False),
        sa.Column("package", sa.String(length=64), nullable=False),
        sa.Column("package_name", sa.String(length=256), nullable=False),
        sa.Column("version", sa.String(length=256), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("status_time", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("reason_code", sa.String(length=64), server_default="", nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_deployments")),
        comment="Where packages stand on agents.",
    )
    op.create_index(
        op.f("ix_deployments_agent_id_package_name_create_time"),
        "deployments",
        ["agent_id", "package_name", "create_time"],
        unique=False,
    )
    op.create_index(op.f("ix_deployments_package_status"), "deployments", ["package", "status"], unique=False)
    op.create_index(op.f("ix_deployments_batch_id"), "deployments", ["batch_id"], unique=False)
    op.create_index(
        op.f("ix_deployments_status_time_task_id"), "deployments", ["status_time", "task_id"], unique=False
    )
    op.create_index(
        "ix_deployments_under_way",
        "deployments",
        ["create_time"],
        unique=False,
        sqlite_where=sa.text("status < 5"),
        postgresql_where=sa.text("status < 5"),
    )
    op.create_table(
        "policy_exceptions",
        sa.Column("exception_id", sa.String(length=63), nullable=False),
        sa.Column("package", sa.String(length=64), nullable=False),
        sa.Column("vulnerability", sa.String(length=128), nullable=False),
        sa.Column("justification", sa.Text(), nullable=False),
        sa.Column("requester", sa.String(length=512), nullable=False),
        sa.Column("approver", sa.String(length=512), server_default="", nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("approve_time", sa.BigInteger(), nullable=True),
        sa.Column("revoke_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("exception_id", name=op.f("pk_policy_exceptions")),
        comment="Vulnerabilities that shall not block a package for a time.",
    )
    op.create_index(
        op.f("ix_policy_exceptions_expire_time"), "policy_exceptions", ["expire_time"], unique=False
    )
    op.create_index(op.f("ix_policy_exceptions_package"), "policy_exceptions", ["package"], unique=False)
    op.create_table(
        "packaging_requests",
        sa.Column("creator", sa.String(length=512), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_id", sa.String(length=63), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("creator", "request_id", name=op.f("pk_packaging_requests")),
        comment="What a request_id made, so that the same call again gives the first answer.",
    )
    op.create_index(
        op.f("ix_packaging_requests_create_time"), "packaging_requests", ["create_time"], unique=False
    )
    op.create_table(
        "tuf_files",
        sa.Column("file_name", sa.String(length=64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("file_name", name=op.f("pk_tuf_files")),
        comment="The TUF metadata that agents fetch; a version that is there is never written again.",
    )
    op.create_table(
        "tuf_targets",
        sa.Column("target_path", sa.String(length=1024), nullable=False),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("package", sa.String(length=64), server_default="", nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("evidence", sa.Text(), server_default="", nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("withdraw_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("target_path", name=op.f("pk_tuf_targets")),
        comment="What the TUF metadata releases, and released; written with it in one transaction.",
    )
    op.create_index(op.f("ix_tuf_targets_package"), "tuf_targets", ["package"], unique=False)
    op.create_index(op.f("ix_tuf_targets_sha256"), "tuf_targets", ["sha256"], unique=False)
