"""The server is killed at named points under load: what it has acknowledged is there afterwards.

The books are kept outside the server: the caller's list of created tasks, the agents'
lists of acknowledged results and points, and a file of effects that the hosts write.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1 import task_service_pb2

from controlplane.failpoints import NAMES
from tests.support.admin import FINAL, Admin
from tests.support.fleet import Effects, Fleet
from tests.support.process import ServerProcess, running, start
from tests.support.site import HOST, enroll
from tests.support.streams import read

AGENTS = 30
TASKS = 300
CALLERS = 8

# At which hit the server dies: well inside the load, so that much is done and much under way.
KILLED_AT = {
    "results.after_receive": 100,
    "writer.before_commit": 60,
    "writer.after_commit": 60,
    "results.after_acknowledge": 100,
    "telemetry.after_receive": 400,
    "telemetry.after_acknowledge": 400,
    "tasks.after_create": 150,
}

SETTINGS: dict[str, Any] = {"telemetry_interval": "100ms", "tasks_sweep": "200ms", "lease_time": "5s"}


class Caller:
    """Creates tasks and keeps its own list; what failed is asked for again with the same request id."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}
        self._left = list(reversed(range(TASKS)))

    async def create(self, admin: Admin) -> None:
        """Create what is left, until all is acknowledged or the server is gone."""
        with suppress(grpc.aio.AioRpcError):
            while self._left:
                number = self._left.pop()
                try:
                    task = await admin.create(
                        f"node-{number % AGENTS}", f"{number}".encode(), request_id=f"request-{number}"
                    )
                except grpc.aio.AioRpcError:
                    self._left.append(number)
                    raise
                self.acknowledged[f"request-{number}"] = task.name


async def create_all(caller: Caller, server: ServerProcess) -> None:
    await asyncio.gather(*(caller.create(server.admin()) for _ in range(CALLERS)))


def test_every_failpoint_is_tried() -> None:
    # Those of a restore are tried in tests/integration/backup.
    assert set(KILLED_AT) == {name for name in NAMES if not name.startswith("restore.")}


@pytest.mark.slow
@pytest.mark.parametrize("point", KILLED_AT)
async def test_what_was_acknowledged_survives_a_kill(folder: Path, tmp_path: Path, point: str) -> None:
    effects = Effects(tmp_path / "effects")
    caller = Caller()
    first = await start(folder, failpoints=f"{point}=kill@{KILLED_AT[point]}", **SETTINGS)
    _, token = await first.admin().token(max_uses=AGENTS)
    stub = first.enrollment()
    identities = [await enroll(stub, f"node-{number}", token) for number in range(AGENTS)]
    fleet = Fleet(identities, f"{HOST}:{first.ports.agents}", effects)
    creating = asyncio.create_task(create_all(caller, first))
    assert await first.died() == -signal.SIGKILL
    await creating
    await first.close()
    before = len(caller.acknowledged), len(fleet.results), len(fleet.points)

    async with running(folder, first.ports, **SETTINGS) as second:
        await create_all(caller, second)
        assert len(caller.acknowledged) == TASKS
        admin = second.admin()
        await all_final(admin)
        await fleet.stop()
        tasks = {task.name: task for task in await admin.all_tasks()}
        assert set(caller.acknowledged.values()) == set(tasks)
        assert {task.state for task in tasks.values()} == {task_service_pb2.TASK_STATE_SUCCEEDED}
        assert effects.by_task() == dict.fromkeys(tasks, 1)
        found = {
            attempt.attempt_id
            for name in tasks
            for attempt in (await admin.task(name)).attempts
            if attempt.HasField("result")
        }
        assert set(fleet.results) <= found
        assert set(fleet.results.values()) <= {"COMMITTED", "DUPLICATE"}
        stored = [stored.point.value for stored in await admin.points()]
        assert len(stored) == len(set(stored))
        assert fleet.points <= set(stored)
    effects.close()
    created, results, points = before
    assert created, "killed before a task was acknowledged"
    assert results or points, "killed before a result or a point was acknowledged"


async def all_final(admin: Admin) -> None:
    """Wait until every task is final."""
    watch = admin.tasks.WatchTasks(task_service_pb2.WatchTasksRequest())
    states: dict[str, int] = {}
    while len(states) < TASKS or min(states.values()) < FINAL:
        change = await read(watch)
        if change.task.name:
            states[change.task.name] = change.task.state
    watch.cancel()
