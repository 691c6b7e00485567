"""The real host behind the Host port."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import protovalidate
import psutil
import pytest
from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim.agent.host import RealHost
from agent_sim.agent.inventory import take_inventory
from agent_sim.agent.policy import default_policy, parse_policy
from agent_sim.agent.telemetry import HostTelemetry
from agent_sim.host import Host
from tests.unit.agent.reporting import Recorder

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make_host(state: Path, policy: str) -> RealHost:
    return RealHost(parse_policy(policy, "test"), state, lambda: NOW)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[RealHost]:
    host = make_host(tmp_path, default_policy())
    yield host
    host.close()


def assignment(**spec: object) -> agent_service_pb2.Assignment:
    task = work_pb2.TaskSpec(**spec)  # type: ignore[arg-type] # field names
    return agent_service_pb2.Assignment(attempt_id="a1", task="tasks/t1", number=1, spec=task)


async def run(host: Host, recorder: Recorder | None = None, **spec: object) -> work_pb2.AttemptResult:
    result = await host.run(assignment(**spec), recorder or Recorder())
    protovalidate.validate(result)
    return result


async def test_echo_gives_the_payload_back_with_its_times(host: RealHost) -> None:
    result = await run(host, echo=work_pb2.EchoSpec(payload=b"\0x"))
    assert result.outcome == work_pb2.OUTCOME_SUCCEEDED
    assert result.echo.payload == b"\0x"
    assert result.start_time.ToDatetime(UTC) == NOW
    # The clock of the test stands still: what passed is measured by the one that does not jump.
    assert NOW <= result.end_time.ToDatetime(UTC) < NOW + timedelta(minutes=1)


async def test_a_script_runs_where_the_state_folder_is_given_as_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    host = make_host(Path("."), default_policy())
    result = await run(host, script=work_pb2.ScriptSpec(interpreter="sh", body="exit 0"))
    host.close()
    assert result.outcome == work_pb2.OUTCOME_SUCCEEDED, result.reason


async def test_a_delayed_echo_can_be_cancelled(host: RealHost) -> None:
    spec = work_pb2.EchoSpec(payload=b"x")
    spec.delay.FromTimedelta(timedelta(hours=1))
    task = asyncio.create_task(host.run(assignment(echo=spec), Recorder()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_script_runs(host: RealHost) -> None:
    recorder = Recorder()
    result = await run(host, recorder, script=work_pb2.ScriptSpec(interpreter="sh", body="echo hello"))
    assert (result.outcome, recorder.stdout) == (work_pb2.OUTCOME_SUCCEEDED, b"hello\n")


async def test_a_forbidden_kind_is_refused_with_nothing_done(tmp_path: Path) -> None:
    host = make_host(tmp_path, 'task_kinds = ["echo"]')
    try:
        result = await run(host, script=work_pb2.ScriptSpec(interpreter="sh", body="echo hello"))
        assert list(host.task_kinds()) == ["echo"]
    finally:
        host.close()
    assert result.outcome == work_pb2.OUTCOME_REFUSED
    assert result.reason == "policy task_kinds: 'script' is not listed"
    assert not result.HasField("start_time")


async def test_installing_is_refused_by_the_policy_and_not_as_unknown(tmp_path: Path) -> None:
    host = make_host(tmp_path, 'task_kinds = ["echo"]')
    try:
        result = await run(host, install=work_pb2.InstallSpec())
    finally:
        host.close()
    assert result.outcome == work_pb2.OUTCOME_REFUSED
    assert result.reason == "policy task_kinds: 'install' is not listed"


async def test_a_kind_of_a_later_contract_is_refused(host: RealHost) -> None:
    result = await run(host)
    assert result.outcome == work_pb2.OUTCOME_REFUSED
    assert "does not know" in result.reason


async def test_what_the_system_refuses_is_a_failure_in_words(host: RealHost) -> None:
    result = await run(host, logs=work_pb2.LogsSpec(path="/var/log/no such file"))
    assert result.outcome == work_pb2.OUTCOME_FAILED
    assert result.reason == "logs: no such file: No such file or directory"


async def test_a_long_reason_is_cut_to_the_contracts_length(host: RealHost) -> None:
    result = await run(host, logs=work_pb2.LogsSpec(path="/" + "ä" * 2000))
    assert result.outcome in (work_pb2.OUTCOME_REFUSED, work_pb2.OUTCOME_FAILED)
    assert 2000 < len(result.reason.encode()) <= 2048


async def test_the_inventorys_digest_outlives_a_restart(host: RealHost, tmp_path: Path) -> None:
    assert host.inventory_digest() == ""
    result = await run(host, inventory=work_pb2.InventorySpec())
    again = make_host(tmp_path, default_policy())
    again.close()
    assert again.inventory_digest() == result.inventory.digest != ""


async def test_samples_keep_the_contract(host: RealHost) -> None:
    points = await host.sample()
    for point in points:
        protovalidate.validate(point)
        assert math.isfinite(point.value)
        assert point.time.ToDatetime(UTC) == NOW
    assert {point.metric for point in points} >= {
        "cpu.load1",
        "memory.used_bytes",
        "memory.available_bytes",
        "uptime.seconds",
        "agent.rss_bytes",
    }
    series = [(point.metric, *sorted(point.attributes.items())) for point in points]
    assert len(series) == len(set(series))


def test_a_source_that_fails_leaves_out_only_its_own_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError

    monkeypatch.setattr("psutil.virtual_memory", broken)
    metrics = {point.metric for point in HostTelemetry(lambda: NOW).measure()}
    assert "memory.used_bytes" not in metrics
    assert "uptime.seconds" in metrics


async def test_a_mount_point_that_is_not_utf8_hides_neither_telemetry_nor_inventory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(odd)
    root = psutil.disk_partitions(all=True)[0]
    mounts = [root._replace(device="/dev/odd", mountpoint=odd, fstype="ext4", opts="")]
    monkeypatch.setattr("psutil.disk_partitions", lambda **_: mounts)
    points = HostTelemetry(lambda: NOW).measure()
    shown = {point.attributes["mount"] for point in points if point.metric == "disk.used_bytes"}
    assert shown == {f"{tmp_path}/\N{REPLACEMENT CHARACTER}"}
    inventory = await take_inventory(include_packages=False)
    assert {disk.mount_point for disk in inventory.disks} == shown


async def test_an_inventory_says_which_source_it_reads(host: RealHost) -> None:
    recorder = Recorder()
    await run(host, recorder, inventory=work_pb2.InventorySpec(include_packages=True))
    assert recorder.said == [
        (0, "hardware"),
        (0, "packages of dpkg"),
        (33, "packages of rpm"),
        (66, "packages of pip"),
    ]


async def test_a_script_says_how_much_came_out_of_it_also_of_what_is_thrown_away(host: RealHost) -> None:
    recorder = Recorder()
    spec = work_pb2.ScriptSpec(interpreter="sh", body="printf 12345; printf 67", output_limit=4)
    await run(host, recorder, script=spec)
    assert recorder.said[-1] == (0, "7 bytes of output")
