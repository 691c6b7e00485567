"""Give an agent work, follow it to its end and read what it said; the synchronous way.

Usage: python sync_example.py SERVER IDENTITY AGENT
For example: python sync_example.py localhost:7444 site/identities/operator-admin first
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
from fleetwright.client import Identity, connect
from fleetwright.errors import Failure
from fleetwright.v1 import agent_registry_service_pb2 as agents_pb2
from fleetwright.v1 import agent_registry_service_pb2_grpc as agents_pb2_grpc
from fleetwright.v1 import task_service_pb2 as tasks_pb2
from fleetwright.v1 import task_service_pb2_grpc as tasks_pb2_grpc
from fleetwright.v1 import work_pb2
from fleetwright.watching import follow

DEADLINE = 15.0
"""Seconds for a call that is no watch: without a deadline a lost packet can hold a program for minutes."""


def online(agents: agents_pb2_grpc.AgentRegistryServiceStub) -> Iterator[agents_pb2.Agent]:
    """Yield every agent that matches the filter, page by page."""
    request = agents_pb2.ListAgentsRequest(filter="presence = ONLINE", page_size=500)
    while True:
        page = agents.ListAgents(request, timeout=DEADLINE)
        yield from page.agents
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def create(tasks: tasks_pb2_grpc.TaskServiceStub, agent: str, request_id: str) -> tasks_pb2.Task:
    """Queue a script. With the same request_id a repetition gives the first task again, not a second one."""
    script = work_pb2.ScriptSpec(interpreter="sh", body="uname -sr; echo done")
    request = tasks_pb2.CreateTaskRequest(
        agent=f"agents/{agent}", spec=work_pb2.TaskSpec(script=script), request_id=request_id
    )
    return tasks.CreateTask(request, timeout=DEADLINE).task


def to_the_end(tasks: tasks_pb2_grpc.TaskServiceStub, name: str) -> tasks_pb2.Task:
    """Return the task once it is final, however often the connection is lost on the way."""
    chosen = f'task_id = "{name.removeprefix("tasks/")}"'
    changes = follow(
        lambda token: tasks.WatchTasks(tasks_pb2.WatchTasksRequest(filter=chosen, resume_token=token))
    )
    for change in changes:
        if change.change_type == agents_pb2.CHANGE_TYPE_SYNCED:
            continue  # all that there was has been sent; what follows are changes
        print("now:", tasks_pb2.TaskState.Name(change.task.state))
        if change.task.state >= tasks_pb2.TASK_STATE_SUCCEEDED:
            return change.task
    raise AssertionError("a followed watch has no end of its own")


def output(tasks: tasks_pb2_grpc.TaskServiceStub, name: str) -> bytes:
    """Return what the task wrote, standard output and standard error as they came."""
    pieces = tasks.ReadTaskOutput(tasks_pb2.ReadTaskOutputRequest(name=name), timeout=DEADLINE)
    return b"".join(piece.data for piece in pieces)


def refused(agents: agents_pb2_grpc.AgentRegistryServiceStub) -> Failure:
    """Ask for what the server must refuse, and read its reason."""
    try:
        agents.ListAgents(agents_pb2.ListAgentsRequest(filter="hostnam = web1"), timeout=DEADLINE)
    except grpc.RpcError as error:
        return Failure.of(error)
    raise AssertionError("the server took a field that does not exist")


def main(server: str, identity: str, agent: str) -> None:
    """Do it."""
    with connect(server, Identity.load(Path(identity))) as channel:
        agents = agents_pb2_grpc.AgentRegistryServiceStub(channel)
        tasks = tasks_pb2_grpc.TaskServiceStub(channel)
        for found in online(agents):
            print("online:", found.agent_id, found.host.hostname)
        request_id = str(uuid.uuid4())  # kept with the job that it belongs to
        name = create(tasks, agent, request_id).name
        print("created:", name)
        print("again the same:", create(tasks, agent, request_id).name == name)
        print("ended:", tasks_pb2.TaskState.Name(to_the_end(tasks, name).state))
        print("output:", output(tasks, name).decode("utf-8", errors="replace").splitlines())
        failure = refused(agents)
        print("refused:", failure.reason, failure.code.name, failure.message)


if __name__ == "__main__":
    main(*sys.argv[1:])
