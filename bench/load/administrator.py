"""The administrator of the load: creates tasks over the admin port."""

from __future__ import annotations

import uuid
from pathlib import Path

import grpc
from fleetwright.v1 import task_service_pb2, task_service_pb2_grpc, work_pb2

ECHO = work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=b"bench"))
_TIMEOUT = 120.0


class Administrator:
    """Calls the admin listener with an operator's identity."""

    def __init__(self, address: str, identity: Path) -> None:
        root, key, chain = ((identity / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem"))
        credentials = grpc.ssl_channel_credentials(root, key, chain)
        self._channel = grpc.aio.secure_channel(address, credentials)
        self._tasks = task_service_pb2_grpc.TaskServiceStub(self._channel)

    async def create(self, agent_id: str) -> task_service_pb2.Task:
        """Queue one task, under a request id of its own as an integrator would."""
        request = task_service_pb2.CreateTaskRequest(
            agent=f"agents/{agent_id}", spec=ECHO, request_id=str(uuid.uuid4())
        )
        response: task_service_pb2.CreateTaskResponse
        response = await self._tasks.CreateTask(request, timeout=_TIMEOUT)
        return response.task

    async def create_for(self, selector: str) -> int:
        """Queue one task for every agent that matches; returns how many."""
        request = task_service_pb2.CreateTaskBatchRequest(selector=selector, spec=ECHO)
        response: task_service_pb2.CreateTaskBatchResponse
        response = await self._tasks.CreateTaskBatch(request, timeout=_TIMEOUT)
        return response.batch.target_count

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
