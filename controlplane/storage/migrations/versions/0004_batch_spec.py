"""Tasks: a batch's tasks need no spec of their own.

Tasks that were made before keep their copy, which is as good as the batch's.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_INDEXES = (
    "ix_tasks_batch_id",
    "ix_tasks_create_time_task_id",
    "ix_tasks_open_by_agent",
    "ix_tasks_open_by_expiry",
    "ix_tasks_revision_task_id",
)


def upgrade() -> None:
    """Let ``tasks.spec`` be NULL where there is a batch."""
    # The copy of the table would have the indexes as they are reflected: without DESC.
    for name in _INDEXES:
        op.drop_index(name, "tasks")
    with op.batch_alter_table("tasks") as batch:
        batch.alter_column("spec", existing_type=sa.LargeBinary(), nullable=True)
        batch.create_check_constraint("ck_tasks_spec", "spec IS NOT NULL OR batch_id IS NOT NULL")
    _make_indexes()


def _make_indexes() -> None:
    is_open = sa.text("state < 4")
    op.create_index("ix_tasks_batch_id", "tasks", ["batch_id"])
    op.create_index("ix_tasks_create_time_task_id", "tasks", ["create_time", "task_id"])
    op.create_index(
        "ix_tasks_open_by_agent",
        "tasks",
        ["agent_id", "state", sa.literal_column("priority DESC"), "create_time"],
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_index(
        "ix_tasks_open_by_expiry",
        "tasks",
        ["state", "expire_time"],
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_index("ix_tasks_revision_task_id", "tasks", ["revision", "task_id"])
