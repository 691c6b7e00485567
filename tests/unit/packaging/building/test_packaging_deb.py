"""Debs of our own making, and those of others that are repacked; dpkg-deb has the last word where it is."""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fleetwright.manifest import CommandDetect, DpkgDetect, DpkgInstall, Rollback, read_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.packaging.building import ar
from controlplane.packaging.building.control import DebOptions, control_text, debian_name, debian_version
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.repacking import control_members
from controlplane.packaging.building.work import build
from controlplane.packaging.records import ArtefactFacts, ArtefactType
from tests.unit.packaging.building.trees import EPOCH, FILES, OPTIONS, built, request

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb is installed here")
DEB_FACTS = ArtefactFacts(ArtefactType.DEB, "theirs", "2:1.0-1", "amd64", "linux")


def dpkg_deb(*arguments: str) -> str:
    done = subprocess.run(["dpkg-deb", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    return done.stdout


def our_deb(folder: Path, **others: Any) -> Path:
    return Path(built(request(folder, **{"deb": OPTIONS, **others}), "deb")["path"])


def tar_of(entries: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.uname = len(content), 0o4755, 7, "lp"
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def ar_of(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    stream.write(ar.MAGIC)
    for name, content in members:
        stream.write(f"{name:<16}{1234:<12}{1000:<6}{1000:<6}{'100600':<8}{len(content):<10}`\n".encode())
        stream.write(content + b"\n" * (len(content) % 2))
    return stream.getvalue()


CONTROL = (
    b"Package: theirs\nVersion: 2:1.0-1\nArchitecture: amd64\nMaintainer: T <t@example.org>\nDescription: x\n"
)
MEMBERS = (
    ("debian-binary", b"2.0\n"),
    ("control.tar.xz", lzma.compress(tar_of({"./control": CONTROL, "./postinst": b"#!/bin/sh\n"}))),
    ("data.tar.gz", gzip.compress(tar_of({"./usr/bin/theirs": b"#!/bin/sh\n"}), mtime=5)),
)


def repacked(folder: Path, deb: bytes) -> dict[str, Any]:
    wanted = request(folder, {"usr/bin/theirs": (b"#!/bin/sh\n", 0o4755)}, facts=DEB_FACTS, artefact=deb)
    return built(wanted, "deb")


def refused(folder: Path, deb: bytes) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        repacked(folder, deb)
    assert list((folder / "output").iterdir()) == []
    return caught.value


def test_a_deb_is_the_same_twice(tmp_path: Path) -> None:
    assert our_deb(tmp_path / "a").read_bytes() == our_deb(tmp_path / "b").read_bytes()


def test_headers_of_a_deb_hold_no_owner_and_one_time(tmp_path: Path) -> None:
    content = our_deb(tmp_path).read_bytes()
    with our_deb(tmp_path).open("rb") as stream:
        found = ar.members(stream)
    assert [one.name for one in found] == ["debian-binary", "control.tar.gz", "data.tar.gz", "_fleetwright"]
    for one in found:
        assert content[one.offset - 44 : one.offset - 12].split() == [
            str(EPOCH).encode(),
            b"0",
            b"0",
            b"100644",
        ]


@needs_dpkg
def test_dpkg_reads_the_control_file(tmp_path: Path) -> None:
    options = {**OPTIONS, "depends": "libc6 (>= 2.36), bash | dash", "homepage": "https://example.org/"}
    path = str(our_deb(tmp_path, deb=options))
    fields = dpkg_deb("--field", path)
    for line in (
        "Package: tool",
        "Version: 1.2.3",
        "Architecture: amd64",
        "Maintainer: Ops <ops@example.org>",
        "Depends: libc6 (>= 2.36), bash | dash",
        "Description: A tool",
        " that does one thing.",
    ):
        assert line in fields.splitlines()
    assert "new Debian package, version 2.0" in dpkg_deb("--info", path)


@needs_dpkg
def test_dpkg_lists_folders_files_and_the_links_of_commands(tmp_path: Path) -> None:
    listed = [line.split() for line in dpkg_deb("--contents", str(our_deb(tmp_path))).splitlines()]
    assert {line[1] for line in listed} == {"root/root"} or {line[1] for line in listed} == {"0/0"}
    names = [line[5] for line in listed]
    assert names[:3] == ["./", "./opt/", "./opt/tool/"]
    assert "./opt/tool/etc/tool.conf" in names
    assert listed[-1][5:] == ["./usr/bin/tool", "->", "../../opt/tool/bin/tool"]


@needs_dpkg
def test_dpkg_extracts_what_went_in(tmp_path: Path) -> None:
    dpkg_deb("-x", str(our_deb(tmp_path)), str(tmp_path / "root"))
    for path, (content, mode) in FILES.items():
        place = tmp_path / "root/opt/tool" / path.partition("/")[2]
        assert place.read_bytes() == content
        assert place.stat().st_mode & 0o777 == (0o755 if mode & 0o111 else 0o644)
    assert (tmp_path / "root/usr/bin/tool").resolve() == (tmp_path / "root/opt/tool/bin/tool").resolve()


@needs_dpkg
def test_control_has_sums_conffiles_and_no_scripts(tmp_path: Path) -> None:
    path = our_deb(tmp_path, deb={**OPTIONS, "conffiles": ["etc/tool.conf"]})
    dpkg_deb("-e", str(path), str(tmp_path / "control"))
    assert {one.name for one in (tmp_path / "control").iterdir()} == {"control", "md5sums", "conffiles"}
    assert (tmp_path / "control/conffiles").read_text() == "/opt/tool/etc/tool.conf\n"
    dpkg_deb("-x", str(path), str(tmp_path / "root"))
    sums = ["md5sum", "--check", "--strict", "--quiet", str(tmp_path / "control/md5sums")]
    assert subprocess.run(sums, cwd=tmp_path / "root", check=False).returncode == 0


def test_the_manifest_of_a_deb_is_in_it_and_about_it(tmp_path: Path) -> None:
    found = read_manifest(our_deb(tmp_path))
    assert found.type == "deb"
    assert found.install == (DpkgInstall("tool"),)
    assert found.detect == DpkgDetect("tool", "1.2.3")
    assert found.rollback == Rollback("reinstall", 1)
    assert "opt/tool/bin/tool" in {file.path for file in found.files}


def test_a_command_that_detects_is_found_where_the_deb_puts_it(tmp_path: Path) -> None:
    detect = {
        "kind": "command",
        "arguments": ["bin/tool"],
        "exit_status": 0,
        "output": "",
        "timeout_seconds": 5,
    }
    found = read_manifest(our_deb(tmp_path, overrides={"detect": detect})).detect
    assert isinstance(found, CommandDetect)
    assert found.arguments == ("opt/tool/bin/tool",)


@pytest.mark.parametrize(
    ("changes", "member"),
    [
        ({"maintainer": "nobody"}, "Maintainer"),
        ({"maintainer": "A <a@b>\nEssential: yes"}, "Maintainer"),
        ({"description": ""}, "Description"),
        ({"description": "x\x00"}, "Description"),
        ({"section": "Misc Things"}, "Section"),
        ({"priority": "requir ed"}, "Priority"),
        ({"depends": "libc6 (> 2)"}, "Depends"),
        ({"depends": "libc6\nPre-Depends: x"}, "Depends"),
        ({"depends": ","}, "Depends"),
        ({"homepage": "javascript:x"}, "Homepage"),
        ({"conffiles": ["etc/none"]}, "conffiles"),
        ({"conffiles": "etc/tool.conf"}, "conffiles"),
        ({"postinst": "rm -rf /"}, "postinst"),
        ({"section": 7}, "section"),
    ],
)
def test_what_cannot_stand_in_a_control_file_is_named(
    tmp_path: Path, changes: dict[str, Any], member: str
) -> None:
    with pytest.raises(BuildFailed) as caught:
        our_deb(tmp_path, deb={**OPTIONS, **changes})
    assert (caught.value.code, caught.value.member) == ("CONTROL", member)


@pytest.mark.parametrize("missing", sorted(OPTIONS))
def test_options_that_dpkg_wants_must_be_given(tmp_path: Path, missing: str) -> None:
    with pytest.raises(BuildFailed, match="is missing"):
        our_deb(tmp_path, deb={name: value for name, value in OPTIONS.items() if name != missing})


@pytest.mark.parametrize(
    ("name", "debian"), [("@scope/Some_Name", "scope-some-name"), ("org.example:tool", "org.example-tool")]
)
def test_names_are_written_in_the_alphabet_of_debian(name: str, debian: str) -> None:
    assert debian_name(name) == debian


def test_versions_are_written_as_dpkg_orders_them() -> None:
    assert debian_version("1!2.0") == "1:2.0"
    assert debian_version("1.0_2") == "1.0+2"


@pytest.mark.parametrize("version", ["v1", "", "1/2", "1:2:3", "1-", "-1"])
def test_a_version_that_dpkg_would_not_take_is_refused(version: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        debian_version(version)
    assert caught.value.member == "Version"


@given(st.text(max_size=60))
def test_no_description_can_begin_another_field(text: str) -> None:
    options = DebOptions("A <a@example.org>", text)
    try:
        found = control_text("tool", "1", "all", options, 1).decode()
    except BuildFailed:
        return
    rest = found.partition("Description: ")[2].split("\n")[1:]
    assert all(line.startswith(" ") for line in rest[:-1])
    assert rest[-1] == ""


@needs_dpkg
def test_a_deb_of_others_keeps_its_control_and_data_byte_for_byte(tmp_path: Path) -> None:
    package = repacked(tmp_path, ar_of(*MEMBERS))
    with Path(package["path"]).open("rb") as stream:
        found = [(one.name, ar.read_content(stream, one, 10**6)) for one in ar.members(stream)]
    assert tuple(found[:3]) == MEMBERS
    assert package["details"]["maintainer_scripts"] == "postinst"
    assert package["details"]["control"] == "control, postinst"
    assert "Version: 2:1.0-1" in dpkg_deb("--info", package["path"])
    assert "lp/" in dpkg_deb("--contents", package["path"])


def test_a_repacked_deb_is_the_same_twice_and_loses_the_signatures_of_others(tmp_path: Path) -> None:
    signed = repacked(tmp_path / "a", ar_of(*MEMBERS, ("_gpgorigin", b"theirs")))
    again = repacked(tmp_path / "b", ar_of(*MEMBERS, ("_gpgorigin", b"theirs")))
    assert signed["sha256"] == again["sha256"]
    assert signed["details"]["dropped"] == "_gpgorigin"
    assert b"_gpgorigin" not in Path(signed["path"]).read_bytes()


def test_a_control_that_cannot_be_read_here_is_kept_and_said(tmp_path: Path) -> None:
    members = (MEMBERS[0], ("control.tar.zst", b"\x28\xb5\x2f\xfd"), MEMBERS[2])
    details = repacked(tmp_path, ar_of(*members))["details"]
    assert details["maintainer_scripts"] == "not known: this Python cannot read control.tar.zst"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ((), "NOT_A_DEB"),
        (MEMBERS[:2], "NOT_A_DEB"),
        ((MEMBERS[1], MEMBERS[0], MEMBERS[2]), "NOT_A_DEB"),
        ((MEMBERS[0], MEMBERS[2], MEMBERS[1]), "NOT_A_DEB"),
        ((*MEMBERS, ("data.tar.xz", b"x")), "NOT_A_DEB"),
        ((*MEMBERS, MEMBERS[2]), "DUPLICATE_MEMBER"),
        ((*MEMBERS, ("extra", b"")), "NOT_A_DEB"),
        ((("debian-binary", b"3.0\n"), *MEMBERS[1:]), "NOT_A_DEB"),
        ((("debian-binary", b"2" * 65), *MEMBERS[1:]), "TOO_LARGE"),
        ((MEMBERS[0], ("control.tar.xz", MEMBERS[1][1][:-20]), MEMBERS[2]), "TRUNCATED"),
        ((MEMBERS[0], ("control.tar.gz", b"no gzip"), MEMBERS[2]), "BAD_CONTROL"),
        ((MEMBERS[0], ("control.tar", b"no tar" * 200), MEMBERS[2]), "BAD_CONTROL"),
        (tuple((f"_{number}", b"") for number in range(20)), "TOO_MANY_MEMBERS"),
        ((("/etc/passwd", b""),), "MEMBER_NAME"),
    ],
)
def test_what_is_no_deb_is_refused_by_name(
    tmp_path: Path, members: tuple[tuple[str, bytes], ...], code: str
) -> None:
    assert refused(tmp_path, ar_of(*members)).code == code


@pytest.mark.parametrize("packed", ["gz", "xz"])
def test_a_control_that_unpacks_to_too_much_is_refused(packed: str) -> None:
    bomb = b"\0" * (17 * 2**20)
    content = gzip.compress(bomb) if packed == "gz" else lzma.compress(bomb)
    with pytest.raises(BuildFailed, match="unpacks to more"):
        control_members(f"control.tar.{packed}", content)


def test_a_control_of_too_many_entries_is_refused() -> None:
    content = gzip.compress(tar_of({f"./{number}": b"" for number in range(4_097)}))
    with pytest.raises(BuildFailed, match="more than 4096"):
        control_members("control.tar.gz", content)


def test_a_member_that_ends_early_is_refused(tmp_path: Path) -> None:
    deb = ar_of(*MEMBERS)
    assert refused(tmp_path, deb[:-30]).code == "TRUNCATED"
    assert refused(tmp_path, deb + b"x").code == "BAD_HEADER"


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_damaged_deb_never_raises_anything_but_a_failed_build(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    deb = bytearray(ar_of(*MEMBERS))
    for _ in range(data.draw(st.integers(1, 5))):
        deb[data.draw(st.integers(0, len(deb) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(deb[: data.draw(st.integers(0, len(deb)))])
    wanted = request(tmp_path_factory.mktemp("damaged"), {}, facts=DEB_FACTS, artefact=cut)
    with suppress(BuildFailed):
        build(wanted.to_json())


@given(st.binary(max_size=300))
def test_garbage_is_no_control(content: bytes) -> None:
    for name in ("control.tar", "control.tar.gz", "control.tar.xz"):
        with suppress(BuildFailed):
            control_members(name, content)
