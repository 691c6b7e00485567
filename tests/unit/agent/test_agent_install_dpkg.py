"""Packages of dpkg, in a root of its own below the test's folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fleetwright.v1 import work_pb2

from agent_sim import failpoints
from agent_sim.agent.installing.dpkg import Dpkg
from agent_sim.agent.installing.task import InstallTask
from agent_sim.released.reasons import InstallError
from tests.support.install_world import Package, deb, release
from tests.unit.agent.install_site import FAILED, INSTALLED, ROLLED_BACK, Site
from tests.unit.agent.reporting import Recorder
from tests.unit.agent.test_agent_install_kills import Killed

NAME = "fleetwright-test-tool"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("dpkg") is None, reason="dpkg installs as root, on a system that has it"
)


class DpkgSite(Site):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.root = folder / "root"
        database = self.root / "var" / "lib" / "dpkg"
        for name in ("info", "updates", "triggers"):
            (database / name).mkdir(parents=True)
        (self.root / "var" / "log").mkdir()
        for name in ("status", "available"):
            (database / name).touch()
        self.dpkg = Dpkg(True, self.root)
        self.rules = replace(self.rules, dpkg=True, prefix=None)

    def task(self, **options: Any) -> InstallTask:
        return super().task(dpkg_root=self.root, **options)

    def released(self, version: str = "1.0", **parts: Any) -> Package:
        package = deb(self.folder, version, **parts)
        release(self.files.repository, package)
        return package

    def said(self) -> str:
        program = self.root / "opt" / NAME / "bin" / "tool"
        return subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip()

    def known(self) -> str:
        return self.dpkg.version(NAME)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[DpkgSite]:
    site = DpkgSite(tmp_path)
    yield site
    for task in site.tasks:
        task.close()


def not_found(version: str) -> dict[str, Any]:
    command = {
        "kind": "command",
        "arguments": ["bin/tool"],
        "exit_status": 7,
        "output": "",
        "timeout_seconds": 5,
    }
    return {"detect": command}


async def test_a_deb_is_installed_by_dpkg_and_replaced_by_the_next(site: DpkgSite) -> None:
    result = await site.install(site.released("1.0"))
    assert result.install.status == INSTALLED, result.reason
    assert (site.known(), site.said()) == ("1.0", "tool 1.0")
    result = await site.install(site.released("2.0"))
    assert (result.install.status, result.install.previous_version) == (INSTALLED, "1.0")
    assert (site.known(), site.said()) == ("2.0", "tool 2.0")


async def test_a_deb_that_is_not_detected_gives_way_to_the_former_one(site: DpkgSite) -> None:
    await site.install(site.released("1.0"))
    result = await site.install(site.released("2.0", **not_found("2.0")))
    assert (result.install.status, result.install.reason_code) == (ROLLED_BACK, "NOT_DETECTED")
    assert "version 1.0 is back" in result.reason
    assert (site.known(), site.said()) == ("1.0", "tool 1.0")


async def test_a_first_deb_that_is_not_detected_is_removed(site: DpkgSite) -> None:
    result = await site.install(site.released("1.0", **not_found("1.0")))
    assert (result.install.status, result.install.reason_code) == (FAILED, "NOT_DETECTED")
    assert site.known() == ""


async def test_what_somebody_else_installed_cannot_be_brought_back_and_the_result_says_so(
    site: DpkgSite,
) -> None:
    other = site.folder / "other.deb"
    other.write_bytes(deb(site.folder, "0.9").content)
    site.dpkg.install(other)
    result = await site.install(site.released("2.0", **not_found("2.0")))
    assert (result.install.status, result.install.reason_code) == (FAILED, "ROLLBACK_FAILED")
    assert result.install.previous_version == "0.9"
    assert "version 0.9 was not installed by this agent" in result.reason


@pytest.mark.parametrize("place", ["switching", "switched", "detecting", "committing"])
async def test_a_kill_while_dpkg_works_is_finished_by_the_next_process(
    site: DpkgSite, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.install(site.released("1.0"))
    package = site.released("2.0")

    def hit(name: str) -> None:
        if name == f"agent.install_{place}":
            raise Killed(name)

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "hit", hit)
        with pytest.raises(Killed):
            await site.task().run(package.assignment(), Recorder())
    found = await site.task().recover()
    assert found is not None
    assert found[1].install.status == INSTALLED
    assert site.known() == "2.0"


async def test_a_deb_is_refused_where_the_policy_does_not_let_dpkg_in(site: DpkgSite) -> None:
    site.rules = replace(site.rules, dpkg=False)
    result = await site.install(site.released("1.0"))
    assert (result.outcome, result.install.reason_code) == (work_pb2.OUTCOME_REFUSED, "TYPE_NOT_ALLOWED")
    assert "policy install.dpkg" in result.reason


def test_the_words_of_dpkg_are_reported(site: DpkgSite) -> None:
    broken = site.folder / "broken.deb"
    broken.write_bytes(b"!<arch>\n")
    with pytest.raises(InstallError, match="dpkg ended with exit status") as caught:
        site.dpkg.install(broken)
    assert caught.value.code == "DPKG_FAILED"


def test_a_locked_database_is_waited_for_and_then_reported(site: DpkgSite) -> None:
    import fcntl

    with (site.root / "var" / "lib" / "dpkg" / "lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        dpkg = replace(site.dpkg, lock_wait=timedelta(milliseconds=50), lock_pause=0.01)
        package = site.folder / "p.deb"
        package.write_bytes(deb(site.folder, "1.0").content)
        with pytest.raises(InstallError, match="lock"):
            dpkg.install(package)
