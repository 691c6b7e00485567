"""Advisories on a real database: importing, changing over, refusing, and scanning with what is in force."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import zipfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import delete, func, select, text, update

from controlplane.clock import to_micros
from controlplane.errors import Unavailable
from controlplane.packaging.advisories import importing, rules, vex
from controlplane.packaging.advisories.exports import ExportError
from controlplane.packaging.advisories.importing import Imported, Stage
from controlplane.packaging.advisories.records import Scanned
from controlplane.packaging.advisories.service import AdvisoriesService
from controlplane.packaging.advisories.store import imports, tables
from controlplane.packaging.records import Component, Severity
from controlplane.storage.database import Database
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from tests.contracts.agents_world import SetClock

CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
AGE = timedelta(days=30)
MODIFIED = "2024-04-30T00:00:00Z"


def record(
    identifier: str, name: str = "foo", *events: str, ecosystem: str = "PyPI", **changes: Any
) -> dict[str, Any]:
    pairs = [dict([one.split(" ")]) for one in (events or ("introduced 0", "fixed 1.0"))]
    package = {"ecosystem": ecosystem, "name": name}
    affected = [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": pairs}]}]
    return {"id": identifier, "modified": MODIFIED, "affected": affected, **changes}


def pypi(name: str, version: str) -> Component:
    return Component("PyPI", name, version, f"pkg:pypi/{name}@{version}")


@dataclass
class World:
    """The service on a database, and a folder for exports."""

    database: Database
    clock: SetClock
    advisories: AdvisoriesService
    folder: Path

    def write(self, *records: dict[str, Any], ecosystem: str = "PyPI") -> Path:
        """Make an export of records, in place of the one before."""
        path = self.folder / ecosystem / "all.zip"
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for one in records:
                archive.writestr(f"{one['id']}.json", json.dumps(one))
        return path

    async def put(self, *records: dict[str, Any], ecosystem: str = "PyPI", **options: Any) -> Imported:
        (done,) = await self.advisories.import_path(self.write(*records, ecosystem=ecosystem), **options)
        return done

    async def scan(self, *components: Component, max_age: timedelta = AGE, **options: Any) -> Scanned:
        return await self.advisories.scan(components, max_age=max_age, **options)

    async def execute(self, *statements: Any) -> None:
        async with self.database.unit_of_work() as work:
            for statement in statements:
                await work.connection.execute(statement)

    async def count(self, table: Any) -> int:
        async with self.database.reading() as connection:
            return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


@pytest_asyncio.fixture
async def world(location: Location, tmp_path: Path) -> AsyncIterator[World]:
    database, clock = open_database(location), SetClock()
    folder = tmp_path / "exports"
    folder.mkdir()
    try:
        yield World(database, clock, AdvisoriesService(database, clock), folder)
    finally:
        await database.close()


def ids(scanned: Scanned) -> list[str]:
    return [finding.vulnerability for finding in scanned.findings]


async def test_an_import_is_in_force_with_what_it_has(world: World) -> None:
    told: list[Stage] = []
    done = await world.put(
        record("X-1"), record("X-2", withdrawn=MODIFIED), record("X-3", "bar"), progress=told.append
    )
    assert (done.ecosystem, done.records, done.entries, done.withdrawn) == ("PyPI", 3, 2, 1)
    assert told[-1] == Stage("PyPI", 3, 3)
    (standing,) = await world.advisories.status()
    assert (standing.version, standing.digest, standing.releases) == (done.version, done.digest, {"PyPI": 2})
    assert standing.newest_modified == 1_714_435_200_000_000
    assert standing.import_time == to_micros(world.clock.now())
    document = await world.advisories.document(done.version, "X-1")
    assert document is not None
    assert json.loads(document) == record("X-1")
    assert await world.advisories.document(done.version, "X-9") is None


async def test_a_scan_finds_explains_and_says_what_it_looked_with(world: World) -> None:
    done = await world.put(
        record("PYSEC-1", "Foo_Bar", aliases=["CVE-2024-0001"]),
        record("GHSA-1", "foo-bar", "introduced 0", "fixed 1.1", aliases=["CVE-2024-0001"],
               severity=[{"type": "CVSS_V3", "score": CRITICAL}]),
        record("PYSEC-2", "other"),
    )  # fmt: skip
    scanned = await world.scan(
        pypi("foo.bar", "0.9"), pypi("clean", "1.0"), Component("npm", "x", "1.0.0", "pkg:npm/x@1.0.0")
    )
    (finding,) = scanned.findings
    assert (finding.vulnerability, finding.severity, finding.score) == (
        "CVE-2024-0001",
        Severity.CRITICAL,
        9.8,
    )
    assert finding.severity_source == "CVSS:3.1 of GHSA-1"
    assert finding.fixed == "1.1"
    assert finding.matched == (
        "GHSA-1: from the first version on (introduced 0), before fixed 1.1; "
        "PYSEC-1: from the first version on (introduced 0), before fixed 1.0"
    )
    assert finding.disagreements == ("fixed: GHSA-1 says 1.1, PYSEC-1 says 1.0",)
    assert scanned.coverage.covered["PyPI"].version == done.version
    assert scanned.coverage.not_covered == {"npm": 1}
    assert scanned.coverage.ages == {"PyPI": to_micros(world.clock.now()) - 1_714_435_200_000_000}


async def test_the_same_scan_gives_the_same_result_whatever_the_order(world: World) -> None:
    await world.put(*(record(f"X-{number}", f"p{number % 3}") for number in range(9)))
    components = [pypi(f"p{number}", "0.1") for number in range(3)]
    one = await world.scan(*components)
    assert one == await world.scan(*reversed(components), components[0])
    assert len(one.findings) == 9


async def test_severity_comes_through_an_alias_that_does_not_match(world: World) -> None:
    await world.put(
        record("PYSEC-1", "foo", aliases=["CVE-2024-0001"]),
        record(
            "GHSA-1",
            "elsewhere",
            aliases=["CVE-2024-0001"],
            severity=[{"type": "CVSS_V3", "score": CRITICAL}],
        ),
        record("PYSEC-2", "foo"),
    )
    scanned = await world.scan(pypi("foo", "0.9"))
    assert [(one.vulnerability, one.severity, one.severity_source) for one in scanned.findings] == [
        ("CVE-2024-0001", Severity.CRITICAL, "CVSS:3.1 of GHSA-1"),
        ("PYSEC-2", Severity.UNKNOWN, ""),
    ]


async def test_severity_comes_from_another_ecosystems_import(world: World) -> None:
    await world.put(record("PYSEC-1", "foo", aliases=["GHSA-1"]))
    await world.put(
        record("GHSA-1", "foo", ecosystem="npm", severity=[{"type": "CVSS_V3", "score": CRITICAL}]),
        ecosystem="npm",
    )
    (finding,) = (await world.scan(pypi("foo", "0.9"))).findings
    assert finding.severity is Severity.CRITICAL


async def test_an_alias_that_calls_the_component_clean_is_a_disagreement(world: World) -> None:
    await world.put(
        record("PYSEC-1", "foo", "introduced 0", aliases=["GHSA-1"]),
        record("GHSA-1", "foo", aliases=["PYSEC-1"]),
    )
    (finding,) = (await world.scan(pypi("foo", "2.0"))).findings
    assert finding.disagreements == ("affected: GHSA-1 says not affected, PYSEC-1 says affected",)


async def test_a_version_that_cannot_be_compared_is_a_finding_of_its_own_kind(world: World) -> None:
    await world.put(record("GO-1", "example.org/x", ecosystem="Go"), ecosystem="Go")
    component = Component("Go", "example.org/x", "(devel)", "pkg:golang/example.org/x@(devel)")
    (finding,) = (await world.scan(component)).findings
    assert not finding.certain
    assert finding.matched.startswith("GO-1: could not compare: Go: '(devel)' is no version")


async def test_releases_are_told_apart_and_an_unknown_one_is_not_covered(world: World) -> None:
    await world.put(
        record("ALSA-1", "bash", "introduced 0", "fixed 5.0-2.el8", ecosystem="AlmaLinux:8"),
        record("ALSA-2", "bash", "introduced 0", "fixed 5.1-2.el9", ecosystem="AlmaLinux:9"),
        ecosystem="AlmaLinux",
    )

    def bash(ecosystem: str, version: str = "5.0-1.el8") -> Component:
        return Component(ecosystem, "bash", version, f"pkg:rpm/almalinux/bash@{version}?distro={ecosystem}")

    assert ids(await world.scan(bash("AlmaLinux:8"))) == ["ALSA-1"]
    assert ids(await world.scan(bash("AlmaLinux:8.9"))) == ["ALSA-1"]
    assert ids(await world.scan(bash("AlmaLinux:8", "5.0-3.el8"))) == []
    unknown = await world.scan(bash("AlmaLinux:10"), bash("", "1"))
    assert (unknown.findings, unknown.coverage.not_covered) == ([], {"": 1, "AlmaLinux:10": 1})
    either = await world.scan(bash("AlmaLinux", "5.1-1"))
    assert ids(either) == ["ALSA-2"]
    assert "release is not known; this is of AlmaLinux:9" in either.findings[0].matched


async def test_a_purl_tells_source_name_and_epoch(world: World) -> None:
    await world.put(
        record("DEB-1", "openssl", "introduced 0", "fixed 3.0.1-1", ecosystem="Debian:12"), ecosystem="Debian"
    )
    await world.put(
        record("ALSA-1", "x", "introduced 0", "fixed 1:2.0-1", ecosystem="AlmaLinux:9"), ecosystem="AlmaLinux"
    )
    library = Component("Debian:12", "libssl3", "3.0.0-1", "pkg:deb/debian/libssl3@3.0.0-1?upstream=openssl")
    old = Component("AlmaLinux:9", "x", "1.9-1", "pkg:rpm/almalinux/x@1.9-1?epoch=1")
    new = Component("AlmaLinux:9", "x", "2.0-1", "pkg:rpm/almalinux/x@2.0-1?epoch=1")
    assert ids(await world.scan(library, old)) == ["DEB-1", "ALSA-1"]
    assert ids(await world.scan(replace(library, purl="pkg:deb/debian/libssl3@3.0.0-1"), new)) == []


async def test_a_statement_sets_the_state_of_a_finding(world: World) -> None:
    await world.put(record("X-1"))
    document = {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "statements": [
            {"vulnerability": {"name": "X-1"}, "products": [{"@id": "pkg:pypi/foo"}], "status":
            "not_affected",
             "justification": "component_not_present"}
        ],
    }  # fmt: skip
    (finding,) = (
        await world.scan(pypi("foo", "0"), statements=vex.parse(json.dumps(document).encode()))
    ).findings
    assert (finding.state, finding.justification) == ("not_affected", "component_not_present")


async def test_without_advisories_a_scan_is_an_error(world: World) -> None:
    with pytest.raises(rules.MissingError, match="import an export first"):
        await world.scan(pypi("foo", "1.0"))
    await world.put(record("X-1"))
    with pytest.raises(rules.MissingError, match="no advisories of Go, npm are in force"):
        await world.scan(pypi("foo", "1.0"), required=["npm", "Go", "PyPI"])


async def test_over_stale_advisories_a_scan_is_an_error_that_an_import_mends(world: World) -> None:
    await world.put(record("X-1"))
    world.clock.advance(31 * 86_400)
    with pytest.raises(rules.StaleError, match=r"32\.5 days old, and 30\.0 are allowed"):
        await world.scan(pypi("foo", "1.0"))
    # Importing the same again makes it no younger; what no component needs may be of any age.
    await world.put(record("X-1"))
    with pytest.raises(rules.StaleError):
        await world.scan(pypi("foo", "1.0"))
    assert (await world.scan(Component("npm", "x", "1.0.0", "pkg:npm/x@1.0.0"))).coverage.not_covered == {
        "npm": 1
    }
    await world.put(record("X-1", modified="2024-05-31T00:00:00Z"))
    assert ids(await world.scan(pypi("foo", "0.1"))) == ["X-1"]


async def test_an_operator_tells_the_age_of_an_export_that_does_not(world: World) -> None:
    timeless = record("GO-1", "example.org/x", ecosystem="Go", modified="0001-01-01T00:00:00Z")
    component = Component("Go", "example.org/x", "0.1.0", "pkg:golang/example.org/x@0.1.0")
    await world.put(timeless, ecosystem="Go")
    with pytest.raises(rules.StaleError):
        await world.scan(component)
    await world.put(timeless, ecosystem="Go", exported=world.clock.now())
    assert ids(await world.scan(component)) == ["GO-1"]


@pytest.mark.parametrize("table", [tables.advisories, tables.advisory_packages])
async def test_over_emptied_tables_a_scan_is_an_error(world: World, table: Any) -> None:
    await world.put(record("X-1"), record("X-2", "bar"))
    await world.execute(delete(table).where(table.c.advisory_id == "X-2"))
    with pytest.raises(rules.CorruptError, match="import them again"):
        await world.scan(pypi("foo", "0.1"))
    # The same export mends it.
    assert (await world.put(record("X-1"), record("X-2", "bar"))).unchanged
    assert ids(await world.scan(pypi("foo", "0.1"))) == ["X-1"]


@pytest.mark.parametrize(
    ("table", "column"), [(tables.advisories, "brief"), (tables.advisory_packages, "affected")]
)
async def test_over_damaged_rows_a_scan_is_an_error(world: World, table: Any, column: str) -> None:
    await world.put(record("X-1"))
    await world.execute(update(table).values({column: b"\x00damaged"}))
    with pytest.raises(rules.CorruptError, match="cannot be read"):
        await world.scan(pypi("foo", "0.1"))


async def test_over_advisories_that_were_put_back_a_scan_is_an_error(world: World) -> None:
    first = await world.put(record("X-1"))
    second = await world.put(record("X-1", modified="2024-05-01T00:00:00Z"))
    table = tables.advisory_imports
    await world.execute(
        update(table).where(table.c.version == second.version).values(state="superseded"),
        update(table).where(table.c.version == first.version).values(state="in_force"),
        text(f"UPDATE advisories SET import_version = {first.version}"),
        text(f"UPDATE advisory_packages SET import_version = {first.version}"),
    )
    with pytest.raises(rules.RolledBackError):
        await world.scan(pypi("foo", "0.1"))


async def test_the_same_export_without_its_time_does_not_grow_older(world: World) -> None:
    """Else it came into force, and every scan over it was refused as a rollback."""
    await world.put(record("X-1"), exported=world.clock.now())
    (before,) = await world.advisories.status()
    again = await world.put(record("X-1"))
    (standing,) = await world.advisories.status()
    assert (again.unchanged, standing.newest_modified) == (True, before.newest_modified)
    assert ids(await world.scan(pypi("foo", "0.1"))) == ["X-1"]


async def test_an_older_export_is_refused_and_what_was_stays(world: World) -> None:
    new = await world.put(record("X-1", modified="2024-05-01T00:00:00Z"), record("X-2", "bar"))
    with pytest.raises(rules.RolledBackError, match="less far"):
        await world.put(record("X-1"), record("X-2", "bar"))
    with pytest.raises(rules.RolledBackError, match=r"1 of 2 records vanished .* \(X-2\)"):
        await world.put(record("X-1", modified="2024-05-01T00:00:00Z"))
    with pytest.raises(rules.RolledBackError, match="1 went back"):
        await world.put(record("X-1"), record("X-2", "bar", modified="2024-05-01T00:00:00Z"))
    (standing,) = await world.advisories.status()
    assert standing.version == new.version
    assert ids(await world.scan(pypi("foo", "0.1"), pypi("bar", "0.1"))) == ["X-2", "X-1"]


async def test_a_record_may_go_once_it_was_withdrawn(world: World) -> None:
    await world.put(record("X-1"), record("X-2", withdrawn=MODIFIED))
    done = await world.put(record("X-1"))
    assert [*done.loss.vanished, *done.loss.gone_back] == []
    assert not done.unchanged


async def test_an_operator_may_accept_a_rollback(world: World) -> None:
    await world.put(record("X-1", modified="2024-05-01T00:00:00Z"))
    await world.put(record("X-2"), accept_rollback=True)
    assert ids(await world.scan(pypi("foo", "0.1"))) == ["X-2"]
    await world.put(record("X-2"))
    assert ids(await world.scan(pypi("foo", "0.1"))) == ["X-2"]


@pytest.mark.parametrize(
    ("records", "error", "message"),
    [
        ([], rules.EmptyError, "has no records"),
        ([record("X-1", ecosystem="npm")], rules.EmptyError, "names a package of this ecosystem"),
        ([record("X-1", modified="2024-06-01T00:00:00Z")], rules.FutureError, "has not come"),
        ([record("X-1"), record("X-2", aliases=3)], ExportError, "X-2.json: aliases: is a int"),
    ],
)
async def test_a_bad_export_is_refused_and_what_was_stays(
    world: World, records: Sequence[dict[str, Any]], error: type[Exception], message: str
) -> None:
    before = await world.put(record("X-0"))
    with pytest.raises(error, match=message):
        await world.put(*records)
    assert [one.version for one in await world.advisories.status()] == [before.version]
    assert ids(await world.scan(pypi("foo", "0.1"))) == ["X-0"]


async def test_one_id_in_two_members_is_refused(world: World) -> None:
    path = world.write(record("X-1"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other.json", json.dumps(record("X-1")))
    with pytest.raises(ExportError, match=r"X-1 is the id of two records, X-1\.json and other\.json"):
        await world.advisories.import_path(path)


async def test_rows_of_former_and_failed_imports_are_deleted(world: World) -> None:
    await world.put(record("X-1"), record("X-2", aliases=["CVE-2024-0001"]))
    with pytest.raises(ExportError):
        await world.put(record("X-1"), record("X-2", aliases=3))
    await world.put(record("X-1"), record("X-2", aliases=["CVE-2024-0001"]))
    counted = [await world.count(table) for table in (tables.advisories, tables.advisory_packages)]
    assert counted == [2, 2]
    assert await world.count(tables.advisory_aliases) == 1
    assert await world.count(tables.advisory_imports) == 3


async def test_an_import_whose_process_died_is_deleted_once_it_is_old(world: World) -> None:
    now = to_micros(world.clock.now())
    async with world.database.unit_of_work() as work:
        version = await imports.begin(work, "PyPI", now)
        batch = imports.Batch(
            records=[("X-9", 1, None, b"[]", b"")], packages=[("PyPI", "foo", "X-9", b"[]")]
        )
        await imports.add(work, version, batch)
    await world.put(record("X-1"))
    assert await world.count(tables.advisories) == 2
    assert ids(await world.scan(pypi("foo", "0.1"))) == ["X-1"]
    assert await importing.discard(world.database, now + importing.LOADING_LIFE + 1) == 2
    assert await world.count(tables.advisories) == 1


async def test_of_two_imports_at_once_the_slower_one_is_told(world: World) -> None:
    path = world.write(record("X-1"))
    outcomes = await asyncio.gather(
        *(world.advisories.import_path(path) for _ in range(2)), return_exceptions=True
    )
    lost = [one for one in outcomes if isinstance(one, BaseException)]
    assert len(lost) <= 1
    # On PostgreSQL both may write the same key at the same moment.
    assert all(isinstance(one, rules.AdvisoryDataError | Unavailable) for one in lost)
    assert ids(await world.scan(pypi("foo", "0.1"))) == ["X-1"]


async def test_a_reader_that_is_killed_ends_the_import_with_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = importing._start

    async def started(*arguments: Any) -> asyncio.subprocess.Process:
        process = await start(*arguments)
        os.kill(process.pid, signal.SIGKILL)
        return process

    monkeypatch.setattr(importing, "_start", started)
    with pytest.raises(ExportError, match="ended early"):
        await world.put(record("X-1"))
    assert await world.advisories.status() == []


async def test_many_records_go_in_bounded_transactions_through_several_readers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "ROWS", 50)
    monkeypatch.setattr(importing, "ALONE_BELOW_BYTES", 0)
    told: list[Stage] = []
    done = await world.put(
        *(record(f"X-{number}", f"p{number}") for number in range(120)), progress=told.append
    )
    assert (done.records, done.entries) == (120, 120)
    assert len(told) >= 4
    assert len((await world.scan(*(pypi(f"p{number}", "0.1") for number in range(120)))).findings) == 120


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    "FLEETWRIGHT_TEST_OSV" not in os.environ, reason="FLEETWRIGHT_TEST_OSV names no folder of exports"
)
async def test_real_exports_are_imported_and_scanned_with(world: World) -> None:
    # After every record, whenever the exports are of.
    world.clock.time += timedelta(days=5_000)
    done = await world.advisories.import_path(Path(os.environ["FLEETWRIGHT_TEST_OSV"]))
    assert {one.ecosystem for one in done} >= {"PyPI", "Go", "AlmaLinux"}
    found = await world.scan(
        pypi("django", "3.2"),
        Component(
            "Go",
            "golang.org/x/crypto",
            "v0.0.0-20190101000000-aaaaaaaaaaaa",
            "pkg:golang/golang.org/x/crypto",
        ),
        Component("AlmaLinux:8", "bash", "4.4.19-1.el8", "pkg:rpm/almalinux/bash@4.4.19-1.el8"),
        max_age=timedelta(days=10_000),
    )
    assert {one.component.partition("/")[0] for one in found.findings} == {
        "pkg:pypi",
        "pkg:golang",
        "pkg:rpm",
    }
