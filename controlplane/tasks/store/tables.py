"""The tables of the tasks room. Instants and durations are microseconds."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    and_,
    false,
    func,
    literal_column,
    text,
)

from controlplane.storage.schema import metadata


def _offline() -> list[Column[Any]]:
    """Return the columns of an offline policy, which tasks and batches have alike."""
    return [
        Column("offline_policy", Integer, nullable=False, server_default=text("1")),
        Column("supersede_key", String(128), nullable=True),
        Column("window_cron", String(128), nullable=True),
        Column("window_zone", String(64), nullable=True),
        Column("window_duration", BigInteger, nullable=True),
    ]


task_batches = Table(
    "task_batches",
    metadata,
    Column("batch_id", String(64), primary_key=True),
    Column("selector", Text, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("queue_time", BigInteger, nullable=False),
    Column("run_limit", BigInteger, nullable=False),
    Column("idempotent", Boolean, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("task_count", Integer, nullable=False),
    Column("creator", String(512), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    *_offline(),
    Column("state", Integer, nullable=False, server_default=text("2")),
    Column("target_count", Integer, nullable=False, server_default=text("0")),
    Column("expanded_count", Integer, nullable=False, server_default=text("0")),
    Column("percentage", Integer, nullable=False, server_default=text("100")),
    Column("seed", BigInteger, nullable=False, server_default=text("0")),
)
IS_EXPANDING = task_batches.c.state == literal_column("1")
"""The condition of a batch whose tasks are still being made."""

task_batch_targets = Table(
    "task_batch_targets",
    metadata,
    Column("batch_id", String(64), ForeignKey(task_batches.c.batch_id), primary_key=True),
    Column("agent_id", String(63), primary_key=True),
    comment="The agents that a batch chose when it was created and has not made a task for yet.",
    sqlite_with_rowid=False,
)

tasks = Table(
    "tasks",
    metadata,
    Column("task_id", String(128), primary_key=True),
    Column("agent_id", String(63), nullable=False),
    Column("batch_id", String(64), ForeignKey(task_batches.c.batch_id), nullable=True),
    Column("kind", String(64), nullable=False),
    # NULL: the batch's. A copy for each of ten thousand agents would be gigabytes in one transaction.
    Column("spec", LargeBinary, nullable=True),
    Column("priority", Integer, nullable=False),
    Column("queue_time", BigInteger, nullable=False),
    Column("run_limit", BigInteger, nullable=False),
    Column("idempotent", Boolean, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("state", Integer, nullable=False),
    Column("state_time", BigInteger, nullable=False),
    Column("state_reason", Text, nullable=False, server_default=""),
    Column("cancel_requested", Boolean, nullable=False, server_default=false()),
    Column("attempt_count", Integer, nullable=False, server_default=text("0")),
    Column("failed_count", Integer, nullable=False, server_default=text("0")),
    Column("current_attempt_id", String(64), nullable=True),
    Column("decided_attempt_id", String(64), nullable=True),
    Column("progress_percent", Integer, nullable=False, server_default=text("0")),
    Column("progress_message", Text, nullable=False, server_default=""),
    Column("not_before", BigInteger, nullable=False),
    Column("creator", String(512), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    *_offline(),
    # Like cancel_requested: a later task of its key exists, and it does not wait for another attempt.
    Column("superseded", Boolean, nullable=False, server_default=false()),
    # It is not handed out from then on until the sweep has moved it to the next window.
    Column("window_end", BigInteger, nullable=True),
    Column("replay_of", String(128), nullable=True),
    CheckConstraint("spec IS NOT NULL OR batch_id IS NOT NULL", name="ck_tasks_spec"),
)
OF_BATCH = task_batches.c.batch_id == tasks.c.batch_id
"""The condition that joins a task to its batch; an outer join, as most tasks have none."""
SPEC = func.coalesce(tasks.c.spec, task_batches.c.spec).label("spec")
"""A task's spec, wherever it is kept; needs the outer join on ``OF_BATCH``."""
# What is open is a small part of what is kept, and all that delivery and sweeps look at.
# The number stands in the statement itself: SQLite uses a partial index only for a condition that it
# can prove from the text, which a bound parameter is not.
IS_OPEN = tasks.c.state < literal_column("4")
"""The condition of a task that is not final; every query for open tasks has it, so as to use the index."""
Index(
    "ix_tasks_open_by_agent",
    tasks.c.agent_id,
    tasks.c.priority.desc(),
    tasks.c.create_time,
    sqlite_where=IS_OPEN,
    postgresql_where=IS_OPEN,
)
IS_UNBEGUN = tasks.c.state < literal_column("3")
"""The condition of a task that no agent has begun: it is queued or leased, and may expire."""
Index("ix_tasks_unbegun_by_expiry", tasks.c.expire_time, sqlite_where=IS_UNBEGUN, postgresql_where=IS_UNBEGUN)
IS_SKIPPING = and_(IS_OPEN, tasks.c.offline_policy == literal_column("2"))
"""The condition of an open task that does not wait for an agent that is offline; few have it."""
Index("ix_tasks_open_skipping", tasks.c.agent_id, sqlite_where=IS_SKIPPING, postgresql_where=IS_SKIPPING)
HAS_WINDOW = and_(IS_OPEN, tasks.c.window_end.is_not(None))
"""The condition of an open task with a maintenance window."""
Index("ix_tasks_open_by_window", tasks.c.window_end, sqlite_where=HAS_WINDOW, postgresql_where=HAS_WINDOW)
HAS_KEY = tasks.c.supersede_key.is_not(None)
"""The condition of a task that is a version of something."""
Index(
    "ix_tasks_supersede_key",
    tasks.c.agent_id,
    tasks.c.supersede_key,
    tasks.c.create_time,
    sqlite_where=HAS_KEY,
    postgresql_where=HAS_KEY,
)
IS_REPLAY = tasks.c.replay_of.is_not(None)
"""The condition of a task that replays another one."""
Index("ix_tasks_replay_of", tasks.c.replay_of, sqlite_where=IS_REPLAY, postgresql_where=IS_REPLAY)
Index(
    "ix_task_batches_expanding",
    task_batches.c.create_time,
    sqlite_where=IS_EXPANDING,
    postgresql_where=IS_EXPANDING,
)
IS_FINAL = tasks.c.state >= literal_column("4")
"""The condition of a task that is final."""
Index("ix_tasks_final_by_time", tasks.c.state_time, sqlite_where=IS_FINAL, postgresql_where=IS_FINAL)
Index("ix_task_batches_create_time", task_batches.c.create_time)
Index("ix_tasks_create_time_task_id", tasks.c.create_time, tasks.c.task_id)
Index("ix_tasks_revision_task_id", tasks.c.revision, tasks.c.task_id)
IN_BATCH = tasks.c.batch_id.is_not(None)
"""The condition of a task that a batch made."""
Index("ix_tasks_batch_id", tasks.c.batch_id, sqlite_where=IN_BATCH, postgresql_where=IN_BATCH)

