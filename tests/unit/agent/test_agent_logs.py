"""Logs: the end of a file that the policy allows, and never of another one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from fleetwright.v1 import work_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_sim.agent.logs import LogReader, _open_resolved
from agent_sim.agent.rules import RefusedError
from tests.unit.agent.reporting import Recorder


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = Path(os.path.realpath(tmp_path)) / "log"
    folder.mkdir()
    (folder.parent / "secret").write_text("secret\n")
    (folder / "app.log").write_text("".join(f"line {number} {number % 2}\n" for number in range(1000)))
    return folder


@pytest.fixture
def reader(logs: Path) -> LogReader:
    return LogReader([f"{logs}/**"], max_bytes=1 << 20, scan_bytes=1 << 20)


def spec(path: Path | str, **fields: object) -> work_pb2.LogsSpec:
    return work_pb2.LogsSpec(path=str(path), **fields)  # type: ignore[arg-type] # field names


async def test_a_whole_file_is_sent_where_it_fits(reader: LogReader, logs: Path) -> None:
    recorder = Recorder()
    result = await reader.run(spec(logs / "app.log"), recorder)
    content = (logs / "app.log").read_bytes()
    assert result.outcome == work_pb2.OUTCOME_SUCCEEDED
    assert recorder.log == content
    assert (result.log_bytes, result.logs.file_bytes, result.logs.truncated) == (
        len(content),
        len(content),
        False,
    )


async def test_only_the_end_is_sent_where_it_does_not_fit(reader: LogReader, logs: Path) -> None:
    recorder = Recorder()
    result = await reader.run(spec(logs / "app.log", max_bytes=11), recorder)
    assert recorder.log == b"line 999 1\n"
    assert result.logs.truncated


async def test_only_matching_lines_are_sent(reader: LogReader, logs: Path) -> None:
    recorder = Recorder()
    result = await reader.run(spec(logs / "app.log", contains="line 99", max_bytes=1000), recorder)
    lines = recorder.log.decode().splitlines()
    assert lines == ["line 99 1", *(f"line {number} {number % 2}" for number in range(990, 1000))]
    assert not result.logs.truncated


async def test_the_last_matching_lines_are_kept(reader: LogReader, logs: Path) -> None:
    recorder = Recorder()
    result = await reader.run(spec(logs / "app.log", contains=" 1\n", max_bytes=22), recorder)
    assert recorder.log == b"line 997 1\nline 999 1\n"
    assert result.logs.truncated


async def test_what_was_not_searched_counts_as_left_out(logs: Path) -> None:
    reader = LogReader([f"{logs}/*"], max_bytes=1 << 20, scan_bytes=11)
    recorder = Recorder()
    result = await reader.run(spec(logs / "app.log", contains="line"), recorder)
    assert recorder.log == b"line 999 1\n"
    assert result.logs.truncated


async def test_lines_longer_than_a_block_are_searched_whole(reader: LogReader, logs: Path) -> None:
    (logs / "long.log").write_bytes(b"x" * 300_000 + b"needle\n" + b"y" * 300_000)
    recorder = Recorder()
    await reader.run(spec(logs / "long.log", contains="needle", max_bytes=1 << 20), recorder)
    assert recorder.log == b"x" * 300_000 + b"needle\n"


async def test_a_missing_file_is_an_error_of_the_system(reader: LogReader, logs: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await reader.run(spec(logs / "none.log"), Recorder())


async def test_a_link_is_judged_by_where_it_leads(reader: LogReader, logs: Path) -> None:
    (logs / "inside").symlink_to(logs / "app.log")
    (logs / "outside").symlink_to(logs.parent / "secret")
    (logs / "folder").symlink_to(logs.parent)
    assert (await reader.run(spec(logs / "inside"), Recorder())).outcome == work_pb2.OUTCOME_SUCCEEDED
    for escape in ("outside", "folder/secret", "../secret", "inside/../../secret"):
        with pytest.raises(RefusedError, match=r"logs\.paths"):
            await reader.run(spec(logs / escape), Recorder())


@pytest.mark.parametrize("path", ["log/app.log", "/var/log/\0", ""])
async def test_what_is_no_absolute_path_is_refused(reader: LogReader, path: str) -> None:
    with pytest.raises(RefusedError, match=r"logs\.path"):
        await reader.run(spec(path), Recorder())


async def test_a_pipe_and_a_folder_are_refused_without_waiting(reader: LogReader, logs: Path) -> None:
    os.mkfifo(logs / "pipe")
    for name in ("pipe", ""):
        with pytest.raises(RefusedError, match="not a regular file"):
            await reader.run(spec(logs / "sub" / ".." / name if name else logs), Recorder())


def test_a_link_that_takes_the_place_of_a_folder_after_the_decision_is_not_followed(logs: Path) -> None:
    allowed = logs / "apt"
    allowed.symlink_to(logs.parent)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        _open_resolved(str(allowed / "secret"))


async def test_more_than_the_policy_allows_is_refused(reader: LogReader, logs: Path) -> None:
    with pytest.raises(RefusedError, match=r"limits\.log_bytes"):
        await reader.run(spec(logs / "app.log", max_bytes=2 << 20), Recorder())


PARTS = st.lists(
    st.sampled_from(["..", ".", "log", "app.log", "secret", "up", "root", "", "etc", "passwd"]), max_size=8
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(PARTS)
def test_no_path_reads_a_file_outside(logs: Path, parts: list[str]) -> None:
    for name, target in (("up", logs.parent), ("root", Path("/"))):
        if not (logs / name).is_symlink():
            (logs / name).symlink_to(target)
    reader = LogReader([f"{logs}/**"], max_bytes=1 << 20, scan_bytes=1 << 20)
    try:
        tail = reader._read("/".join([str(logs), *parts]), b"", 1 << 20, threading.Event())
    except (RefusedError, OSError):
        return
    assert tail.content == (logs / "app.log").read_bytes()
