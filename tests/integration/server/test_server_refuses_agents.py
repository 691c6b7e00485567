"""The reference engine against the real server: what that refuses for good ends, and holds up nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from fleetwright.v1 import agent_service_pb2, task_service_pb2, work_pb2

from agent_sim.host import AttemptReporter
from agent_sim.protocol.agent import Agent
from agent_sim.protocol.clock import SystemClock
from agent_sim.protocol.config import AgentConfig
from agent_sim.protocol.identity import MemoryIdentityStore
from agent_sim.protocol.journal import MemoryJournal
from agent_sim.protocol.observer import Observer
from tests.support.admin import FINAL, Admin
from tests.support.agents import RawAgent
from tests.support.in_process import LocalSite

SUCCEEDED = task_service_pb2.TASK_STATE_SUCCEEDED
PATIENCE = 30.0


class Notes(Observer):
    def __init__(self) -> None:
        self.refused_results: list[str] = []
        self.refused_points = 0

    def result_refused(self, attempt_id: str, reason: str) -> None:
        self.refused_results.append(reason)

    def points_refused(self, count: int, reason: str) -> None:
        self.refused_points += count


class OddHost:
    """Answers an echo as its payload says: as the contract wants it, or not."""

    def __init__(self) -> None:
        self.together = asyncio.Barrier(6)
        self.ran: list[bytes] = []

    def facts(self) -> work_pb2.HostFacts:
        return work_pb2.HostFacts(hostname="odd")

    def task_kinds(self) -> Sequence[str]:
        return ("echo",)

    def inventory_digest(self) -> str:
        return ""

    async def sample(self) -> Sequence[work_pb2.TelemetryPoint]:
        return []

    async def run(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        payload = assignment.spec.echo.payload
        self.ran.append(payload)
        # All at once: their results are under way together.
        await self.together.wait()
        result = work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_SUCCEEDED)
        if payload == b"long name":
            result.inventory.cpu_model = "x" * 10_000
        elif payload == b"no such time":
            result.echo.payload = payload
            result.end_time.seconds = 10**16
        elif payload == b"too much":
            for stream in (work_pb2.OUTPUT_STREAM_STDOUT, work_pb2.OUTPUT_STREAM_STDERR):
                for _ in range(9 << 4):
                    await reporter.output(stream, bytes(65536))
        else:
            await reporter.output(work_pb2.OUTPUT_STREAM_STDOUT, b"said")
            result.echo.payload = payload
        return result


@asynccontextmanager
async def engine(agent: RawAgent, host: OddHost, notes: Notes, journal: MemoryJournal) -> AsyncIterator[None]:
    stop = asyncio.Event()
    config = AgentConfig(
        agent_version="odd",
        addresses=(agent.address,),
        concurrency=16,
        backoff_base=timedelta(milliseconds=50),
    )
    running = asyncio.create_task(
        Agent(
            config,
            host,
            journal,
            MemoryIdentityStore(agent.identity),
            SystemClock(),
            random.Random(1),
            notes,
        ).run(stop)
    )
    try:
        yield
    finally:
        stop.set()
        await running


async def final(admin: Admin, name: str) -> task_service_pb2.Task:
    async with asyncio.timeout(PATIENCE):
        while True:
            task = await admin.task(name)
            if task.state >= FINAL:
                return task
            await asyncio.sleep(0.02)


async def test_refused_results_end_their_tasks_and_hold_up_no_other(
    site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    host, notes, journal = OddHost(), Notes(), MemoryJournal()
    payloads = [b"good 1", b"long name", b"good 2", b"no such time", b"too much", b"good 3"]
    tasks = [await admin.create("node-1", payload) for payload in payloads]
    async with engine(agent, host, notes, journal):
        ended = [await final(admin, task.name) for task in tasks]
    assert sorted(host.ran) == sorted(payloads)
    assert [task.state for task in ended] == [SUCCEEDED] * len(payloads)
    by_payload = dict(zip(payloads, [task.attempts[-1].result for task in ended], strict=True))
    for number in (b"1", b"2", b"3"):
        good = by_payload[b"good " + number]
        assert (good.echo.payload, good.stdout_bytes) == (b"good " + number, 4)
    for odd, reason in ((b"long name", "VALIDATION_FAILED"), (b"too much", "LIMIT_EXCEEDED")):
        assert by_payload[odd].reason.startswith(f"the server refused the result as it was: {reason}: ")
        assert by_payload[odd].WhichOneof("detail") is None
    assert by_payload[b"too much"].discarded_bytes == 18 << 20
    assert not by_payload[b"no such time"].HasField("end_time")
    assert len(notes.refused_results) == 3
    assert journal.unreported == 0


def point(value: float, metric: str = "test.value_count") -> work_pb2.TelemetryPoint:
    made = work_pb2.TelemetryPoint(metric=metric, value=value)
    made.time.FromDatetime(datetime.now(UTC))
    return made


async def test_refused_points_are_dropped_counted_and_hold_up_no_other(
    site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    notes, journal = Notes(), MemoryJournal()
    bad = {3: "No Metric", 700: "", 701: "UPPER", 2_300: "-", 2_999: "."}
    await journal.append_points(
        [point(number, bad.get(number, "test.value_count")) for number in range(3_000)]
    )
    async with engine(agent, OddHost(), notes, journal), asyncio.timeout(PATIENCE):
        while journal.queued_points:  # noqa: ASYNC110 - the journal says nothing when it is empty
            await asyncio.sleep(0.02)
    stored = await admin.points("node-1")
    assert [one.point.value for one in stored] == [float(one) for one in range(3_000) if one not in bad]
    assert notes.refused_points == len(bad)
