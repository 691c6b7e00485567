"""One artefact from its bytes to its outcome, and what is left on disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from controlplane.packaging.archives import intake
from controlplane.packaging.archives.errors import BadArtefact, Code
from controlplane.packaging.archives.intake import inspect
from controlplane.packaging.archives.limits import Limits
from controlplane.packaging.archives.outcome import Intake
from controlplane.packaging.records import ArtefactFacts, ArtefactType
from tests.unit.packaging.archives.good import GOOD, deb, made_tar, made_zip
from tests.unit.packaging.archives.reading import inspected, refused, tree

SMALL_BOMB = made_zip({"zeros": bytes(4 << 20)})


@pytest.mark.parametrize("kind", GOOD)
def test_each_type_is_inspected(tmp_path: Path, kind: str) -> None:
    name, data = GOOD[kind]
    found = inspected(tmp_path, name, data)
    assert found.type is found.facts.type is ArtefactType(kind)
    assert (found.size, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert found.sha512 == hashlib.sha512(data).hexdigest()
    on_disk = {path for path in tree(tmp_path / "into") if (tmp_path / "into" / path).is_file()}
    assert {entry.path for entry in found.files} == on_disk
    assert all(
        hashlib.sha256((tmp_path / "into" / entry.path).read_bytes()).hexdigest() == entry.sha256
        for entry in found.files
    )


@pytest.mark.parametrize("kind", GOOD)
def test_an_outcome_crosses_as_json(tmp_path: Path, kind: str) -> None:
    found = inspected(tmp_path, *GOOD[kind])
    again = Intake.from_json(found.as_json())
    assert again == Intake.from_json(again.as_json())
    assert (again.type, again.facts, list(again.files)) == (found.type, found.facts, list(found.files))


def test_a_refusal_crosses_as_json_and_shows_nothing_invisible() -> None:
    error = BadArtefact(Code.PATH_ESCAPES, "a\x1b[31m\u202eb" + "x" * 999, "is bad")
    assert error.as_json()["code"] == "PATH_ESCAPES"
    assert error.member.startswith("a\\x1b[31m\\u202eb")
    assert len(error.member) < 250
    assert str(error).startswith("PATH_ESCAPES: a")


def test_a_digest_that_is_another_is_refused(tmp_path: Path) -> None:
    name, data = GOOD["archive"]
    error = refused(tmp_path, name, data, expected_sha256="0" * 64)
    assert error.code is Code.DIGEST_MISMATCH
    digest = hashlib.sha256(data).hexdigest().upper()
    assert inspected(tmp_path, name, data, expected_sha256=digest).files


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def facts(*_: object) -> ArtefactFacts:
        with (tmp_path / "upload").open("r+b") as upload:
            upload.seek(0)
            upload.write(b"X")
        os.utime(tmp_path / "upload", ns=(0, 0))
        return ArtefactFacts(ArtefactType.ARCHIVE, "a", "1")

    monkeypatch.setattr(intake, "FACTS", {ArtefactType.ARCHIVE: facts})
    with pytest.raises(BadArtefact) as caught:
        inspected(tmp_path, *GOOD["archive"])
    assert caught.value.code is Code.CHANGED_WHILE_READ
    assert tree(tmp_path / "into") == {}


def test_an_artefact_that_needs_all_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def facts(*_: object) -> ArtefactFacts:
        raise MemoryError

    monkeypatch.setattr(intake, "FACTS", {ArtefactType.ARCHIVE: facts})
    assert refused(tmp_path, *GOOD["archive"]).code is Code.MEMORY_EXCEEDED


def test_a_folder_that_is_not_empty_is_left_as_it_is(tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    (into / "mine").write_text("x")
    (tmp_path / "upload").write_bytes(GOOD["archive"][1])
    with pytest.raises(ValueError, match="not empty"):
        inspect(tmp_path / "upload", "a.zip", into)
    assert tree(into) == {"mine": b"x"}


def test_a_folder_that_is_a_link_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "into").symlink_to("real")
    (tmp_path / "upload").write_bytes(GOOD["archive"][1])
    with pytest.raises(OSError, match="into"):
        inspect(tmp_path / "upload", "a.zip", tmp_path / "into")
    assert tree(tmp_path / "real") == {}


def test_an_artefact_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, *GOOD["archive"], limits=Limits(artefact_bytes=9)).code is Code.FILE_TOO_LARGE


def with_nested(folder: Path, data: bytes, limits: Limits | None = None) -> Intake:
    (folder / "nested").mkdir()
    return inspected(folder, "outer-1.0.zip", data, limits=limits or Limits(), nested_into=folder / "nested")


def test_nested_archives_are_noted_and_left_closed(tmp_path: Path) -> None:
    files = {"lib/inner.zip": made_zip({"a": b"x"}), "inner.tar": made_tar({"b": b"y"}), "plain": b"z"}
    data = made_zip(files)
    found = inspected(tmp_path, "outer-1.0.zip", data)
    assert [(one.path, one.format, one.depth, one.folder) for one in found.nested] == [
        ("inner.tar", "tar", 1, ""),
        ("lib/inner.zip", "zip", 1, ""),
    ]
    assert all(one.reason for one in found.nested)


def test_nested_archives_are_entered_as_deep_as_allowed(tmp_path: Path) -> None:
    third = made_zip({"deepest": b"x"})
    data = made_zip({"1.zip": made_zip({"2.zip": made_zip({"3.zip": third})})})
    found = with_nested(tmp_path, data)
    assert [(one.path, one.depth, one.folder, bool(one.reason)) for one in found.nested] == [
        ("1.zip", 1, "000001", False),
        ("000001/2.zip", 2, "000002", False),
        ("000002/3.zip", 3, "", True),
    ]
    assert (tmp_path / "nested/000002/3.zip").read_bytes() == third


def test_a_broken_nested_archive_is_noted_with_its_reason(tmp_path: Path) -> None:
    broken = made_zip({"a": b"x", "b": b"y"})[:-1]
    found = with_nested(tmp_path, made_zip({"test/broken.zip": broken}))
    assert found.nested[0].reason.startswith("TRUNCATED")
    assert tree(tmp_path / "nested") == {}


def test_a_nested_bomb_refuses_the_whole_artefact(tmp_path: Path) -> None:
    data = made_zip({f"{number}.zip": SMALL_BOMB for number in range(3)})
    with pytest.raises(BadArtefact) as caught:
        with_nested(tmp_path, data, Limits(ratio_from=1 << 20))
    assert caught.value.code is Code.RATIO_EXCEEDED
    assert tree(tmp_path / "nested") == {} == tree(tmp_path / "into")


OTHERS = {"deb": deb(), "cab": b"MSCF\0\0\0\0" + bytes(9), "zst": b"\x28\xb5\x2f\xfd" + bytes(9)}


@pytest.mark.parametrize("inner", OTHERS.values(), ids=OTHERS.keys())
def test_a_nested_archive_of_another_format_is_noted(tmp_path: Path, inner: bytes) -> None:
    assert with_nested(tmp_path, made_zip({"inner": inner})).nested[0].reason


def test_only_our_own_files_stand_where_others_may_write(tmp_path: Path) -> None:
    inspected(tmp_path, *GOOD["archive"])
    modes = [path.stat().st_mode & 0o7777 for path in (tmp_path / "into").rglob("*")]
    assert set(modes) <= {0o755, 0o644}


def test_descriptors_are_closed(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("counts descriptors in /proc")
    before = len(os.listdir("/proc/self/fd"))
    for number, (name, data) in enumerate(GOOD.values()):
        (tmp_path / str(number)).mkdir()
        inspected(tmp_path / str(number), name, data)
        (tmp_path / f"bad{number}").mkdir()
        refused(tmp_path / f"bad{number}", name, data[:40])
    assert len(os.listdir("/proc/self/fd")) == before
