"""Tasks: the tables of these rooms.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "task_batches",
        sa.Column("batch_id", sa.String(length=64), nullable=False),
        sa.Column("selector", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("queue_time", sa.BigInteger(), nullable=False),
        sa.Column("run_limit", sa.BigInteger(), nullable=False),
        sa.Column("idempotent", sa.Boolean(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("task_count", sa.Integer(), nullable=False),
        sa.Column("creator", sa.String(length=512), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_task_batches")),
    )
    op.create_table(
        "task_requests",
        sa.Column("creator", sa.String(length=512), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_id", sa.String(length=128), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("creator", "request_id", name=op.f("pk_task_requests")),
        comment="What a request_id made, so that the same call again gives the first answer.",
    )
    op.create_index(op.f("ix_task_requests_create_time"), "task_requests", ["create_time"], unique=False)
    op.create_table(
        "tasks",
        sa.Column("task_id", sa.String(length=128), nullable=False),
        sa.Column("agent_id", sa.String(length=63), nullable=False),
        sa.Column("batch_id", sa.String(length=64), nullable=True),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("queue_time", sa.BigInteger(), nullable=False),
        sa.Column("run_limit", sa.BigInteger(), nullable=False),
        sa.Column("idempotent", sa.Boolean(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("state_time", sa.BigInteger(), nullable=False),
        sa.Column("state_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("attempt_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("current_attempt_id", sa.String(length=64), nullable=True),
        sa.Column("decided_attempt_id", sa.String(length=64), nullable=True),
        sa.Column("progress_percent", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("progress_message", sa.Text(), server_default="", nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("creator", sa.String(length=512), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["task_batches.batch_id"], name=op.f("fk_tasks_batch_id")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
    )
    op.create_index("ix_tasks_batch_id", "tasks", ["batch_id"], unique=False)
    op.create_index("ix_tasks_create_time_task_id", "tasks", ["create_time", "task_id"], unique=False)
    op.create_index(
        "ix_tasks_open_by_agent",
        "tasks",
        ["agent_id", "state", sa.literal_column("priority DESC"), "create_time"],
        unique=False,
        sqlite_where=sa.text("state < 4"),
        postgresql_where=sa.text("state < 4"),
    )
    op.create_index(
        "ix_tasks_open_by_expiry",
        "tasks",
        ["state", "expire_time"],
        unique=False,
        sqlite_where=sa.text("state < 4"),
        postgresql_where=sa.text("state < 4"),
    )
    op.create_index("ix_tasks_revision_task_id", "tasks", ["revision", "task_id"], unique=False)
    op.create_table(
        "task_attempts",
        sa.Column("attempt_id", sa.String(length=64), nullable=False),
        sa.Column("task_id", sa.String(length=128), nullable=False),
        sa.Column("agent_id", sa.String(length=63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("session_epoch", sa.BigInteger(), nullable=False),
        sa.Column("lease_time", sa.BigInteger(), nullable=False),
        sa.Column("lease_expire_time", sa.BigInteger(), nullable=False),
        sa.Column("accept_time", sa.BigInteger(), nullable=True),
        sa.Column("run_deadline", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Integer(), nullable=True),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.Column("summary", sa.LargeBinary(), nullable=True),
        sa.Column("stdout_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("stderr_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("log_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_task_attempts_task_id")),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("pk_task_attempts")),
    )
    op.create_index(
        "ix_task_attempts_live_by_agent",
        "task_attempts",
        ["agent_id", "state"],
        unique=False,
        sqlite_where=sa.text("state < 3"),
        postgresql_where=sa.text("state < 3"),
    )
    op.create_index("ix_task_attempts_task_id", "task_attempts", ["task_id"], unique=False)
    op.create_table(
        "task_output",
        # On SQLite only an INTEGER numbers its rows by itself.
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("attempt_id", sa.String(length=64), nullable=False),
        sa.Column("stream", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["task_attempts.attempt_id"], name=op.f("fk_task_output_attempt_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_output")),
    )
    op.create_index("ix_task_output_attempt_id", "task_output", ["attempt_id"], unique=False)
