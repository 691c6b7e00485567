"""Secrets that a task carries: its agent gets them, and nobody else sees them again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import task_service_pb2, work_pb2

from tests.integration.transport.doors import read_refusal
from tests.support.admin import FINAL, Admin
from tests.support.agents import RawAgent, accepted
from tests.support.in_process import LocalSite
from tests.support.logs import Lines, logged
from tests.support.site import http_get
from tests.support.streams import Stream, until

SECRET = "h7nter-2-planted"
HIDDEN = "[redacted]"
SPEC = work_pb2.TaskSpec(
    script=work_pb2.ScriptSpec(
        interpreter="sh",
        body="exit 3",
        arguments=[
            *("--verbose", "--target=db", f"--password={SECRET}", "--token", SECRET, f"API_KEY={SECRET}"),
            *(f"https://ada:{SECRET}@git.example/x", "-H", f"Authorization: Bearer {SECRET}"),
            f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        ],
        environment={"PLAIN_LOOKING": SECRET, "DB_PASSWORD": SECRET, "EMPTY": ""},
    )
)
SHOWN = [
    *("--verbose", "--target=db", f"--password={HIDDEN}", "--token", HIDDEN, f"API_KEY={HIDDEN}"),
    *(f"https://ada:{HIDDEN}@git.example/x", "-H", f"Authorization: {HIDDEN}", HIDDEN),
]


@dataclass
class Seen:
    """Every answer that an administrator got."""

    admin: Admin
    answers: list[Any] = field(default_factory=list)

    async def call(self, call: Any) -> Any:
        answer = await call
        self.answers.append(answer)
        return answer

    async def watched_to_the_end(self, watch: Any) -> None:
        def last(change: Any) -> bool:
            self.answers.append(change)
            return bool(change.task.state >= FINAL)

        await until(watch, last)
        watch.cancel()

    def check(self) -> None:
        for answer in self.answers:
            assert SECRET not in str(answer)
            for spec in specs(answer):
                assert list(spec.script.arguments) == SHOWN
                assert dict(spec.script.environment) == dict.fromkeys(SPEC.script.environment, HIDDEN)
                assert spec.script.body == "exit 3"


def specs(answer: Any) -> list[work_pb2.TaskSpec]:
    if isinstance(answer, task_service_pb2.ListTasksResponse):
        return [task.spec for task in answer.tasks]
    holder = answer.batch if answer.DESCRIPTOR.fields_by_name.get("batch") else answer.task
    return [holder.spec] if holder.HasField("spec") else []


def create(agent: RawAgent, **changes: Any) -> task_service_pb2.CreateTaskRequest:
    return task_service_pb2.CreateTaskRequest(agent=agent.name, spec=SPEC, **changes)


async def fails(tasks: Stream, assignment: pb2.Assignment) -> None:
    """Run the work as an agent that tells more than it should."""
    attempt = assignment.attempt_id
    await tasks.send(accepted=accepted(attempt))
    await tasks.send(progress=pb2.AttemptProgress(attempt_id=attempt, message=f"password={SECRET}"))
    result = work_pb2.AttemptResult(
        outcome=work_pb2.OUTCOME_FAILED, reason=f"sh: --password={SECRET}: no such option"
    )
    await tasks.send(finished=pb2.AttemptFinished(attempt_id=attempt, result=result))
    await tasks.until("result_acknowledged")


async def test_only_the_agent_sees_the_secrets_of_a_task(
    site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    seen = Seen(admin)
    with logged("debug") as lines:
        session = await agent.come()
        tasks = await session.tasks()
        await tasks.expect("opened")
        watch = admin.tasks.WatchTasks(task_service_pb2.WatchTasksRequest())
        made = (await seen.call(admin.tasks.CreateTask(create(agent, request_id="once")))).task
        assignment = await tasks.expect("assignment")
        assert assignment.spec == SPEC
        await fails(tasks, assignment)
        await seen.watched_to_the_end(watch)

        again = (await seen.call(admin.tasks.CreateTask(create(agent, request_id="once")))).task
        assert again.name == made.name
        found = (await seen.call(admin.tasks.GetTask(task_service_pb2.GetTaskRequest(name=made.name)))).task
        assert found.state_reason == f"sh: --password={HIDDEN} no such option"
        assert found.attempts[0].result.reason == found.state_reason
        await seen.call(admin.tasks.ListTasks(task_service_pb2.ListTasksRequest()))

        batch = (
            await seen.call(
                admin.tasks.CreateTaskBatch(
                    task_service_pb2.CreateTaskBatchRequest(selector="presence = ONLINE", spec=SPEC)
                )
            )
        ).batch
        await seen.call(admin.tasks.GetTaskBatch(task_service_pb2.GetTaskBatchRequest(name=batch.name)))
        await tasks.expect("assignment")
        later = (await seen.call(admin.tasks.CreateTask(create(agent)))).task
        await seen.call(admin.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=later.name)))
    seen.check()
    # Eight answers, and at least the last change: several changes may come as one.
    assert len([spec for answer in seen.answers for spec in specs(answer)]) >= 9
    assert_quiet(lines)
    assert SECRET not in (await http_get(site.ports.health, "/metrics"))[1]


def assert_quiet(lines: Lines) -> None:
    assert lines.of("audit")
    assert SECRET not in lines.getvalue()


@pytest.mark.parametrize(
    "script",
    [
        work_pb2.ScriptSpec(interpreter="sh", body="x", environment={"A": SECRET * 300}),
        work_pb2.ScriptSpec(interpreter="sh", body="x", arguments=[SECRET * 300]),
        work_pb2.ScriptSpec(interpreter="sh", environment={"A": SECRET}, arguments=[f"--token={SECRET}"]),
    ],
)
async def test_a_refusal_of_a_script_does_not_repeat_its_values(
    admin: Admin, agent: RawAgent, script: work_pb2.ScriptSpec
) -> None:
    request = task_service_pb2.CreateTaskRequest(agent=agent.name, spec=work_pb2.TaskSpec(script=script))
    with logged("debug") as lines, pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.tasks.CreateTask(request)
    assert read_refusal(caught.value).reason == "VALIDATION_FAILED"
    assert SECRET not in str(caught.value.trailing_metadata()) + str(caught.value.details())
    assert_quiet(lines)


async def test_a_reused_request_id_is_judged_by_the_secrets_too(admin: Admin, agent: RawAgent) -> None:
    await admin.tasks.CreateTask(create(agent, request_id="once"))
    other = create(agent, request_id="once")
    other.spec.script.environment["DB_PASSWORD"] = "another"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.tasks.CreateTask(other)
    assert read_refusal(caught.value).reason == "REQUEST_ID_REUSED"


async def test_the_output_of_a_script_is_kept_as_it_came(admin: Admin, agent: RawAgent) -> None:
    tasks = await (await agent.come()).tasks()
    made = (await admin.tasks.CreateTask(create(agent))).task
    attempt = (await until(tasks.call, lambda message: message.HasField("assignment"))).assignment.attempt_id
    await tasks.send(accepted=accepted(attempt))
    said = f"password={SECRET}".encode()
    await tasks.send(
        chunk=pb2.OutputChunk(attempt_id=attempt, stream=work_pb2.OUTPUT_STREAM_STDOUT, data=said)
    )
    result = work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_SUCCEEDED, stdout_bytes=len(said))
    await tasks.send(finished=pb2.AttemptFinished(attempt_id=attempt, result=result))
    await tasks.until("result_acknowledged")
    assert await admin.output(made.name) == {work_pb2.OUTPUT_STREAM_STDOUT: said}
