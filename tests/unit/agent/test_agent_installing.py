"""Packages on a real host: fetched, judged, put in a prefix, detected, and taken back."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fleetwright.v1 import work_pb2
from fleetwright.verify.evidence import attestations_path

from agent_sim.agent.installing.ledger import Ledger, installed_in
from agent_sim.agent.installing.records import Operation, Step
from controlplane.trust.tuf.publishing import revoke
from tests.support.install_world import PIECE, evidence
from tests.unit.agent.install_site import ALL_CHECKS, FAILED, INSTALLED, ROLLED_BACK, Site, broken
from tests.unit.agent.reporting import Recorder
from tests.unit.verify import evidence_world as world


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    for task in site.tasks:
        task.close()


async def test_a_released_package_is_verified_and_installed(site: Site) -> None:
    package = site.released()
    recorder = Recorder()
    result = await site.install(package, recorder)
    assert result.outcome == work_pb2.OUTCOME_SUCCEEDED, result.reason
    assert result.install.status == INSTALLED
    assert list(result.install.verified) == ALL_CHECKS
    assert result.install.downloaded_bytes == len(package.content)
    assert site.said() == "tool 1.0"
    assert recorder.statuses == [
        work_pb2.DEPLOYMENT_STATUS_DOWNLOADING,
        work_pb2.DEPLOYMENT_STATUS_VERIFYING,
        work_pb2.DEPLOYMENT_STATUS_INSTALLING,
    ]
    assert list((site.state / "packages" / "downloads").iterdir()) == []


async def test_installed_files_have_their_modes_whatever_the_umask(site: Site) -> None:
    before = os.umask(0o077)
    try:
        await site.install(site.released())
    finally:
        os.umask(before)
    version = (site.prefix / "current" / "tool").resolve()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (version, *version.rglob("*"))}
    assert {modes[name] for name in ("tool", "bin", "lib", version.name)} == {0o755}
    assert modes["data.bin"] == 0o644


async def test_links_of_a_package_are_made(site: Site) -> None:
    await site.install(site.released(links={"tool-1.0/lib/link": "data.bin"}))
    link = site.prefix / "current" / "tool" / "lib" / "link"
    if not link.is_symlink():  # Where a link keeps the folder that holds all.
        link = site.prefix / "current" / "tool" / "tool-1.0" / "lib" / "link"
    assert os.readlink(link) == "data.bin"


async def test_a_later_version_takes_the_place_of_the_former_which_is_kept(site: Site) -> None:
    await site.install(site.released("1.0"))
    result = await site.install(site.released("2.0"))
    assert (result.install.status, result.install.previous_version) == (INSTALLED, "1.0")
    assert site.said() == "tool 2.0"
    assert site.versions() == ["1.0", "2.0"]
    await site.install(site.released("3.0"))
    assert site.versions() == ["2.0", "3.0"]


async def test_a_command_that_the_next_version_has_no_more_is_removed(site: Site) -> None:
    both = {"a/bin/tool": (b"#!/bin/sh\necho tool 1\n", 0o755), "a/bin/extra": (b"#!/bin/sh\n", 0o755)}
    await site.install(site.released("1.0", files=both))
    assert sorted(os.listdir(site.prefix / "bin")) == ["extra", "tool"]
    await site.install(site.released("2.0"))
    assert os.listdir(site.prefix / "bin") == ["tool"]


async def test_a_package_that_is_not_detected_is_taken_back_and_the_former_is_there_again(site: Site) -> None:
    await site.install(site.released("1.0"))
    result = await site.install(site.released("2.0", **broken("2.0")))
    assert result.outcome == work_pb2.OUTCOME_FAILED
    assert (result.install.status, result.install.reason_code) == (ROLLED_BACK, "NOT_DETECTED")
    assert "exit status 0, not 7" in result.reason
    assert "version 1.0 is back" in result.reason
    assert site.said() == "tool 1.0"
    assert site.versions() == ["1.0"]


async def test_a_first_package_that_is_not_detected_leaves_nothing(site: Site) -> None:
    result = await site.install(site.released(**broken("1.0")))
    assert (result.install.status, result.install.reason_code) == (FAILED, "NOT_DETECTED")
    assert "nothing was there before" in result.reason
    assert site.versions() == []
    assert os.listdir(site.prefix / "bin") == os.listdir(site.prefix / "current") == []


async def test_where_the_manifest_says_so_nothing_comes_back(site: Site) -> None:
    await site.install(site.released("1.0"))
    none = {"rollback": {"strategy": "none", "keep_versions": 1}}
    result = await site.install(site.released("2.0", **broken("2.0"), **none))
    assert result.install.status == FAILED
    assert site.versions() == []
    assert os.listdir(site.prefix / "bin") == []


async def test_a_command_that_hangs_is_ended_and_the_package_taken_back(site: Site) -> None:
    files = {"a/bin/tool": (b"#!/bin/sh\nsleep 100\n", 0o755)}
    detect = {
        "kind": "command",
        "arguments": ["bin/tool"],
        "exit_status": 0,
        "output": "",
        "timeout_seconds": 1,
    }
    result = await site.install(site.released(files=files, detect=detect))
    assert result.install.reason_code == "NOT_DETECTED"
    assert "did not end within 1 s" in result.reason


async def test_the_output_of_a_command_is_compared(site: Site) -> None:
    detect = {
        "kind": "command",
        "arguments": ["bin/tool"],
        "exit_status": 0,
        "output": "tool 1.*",
        "timeout_seconds": 5,
    }
    assert (await site.install(site.released("1.0", detect=detect))).install.status == INSTALLED
    result = await site.install(site.released("2.0", detect=detect))
    assert result.install.status == ROLLED_BACK
    assert "printed 'tool 2.0" in result.reason


async def test_the_same_package_again_is_found_and_not_downloaded(site: Site) -> None:
    package = site.released()
    await site.install(package)
    site.files.asked.clear()
    result = await site.install(package)
    assert (result.install.status, result.install.reason_code) == (INSTALLED, "ALREADY_INSTALLED")
    assert result.install.downloaded_bytes == 0
    assert list(result.install.verified) == [name for name in ALL_CHECKS if name != "release"]
    assert package.sha256 not in [sha256 for sha256, _ in site.files.asked]


async def test_an_installed_package_that_was_damaged_is_installed_anew(site: Site) -> None:
    package = site.released()
    await site.install(package)
    (site.prefix / "current" / "tool" / "VERSION").unlink()
    detected = site.prefix / "current" / "tool" / "bin" / "tool"
    detected.write_bytes(b"#!/bin/sh\necho hacked\n")
    result = await site.install(package)
    assert (result.install.status, result.install.reason_code) == (INSTALLED, "")
    assert site.said() == "tool 1.0"
    assert len(site.versions()) == 1


async def test_a_package_that_was_taken_back_is_not_good_any_more_where_it_is_installed(site: Site) -> None:
    package = site.released()
    await site.install(package)
    online, repository = world.ceremony().online, site.files.repository
    taken = [package.path, attestations_path(package.path)]
    repository.take(revoke(repository.state, "stable", taken, online.keys, world.NOW, world.EXPIRIES).state)
    result = await site.install(package)
    assert (result.install.status, result.install.reason_code) == (FAILED, "NOT_RELEASED")
    assert site.said() == "tool 1.0"


async def test_an_installed_package_that_was_judged_bad_since_is_reported(site: Site) -> None:
    package = site.released()
    await site.install(package)
    lines = evidence(package, expires=world.NOW - timedelta(seconds=1), verified=world.NOW - world.DAY)
    site.files.repository.release({attestations_path(package.path): lines})
    result = await site.install(package)
    assert (result.install.status, result.install.reason_code) == (FAILED, "VERDICT_WRONG")
    assert "the version that is installed stays" in result.reason


async def test_a_cut_download_goes_on_where_it_was(site: Site) -> None:
    package = site.released()
    site.files.cuts = [3_000, 2_500]
    result = await site.install(package)
    assert result.install.status == INSTALLED
    offsets = [offset for sha256, offset in site.files.asked if sha256 == package.sha256]
    assert offsets == [0, 3_000, 5_500]
    assert result.install.downloaded_bytes == len(package.content)


async def test_a_download_that_comes_to_nothing_is_gone_on_with_by_the_next_attempt(site: Site) -> None:
    package = site.released()
    site.files.cuts = [4_000, 0, 0, 0, 0]
    result = await site.install(package)
    assert (result.install.status, result.install.reason_code) == (FAILED, "FETCH_FAILED")
    assert result.install.downloaded_bytes == 4_000
    site.files.cuts = []
    result = await site.install(package)
    assert result.install.status == INSTALLED
    assert result.install.downloaded_bytes == len(package.content) - 4_000


async def test_a_damaged_beginning_is_thrown_away_and_fetched_again(site: Site) -> None:
    package = site.released()
    partial = site.state / "packages" / "downloads" / package.sha256
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"\0" * 5_000)
    result = await site.install(package)
    assert result.install.status == INSTALLED
    assert result.install.downloaded_bytes == 2 * len(package.content) - 5_000


async def test_an_attempt_that_is_cancelled_while_it_downloads_keeps_what_it_has(site: Site) -> None:
    package = site.released()
    site.files.held = package.sha256
    running = asyncio.create_task(site.install(package))
    await site.files.holding.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    site.files.held = ""
    result = await site.install(package)
    assert result.install.status == INSTALLED
    assert result.install.downloaded_bytes == len(package.content) - PIECE


async def test_an_attempt_that_is_cancelled_while_it_follows_the_metadata_leaves_no_lock(site: Site) -> None:
    package = site.released()
    site.files.held = "timestamp.json"
    task = site.task()
    running = asyncio.create_task(site.install(package, task=task))
    await site.files.holding.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    site.files.held = ""
    assert (await site.install(package, task=task)).install.status == INSTALLED


async def test_an_attempt_that_is_cancelled_while_it_installs_ends_with_the_truth(site: Site) -> None:
    files = {"a/bin/tool": (b"#!/bin/sh\ntouch began\nsleep 0.5\necho tool\n", 0o755)}
    detect = {
        "kind": "command",
        "arguments": ["bin/tool"],
        "exit_status": 0,
        "output": "",
        "timeout_seconds": 9,
    }
    package = site.released(files=files, detect=detect)
    recorder = Recorder()
    running = asyncio.create_task(site.install(package, recorder))
    while recorder.statuses[-1:] != [work_pb2.DEPLOYMENT_STATUS_INSTALLING]:
        await recorder.told.wait()
        recorder.told.clear()
    running.cancel()
    assert (await running).install.status == INSTALLED


async def test_the_status_tells_what_is_installed(site: Site) -> None:
    assert installed_in(site.state / "packages") == []
    await site.install(site.released("1.0"))
    await site.install(site.released("2.0"))
    assert [(one.name, one.version) for one in installed_in(site.state / "packages")] == [("tool", "2.0")]


async def test_an_operation_that_a_full_disk_stopped_is_ended_before_the_next_begins(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.install(site.released("1.0"))
    second, third = site.released("2.0"), site.released("3.0")
    write: Any = Ledger.write

    def full(ledger: Ledger, operation: Operation) -> Operation:
        if operation.step is Step.COMMITTING:
            raise OSError(errno.ENOSPC, "No space left on device", "operation.json")
        kept: Operation = write(ledger, operation)
        return kept

    task = site.task()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "write", full)
        result = await site.install(second, task=task)
    assert (result.install.status, result.install.reason_code) == (FAILED, "NO_SPACE")
    result = await site.install(third, task=task)
    assert (result.install.status, result.install.previous_version) == (INSTALLED, "2.0")
    assert site.versions() == ["2.0", "3.0"]


async def test_a_ledger_that_cannot_be_read_stops_installations_and_nothing_else(site: Site) -> None:
    package = site.released()
    await site.install(package)
    (site.state / "packages" / "installed.json").write_text("{")
    assert await site.task().recover() is None
    result = await site.install(package)
    assert result.install.reason_code == "LEDGER_UNUSABLE"
    assert "put it back from a backup" in result.reason
