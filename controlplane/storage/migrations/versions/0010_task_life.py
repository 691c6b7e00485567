"""Tasks: offline policies, replays, batches that make their tasks in slices; agents: groups and places.

Revision ID: 0010
Revises: 0009
"""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

AT_ONCE = 10_000
BUCKETS = 10_000


def upgrade() -> None:
    """Add the columns, with what they mean for what is there already."""
    for table in ("tasks", "task_batches"):
        _add_offline_policy(table)
    op.add_column("tasks", sa.Column("superseded", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("tasks", sa.Column("window_end", sa.BigInteger(), nullable=True))
    op.add_column("tasks", sa.Column("replay_of", sa.String(128), nullable=True))
    _index_tasks()
    _expand_batches()
    _group_agents()
    _place_agents()


def _add_offline_policy(table: str) -> None:
    number = sa.Column("offline_policy", sa.Integer(), nullable=False, server_default=sa.text("1"))
    op.add_column(table, number)
    op.add_column(table, sa.Column("supersede_key", sa.String(128), nullable=True))
    op.add_column(table, sa.Column("window_cron", sa.String(128), nullable=True))
    op.add_column(table, sa.Column("window_zone", sa.String(64), nullable=True))
    op.add_column(table, sa.Column("window_duration", sa.BigInteger(), nullable=True))


def _index_tasks() -> None:
    # Each holds only the few tasks that have what it is about, so the others cost nothing more.
    partial = {
        "ix_tasks_open_skipping": (["agent_id"], "state < 4 AND offline_policy = 2"),
        "ix_tasks_open_by_window": (["window_end"], "state < 4 AND window_end IS NOT NULL"),
        "ix_tasks_supersede_key": (["agent_id", "supersede_key", "create_time"], "supersede_key IS NOT NULL"),
        "ix_tasks_replay_of": (["replay_of"], "replay_of IS NOT NULL"),
    }
    for name, (columns, condition) in partial.items():
        where = sa.text(condition)
        op.create_index(name, "tasks", columns, sqlite_where=where, postgresql_where=where)


def _expand_batches() -> None:
    def number(name: str, default: str) -> sa.Column[int]:
        kind = sa.BigInteger() if name == "seed" else sa.Integer()
        return sa.Column(name, kind, nullable=False, server_default=sa.text(default))

    for name, default in (("state", "2"), ("target_count", "0"), ("expanded_count", "0")):
        op.add_column("task_batches", number(name, default))
    for name, default in (("percentage", "100"), ("seed", "0")):
        op.add_column("task_batches", number(name, default))
    op.execute("UPDATE task_batches SET target_count = task_count, expanded_count = task_count")
    expanding = sa.text("state = 1")
    op.create_index(
        "ix_task_batches_expanding",
        "task_batches",
        ["create_time"],
        sqlite_where=expanding,
        postgresql_where=expanding,
    )
    op.create_table(
        "task_batch_targets",
        sa.Column("batch_id", sa.String(64), sa.ForeignKey("task_batches.batch_id"), primary_key=True),
        sa.Column("agent_id", sa.String(63), primary_key=True),
        comment="The agents that a batch chose when it was created and has not made a task for yet.",
        sqlite_with_rowid=False,
    )


def _group_agents() -> None:
    op.create_table(
        "agent_groups",
        sa.Column("agent_id", sa.String(63), primary_key=True),
        sa.Column("name", sa.String(63), primary_key=True),
    )
    op.create_index("ix_agent_groups_name", "agent_groups", ["name"])


def _place_agents() -> None:
    # The default is for the rows that are there, which get their place below.
    op.add_column("agents", sa.Column("bucket", sa.Integer(), nullable=False, server_default=sa.text("0")))
    connection = op.get_bind()
    found = connection.execute(sa.text("SELECT agent_id FROM agents")).scalars().all()
    place = sa.text("UPDATE agents SET bucket = :bucket WHERE agent_id = :agent_id")
    for start in range(0, len(found), AT_ONCE):
        connection.execute(
            place,
            [
                # As controlplane.agents.rules.bucket; a migration stays what it was.
                {
                    "agent_id": agent_id,
                    "bucket": int.from_bytes(hashlib.sha256(agent_id.encode()).digest()[:8], "big") % BUCKETS,
                }
                for agent_id in found[start : start + AT_ONCE]
            ],
        )
