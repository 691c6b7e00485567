"""A second engine beside ours: what it says is joined, and without its answer there is no scan."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from controlplane.packaging.advisories.engines.records import Answers, Asking, EngineError
from controlplane.packaging.forms import findings_from_json
from controlplane.packaging.judging import SecondEngine
from controlplane.packaging.policy.cel import load_policy
from controlplane.packaging.policy.default import DEFAULT_POLICY
from controlplane.packaging.records import Component, Finding
from controlplane.packaging.rules import Decision
from controlplane.packaging.stages import StageFailed
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from tests.contracts.packaging_world import CRITICAL, FOO, QUIET, PackagingWorld, advisory, vex

NEW = Component("PyPI", "foo", "2.0", "pkg:pypi/foo@2.0")


class Scripted:
    """An engine that says what a test lets it say."""

    def __init__(self, said: Mapping[str, bool], world: PackagingWorld | None = None) -> None:
        self.said = said
        self.times = 0
        self._world = world
        """Where there is one, advisories are imported after the engine was asked for the first time."""

    async def judge(self, asking: Asking, /) -> Answers:
        self.times += 1
        if self._world is not None and self.times == 1:
            await self._world.put(QUIET, advisory("X-1"), advisory("X-2"))
        said = {
            question: {one: self.said[one] for one, _ in known if one in self.said}
            for question, known in asking.known.items()
        }
        return Answers(
            "trivy", "1.2 (sha256:abc)", asking.in_force, said, sum(map(len, asking.known.values()))
        )


class Silent:
    """An engine that gives no answer."""

    async def judge(self, asking: Asking, /) -> Answers:
        raise EngineError("trivy: it did not find what is always there to be found")


@pytest_asyncio.fixture
async def world(location: Location, tmp_path: Path) -> AsyncIterator[PackagingWorld]:
    database = open_database(location)
    yield PackagingWorld(database, tmp_path)
    await database.close()


def beside(world: PackagingWorld, engine: SecondEngine) -> None:
    world.second = engine
    world.under(load_policy(DEFAULT_POLICY))


async def findings(world: PackagingWorld, *components: Component, vex: str = "") -> list[Finding]:
    job = await world.made(*components, vex=vex)
    done = await world.scan_stage()(job)
    pieces = [piece async for piece in world.blobs.read(str(done.outcome["findings"]))]
    return findings_from_json(b"".join(pieces))


async def test_what_both_find_names_both(world: PackagingWorld) -> None:
    await world.put(QUIET, advisory("X-1", vector=CRITICAL))
    beside(world, Scripted({"X-1": True}))
    (found,) = await findings(world, FOO)
    assert (found.found_by, found.disagreements) == (("fleetwright", "trivy"), ())
    assert found.matched == "X-1: from the first version on (introduced 0), before fixed 1.0"


async def test_what_the_second_does_not_find_is_kept_with_the_disagreement(world: PackagingWorld) -> None:
    await world.put(QUIET, advisory("X-1", vector=CRITICAL))
    beside(world, Scripted({"X-1": False}))
    (found,) = await findings(world, FOO)
    assert found.found_by == ("fleetwright",)
    assert found.disagreements == ("engines: X-1 (trivy: not affected), fleetwright: affected",)
    assert found.matched.endswith("(trivy: not affected)")
    assert any("engines: X-1" in said for said in world.said)


async def test_what_the_second_alone_finds_is_a_finding_that_counts(world: PackagingWorld) -> None:
    await world.put(QUIET, advisory("X-1", vector=CRITICAL, aliases=["CVE-2024-1234"]))
    beside(world, Scripted({"X-1": True}))
    (found,) = await findings(world, NEW)
    assert (found.vulnerability, found.severity.value, found.found_by) == (
        "CVE-2024-1234",
        "critical",
        ("trivy",),
    )
    assert found.disagreements == ("engines: X-1 (trivy: affected), fleetwright: not affected",)
    assert found.matched == "X-1: not affected by our comparison (trivy: affected)"
    done = await world.judged(await world.made(NEW, pipeline_id="p2"))
    assert done.decision is Decision.FAIL


async def test_what_the_second_did_not_judge_is_no_disagreement(world: PackagingWorld) -> None:
    await world.put(QUIET, advisory("X-1"))
    beside(world, Scripted({}))
    (found,) = await findings(world, FOO)
    assert (found.found_by, found.disagreements) == (("fleetwright",), ())
    assert "info: trivy judged 0 of 1 advisories as well" in world.said


async def test_records_of_one_vulnerability_are_joined_with_what_each_engine_says(
    world: PackagingWorld,
) -> None:
    await world.put(QUIET, advisory("X-1", aliases=["CVE-2024-1"]), advisory("X-2", aliases=["CVE-2024-1"]))
    beside(world, Scripted({"X-1": True, "X-2": False}))
    (found,) = await findings(world, FOO)
    assert found.found_by == ("fleetwright", "trivy")
    assert found.disagreements == ("engines: X-2 (trivy: not affected), fleetwright: affected",)


async def test_a_statement_of_openvex_is_about_what_the_second_finds_too(world: PackagingWorld) -> None:
    await world.put(QUIET, advisory("X-1"))
    beside(world, Scripted({"X-1": True}))
    said = vex("X-1", "not_affected", NEW.purl, justification="component_not_present")
    (found,) = await findings(world, NEW, vex=said)
    assert (found.state, found.found_by) == ("not_affected", ("trivy",))


async def test_without_its_answer_there_is_no_scan(world: PackagingWorld) -> None:
    await world.put(QUIET)
    beside(world, Silent())
    with pytest.raises(StageFailed, match="always there to be found") as failed:
        await findings(world, FOO)
    assert failed.value.code == "SECOND_ENGINE"


async def test_an_import_meanwhile_has_both_asked_anew(world: PackagingWorld) -> None:
    await world.put(QUIET, advisory("X-1"))
    engine = Scripted({"X-1": True, "X-2": True}, world)
    beside(world, engine)
    found = await findings(world, FOO)
    assert engine.times == 2
    assert [one.found_by for one in found] == [("fleetwright", "trivy")] * 2


async def test_the_evidence_names_both_engines_and_agents_take_it(world: PackagingWorld) -> None:
    await world.put(QUIET)
    beside(world, Scripted({}))
    await world.judged(await world.made(FOO))
    payload = base64.b64decode(json.loads(await world.envelope("scan"))["payload"])
    engines = json.loads(payload)["predicate"]["scanner"]["engines"]
    assert {"name": "trivy", "version": "1.2 (sha256:abc)"} in engines
    assert await world.refused() == []
    assert (await world.package()).scan["engines"] == {"trivy": "1.2 (sha256:abc)"}
