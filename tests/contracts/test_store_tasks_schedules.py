"""Any schedule of what one agent may send, also twice and out of order, on a real database.

The agent here keeps to nothing: it answers attempts that it was never sent, forgets its
journal, reports two results of one attempt at once. Whatever it does, the rows keep their
invariants and no operation ends in another way than an outcome or a refusal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.errors import ServiceError
from controlplane.storage.location import Location
from controlplane.tasks.records import Window
from controlplane.tasks.rules import FINAL, AttemptState, OfflinePolicy, Outcome, TaskState
from tests.contracts.agents_world import OPERATOR
from tests.contracts.tasks_world import SECOND, TasksWorld, open_tasks_world

OPEN_HAS = {
    TaskState.QUEUED: [],
    TaskState.LEASED: [AttemptState.LEASED],
    TaskState.RUNNING: [AttemptState.RUNNING],
}
SENT = ("accept", "finish", "progress", "output", "lease", "adopt", "lose")
OTHER = ("create", "batch", "cancel", "cancel batch", "replay", "wait", "sweep", "open", "leave")
EXAMPLES = 300
# Open for 10 minutes of each half hour.
WINDOW = Window("*/30 * * * *", "Europe/Berlin", 600 * SECOND)
POLICIES: tuple[dict[str, Any], ...] = (
    {},
    {"offline": OfflinePolicy.SKIP},
    {"offline": OfflinePolicy.LATEST, "key": "k"},
    {"offline": OfflinePolicy.WINDOW, "window": WINDOW, "queue": 7_200},
)

number = st.integers(0, 7)
sent = st.tuples(st.sampled_from(SENT), number, st.sampled_from(Outcome))
other = st.tuples(st.sampled_from(OTHER), number, st.sampled_from(Outcome))
# A step of several happens at once: one commit, in which order the writer may choose.
steps = st.lists(
    st.one_of(other.map(lambda one: [one]), st.lists(sent, min_size=1, max_size=4)), min_size=8, max_size=25
)
Step = list[tuple[str, int, Outcome]]


class Agent:
    """One agent, and what the test has seen of its tasks."""

    def __init__(self, work: TasksWorld, agent_id: str) -> None:
        self.work = work
        self.agent_id = agent_id
        self.epoch = 1
        self.attempts: list[str] = []
        self.online = True
        self.batches: list[str] = []
        self.finals: dict[str, Any] = {}
        self.results: dict[str, Any] = {}

    async def act(self, step: Step) -> None:
        outcomes = await asyncio.gather(*(self.action(*one) for one in step), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, ServiceError):
                raise outcome
        await self.check()

    def action(self, kind: str, which: int, outcome: Outcome) -> Awaitable[object]:
        work, agent_id = self.work, self.agent_id
        attempt_id = self.attempts[-1 - which % len(self.attempts)] if self.attempts else "none"
        match kind:
            case "accept":
                return work.accept(attempt_id, agent_id)
            case "finish":
                return work.finish(attempt_id, outcome, agent_id)
            case "progress":
                return work.progress(attempt_id, which, agent_id)
            case "output":
                return work.output(attempt_id, which, b"xyz"[: 1 + which % 3], agent_id=agent_id)
            case "lease":
                return self.lease(1 + which % 3)
            case "adopt":
                journal = dict.fromkeys(self.attempts[which % 4 :: 1 + which % 2], which % 2 == 0)
                return work.adopt(journal, agent_id, self.epoch)
            case "lose":
                return work.lose_journal(agent_id)
            case _:
                return self.elsewhere(kind, which)

    async def lease(self, limit: int) -> None:
        for assigned in await self.work.lease(self.agent_id, limit, self.epoch):
            self.attempts.append(assigned.attempt_id)
            task = await self.work.get(assigned.task_id)
            if (task.state, task.attempt_count) != (TaskState.LEASED, assigned.number):
                continue  # what happened at the same moment has moved it on, and on when it is due
            assert task.due.not_before <= self.work.now, "handed out before it was due"
            assert task.due.window_end is None or self.work.now < task.due.window_end, "outside its window"

    async def elsewhere(self, kind: str, which: int) -> None:
        """Do what others than the agent do."""
        work = self.work
        match kind:
            case "create" | "batch":
                await self.create(which, batch=kind == "batch")
            case "cancel" | "replay" | "cancel batch":
                await self.administer(kind, which)
            case "wait":
                work.advance(60 * (1 + which))
            case "sweep":
                await work.sweep.run()
            case "open":
                opened = await work.world.open(self.agent_id, handed=b"n%d" % self.epoch)
                self.epoch, self.online = opened.epoch, True
            case "leave":
                await work.leave(self.agent_id, self.epoch)
                self.online = False

    async def create(self, which: int, *, batch: bool) -> None:
        work = self.work
        options: dict[str, Any] = {
            "idempotent": which % 2 == 0,
            "attempts": 1 + which % 3,
            "queue": 300 * (1 + which),
            "limit": 60,
            **POLICIES[which % len(POLICIES)],
        }
        if batch:
            self.batches.append((await work.batch(f"agent_id = {self.agent_id}", **options)).batch_id)
            return
        task = await work.get(await work.create(self.agent_id, **options))
        skipped = task.options.offline is OfflinePolicy.SKIP and not self.online
        assert task.state is (TaskState.SKIPPED if skipped else TaskState.QUEUED)

    async def administer(self, kind: str, which: int) -> None:
        work, rows = self.work, await self.tasks()
        task_id = rows[which % len(rows)].task_id
        if kind == "cancel":
            await work.tasks.cancel(OPERATOR, task_id)
        elif kind == "replay":
            await work.tasks.replays.replay(OPERATOR, task_id, "")
        else:
            for batch_id in self.batches[-1:]:
                await work.tasks.batches.cancel(OPERATOR, batch_id)

    async def vanish(self) -> None:
        """Leave for ever: every task has an end all the same, and the one that was asked for."""
        asked = [task.task_id for task in await self.tasks() if task.cancel_requested and task.state < 4]
        await self.work.leave(self.agent_id, self.epoch)
        for _ in range(4):
            self.work.advance(3_700)
            await self.work.sweep.run()
        await self.check()
        ended = {task.task_id: TaskState(task.state) for task in await self.tasks()}
        assert set(ended.values()) <= FINAL
        assert {ended[task_id] for task_id in asked} <= {TaskState.CANCELLED}

    async def tasks(self) -> list[Any]:
        return await self.work.rows(f"SELECT * FROM tasks WHERE agent_id = '{self.agent_id}'")

    async def check(self) -> None:
        attempts = await self.work.rows(f"SELECT * FROM task_attempts WHERE agent_id = '{self.agent_id}'")
        of_task: dict[str, list[Any]] = {}
        for attempt in attempts:
            of_task.setdefault(attempt.task_id, []).append(attempt)
            if attempt.state == AttemptState.FINISHED:
                first = self.results.setdefault(attempt.attempt_id, attempt)
                assert attempt == first, "a result is decided once"
        tasks = await self.tasks()
        for task in tasks:
            self.check_task(task, of_task.get(task.task_id, []))
        waiting = [task for task in tasks if task.state == TaskState.QUEUED and task.supersede_key]
        assert len(waiting) <= 1, "two of one key wait"
        output = await self.work.rows(
            'SELECT attempt_id, stream, COUNT(DISTINCT "offset") AS places, COUNT(*) AS chunks, '
            'SUM(LENGTH(data)) AS bytes, MAX("offset" + LENGTH(data)) AS upto FROM task_output GROUP BY 1, 2'
        )
        assert all(row.places == row.chunks and row.bytes == row.upto for row in output)

    def check_task(self, task: Any, attempts: list[Any]) -> None:
        state = TaskState(task.state)
        live = [AttemptState(one.state) for one in attempts if one.state < AttemptState.FINISHED]
        if state in FINAL:
            first = self.finals.setdefault(task.task_id, task)
            assert task == first, "a final task stays as it is"
            assert live == [], "nothing goes on for a task that is decided"
        else:
            assert task.task_id not in self.finals
            assert live == OPEN_HAS[state]
        assert not (state is TaskState.QUEUED and (task.cancel_requested or task.superseded))
        assert not (state is TaskState.SKIPPED and task.offline_policy != OfflinePolicy.SKIP)
        assert not (state is TaskState.SUPERSEDED and task.supersede_key is None)
        if task.replay_of is not None:
            assert task.replay_of in self.finals, "what was replayed had ended"
        assert len(attempts) == task.attempt_count
        assert task.failed_count <= task.max_attempts
        if not task.idempotent and any(one.state == AttemptState.ABANDONED for one in attempts):
            assert state in FINAL, "run again although its effect is not known"
        if any(one.outcome == Outcome.SUCCEEDED for one in attempts):
            assert state in FINAL, "done, and yet to be done again"


@pytest.mark.slow
def test_no_schedule_breaks_what_the_rows_promise(location: Location) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        work = runner.run(stack.enter_async_context(open_tasks_world(location)))
        agents = iter(range(1_000_000))

        async def play(schedule: list[Step]) -> None:
            agent = Agent(work, f"p{next(agents)}")
            await work.world.enrol(agent.agent_id)
            await work.world.open(agent.agent_id)
            for setup in ("create", "lease", "create"):
                await agent.act([(setup, 4, Outcome.SUCCEEDED)])
            for step in schedule:
                await agent.act(step)
            await agent.vanish()

        @settings(max_examples=EXAMPLES, deadline=None)
        @given(steps)
        def check(schedule: list[Step]) -> None:
            runner.run(play(schedule))

        try:
            check()
        finally:
            runner.run(stack.aclose())
