"""Debian packages, in a .deb and installed in a tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.packaging.records import ArtefactType, Requirement, Scope
from controlplane.packaging.sbom.coverage import coverage_of
from controlplane.packaging.sbom.errors import BadMetadata
from tests.unit.packaging.sbom.trees import by_purl, inventory

OWN = "pkg:deb/debian/demo@1:1.0-1?arch=amd64"


def control(*lines: str, version: str = "1:1.0-1") -> str:
    return "\n".join(["Package: demo", f"Version: {version}", "Architecture: amd64", *lines, ""])


def deb(*lines: str, version: str = "1:1.0-1") -> dict[str, str | bytes]:
    return {"control/control": control(*lines, version=version), "data/usr/bin/demo": "#!/bin/sh\n"}


def test_a_package_owns_all_of_its_files_and_names_its_source(tmp_path: Path) -> None:
    taken = inventory(tmp_path, ArtefactType.DEB, deb("Source: demo-src (1.0-1)"))
    own = by_purl(taken)[OWN]
    assert (own.ecosystem, own.source_name, own.source_version) == ("Debian", "demo-src", "1.0-1")
    assert coverage_of(taken).share == 1.0


def test_a_package_without_a_source_field_is_its_own_source(tmp_path: Path) -> None:
    own = by_purl(inventory(tmp_path, ArtefactType.DEB, deb()))[OWN]
    assert (own.source_name, own.source_version) == ("demo", "1:1.0-1")


@pytest.mark.parametrize(
    ("version", "ecosystem"),
    [
        ("1.0-1", "Debian"),
        ("1.0-1+deb12u3", "Debian:12"),
        ("1.0-2~deb11u1", "Debian:11"),
        ("1.0-2~bpo12+1", "Debian:12"),
        ("1.0-1ubuntu2.1", "Ubuntu"),
    ],
)
def test_the_release_is_named_only_where_the_version_says_it(
    tmp_path: Path, version: str, ecosystem: str
) -> None:
    (own,) = inventory(tmp_path, ArtefactType.DEB, deb(version=version)).components
    assert own.ecosystem == ecosystem


def test_relations_are_requirements_and_exact_ones_components(tmp_path: Path) -> None:
    lines = (
        "Depends: libc6 (>= 2.36), libdemo (= 1:1.0-1),",
        " python3:any, a | b (= 2)",
        "Recommends: extra (= 3)",
    )
    found = by_purl(inventory(tmp_path, ArtefactType.DEB, deb(*lines)))
    assert {purl: one.scope for purl, one in found.items() if purl != OWN} == {
        "pkg:deb/debian/extra@3": Scope.OPTIONAL,
        "pkg:deb/debian/libdemo@1:1.0-1": Scope.REQUIRED,
    }
    assert found[OWN].requires == [
        Requirement("a", "a | b (= 2)", Scope.REQUIRED),
        Requirement("extra", "= 3", Scope.OPTIONAL, "pkg:deb/debian/extra@3"),
        Requirement("libc6", ">= 2.36", Scope.REQUIRED),
        Requirement("libdemo", "= 1:1.0-1", Scope.REQUIRED, "pkg:deb/debian/libdemo@1:1.0-1"),
        Requirement("python3", "", Scope.REQUIRED),
    ]


def test_what_was_built_in_is_contained(tmp_path: Path) -> None:
    found = by_purl(inventory(tmp_path, ArtefactType.DEB, deb("Built-Using: golang-1.19 (= 1.19.8-2)")))
    built_in = found["pkg:deb/debian/golang-1.19@1.19.8-2?arch=source"]
    assert (built_in.scope, built_in.source_name) == (Scope.CONTAINED, "golang-1.19")


def test_licences_come_from_a_copyright_file_that_a_machine_can_read(tmp_path: Path) -> None:
    text = (
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
        "Files: *\nCopyright: x\nLicense: Expat\n\nFiles: debian/*\nLicense: GPL-2+\n text\n"
    )
    files = {**deb(), "data/usr/share/doc/demo/copyright": text}
    assert by_purl(inventory(tmp_path, ArtefactType.DEB, files))[OWN].licences == ["Expat", "GPL-2+"]


def test_a_copyright_file_of_free_text_is_no_error(tmp_path: Path) -> None:
    files = {**deb(), "data/usr/share/doc/demo/copyright": "This is free software.\nReally.\n"}
    taken = inventory(tmp_path, ArtefactType.DEB, files)
    assert (by_purl(taken)[OWN].licences, taken.problems) == ([], [])


def test_installed_packages_of_an_image_have_its_release_and_their_files(tmp_path: Path) -> None:
    status = (
        control("Status: install ok installed", "Source: demo-src")
        + "\n"
        + "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n"
    )
    files = {
        "root/etc/os-release": 'NAME="Debian"\nID=debian\nVERSION_ID="12"\n',
        "root/var/lib/dpkg/status": status,
        "root/var/lib/dpkg/info/demo.list": "/.\n/usr\n/usr/bin\n/usr/bin/demo\n/etc/absent\n",
        "root/usr/bin/demo": "x",
    }
    (own,) = inventory(tmp_path, ArtefactType.ARCHIVE, files).components
    assert own.purl == "pkg:deb/debian/demo@1:1.0-1?arch=amd64&distro=debian-12"
    assert (own.ecosystem, own.source_name) == ("Debian:12", "demo-src")
    assert own.files == ["root/usr/bin/demo", "root/var/lib/dpkg/info/demo.list"]


def test_an_image_without_dpkg_has_one_file_for_each_package(tmp_path: Path) -> None:
    files = {
        "etc/os-release": "ID=debian\nVERSION_ID=13\n",
        "var/lib/dpkg/status.d/demo": control(),
        "var/lib/dpkg/status.d/demo.md5sums": "0  usr/bin/demo\n",
    }
    (own,) = inventory(tmp_path, ArtefactType.ARCHIVE, files).components
    assert own.ecosystem == "Debian:13"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "it is empty"),
        ("Version: 1\n", "Package is missing"),
        ("Package: demo\n", "Version is missing"),
        ("Package: demo\nVersion: 1\nDepends: (broken\n", "is not 'name"),
        ("Package: demo\nVersion: 1\nBuilt-Using: x (>= 1)\n", "is not 'source"),
        ("Package: de\x1bmo\nVersion: 1\n", "cannot be printed"),
        ("no header\n", "is no header"),
    ],
)
def test_a_bad_control_file_is_refused_with_its_reason(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(BadMetadata, match=complaint) as refused:
        inventory(tmp_path, ArtefactType.DEB, {"control/control": text})
    assert refused.value.member == "control/control"


@pytest.mark.skipif(not Path("/var/lib/dpkg/status").exists(), reason="this machine has no dpkg")
def test_the_packages_of_this_machine_are_read_without_a_problem(tmp_path: Path) -> None:
    files = {
        "var/lib/dpkg/status": Path("/var/lib/dpkg/status").read_bytes(),
        "etc/os-release": Path("/etc/os-release").read_bytes(),
    }
    taken = inventory(tmp_path, ArtefactType.ARCHIVE, dict(files))
    assert taken.problems == []
    assert len(taken.components) > 50
    assert all(component.ecosystem.partition(":")[2] for component in taken.components)
