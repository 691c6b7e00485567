"""Gathers the facts of which an explanation is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.agents.service import AgentRecord, AgentsService
from controlplane.clock import Clock, duration_micros, to_micros
from controlplane.errors import NotFound
from controlplane.storage.database import Database
from controlplane.tasks import windows
from controlplane.tasks.explaining.rules import (
    AgentFacts,
    AttemptFacts,
    Explanation,
    OpenWork,
    TaskFacts,
    WindowFacts,
    explain_agent,
    explain_task,
)
from controlplane.tasks.ledger.events import DeliveryEvent
from controlplane.tasks.records import Window
from controlplane.tasks.rules import AttemptState, OfflinePolicy, Outcome, TaskState
from controlplane.tasks.store import explaining as store

_BEGUN_LATER = (TaskState.QUEUED, TaskState.LEASED)
"""States of tasks that expire."""


@dataclass(frozen=True, slots=True)
class TaskExplained:
    """A task's state, and its explanation."""

    task_id: str
    agent_id: str
    state: TaskState
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class AgentExplained:
    """An agent's presence and open work, and its explanation; ``oldest`` is the oldest task's creation."""

    agent: AgentRecord
    open_counts: Mapping[TaskState, int]
    oldest: int | None
    explanation: Explanation


class ExplainingService:
    """Explains tasks and agents."""

    def __init__(self, database: Database, agents: AgentsService, clock: Clock) -> None:
        self._database = database
        self._agents = agents
        self._clock = clock

    async def task(self, task_id: str) -> TaskExplained:
        """Explain a task. Raises ``NotFound`` TASK_UNKNOWN."""
        now = to_micros(self._clock.now())
        async with self._database.reading() as connection:
            found = await store.find(connection, task_id)
            if found is None:
                raise NotFound(
                    "TASK_UNKNOWN", f"name: there is no tasks/{task_id}; list them to see which there are"
                )
            queued = found.task.state == int(TaskState.QUEUED)
            ahead = await store.ahead(connection, found.task, now) if queued else 0
            in_hand = await store.in_hand(connection, found.task.agent_id) if queued else 0
        try:
            agent = self._facts(await self._agents.get(found.task.agent_id))
        except NotFound:
            agent = None
        facts = _task_facts(found, agent, ahead, in_hand, now)
        return TaskExplained(
            task_id, found.task.agent_id, TaskState(found.task.state), explain_task(facts, now)
        )

    async def agent(self, agent_id: str) -> AgentExplained:
        """Explain an agent. Raises ``NotFound`` AGENT_UNKNOWN."""
        now = to_micros(self._clock.now())
        agent = await self._agents.get(agent_id)
        async with self._database.reading() as connection:
            found = await store.open_work(connection, agent_id)
        work = OpenWork(
            counts={one.state.name: one.count for one in found},
            oldest=min((one.oldest for one in found), default=None),
            expires=min((one.expires for one in found if one.state in _BEGUN_LATER), default=None),
            skipping=sum(one.skipping for one in found if one.state is TaskState.QUEUED),
        )
        return AgentExplained(
            agent,
            {one.state: one.count for one in found},
            work.oldest,
            explain_agent(self._facts(agent), work, now),
        )

    def _facts(self, agent: AgentRecord) -> AgentFacts:
        limits = self._agents.limits
        return AgentFacts(
            agent_id=agent.agent_id,
            presence=agent.presence.name,
            presence_time=agent.presence_time,
            presence_reason=agent.presence_reason.name,
            presence_detail=agent.presence_detail,
            last_seen_time=agent.last_seen_time,
            session_epoch=agent.session_epoch,
            journal_id=agent.journal_id,
            task_kinds=agent.task_kinds,
            suspected_clone=agent.suspected_clone,
            certificate_expire_time=agent.certificate_expire_time,
            clock_offset=agent.clock_offset,
            stale_after=duration_micros(limits.stale_after),
            offline_after=duration_micros(limits.offline_after),
        )


def _task_facts(
    found: store.Found, agent: AgentFacts | None, ahead: int, in_hand: int, now: int
) -> TaskFacts:
    row = found.task
    attempts = {attempt.attempt_id: _attempt_facts(attempt, row) for attempt in found.attempts}
    sent = found.events.get(DeliveryEvent.SENT)
    asked = found.events.get(DeliveryEvent.CANCEL_REQUESTED)
    of_current = sent is not None and sent.attempt_id == row.current_attempt_id
    return TaskFacts(
        task_id=row.task_id,
        agent_id=row.agent_id,
        kind=row.kind,
        state=TaskState(row.state).name,
        state_time=row.state_time,
        state_reason=row.state_reason,
        cancel_requested=bool(row.cancel_requested),
        idempotent=bool(row.idempotent),
        max_attempts=row.max_attempts,
        attempt_count=row.attempt_count,
        failed_count=row.failed_count,
        progress_percent=row.progress_percent,
        progress_message=row.progress_message,
        expire_time=row.expire_time,
        not_before=row.not_before,
        agent=agent,
        current=attempts.get(row.current_attempt_id),
        decided=attempts.get(row.decided_attempt_id),
        last=list(attempts.values())[-1] if attempts else None,
        ahead=ahead,
        in_hand=in_hand,
        sent_time=sent.time if sent is not None and of_current else None,
        cancel_time=None if asked is None else asked.time,
        cancel_detail="" if asked is None else asked.detail,
        offline_policy=OfflinePolicy(row.offline_policy).name,
        supersede_key=row.supersede_key or "",
        superseded=bool(row.superseded),
        has_later=bool(row.has_later),
        replayed_as=row.replayed_as or "",
        window=None if row.window_end is None else _window_facts(row, now),
    )


def _window_facts(row: store.AnyRow, now: int) -> WindowFacts:
    window = Window(row.window_cron, row.window_zone, row.window_duration)
    try:
        # As the sweep does when this one has closed.
        due = windows.opening(window, max(now, row.window_end))
        following = due.not_before, due.not_before + window.duration
    except windows.WindowInvalid:
        following = None
    return WindowFacts(window.cron, window.zone, row.window_end - window.duration, row.window_end, following)


def _attempt_facts(row: store.AnyRow, task: store.AnyRow) -> AttemptFacts:
    # A result's reason is kept with the task while the attempt is the last one that ended.
    decides = row.attempt_id == task.decided_attempt_id or task.state == int(TaskState.QUEUED)
    return AttemptFacts(
        attempt_id=row.attempt_id,
        number=row.number,
        state=AttemptState(row.state).name,
        session_epoch=row.session_epoch,
        lease_time=row.lease_time,
        lease_expire_time=row.lease_expire_time,
        accept_time=row.accept_time,
        run_deadline=row.run_deadline,
        end_time=row.end_time,
        outcome="" if row.outcome is None else Outcome(row.outcome).name,
        reason=task.state_reason if decides else "",
    )
