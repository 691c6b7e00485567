"""``fleetwright packages deploy``, ``deployments`` and ``exceptions``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from fleetwright.v1 import packaging_service_pb2 as pb
from fleetwright.v1 import task_service_pb2, work_pb2
from fleetwright.v1.agent_registry_service_pb2 import CHANGE_TYPE_EXISTING, CHANGE_TYPE_SYNCED

from tests.integration.cli.command import Command
from tests.integration.cli.factory import Factory, sha
from tests.integration.cli.refusals import Refusal
from tests.integration.cli.store_world import CONTENT, CURL, OLD, fill


@pytest.fixture(autouse=True)
def store(factory: Factory) -> None:
    """curl 8.1, which is released, and 8.0, which is not any more."""
    fill(factory)


def a_batch(states: dict[str, int]) -> Any:
    batch = task_service_pb2.TaskBatch(
        name="taskBatches/b1",
        state=task_service_pb2.TASK_BATCH_STATE_EXPANDED,
        task_count=sum(states.values()),
    )
    for state, count in states.items():
        number = task_service_pb2.TaskState.Value(f"TASK_STATE_{state}")
        batch.state_counts.add(state=number, count=count)
    return batch


def ended_tasks(states: dict[str, int]) -> list[Any]:
    """Return a watch of tasks that have ended in these states."""
    names = [state for state, count in states.items() for _ in range(count)]
    changes = [
        task_service_pb2.WatchTasksResponse(
            change_type=CHANGE_TYPE_EXISTING,
            task=task_service_pb2.Task(
                name=f"tasks/t{number}", state=task_service_pb2.TaskState.Value(f"TASK_STATE_{name}")
            ),
        )
        for number, name in enumerate(names)
    ]
    return [*changes, task_service_pb2.WatchTasksResponse(change_type=CHANGE_TYPE_SYNCED)]


async def test_the_one_released_package_of_a_name_is_deployed(packager: Command, factory: Factory) -> None:
    factory.batch = a_batch({"QUEUED": 3})
    ended = await packager(
        *("packages", "deploy", "curl", "--to", "groups:canary", "--percent", "10", "--seed", "7"),
        *("--window", "0 2 * * SAT", "--max-attempts", "3", "--request-id", "r1"),
    )
    assert (ended.status, ended.out) == (0, "taskBatches/b1\n")
    assert ended.errors == "3 tasks: 3 QUEUED\n"
    [asked] = factory.of(pb.DeployPackageRequest)
    assert (asked.package, asked.selector, asked.percentage, asked.seed) == (CURL, "groups:canary", 10, 7)
    assert (asked.options.window.cron, asked.options.max_attempts) == ("0 2 * * SAT", 3)
    assert asked.request_id == "r1"


async def test_a_refused_package_is_not_deployed(packager: Command, factory: Factory) -> None:
    ended = await packager("packages", "deploy", "curl@8.0", "--to", "*")
    assert ended.status == 1
    assert ended.errors.splitlines() == [
        "error: curl@8.0: no agent can have it: FAIL: critical: CVE-2029-1; unknown: CVE-2029-7",
        f"See `fleetwright packages show {OLD}`.",
    ]
    assert factory.of(pb.DeployPackageRequest) == []


async def test_two_released_packages_of_a_name_are_not_chosen_among(
    packager: Command, factory: Factory
) -> None:
    factory.packages[1].channel = "beta"
    ended = await packager("packages", "deploy", "curl", "--to", "*")
    assert (ended.status, ended.out) == (2, "")
    assert "curl@8.0" in ended.errors
    assert factory.of(pb.DeployPackageRequest) == []


async def test_a_deployment_is_waited_for_and_tells_what_went_wrong(
    packager: Command, factory: Factory
) -> None:
    states = {"SUCCEEDED": 2, "FAILED": 1}
    factory.batch, factory.tasks = a_batch(states), ended_tasks(states)
    factory.deployments = [
        pb.Deployment(agent="agents/web-1", status=work_pb2.DEPLOYMENT_STATUS_INSTALLED),
        pb.Deployment(agent="agents/web-2", status=work_pb2.DEPLOYMENT_STATUS_INSTALLED),
        pb.Deployment(
            agent="agents/db-1",
            status=work_pb2.DEPLOYMENT_STATUS_ROLLED_BACK,
            reason_code="NOT_DETECTED",
            reason="curl --version ended with 127",
        ),
    ]
    ended = await packager("packages", "deploy", "curl", "--to", "*", "--wait")
    assert (ended.status, ended.out) == (1, "taskBatches/b1\n")
    assert ended.errors.splitlines() == [
        "3 tasks: 2 SUCCEEDED, 1 FAILED",
        "2 INSTALLED, 1 ROLLED_BACK",
        "  agents/db-1: ROLLED_BACK: NOT_DETECTED: curl --version ended with 127",
        "error: not all succeeded: 1 FAILED",
    ]
    assert factory.of(pb.ListDeploymentsRequest)[0].filter == 'batch_id = "b1"'


async def test_a_deployment_that_succeeds_everywhere_is_a_success(
    packager: Command, factory: Factory
) -> None:
    states = {"SUCCEEDED": 2}
    factory.batch, factory.tasks = a_batch(states), ended_tasks(states)
    ended = await packager("packages", "deploy", "curl", "--to", "*", "--wait", "-o", "json")
    assert (ended.status, ended.errors) == (0, "")
    assert ended.document["taskCount"] == 2


async def test_deployments_are_chosen_by_options(packager: Command, factory: Factory) -> None:
    factory.deployments = [
        pb.Deployment(
            name="deployments/d1",
            agent="agents/web-1",
            package=CURL,
            package_name="curl",
            version="8.1",
            status=work_pb2.DEPLOYMENT_STATUS_FAILED,
            reason_code="METADATA_EXPIRED",
            reason="timestamp.json ended",
        )
    ]
    ended = await packager(
        *("packages", "deployments", "--package", "curl@8.1", "--agent", "web-1", "--status", "failed"),
        *("--status", "rolled-back", "--batch", "taskBatches/b1", "--latest"),
    )
    assert ended.lines[1].split()[:3] == ["web-1", "curl@8.1", "FAILED"]
    assert ended.lines[1].endswith("METADATA_EXPIRED: timestamp.json ended")
    [asked] = factory.of(pb.ListDeploymentsRequest)
    assert asked.filter == (
        f'package = "{sha(CONTENT)}" AND agent_id = "web-1" AND status = (FAILED OR ROLLED_BACK) '
        'AND batch_id = "b1" AND latest = true'
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("deploy", "curl", "--to", "*", "--seed", "1"), "--seed says which agents"),
        (("deploy", "curl"), "--to"),
        (("deploy", "curl", "--to", "*", "--if-offline", "latest"), "--supersede-key"),
        (("deployments", "--status", "LOST"), "--status 'LOST'"),
        (("list", "--decision", "maybe"), "--decision 'maybe': choose one of PASS, FAIL, EXCEPTION"),
        (("watch", "p1", "--state", "RUNNING"), "leave PIPELINE out"),
        (("exceptions", "create", "curl@8.1", "CVE-1", "--reason", "x", "--for", "long"), "--for: 'long'"),
    ],
)
async def test_options_that_do_not_fit_are_told_before_anything_is_asked(
    packager: Command, factory: Factory, words: Sequence[str], said: str
) -> None:
    ended = await packager("packages", *words)
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.errors
    assert factory.asked == []


async def test_an_exception_is_asked_for_approved_and_revoked(packager: Command, factory: Factory) -> None:
    made = await packager(
        *("packages", "exceptions", "create", "curl@8.1", "CVE-2029-1", "--for", "30d"),
        *("--reason", "no network here"),
    )
    assert made.lines[:2] == ["Name:          exceptions/e1", "State:         WAITING"]
    [asked] = factory.of(pb.CreateExceptionRequest)
    assert (asked.package, asked.vulnerability, asked.justification) == (
        CURL,
        "CVE-2029-1",
        "no network here",
    )
    assert asked.valid_for.ToTimedelta().days == 30
    approved = await packager("packages", "exceptions", "approve", "e1")
    assert "State:         APPROVED" in approved.lines
    listed = await packager("packages", "exceptions", "list", "--package", "curl@8.1")
    assert [word in listed.lines[1] for word in ("APPROVED", "admin", "ada", "no network here")] == [True] * 4
    assert factory.of(pb.ListExceptionsRequest)[0].filter == f'package = "{sha(CONTENT)}"'
    revoked = await packager("packages", "exceptions", "revoke", "exceptions/e1", "-o", "json")
    assert revoked.document["revokeTime"]
    assert "REVOKED" in (await packager("packages", "exceptions", "list")).out


async def test_who_asked_for_an_exception_cannot_approve_it(packager: Command, factory: Factory) -> None:
    said = "you asked for exceptions/e1: somebody else has to approve it"
    factory.refusals["ApproveException"] = [
        Refusal(grpc.StatusCode.PERMISSION_DENIED, "APPROVER_IS_REQUESTER", said)
    ]
    ended = await packager("packages", "exceptions", "approve", "e1", "-o", "json")
    assert ended.status == 4
    error = json.loads(ended.errors)["error"]
    assert (error["reason"], error["message"]) == ("APPROVER_IS_REQUESTER", said)


async def test_a_server_without_keys_says_what_to_do(packager: Command, factory: Factory) -> None:
    said = "the keys that release packages are not set up: run `fleetwright trust init`"
    factory.refusals["DeployPackage"] = [
        Refusal(grpc.StatusCode.FAILED_PRECONDITION, "TRUST_NOT_SET_UP", said)
    ]
    ended = await packager("packages", "deploy", "curl", "--to", "*")
    assert (ended.status, ended.errors) == (1, f"error: {said}\n")
