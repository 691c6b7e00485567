"""Debs and the ar archives that they are."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from controlplane.packaging.archives.errors import Code
from controlplane.packaging.records import ArtefactType
from tests.unit.packaging.archives.good import CONTROL, deb, made_tar
from tests.unit.packaging.archives.raw import Block, ar, tarred
from tests.unit.packaging.archives.reading import inspected, refused

NAME = "demo.deb"
FIRST = ("debian-binary", b"2.0\n")
PARTS = (("control.tar", made_tar({"./control": CONTROL})), ("data.tar", made_tar({"./usr/a": b"x"})))


@pytest.mark.parametrize("ending", ["xz", "gz", "bz2", ""])
def test_each_compression_is_read(tmp_path: Path, ending: str) -> None:
    found = inspected(tmp_path, "demo_2.0-1_amd64.deb", deb(ending=ending))
    facts = found.facts
    assert found.type is ArtefactType.DEB
    assert (facts.name, facts.version) == ("demo", "1:2.0-1")
    assert (facts.architecture, facts.os_family) == ("amd64", "linux")
    assert facts.details["machine"] == "x86_64"
    assert [entry.path for entry in found.files] == [
        "control/control",
        "data/usr/bin/demo",
        "data/usr/share/doc/demo/copyright",
    ]


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
def test_what_dpkg_builds_is_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_bytes(CONTROL)
    (root / "usr").mkdir()
    (root / "usr/a").write_text("hello")
    (root / "usr/b").symlink_to("/usr/a")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    built = tmp_path / "built.deb"
    command = ["dpkg-deb", "-Zxz", "--root-owner-group", "--build", str(root), str(built)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    work = tmp_path / "work"
    work.mkdir()
    found = inspected(work, NAME, built.read_bytes())
    assert [(entry.path, entry.link_target) for entry in found.files][1:] == [
        ("data/usr/a", ""),
        ("data/usr/b", "../usr/a"),
    ]


def test_signatures_are_named_and_not_read(tmp_path: Path) -> None:
    data = ar(FIRST, *PARTS, ("_gpgorigin", b"-----BEGIN PGP"))
    assert inspected(tmp_path, NAME, data).facts.details["members_not_read"] == "_gpgorigin"


def test_names_that_only_linux_has_are_read(tmp_path: Path) -> None:
    names = {"./a\\x2db.slice": b"", "./File::Spec.3pm": b"", "./Case": b"", "./case": b""}
    found = inspected(tmp_path, "x.deb", deb(data=names))
    assert {entry.path.removeprefix("data/") for entry in found.files[1:]} == {name[2:] for name in names}


def test_an_absolute_link_stays_below_the_root(tmp_path: Path) -> None:
    data = tarred(Block(b"./usr/lib/a", type=b"2", target=b"/etc/a"))
    found = inspected(tmp_path, NAME, ar(FIRST, PARTS[0], ("data.tar", data)))
    assert found.files[-1].link_target == "../../etc/a"


def test_a_link_above_the_root_is_refused(tmp_path: Path) -> None:
    data = tarred(Block(b"./usr/a", type=b"2", target=b"../../etc/a"))
    error = refused(tmp_path, NAME, ar(FIRST, PARTS[0], ("data.tar", data)))
    assert error.code is Code.LINK_ESCAPES


CONTROL_PART, DATA_PART = PARTS
LIES = {
    "another order": (ar(FIRST, DATA_PART, CONTROL_PART), Code.UNEXPECTED_MEMBER),
    "the version not first": (ar(CONTROL_PART, FIRST, DATA_PART), Code.NOT_WHAT_IT_SAYS),
    "no members": (ar(), Code.NOT_WHAT_IT_SAYS),
    "no data": (ar(FIRST, CONTROL_PART), Code.MEMBER_MISSING),
    "no control": (ar(FIRST), Code.MEMBER_MISSING),
    "two controls": (ar(FIRST, CONTROL_PART, CONTROL_PART), Code.DUPLICATE_ENTRY),
    "control in two compressions": (ar(FIRST, CONTROL_PART, ("control.tar.xz", b"")), Code.UNEXPECTED_MEMBER),
    "more behind": (ar(FIRST, *PARTS, ("more", b"")), Code.UNEXPECTED_MEMBER),
    "another version": (ar(("debian-binary", b"3.0\n"), *PARTS), Code.UNSUPPORTED_FORMAT),
    "a longer version": (ar(("debian-binary", b"2.0\nx"), *PARTS), Code.UNSUPPORTED_FORMAT),
    "zstd": (ar(FIRST, ("control.tar.zst", b"\x28\xb5\x2f\xfd"), DATA_PART), Code.UNSUPPORTED_COMPRESSION),
    "an unknown ending": (ar(FIRST, ("control.tar.br", b""), DATA_PART), Code.UNSUPPORTED_COMPRESSION),
    "gz that is xz": (
        ar(FIRST, ("control.tar.gz", lzma.compress(CONTROL_PART[1])), DATA_PART),
        Code.NOT_WHAT_IT_SAYS,
    ),
    "no control file": (ar(FIRST, ("control.tar", made_tar({"./x": b""})), DATA_PART), Code.MEMBER_MISSING),
    "names that are none": (ar(FIRST, *PARTS, ("a b", b"")), Code.NAME_NOT_PORTABLE),
    "bytes behind": (ar(FIRST, *PARTS) + b"evil", Code.TRUNCATED),
    "a device": (ar(FIRST, CONTROL_PART, ("data.tar", tarred(Block(b"n", type=b"3")))), Code.DEVICE_NODE),
    "a way out": (ar(FIRST, CONTROL_PART, ("data.tar", tarred(Block(b"../n")))), Code.PATH_ESCAPES),
    "no tar": (ar(FIRST, CONTROL_PART, ("data.tar", b"x" * 1024)), Code.MALFORMED),
    "a size in letters": (ar(FIRST).replace(b"4         `", b"4x        `"), Code.MALFORMED),
    "a header without its end": (ar(FIRST).replace(b"`\n", b"xx"), Code.MALFORMED),
    "a size too large": (ar(FIRST).replace(b"4         `", b"9999999999`"), Code.TRUNCATED),
    "another padding": (ar(FIRST, ("_odd", b"x"))[:-1] + b"x", Code.MALFORMED),
}


@pytest.mark.parametrize(("data", "code"), LIES.values(), ids=LIES.keys())
def test_a_deb_that_is_not_as_it_must_be_is_refused(tmp_path: Path, data: bytes, code: Code) -> None:
    assert refused(tmp_path, NAME, data).code is code


@pytest.mark.parametrize(
    ("control", "code"),
    [
        (b"Version: 1\nArchitecture: all\n", Code.BAD_METADATA),
        (b"Package: Big\nVersion: 1\nArchitecture: all\n", Code.BAD_METADATA),
        (b"Package: ok\nVersion: x1\nArchitecture: all\n", Code.BAD_METADATA),
        (b"Package: ok\nVersion: 1\nArchitecture: any\n", Code.BAD_METADATA),
        (b"Package: ok\nVersion: 1\nArchitecture: a b\n", Code.BAD_METADATA),
        (b"Package: ok\nVersion: 1\nArchitecture: all\nPackage: other\n", Code.DUPLICATE_FIELD),
        (b"Package: ok\nVersion: 1\nArchitecture: all\n\nPackage: other\n", Code.BAD_METADATA),
        (b"Package: ok\nno field\n", Code.BAD_METADATA),
        (b" begins: late\n", Code.BAD_METADATA),
        (b"Package: \xff\n", Code.BAD_ENCODING),
        (b"Package: ok\0\n", Code.BAD_ENCODING),
        (b"", Code.BAD_METADATA),
        (b"X-%d: 1\n" * 1 + b"".join(b"X%d: 1\n" % n for n in range(10_001)), Code.METADATA_TOO_LARGE),
    ],
    ids=range(13),
)
def test_a_bad_control_file_is_refused(tmp_path: Path, control: bytes, code: Code) -> None:
    assert refused(tmp_path, NAME, deb(control)).code is code


@pytest.mark.parametrize("name", ["other_2.0-1_amd64.deb", "demo_3_amd64.deb", "demo_2.0-1_arm64.deb"])
def test_a_file_name_of_another_package_is_refused(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path, name, deb()).code is Code.NOT_WHAT_IT_SAYS


@pytest.mark.parametrize(
    ("architecture", "family"), [(b"all", "linux"), (b"hurd-i386", "hurd"), (b"kfreebsd-amd64", "freebsd")]
)
def test_the_kernel_is_read_from_the_architecture(tmp_path: Path, architecture: bytes, family: str) -> None:
    control = CONTROL.replace(b"amd64", architecture)
    assert inspected(tmp_path, NAME, deb(control)).facts.os_family == family
