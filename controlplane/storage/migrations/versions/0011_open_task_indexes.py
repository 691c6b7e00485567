"""Tasks: indexes that a task's way through its states does not touch.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the state out of the keys: whether a task is open or unbegun says the condition."""
    for name in ("ix_tasks_open_by_agent", "ix_tasks_open_by_expiry", "ix_tasks_batch_id"):
        op.drop_index(name, "tasks")
    order = ["agent_id", sa.text("priority DESC"), "create_time"]
    _index("ix_tasks_open_by_agent", order, "state < 4")
    _index("ix_tasks_unbegun_by_expiry", ["expire_time"], "state < 3")
    _index("ix_tasks_batch_id", ["batch_id"], "batch_id IS NOT NULL")


def _index(name: str, columns: list[object], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "tasks", columns, sqlite_where=where, postgresql_where=where)  # type: ignore[arg-type]
