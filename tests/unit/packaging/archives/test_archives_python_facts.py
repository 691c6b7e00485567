"""Wheels and sdists: what they say of themselves, and RECORD held against the files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from controlplane.packaging.archives.errors import Code
from controlplane.packaging.archives.facts.pypi import same_name, same_version
from controlplane.packaging.archives.facts.wheel import platform_of
from controlplane.packaging.archives.limits import Limits
from controlplane.packaging.records import ArtefactType
from tests.unit.packaging.archives.good import (
    INFO,
    METADATA,
    WHEEL,
    WHEEL_NAME,
    listed,
    made_tar,
    made_zip,
    sdist,
    wheel,
    wheel_files,
)
from tests.unit.packaging.archives.raw import Packed, zipped
from tests.unit.packaging.archives.reading import inspected, refused


def test_a_wheel_says_what_it_is(tmp_path: Path) -> None:
    found = inspected(tmp_path, WHEEL_NAME, wheel())
    facts = found.facts
    assert found.type is ArtefactType.WHEEL
    assert (facts.name, facts.version, facts.architecture) == ("demo-pkg", "1.2.3", "any")
    assert facts.details == {"summary": "A demo", "tags": "py3-none-any"}


def test_the_platform_is_the_wheels_own_word(tmp_path: Path) -> None:
    tags = b"Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64\n"
    facts = inspected(tmp_path, WHEEL_NAME, wheel(WHEEL=tags)).facts
    assert (facts.architecture, facts.os_family) == ("x86_64", "linux")
    assert facts.details["tags_of_file_name"] == "py3-none-any"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["py3-none-any"], ("any", "")),
        (["cp311-cp311-musllinux_1_2_aarch64"], ("aarch64", "linux")),
        (["cp311-cp311-linux_armv7l"], ("armv7l", "linux")),
        (["cp311-cp311-manylinux1_i686"], ("i686", "linux")),
        (["cp311-cp311-macosx_11_0_universal2"], ("universal2", "darwin")),
        (["cp311-cp311-win_amd64"], ("win_amd64", "windows")),
        (["cp311-cp311-macosx_10_9_x86_64", "cp311-cp311-macosx_11_0_arm64"], ("arm64,x86_64", "darwin")),
        (["cp311-cp311-plan9"], ("plan9", "")),
    ],
    ids=str,
)
def test_platform_tags_name_architecture_and_system(tags: list[str], expected: tuple[str, str]) -> None:
    assert platform_of(tags) == expected


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_each_good_digest_of_record_is_checked(tmp_path: Path, algorithm: str) -> None:
    files = wheel_files()
    other = listed(files["demo_pkg/__init__.py"], algorithm).encode()
    files[f"{INFO}/RECORD"] = files[f"{INFO}/RECORD"].replace(CODE, other)
    assert inspected(tmp_path, WHEEL_NAME, made_zip(files)).files
    files["demo_pkg/__init__.py"] = b"VALUE = 2\n"
    assert refused_again(tmp_path, files) is Code.DIGEST_MISMATCH


def refused_again(tmp_path: Path, files: dict[str, bytes]) -> Code:
    work = tmp_path / "again"
    work.mkdir()
    return refused(work, WHEEL_NAME, made_zip(files)).code


def without(name: str) -> dict[str, bytes]:
    return {path: data for path, data in wheel_files().items() if not path.endswith(name)}


def changed(old: bytes, new: bytes) -> dict[str, bytes]:
    files = wheel_files()
    files[f"{INFO}/RECORD"] = files[f"{INFO}/RECORD"].replace(old, new)
    return files


CODE = listed(b"VALUE = 1\n").encode()
RECORDS = {
    "a file that changed": ({**wheel_files(), "demo_pkg/__init__.py": b"VALUE = 2\n"}, Code.DIGEST_MISMATCH),
    "another length": (changed(CODE, CODE[:-2] + b"11"), Code.DIGEST_MISMATCH),
    "a file that is not listed": ({**wheel_files(), "evil.pth": b"import os\n"}, Code.MEMBER_NOT_LISTED),
    "a file that is not there": (changed(b"demo_pkg/__init__.py", b"demo_pkg/other.py"), Code.MEMBER_MISSING),
    "a file without a digest": (changed(CODE, b","), Code.BAD_METADATA),
    "a weak digest": (changed(b"sha256=", b"md5="), Code.BAD_METADATA),
    "two columns": (changed(CODE, b"x"), Code.BAD_METADATA),
    "an open quote": (changed(b"demo_pkg/__init__.py", b'"demo_pkg/__init__.py'), Code.BAD_METADATA),
    "two digests": (
        changed(CODE, CODE + b"\ndemo_pkg/__init__.py," + listed(b"x").encode()),
        Code.DUPLICATE_ENTRY,
    ),
    "no list": (without("RECORD"), Code.MEMBER_MISSING),
    "bytes for a list": ({**wheel_files(), f"{INFO}/RECORD": b"\xff"}, Code.BAD_ENCODING),
    "no metadata": (without("METADATA"), Code.MEMBER_MISSING),
    "two folders of metadata": ({**wheel_files(), "x-1.dist-info/WHEEL": WHEEL}, Code.CONFLICTING_METADATA),
}


@pytest.mark.parametrize(("files", "code"), RECORDS.values(), ids=RECORDS.keys())
def test_a_wheel_that_is_not_as_its_record_is_refused(
    tmp_path: Path, files: dict[str, bytes], code: Code
) -> None:
    assert refused(tmp_path, WHEEL_NAME, made_zip(files)).code is code


def test_a_list_of_too_many_files_is_refused(tmp_path: Path) -> None:
    rows = b"".join(b"f%d,,\n" % number for number in range(100))
    files = {**wheel_files(), f"{INFO}/RECORD": rows}
    error = refused(tmp_path, WHEEL_NAME, made_zip(files), limits=Limits(members=50))
    assert error.code is Code.TOO_MANY_MEMBERS


def test_a_link_in_a_wheel_is_refused(tmp_path: Path) -> None:
    entries = [Packed(name.encode(), data) for name, data in wheel_files().items()]
    link = Packed(b"demo_pkg/link", b"__init__.py", unix_mode=0o120777)
    assert refused(tmp_path, WHEEL_NAME, zipped(*entries, link)).code is Code.LINK_NOT_ALLOWED


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"METADATA": b"Version: 1.2.3\n"}, Code.BAD_METADATA),
        ({"METADATA": b"Name: demo-pkg\n"}, Code.BAD_METADATA),
        ({"METADATA": METADATA.replace(b"demo-pkg", b"-bad-")}, Code.BAD_METADATA),
        ({"METADATA": METADATA.replace(b"demo-pkg", b"x" * 5000)}, Code.BAD_METADATA),
        ({"METADATA": METADATA.replace(b"1.2.3", b"one")}, Code.BAD_METADATA),
        ({"METADATA": b"Name: other\n" + METADATA}, Code.DUPLICATE_FIELD),
        ({"METADATA": METADATA.replace(b"1.2.3", b"1.2.4")}, Code.CONFLICTING_METADATA),
        ({"METADATA": METADATA.replace(b"demo-pkg", b"other")}, Code.CONFLICTING_METADATA),
        ({"METADATA": METADATA.replace(b"A demo", b"\xff")}, Code.BAD_ENCODING),
        ({"METADATA": METADATA + b"x" * (9 << 20)}, Code.METADATA_TOO_LARGE),
        ({"WHEEL": b"Tag: py3-none-any\n"}, Code.BAD_METADATA),
        ({"WHEEL": WHEEL.replace(b"1.0", b"2.0", 1)}, Code.BAD_METADATA),
        ({"WHEEL": b"Wheel-Version: 1.0\n"}, Code.BAD_METADATA),
        ({"WHEEL": b"Wheel-Version: 1.0\nTag: py3\n"}, Code.BAD_METADATA),
        (
            {"WHEEL": b"Wheel-Version: 1.0\nTag: " + b"a." * 99 + b"a-b.b.b.b.b.b-c.c.c.c\n"},
            Code.BAD_METADATA,
        ),
    ],
    ids=range(15),
)
def test_bad_metadata_of_a_wheel_is_refused(tmp_path: Path, change: dict[str, bytes], code: Code) -> None:
    assert refused(tmp_path, WHEEL_NAME, wheel(**change)).code is code


@pytest.mark.parametrize(
    "name", ["other-1.2.3-py3-none-any.whl", "demo_pkg-1.2.4-py3-none-any.whl", "demo_pkg.whl"]
)
def test_a_file_name_of_another_wheel_is_refused(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path, name, wheel()).code is Code.NOT_WHAT_IT_SAYS


def test_a_sdist_says_what_it_is(tmp_path: Path) -> None:
    found = inspected(tmp_path, "Demo.Pkg-1.2.3.tar.gz", sdist())
    assert (found.type, found.facts.name, found.facts.version) == (ArtefactType.SDIST, "demo-pkg", "1.2.3")


def test_an_old_sdist_in_a_zip_is_read(tmp_path: Path) -> None:
    files = {"demo-pkg-1.2.3/PKG-INFO": METADATA}
    assert inspected(tmp_path, "demo-pkg-1.2.3.zip", made_zip(files)).type is ArtefactType.SDIST


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (sdist(folder="other-1.2.3"), Code.CONFLICTING_METADATA),
        (sdist(folder="demo_pkg-9"), Code.CONFLICTING_METADATA),
        (sdist(METADATA.replace(b"1.2.3", b"9")), Code.CONFLICTING_METADATA),
        (sdist(b"Name: demo-pkg\n"), Code.BAD_METADATA),
        (gzip.compress(made_tar({"x-1/PKG-INFO": b"Name: x\nVersion: 1\n"})), Code.NOT_WHAT_IT_SAYS),
    ],
    ids=range(5),
)
def test_a_sdist_that_contradicts_itself_is_refused(tmp_path: Path, data: bytes, code: Code) -> None:
    assert refused(tmp_path, "demo_pkg-1.2.3.tar.gz", data).code is code


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1.0", "1"),
        ("1.0a1", "1.0-alpha.1"),
        ("1.0.post1", "1.0-1"),
        ("v1.0RC1", "1.0c1"),
        ("1+a.b", "1+A_B"),
    ],
)
def test_one_version_is_written_in_many_ways(one: str, other: str) -> None:
    assert same_version(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("1.0", "1.1"), ("1.0a1", "1.0b1"), ("1!1", "1"), ("1.dev0", "1"), ("1", "x")]
)
def test_other_versions_are_not_one(one: str, other: str) -> None:
    assert not same_version(one, other)


def test_names_are_compared_as_an_index_does() -> None:
    assert same_name("Demo..Pkg", "demo_pkg")
