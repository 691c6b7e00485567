"""``fleetwright advisories``: zips and folders of records, each whole or not at all."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1.advisory_service_pb2 import AdvisoryEcosystem

from tests.integration.cli.command import Command
from tests.integration.cli.factory import Factory
from tests.integration.cli.refusals import Refusal

RECORDS = {
    "X-1.json": json.dumps({"id": "X-1", "modified": "2026-11-01T00:00:00Z"}),
    "X-2.json": json.dumps({"id": "X-2", "modified": "2026-11-02T00:00:00Z"}),
}


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in RECORDS.items():
            archive.writestr(name, text)
    return content.getvalue()


def members(content: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.fixture
def osv(home: Path) -> Path:
    """Exports as they come: PyPI as a zip, npm unpacked, and something else beside them."""
    folder = home / "osv"
    for name in ("PyPI", "npm", "notes"):
        (folder / name).mkdir(parents=True)
    (folder / "PyPI" / "all.zip").write_bytes(zipped())
    for name, text in RECORDS.items():
        (folder / "npm" / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def known(factory: Factory) -> None:
    """What the server knows."""
    for name, stale in (("PyPI", False), ("npm", True)):
        one: Any = AdvisoryEcosystem(
            ecosystem=name, import_version=3, advisory_count=12_345, withdrawn_count=6, stale=stale
        )
        one.newest_time.FromJsonString("2026-11-02T00:00:00Z")
        one.import_time.FromJsonString("2026-11-03T00:00:00Z")
        factory.ecosystems.append(one)


async def test_every_export_below_a_folder_is_imported(
    packager: Command, factory: Factory, osv: Path
) -> None:
    factory.changed = 2
    ended = await packager("advisories", "import", "osv")
    assert (ended.status, ended.errors) == (0, "")
    assert [line.split()[0] for line in ended.lines[1:3]] == ["PyPI", "npm"]
    assert ended.lines[-1] == "4 packages have another decision now"
    (first, whole), (second, packed) = factory.exports
    assert (first.ecosystem, second.ecosystem) == ("PyPI", "npm")
    assert members(whole) == RECORDS
    assert members(packed) == RECORDS


async def test_a_folder_of_records_is_sent_as_the_same_bytes_each_time(
    packager: Command, factory: Factory, osv: Path
) -> None:
    for _ in range(2):
        await packager("advisories", "import", "osv/npm")
    assert factory.exports[0][1] == factory.exports[1][1]


async def test_a_zip_by_itself_leaves_its_ecosystem_to_the_server(
    packager: Command, factory: Factory, home: Path
) -> None:
    (home / "today.zip").write_bytes(zipped())
    await packager("advisories", "import", "today.zip")
    await packager("advisories", "import", "today.zip", "--ecosystem", "Debian")
    assert [opened.ecosystem for opened, _ in factory.exports] == ["", "Debian"]


async def test_when_it_was_exported_and_that_it_may_be_older_is_said(
    packager: Command, factory: Factory, osv: Path
) -> None:
    await packager(
        "advisories", "import", "osv/npm", "--exported", "2026-11-23T08:00:00Z", "--accept-rollback"
    )
    [(opened, _)] = factory.exports
    assert opened.exported_time.ToJsonString() == "2026-11-23T08:00:00Z"
    assert opened.allow_older


async def test_a_rollback_is_refused_and_what_came_before_is_told(
    packager: Command, factory: Factory, osv: Path
) -> None:
    said = "npm knows 40 records less than what is in force"
    refusal = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "ADVISORIES_ROLLED_BACK", said)
    ended = await packager("advisories", "import", "osv/PyPI", "osv/npm", "-o", "json")
    assert [one["ecosystem"] for one in ended.document["ecosystems"]] == ["PyPI", "npm"]
    factory.refusals["ImportAdvisories"] = [refusal]
    ended = await packager("advisories", "import", "osv/npm")
    assert (ended.status, ended.out) == (1, "")
    assert said in ended.errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing",), "nothing: is not there"),
        (("osv/notes",), "has neither all.zip"),
        (("osv", "--ecosystem", "Cobol"), "(Cobol)"),
        (("osv/empty.zip",), "empty.zip: is empty"),
        (("osv", "--exported", "soon"), "--exported"),
        (("osv", "-o", "name"), "-o name"),
    ],
)
async def test_what_is_no_export_is_told_before_anything_is_sent(
    packager: Command, factory: Factory, osv: Path, words: tuple[str, ...], said: str
) -> None:
    (osv / "empty.zip").write_bytes(b"")
    ended = await packager("advisories", "import", *words)
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.errors
    assert factory.exports == []


async def test_a_record_that_cannot_be_read_is_named(packager: Command, factory: Factory, osv: Path) -> None:
    (osv / "npm" / "X-3.json").symlink_to("/etc/hostname")
    ended = await packager("advisories", "import", "osv/npm")
    assert (ended.status, ended.out) == (1, "")
    assert "X-3.json" in ended.errors
    assert factory.exports == []


async def test_the_status_says_what_is_stale(packager: Command, factory: Factory) -> None:
    ended = await packager("advisories", "status")
    assert ended.lines[1].split()[:3] == ["PyPI", "CURRENT", "12,345"]
    assert ended.lines[2].split()[:3] == ["npm", "STALE", "12,345"]
    document = (await packager("advisories", "status", "-o", "json")).document
    assert document["ecosystems"][1]["stale"] is True


async def test_a_server_that_knows_nothing_says_what_follows(packager: Command, factory: Factory) -> None:
    factory.ecosystems.clear()
    status, screen = await packager.on_a_terminal("advisories", "status")
    assert status == 0
    assert "every scan fails until" in screen
