"""Our archive: the same bytes for the same input, and only what intake saw."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from fleetwright.manifest import ManifestError, parse, read_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.work import build
from tests.unit.packaging.building.trees import EPOCH, FILES, built, request


def archive(folder: Path, **others: object) -> bytes:
    wanted = request(folder, **others)  # type: ignore[arg-type] # parts of a request, by name
    return Path(built(wanted, "archive")["path"]).read_bytes()


def test_the_same_input_gives_the_same_bytes_in_another_folder(tmp_path: Path) -> None:
    assert archive(tmp_path / "one") == archive(tmp_path / "a" / "longer" / "place")


def test_the_same_input_gives_the_same_bytes_under_another_umask(tmp_path: Path) -> None:
    first = archive(tmp_path / "one")
    before = os.umask(0o077)
    try:
        assert archive(tmp_path / "two") == first
    finally:
        os.umask(before)


def test_the_same_input_gives_the_same_bytes_on_another_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = archive(tmp_path / "one")
    monkeypatch.setattr(time, "time", lambda: 4_000_000_000.0)
    second = request(tmp_path / "two")
    for path in (tmp_path / "two" / "tree").rglob("*"):
        os.utime(path, (1, 1))
    assert Path(built(second, "archive")["path"]).read_bytes() == first


def test_the_same_input_gives_the_same_bytes_with_its_files_in_another_order(tmp_path: Path) -> None:
    first = archive(tmp_path / "one")
    shuffled = list(FILES.items())
    random.Random(7).shuffle(shuffled)
    wanted = request(tmp_path / "two", dict(reversed(shuffled)))
    assert Path(built(wanted, "archive")["path"]).read_bytes() == first


def test_another_epoch_gives_other_bytes(tmp_path: Path) -> None:
    assert archive(tmp_path / "one") != archive(tmp_path / "two", epoch=EPOCH + 1)


def test_an_archive_holds_no_owner_no_time_and_two_modes(tmp_path: Path) -> None:
    packed = archive(tmp_path, links={"tool-1.2.3/lib/current": "data.bin"})
    assert packed[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        found = tar.getmembers()
    assert {(one.uid, one.gid, one.uname, one.gname, one.mtime) for one in found} == {(0, 0, "", "", EPOCH)}
    assert {one.mode for one in found if one.isfile()} == {0o755, 0o644}
    assert [one.linkname for one in found if one.issym()] == ["data.bin"]


def test_the_manifest_stands_first_and_the_files_sorted(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(tmp_path))) as tar:
        names = tar.getnames()
    assert names == ["manifest.json", *sorted(f"files/{path}" for path in FILES)]


def test_every_file_has_the_digest_that_the_manifest_gives(tmp_path: Path) -> None:
    wanted = request(tmp_path)
    package = built(wanted, "archive")
    manifest = read_manifest(Path(package["path"]))
    assert manifest == parse(package["manifest"].encode())
    with tarfile.open(package["path"]) as tar:
        for file in manifest.files:
            content = tar.extractfile(f"files/{file.path}")
            assert content is not None
            assert content.read() == FILES[file.path][0]


def test_a_long_path_and_a_name_of_another_alphabet_are_kept(tmp_path: Path) -> None:
    path = "/".join(["длинный" * 10] * 5)
    wanted = request(tmp_path, {path: (b"x", 0o644)})
    with tarfile.open(built(wanted, "archive")["path"]) as tar:
        assert f"files/{path}" in tar.getnames()


@pytest.mark.parametrize("change", ["other", "longer", "gone", "link", "folder", "pipe"])
def test_a_file_that_changed_since_intake_fails_the_build(tmp_path: Path, change: str) -> None:
    wanted = request(tmp_path)
    place = tmp_path / "tree" / "tool-1.2.3/etc/tool.conf"
    original = place.read_bytes()
    place.unlink()
    if change == "other":
        place.write_bytes(b"x" * len(original))
    elif change == "longer":
        place.write_bytes(original + b"more")
    elif change == "link":
        (tmp_path / "same").write_bytes(original)
        place.symlink_to(tmp_path / "same")
    elif change == "folder":
        place.mkdir()
    elif change == "pipe":
        os.mkfifo(place)
    with pytest.raises(BuildFailed) as caught:
        build(wanted.to_json())
    assert caught.value.code in ("FILE_CHANGED", "UNREADABLE")
    assert caught.value.member == "tool-1.2.3/etc/tool.conf"
    assert list((tmp_path / "output").iterdir()) == []


def test_an_artefact_that_changed_since_intake_fails_the_build(tmp_path: Path) -> None:
    wanted = request(tmp_path)
    (tmp_path / "artefact").write_bytes(b"something else")
    with pytest.raises(BuildFailed, match="is not what it was at intake"):
        build(wanted.to_json())


@pytest.mark.parametrize("epoch", [-1, 8**11])
def test_a_time_that_no_tar_holds_is_refused(tmp_path: Path, epoch: int) -> None:
    with pytest.raises(BuildFailed, match="SOURCE_DATE_EPOCH"):
        build(request(tmp_path, epoch=epoch).to_json())


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    wanted = replace(request(tmp_path), output=str(tmp_path / "nowhere"))
    with pytest.raises(BuildFailed) as caught:
        build(wanted.to_json())
    assert caught.value.code == "OUTPUT"


def test_two_files_in_one_place_fail_the_build(tmp_path: Path) -> None:
    wanted = request(tmp_path)
    with pytest.raises(BuildFailed, match="occurs twice"):
        build(replace(wanted, files=[*wanted.files, wanted.files[0]]).to_json())


def test_memory_does_not_grow_with_a_file(tmp_path: Path) -> None:
    size = 64 * 2**20
    wanted = request(tmp_path, {"big": (b"\0" * size, 0o644)})
    tracemalloc.start()
    try:
        build(wanted.to_json())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_request_crosses_the_border_of_a_process_as_json(tmp_path: Path) -> None:
    import json

    wanted = request(tmp_path)
    assert type(wanted).from_json(json.loads(json.dumps(wanted.to_json()))) == wanted


def test_a_failure_crosses_the_border_of_a_process_as_json() -> None:
    found = BuildFailed.from_json(BuildFailed("CODE", "member", "message").to_json())
    assert (found.code, found.member, found.message) == ("CODE", "member", "message")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_package_never_raises_anything_but_its_own_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    good = bytearray(archive(folder))
    plain = data.draw(st.booleans())
    if plain:
        good = bytearray(gzip.decompress(good))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, min(len(good), 700) - 1))] = data.draw(st.integers(0, 255))
    text = bytes(good[: data.draw(st.integers(0, len(good)))])
    (folder / "package").write_bytes(gzip.compress(text) if plain else text)
    try:
        found = read_manifest(folder / "package")
    except ManifestError:
        return
    assert found.name


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x1f\x8b",
        b"PK\x03\x04",
        b"!<arch>\n",
        b"!<arch>\n" + b"x" * 60,
        b"!<arch>\n" + f"{'_fleetwright':<16}{0:<12}{0:<6}{0:<6}{100644:<8}{'-5':<10}`\n".encode(),
        b"!<arch>\n" + f"{'_fleetwright':<16}{0:<12}{0:<6}{0:<6}{100644:<8}{10**9:<10}`\n".encode(),
        gzip.compress(b"", mtime=0),
        gzip.compress(b"\0" * 1024, mtime=0),
        gzip.compress(tarfile.TarInfo("other").tobuf(), mtime=0),
    ],
)
def test_what_is_no_package_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "package").write_bytes(content)
    with pytest.raises(ManifestError):
        read_manifest(tmp_path / "package")


def test_a_manifest_that_declares_a_huge_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("manifest.json")
    info.size = 7 * 2**30
    (tmp_path / "package").write_bytes(gzip.compress(info.tobuf()))
    with pytest.raises(ManifestError, match="at most"):
        read_manifest(tmp_path / "package")
