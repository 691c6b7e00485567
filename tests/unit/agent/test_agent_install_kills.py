"""The agent's process ends in the middle of an installation; the next one finishes it, or takes it back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleetwright.v1 import work_pb2

from agent_sim import failpoints
from tests.support.install_world import Package
from tests.unit.agent.install_site import FAILED, INSTALLED, ROLLED_BACK, Site, broken
from tests.unit.agent.reporting import Recorder

BEFORE_THE_SWITCH = ["staging", "staged"]
AFTER_THE_SWITCH = ["switching", "switched", "detecting", "committing", "committed"]


class Killed(BaseException):
    """What ends a process as far as one test can tell: nothing that catches errors catches it."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    for task in site.tasks:
        task.close()


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Places at which the process ends, once each; empty for none."""
    places: list[str] = []

    def hit(name: str) -> None:
        if name in places:
            places.remove(name)
            raise Killed(name)

    monkeypatch.setattr(failpoints, "hit", hit)
    yield places
    assert places == []


async def killed(site: Site, package: Package) -> None:
    with pytest.raises(Killed):
        await site.task().run(package.assignment("killed"), Recorder())


async def recovered(site: Site) -> work_pb2.AttemptResult:
    found = await site.task().recover()
    assert found is not None
    attempt_id, result = found
    assert attempt_id == "killed"
    return result


def nothing_left(site: Site) -> bool:
    hidden = [path for path in site.prefix.rglob("*") if path.name.startswith(".") and not path.is_dir()]
    staged = list(site.prefix.rglob(".*.new"))
    return not hidden and not staged


@pytest.mark.parametrize("place", BEFORE_THE_SWITCH)
@pytest.mark.parametrize("first", [True, False])
async def test_a_kill_before_the_switch_changes_nothing(
    site: Site, kill_at: list[str], place: str, first: bool
) -> None:
    if not first:
        await site.install(site.released("1.0"))
    package = site.released("2.0")
    kill_at.append(f"agent.install_{place}")
    await killed(site, package)
    result = await recovered(site)
    assert (result.install.status, result.install.reason_code) == (FAILED, "INTERRUPTED")
    assert site.versions() == ([] if first else ["1.0"])
    assert first or site.said() == "tool 1.0"
    assert nothing_left(site)
    assert (await site.install(package)).install.status == INSTALLED
    assert site.said() == "tool 2.0"


@pytest.mark.parametrize("place", AFTER_THE_SWITCH)
@pytest.mark.parametrize("first", [True, False])
async def test_a_kill_after_it_is_finished_by_the_next_process(
    site: Site, kill_at: list[str], place: str, first: bool
) -> None:
    if not first:
        await site.install(site.released("1.0"))
    package = site.released("2.0")
    kill_at.append(f"agent.install_{place}")
    await killed(site, package)
    result = await recovered(site)
    assert result.outcome == work_pb2.OUTCOME_SUCCEEDED
    assert (result.install.status, result.install.previous_version) == (INSTALLED, "" if first else "1.0")
    assert len(result.install.verified) == 9
    assert result.install.downloaded_bytes == len(package.content)
    assert site.said() == "tool 2.0"
    assert nothing_left(site)


@pytest.mark.parametrize("place", ["switching", "switched", "detecting", "restoring", "restored"])
async def test_a_kill_in_a_package_that_is_not_good_ends_with_the_former_one(
    site: Site, kill_at: list[str], place: str
) -> None:
    await site.install(site.released("1.0"))
    kill_at.append(f"agent.install_{place}")
    await killed(site, site.released("2.0", **broken("2.0")))
    result = await recovered(site)
    assert (result.install.status, result.install.reason_code) == (ROLLED_BACK, "NOT_DETECTED")
    assert site.said() == "tool 1.0"
    assert site.versions() == ["1.0"]
    assert nothing_left(site)


async def test_kills_one_after_the_other_end_well(site: Site, kill_at: list[str]) -> None:
    await site.install(site.released("1.0"))
    package = site.released("2.0")
    kill_at.append("agent.install_switching")
    await killed(site, package)
    for place in ("switched", "detecting", "committed"):
        kill_at.append(f"agent.install_{place}")
        with pytest.raises(Killed):
            await site.task().recover()
    assert (await recovered(site)).install.status == INSTALLED
    assert site.said() == "tool 2.0"


async def test_the_true_result_is_there_also_where_the_process_ended_after_the_last_step(
    site: Site, kill_at: list[str]
) -> None:
    package = site.released("1.0")
    kill_at.append("agent.install_ended")
    await killed(site, package)
    assert (await recovered(site)).install.status == INSTALLED
    assert (await recovered(site)).install.status == INSTALLED


@pytest.mark.parametrize("place", ["piece", "downloaded", "verified"])
async def test_a_kill_before_anything_is_begun_leaves_a_download_to_go_on_with(
    site: Site, kill_at: list[str], place: str
) -> None:
    package = site.released("1.0")
    kill_at.append(f"agent.install_{place}")
    await killed(site, package)
    assert await site.task().recover() is None
    result = await site.install(package)
    assert result.install.status == INSTALLED
    assert result.install.downloaded_bytes < len(package.content)


async def test_what_is_half_switched_is_switched(
    site: Site, kill_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.install(site.released("1.0"))
    replace: Any = os.replace

    def failing(source: Any, target: Any) -> None:
        if Path(target).parent.name == "current":
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    await killed(site, site.released("2.0"))
    monkeypatch.setattr(os, "replace", replace)
    assert (await recovered(site)).install.status == INSTALLED
    assert site.said() == "tool 2.0"
    assert nothing_left(site)
