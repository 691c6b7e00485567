"""Two engines over the same advisories, with the real Trivy where a folder of tools has one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from controlplane.packaging.advisories.records import Affected, Event, Range, Record
from controlplane.packaging.advisories.telling import Told
from controlplane.packaging.isolation.records import IsolationSettings
from controlplane.packaging.records import Component
from controlplane.packaging.rules import Decision
from controlplane.packaging.store import packages
from controlplane.packaging.trivy.engine import Answer, Trivy
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from tests.contracts.packaging_world import CRITICAL, FOO, QUIET, PackagingWorld, advisory, sha


@pytest_asyncio.fixture
async def world(location: Location, tmp_path: Path) -> AsyncIterator[PackagingWorld]:
    database = open_database(location)
    try:
        yield PackagingWorld(database, tmp_path)
    finally:
        await database.close()


@dataclass
class Scripted:
    """Says what a test gives it to say."""

    answer: Answer
    ecosystems: Sequence[str] = ("PyPI",)

    async def ask(self, told: Sequence[Told]) -> Answer:
        return Answer(self.answer.version, told, self.answer.hits)


async def finders(world: PackagingWorld) -> dict[str, tuple[Sequence[str], Sequence[str]]]:
    found = await world.database.read(
        lambda connection: packages.findings(connection, sha(b"the final bytes"))
    )
    return {one.finding.vulnerability: (one.finding.found_by, one.finding.disagreements) for one in found}


async def test_what_only_the_second_engine_finds_blocks_too(world: PackagingWorld) -> None:
    await world.put(QUIET, advisory("X-1", vector=CRITICAL))
    safe = Component("PyPI", "foo", "1.5", "pkg:pypi/foo@1.5")
    world.second = Scripted(Answer("9.9", hits=frozenset({(safe.purl, "X-1")})))
    done = await world.judged(await world.made(safe))
    assert done.decision is Decision.FAIL
    assert await finders(world) == {
        "X-1": (("trivy",), ("affected: X-1: trivy says so, fleetwright does not",))
    }


async def test_an_engine_that_cannot_look_is_said_so_and_changes_nothing(world: PackagingWorld) -> None:
    await world.put(QUIET, advisory("X-1", vector=CRITICAL))
    world.second = Scripted(Answer("not run: absent"))
    done = await world.scan_stage()(await world.made())
    assert done.tools["trivy"] == "not run: absent"
    assert done.counts == (1, 0, 0, 0, 0)
    assert "info: trivy: not run: absent" in world.said


def program(name: str) -> Path | None:
    folders = os.environ.get("FLEETWRIGHT_TEST_TOOLS", "").split(os.pathsep)
    return next((path for folder in folders if folder and (path := Path(folder) / name).is_file()), None)


@pytest.fixture
def trivy(tmp_path: Path) -> Trivy:
    if program("trivy") is None:
        pytest.skip("trivy is in no folder of FLEETWRIGHT_TEST_TOOLS")
    return Trivy(IsolationSettings(tmp_path / "isolated"), tmp_path, find=program)


async def test_trivy_agrees_where_versions_can_be_compared(world: PackagingWorld, trivy: Trivy) -> None:
    await world.put(
        QUIET,
        advisory("X-1", vector=CRITICAL),
        advisory("X-2", "bar", vector=CRITICAL),
        advisory("X-3", "baz"),
    )
    world.second = trivy
    bar = Component("PyPI", "bar", "1.0", "pkg:pypi/bar@1.0")
    pre = Component("PyPI", "baz", "1.0rc1", "pkg:pypi/baz@1.0rc1")
    done = await world.judged(await world.made(FOO, bar, pre))
    assert done.decision is Decision.FAIL
    assert await finders(world) == {
        "X-1": (("fleetwright", "trivy"), ()),
        "X-3": (("fleetwright", "trivy"), ()),
    }
    assert await world.refused() == ["verdict"]


@pytest.mark.parametrize(
    "component",
    [
        Component("npm", "@scope/name", "0.5.0", "pkg:npm/%40scope/name@0.5.0"),
        Component("Maven", "org.example:thing", "0.5", "pkg:maven/org.example/thing@0.5"),
        Component(
            "Go", "github.com/BurntSushi/toml", "v0.5.0", "pkg:golang/github.com/BurntSushi/toml@v0.5.0"
        ),
        Component("PyPI", "Foo.Bar", "0.5", "pkg:pypi/foo-bar@0.5"),
    ],
)
async def test_trivy_knows_each_ecosystem_by_the_names_that_it_is_given(
    trivy: Trivy, component: Component
) -> None:
    def told(identifier: str, fixed: str) -> Told:
        ranges = [Range("ECOSYSTEM", [Event("introduced", "0"), Event("fixed", fixed)])]
        block = Affected(component.ecosystem, component.name, ranges=ranges)
        return Told(component, Record(identifier, 0), [block])

    answer = await trivy.ask([told("X-1", "0.6.0"), told("X-2", "0.4.0")])
    assert answer.hits == frozenset({(component.purl, "X-1")}), answer.version


async def test_trivy_with_another_digest_than_the_pinned_one_is_not_started(
    world: PackagingWorld, trivy: Trivy, tmp_path: Path
) -> None:
    await world.put(QUIET)
    world.second = Trivy(trivy.settings, tmp_path, "d" * 64, find=program)
    done = await world.scan_stage()(await world.made())
    assert done.tools["trivy"].startswith("not run: it failed")
    assert "pinned" in done.tools["trivy"]


async def test_without_trivy_the_scan_says_so(world: PackagingWorld, tmp_path: Path) -> None:
    await world.put(QUIET)
    world.second = Trivy(IsolationSettings(tmp_path / "isolated"), tmp_path, find=lambda _: None)
    done = await world.scan_stage()(await world.made())
    assert done.tools["trivy"] == "not run: absent"
