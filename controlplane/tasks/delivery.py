"""Applies the operations of agents' streams: reads a set, decides by the rules, writes a set."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from controlplane.clock import duration_micros
from controlplane.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.writer import Writer
from controlplane.tasks import rules
from controlplane.tasks.operations import (
    Accept,
    Adopt,
    Adopted,
    AppendOutput,
    Disposition,
    Finish,
    Lease,
    LoseJournal,
    Progress,
)
from controlplane.tasks.records import Assigned
from controlplane.tasks.rules import Acceptance, AttemptState, ChunkPlace, Event, TaskState
from controlplane.tasks.store import delivery as store
from controlplane.tasks.store.delivery import AttemptWithTask

MAX_OUTPUT_BYTES = 16 << 20
"""Output kept of one attempt, all streams together; the contract's largest ``output_limit``."""

_RECEIVED_COLUMN = {1: "stdout_bytes", 2: "stderr_bytes", 3: "log_bytes"}


def unknown_attempt(attempt_id: str) -> NotFound:
    """Return the refusal of an attempt that is unknown or another agent's; both look alike outside."""
    return NotFound(
        "ATTEMPT_UNKNOWN",
        f"attempt_id: this agent has no attempt {attempt_id!r}; forget it",
        metadata={"attempt_id": attempt_id},
    )


