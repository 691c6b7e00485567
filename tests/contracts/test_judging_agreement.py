"""Our matcher and Trivy, over the same real advisories: how far they agree, and why not where they do not.

Needs real exports in ``FLEETWRIGHT_TEST_OSV`` (a folder with ``PyPI/all.zip`` and ``Go/all.zip``) and the
program in a folder of ``FLEETWRIGHT_TEST_TOOLS``.
"""

from __future__ import annotations

import json
import os
import random
import re
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from packaging.version import InvalidVersion, Version

from controlplane.packaging.advisories.service import AdvisoriesService
from controlplane.packaging.advisories.telling import Told
from controlplane.packaging.isolation.records import IsolationSettings
from controlplane.packaging.records import Component
from controlplane.packaging.trivy.comparing import SECOND, joined
from controlplane.packaging.trivy.database import ECOSYSTEMS, said
from controlplane.packaging.trivy.engine import Trivy
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from tests.contracts.agents_world import SetClock
from tests.contracts.test_judging_by_two import program

PACKAGES = 600
"""Of each ecosystem, with two versions of each."""
SEED = 7


def versions_of(record: dict[str, Any], ecosystem: str) -> Iterator[tuple[str, str]]:
    """Return names and versions of which a record speaks: those that it lists, and where its ranges turn."""
    for affected in record.get("affected", []):
        package = affected.get("package", {})
        if package.get("ecosystem") != ecosystem:
            continue
        for version in affected.get("versions", [])[:400]:
            yield package["name"], version
        for one in affected.get("ranges", []):
            for event in one["events"] if one["type"] != "GIT" else ():
                yield from ((package["name"], version) for version in event.values() if version != "0")


def some(archive: Path, ecosystem: str) -> list[Component]:
    known: dict[str, set[str]] = {}
    with zipfile.ZipFile(archive) as members:
        for member in members.namelist():
            for name, version in versions_of(json.loads(members.read(member)), ecosystem):
                known.setdefault(name, set()).add(version)
    chance = random.Random(SEED)
    names = chance.sample(sorted(known), min(PACKAGES, len(known)))
    return [
        component(ecosystem, name, version)
        for name in names
        for version in chance.sample(sorted(known[name]), min(2, len(known[name])))
    ]


def component(ecosystem: str, name: str, version: str) -> Component:
    if ecosystem == "PyPI":
        return Component(ecosystem, name, version, f"pkg:pypi/{name.lower()}@{version}")
    written = version if version.startswith("v") else f"v{version}"
    return Component(ecosystem, name, written, f"pkg:golang/{name}@{written}")


def legacy(one: Told) -> bool:
    """Whether PEP 440 has no place for the version, or for one where a range turns: Trivy reads none then."""
    ends = [event.version for block in one.blocks for each in block.ranges for event in each.events]
    try:
        return one.component.ecosystem == "PyPI" and not all(map(Version, [one.component.version, *ends]))
    except InvalidVersion:
        return True


def unpaired(one: Told) -> bool:
    """Whether a range is more than pairs of a beginning and an end, which is all that Trivy can be told."""
    kinds = ["".join(event.kind[0] for event in each.events) for block in one.blocks for each in block.ranges]
    return any(re.fullmatch("(i[fl])*i?", kind) is None for kind in kinds)


@pytest.fixture
def exports() -> Path:
    folder = Path(os.environ.get("FLEETWRIGHT_TEST_OSV", "/nowhere"))
    if not all((folder / name / "all.zip").is_file() for name in ("PyPI", "Go")):
        pytest.skip("FLEETWRIGHT_TEST_OSV names no folder with real exports of PyPI and Go")
    if program("trivy") is None:
        pytest.skip("trivy is in no folder of FLEETWRIGHT_TEST_TOOLS")
    return folder


@pytest.mark.parametrize("location", ["sqlite"], indirect=True)
async def test_engines_agree_on_every_real_package_that_both_can_judge(
    exports: Path, location: Location, tmp_path: Path
) -> None:
    database, clock = open_database(location), SetClock()
    clock.time = datetime.now(UTC)
    advisories = AdvisoriesService(database, clock)
    components: list[Component] = []
    for ecosystem in ("PyPI", "Go"):
        await advisories.import_path(exports / ecosystem, ecosystem=ecosystem, exported=clock.now())
        components += some(exports / ecosystem / "all.zip", ecosystem)
    found = await advisories.scan(components, max_age=timedelta(days=36_500))
    _, told = await advisories.told(components, ECOSYSTEMS)
    trivy = Trivy(IsolationSettings(tmp_path / "isolated"), tmp_path, find=program)
    answer = await trivy.ask(told)
    await database.close()
    assert answer.hits is not None, answer.version
    assert len({one.component.name for one in answer.asked}) >= 500
    both = joined(found.findings, answer.asked, answer.hits)
    differences = [(one.component, words) for one in both for words in one.disagreements if SECOND in words]
    assert differences == []
    # What it was not asked, one by one: what it would have no answer to, or nothing is said of the version.
    asked = {(one.component.purl, one.record.id) for one in answer.asked}
    left = [one for one in told if (one.component.purl, one.record.id) not in asked]
    for one in left:
        print(one.component.purl, one.record.id, f"legacy: {legacy(one)}", f"unpaired: {unpaired(one)}")
    assert [one for one in left if said(one) is None and not (legacy(one) or unpaired(one))] == []
    assert len(left) * 20 < len(told), "nineteen in twenty are asked"
