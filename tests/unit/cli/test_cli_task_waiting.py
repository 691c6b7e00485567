"""Waiting for tasks: when it is over, and what it counted."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fleetwright.v1 import task_service_pb2
from fleetwright.v1.agent_registry_service_pb2 import ChangeType
from fleetwright.v1.task_service_pb2 import Task, TaskState, WatchTasksResponse

from controlplane.cli.failures import CommandFailed
from controlplane.cli.output import Output
from controlplane.cli.tasks.expanding import expanded
from controlplane.cli.tasks.views import tasks_words
from controlplane.cli.tasks.waiting import must_have_succeeded, until_final


def change(kind: str, name: str = "", state: str = "UNSPECIFIED") -> WatchTasksResponse:
    return WatchTasksResponse(
        change_type=ChangeType.Value(f"CHANGE_TYPE_{kind}"),
        task=Task(name=name, state=TaskState.Value(f"TASK_STATE_{state}")),
    )


def endless(*changes: WatchTasksResponse) -> Iterator[WatchTasksResponse]:
    yield from changes
    raise AssertionError("the watch was read further although everything had ended")


def names(counts: dict[int, int]) -> dict[str, int]:
    return {TaskState.Name(TaskState.ValueType(state)).split("_")[-1]: n for state, n in counts.items()}


def test_it_ends_when_as_many_tasks_as_expected_are_final() -> None:
    watch = endless(
        change("EXISTING", "tasks/a", "SUCCEEDED"),
        change("EXISTING", "tasks/b", "QUEUED"),
        change("SYNCED"),
        change("CHANGED", "tasks/b", "RUNNING"),
        change("CHANGED", "tasks/b", "FAILED"),
    )
    seen = list(until_final(watch, 2))
    assert names(seen[-1]) == {"SUCCEEDED": 1, "FAILED": 1}
    assert names(seen[-2]) == {"SUCCEEDED": 1, "RUNNING": 1}


def test_it_ends_at_once_where_everything_has_ended_already() -> None:
    assert names(*until_final(endless(change("EXISTING", "tasks/a", "DEAD")), 1)) == {"DEAD": 1}


def test_a_task_that_is_removed_meanwhile_keeps_the_state_that_it_had() -> None:
    watch = endless(
        change("EXISTING", "tasks/a", "SUCCEEDED"),
        change("REMOVED", "tasks/a"),
        change("CHANGED", "tasks/b", "CANCELLED"),
    )
    assert names(list(until_final(watch, 2))[-1]) == {"SUCCEEDED": 1, "CANCELLED": 1}


def test_a_task_that_was_gone_before_the_watch_began_is_not_waited_for() -> None:
    watch = endless(
        change("EXISTING", "tasks/b", "RUNNING"),
        change("SYNCED"),
        change("CHANGED", "tasks/b", "SUCCEEDED"),
    )
    assert names(list(until_final(watch, 2))[-1]) == {"SUCCEEDED": 1}


def test_anything_but_success_is_a_failure_that_says_how_many_ended_how() -> None:
    must_have_succeeded({TaskState.TASK_STATE_SUCCEEDED: 5})
    with pytest.raises(CommandFailed, match="not all succeeded: 2 FAILED, 1 DEAD"):
        must_have_succeeded(
            {
                TaskState.TASK_STATE_SUCCEEDED: 5,
                TaskState.TASK_STATE_DEAD: 1,
                TaskState.TASK_STATE_FAILED: 2,
            }
        )


def test_a_batch_is_followed_until_all_its_tasks_are_made() -> None:
    states = iter(
        [
            (task_service_pb2.TASK_BATCH_STATE_EXPANDING, 500),
            (task_service_pb2.TASK_BATCH_STATE_EXPANDING, 1_000),
            (task_service_pb2.TASK_BATCH_STATE_EXPANDED, 1_200),
        ]
    )

    def get(request: task_service_pb2.GetTaskBatchRequest) -> task_service_pb2.GetTaskBatchResponse:
        state, count = next(states)
        batch = task_service_pb2.TaskBatch(
            name=request.name, state=state, expanded_count=count, target_count=1_200, task_count=count
        )
        return task_service_pb2.GetTaskBatchResponse(batch=batch)

    client: Any = SimpleNamespace(tasks=SimpleNamespace(GetTaskBatch=get))
    slept: list[float] = []
    created = task_service_pb2.TaskBatch(
        name="taskBatches/x", state=task_service_pb2.TASK_BATCH_STATE_EXPANDING, target_count=1_200
    )
    assert tasks_words(created) == "0 tasks made, 1,200 to be made"
    whole = expanded(client, Output(), created, slept.append)
    assert tasks_words(whole) == "1,200 tasks"
    assert len(slept) == 3