class Delivery:
    """The appliers of the tasks room. ``changed`` is called after each commit that changed a task."""

    def __init__(self, lease_time: timedelta, changed: Callable[[], None]) -> None:
        self._lease_time = duration_micros(lease_time)
        self._changed = changed

    def register(self, writer: Writer) -> None:
        """Say to the writer who applies what."""
        writer.register(Adopt, self.adopt)
        writer.register(Lease, self.lease)
        writer.register(LoseJournal, self.lose_journals)
        writer.register(Accept, self.accept)
        writer.register(Progress, self.progress)
        writer.register(AppendOutput, self.append_output)
        writer.register(Finish, self.finish)

    async def lease(self, work: UnitOfWork, operations: Sequence[Lease]) -> Sequence[tuple[Assigned, ...]]:
        """Hand out queued tasks in their order."""
        now = max(operation.now for operation in operations)
        found = await store.queued(
            work.connection, {operation.agent_id: operation.limit for operation in operations}, now
        )
        attempts: list[dict[str, Any]] = []
        tasks: list[dict[str, Any]] = []
        outcomes: list[tuple[Assigned, ...]] = []
        for operation in operations:
            assigned = []
            for row in found[operation.agent_id]:
                number = row.attempt_count + 1
                attempt_id = secrets.token_hex(16)
                assigned.append(
                    Assigned(attempt_id, row.task_id, number, row.spec, row.run_limit, bool(row.idempotent))
                )
                attempts.append(self._new_attempt(attempt_id, row.task_id, number, operation))
                tasks.append(
                    {
                        "task_id": row.task_id,
                        "state": int(rules.transition(TaskState(row.state), Event.LEASE)),
                        "state_time": operation.now,
                        "update_time": operation.now,
                        "state_reason": "",
                        "attempt_count": number,
                        "current_attempt_id": attempt_id,
                        "progress_percent": 0,
                        "progress_message": "",
                    }
                )
            outcomes.append(tuple(assigned))
        await store.insert_attempts(work, attempts)
        await self._update_tasks(work, tasks)
        return outcomes

    def _new_attempt(self, attempt_id: str, task_id: str, number: int, operation: Lease) -> dict[str, Any]:
        return {
            "attempt_id": attempt_id,
            "task_id": task_id,
            "agent_id": operation.agent_id,
            "number": number,
            "state": int(AttemptState.LEASED),
            "session_epoch": operation.epoch,
            "lease_time": operation.now,
            "lease_expire_time": operation.now + self._lease_time,
        }

    async def adopt(self, work: UnitOfWork, operations: Sequence[Adopt]) -> Sequence[Adopted]:
        """Compare each agent's journal with what it was handed."""
        listed = {attempt_id for operation in operations for attempt_id, _ in operation.journal}
        known = await store.attempts(work.connection, listed) if listed else {}
        live = await store.live_attempts(work.connection, {operation.agent_id for operation in operations})
        accepted: list[tuple[AttemptWithTask, int]] = []
        leases: list[dict[str, Any]] = []
        answers: list[tuple[list[str], list[str]]] = []
        for operation in operations:
            stop: list[str] = []
            journal = dict(operation.journal)
            for attempt_id, finished in journal.items():
                attempt = known.get(attempt_id)
                if attempt is None or attempt.agent_id != operation.agent_id:
                    stop.extend(() if finished else (attempt_id,))
                    continue
                acceptance = rules.accept(attempt.task, attempt.attempt_state)
                if acceptance is Acceptance.RUN:
                    accepted.append((attempt, operation.now))
                if not finished and (acceptance is Acceptance.STOP or attempt.task.cancel_requested):
                    stop.append(attempt_id)
            resend = [
                attempt.attempt_id
                for attempt in live
                if attempt.agent_id == operation.agent_id
                and attempt.attempt_state is AttemptState.LEASED
                and attempt.attempt_id not in journal
                and not attempt.task.cancel_requested
                and not rules.is_final(attempt.task.state)
            ]
            leases.extend(self._renewed(attempt_id, operation) for attempt_id in resend)
            answers.append((stop, resend))
        await self._accept(work, accepted)
        await store.update_attempts(work, leases)
        again = {
            assigned.attempt_id: assigned
            for assigned in await store.assignments(
                work.connection, [attempt_id for _, resend in answers for attempt_id in resend]
            )
        }
        await self._cancel_untaken(work, live, operations)
        return [Adopted(tuple(stop), tuple(again[item] for item in resend)) for stop, resend in answers]

    def _renewed(self, attempt_id: str, operation: Adopt) -> dict[str, Any]:
        return {
            "attempt_id": attempt_id,
            "session_epoch": operation.epoch,
            "lease_expire_time": operation.now + self._lease_time,
        }

    async def _cancel_untaken(
        self, work: UnitOfWork, live: Iterable[AttemptWithTask], operations: Sequence[Adopt]
    ) -> None:
        # Handed out, not in the journal, and to be cancelled: the agent never took
        # it, and it is not sent again, so it is cancelled now.
        journals = {operation.agent_id: dict(operation.journal) for operation in operations}
        now = max(operation.now for operation in operations)
        untaken = [
            (attempt, Event.CANCEL, "cancelled before the agent took it", now)
            for attempt in live
            if attempt.attempt_state is AttemptState.LEASED
            and attempt.task.cancel_requested
            and attempt.attempt_id not in journals[attempt.agent_id]
        ]
        await self.settle(work, untaken, AttemptState.LAPSED)

    async def accept(self, work: UnitOfWork, operations: Sequence[Accept]) -> Sequence[Any]:
        """Record that attempts are journalled."""
        known = await store.attempts(work.connection, (operation.attempt_id for operation in operations))
        outcomes: list[Any] = []
        accepted: list[tuple[AttemptWithTask, int]] = []
        for operation in operations:
            attempt = known.get(operation.attempt_id)
            if attempt is None or attempt.agent_id != operation.agent_id:
                outcomes.append(unknown_attempt(operation.attempt_id))
                continue
            acceptance = rules.accept(attempt.task, attempt.attempt_state)
            if acceptance is Acceptance.RUN:
                accepted.append((attempt, operation.now))
            outcomes.append(acceptance)
        await self._accept(work, accepted)
        return outcomes

    async def _accept(self, work: UnitOfWork, accepted: Sequence[tuple[AttemptWithTask, int]]) -> None:
        grace = duration_micros(rules.RUN_GRACE)
        await store.update_attempts(
            work,
            [
                {
                    "attempt_id": attempt.attempt_id,
                    "state": int(AttemptState.RUNNING),
                    "accept_time": now,
                    "run_deadline": now + attempt.run_limit + grace,
                    "end_time": None,
                }
                for attempt, now in accepted
            ],
        )
        await self._update_tasks(
            work,
            [
                {
                    "task_id": attempt.task_id,
                    "state": int(rules.transition(attempt.task.state, Event.ACCEPT)),
                    "state_time": now,
                    "update_time": now,
                    "current_attempt_id": attempt.attempt_id,
                }
                for attempt, now in accepted
            ],
        )

    async def progress(self, work: UnitOfWork, operations: Sequence[Progress]) -> Sequence[Any]:
        """Record how far attempts are; what is not the task's running attempt changes nothing."""
        known = await store.attempts(work.connection, (operation.attempt_id for operation in operations))
        outcomes: list[Any] = []
        rows = []
        for operation in operations:
            attempt = known.get(operation.attempt_id)
            if attempt is None or attempt.agent_id != operation.agent_id:
                outcomes.append(unknown_attempt(operation.attempt_id))
                continue
            outcomes.append(None)
            if attempt.current and attempt.task.state is TaskState.RUNNING:
                rows.append(
                    {
                        "task_id": attempt.task_id,
                        "progress_percent": operation.percent,
                        "progress_message": operation.message,
                        "update_time": operation.now,
                    }
                )
        await self._update_tasks(work, rows)
        return outcomes

    async def append_output(self, work: UnitOfWork, operations: Sequence[AppendOutput]) -> Sequence[Any]:
        """Append chunks that continue an output; those that are here already change nothing."""
        known = await store.attempts(work.connection, (operation.attempt_id for operation in operations))
        outcomes: list[Any] = []
        rows: list[dict[str, Any]] = []
        lengths: list[dict[str, Any]] = []
        for operation in operations:
            attempt = known.get(operation.attempt_id)
            if attempt is None or attempt.agent_id != operation.agent_id:
                outcomes.append(unknown_attempt(operation.attempt_id))
                continue
            outcome = _judge_chunk(attempt, operation)
            outcomes.append(outcome if isinstance(outcome, Exception) else None)
            if outcome is ChunkPlace.NEXT:
                chunk = operation.chunk
                rows.append(
                    {
                        "attempt_id": attempt.attempt_id,
                        "stream": chunk.stream,
                        "offset": chunk.offset,
                        "data": chunk.data,
                    }
                )
                lengths.append(_lengths_after(attempt, operation))
        await store.insert_output(work, rows)
        await store.update_attempts(work, lengths)
        return outcomes

    async def finish(self, work: UnitOfWork, operations: Sequence[Finish]) -> Sequence[Any]:
        """Commit results: each decides its attempt once, and its task while that is open."""
        known = await store.attempts(work.connection, (operation.attempt_id for operation in operations))
        outcomes: list[Any] = []
        results: list[dict[str, Any]] = []
        decided: list[tuple[AttemptWithTask, Event, str, int]] = []
        for operation in operations:
            attempt = known.get(operation.attempt_id)
            if attempt is None or attempt.agent_id != operation.agent_id:
                outcomes.append(unknown_attempt(operation.attempt_id))
                continue
            if attempt.attempt_state is AttemptState.FINISHED:
                outcomes.append(Disposition.DUPLICATE)
                continue
            outcomes.append(Disposition.COMMITTED)
            results.append(
                {
                    "attempt_id": attempt.attempt_id,
                    "outcome": int(operation.outcome),
                    "result": operation.result,
                    "summary": operation.summary,
                }
            )
            decided.append(
                (
                    attempt,
                    rules.event_of_result(attempt.task, operation.outcome),
                    operation.reason,
                    operation.now,
                )
            )
        await store.update_attempts(work, results)
        await self.settle(work, decided, AttemptState.FINISHED)
        return outcomes

    async def lose_journals(self, work: UnitOfWork, operations: Sequence[LoseJournal]) -> Sequence[int]:
        """Give up what agents had in hand when they lost their journals."""
        live = await store.live_attempts(work.connection, {operation.agent_id for operation in operations})
        times = {operation.agent_id: operation.now for operation in operations}
        reason = "the agent came back without its journal; whether the work had an effect is not known"
        await self.settle(
            work,
            [
                (attempt, rules.event_of_interruption(attempt.task), reason, times[attempt.agent_id])
                for attempt in live
            ],
            AttemptState.ABANDONED,
        )
        return [sum(attempt.agent_id == operation.agent_id for attempt in live) for operation in operations]

    async def settle(
        self,
        work: UnitOfWork,
        decided: Sequence[tuple[AttemptWithTask, Event, str, int]],
        ending: AttemptState,
    ) -> None:
        """End attempts as ``ending`` and let each event befall its task, if that is still open.

        Each item is (attempt, event, reason, now).
        """
        await store.update_attempts(
            work,
            [
                {"attempt_id": attempt.attempt_id, "state": int(ending), "end_time": now}
                for attempt, _, _, now in decided
            ],
        )
        await self._update_tasks(
            work,
            [
                _task_after(attempt, event, reason, now)
                for attempt, event, reason, now in decided
                if not rules.is_final(attempt.task.state)
            ],
        )

    async def _update_tasks(self, work: UnitOfWork, rows: Sequence[dict[str, Any]]) -> None:
        if rows:
            await store.update_tasks(work, rows)
            work.after_commit(self._changed)


