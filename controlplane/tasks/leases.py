"""Applies what hands tasks out: leases, journals that agents list, acceptance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from controlplane.clock import duration_micros
from controlplane.ids import new_id
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks import rules
from controlplane.tasks.ledger import noting
from controlplane.tasks.operations import Accept, Adopt, Adopted, Lease
from controlplane.tasks.records import Assigned
from controlplane.tasks.rounds import on_attempts
from controlplane.tasks.rules import Acceptance, AttemptState, Event, TaskState
from controlplane.tasks.settling import Settling
from controlplane.tasks.store import delivery as store
from controlplane.tasks.store.delivery import AttemptWithTask


class Leases:
    """The appliers of Lease, Adopt and Accept."""

    def __init__(self, lease_time: timedelta, settling: Settling) -> None:
        self._lease_time = duration_micros(lease_time)
        self._settling = settling

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
                attempt_id = new_id(operation.now)
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
        noting.leased(work, attempts)
        await self._settling.update_tasks(work, tasks)
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
                # Its result came from elsewhere: this journal is an old copy, and would run it again.
                done = attempt.attempt_state is AttemptState.FINISHED
                if not finished and (done or acceptance is Acceptance.STOP or attempt.task.cancel_requested):
                    stop.append(attempt_id)
            resend = [
                attempt.attempt_id
                for attempt in live
                if attempt.agent_id == operation.agent_id
                and attempt.attempt_state is AttemptState.LEASED
                and attempt.attempt_id not in journal
                and attempt.task_id not in taken
                and rules.may_send(attempt.window_end, operation.now)
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
        leased = await self._lease_the_rest(work, operations, [len(resend) for _, resend in answers])
        return [
            Adopted(tuple(stop), tuple(again[item] for item in resend), tasks)
            for (stop, resend), tasks in zip(answers, leased, strict=True)
        ]

    async def _lease_the_rest(
        self, work: UnitOfWork, operations: Sequence[Adopt], sent_again: Sequence[int]
    ) -> Sequence[tuple[Assigned, ...]]:
        # A stream is opened because there is work: one commit finds it, not a second one.
        limits = [operation.limit - sent for operation, sent in zip(operations, sent_again, strict=True)]
        places = [place for place, limit in enumerate(limits) if limit > 0]
        found: list[tuple[Assigned, ...]] = [()] * len(operations)
        if places:
            leases = [
                Lease(operations[at].agent_id, operations[at].epoch, limits[at], operations[at].now)
                for at in places
            ]
            for at, tasks in zip(places, await self.lease(work, leases), strict=True):
                found[at] = tasks
        return found

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
        await self._settling.settle(work, untaken, AttemptState.LAPSED)

    async def accept(self, work: UnitOfWork, operations: Sequence[Accept]) -> Sequence[Any]:
        """Record that attempts are journalled."""
        return await on_attempts(work, operations, self._accept_round)

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
        noting.journaled(work, accepted)
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
        await self._settling.update_tasks(
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
