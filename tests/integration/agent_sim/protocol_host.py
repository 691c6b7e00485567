"""A host whose work the test holds in its hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim.host import AttemptReporter


class HeldHost:
    """Echoes; an echo of ``hold`` ends when the test says so, one of ``output`` reports output first."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.running: asyncio.Queue[str] = asyncio.Queue()
        self.let_go = asyncio.Event()
        self.points: list[work_pb2.TelemetryPoint] = []
        self.sampled = asyncio.Event()

    def facts(self) -> work_pb2.HostFacts:
        return work_pb2.HostFacts(hostname="held")

    def task_kinds(self) -> Sequence[str]:
        return ("echo",)

    def inventory_digest(self) -> str:
        return ""

    async def sample(self) -> Sequence[work_pb2.TelemetryPoint]:
        self.sampled.set()
        points, self.points = self.points, []
        return points

    async def run(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        self.ran.append(assignment.attempt_id)
        self.running.put_nowait(assignment.attempt_id)
        payload = assignment.spec.echo.payload
        if payload == b"hold":
            await self.let_go.wait()
        if payload == b"output":
            reporter.progress(50, "half")
            await reporter.output(work_pb2.OUTPUT_STREAM_STDOUT, b"0123456789")
        return work_pb2.AttemptResult(
            outcome=work_pb2.OUTCOME_SUCCEEDED, echo=work_pb2.EchoResult(payload=payload)
        )


def point(value: float) -> work_pb2.TelemetryPoint:
    made = work_pb2.TelemetryPoint(metric="test.value_count", value=value)
    made.time.FromSeconds(1_700_000_000)
    return made
