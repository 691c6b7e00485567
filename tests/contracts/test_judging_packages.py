"""Stages SCAN and POLICY on real databases: what becomes of a package, and what is kept of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from fleetwright.verify.keys import Purpose

from controlplane.packaging.policy.cel import load_policy
from controlplane.packaging.records import Component, Scope
from controlplane.packaging.rules import Decision, Stage
from controlplane.packaging.stages import StageFailed
from controlplane.packaging.store import decisions, packages
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from controlplane.trust.keys import SigningKey
from tests.contracts.packaging_world import (
    APP,
    CRITICAL,
    FOO,
    HIGH,
    LOW,
    QUIET,
    PackagingWorld,
    advisory,
    sha,
    vex,
    with_outcome,
)

ERRING = b"""\
schema: fleetwright.policy/v1
name: erring
version: "1"
rules:
  - name: divides
    about: package
    when: counts.high / counts.low > 0
    outcome: FAIL
"""


@pytest_asyncio.fixture
async def world(location: Location, tmp_path: Path) -> AsyncIterator[PackagingWorld]:
    database = open_database(location)
    try:
        yield PackagingWorld(database, tmp_path)
    finally:
        await database.close()


async def test_a_package_without_findings_passes_and_its_evidence_holds_for_an_agent(
    world: PackagingWorld,
) -> None:
    await world.put(QUIET)
    done = await world.judged(await world.made())
    assert done.decision is Decision.PASS
    assert done.outcome["reasons"] == []
    assert await world.refused() == []
    package = await world.package()
    assert (package.decision, package.counts, package.purl) == (
        Decision.PASS,
        (0, 0, 0, 0, 0),
        "pkg:pypi/app@1.0",
    )
    assert (package.component_count, package.file_count, package.claimed_file_count) == (2, 10, 9)
    assert await world.blobs.verify(done.outcome["attestations"]["verdict"])


async def test_a_critical_vulnerability_blocks_and_the_package_is_kept_for_its_evidence(
    world: PackagingWorld,
) -> None:
    await world.put(QUIET, advisory("GHSA-1", vector=CRITICAL, aliases=["CVE-2024-1234"]))
    done = await world.judged(await world.made())
    assert (done.decision, done.counts) == (Decision.FAIL, (1, 0, 0, 0, 0))
    (reason,) = done.outcome["reasons"]
    assert reason.startswith("no-critical (FAIL)")
    assert "CVE-2024-1234 in pkg:pypi/foo@0.5" in reason
    package = await world.package()
    assert (package.decision, list(package.decision_reasons)) == (Decision.FAIL, [reason])
    assert await world.refused() == ["verdict"]
    assert world.released.asked == []


@pytest.mark.parametrize(
    ("vector", "decision"), [(LOW, Decision.PASS), (HIGH, Decision.FAIL), ("", Decision.FAIL)]
)
async def test_low_passes_high_blocks_and_unknown_needs_somebody_to_decide(
    world: PackagingWorld, vector: str, decision: Decision
) -> None:
    await world.put(QUIET, advisory("X-1", vector=vector))
    assert (await world.judged(await world.made())).decision is decision


async def test_what_no_advisories_cover_is_not_clean(world: PackagingWorld) -> None:
    await world.put(QUIET)
    done = await world.judged(await world.made(APP, Component("", "blob", "1", "pkg:generic/blob@1")))
    assert done.decision is Decision.FAIL
    assert "covered (UNDECIDED)" in done.outcome["reasons"][0]
    assert "warning: not covered, which is not clean: unknown" in world.said


async def test_an_archive_in_which_nothing_is_known_needs_somebody_to_decide(world: PackagingWorld) -> None:
    await world.put(QUIET)
    done = await world.judged(await world.made(replace(FOO, scope=Scope.DEVELOPMENT)))
    assert done.decision is Decision.FAIL
    assert done.outcome["reasons"][0].startswith("identified (UNDECIDED)")


async def test_what_only_developers_need_is_listed_and_not_scanned(world: PackagingWorld) -> None:
    await world.put(QUIET, advisory("X-1", vector=CRITICAL))
    done = await world.judged(await world.made(APP, replace(FOO, scope=Scope.DEVELOPMENT)))
    assert done.decision is Decision.PASS
    assert any("1 components only for development" in said for said in world.said)
    listed = await world.database.read(
        lambda connection: packages.components(connection, sha(b"the final bytes"))
    )
    assert [one.scope for one in listed] == [Scope.CONTAINED, Scope.DEVELOPMENT]


async def test_openvex_sets_a_finding_aside_and_its_words_are_kept(world: PackagingWorld) -> None:
    await world.put(QUIET, advisory("X-1", vector=CRITICAL))
    said = vex("X-1", "not_affected", justification="vulnerable_code_not_present")
    done = await world.judged(await world.made(vex=said))
    assert (done.decision, done.counts) == (Decision.PASS, (0, 0, 0, 0, 0))
    (found,) = await world.database.read(
        lambda connection: packages.findings(connection, sha(b"the final bytes"))
    )
    assert (found.finding.state, found.finding.justification) == (
        "not_affected",
        "vulnerable_code_not_present",
    )


async def test_findings_stand_by_severity(world: PackagingWorld) -> None:
    await world.put(QUIET, advisory("A-1"), advisory("B-1", vector=LOW), advisory("C-1", vector=CRITICAL))
    await world.judged(await world.made())
    found = await world.database.read(
        lambda connection: packages.findings(connection, sha(b"the final bytes"), after=1)
    )
    assert [(one.place, one.finding.vulnerability) for one in found] == [(2, "B-1"), (3, "A-1")]


# --- what fails a stage


async def test_without_advisories_nothing_is_scanned(world: PackagingWorld) -> None:
    with pytest.raises(StageFailed, match="import an export first") as caught:
        await world.scan_stage()(await world.made())
    assert caught.value.code == "ADVISORIES_MISSING"


async def test_stale_advisories_fail_the_scan(world: PackagingWorld) -> None:
    await world.put(QUIET)
    world.clock.advance(21 * 86_400)
    with pytest.raises(StageFailed) as caught:
        await world.scan_stage()(await world.made())
    assert caught.value.code == "ADVISORIES_STALE"


@pytest.mark.parametrize("document", ["{}", "not json", '{"@context": "https://openvex.dev/ns"}'])
async def test_what_is_no_openvex_document_fails_the_scan(world: PackagingWorld, document: str) -> None:
    await world.put(QUIET)
    with pytest.raises(StageFailed) as caught:
        await world.scan_stage()(await world.made(vex=document))
    assert caught.value.code == "VEX_MALFORMED"


async def test_without_keys_nothing_is_attested(world: PackagingWorld) -> None:
    await world.put(QUIET)
    job = await world.made()
    world.under(load_policy(ERRING), {})
    with pytest.raises(StageFailed, match="fleetwright trust init") as caught:
        await world.scan_stage()(job)
    assert caught.value.code == "TRUST_NOT_SET_UP"


async def test_evidence_that_others_signed_is_none(world: PackagingWorld) -> None:
    await world.put(QUIET)
    job = await world.made(sign={purpose: SigningKey.generate() for purpose in Purpose})
    with pytest.raises(StageFailed) as caught:
        await world.scan_stage()(job)
    assert caught.value.code == "EVIDENCE_BROKEN"


async def test_evidence_about_other_bytes_is_none(world: PackagingWorld) -> None:
    await world.put(QUIET)
    with pytest.raises(StageFailed) as caught:
        await world.scan_stage()(await world.made(about=b"other bytes"))
    assert caught.value.code == "EVIDENCE_BROKEN"


async def test_a_policy_that_errs_fails_the_stage_and_decides_nothing(world: PackagingWorld) -> None:
    await world.put(QUIET)
    job = await world.scanned(await world.made())
    world.under(load_policy(ERRING))
    with pytest.raises(StageFailed, match="divides") as caught:
        await world.policy_stage()(job)
    assert caught.value.code == "POLICY_ERRED"
    found = await world.database.read(lambda connection: packages.find(connection, sha(b"the final bytes")))
    assert found is None


async def test_bytes_that_were_changed_between_stages_are_noticed(world: PackagingWorld) -> None:
    await world.put(QUIET)
    job = await world.made()
    digest = job.outcomes[Stage.SBOM]["components"]
    (path,) = (world.folder / "blobs").rglob(digest)
    path.write_bytes(b"[]")
    with pytest.raises(StageFailed) as caught:
        await world.scan_stage()(job)
    assert caught.value.code == "BLOB_DAMAGED"


async def test_bytes_that_are_gone_are_noticed(world: PackagingWorld) -> None:
    await world.put(QUIET)
    job = with_outcome(await world.made(), Stage.SBOM, components="d" * 64)
    with pytest.raises(StageFailed) as caught:
        await world.scan_stage()(job)
    assert caught.value.code == "BLOB_MISSING"


async def test_a_component_that_cannot_be_kept_is_not_left_out(world: PackagingWorld) -> None:
    await world.put(QUIET)
    job = await world.made(APP, Component("PyPI", "x" * 300, "1", "pkg:pypi/x@1"))
    with pytest.raises(StageFailed) as caught:
        await world.scan_stage()(job)
    assert caught.value.code == "COMPONENT_TOO_LONG"


# --- crashes and races


async def test_a_stage_that_is_run_again_finds_its_own_verdict(world: PackagingWorld) -> None:
    await world.put(QUIET)
    job = await world.scanned(await world.made())
    first = await world.policy_stage()(job)
    world.clock.advance(5)
    again = await world.policy_stage()(job)
    assert again.outcome == first.outcome
    assert (await world.package()).judgement == 1


async def test_advisories_that_came_after_the_scan_are_scanned_with_before_the_verdict(
    world: PackagingWorld,
) -> None:
    await world.put(QUIET)
    job = await world.scanned(await world.made())
    await world.put(QUIET, advisory("X-1", vector=CRITICAL))
    done = await world.policy_stage()(job)
    assert (done.decision, done.counts) == (Decision.FAIL, (1, 0, 0, 0, 0))
    assert "info: advisories were imported since the scan: scanning anew" in world.said
    assert await world.envelope("scan") is not None
    assert await world.refused() == ["verdict"]


async def test_who_has_not_seen_the_last_decision_commits_none(world: PackagingWorld) -> None:
    await world.put(QUIET)
    await world.judged(await world.made())
    package = await world.package()
    async with world.database.unit_of_work() as work:
        await packages.mark(work, package.sha256)
    refused = replace(package, decision=Decision.FAIL)
    async with world.database.unit_of_work() as work:
        assert not await decisions.write(work, decisions.NewDecision(refused), package.judgement)
        assert not await decisions.write(work, decisions.NewDecision(refused), None)
        assert not await decisions.touch(
            work, package.sha256, package.judgement, known="", policy="", due_time=0
        )
    assert (await world.package()).decision is Decision.PASS


async def test_the_same_bytes_refused_later_are_withdrawn(world: PackagingWorld) -> None:
    await world.put(QUIET, advisory("X-1", vector=CRITICAL))
    said = vex("X-1", "not_affected", justification="vulnerable_code_not_present")
    assert (await world.judged(await world.made(vex=said))).decision is Decision.PASS
    assert (await world.judged(await world.made(pipeline_id="p2"))).decision is Decision.FAIL
    assert world.released.asked == [("withdraw", sha(b"the final bytes"))]
    package = await world.package()
    assert (package.pipeline_id, package.decision) == ("p2", Decision.FAIL)
