"""Both engines over the same real advisories: where they differ is known, and why.

Each package of the sample is judged at versions that its advisories tell of and at variants of them that are
apt to be taken differently. Every difference has to be of a kind that is explained here; each kind is shown
by a record of our own in ``test_second_engine.py``.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import select

from controlplane.clock import SystemClock
from controlplane.packaging.advisories import matching, rows
from controlplane.packaging.advisories.engines.records import Answers, Asking, Question
from controlplane.packaging.advisories.matching import Outcome
from controlplane.packaging.advisories.names import base
from controlplane.packaging.advisories.osv import COMPARED
from controlplane.packaging.advisories.records import Affected
from controlplane.packaging.advisories.service import AdvisoriesService
from controlplane.packaging.advisories.store.tables import advisory_packages
from controlplane.packaging.advisories.versions import VersionError, certain, key
from controlplane.packaging.isolation.records import IsolationSettings
from controlplane.packaging.judging import TrivyEngine
from controlplane.packaging.sbom.external import find_program
from controlplane.storage.database import Database
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from tests.integration.packaging.test_second_engine import sha256_of

pytestmark = pytest.mark.parametrize("location", ["sqlite"], indirect=True)

OF_EACH = 200
"""Packages of each ecosystem."""
VARIANTS = {
    "PyPI": ("rc1", ".post1", "+local.1"),
    "Go": ("-rc.1", "-0.20200101000000-abcdefabcdef", "+incompatible"),
    "AlmaLinux": ("~rc1", "^1", ".0"),
}

Known = dict[tuple[str, str], list[tuple[str, list[Affected]]]]
Difference = tuple[Question, str, Outcome, bool]


@pytest.fixture(scope="module")
def program() -> Path:
    folders = os.environ.get("FLEETWRIGHT_TEST_TOOLS", "").split(os.pathsep)
    found = find_program("trivy", [Path(folder) for folder in folders if folder])
    if found is None:
        pytest.skip("trivy is not installed in a folder of FLEETWRIGHT_TEST_TOOLS")
    if "FLEETWRIGHT_TEST_OSV" not in os.environ:
        pytest.skip("FLEETWRIGHT_TEST_OSV names no folder of exports")
    return found.resolve()


@pytest_asyncio.fixture
async def database(location: Location, program: Path) -> AsyncIterator[Database]:
    opened = open_database(location)
    await AdvisoriesService(opened, SystemClock()).import_path(Path(os.environ["FLEETWRIGHT_TEST_OSV"]))
    yield opened
    await opened.close()


async def known_of(database: Database) -> Known:
    """Return what is kept of every package."""
    table = advisory_packages.c
    async with database.reading() as connection:
        found = await connection.execute(
            select(table.ecosystem, table.name, table.advisory_id, table.affected)
        )
        known: Known = defaultdict(list)
        for ecosystem, name, advisory, stored in found:
            known[ecosystem, name].append((advisory, rows.decode(ecosystem, name, bytes(stored))))
    return known


def sampled(known: Known) -> Known:
    """Return packages spread evenly over each ecosystem."""
    by_kind: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for package in sorted(known):
        by_kind[base(package[0])].append(package)
    chosen = [one for some in by_kind.values() for one in some[:: max(1, len(some) // OF_EACH)]]
    return {package: known[package] for package in chosen}


def versions_of(ecosystem: str, known: Sequence[tuple[str, Sequence[Affected]]]) -> list[str]:
    """Return the first and the last version that advisories tell of, with variants that can be compared."""
    told = {
        event.version
        for _, blocks in known
        for block in blocks
        for one in block.ranges
        for event in one.events
        if event.version != "0"
    }
    ends = sorted(told)[:1] + sorted(told)[-1:]
    spelled = [text + more for text in ends for more in ("", *VARIANTS[base(ecosystem)])]
    return [text for text in dict.fromkeys(spelled) if _is_version(ecosystem, text)]


def _is_version(ecosystem: str, text: str) -> bool:
    try:
        return certain(ecosystem, text) and key(ecosystem, text) is not None
    except VersionError:
        return False


def explained(difference: Difference) -> str:
    """Return why the engines differ, "" for what nobody has explained."""
    question, _, own, other = difference
    if question.ecosystem == "PyPI" and "+" in question.version and other and own is Outcome.NOT_AFFECTED:
        return (
            "a local version is above its public one by PEP 440's order, by which OSV has ranges evaluated; "
            "Trivy takes it for the public one, as PEP 440's specifiers do"
        )
    if "^" in question.version and not other and own is Outcome.AFFECTED:
        return (
            "RPM sorts a caret below a dot (rpm-version(7)); Trivy's comparison passes over it as it does "
            "over any separator"
        )
    return ""


def differences(asking: Asking, answers: Answers) -> list[Difference]:
    found = []
    for question, known in asking.known.items():
        for advisory, blocks in known:
            own = matching.judge(question.ecosystem, question.version, blocks).outcome
            other = answers.of(question, advisory)
            if other is not None and other != (own is Outcome.AFFECTED):
                found.append((question, advisory, own, other))
    return found


@pytest.mark.timeout(600)
async def test_both_engines_say_the_same_of_real_packages_but_for_what_is_explained(
    database: Database, program: Path, tmp_path: Path
) -> None:
    known = sampled(await known_of(database))
    assert len(known) >= 500
    asking = Asking(
        (),
        {
            Question(ecosystem, name, version): entries
            for (ecosystem, name), entries in known.items()
            for version in versions_of(ecosystem, entries)
        },
    )
    isolation = IsolationSettings(tmp_path / "scratch")
    answers = await TrivyEngine(program, sha256_of(program), isolation, tmp_path).judge(asking)

    judged = {(question.ecosystem, question.name) for question, said in answers.said.items() if said}
    assert len(judged) >= 500
    both = Counter(affected for said in answers.said.values() for affected in said.values())
    assert min(both[True], both[False]) > 1_000, "a comparison in which nothing differs shows nothing"

    found = differences(asking, answers)
    for difference in found:
        question, advisory, own, other = difference
        print(f"{question}: {advisory}: {own.value}, trivy {other}: {explained(difference)}")
    assert [difference for difference in found if not explained(difference)] == []
    assert found, "the sample has none of what the explanations are for"
    assert silent(asking, answers) == []


def silent(asking: Asking, answers: Answers) -> list[tuple[Question, str]]:
    """Return what Trivy did not judge, but for what it cannot: modular packages, and no constraints."""
    return [
        (question, advisory)
        for question, known in asking.known.items()
        for advisory, blocks in known
        if answers.of(question, advisory) is None
        and ".module_" not in question.version
        and any(one.type in COMPARED for block in blocks for one in block.ranges)
        and all(certain("PyPI", text) for block in blocks for text in block.versions)
    ]
