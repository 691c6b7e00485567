"""Indexes that a task's way through its states, and a session that opens, touch less.

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
    """Take states out of the keys, and of an agent's events keep in the index what begins something."""
    for name in ("ix_tasks_open_by_agent", "ix_tasks_open_by_expiry", "ix_tasks_batch_id"):
        op.drop_index(name, "tasks")
    order: list[str | sa.TextClause] = ["agent_id", sa.text("priority DESC"), "create_time"]
    _index("ix_tasks_open_by_agent", order, "state < 4")
    _index("ix_tasks_unbegun_by_expiry", ["expire_time"], "state < 3")
    _index("ix_tasks_batch_id", ["batch_id"], "batch_id IS NOT NULL")
    op.drop_index("ix_task_events_agent_id_time", "task_events")
    op.drop_index("ix_agents_gateway_id", "agents")
    _index("ix_agents_gateway_id", ["gateway_id"], "gateway_id IS NOT NULL", "agents")
    _index("ix_task_events_tasks_of_agent", ["agent_id", "task_id"], "event = 1 OR event > 8", "task_events")
    if op.get_bind().dialect.name == "postgresql":
        # Lost when the table became one of partitions.
        op.create_table_comment("telemetry_points", "What agents measured.")


def _index(name: str, columns: list[str | sa.TextClause], condition: str, table: str = "tasks") -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
