"""Applies what comes back: progress, output, results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.errors import InvalidArgument
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks import rules
from controlplane.tasks.chunks import judge_chunk, judge_lengths, lengths_after
from controlplane.tasks.following import Followers
from controlplane.tasks.ledger import noting
from controlplane.tasks.operations import AppendOutput, Disposition, Finish, Finished, Progress
from controlplane.tasks.rounds import on_attempts
from controlplane.tasks.rules import AttemptState, ChunkPlace, TaskState
from controlplane.tasks.settling import Settling
from controlplane.tasks.store import delivery as store
from controlplane.tasks.store.delivery import AttemptWithTask


class Results:
    """The appliers of Progress, AppendOutput and Finish."""

    def __init__(self, settling: Settling, following: Followers) -> None:
        self._settling = settling
        self._following = following

    async def progress(self, work: UnitOfWork, operations: Sequence[Progress]) -> Sequence[Any]:
        """Record how far attempts are; what is not the task's running attempt changes nothing."""
        return await on_attempts(work, operations, self._progress_round)

    async def _progress_round(
        self, work: UnitOfWork, items: Sequence[tuple[Progress, AttemptWithTask]]
    ) -> list[Any]:
        running = [
            (operation, attempt)
            for operation, attempt in items
            if attempt.current and attempt.task.state is TaskState.RUNNING
        ]
        await self._settling.update_tasks(
            work,
            [
                {
                    "task_id": attempt.task_id,
                    "progress_percent": operation.percent,
                    "progress_message": operation.message,
                    "update_time": operation.now,
                }
                for operation, attempt in running
            ],
        )
        self._following.progressed(work, running)
        return [None] * len(items)

    async def append_output(self, work: UnitOfWork, operations: Sequence[AppendOutput]) -> Sequence[Any]:
        """Append chunks that continue an output; those that are here already change nothing."""
        return await on_attempts(work, operations, self._append_round)

    async def _append_round(
        self, work: UnitOfWork, items: Sequence[tuple[AppendOutput, AttemptWithTask]]
    ) -> list[Any]:
        judged = [(operation, attempt, judge_chunk(attempt, operation)) for operation, attempt in items]
        new = [(operation, attempt) for operation, attempt, place in judged if place is ChunkPlace.NEXT]
        await store.insert_output(
            work,
            [
                {
                    "attempt_id": operation.attempt_id,
                    "stream": operation.chunk.stream,
                    "offset": operation.chunk.offset,
                    "data": operation.chunk.data,
                }
                for operation, _ in new
            ],
        )
        await store.update_attempts(work, [lengths_after(attempt, operation) for operation, attempt in new])
        return [place if isinstance(place, Exception) else None for _, _, place in judged]

    async def finish(self, work: UnitOfWork, operations: Sequence[Finish]) -> Sequence[Any]:
        """Commit results: each decides its attempt once, and its task as the rules say."""
        return await on_attempts(work, operations, self._finish_round)

    async def _finish_round(
        self, work: UnitOfWork, items: Sequence[tuple[Finish, AttemptWithTask]]
    ) -> list[Finished | InvalidArgument]:
        judged = [
            (operation, attempt, judge_lengths(attempt, operation))
            for operation, attempt in items
            if attempt.attempt_state is not AttemptState.FINISHED
        ]
        refused = {attempt.attempt_id: refusal for _, attempt, refusal in judged if refusal is not None}
        new = [(operation, attempt) for operation, attempt, refusal in judged if refusal is None]
        decided = [
            (
                attempt,
                rules.event_of_result(attempt.task, attempt.attempt_state, operation.outcome),
                operation.reason,
                operation.now,
            )
            for operation, attempt in new
        ]
        reports = {
            operation.attempt_id: {
                "outcome": int(operation.outcome),
                "result": operation.result,
                "summary": operation.summary,
            }
            for operation, _ in new
        }
        await self._settling.settle(work, decided, AttemptState.FINISHED, reports)
        self._following.finished(work, new)
        stop = await self._end_others(
            work,
            {
                attempt.task_id: now
                for attempt, event, _, now in decided
                if event is not None and not attempt.current
            },
        )
        committed = {attempt.attempt_id for _, attempt in new}
        return [
            refused.get(attempt.attempt_id)
            or Finished(
                attempt.task_id,
                Disposition.COMMITTED if attempt.attempt_id in committed else Disposition.DUPLICATE,
                tuple(stop.get(attempt.task_id, ())),
            )
            for _, attempt in items
        ]

    async def _end_others(self, work: UnitOfWork, times: Mapping[str, int]) -> dict[str, list[str]]:
        """End what is still live of tasks that an attempt decided which was not their current one.

        ``times`` are instants by task id; returns the ids of the attempts that ended, by task.
        """
        live = await store.live_attempts_of(work.connection, times) if times else []
        await store.update_attempts(
            work,
            [
                {
                    "attempt_id": other.attempt_id,
                    "state": int(rules.state_when_unwanted(other.attempt_state)),
                    "end_time": times[other.task_id],
                }
                for other in live
            ],
        )
        noting.overtaken(work, live, times)
        ended: dict[str, list[str]] = {}
        for other in live:
            ended.setdefault(other.task_id, []).append(other.attempt_id)
        return ended
