"""syft and Trivy, joined where present and said where not."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from controlplane.packaging.records import ArtefactType, Component
from controlplane.packaging.sbom.external import (
    SYFT,
    TOOLS,
    TRIVY,
    Run,
    Tool,
    ToolFailure,
    ask,
    find_program,
)
from controlplane.packaging.sbom.inventory import joined
from controlplane.packaging.sbom.merging import join
from controlplane.packaging.sbom.tools import NOT_RUN, ToolResult
from tests.unit.packaging.sbom.trees import by_purl, inventory, wheel, zipped


def runner(document: bytes, said: list[Sequence[str]] | None = None) -> Run:
    def run(command: Sequence[str], folder: Path) -> bytes:
        if said is not None:
            said.append(command)
        return b"Version:  1.18.1\n" if command[1:] in (["version"], ["--version"]) else document

    return run


def bom(*components: dict[str, object]) -> bytes:
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components}).encode()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "tools" / "syft"
    path.parent.mkdir()
    path.write_bytes(b"#!/bin/sh\n")
    return path


def test_an_absent_tool_is_stated_and_is_no_error(tmp_path: Path) -> None:
    taken = inventory(tmp_path, ArtefactType.WHEEL, wheel())
    both = joined(taken, [ask(tool, None, tmp_path, runner(b"")) for tool in TOOLS])
    assert both.components == taken.components
    assert (both.tools["syft"], both.tools["trivy"]) == (f"{NOT_RUN}absent", f"{NOT_RUN}absent")


def test_a_tool_gets_the_folder_and_all_of_its_cataloguers(tmp_path: Path, program: Path) -> None:
    said: list[Sequence[str]] = []
    ask(SYFT, program, tmp_path, runner(bom(), said), "")
    assert said[1][1:3] == ["scan", "dir:."]
    assert "--override-default-catalogers" in said[1]


def test_each_component_says_who_found_it(tmp_path: Path, program: Path) -> None:
    taken = inventory(tmp_path / "root", ArtefactType.WHEEL, wheel())
    location = {"name": "syft:location:0:path", "value": "/demo-1.0.dist-info/METADATA"}
    document = bom(
        {
            "type": "library",
            "name": "demo",
            "version": "1.0",
            "purl": "pkg:pypi/Demo@1.0?x=y",
            "properties": [location],
        },
        {"type": "library", "name": "other", "version": "2", "purl": "pkg:pypi/other@2"},
    )
    result = ask(SYFT, program, tmp_path, runner(document))
    found = by_purl(joined(taken, [result]))
    assert found["pkg:pypi/demo@1.0"].found_by == ["fleetwright", "syft"]
    assert found["pkg:pypi/other@2"].found_by == ["syft"]
    assert result.version == f"1.18.1 (sha256:{hashlib.sha256(program.read_bytes()).hexdigest()})"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "document cannot be used"),
        (b"FATAL no database", "document cannot be used"),
        (b'{"components": []}', "neither CycloneDX nor SPDX"),
        (bom({"name": "x", "purl": "nonsense"}), "no package URL"),
        (b" " * (64 * 1024 * 1024 + 1), "more than"),
    ],
)
def test_a_tool_that_writes_nonsense_did_not_run(
    tmp_path: Path, program: Path, document: bytes, reason: str
) -> None:
    result = ask(TRIVY, program, tmp_path, runner(document))
    assert result.components == ()
    assert result.version.startswith(NOT_RUN)
    assert reason in result.version


@pytest.mark.parametrize(
    "error", [ToolFailure("ended with 1"), OSError("no such file"), subprocess.TimeoutExpired("syft", 60)]
)
def test_a_tool_that_fails_did_not_run(tmp_path: Path, program: Path, error: Exception) -> None:
    def run(command: Sequence[str], folder: Path) -> bytes:
        raise error

    result = ask(SYFT, program, tmp_path, run)
    assert (result.components, result.version.startswith(f"{NOT_RUN}it failed: ")) == ((), True)


def test_a_program_with_another_digest_than_the_pinned_one_is_not_run(tmp_path: Path, program: Path) -> None:
    said: list[Sequence[str]] = []
    result = ask(SYFT, program, tmp_path, runner(bom(), said), "00" * 32)
    assert said == []
    assert "pinned" in result.version


def test_programs_are_looked_for_in_the_given_folders_only(program: Path) -> None:
    assert find_program("syft", [program.parent]) == program
    assert find_program("trivy", [program.parent]) is None


def component(purl: str, finder: str) -> Component:
    return Component("npm", "a", "1", purl, found_by=[finder])


def test_qualifiers_of_other_tools_make_no_second_component() -> None:
    both = join([component("pkg:npm/a@1", "fleetwright")], [component("pkg:npm/A@1?package-id=7", "syft")])
    assert [(one.purl, one.found_by) for one in both] == [("pkg:npm/a@1", ["fleetwright", "syft"])]


def test_one_of_theirs_confirms_each_architecture_of_ours() -> None:
    ours = [component(f"pkg:deb/debian/a@1?arch={arch}", "fleetwright") for arch in ("amd64", "i386")]
    both = join(ours, [component("pkg:deb/debian/a@1", "trivy")])
    assert [one.found_by for one in both] == [["fleetwright", "trivy"]] * 2


def test_files_that_only_a_tool_knows_are_left_out(tmp_path: Path) -> None:
    taken = inventory(tmp_path, ArtefactType.WHEEL, wheel())
    theirs = Component(
        "PyPI", "o", "1", "pkg:pypi/o@1", files=["/etc/passwd", "demo/__init__.py"], found_by=["syft"]
    )
    found = by_purl(joined(taken, [ToolResult("syft", "1", [theirs])]))
    assert found["pkg:pypi/o@1"].files == ["demo/__init__.py"]


def in_an_empty_environment(command: Sequence[str], folder: Path) -> bytes:
    return subprocess.run(command, cwd=folder, env={}, capture_output=True, timeout=100, check=True).stdout


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_real_tool_confirms_what_our_cataloguers_found(tmp_path: Path, tool: Tool) -> None:
    folders = [
        Path(entry) for entry in os.environ.get("FLEETWRIGHT_TEST_TOOLS", "").split(os.pathsep) if entry
    ]
    program = find_program(tool.name, folders)
    if program is None:
        pytest.skip(f"{tool.name} is not installed in a folder of FLEETWRIGHT_TEST_TOOLS")
    bundled = {"package/node_modules/b/package.json": '{"name": "b", "version": "2.0.0"}'}
    jar = zipped({"META-INF/MANIFEST.MF": "Manifest-Version: 1.0\n"})
    own = {"package/package.json": '{"name": "demo", "version": "1.0.0"}'}
    taken = inventory(tmp_path, ArtefactType.NPM, {**own, **bundled, "package/x.jar": jar})
    both = joined(taken, [ask(tool, program, tmp_path, in_an_empty_environment)])
    confirmed = {one.purl for one in both.components if list(one.found_by) == ["fleetwright", tool.name]}
    assert confirmed == {"pkg:npm/b@2.0.0", "pkg:npm/demo@1.0.0"}
