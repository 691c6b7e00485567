"""/metrics of a real server process under load: each series that operators are told of, and what it says."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
import pytest
import pytest_asyncio
from fleetwright.v1 import task_service_pb2, work_pb2
from prometheus_client.parser import text_string_to_metric_families

from tests.support.fleet import Effects, Fleet
from tests.support.folders import copy_folder
from tests.support.process import ServerProcess, running
from tests.support.site import HOST, enroll, http_get
from tests.support.streams import PATIENCE, read

AGENTS = 12
TASKS = 60
SETTINGS: dict[str, Any] = {
    "telemetry_interval": "100ms",
    "presence_sweep": "100ms",
    "last_seen_flush": "200ms",
}


class Scrape:
    """The samples of one answer of /metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def get(self, name: str, **labels: str) -> float:
        """Return the sum of the samples that have these labels; NaN where there is none."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else math.nan

    def values(self, label: str) -> set[str]:
        """Return the values that a label has anywhere."""
        return {sample.labels[label] for sample in self.samples if label in sample.labels}


@dataclass
class Load:
    """A fleet that has worked and is still connected, and what was asked of it."""

    server: ServerProcess
    scrape: Scrape
    seconds: float


async def scraped(server: ServerProcess, wanted: Callable[[Scrape], bool] = lambda _: True) -> Scrape:
    """Return the first scrape that is ``wanted``: gauges follow at the next sweep."""
    async with asyncio.timeout(PATIENCE):
        while True:
            scrape = Scrape((await http_get(server.ports.health, "/metrics"))[1])
            if wanted(scrape):
                return scrape


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def load(template: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Load]:
    """One load for all tests: connected agents, tasks done, one task that waits for an agent that is away."""
    folder = copy_folder(template, tmp_path_factory.mktemp("metrics") / "data")
    effects = Effects(folder.parent / "effects")
    async with running(folder, **SETTINGS) as server:
        began, admin = monotonic(), server.admin()
        _, token = await admin.token(max_uses=AGENTS + 1)
        stub = server.enrollment()
        await enroll(stub, "away", token)
        identities = [await enroll(stub, f"node-{number}", token) for number in range(AGENTS)]
        await admin.create("away")
        fleet = Fleet(identities, f"{HOST}:{server.ports.agents}", effects)
        await scraped(server, lambda now: now.get("fleetwright_agents", presence="ONLINE") == AGENTS)
        for number in range(TASKS - AGENTS):
            await admin.create(f"node-{number % AGENTS}", b"load")
        batch = task_service_pb2.CreateTaskBatchRequest(
            selector="presence = ONLINE", spec=work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=b"load"))
        )
        await admin.tasks.CreateTaskBatch(batch)
        watch = admin.tasks.WatchTasks(task_service_pb2.WatchTasksRequest(filter="state = SUCCEEDED"))
        done: set[str] = set()
        while len(done) < TASKS:
            message = await read(watch)
            assert message is not grpc.aio.EOF
            done |= {message.task.name} - {""}
        scrape = await scraped(
            server,
            lambda now: (
                now.get("fleetwright_tasks") == now.get("fleetwright_tasks", state="QUEUED") == 1
                and now.get("fleetwright_results_total") == TASKS
                and now.get("fleetwright_task_oldest_seconds", state="QUEUED") > 0
            ),
        )
        yield Load(server, scrape, monotonic() - began)
        watch.cancel()
        await fleet.stop()
    effects.close()


def resident(pid: int) -> int:
    """Return the bytes of memory that the kernel says a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_calls_and_streams(load: Load) -> None:
    now = load.scrape
    assert now.get("grpc_server_started_total", grpc_method="CreateTask") == TASKS - AGENTS + 1
    assert (
        now.get("grpc_server_handled_total", grpc_method="CreateTask", grpc_code="OK") == TASKS - AGENTS + 1
    )
    assert now.get("grpc_server_handling_seconds_count", grpc_method="CreateTask") == TASKS - AGENTS + 1
    assert 0 < now.get("grpc_server_handling_seconds_sum", grpc_method="CreateTask") < load.seconds
    assert now.get("fleetwright_open_streams", stream="Heartbeat") == AGENTS
    assert now.get("fleetwright_open_streams", stream="WatchTasks") == 1
    assert now.get("grpc_server_msg_received_total", grpc_method="Heartbeat") >= AGENTS
    assert now.get("grpc_server_msg_sent_total", grpc_method="Tasks") >= 2 * TASKS
    assert now.get("fleetwright_tls_handshakes_total", listener="agents") >= AGENTS
    assert math.isnan(now.get("fleetwright_refused_total", reason="INTERNAL"))


