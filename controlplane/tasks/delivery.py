"""Applies the operations of agents' streams: reads a set, decides by the rules, writes a set."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from controlplane.clock import duration_micros
from controlplane.errors import NotFound
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.writer import Writer
from controlplane.tasks import rules
from controlplane.tasks.chunks import judge_chunk, lengths_after
from controlplane.tasks.operations import (
    Accept,
    Adopt,
    Adopted,
    AppendOutput,
    Disposition,
    Finish,
    Lease,
    Progress,
)
from controlplane.tasks.records import Assigned
from controlplane.tasks.rules import Acceptance, AttemptState, ChunkPlace, Event, TaskState
from controlplane.tasks.store import delivery as store
from controlplane.tasks.store.delivery import AttemptWithTask

OnAttempt = Accept | Progress | AppendOutput | Finish
ApplyRound = Callable[[UnitOfWork, Any], Awaitable[list[Any]]]
"""Applies (operation, attempt) pairs, at most one of each task; returns one outcome each."""


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
            taken: set[str] = set()
            for attempt_id, finished in journal.items():
                attempt = known.get(attempt_id)
                if attempt is None or attempt.agent_id != operation.agent_id:
                    stop.extend(() if finished else (attempt_id,))
                    continue
                acceptance = rules.accept(attempt.task, attempt.attempt_state)
                if acceptance is Acceptance.RUN and attempt.task_id in taken:
                    acceptance = Acceptance.STOP
                if acceptance is Acceptance.RUN:
                    taken.add(attempt.task_id)
                    accepted.append((attempt, operation.now))
                if not finished and (acceptance is Acceptance.STOP or attempt.task.cancel_requested):
                    stop.append(attempt_id)
            resend = [
                attempt.attempt_id
                for attempt in live
                if attempt.agent_id == operation.agent_id
                and attempt.attempt_state is AttemptState.LEASED
                and attempt.attempt_id not in journal
                and attempt.task_id not in taken
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
        taken_over = {attempt.task_id for attempt, _ in accepted}
        await self._cancel_untaken(
            work, [attempt for attempt in live if attempt.task_id not in taken_over], operations
        )
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

    async def _on_attempts(
        self, work: UnitOfWork, operations: Sequence[OnAttempt], apply: ApplyRound
    ) -> list[Any]:
        """Answer operations on attempts; ``apply`` gets those whose attempt is their agent's.

        It is called once, unless several are about one task: those take effect one
        after the other, each on what the one before it made of the task.
        """
        outcomes: list[Any] = [None] * len(operations)
        waiting = list(range(len(operations)))
        while waiting:
            known = await store.attempts(work.connection, {operations[at].attempt_id for at in waiting})
            this_round: dict[str, tuple[int, AttemptWithTask]] = {}
            later = []
            for at in waiting:
                attempt = known.get(operations[at].attempt_id)
                if attempt is None or attempt.agent_id != operations[at].agent_id:
                    outcomes[at] = unknown_attempt(operations[at].attempt_id)
                elif attempt.task_id in this_round:
                    later.append(at)
                else:
                    this_round[attempt.task_id] = (at, attempt)
            chosen = list(this_round.values())
            answers = await apply(work, [(operations[at], attempt) for at, attempt in chosen])
            for (at, _), answer in zip(chosen, answers, strict=True):
                outcomes[at] = answer
            waiting = later
        return outcomes

    async def accept(self, work: UnitOfWork, operations: Sequence[Accept]) -> Sequence[Any]:
        """Record that attempts are journalled."""
        return await self._on_attempts(work, operations, self._accept_round)

    async def _accept_round(
        self, work: UnitOfWork, items: Sequence[tuple[Accept, AttemptWithTask]]
    ) -> list[Any]:
        answers = [rules.accept(attempt.task, attempt.attempt_state) for _, attempt in items]
        await self._accept(
            work,
            [
                (attempt, operation.now)
                for (operation, attempt), answer in zip(items, answers, strict=True)
                if answer is Acceptance.RUN
            ],
        )
        return answers

    async def _accept(self, work: UnitOfWork, accepted: Sequence[tuple[AttemptWithTask, int]]) -> None:
        grace = duration_micros(rules.RUN_GRACE)
        # One whose lease had lapsed takes the place of the one that was handed out since.
        await store.lapse_leases(work, {item.task_id: now for item, now in accepted if not item.current})
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
        return await self._on_attempts(work, operations, self._progress_round)

    async def _progress_round(
        self, work: UnitOfWork, items: Sequence[tuple[Progress, AttemptWithTask]]
    ) -> list[Any]:
        await self._update_tasks(
            work,
            [
                {
                    "task_id": attempt.task_id,
                    "progress_percent": operation.percent,
                    "progress_message": operation.message,
                    "update_time": operation.now,
                }
                for operation, attempt in items
                if attempt.current and attempt.task.state is TaskState.RUNNING
            ],
        )
        return [None] * len(items)

    async def append_output(self, work: UnitOfWork, operations: Sequence[AppendOutput]) -> Sequence[Any]:
        """Append chunks that continue an output; those that are here already change nothing."""
        return await self._on_attempts(work, operations, self._append_round)

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
        return await self._on_attempts(work, operations, self._finish_round)

    async def _finish_round(
        self, work: UnitOfWork, items: Sequence[tuple[Finish, AttemptWithTask]]
    ) -> list[Any]:
        new = [item for item in items if item[1].attempt_state is not AttemptState.FINISHED]
        await store.update_attempts(
            work,
            [
                {
                    "attempt_id": operation.attempt_id,
                    "outcome": int(operation.outcome),
                    "result": operation.result,
                    "summary": operation.summary,
                }
                for operation, _ in new
            ],
        )
        decided = [
            (
                attempt,
                rules.event_of_result(attempt.task, attempt.attempt_state, operation.outcome),
                operation.reason,
                operation.now,
            )
            for operation, attempt in new
        ]
        await self.settle(work, decided, AttemptState.FINISHED)
        return [
            Disposition.DUPLICATE if attempt.attempt_state is AttemptState.FINISHED else Disposition.COMMITTED
            for _, attempt in items
        ]

    async def lose_journals(self, work: UnitOfWork, times: Mapping[str, int]) -> int:
        """Give up what agents had in hand when they lost their journals; returns how many attempts.

        ``times`` are instants by agent id. Takes part in the commit that stores the new journals.
        """
        live = await store.live_attempts(work.connection, times)
        reason = "the agent came back without its journal; whether the work had an effect is not known"
        await self.settle(
            work,
            [
                (attempt, rules.event_of_interruption(attempt.task), reason, times[attempt.agent_id])
                for attempt in live
            ],
            AttemptState.ABANDONED,
        )
        return len(live)

    async def settle(
        self,
        work: UnitOfWork,
        decided: Sequence[tuple[AttemptWithTask, Event | None, str, int]],
        ending: AttemptState,
    ) -> None:
        """End attempts as ``ending`` and let each event befall its task, if that is still open.

        Each item is (attempt, event, reason, now); an event of None leaves the task as it is.
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
                _task_after(attempt, event, reason, now, reported=ending is AttemptState.FINISHED)
                for attempt, event, reason, now in decided
                if event is not None and not rules.is_final(attempt.task.state)
            ],
        )

    async def _update_tasks(self, work: UnitOfWork, rows: Sequence[dict[str, Any]]) -> None:
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
