"""npm tarballs, jars, plain archives and executables: what they say of themselves."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from pathlib import Path

import pytest

from controlplane.packaging.archives.errors import Code
from controlplane.packaging.archives.facts.archive import Named, named
from controlplane.packaging.records import ArtefactType
from tests.unit.packaging.archives.good import elf, jar, mach_o, made_tar, made_zip, npm, pe, universal
from tests.unit.packaging.archives.raw import Block, tarred
from tests.unit.packaging.archives.reading import inspected, refused

TGZ = "a.tgz"


def test_an_npm_tarball_says_what_it_is(tmp_path: Path) -> None:
    found = inspected(tmp_path, "demo-pkg-1.2.3.tgz", npm())
    facts = found.facts
    assert (found.type, facts.name, facts.version) == (ArtefactType.NPM, "@demo/pkg", "1.2.3")
    assert (facts.architecture, facts.os_family, facts.details) == ("x64", "linux", {"license": "MIT"})


def test_scripts_that_run_at_installation_are_named(tmp_path: Path) -> None:
    scripts = {"postinstall": "x", "test": "y"}
    manifest = {"name": "a", "version": "v1.0.0", "scripts": scripts, "os": ["!win32"]}
    facts = inspected(tmp_path, TGZ, npm(manifest)).facts
    assert (facts.version, facts.os_family, facts.details["install_scripts"]) == ("1.0.0", "", "postinstall")


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", Code.BAD_METADATA),
        (b"[]", Code.BAD_METADATA),
        (b"{", Code.BAD_METADATA),
        (b"null", Code.BAD_METADATA),
        (b'{"version": "1.0.0"}', Code.BAD_METADATA),
        (b'{"name": 3, "version": "1.0.0"}', Code.BAD_METADATA),
        (b'{"name": "../up", "version": "1.0.0"}', Code.BAD_METADATA),
        (b'{"name": "a", "version": "1.0"}', Code.BAD_METADATA),
        (b'{"name": "a", "version": "01.0.0"}', Code.BAD_METADATA),
        (b'{"name": "' + b"a" * 300 + b'", "version": "1.0.0"}', Code.BAD_METADATA),
        (b'{"name": "a", "name": "b", "version": "1.0.0"}', Code.DUPLICATE_FIELD),
        (b'{"name": "a", "version": "1.0.0", "x": NaN}', Code.BAD_METADATA),
        (b'{"name": "a", "version": "1.0.0", "x": 1' + b"0" * 9000 + b"}", Code.BAD_METADATA),
        (b"[" * 200_000, Code.BAD_METADATA),
        (b'{"a":' * 200_000, Code.BAD_METADATA),
        (b"\xff", Code.BAD_ENCODING),
        (b'{"name": "a"}' + b" " * (9 << 20), Code.METADATA_TOO_LARGE),
    ],
    ids=range(17),
)
def test_a_bad_manifest_of_npm_is_refused(tmp_path: Path, raw: bytes, code: Code) -> None:
    assert refused(tmp_path, TGZ, npm(raw=raw)).code is code


def test_many_keys_that_come_twice_cost_little(tmp_path: Path) -> None:
    raw = b'{"a": {' + b",".join(b'"%d": 0' % (number // 2) for number in range(200_000)) + b"}}"
    assert refused(tmp_path, TGZ, npm(raw=raw)).code is Code.BAD_METADATA


def test_a_link_in_an_npm_tarball_is_refused(tmp_path: Path) -> None:
    manifest = json.dumps({"name": "a", "version": "1.0.0"}).encode()
    data = tarred(Block(b"package/package.json", manifest), Block(b"package/l", type=b"2", target=b"x"))
    assert refused(tmp_path, TGZ, gzip.compress(data)).code is Code.LINK_NOT_ALLOWED


def test_a_jar_is_named_as_advisories_name_it(tmp_path: Path) -> None:
    found = inspected(tmp_path, "demo-1.2.3.jar", jar())
    facts = found.facts
    assert (found.type, facts.name, facts.version) == (ArtefactType.JAR, "org.demo:demo", "1.2.3")
    assert facts.details == {"main-class": "a.B", "maven": "org.demo:demo:1.2.3"}


POM = "META-INF/maven/com.other/other/pom.properties"
OTHER = b"groupId=com.other\nartifactId=other\nversion=9\n"


def test_a_jar_of_several_libraries_is_the_one_that_it_is_named_after(tmp_path: Path) -> None:
    facts = inspected(tmp_path, "other-9.jar", jar(**{POM: OTHER})).facts
    assert (facts.name, facts.version) == ("com.other:other", "9")
    assert facts.details["maven"] == "com.other:other:9, org.demo:demo:1.2.3"


def test_a_jar_of_several_libraries_that_is_none_of_them_is_what_its_manifest_says(tmp_path: Path) -> None:
    manifest = b"Manifest-Version: 1.0\nImplementation-Title: big th\n ing\n"
    manifest += b"Implementation-Version: 3\n\nName: x\n"
    facts = inspected(tmp_path, "fat.jar", jar(manifest, **{POM: OTHER})).facts
    assert (facts.name, facts.version) == ("big thing", "3")


def test_a_jar_without_any_name_is_named_by_its_file(tmp_path: Path) -> None:
    data = made_zip({"META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\n", "META-INF/KEY.SF": b""})
    facts = inspected(tmp_path, "log4j-1.2-api-2.17.1.jar", data).facts
    assert (facts.name, facts.version) == ("log4j-1.2-api", "2.17.1")
    assert facts.details["signature_files_not_verified"] == "META-INF/KEY.SF"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (jar(b"no attribute\n"), Code.BAD_METADATA),
        (jar(b"\xff: x\n"), Code.BAD_ENCODING),
        (jar(b"A: b\0\n"), Code.BAD_ENCODING),
        (jar(b"Main-Class: a\nMain-Class: b\nX: y\n"), Code.DUPLICATE_FIELD),
        (jar(**{POM: b"groupId=com.other\nartifactId=else\nversion=9\n"}), Code.CONFLICTING_METADATA),
        (jar(**{POM: b"groupId=com.other\nversion=9\n"}), Code.BAD_METADATA),
        (jar(**{POM: OTHER + b"version=10\n"}), Code.DUPLICATE_FIELD),
        (jar(**{POM: b"groupId=a b\nartifactId=other\nversion=9\n"}), Code.BAD_METADATA),
    ],
    ids=range(8),
)
def test_a_jar_that_contradicts_itself_is_refused(tmp_path: Path, data: bytes, code: Code) -> None:
    assert refused(tmp_path, "demo-1.2.3.jar", data).code is code


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("tool-1.2.3-linux-amd64.tar.gz", Named("tool", "1.2.3", "amd64", "linux")),
        ("tool_1.2.3_Darwin_x86_64.zip", Named("tool", "1.2.3", "x86_64", "darwin")),
        ("tool-v2.0.0-rc1.tgz", Named("tool", "2.0.0-rc1")),
        ("tool-linux-x86-64", Named("tool", "", "x86_64", "linux")),
        ("tool_windows_arm64.exe", Named("tool", "", "arm64", "windows")),
        ("7zip-23.01.zip", Named("7zip", "23.01")),
        ("tool", Named("tool")),
        ("big-tool-4", Named("big-tool", "4")),
        ("linux", Named("linux", "", "", "linux")),
    ],
)
def test_the_name_of_a_file_is_read(file: str, expected: Named) -> None:
    assert named(file) == expected


def test_an_owner_names_what_says_nothing_itself(tmp_path: Path) -> None:
    facts = inspected(tmp_path, "x.zip", made_zip({"a": b"x"}), name="tool", version="5").facts
    assert (facts.type, facts.name, facts.version) == (ArtefactType.ARCHIVE, "tool", "5")


@pytest.mark.parametrize("given", ["x" * 201, "a\nb", " a"])
def test_an_impossible_name_that_is_given_is_refused(tmp_path: Path, given: str) -> None:
    assert refused(tmp_path, "x.zip", made_zip({"a": b"x"}), name=given).code is Code.BAD_METADATA


def test_an_owner_may_not_rename_what_names_itself(tmp_path: Path) -> None:
    assert refused(tmp_path, TGZ, npm(), version="9.9.9").code is Code.CONFLICTING_METADATA


BINARIES = {
    "amd64": (elf(), "x86_64", "linux"),
    "arm": (elf(40, bits=1), "arm", "linux"),
    "big": (elf(22, order=">"), "s390x", "linux"),
    "little power": (elf(21), "ppc64le", "linux"),
    "little mips": (elf(8, bits=1), "mipsel", "linux"),
    "free": (elf(abi=9), "x86_64", "freebsd"),
    "rare": (elf(9999), "elf-9999", "linux"),
    "windows": (pe(), "x86_64", "windows"),
    "windows arm": (pe(0xAA64), "aarch64", "windows"),
    "mac": (mach_o(), "arm64", "darwin"),
    "universal": (universal(mach_o(), mach_o(0x01000007)), "arm64,x86_64", "darwin"),
}


@pytest.mark.parametrize(("data", "architecture", "family"), BINARIES.values(), ids=BINARIES.keys())
def test_an_executable_says_what_it_runs_on(
    tmp_path: Path, data: bytes, architecture: str, family: str
) -> None:
    found = inspected(tmp_path, "tool-1.0", data)
    assert found.type is ArtefactType.BINARY
    assert (found.facts.name, found.facts.version) == ("tool", "1.0")
    assert (found.facts.architecture, found.facts.os_family) == (architecture, family)
    assert (tmp_path / "into/tool-1.0").read_bytes() == data
    assert found.files[0].mode == 0o755


@pytest.mark.skipif(sys.platform != "linux", reason="reads the interpreter as an ELF")
def test_a_real_executable_is_read(tmp_path: Path) -> None:
    found = inspected(tmp_path, "python", Path(sys.executable).resolve().read_bytes())
    assert found.facts.os_family == "linux"
    assert found.facts.details["interpreter"].startswith("/")


def changed(data: bytes, at: int, layout: str, *values: int) -> bytes:
    piece = struct.pack(layout, *values)
    return data[:at] + piece + data[at + len(piece) :]


PE_AT = 64
BAD_BINARIES = {
    "an object file": (elf(kind=1), Code.UNSUPPORTED_FORMAT),
    "a core": (elf(kind=4), Code.UNSUPPORTED_FORMAT),
    "a class that is none": (changed(elf(), 4, "B", 7), Code.MALFORMED),
    "an order that is none": (changed(elf(), 5, "B", 7), Code.MALFORMED),
    "a short ELF": (elf()[:40], Code.TRUNCATED),
    "no segments left": (elf()[:80], Code.TRUNCATED),
    "a segment beyond": (changed(elf(), 64 + 32, "<Q", 1 << 40), Code.TRUNCATED),
    "a far table": (changed(elf(), 32, "<Q", 1 << 63), Code.TRUNCATED),
    "far sections": (changed(elf(), 40, "<Q10xHH", 1 << 62, 64, 9), Code.TRUNCATED),
    "a small entry": (changed(elf(), 54, "<H", 3), Code.MALFORMED),
    "an unlinked PE": (pe(flags=0), Code.UNSUPPORTED_FORMAT),
    "many sections": (changed(pe(), PE_AT + 6, "<H", 200), Code.MALFORMED),
    "a section beyond": (pe()[:-1], Code.TRUNCATED),
    "a PE of no class": (changed(pe(), PE_AT + 24, "<H", 0x999), Code.MALFORMED),
    "far certificates": (changed(pe(), PE_AT + 24 + 112 + 32, "<LL", 1 << 30, 8), Code.TRUNCATED),
    "no optional header": (changed(pe(), PE_AT + 20, "<H", 0), Code.MALFORMED),
    "an object of Mach-O": (mach_o(kind=1), Code.UNSUPPORTED_FORMAT),
    "a segment of Mach-O beyond": (mach_o()[:-1], Code.TRUNCATED),
    "commands beyond": (changed(mach_o(), 20, "<L", 1 << 19), Code.TRUNCATED),
    "endless commands": (changed(mach_o(), 20, "<L", 1 << 30), Code.MALFORMED),
    "too few commands": (changed(mach_o(), 16, "<L", 99), Code.MALFORMED),
    "a command of no size": (changed(mach_o(), 36, "<L", 0), Code.MALFORMED),
    "two slices for one machine": (universal(mach_o(), mach_o()), Code.MALFORMED),
    "slices that overlap": (
        changed(universal(mach_o(), mach_o(7)), 8 + 20 + 8, ">L", 4100),
        Code.OVERLAPPING_ENTRIES,
    ),
    "a slice beyond": (universal(mach_o())[:-1], Code.TRUNCATED),
    "a slice that is none": (universal(b"x" * 256), Code.MALFORMED),
}


@pytest.mark.parametrize(("data", "code"), BAD_BINARIES.values(), ids=BAD_BINARIES.keys())
def test_an_executable_that_contradicts_itself_is_refused(tmp_path: Path, data: bytes, code: Code) -> None:
    assert refused(tmp_path, "tool", data).code is code


def test_a_tarball_of_another_top_folder_is_an_archive(tmp_path: Path) -> None:
    data = gzip.compress(made_tar({"node/package.json": b"{}"}))
    assert inspected(tmp_path, "node-1.0.tgz", data).type is ArtefactType.ARCHIVE