def _task_after(attempt: AttemptWithTask, event: Event, reason: str, now: int) -> dict[str, Any]:
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
        "decided_attempt_id": attempt.attempt_id if rules.is_final(state) else None,
    }


def _judge_chunk(
    attempt: AttemptWithTask, operation: AppendOutput
) -> ChunkPlace | FailedPrecondition | InvalidArgument | ResourceExhausted:
    chunk = operation.chunk
    if attempt.attempt_state is AttemptState.FINISHED:
        # Sent again after its result was committed: the agent has not heard of it yet.
        return ChunkPlace.KNOWN
    place = rules.place_chunk(attempt.received[chunk.stream], chunk.offset, len(chunk.data))
    if place is ChunkPlace.GAP:
        return InvalidArgument(
            "PROTOCOL_VIOLATION",
            f"chunk.offset: {chunk.offset} does not continue the {attempt.received[chunk.stream]} bytes "
            "received; send the output of this attempt from the first byte that is missing",
            metadata={"expected_offset": str(attempt.received[chunk.stream])},
        )
    if place is ChunkPlace.NEXT and sum(attempt.received.values()) + len(chunk.data) > MAX_OUTPUT_BYTES:
        return ResourceExhausted(
            "LIMIT_EXCEEDED",
            f"chunk.data: an attempt may have {MAX_OUTPUT_BYTES} bytes of output; discard the rest and "
            "count it in discarded_bytes",
        )
    return place


def _lengths_after(attempt: AttemptWithTask, operation: AppendOutput) -> dict[str, Any]:
    lengths = {column: attempt.received[stream] for stream, column in _RECEIVED_COLUMN.items()}
    lengths[_RECEIVED_COLUMN[operation.chunk.stream]] += len(operation.chunk.data)
    return {"attempt_id": attempt.attempt_id, **lengths}
