"""A backlog of telemetry that an agent sends at the server's budget."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import work_pb2

_METRICS = tuple(f"bench.metric_{number}" for number in range(10))
_FIRST = 1_700_000_000


class Replay:
    """One Telemetry stream with ``points`` to send, in batches of at most ``most``.

    Invariant: never more than the budget is under way beyond what is acknowledged.
    """

    def __init__(self, call: Any, epoch: int, journal_id: str, points: int, most: int) -> None:
        self._call = call
        self._epoch = epoch
        self._journal_id = journal_id
        self._left = points
        self._most = most
        self._points = [point(number) for number in range(most)]
        self._sent = 0
        self.batches = 0
        self.least_budget = 0

    async def run(self) -> int:
        """Send until all is acknowledged; returns how many points. Raises where the stream ends early."""
        await self._call.write(pb2.TelemetryRequest(open=pb2.TelemetryOpen(session_epoch=self._epoch)))
        opened = (await self._read()).opened
        first = acknowledged = self._sent = opened.last_sequence
        end, budget = first + self._left, opened.budget
        self.least_budget = budget
        while True:
            await self._send(end, acknowledged + budget)
            if acknowledged == end:
                break
            answer = (await self._read()).acknowledged
            acknowledged, budget = answer.last_sequence, answer.budget
            self.least_budget = min(self.least_budget, budget)
        await self._call.done_writing()
        await self._call.read()
        return acknowledged - first

    async def _send(self, end: int, allowed: int) -> None:
        while (count := min(self._most, allowed - self._sent, end - self._sent)) > 0:
            batch = pb2.TelemetryBatch(
                journal_id=self._journal_id, first_sequence=self._sent + 1, points=self._points[:count]
            )
            self._sent += count
            self.batches += 1
            await self._call.write(pb2.TelemetryRequest(batch=batch))
            await asyncio.sleep(0)

    async def _read(self) -> pb2.TelemetryResponse:
        message = await self._call.read()
        if message is grpc.aio.EOF:
            raise ConnectionError(f"telemetry: {await self._call.code()} {await self._call.details()}")
        found: pb2.TelemetryResponse = message
        return found


def point(number: int) -> work_pb2.TelemetryPoint:
    """Return one of the points that a backlog is made of."""
    made = work_pb2.TelemetryPoint(
        metric=_METRICS[number % len(_METRICS)], value=number / 7, attributes={"unit": "bench"}
    )
    made.time.FromSeconds(_FIRST + number)
    return made
