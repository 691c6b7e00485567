"""The type is the content's, and the name must not say another one."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from controlplane.packaging.archives.errors import BadArtefact, Code
from controlplane.packaging.archives.kinds import ending_of, kind_of
from controlplane.packaging.records import ArtefactType
from tests.unit.packaging.archives.good import (
    GOOD,
    elf,
    jar,
    mach_o,
    made_tar,
    made_zip,
    pe,
    universal,
    wheel_files,
)
from tests.unit.packaging.archives.raw import Block, Packed, ar, as_zip64, tarred, zipped
from tests.unit.packaging.archives.reading import refused


@pytest.mark.parametrize("kind", GOOD)
def test_each_type_is_known_by_its_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "upload"
    path.write_bytes(GOOD[kind][1])
    assert kind_of(path, GOOD[kind][0]) is ArtefactType(kind)
    assert kind_of(path, "nameless") in {ArtefactType(kind)}


WRONG = [
    ("a.whl", GOOD["archive"][1]),
    ("a.whl", GOOD["jar"][1]),
    ("a.whl", GOOD["sdist"][1]),
    ("a.jar", GOOD["archive"][1]),
    ("a.jar", GOOD["deb"][1]),
    ("a.deb", GOOD["archive"][1]),
    ("a.deb", GOOD["binary"][1]),
    ("a.zip", GOOD["wheel"][1]),
    ("a.zip", GOOD["npm"][1]),
    ("a.tgz", GOOD["archive"][1]),
    ("a.tar.xz", GOOD["npm"][1]),
    ("a.tar", GOOD["npm"][1]),
    ("a.exe", elf()),
    ("a.so", pe()),
    ("a.so.1.2", pe()),
    ("a.dylib", elf()),
    ("a.pdf", elf()),
    ("a.txt", GOOD["archive"][1]),
    ("a.amd64", GOOD["archive"][1]),
    ("a.gz", GOOD["npm"][1]),
    ("a.rpm", GOOD["deb"][1]),
]


@pytest.mark.parametrize(("name", "data"), WRONG, ids=range(len(WRONG)))
def test_an_ending_that_claims_another_type_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    assert refused(tmp_path, name, data).code is Code.NOT_WHAT_IT_SAYS


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.tar.gz", ".tar.gz"),
        ("A.TGZ", ".tgz"),
        ("a-1.2.3", ""),
        ("a-1.2.3.zip", ".zip"),
        ("lib.so.1.2", ".so"),
        ("plain", ""),
        (".hidden", ""),
        ("a.7z", ".7z"),
        ("tool-1.0-linux-x86_64", ""),
    ],
)
def test_endings_are_read_as_people_mean_them(name: str, ending: str) -> None:
    assert ending_of(name) == ending


@pytest.mark.parametrize(
    "name",
    ["../a.zip", "/a.zip", "a/b.zip", "a\\b.zip", "a\0.zip", "a.zip ", "", ".", "\ud800"],
    ids=range(9),
)
def test_a_declared_name_that_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path, name, GOOD["archive"][1])
    assert error.code in {Code.NAME_NOT_PORTABLE, Code.PATH_ESCAPES, Code.NUL_IN_NAME}


def tar_that_begins(head: bytes) -> bytes:
    return tarred(Block(head, b"x"))


ZIP = zipped(Packed())
TAR = made_tar({"a": b"x"})
POLYGLOTS = {
    "a zip behind a program": elf() + ZIP,
    "a zip behind a program, and a byte": elf() + ZIP + b"x",
    "a zip64 behind a program": elf() + as_zip64(ZIP),
    "a zip behind a program of Windows": pe() + ZIP,
    "a zip behind a Mach-O": mach_o() + ZIP,
    "a zip behind a tar": TAR + ZIP,
    "a zip behind gzip": gzip.compress(TAR) + ZIP,
    "a zip behind an ar": ar(("debian-binary", b"2.0\n")) + ZIP,
    "a tar that begins as a program": tar_that_begins(b"\x7fELF"),
    "a tar that begins as a zip": tar_that_begins(b"PK\3\4"),
    "a tar that begins as gzip": tar_that_begins(b"\x1f\x8b\x08"),
    "a wheel that is a jar": made_zip({**wheel_files(), "META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\n"}),
}


@pytest.mark.parametrize("data", POLYGLOTS.values(), ids=POLYGLOTS.keys())
def test_a_file_of_two_formats_is_refused(tmp_path: Path, data: bytes) -> None:
    assert refused(tmp_path, "tool", data).code is Code.POLYGLOT


UNKNOWN = {
    "a text": (b"hello, world\n", Code.UNKNOWN_FORMAT),
    "zeros": (bytes(5000), Code.UNKNOWN_FORMAT),
    "a script": (b"#!/bin/sh\n", Code.UNKNOWN_FORMAT),
    "a cab": (b"MSCF" + bytes(100), Code.UNSUPPORTED_FORMAT),
    "a cpio": (b"070701" + b"0" * 104, Code.UNSUPPORTED_FORMAT),
    "an rpm": (b"\xed\xab\xee\xdb" + bytes(100), Code.UNSUPPORTED_FORMAT),
    "an msi": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), Code.UNSUPPORTED_FORMAT),
    "a class": (b"\xca\xfe\xba\xbe\0\0\0\x34", Code.UNSUPPORTED_FORMAT),
    "a program of DOS": (b"MZ" + bytes(100), Code.UNSUPPORTED_FORMAT),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(100), Code.UNSUPPORTED_COMPRESSION),
    "lzma": (b"\x5d\0\0" + bytes(100), Code.UNSUPPORTED_COMPRESSION),
    "a compressed text": (gzip.compress(b"hello" * 200), Code.UNSUPPORTED_FORMAT),
    "a little compressed text": (gzip.compress(b"hello"), Code.UNSUPPORTED_FORMAT),
    "nothing": (b"", Code.EMPTY),
}


@pytest.mark.parametrize(("data", "code"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_is_not_packaged_is_refused_by_its_name(tmp_path: Path, data: bytes, code: Code) -> None:
    assert refused(tmp_path, "tool", data).code is code


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_only_a_regular_file_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "upload"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/etc/hostname")
    with pytest.raises((BadArtefact, OSError)):
        kind_of(path, "tool")


def test_a_jar_may_hold_names_that_differ_in_their_letters_alone(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(jar(**{"META-INF/LICENSE": b"", "META-INF/license/a": b""}))
    assert kind_of(path, "a.jar") is ArtefactType.JAR


def test_an_archive_of_several_sdists_is_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(made_tar({"a-1/PKG-INFO": b"", "b-2/PKG-INFO": b""}))
    assert kind_of(path, "a.tar") is ArtefactType.ARCHIVE


def test_a_universal_program_is_told_from_a_class_of_java(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(universal(mach_o(), mach_o(0x01000007)))
    assert kind_of(path, "tool") is ArtefactType.BINARY
