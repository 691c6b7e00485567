"""An administrator's programs that create work, and keep their own list of what was acknowledged."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import grpc
from fleetwright.v1 import task_service_pb2

from faults.work import BATCH_SIZE, Kind, Order, mixed, request_of
from tests.support.admin import Admin

CALLERS = 8
_CALL_SECONDS = 15.0
_AGAIN_AFTER = 0.1
_MUST_HAPPEN = (Kind.PLAIN, Kind.RETRIED, Kind.OUTPUT)


class Callers:
    """Give orders, one a request; what failed is asked for again with the same request id."""

    def __init__(self, connect: Callable[[], Admin]) -> None:
        self.acknowledged: dict[str, str] = {}
        """Name of the task of each request that was answered."""
        self.batches: dict[str, str] = {}
        """Name of the batch of each request for one that was answered."""
        self.orders: dict[str, Order] = {}
        """All that was asked for, by request."""
        self.cancelled: set[str] = set()
        """Names of the tasks whose cancellation was acknowledged."""
        self.too_late: set[str] = set()
        """Names of the tasks of which was said that they have ended, when they were to be cancelled."""
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
        """Create ``count`` plain tasks for ``agents`` in turn and return their names, all acknowledged."""
        orders = [self._order(Kind.PLAIN, (agents[number % len(agents)],)) for number in range(count)]
        return await self._give(orders, per_second, at_once)

    async def mix(
        self, agents: Sequence[str], count: int, *, per_second: float | None = None, at_once: int = CALLERS
    ) -> list[str]:
        """Make ``count`` requests for work of all kinds; return the tasks that must have an effect."""
        orders = []
        for number in range(count):
            kind = mixed(number)
            size = min(BATCH_SIZE, len(agents)) if kind is Kind.BATCH else 1
            chosen = tuple(agents[(number + place) % len(agents)] for place in range(size))
            orders.append(self._order(kind, chosen))
        return await self._give(orders, per_second, at_once)

    async def batch(self, agents: Sequence[str]) -> list[str]:
        """Create a batch for all of ``agents``."""
        return await self._give([self._order(Kind.BATCH, tuple(agents))], None, 1)

    async def expiring(self, agents: Sequence[str], queue_times: Sequence[timedelta]) -> list[str]:
        """Create tasks for agents that are away, one for each queue time."""
        orders = [
            self._order(Kind.EXPIRING, (agents[number % len(agents)],), queue_time)
            for number, queue_time in enumerate(queue_times)
        ]
        return await self._give(orders, None, CALLERS)

    def _order(self, kind: Kind, agents: tuple[str, ...], queue_time: timedelta | None = None) -> Order:
        order = Order(f"request-{next(self._numbers)}", kind, agents, queue_time)
        self.orders[order.request] = order
        return order

    async def _give(self, orders: Sequence[Order], per_second: float | None, at_once: int) -> list[str]:
        left = iter(orders)

        async def caller() -> None:
            for order in left:
                if per_second is not None:
                    await asyncio.sleep(at_once / per_second)
                await self._insist(order)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(caller())
        return [self.acknowledged[order.request] for order in orders if order.kind in _MUST_HAPPEN]

    async def _insist(self, order: Order) -> None:
        request = request_of(order)
        if isinstance(request, task_service_pb2.CreateTaskBatchRequest):
            made = await self._call(lambda admin: admin.tasks.CreateTaskBatch(request, timeout=_CALL_SECONDS))
            self.batches[order.request] = made.batch.name
            return
        made = await self._call(lambda admin: admin.tasks.CreateTask(request, timeout=_CALL_SECONDS))
        self.acknowledged[order.request] = made.task.name
        if order.kind is Kind.CANCELLED:
            await self._cancel(made.task.name)

    async def _cancel(self, name: str) -> None:
        request = task_service_pb2.CancelTaskRequest(name=name)

        async def cancel(admin: Admin) -> bool:
            try:
                await admin.tasks.CancelTask(request, timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                    raise
                return False
            return True

        (self.cancelled if await self._call(cancel) else self.too_late).add(name)

    async def _call(self, call: Callable[[Admin], Awaitable[Any]]) -> Any:
        """Return the answer of ``call``, made again until there is one."""
        while True:
            admin, begun = self._admin, time.monotonic()
            try:
                answer = await call(admin)
            except grpc.aio.AioRpcError as error:
                self.errors[error.code().name] += 1
                await asyncio.sleep(_AGAIN_AFTER)
                self._reconnect(admin)
            else:
                self.slowest = max(self.slowest, time.monotonic() - begun)
                return answer

    def _reconnect(self, failed: Admin) -> None:
        # The channel's own backoff would wait for longer than the server is away.
        if self._admin is failed:
            self._admin = self._connect()
            # Calls of others may be under way on it. The server allows only so many connections.
            closing = asyncio.ensure_future(failed.channel.close(_CALL_SECONDS))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
