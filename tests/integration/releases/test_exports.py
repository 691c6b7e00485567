"""Bundles, written by the server and verified where no server is known."""

from __future__ import annotations

import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from fleetwright.verify.bundle import verify_bundle
from fleetwright.verify.reports import Outcome

from controlplane.errors import DataLoss, FailedPrecondition, NotFound, ResourceExhausted
from controlplane.packaging.exporting import AT_ONCE, Exports
from controlplane.packaging.rules import Decision
from tests.contracts.releases_world import PACKAGE, SHA256, World, made_once


async def exported(made: World, path: Path, piece_bytes: int = 1_000) -> Path:
    exports = Exports(made.database, made.blobs, made.releases.repository, made.folder / "scratch")
    with path.open("wb") as file:
        async for piece in exports.bundle(SHA256, piece_bytes):
            assert piece.offset == file.tell()
            file.write(piece.data)
        assert piece.total == file.tell()
    assert list((made.folder / "scratch").glob("bundle-*")) == []
    return path


async def test_a_bundle_is_verified_by_its_trusted_root_alone(made: World, tmp_path: Path) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    path = await exported(made, tmp_path / "curl.zip")
    report = verify_bundle(path, made_once()[1].trusted_root, made.clock.now())
    assert report.ok, str(report)


async def test_a_bundle_names_what_is_missing_and_what_was_changed(made: World, tmp_path: Path) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    path = await exported(made, tmp_path / "curl.zip")
    root, now = made_once()[1].trusted_root, made.clock.now()
    lines = zipfile.ZipFile(path).read("attestations.jsonl").splitlines(keepends=True)
    for name, content, check in (
        ("package", PACKAGE.swapcase(), "release"),
        ("attestations.jsonl", b"".join(lines[:-1]), "verdict"),
        ("attestations.jsonl", b"".join(lines[1:]), "provenance"),
    ):
        report = verify_bundle(_with(path, name, content), root, now)
        assert report[check].outcome is not Outcome.OK
    assert verify_bundle(path, root, now + timedelta(days=2))["tuf"].outcome is Outcome.WRONG


def _with(path: Path, name: str, content: bytes) -> Path:
    changed = path.with_name(f"changed-{name}.zip")
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(changed, "w") as after:
        for member in before.namelist():
            after.writestr(member, content if member == name else before.read(member))
    return changed


async def test_what_is_not_released_has_no_bundle(made: World, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="packages/"):
        await exported(made, tmp_path / "1.zip")
    await made.add()
    with pytest.raises(FailedPrecondition, match="DownloadPackage has its parts"):
        await exported(made, tmp_path / "2.zip")
    await made.releases.publish(SHA256)
    await made.decide(Decision.FAIL)
    with pytest.raises(FailedPrecondition, match="not released"):
        await exported(made, tmp_path / "3.zip")


async def test_so_many_bundles_are_written_at_a_time(made: World) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    exports = Exports(made.database, made.blobs, made.releases.repository, made.folder / "scratch")
    begun = [exports.bundle(SHA256) for _ in range(AT_ONCE)]
    for bundle in begun:
        await anext(bundle)
    with pytest.raises(ResourceExhausted, match="4 bundles are written here"):
        await anext(exports.bundle(SHA256))
    for bundle in begun:
        await bundle.aclose()
    assert (await anext(exports.bundle(SHA256))).offset == 0


async def test_bytes_that_were_swapped_in_the_store_are_not_exported(made: World, tmp_path: Path) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    (made.folder / "blobs" / "sha256" / SHA256[:2] / SHA256).write_bytes(PACKAGE.swapcase())
    with pytest.raises(DataLoss, match="gone or damaged"):
        await exported(made, tmp_path / "curl.zip")
