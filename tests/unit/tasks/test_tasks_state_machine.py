"""Any order of what may happen to one task, by the rules alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from controlplane.tasks import rules
from controlplane.tasks.rules import (
    Acceptance,
    AttemptState,
    Cancellation,
    Event,
    Outcome,
    TaskState,
    TaskView,
)

LIVE = (AttemptState.LEASED, AttemptState.RUNNING)


@dataclass
class Attempt:
    """What the test knows of an attempt; ``ran`` is true once its agent may have begun it."""

    state: AttemptState = AttemptState.LEASED
    outcome: Outcome | None = None
    ran: bool = False


class OneTask(RuleBasedStateMachine):
    """A task, its attempts, and an agent that may be anywhere; applies the rules as ``Delivery`` does."""

    attempts: Bundle[Attempt] = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.task = TaskView(TaskState.QUEUED, False, False, 1, 0, 0)
        self.known: list[Attempt] = []
        self.failures = 0
        self.unknown_effect = False

    @initialize(idempotent=st.booleans(), max_attempts=st.integers(1, 4))
    def create(self, idempotent: bool, max_attempts: int) -> None:
        self.task = replace(self.task, idempotent=idempotent, max_attempts=max_attempts)

    def befall(self, event: Event) -> None:
        """Let an event befall the open task; a step that the table does not have is a KeyError."""
        before = self.task.state
        assert before not in rules.FINAL
        after = rules.transition(before, event)
        failed = event in (Event.RETRY, Event.FAIL, Event.EXHAUST)
        self.task = replace(self.task, state=after, failed_count=self.task.failed_count + failed)
        if event is Event.REQUEUE:
            assert self.task.attempt_count < rules.MAX_INTERRUPTIONS + self.task.max_attempts

    def live(self) -> list[Attempt]:
        return [attempt for attempt in self.known if attempt.state in LIVE]

    @precondition(lambda self: self.task.state is TaskState.QUEUED)
    @rule(target=attempts)
    def lease(self) -> Attempt:
        assert self.task.idempotent or not self.unknown_effect, "run again after an unknown effect"
        self.befall(Event.LEASE)
        self.task = replace(self.task, attempt_count=self.task.attempt_count + 1)
        attempt = Attempt()
        self.known.append(attempt)
        return attempt

    @rule(attempt=attempts)
    def journalled(self, attempt: Attempt) -> None:
        attempt.ran = attempt.ran or attempt.state in LIVE
        if rules.accept(self.task, attempt.state) is Acceptance.RUN:
            for other in self.live():
                assert other.state is AttemptState.LEASED
                other.state = AttemptState.LAPSED
            attempt.state = AttemptState.RUNNING
            self.befall(Event.ACCEPT)

    @rule(attempt=attempts, outcome=st.sampled_from(Outcome))
    def result(self, attempt: Attempt, outcome: Outcome) -> None:
        if attempt.state is AttemptState.FINISHED:
            return
        event = rules.event_of_result(self.task, attempt.state, outcome)
        attempt.state, attempt.outcome = AttemptState.FINISHED, outcome
        if event is None:
            return
        if event in (Event.INTERRUPT, Event.REQUEUE):
            self.unknown_effect = True
        self.befall(event)
        if outcome is Outcome.SUCCEEDED:
            assert self.task.state is TaskState.SUCCEEDED

    @rule(attempt=consumes(attempts))
    def forgotten_by_its_agent(self, attempt: Attempt) -> None:
        """Nothing more is heard of it."""

    @precondition(lambda self: self.task.state is TaskState.LEASED)
    @rule()
    def lapse(self) -> None:
        (leased,) = self.live()
        leased.state = AttemptState.LAPSED
        self.befall(rules.event_of_lapse(self.task))

    @precondition(lambda self: self.task.state is TaskState.RUNNING)
    @rule()
    def overrun(self) -> None:
        (running,) = self.live()
        running.state = AttemptState.ABANDONED
        self.unknown_effect = True
        self.befall(rules.event_of_overrun(self.task))

    @precondition(lambda self: self.task.state in (TaskState.LEASED, TaskState.RUNNING))
    @rule()
    def lost_journal(self) -> None:
        (lost,) = self.live()
        lost.state = AttemptState.ABANDONED
        self.unknown_effect = True
        self.befall(rules.event_of_interruption(self.task))

    @rule()
    def cancel(self) -> None:
        decision = rules.cancel(self.task)
        if decision is Cancellation.NOW:
            self.befall(Event.CANCEL)
        elif decision is Cancellation.ASK:
            self.task = replace(self.task, cancel_requested=True)

    @precondition(lambda self: self.task.state in (TaskState.QUEUED, TaskState.LEASED))
    @rule(expires=st.integers(0, 3))
    def expire(self, expires: int) -> None:
        if expires == 0:
            for attempt in self.live():
                attempt.state = AttemptState.LAPSED
            self.befall(Event.EXPIRE)

    @invariant()
    def an_open_task_has_the_live_attempt_that_its_state_says(self) -> None:
        expected = {
            TaskState.QUEUED: [],
            TaskState.LEASED: [AttemptState.LEASED],
            TaskState.RUNNING: [AttemptState.RUNNING],
        }
        if self.task.state in expected:
            assert [attempt.state for attempt in self.live()] == expected[self.task.state]

    @invariant()
    def no_more_attempts_fail_than_may(self) -> None:
        assert self.task.failed_count <= max(self.task.max_attempts, 1)

    @invariant()
    def what_is_to_be_cancelled_does_not_wait(self) -> None:
        assert not (self.task.state is TaskState.QUEUED and self.task.cancel_requested)


OneTask.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
test_whatever_happens_to_a_task_keeps_its_invariants = OneTask.TestCase
