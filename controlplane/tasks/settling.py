"""Ending attempts, and what that does to their tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from controlplane.clock import duration_micros
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks import rules
from controlplane.tasks.following import Followers
from controlplane.tasks.ledger import noting
from controlplane.tasks.rules import AttemptState, Event, TaskState
from controlplane.tasks.store import delivery as store
from controlplane.tasks.store.delivery import AttemptWithTask


class Settling:
    """Writes what was decided. ``changed`` is called after each commit that changed a task."""

    def __init__(self, changed: Callable[[], None], following: Followers) -> None:
        self._changed = changed
        self._following = following

    async def settle(
        self,
        work: UnitOfWork,
        decided: Sequence[tuple[AttemptWithTask, Event | None, str, int]],
        ending: AttemptState,
        reports: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """End attempts as ``ending`` and let each event befall its task, if that is still open.

        Each item is (attempt, event, reason, now); an event of None leaves the task as it is.
        ``reports`` are what was reported of the attempts, columns by attempt id: of all or of none.
        """
        await store.update_attempts(
            work,
            [
                {
                    "attempt_id": attempt.attempt_id,
                    "state": int(ending),
                    "end_time": now,
                    **(reports[attempt.attempt_id] if reports else {}),
                }
                for attempt, _, _, now in decided
            ],
        )
        noting.settled(work, decided, ending)
        self._following.changed(work, [attempt.kind for attempt, *_ in decided])
        await self.update_tasks(
            work,
            [
                _task_after(attempt, event, reason, now, reported=ending is AttemptState.FINISHED)
                for attempt, event, reason, now in decided
                if event is not None and not rules.is_final(attempt.task.state)
            ],
        )

    async def update_tasks(self, work: UnitOfWork, rows: Sequence[dict[str, Any]]) -> None:
        """Update tasks by ``task_id``; all rows have the same columns."""
        if rows:
            await store.update_tasks(work, rows)
            work.after_commit(self._changed)


def _task_after(
    attempt: AttemptWithTask, event: Event, reason: str, now: int, *, reported: bool
) -> dict[str, Any]:
    state = rules.transition(attempt.task.state, event)
    failed = event in (Event.RETRY, Event.FAIL, Event.EXHAUST)
    failures = attempt.task.failed_count + failed
    waits = event in (Event.RETRY, Event.REQUEUE)
    return {
        "task_id": attempt.task_id,
        "state": int(state),
        "state_time": now,
        "state_reason": reason,
        "update_time": now,
        "failed_count": failures,
        "not_before": now + (duration_micros(rules.retry_delay(attempt.task.attempt_count)) if waits else 0),
        "current_attempt_id": None if state is TaskState.QUEUED else attempt.attempt_id,
        # Where the server gave the attempt up, a result that comes later did not decide.
        "decided_attempt_id": attempt.attempt_id if reported and rules.is_final(state) else None,
    }
