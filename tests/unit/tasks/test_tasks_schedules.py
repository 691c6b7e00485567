"""Random schedules of a small fleet, by the rules alone: what the store does to sets is done to one task.

Two agents keep to the protocol: they journal an attempt before they run it, begin none of a task while
another one of it is unreported, and forget a result only when it is acknowledged. All that may go wrong
does: messages are lost and doubled, agents leave, crash and lose their journals, time passes, and
administrators change their minds. What each run really did is noted by a witness outside the rules.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.tasks import rules
from controlplane.tasks.rules import (
    Acceptance,
    AttemptState,
    Cancellation,
    Event,
    OfflinePolicy,
    Outcome,
    TaskState,
    TaskView,
)

MINUTE = 60
LEASE = 60
RUN = 120
LIVE = (AttemptState.LEASED, AttemptState.RUNNING)
AGENTS = 2


@dataclass(eq=False)
class Attempt:
    """An attempt as the server knows it."""

    task: Task
    epoch: int
    lease_end: int
    state: AttemptState = AttemptState.LEASED
    run_deadline: int = 0


@dataclass(eq=False)
class Task:
    """A task as the server knows it."""

    number: int
    agent: Agent
    view: TaskView
    policy: OfflinePolicy
    due: int
    expire: int
    window_end: int | None
    attempts: list[Attempt] = field(default_factory=list)
    current: Attempt | None = None
    asked: bool = False

    def live(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.state in LIVE]


@dataclass(eq=False)
class Agent:
    """An agent: its session, its journal (outcome None: it runs), and the assignments on their way to it."""

    epoch: int = 1
    online: bool = True
    journal: dict[Attempt, Outcome | None] = field(default_factory=dict)
    arriving: list[Attempt] = field(default_factory=list)


class Fleet:
    """The server, its agents, and the witness."""

    def __init__(self) -> None:
        self.now = 0
        self.agents = [Agent() for _ in range(AGENTS)]
        self.tasks: list[Task] = []
        self.begun: Counter[Task] = Counter()
        self.done: Counter[Task] = Counter()

    # --- what the store does

    def befall(self, task: Task, event: Event) -> None:
        """Let an event befall an open task; a step that the table does not have is a KeyError."""
        assert task.view.state not in rules.FINAL
        failed = event in (Event.RETRY, Event.FAIL, Event.EXHAUST)
        after = rules.transition(task.view.state, event)
        task.view = replace(task.view, state=after, failed_count=task.view.failed_count + failed)
        if event in (Event.RETRY, Event.REQUEUE):
            task.due = self.now + int(rules.retry_delay(task.view.attempt_count).total_seconds())

    def settle(self, attempt: Attempt, event: Event | None, ending: AttemptState) -> None:
        attempt.state = ending
        if event is not None and attempt.task.view.state not in rules.FINAL:
            self.befall(attempt.task, event)

    def create(self, agent: Agent, choice: int) -> None:
        policy = list(OfflinePolicy)[choice % 4]
        state = rules.state_at_creation(policy, online=agent.online)
        view = TaskView(state, False, bool(choice & 4), 1 + (choice >> 3) % 3, 0, 0)
        window_end = None
        due = self.now
        if policy is OfflinePolicy.WINDOW:
            due, window_end = self.window()
        task = Task(len(self.tasks), agent, view, policy, due, self.now + 60 * MINUTE, window_end)
        if policy is OfflinePolicy.LATEST:
            for older in self.of(agent):
                if older.policy is OfflinePolicy.LATEST and older.view.state not in rules.FINAL:
                    if older.view.state is TaskState.QUEUED:
                        self.befall(older, Event.SUPERSEDE)
                    older.view = replace(older.view, superseded=True)
        self.tasks.append(task)

    def window(self) -> tuple[int, int]:
        """Return the window that is open or the next one: five minutes of every ten."""
        begin = self.now - self.now % (10 * MINUTE)
        if self.now >= begin + 5 * MINUTE:
            begin += 10 * MINUTE
        return max(begin, self.now), begin + 5 * MINUTE

    def of(self, agent: Agent) -> Iterator[Task]:
        return (task for task in self.tasks if task.agent is agent)

    def lease(self, agent: Agent) -> None:
        if not agent.online:
            return
        for task in self.of(agent):
            may = task.due <= self.now < task.expire and rules.may_send(task.window_end, self.now)
            if task.view.state is TaskState.QUEUED and may:
                self.befall(task, Event.LEASE)
                task.view = replace(task.view, attempt_count=task.view.attempt_count + 1)
                attempt = Attempt(task, agent.epoch, self.now + LEASE)
                task.attempts.append(attempt)
                task.current = attempt
                agent.arriving.append(attempt)
                return

    def accept(self, attempt: Attempt) -> Acceptance:
        task = attempt.task
        answer = rules.accept(task.view, attempt.state)
        if answer is Acceptance.RUN:
            for other in task.live():
                if other is not attempt:
                    assert other.state is AttemptState.LEASED
                    other.state = AttemptState.LAPSED
            self.befall(task, Event.ACCEPT)
            attempt.state, attempt.run_deadline = AttemptState.RUNNING, self.now + RUN
            task.current = attempt
        return answer

    def result(self, attempt: Attempt, outcome: Outcome) -> None:
        if attempt.state is AttemptState.FINISHED:
            return
        before = attempt.task.view
        event = rules.event_of_result(before, attempt.state, outcome)
        self.settle(attempt, event, AttemptState.FINISHED)
        if event is not None:
            for other in attempt.task.live():
                other.state = rules.state_when_unwanted(other.state)
        if outcome is Outcome.SUCCEEDED and before.state not in rules.FINAL:
            assert attempt.task.view.state is TaskState.SUCCEEDED

    def sweep(self) -> None:
        for task in self.tasks:
            for attempt in task.live():
                if attempt.state is AttemptState.RUNNING and attempt.run_deadline <= self.now:
                    self.settle(attempt, rules.event_of_overrun(task.view), AttemptState.ABANDONED)
                gone = attempt.epoch != task.agent.epoch or not task.agent.online
                if attempt.state is AttemptState.LEASED and attempt.lease_end <= self.now and gone:
                    self.settle(attempt, rules.event_of_lapse(task.view), AttemptState.LAPSED)
            waits = task.view.state in (TaskState.QUEUED, TaskState.LEASED)
            if waits and task.expire <= self.now:
                for attempt in task.live():
                    attempt.state = AttemptState.LAPSED
                self.befall(task, rules.event_of_expiry(task.view))
            if task.view.state is not TaskState.QUEUED:
                continue
            if task.policy is OfflinePolicy.SKIP and not task.agent.online:
                self.befall(task, Event.SKIP)
            elif task.window_end is not None and task.window_end <= self.now:
                begin, task.window_end = self.window()
                task.due = max(task.due, begin)

    def cancel(self, which: int) -> None:
        if not self.tasks:
            return
        task = self.tasks[which % len(self.tasks)]
        decision = rules.cancel(task.view)
        if decision is Cancellation.NOW:
            self.befall(task, Event.CANCEL)
        elif decision is Cancellation.ASK:
            task.view = replace(task.view, cancel_requested=True)

    # --- what agents do

    def open(self, agent: Agent) -> None:
        """Begin a session and list the journal."""
        agent.epoch, agent.online, agent.arriving = agent.epoch + 1, True, []
        for attempt, outcome in list(agent.journal.items()):
            if self.accept(attempt) is Acceptance.STOP and outcome is None:
                agent.journal[attempt] = Outcome.CANCELLED
        for task in self.of(agent):
            for attempt in task.live():
                if attempt.state is not AttemptState.LEASED or attempt in agent.journal:
                    continue
                if task.view.cancel_requested:
                    self.settle(attempt, Event.CANCEL, AttemptState.LAPSED)
                elif rules.may_send(task.window_end, self.now):
                    attempt.epoch, attempt.lease_end = agent.epoch, self.now + LEASE
                    agent.arriving.append(attempt)

    def receive(self, agent: Agent, *, heard: bool) -> None:
        """Journal an assignment and begin it; ``heard``: the server hears of it."""
        if not agent.arriving:
            return
        attempt = agent.arriving.pop(0)
        unreported = any(one.task is attempt.task for one in agent.journal)
        if unreported or attempt in agent.journal:
            return
        agent.journal[attempt] = None
        self.run(attempt)
        if heard:
            self.accept(attempt)

    def run(self, attempt: Attempt) -> None:
        task = attempt.task
        unknown = [one for one in task.attempts if one.state is AttemptState.ABANDONED]
        assert task.view.idempotent or not unknown, "run again although its effect is not known"
        self.begun[task] += 1

    def end(self, agent: Agent, outcome: Outcome) -> None:
        """Let the first attempt that runs end."""
        for attempt, reported in agent.journal.items():
            if reported is None:
                agent.journal[attempt] = outcome
                self.done[attempt.task] += outcome is Outcome.SUCCEEDED
                return

    def report(self, agent: Agent, *, acknowledged: bool) -> None:
        """Send the first result; one that is not acknowledged is sent again."""
        for attempt, outcome in list(agent.journal.items()):
            if outcome is not None and agent.online:
                self.result(attempt, outcome)
                if acknowledged:
                    del agent.journal[attempt]
                return

    def stop(self, agent: Agent) -> None:
        """Hear which attempts are to be stopped."""
        for attempt, outcome in agent.journal.items():
            if outcome is None and attempt.task.view.cancel_requested:
                agent.journal[attempt] = Outcome.CANCELLED

    def crash(self, agent: Agent) -> None:
        """End in the middle of everything, and come back: what ran is reported as interrupted."""
        for attempt, outcome in agent.journal.items():
            agent.journal[attempt] = Outcome.INTERRUPTED if outcome is None else outcome
        self.open(agent)

    def lose_journal(self, agent: Agent) -> None:
        agent.journal = {}
        for task in self.of(agent):
            lost = [attempt for attempt in task.attempts if attempt.state in rules.UNREPORTED]
            if lost and task.view.state not in rules.FINAL:
                for attempt in lost:
                    attempt.state = AttemptState.ABANDONED
                self.befall(task, rules.event_of_interruption(task.view))
        self.open(agent)

    # --- a schedule

    def act(self, kind: int, which: int) -> None:
        """Take a step: half of them are those without which nothing happens."""
        agent, choice = self.agents[which % AGENTS], which // AGENTS
        steps: tuple[Callable[[], None], ...] = (
            *[lambda: self.create(agent, choice)] * 2,
            *[lambda: self.lease(agent)] * 2,
            *[lambda: self.receive(agent, heard=bool(choice % 4))] * 2,
            lambda: self.end(agent, list(Outcome)[choice % len(Outcome)]),
            *[lambda: self.report(agent, acknowledged=bool(choice % 3))] * 2,
            lambda: self.cancel(choice),
            lambda: self.wait(MINUTE * (1 + choice % 8)),
            lambda: self.stop(agent),
            lambda: self.leave(agent),
            lambda: (self.crash, self.lose_journal, self.open, self.open)[choice % 4](agent),
        )
        steps[kind % len(steps)]()

    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.sweep()

    def leave(self, agent: Agent) -> None:
        agent.online = False

    def vanish(self) -> None:
        """Let no agent come back: every task has an end all the same."""
        for task in self.tasks:
            task.asked = task.view.cancel_requested and task.view.state not in rules.FINAL
        for agent in self.agents:
            agent.online = False
        for _ in range(20):
            self.now += 5 * MINUTE
            self.sweep()
        for task in self.tasks:
            assert task.view.state in rules.FINAL
            assert not task.asked or task.view.state is TaskState.CANCELLED

    def check(self, finals: dict[Task, TaskState]) -> None:
        waiting: Counter[Agent] = Counter()
        for task in self.tasks:
            view = task.view
            self.check_live(task)
            if view.state in rules.FINAL:
                assert finals.setdefault(task, view.state) is view.state, "a final state was left"
            else:
                assert task not in finals
            assert view.failed_count <= view.max_attempts
            assert view.attempt_count == len(task.attempts)
            if view.state is TaskState.QUEUED:
                assert not view.cancel_requested
                assert not view.superseded
                waiting[task.agent] += task.policy is OfflinePolicy.LATEST
            assert view.state is not TaskState.SKIPPED or task.policy is OfflinePolicy.SKIP
            assert view.state is not TaskState.SUPERSEDED or view.superseded
            if not view.idempotent and view.max_attempts == 1:
                assert self.begun[task] <= 1, "done twice"
            if view.state is TaskState.SUCCEEDED:
                assert self.done[task] > 0, "said to be done"
        assert all(number <= 1 for number in waiting.values()), "two of one key wait"

    def check_live(self, task: Task) -> None:
        expected = {
            TaskState.QUEUED: [],
            TaskState.LEASED: [AttemptState.LEASED],
            TaskState.RUNNING: [AttemptState.RUNNING],
        }
        assert [one.state for one in task.live()] == expected.get(task.view.state, [])


def play(schedule: bytes) -> Fleet:
    fleet, finals = Fleet(), dict[Task, TaskState]()
    for kind, which in zip(schedule[::2], schedule[1::2], strict=False):
        fleet.act(kind, which)
        fleet.check(finals)
    fleet.vanish()
    fleet.check(finals)
    return fleet


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(st.binary(min_size=40, max_size=160))
def test_no_schedule_breaks_what_the_rules_promise(schedule: bytes) -> None:
    play(schedule)


def test_schedules_come_to_every_state() -> None:
    """The model is no good if most of what may happen never does."""
    dice = random.Random(4)
    seen: Counter[TaskState] = Counter()
    for _ in range(300):
        seen.update(task.view.state for task in play(dice.randbytes(160)).tasks)
    assert set(seen) == rules.FINAL