async def test_presence_and_tasks(load: Load) -> None:
    now = load.scrape
    assert now.get("fleetwright_agents", presence="ONLINE") == AGENTS
    assert now.get("fleetwright_agents") == AGENTS + 1
    assert now.get("fleetwright_tasks", state="QUEUED") == 1
    assert now.get("fleetwright_tasks", state="LEASED") == 0
    assert 0 < now.get("fleetwright_task_oldest_seconds", state="QUEUED") <= load.seconds
    assert now.get("fleetwright_task_oldest_seconds", state="RUNNING") == 0
    assert now.get("fleetwright_results_total", disposition="COMMITTED") == TASKS


async def test_group_commits(load: Load) -> None:
    now = load.scrape
    commits = now.get("fleetwright_group_commit_size_count")
    assert commits == now.get("fleetwright_group_commit_seconds_count") > 0
    # A session, and for each task at least a lease, an acceptance and a result.
    assert now.get("fleetwright_group_commit_size_sum") >= AGENTS + 3 * TASKS
    assert 0 < now.get("fleetwright_group_commit_seconds_sum") < load.seconds
    assert now.get("fleetwright_writer_queue") >= 0


async def test_statements(load: Load) -> None:
    now = load.scrape
    name = "fleetwright_statement_seconds_count"
    commits = now.get(name, query="storage.commit", engine="write")
    assert commits >= now.get("fleetwright_group_commit_size_count")
    assert now.get(name, query="storage.begin", engine="write") >= commits
    assert now.get(name, query="tasks.store.delivery.attempts", engine="write") > 0
    assert now.get("fleetwright_statement_rows_total", query="tasks.store.delivery.attempts") >= TASKS
    assert 0 < now.get("fleetwright_statement_seconds_sum") < load.seconds * 5  # one writer and four readers
    assert now.get("fleetwright_statement_failures_total") == 0
    queries = now.values("query")
    assert all(query.startswith(("storage.", "other")) or ".store." in query for query in queries), queries


async def test_database_pool(load: Load) -> None:
    now = load.scrape
    for engine, most in (("write", 1), ("read", 4)):
        states = [
            now.get("fleetwright_database_connections", engine=engine, state=state)
            for state in ("idle", "used")
        ]
        assert min(states) >= 0
        assert 1 <= sum(states) <= most
        assert now.get("fleetwright_database_wait_seconds_count", engine=engine) > 0
        assert 0 <= now.get("fleetwright_database_wait_seconds_sum", engine=engine) < math.inf


async def test_loop_and_process(load: Load) -> None:
    now = load.scrape
    assert now.get("fleetwright_loop_lag_seconds_count") > 0
    assert 0 <= now.get("fleetwright_loop_lag_last_seconds") < load.seconds
    assert now.get("process_resident_memory_bytes") == pytest.approx(resident(load.server.pid), rel=0.5)
    assert now.get("process_cpu_seconds_total") > 0
    assert now.get("process_open_fds") > AGENTS


async def test_no_label_names_an_agent_or_a_task(load: Load) -> None:
    assert "node-" not in load.scrape.text
    assert "away" not in load.scrape.text
    label_names = {label for sample in load.scrape.samples for label in sample.labels}
    assert max(len(load.scrape.values(label)) for label in label_names) < 150
