"""Tasks: what is over is found by when it ended.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the indexes that retention reads by."""
    is_final = sa.text("state >= 4")
    op.create_index(
        "ix_tasks_final_by_time",
        "tasks",
        ["state_time"],
        sqlite_where=is_final,
        postgresql_where=is_final,
    )
    # A batch has its spec before its time: without an index, each look would read through all specs.
    op.create_index("ix_task_batches_create_time", "task_batches", ["create_time"])