task_attempts = Table(
    "task_attempts",
    metadata,
    Column("attempt_id", String(64), primary_key=True),
    Column("task_id", String(128), ForeignKey(tasks.c.task_id), nullable=False),
    Column("agent_id", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", Integer, nullable=False),
    Column("session_epoch", BigInteger, nullable=False),
    Column("lease_time", BigInteger, nullable=False),
    Column("lease_expire_time", BigInteger, nullable=False),
    Column("accept_time", BigInteger, nullable=True),
    Column("run_deadline", BigInteger, nullable=True),
    Column("end_time", BigInteger, nullable=True),
    Column("outcome", Integer, nullable=True),
    Column("result", LargeBinary, nullable=True),
    Column("summary", LargeBinary, nullable=True),
    Column("stdout_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("stderr_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("log_bytes", BigInteger, nullable=False, server_default=text("0")),
)
Index("ix_task_attempts_task_id", task_attempts.c.task_id)
IS_LIVE = task_attempts.c.state < literal_column("3")
"""The condition of an attempt that is leased or running."""
Index(
    "ix_task_attempts_live_by_agent",
    task_attempts.c.agent_id,
    task_attempts.c.state,
    sqlite_where=IS_LIVE,
    postgresql_where=IS_LIVE,
)

task_output = Table(
    "task_output",
    metadata,
    # On SQLite only an INTEGER numbers its rows by itself.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("attempt_id", String(64), ForeignKey(task_attempts.c.attempt_id), nullable=False),
    Column("stream", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
Index("ix_task_output_attempt_id", task_output.c.attempt_id)

task_requests = Table(
    "task_requests",
    metadata,
    Column("creator", String(512), primary_key=True),
    Column("request_id", String(64), primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("created_id", String(128), nullable=False),
    Column("create_time", BigInteger, nullable=False, index=True),
    comment="What a request_id made, so that the same call again gives the first answer.",
)
