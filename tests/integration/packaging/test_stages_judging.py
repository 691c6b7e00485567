"""Real artefacts through the first six stages: what SBOM leaves is what SCAN and POLICY judge, and agents
accept the evidence.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from fleetwright.verify.chain import verify_attestations
from fleetwright.verify.keys import AttestationKeys, Attester
from fleetwright.verify.reports import Outcome

from controlplane.packaging.advisories.service import AdvisoriesService
from controlplane.packaging.judging import Attesting, Judging, Scanner, Terms
from controlplane.packaging.policy.cel import load_policy
from controlplane.packaging.policy.default import DEFAULT_POLICY
from controlplane.packaging.policy.verdict import Verifier
from controlplane.packaging.rules import Decision, Stage
from controlplane.packaging.stages import StageDone
from controlplane.packaging.stages.policy import policy
from controlplane.packaging.stages.scan import scan
from controlplane.packaging.store import packages
from tests.integration.packaging.making_world import Made, World
from tests.unit.packaging.archives.good import GOOD, METADATA, WHEEL_NAME, wheel

CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"


class _Unreleased:
    """Nothing is released here: stage STORE does that."""

    async def publish(self, package: str, /) -> None:
        raise AssertionError(package)

    async def withdraw(self, package: str, reason: str, /) -> None:
        raise AssertionError(package)


def _record(identifier: str, ecosystem: str, name: str, fixed: str, vector: str = CRITICAL) -> dict[str, Any]:
    """An advisory of our own about a package that nobody else has."""
    events = [{"introduced": "0"}, {"fixed": fixed}]
    affected = {
        "package": {"ecosystem": ecosystem, "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
    }
    return {
        "id": identifier,
        "modified": "2029-12-30T00:00:00Z",
        "affected": [affected],
        "severity": [{"type": "CVSS_V3", "score": vector}],
    }


async def put(world: World, *records: Mapping[str, Any]) -> None:
    """Import advisories of each of the ecosystems that these records are of."""
    by_ecosystem: dict[str, list[Mapping[str, Any]]] = {}
    for one in records:
        name = one["affected"][0]["package"]["ecosystem"].partition(":")[0]
        by_ecosystem.setdefault(name, []).append(one)
    for name, some in by_ecosystem.items():
        path = world.folder / "osv" / name / "all.zip"
        path.parent.mkdir(parents=True)
        with zipfile.ZipFile(path, "w") as archive:
            for one in some:
                archive.writestr(f"{one['id']}.json", json.dumps(one))
        await AdvisoriesService(world.database, world.clock).import_path(path)


async def judged(world: World, made: Made) -> StageDone:
    """Run SCAN and POLICY."""
    attesting = Attesting(world.keys)
    terms = Terms(
        load_policy(DEFAULT_POLICY), Verifier("https://example.org/factory", "1"), timedelta(days=30)
    )
    scanner = Scanner(AdvisoriesService(world.database, world.clock), attesting, world.clock, terms)
    judging = Judging(world.database, world.clock, scanner, attesting, terms)
    stages = {
        Stage.SCAN: scan(world.blobs, judging),
        Stage.POLICY: policy(world.blobs, judging, _Unreleased(), world.clock),
    }
    standing = world.stage
    world.stage = lambda stage: stages.get(stage) or standing(stage)  # type: ignore[method-assign] # two more
    for stage in stages:
        await made.step(stage)
    return made.done[Stage.POLICY]


async def refused(world: World, made: Made) -> Sequence[str]:
    """Return which checks of an agent do not hold."""
    sha256 = made.outcomes[Stage.SIGN]["package"]["sha256"]

    async def question(connection: Any) -> bytes:
        known = (await packages.attestations(connection, [sha256]))[sha256]
        found = [await packages.envelope(connection, sha256, kind) for kind in sorted(known)]
        return b"\n".join(one for one in found if one)

    lines = await world.database.read(question)
    until = world.clock.now() + timedelta(days=1)
    attesters = tuple(
        Attester(key.public, frozenset({purpose}), until) for purpose, key in world.keys.items()
    )
    checks = verify_attestations(sha256, lines, AttestationKeys(1, attesters), world.clock.now())
    return [str(check) for check in checks if check.outcome is not Outcome.OK]


def requiring(requirement: str) -> bytes:
    """Return a wheel that needs another distribution."""
    head, _, text = METADATA.partition(b"\n\n")
    return wheel(METADATA=head + f"\nRequires-Dist: {requirement}\n\n".encode() + text)


async def test_a_wheel_that_pins_a_vulnerable_version_is_refused(world: World) -> None:
    await put(world, _record("DEMO-1", "PyPI", "leaky-demo", "2.0"))
    made = await world.make(WHEEL_NAME, requiring("leaky-demo==1.5"))
    done = await judged(world, made)
    assert (done.decision, made.done[Stage.SCAN].counts) == (Decision.FAIL, (1, 0, 0, 0, 0))
    assert "DEMO-1 in pkg:pypi/leaky-demo@1.5" in done.outcome["reasons"][0]
    assert [line.split()[0] for line in await refused(world, made)] == ["verdict"]


async def test_a_wheel_that_pins_the_fixed_version_passes(world: World) -> None:
    await put(world, _record("DEMO-1", "PyPI", "leaky-demo", "2.0"))
    made = await world.make(WHEEL_NAME, requiring("leaky-demo==2.0"))
    assert (await judged(world, made)).decision is Decision.PASS
    assert await refused(world, made) == []


@pytest.mark.parametrize("kind", sorted(GOOD))
async def test_every_kind_of_artefact_is_judged_and_its_evidence_can_be_read(world: World, kind: str) -> None:
    await put(
        world,
        *(
            _record(f"DEMO-{place}", ecosystem, "nobody-has-this", "1")
            for place, ecosystem in enumerate(("PyPI", "npm", "Maven", "Debian:12"))
        ),
    )
    made = await world.make(*GOOD[kind])
    done = await judged(world, made)
    # What nobody knows anything of needs somebody to decide.
    assert done.decision is (Decision.FAIL if kind in ("archive", "binary") else Decision.PASS)
    failing = [line.split()[0] for line in await refused(world, made)]
    assert failing == ([] if done.decision is Decision.PASS else ["verdict"])
