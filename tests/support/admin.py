"""An administrator: the admin listener's stubs by name, and what tests ask of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from fleetwright.client import Identity, connect_aio
from fleetwright.v1 import (
    agent_registry_service_pb2,
    agent_registry_service_pb2_grpc,
    enrollment_token_service_pb2,
    enrollment_token_service_pb2_grpc,
    task_service_pb2,
    task_service_pb2_grpc,
    telemetry_service_pb2,
    telemetry_service_pb2_grpc,
    work_pb2,
)

from tests.support.streams import until

OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
FINAL = task_service_pb2.TASK_STATE_SUCCEEDED
"""Every state from this one on is final."""


def operator_channel(address: str, identity: Path) -> grpc.aio.Channel:
    """Connect to the admin listener with an identity folder as ``fleetwright init`` makes it."""
    return connect_aio(address, Identity.load(identity))


@dataclass
class Admin:
    """The services of the admin listener, over one connection."""

    channel: grpc.aio.Channel

    def __post_init__(self) -> None:
        """Make the stubs."""
        channel = self.channel
        self.agents: Any = agent_registry_service_pb2_grpc.AgentRegistryServiceStub(channel)
        self.tasks: Any = task_service_pb2_grpc.TaskServiceStub(channel)
        self.telemetry: Any = telemetry_service_pb2_grpc.TelemetryServiceStub(channel)
        self.tokens: Any = enrollment_token_service_pb2_grpc.EnrollmentTokenServiceStub(channel)

    async def token(self, **wishes: Any) -> tuple[str, str]:
        """Make an enrolment token; return its name and the join token."""
        made = await self.tokens.CreateEnrollmentToken(
            enrollment_token_service_pb2.CreateEnrollmentTokenRequest(**wishes)
        )
        return str(made.token.name), str(made.join_token)

    async def agent(self, agent_id: str) -> agent_registry_service_pb2.Agent:
        """Return an agent."""
        request = agent_registry_service_pb2.GetAgentRequest(name=f"agents/{agent_id}")
        found: agent_registry_service_pb2.Agent = (await self.agents.GetAgent(request)).agent
        return found

    async def delete(self, agent_id: str) -> int:
        """Delete an agent; return how many tasks that cancelled."""
        request = agent_registry_service_pb2.DeleteAgentRequest(name=f"agents/{agent_id}")
        return int((await self.agents.DeleteAgent(request)).cancelled_tasks)

    async def create(self, agent_id: str, payload: bytes = b"", **fields: Any) -> task_service_pb2.Task:
        """Create an echo task."""
        request = task_service_pb2.CreateTaskRequest(
            agent=f"agents/{agent_id}",
            spec=work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=payload)),
            **fields,
        )
        made: task_service_pb2.Task = (await self.tasks.CreateTask(request)).task
        return made

    async def task(self, name: str) -> task_service_pb2.Task:
        """Return a task with its attempts."""
        found: task_service_pb2.Task = (
            await self.tasks.GetTask(task_service_pb2.GetTaskRequest(name=name))
        ).task
        return found

    async def all_tasks(self, filter_text: str = "") -> list[task_service_pb2.Task]:
        """Return every task that matches, over all pages."""
        found: list[task_service_pb2.Task] = []
        request = task_service_pb2.ListTasksRequest(page_size=1000, filter=filter_text)
        while True:
            page = await self.tasks.ListTasks(request)
            found += page.tasks
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def output(self, name: str) -> dict[int, bytes]:
        """Return the output of a task by stream."""
        outputs: dict[int, bytes] = {}
        async for piece in self.tasks.ReadTaskOutput(task_service_pb2.ReadTaskOutputRequest(name=name)):
            assert piece.offset == len(outputs.get(piece.stream, b""))
            outputs[piece.stream] = outputs.get(piece.stream, b"") + piece.data
        return outputs

    async def points(self, agent_id: str = "") -> list[telemetry_service_pb2.StoredPoint]:
        """Return every point of an agent, or of all, over all pages."""
        found: list[telemetry_service_pb2.StoredPoint] = []
        request = telemetry_service_pb2.QueryTelemetryRequest(
            agent=f"agents/{agent_id}" if agent_id else "", page_size=10_000
        )
        while True:
            page = await self.telemetry.QueryTelemetry(request)
            found += page.points
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def watch_agents(self, filter_text: str = "") -> Any:
        """Open a watch of agents and read what existed; the call then gives changes."""
        request = agent_registry_service_pb2.WatchAgentsRequest(filter=filter_text)
        return await synced(self.agents.WatchAgents(request))

    async def watch_tasks(self, filter_text: str = "") -> Any:
        """Open a watch of tasks and read what existed; the call then gives changes."""
        request = task_service_pb2.WatchTasksRequest(filter=filter_text)
        return await synced(self.tasks.WatchTasks(request))

    async def task_ended(self, name: str) -> task_service_pb2.Task:
        """Wait until a task is final and return it with its attempts."""
        request = task_service_pb2.WatchTasksRequest(filter=f'task_id = "{name.removeprefix("tasks/")}"')
        call = self.tasks.WatchTasks(request)
        try:
            await until(call, lambda change: change.task.state >= FINAL)
        finally:
            call.cancel()
        return await self.task(name)


async def synced(call: Any) -> Any:
    """Read a watch up to the end of what existed."""
    await until(call, lambda change: change.change_type == agent_registry_service_pb2.CHANGE_TYPE_SYNCED)
    return call
