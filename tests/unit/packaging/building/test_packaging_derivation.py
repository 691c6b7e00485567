"""Which manifest follows from which artefact, and what a user may put in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleetwright.manifest import (
    CopyTree,
    DpkgDetect,
    DpkgInstall,
    DpkgRemove,
    FileDetect,
    Link,
    Manifest,
    PackagedFile,
    Platform,
    RemoveTree,
    Rollback,
    Unlink,
    parse,
)

from controlplane.packaging.building.derivation import derive
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.platforms import architecture_of, debian_architecture, platforms_of
from controlplane.packaging.records import ArtefactFacts, ArtefactType
from tests.unit.packaging.building.trees import ARCHIVE_FACTS, built, request, sha256

SOURCE = "5" * 64


def derived(kind: ArtefactType, paths: list[str], overrides: dict[str, Any] | None = None) -> Manifest:
    files = [
        PackagedFile(path, sha256(path.encode()), len(path), 0o755 if "bin/" in path else 0o644)
        for path in sorted(paths)
    ]
    return derive(ArtefactFacts(kind, "tool", "1.0"), SOURCE, files, overrides or {})


def refused(overrides: dict[str, Any], facts: ArtefactFacts = ARCHIVE_FACTS) -> BuildFailed:
    files = [PackagedFile("bin/tool", "1" * 64, 4, 0o755)]
    with pytest.raises(BuildFailed) as caught:
        derive(facts, SOURCE, files, overrides)
    return caught.value


def test_a_wheel_is_copied_as_it_is_and_found_by_its_metadata() -> None:
    found = derived(ArtefactType.WHEEL, ["tool/__init__.py", "tool-1.0.dist-info/METADATA"])
    assert found.install == (CopyTree(".", "."),)
    assert isinstance(found.detect, FileDetect)
    assert found.detect.path == "tool-1.0.dist-info/METADATA"


@pytest.mark.parametrize(
    ("kind", "paths", "detected"),
    [
        (ArtefactType.SDIST, ["tool-1.0/PKG-INFO", "tool-1.0/setup.py"], "PKG-INFO"),
        (ArtefactType.NPM, ["package/index.js", "package/package.json"], "package.json"),
    ],
)
def test_the_one_folder_that_holds_all_is_left_out(
    kind: ArtefactType, paths: list[str], detected: str
) -> None:
    found = derived(kind, paths)
    assert found.install == (CopyTree(paths[0].split("/")[0], "."),)
    assert isinstance(found.detect, FileDetect)
    assert found.detect.path == detected


def test_commands_of_an_archive_are_linked_and_unlinked() -> None:
    found = derived(ArtefactType.ARCHIVE, ["tool-1.0/bin/tool", "tool-1.0/bin/other", "tool-1.0/readme"])
    assert found.install[1:] == (Link("other", "bin/other"), Link("tool", "bin/tool"))
    assert found.uninstall == (Unlink("other"), Unlink("tool"), RemoveTree("."))
    assert found.rollback == Rollback("switch_back", 1)


def test_a_deb_is_the_affair_of_dpkg() -> None:
    found = derived(ArtefactType.DEB, ["usr/bin/tool"])
    assert found.install == (DpkgInstall("tool"),)
    assert found.uninstall == (DpkgRemove("tool"),)
    assert found.detect == DpkgDetect("tool", "1.0")
    assert found.rollback == Rollback("reinstall", 1)
    assert found.platforms == (Platform("linux", "any"),)


def test_a_deb_without_files_has_a_manifest_too() -> None:
    assert derived(ArtefactType.DEB, []).files == ()


@pytest.mark.parametrize(
    ("kind", "name", "path", "links"),
    [
        (ArtefactType.JAR, "org.example:tool", "tool-1.0.jar", []),
        (ArtefactType.BINARY, "tool", "bin/tool", ["tool"]),
    ],
)
def test_a_jar_and_a_binary_are_one_file(
    tmp_path: Path, kind: ArtefactType, name: str, path: str, links: list[str]
) -> None:
    wanted = request(tmp_path, {}, facts=ArtefactFacts(kind, name, "1.0"), artefact=b"\x7fELF")
    found = parse(built(wanted, "archive")["manifest"].encode())
    assert [file.path for file in found.files] == [path]
    assert found.files[0].sha256 == sha256(b"\x7fELF") == found.source_sha256
    assert [step.name for step in found.install if isinstance(step, Link)] == links


def test_disk_is_counted_in_whole_blocks() -> None:
    assert derived(ArtefactType.ARCHIVE, ["a", "b"]).disk_bytes == 4 * 4096


def test_a_users_fields_stand_in_place_of_the_derived_ones() -> None:
    given = {
        "platforms": [{"os": "linux", "architecture": "arm64"}],
        "install": [{"step": "copy_tree", "source": ".", "destination": "opt"}],
        "detect": {
            "kind": "command",
            "arguments": ["opt/bin/tool", "--version"],
            "exit_status": 0,
            "output": "tool *",
            "timeout_seconds": 5,
        },
        "disk_bytes": 10**6,
    }
    found = derived(ArtefactType.ARCHIVE, ["bin/tool"], given)
    assert found.platforms == (Platform("linux", "arm64"),)
    assert found.install == (CopyTree(".", "opt"),)
    assert found.uninstall == (RemoveTree("."),)
    assert found.disk_bytes == 10**6


def test_what_is_detected_follows_the_steps_that_a_user_gives() -> None:
    steps = [{"step": "copy_tree", "source": ".", "destination": "opt"}]
    found = derived(ArtefactType.ARCHIVE, ["bin/tool"], {"install": steps})
    assert isinstance(found.detect, FileDetect)
    assert found.detect.path == "opt/bin/tool"


@pytest.mark.parametrize(
    ("overrides", "code", "member"),
    [
        ({"files": []}, "MANIFEST", "files"),
        ({"type": "deb"}, "MANIFEST", "type"),
        ({"source_sha256": SOURCE}, "MANIFEST", "source_sha256"),
        ({"speed": 1}, "MANIFEST", "speed"),
        ({"schema": "other"}, "MANIFEST", "schema"),
        ({"disk_bytes": "much"}, "MANIFEST", "disk_bytes"),
        ({"detect": {"kind": "file", "path": "/etc/passwd", "sha256": "1" * 64}}, "MANIFEST", "detect.path"),
        ({"install": [{"step": "run", "command": "sh"}]}, "MANIFEST", "install[0].step"),
        ({"name": "other"}, "CONTRADICTS", "name"),
        ({"version": "9"}, "CONTRADICTS", "version"),
        ({"name": 7}, "MANIFEST", "name"),
    ],
)
def test_what_a_user_may_not_give_is_named(overrides: dict[str, Any], code: str, member: str) -> None:
    found = refused(overrides)
    assert (found.code, found.member) == (code, member)


@pytest.mark.parametrize("missing", ["name", "version"])
def test_what_nobody_says_must_be_given(missing: str) -> None:
    facts = replace(ARCHIVE_FACTS, name="") if missing == "name" else replace(ARCHIVE_FACTS, version="")
    found = refused({}, facts)
    assert (found.code, found.member) == ("NAME_MISSING", missing)


def test_a_name_is_given_where_the_artefact_has_none() -> None:
    files = [PackagedFile("bin/tool", "1" * 64, 4, 0o755)]
    found = derive(replace(ARCHIVE_FACTS, name=""), SOURCE, files, {"name": "mine"})
    assert found.name == "mine"


def test_a_tree_of_nothing_but_links_cannot_be_detected() -> None:
    files = [PackagedFile("a", "1" * 64, 0, 0o755, "b")]
    with pytest.raises(BuildFailed, match="no file is installed"):
        derive(ARCHIVE_FACTS, SOURCE, files, {})


@pytest.mark.parametrize(
    ("own", "name"),
    [
        ("x86_64", "amd64"),
        ("manylinux_2_17_x86_64", "amd64"),
        ("macosx_11_0_arm64", "arm64"),
        ("win_amd64", "amd64"),
        ("i686", "i386"),
        ("all", "any"),
        ("", "any"),
        ("riscv64", "riscv64"),
    ],
)
def test_architectures_get_the_names_of_debian(own: str, name: str) -> None:
    assert architecture_of(own) == name


def test_a_platform_that_is_no_word_is_refused() -> None:
    with pytest.raises(BuildFailed, match="is no name of a platform"):
        platforms_of(replace(ARCHIVE_FACTS, architecture="x; rm -rf /"))


@pytest.mark.parametrize(
    "platforms", [(Platform("windows", "amd64"),), (Platform("linux", "amd64"), Platform("linux", "arm64"))]
)
def test_a_deb_is_for_linux_and_one_architecture(platforms: tuple[Platform, ...]) -> None:
    with pytest.raises(BuildFailed, match=r"a \.deb"):
        debian_architecture(platforms)


def test_the_one_folder_is_kept_where_it_says_what_its_files_are() -> None:
    found = derived(ArtefactType.ARCHIVE, ["bin/tool"])
    assert found.install == (CopyTree(".", "."), Link("tool", "bin/tool"))
