"""Give an agent work, follow it to its end and read what it said; with asyncio.

Usage: python asyncio_example.py SERVER IDENTITY AGENT
For example: python asyncio_example.py localhost:7444 site/identities/operator-admin first
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from fleetwright.client import Identity, connect_aio
from fleetwright.errors import Failure
from fleetwright.v1 import agent_registry_service_pb2 as agents_pb2
from fleetwright.v1 import agent_registry_service_pb2_grpc as agents_pb2_grpc
from fleetwright.v1 import task_service_pb2 as tasks_pb2
from fleetwright.v1 import task_service_pb2_grpc as tasks_pb2_grpc
from fleetwright.v1 import work_pb2
from fleetwright.watching import follow_aio

if TYPE_CHECKING:  # the stubs of an asyncio channel are the same objects, with types of their own
    from fleetwright.v1.agent_registry_service_pb2_grpc import AgentRegistryServiceAsyncStub
    from fleetwright.v1.task_service_pb2_grpc import TaskServiceAsyncStub

DEADLINE = 15.0
"""Seconds for a call that is no watch: without a deadline a lost packet can hold a program for minutes."""


async def online(agents: AgentRegistryServiceAsyncStub) -> AsyncIterator[agents_pb2.Agent]:
    """Yield every agent that matches the filter, page by page."""
    request = agents_pb2.ListAgentsRequest(filter="presence = ONLINE", page_size=500)
    while True:
        page = await agents.ListAgents(request, timeout=DEADLINE)
        for agent in page.agents:
            yield agent
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def create(tasks: TaskServiceAsyncStub, agent: str, request_id: str) -> tasks_pb2.Task:
    """Queue a script. With the same request_id a repetition gives the first task again, not a second one."""
    script = work_pb2.ScriptSpec(interpreter="sh", body="uname -sr; echo done")
    request = tasks_pb2.CreateTaskRequest(
        agent=f"agents/{agent}", spec=work_pb2.TaskSpec(script=script), request_id=request_id
    )
    return (await tasks.CreateTask(request, timeout=DEADLINE)).task


async def to_the_end(tasks: TaskServiceAsyncStub, name: str) -> tasks_pb2.Task:
    """Return the task once it is final; a watch that is lost goes on from its last resume token."""
    wanted = f'task_id = "{name.removeprefix("tasks/")}"'

    def start(token: str) -> AsyncIterable[tasks_pb2.WatchTasksResponse]:
        return tasks.WatchTasks(tasks_pb2.WatchTasksRequest(filter=wanted, resume_token=token))

    async with aclosing(follow_aio(start)) as changes:
        async for change in changes:
            if change.change_type == agents_pb2.CHANGE_TYPE_SYNCED:
                continue  # all that there was has been sent; what follows are changes
            print("now:", tasks_pb2.TaskState.Name(change.task.state))
            if change.task.state >= tasks_pb2.TASK_STATE_SUCCEEDED:
                return change.task
    raise AssertionError("a followed watch has no end of its own")


async def output(tasks: TaskServiceAsyncStub, name: str) -> bytes:
    """Return what the task wrote, standard output and standard error as they came."""
    pieces = tasks.ReadTaskOutput(tasks_pb2.ReadTaskOutputRequest(name=name), timeout=DEADLINE)
    return b"".join([piece.data async for piece in pieces])


async def refused(agents: AgentRegistryServiceAsyncStub) -> Failure:
    """Ask for what the server must refuse, and read its reason."""
    try:
        await agents.ListAgents(agents_pb2.ListAgentsRequest(filter="hostnam = web1"), timeout=DEADLINE)
    except grpc.aio.AioRpcError as error:
        return Failure.of(error)
    raise AssertionError("the server took a field that does not exist")


async def main(server: str, identity: str, agent: str) -> None:
    """Do it."""
    async with connect_aio(server, Identity.load(Path(identity))) as channel:
        agents = agents_pb2_grpc.AgentRegistryServiceStub(channel)
        tasks = tasks_pb2_grpc.TaskServiceStub(channel)
        async for found in online(agents):
            print("online:", found.agent_id, found.host.hostname)
        request_id = str(uuid.uuid4())  # kept with the job that it belongs to
        name = (await create(tasks, agent, request_id)).name
        print("created:", name)
        print("again the same:", (await create(tasks, agent, request_id)).name == name)
        print("ended:", tasks_pb2.TaskState.Name((await to_the_end(tasks, name)).state))
        print("output:", (await output(tasks, name)).decode("utf-8", errors="replace").splitlines())
        failure = await refused(agents)
        print("refused:", failure.reason, failure.code.name, failure.message)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
