"""An administrator's programs that create tasks, and keep their own list of what was acknowledged."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence

import grpc
from fleetwright.v1 import task_service_pb2, work_pb2

from tests.support.admin import Admin

CALLERS = 8
_CALL_SECONDS = 15.0
_AGAIN_AFTER = 0.1


class Callers:
    """Create one echo task a request; what failed is asked for again with the same request id."""

    def __init__(self, connect: Callable[[], Admin]) -> None:
        self.acknowledged: dict[str, str] = {}
        """Name of the task of each request that was answered."""
        self.errors: Counter[str] = Counter()
        """Status codes of calls that failed."""
        self.slowest = 0.0
        """Seconds that the slowest call took that was answered."""
        self._connect = connect
        self._admin = connect()
        self._numbers = itertools.count()
        self._closing: set[asyncio.Future[None]] = set()

    async def create(
        self, agents: Sequence[str], count: int, *, per_second: float | None = None, at_once: int = CALLERS
    ) -> list[str]:
        """Create ``count`` tasks for ``agents`` in turn and return their names, all acknowledged."""
        requests = [
            (agents[number % len(agents)], f"request-{next(self._numbers)}") for number in range(count)
        ]
        left = iter(requests)

        async def caller() -> None:
            for agent, request in left:
                if per_second is not None:
                    await asyncio.sleep(at_once / per_second)
                await self._create(agent, request)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(caller())
        return [self.acknowledged[request] for _, request in requests]

    async def _create(self, agent: str, request: str) -> None:
        while request not in self.acknowledged:
            admin, begun = self._admin, time.monotonic()
            try:
                answer = await admin.tasks.CreateTask(_echo(agent, request), timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                self.errors[error.code().name] += 1
                await asyncio.sleep(_AGAIN_AFTER)
                self._reconnect(admin)
            else:
                self.slowest = max(self.slowest, time.monotonic() - begun)
                self.acknowledged[request] = answer.task.name

    def _reconnect(self, failed: Admin) -> None:
        # The channel's own backoff would wait for longer than the server is away.
        if self._admin is failed:
            self._admin = self._connect()
            # Calls of others may be under way on it. The server allows only so many connections.
            closing = asyncio.ensure_future(failed.channel.close(_CALL_SECONDS))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _echo(agent: str, request: str) -> task_service_pb2.CreateTaskRequest:
    spec = work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=request.encode()))
    return task_service_pb2.CreateTaskRequest(agent=f"agents/{agent}", spec=spec, request_id=request)
