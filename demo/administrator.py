"""The administrator of the demo: a client of the published contract, over mutual TLS."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from fleetwright.client import Identity, connect
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
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from demo.processes import DemoFailed

Tick = Callable[[int], None]

_FINAL = task_service_pb2.TASK_STATE_SUCCEEDED
_CREATORS = 8


class Administrator:
    """Calls the admin listener with the first administrator's identity."""

    def __init__(self, address: str, identity: Path) -> None:
        self._channel = connect(address, Identity.load(identity))
        self._agents = agent_registry_service_pb2_grpc.AgentRegistryServiceStub(self._channel)
        self._tasks = task_service_pb2_grpc.TaskServiceStub(self._channel)
        self._telemetry = telemetry_service_pb2_grpc.TelemetryServiceStub(self._channel)
        self._tokens = enrollment_token_service_pb2_grpc.EnrollmentTokenServiceStub(self._channel)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def join_token(self, uses: int) -> str:
        """Make a join token for ``uses`` agents, good for an hour."""
        request = enrollment_token_service_pb2.CreateEnrollmentTokenRequest(
            description="make demo", ttl=Duration(seconds=3600), max_uses=uses, labels={"site": "demo"}
        )
        return self._tokens.CreateEnrollmentToken(request, timeout=15).join_token

    def count(self, chosen: str = "") -> int:
        """Return how many agents match a filter; all without one."""
        request = agent_registry_service_pb2.ListAgentsRequest(page_size=1, filter=chosen)
        return self._agents.ListAgents(request, timeout=15).total_size

    def agent_names(self) -> list[str]:
        """Return the names of all agents."""
        names: list[str] = []
        token = ""
        while True:
            page = self._agents.ListAgents(
                agent_registry_service_pb2.ListAgentsRequest(page_size=1000, page_token=token), timeout=30
            )
            names.extend(agent.name for agent in page.agents)
            token = page.next_page_token
            if not token:
                return names

    def group(self, agents: Sequence[str], group: str) -> None:
        """Put agents, by their ids, into a group, and in no other."""
        for agent in agents:
            changed = agent_registry_service_pb2.Agent(name=f"agents/{agent}", groups=[group])
            request = agent_registry_service_pb2.UpdateAgentRequest(
                agent=changed, update_mask=FieldMask(paths=["groups"])
            )
            self._agents.UpdateAgent(request, timeout=15)

    def create_for_all(self, spec: work_pb2.TaskSpec) -> task_service_pb2.TaskBatch:
        """Queue a task for every agent with one call."""
        request = task_service_pb2.CreateTaskBatchRequest(selector="labels.site = demo", spec=spec)
        return self._tasks.CreateTaskBatch(request, timeout=30).batch

    def create_paced(
        self, agents: Sequence[str], spec: work_pb2.TaskSpec, per_second: float, tick: Tick
    ) -> list[str]:
        """Queue one task for each agent at an even pace; returns the names of the tasks acknowledged."""
        began = time.monotonic()

        def create(place: int) -> str:
            due = began + place / per_second
            time.sleep(max(0.0, due - time.monotonic()))
            request = task_service_pb2.CreateTaskRequest(
                agent=agents[place], spec=spec, request_id=f"demo-{place}"
            )
            name = self._tasks.CreateTask(request, timeout=30).task.name
            tick(1)
            return name

        with ThreadPoolExecutor(_CREATORS) as pool:
            return list(pool.map(create, range(len(agents))))

    def create(self, agent: str, spec: work_pb2.TaskSpec) -> str:
        """Queue one task."""
        request = task_service_pb2.CreateTaskRequest(agent=agent, spec=spec)
        return self._tasks.CreateTask(request, timeout=30).task.name

    def wait_final(self, expected: int, tick: Tick, within: float) -> list[task_service_pb2.Task]:
        """Watch until ``expected`` tasks are final, and return them all as they are then."""
        final: dict[str, task_service_pb2.Task] = {}
        watch = self._tasks.WatchTasks(task_service_pb2.WatchTasksRequest(), timeout=within)
        try:
            for change in watch:
                if change.HasField("task") and change.task.state >= _FINAL:
                    tick(change.task.name not in final)
                    final[change.task.name] = change.task
                if len(final) >= expected:
                    return list(final.values())
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
        finally:
            watch.cancel()
        states = Counter(task_service_pb2.TaskState.Name(task.state) for task in final.values())
        raise DemoFailed(f"{len(final)} of {expected} tasks were final after {within:.0f} s: {dict(states)}")

    def output(self, task: str) -> bytes:
        """Return all output of a task."""
        request = task_service_pb2.ReadTaskOutputRequest(name=task)
        return b"".join(piece.data for piece in self._tasks.ReadTaskOutput(request, timeout=30))

    def points(self) -> Iterator[telemetry_service_pb2.StoredPoint]:
        """Yield every telemetry point that the server has stored."""
        token = ""
        while True:
            page = self._telemetry.QueryTelemetry(
                telemetry_service_pb2.QueryTelemetryRequest(page_size=10_000, page_token=token), timeout=30
            )
            yield from page.points
            token = page.next_page_token
            if not token:
                return
