"""The decisions of the tasks room, without a database."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from fleetwright.v1 import task_service_pb2 as pb2
from fleetwright.v1 import work_pb2
from hypothesis import given
from hypothesis import strategies as st

from controlplane.tasks import rules
from controlplane.tasks.rules import (
    Acceptance,
    AttemptState,
    Cancellation,
    ChunkPlace,
    Event,
    Outcome,
    TaskState,
    TaskView,
)

ROOT = Path(__file__).parents[3]
TASK = TaskView(
    state=TaskState.RUNNING,
    cancel_requested=False,
    idempotent=False,
    max_attempts=1,
    attempt_count=1,
    failed_count=0,
)


@pytest.mark.parametrize(
    ("ours", "prefix", "contract"),
    [
        (TaskState, "TASK_STATE_", pb2.TaskState),
        (AttemptState, "ATTEMPT_STATE_", pb2.AttemptState),
        (Outcome, "OUTCOME_", work_pb2.Outcome),
    ],
)
def test_numbers_are_those_of_the_contract(ours: type[IntEnum], prefix: str, contract: Any) -> None:
    wire = {name.removeprefix(prefix): number for name, number in contract.items() if number}
    assert {member.name: int(member) for member in ours} == wire


def test_the_page_of_states_is_the_table() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "task-states")]
    made = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "task-states.md").read_text()
    assert page == made, "make it again: scripts/task-states > docs/task-states.md"


def test_final_states_are_never_left() -> None:
    assert all(not rules.TRANSITIONS[state] for state in rules.FINAL)
    assert set(rules.TRANSITIONS) == set(TaskState)


@pytest.mark.parametrize("outcome", Outcome)
def test_a_result_leaves_a_final_task_as_it_is(outcome: Outcome) -> None:
    for state in rules.FINAL:
        for attempt in AttemptState:
            assert rules.event_of_result(replace(TASK, state=state), attempt, outcome) is None


@pytest.mark.parametrize(
    ("outcome", "task", "event"),
    [
        (Outcome.SUCCEEDED, TASK, Event.SUCCEED),
        (Outcome.SUCCEEDED, replace(TASK, cancel_requested=True), Event.SUCCEED),
        (Outcome.FAILED, TASK, Event.FAIL),
        (Outcome.TIMED_OUT, TASK, Event.FAIL),
        (Outcome.FAILED, replace(TASK, max_attempts=3), Event.RETRY),
        (Outcome.TIMED_OUT, replace(TASK, max_attempts=3, failed_count=1), Event.RETRY),
        (Outcome.FAILED, replace(TASK, max_attempts=3, failed_count=2), Event.EXHAUST),
        (Outcome.FAILED, replace(TASK, max_attempts=3, cancel_requested=True), Event.FAIL),
        (Outcome.REFUSED, replace(TASK, max_attempts=3), Event.FAIL),
        (Outcome.CANCELLED, replace(TASK, cancel_requested=True), Event.CANCEL),
        (Outcome.CANCELLED, TASK, Event.INTERRUPT),
        (Outcome.CANCELLED, replace(TASK, idempotent=True), Event.REQUEUE),
        (Outcome.INTERRUPTED, TASK, Event.INTERRUPT),
        (Outcome.INTERRUPTED, replace(TASK, max_attempts=20), Event.INTERRUPT),
        (Outcome.INTERRUPTED, replace(TASK, idempotent=True), Event.REQUEUE),
        (Outcome.INTERRUPTED, replace(TASK, idempotent=True, cancel_requested=True), Event.CANCEL),
        (
            Outcome.INTERRUPTED,
            replace(TASK, idempotent=True, attempt_count=rules.MAX_INTERRUPTIONS + 1),
            Event.EXHAUST,
        ),
    ],
)
def test_a_result_decides_a_running_task(outcome: Outcome, task: TaskView, event: Event) -> None:
    assert rules.event_of_result(task, AttemptState.RUNNING, outcome) is event


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize(
    ("state", "attempt"),
    [
        (TaskState.QUEUED, AttemptState.ABANDONED),
        (TaskState.LEASED, AttemptState.ABANDONED),
        (TaskState.RUNNING, AttemptState.ABANDONED),
        (TaskState.LEASED, AttemptState.LAPSED),
        (TaskState.RUNNING, AttemptState.LAPSED),
    ],
)
def test_only_success_of_an_attempt_that_a_task_went_on_without_decides(
    outcome: Outcome, state: TaskState, attempt: AttemptState
) -> None:
    task = replace(TASK, state=state, idempotent=True, max_attempts=5)
    expected = Event.SUCCEED if outcome is Outcome.SUCCEEDED else None
    assert rules.event_of_result(task, attempt, outcome) is expected


def test_a_result_of_a_lapsed_lease_decides_a_task_that_still_waits() -> None:
    task = replace(TASK, state=TaskState.QUEUED, max_attempts=2)
    assert rules.event_of_result(task, AttemptState.LAPSED, Outcome.FAILED) is Event.RETRY


@pytest.mark.parametrize(
    ("task", "event"),
    [
        (replace(TASK, max_attempts=5), Event.FAIL),
        (replace(TASK, idempotent=True, max_attempts=2), Event.RETRY),
        (replace(TASK, idempotent=True, max_attempts=2, failed_count=1), Event.EXHAUST),
        (replace(TASK, idempotent=True), Event.FAIL),
        (replace(TASK, idempotent=True, max_attempts=5, cancel_requested=True), Event.CANCEL),
    ],
)
def test_after_an_overrun_only_an_idempotent_task_is_tried_again(task: TaskView, event: Event) -> None:
    assert rules.event_of_overrun(task) is event


@pytest.mark.parametrize(
    ("task", "attempt", "acceptance"),
    [
        (TaskState.LEASED, AttemptState.LEASED, Acceptance.RUN),
        (TaskState.RUNNING, AttemptState.RUNNING, Acceptance.KNOWN),
        (TaskState.QUEUED, AttemptState.LAPSED, Acceptance.RUN),
        (TaskState.LEASED, AttemptState.LAPSED, Acceptance.RUN),
        (TaskState.RUNNING, AttemptState.LAPSED, Acceptance.STOP),
        (TaskState.QUEUED, AttemptState.ABANDONED, Acceptance.STOP),
        (TaskState.SUCCEEDED, AttemptState.FINISHED, Acceptance.KNOWN),
        (TaskState.QUEUED, AttemptState.FINISHED, Acceptance.KNOWN),
        (TaskState.CANCELLED, AttemptState.LAPSED, Acceptance.STOP),
        (TaskState.EXPIRED, AttemptState.LEASED, Acceptance.STOP),
    ],
)
def test_a_journalled_attempt_runs_known_or_stops(
    task: TaskState, attempt: AttemptState, acceptance: Acceptance
) -> None:
    assert rules.accept(replace(TASK, state=task), attempt) is acceptance


def test_cancellation_is_defined_in_every_state() -> None:
    expected = dict.fromkeys(rules.FINAL, Cancellation.TOO_LATE) | {
        TaskState.QUEUED: Cancellation.NOW,
        TaskState.LEASED: Cancellation.ASK,
        TaskState.RUNNING: Cancellation.ASK,
        TaskState.CANCELLED: Cancellation.REPEATED,
    }
    assert {state: rules.cancel(replace(TASK, state=state)) for state in TaskState} == expected
    for state in (TaskState.LEASED, TaskState.RUNNING):
        asked = replace(TASK, state=state, cancel_requested=True)
        assert rules.cancel(asked) is Cancellation.REPEATED


def test_the_wait_before_another_attempt_doubles_up_to_a_cap() -> None:
    waits = [rules.retry_delay(count) for count in range(9)]
    assert waits == [timedelta(seconds=s) for s in (5, 5, 10, 20, 40, 80, 160, 320, 600)]
    assert rules.retry_delay(10**6) == rules.RETRY_CAP


@given(received=st.integers(0, 50), offset=st.integers(0, 60), length=st.integers(1, 20))
def test_a_chunk_is_next_or_known_or_leaves_a_gap(received: int, offset: int, length: int) -> None:
    place = rules.place_chunk(received, offset, length)
    assert (place is ChunkPlace.NEXT) == (offset == received)
    assert (place is ChunkPlace.KNOWN) == (offset + length <= received)
