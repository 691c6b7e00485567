"""Files that are no whole backup of ours: each refused with one message, and the folder as it was."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.storage.backup import restoring, taking
from controlplane.storage.backup.errors import BackupError
from tests.integration.backup import archives
from tests.integration.backup.conftest import NOON, Content
from tests.support.folders import tables

DATABASE = "fleetwright.db"


def set_in(*path: Any, value: Any) -> Callable[[archives.Files, Path], archives.Files]:
    """Return what sets one value of the manifest."""

    def change(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return lambda files, _tmp: archives.with_manifest(files, change)


def added(entry: dict[str, Any]) -> Callable[[archives.Files, Path], archives.Files]:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"].append({**manifest["files"][-1], **entry})

    return lambda files, _tmp: archives.with_manifest(files, change)


def spoiled(statement: str) -> Callable[[archives.Files, Path], archives.Files]:
    def change(files: archives.Files, tmp: Path) -> archives.Files:
        return archives.with_file(files, DATABASE, archives.database(tmp, files[DATABASE], statement))

    return change


def scratched(files: archives.Files, _tmp: Path) -> archives.Files:
    page = bytearray(files[DATABASE])
    page[4096:8192] = random.Random(1).randbytes(4096)
    return archives.with_file(files, DATABASE, bytes(page))


def lagging(files: archives.Files, tmp: Path) -> archives.Files:
    return archives.with_file(files, DATABASE, archives.with_lagging_index(tmp, files[DATABASE]))


OUT_OF_PLACE = (
    *("../trust/agents-root.key", "/etc/passwd", "trust/../../x.pem", "trust/a/b.pem", "trust/.key", ""),
    *("identities/operator-../key.pem", "fleetwright.db-wal", "trust/a.pem\n", "trust/A.pem", 7),
)

CONTENTS: dict[str, tuple[Callable[[archives.Files, Path], archives.Files], str]] = {
    "a newer format": (set_in("format", value=2), "has format 2, this program knows up to 1: install"),
    "a newer schema": (set_in("schema", value="0999"), "is from schema 0999, this program knows up to 00"),
    "another schema": (set_in("schema", value="0001"), "and not 0001"),
    "no format": (set_in("format", value=None), "manifest.json cannot be read"),
    "a format that is none": (set_in("format", value=True), "manifest.json cannot be read"),
    "a negative size": (set_in("files", 1, "size", value=-1), "is not a whole number"),
    "a size that is none": (set_in("files", 1, "size", value="1"), "is not a whole number"),
    "a key that is large": (set_in("files", 1, "size", value=2**20), "more than a key or a certificate has"),
    "a database that is too large": (set_in("files", 0, "size", value=2**60), "MiB are free"),
    "a digest that differs": (set_in("files", 0, "sha256", value="0" * 64), f"{DATABASE} is not what was"),
    "a digest that is none": (set_in("files", 0, "sha256", value="x"), "is not allowed"),
    "a time without a zone": (set_in("time", value="2026-11-23T12:00:00"), "has no zone"),
    "a product that is a book": (set_in("product", value="1" * 65), "is not allowed"),
    "roots that are none": (set_in("roots", value=[]), "manifest.json cannot be read"),
    "files that are none": (set_in("files", value={}), "a list of at most"),
    "no files": (set_in("files", value=[]), "a database once"),
    "two databases": (added({"name": DATABASE, "size": 1}), "a database once"),
    "a file twice": (added({}), "a database once"),
    "a file that is missing": (added({"name": "trust/zz.pem"}), "trust/zz.pem is wanted next"),
    "a file that is not announced": (
        lambda files, _tmp: {**files, "trust/zz.pem": b"x"},
        "there is more in it than it announced",
    ),
    "no manifest": (
        lambda files, _tmp: {name: files[name] for name in files if name != "manifest.json"},
        "manifest.json is wanted next",
    ),
    "a manifest that is no JSON": (lambda files, _tmp: {**files, "manifest.json": b"{"}, "cannot be read"),
    "a manifest that is a list": (lambda files, _tmp: {**files, "manifest.json": b"[]"}, "cannot be read"),
    "a manifest without an end": (
        lambda files, _tmp: {**files, "manifest.json": archives.nested(100_000)},
        "cannot be read",
    ),
    "a manifest that is too large": (
        lambda files, _tmp: {**files, "manifest.json": b" " * (4 * 2**20 + 1)},
        "not what was announced",
    ),
    "a damaged page": (scratched, "its database"),
    "an index that lacks a row": (lagging, "its database is damaged (row 1 missing from index"),
    "another program's database": (spoiled("DROP TABLE alembic_version"), "no such table: alembic_version"),
    "a database without a schema": (spoiled("DELETE FROM alembic_version"), "its database cannot be read"),
    "no database": (
        lambda files, _tmp: archives.with_file(files, DATABASE, b"not a database" * 1000),
        "file is not a database",
    ),
    **{f"a name out of place: {name!r}": (added({"name": name}), "is not allowed") for name in OUT_OF_PLACE},
}


def refused(source: Path, folder: Path) -> str:
    with pytest.raises(BackupError) as error:
        restoring.restore(folder, source, now=NOON, force=True)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", CONTENTS)
def test_content_that_is_not_whole_is_refused_and_changes_nothing(
    kind: str, good: Path, folder: Path, tmp_path: Path, content: Callable[[Path], Content]
) -> None:
    before = content(folder)
    change, said = CONTENTS[kind]
    source = archives.write(tmp_path / "bad.tar", change(archives.files_of(good), tmp_path))
    assert said in refused(source, folder)
    assert content(folder) == before


@pytest.mark.parametrize("kind", CONTENTS)
def test_content_that_is_not_whole_makes_no_folder(kind: str, good: Path, tmp_path: Path) -> None:
    change, said = CONTENTS[kind]
    source = archives.write(tmp_path / "bad.tar", change(archives.files_of(good), tmp_path))
    assert said in refused(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("type_", [b"1", b"2", b"3", b"5", b"6", b"g", b"x", b"L", b"K", b"S", b"7"])
def test_what_is_no_plain_file_is_refused(
    type_: bytes, good: Path, folder: Path, tmp_path: Path, content: Callable[[Path], Content]
) -> None:
    before = content(folder)

    def change(info: Any) -> None:
        if info.name.startswith("trust/"):
            info.type, info.linkname = type_, "/etc/passwd"

    source = archives.write(tmp_path / "bad.tar", archives.files_of(good), change)
    assert "trust/agents-root.key is wanted next" in refused(source, folder)
    assert content(folder) == before


def test_a_header_that_announces_more_than_the_manifest_is_refused(
    good: Path, folder: Path, tmp_path: Path
) -> None:
    def change(info: Any) -> None:
        if info.name == DATABASE:
            info.size = 2**50

    source = archives.write(tmp_path / "bad.tar", archives.files_of(good), change)
    assert f"{DATABASE} has {2**50} bytes and not what was announced" in refused(source, folder)


@pytest.mark.parametrize(
    "garbage", [b"", b"\0" * 4096, b"SQLite format 3\0" * 4096, b"\x1f\x8b", b"\x1f\x8b" + b"x" * 4096]
)
def test_garbage_is_refused(garbage: bytes, folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "garbage"
    source.write_bytes(garbage)
    assert "damaged, or no backup of Fleetwright" in refused(source, folder)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kept", [1, 511, 512, 600, 4_000, -1, -511, -1024, -1025])
def test_a_backup_that_was_cut_off_is_refused(
    compressed: bool, kept: int, good: Path, folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "short"
    whole = gzip.compress(good.read_bytes(), 1) if compressed else good.read_bytes()
    source.write_bytes(whole[:kept])
    assert "damaged, or no backup of Fleetwright" in refused(source, folder)


def test_a_source_that_is_not_there_or_no_file_is_refused(folder: Path, tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere", folder).startswith(f"{tmp_path / 'nowhere'}: No such file")
    assert refused(tmp_path, folder).startswith(f"{tmp_path}: Is a directory")


@pytest.fixture(scope="session")
def small(template: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A compressed backup."""
    target = tmp_path_factory.mktemp("small") / "small.tar.gz"
    return taking.take(template, target, product="1.2.3", now=NOON).path.read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), compressed=st.booleans())
def test_a_bit_that_flipped_is_found_or_does_not_matter(
    small: bytes,
    good: Path,
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
    place: float,
    bit: int,
    compressed: bool,
) -> None:
    flipped = bytearray(small if compressed else good.read_bytes())
    flipped[int(place * len(flipped))] ^= 1 << bit
    work = tmp_path_factory.mktemp("flip")
    source = work / "flipped"
    source.write_bytes(flipped)
    try:
        restoring.restore(work / "new", source, now=NOON)
    except BackupError:
        assert not (work / "new").exists()
    else:
        # Padding, and what a header says that nobody reads.
        assert tables(work / "new") == tables(template)
        for name in ("trust/agents-root.key", "identities/operator-admin/key.pem"):
            assert (work / "new" / name).read_bytes() == (template / name).read_bytes()
