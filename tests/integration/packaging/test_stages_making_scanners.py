"""syft and Trivy beside our own cataloguers: untrusted, isolated, and said so where they did not look."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from controlplane.packaging.rules import Stage
from controlplane.packaging.sbom.external import TOOLS, Tool, find_program
from controlplane.packaging.sbom.serialisation import components_from_json
from controlplane.packaging.stages.asking import Scanners
from tests.integration.packaging.making_world import World
from tests.unit.packaging.archives.good import GOOD

pytestmark = pytest.mark.parametrize("location", ["sqlite"], indirect=True)


def only(name: str, path: Path) -> Scanners:
    return Scanners(find=lambda wanted: path if wanted == name else None)


async def _listed(world: World, kind: str = "npm") -> tuple[dict[str, str], dict[str, list[str]]]:
    """Make a package; returns who looked, and by purl who found each component."""
    made = await world.make(*GOOD[kind])
    content = await world.content(made.outcomes[Stage.SBOM]["components"])
    found = {one.purl: list(one.found_by) for one in components_from_json(content)}
    return dict(made.done[Stage.SBOM].tools), found


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
async def test_a_real_tool_looks_in_isolation_at_what_is_in_the_package(world: World, tool: Tool) -> None:
    folders = os.environ.get("FLEETWRIGHT_TEST_TOOLS", "").split(os.pathsep)
    program = find_program(tool.name, [Path(folder) for folder in folders if folder])
    if program is None:
        pytest.skip(f"{tool.name} is not installed in a folder of FLEETWRIGHT_TEST_TOOLS")
    world.scanners = only(tool.name, program)
    tools, found = await _listed(world)
    assert "sha256:" in tools[tool.name], tools
    assert found["pkg:npm/%40demo/pkg@1.2.3"] == ["fleetwright", tool.name]


async def test_a_tool_that_fails_adds_nothing_and_is_named(world: World) -> None:
    program = shutil.which("false")
    if program is None:
        pytest.skip("there is no program here that fails")
    world.scanners = only("syft", Path(program))
    tools, found = await _listed(world)
    assert tools["syft"].startswith("not run: it failed with status 1")
    assert tools["trivy"] == "not run: absent"
    assert found == {"pkg:npm/%40demo/pkg@1.2.3": ["fleetwright"]}
    assert any(level == "warning" and "syft ended with 1" in text for level, text in world.said)


async def test_a_tool_that_writes_nonsense_adds_nothing(world: World) -> None:
    program = shutil.which("echo")
    if program is None:
        pytest.skip("there is no program here that says what it is told")
    world.scanners = only("trivy", Path(program))
    tools, found = await _listed(world)
    assert tools["trivy"].startswith("not run: its document cannot be used")
    assert list(found) == ["pkg:npm/%40demo/pkg@1.2.3"]


async def test_a_script_is_not_started(world: World) -> None:
    script = world.folder / "syft"
    script.write_text("#!/bin/sh\necho evil\n")
    script.chmod(0o755)
    world.scanners = only("syft", script)
    tools, _ = await _listed(world)
    assert "is a script" in tools["syft"]


async def test_a_program_that_is_not_the_pinned_one_is_not_started(world: World) -> None:
    program = Path(shutil.which("true") or "/bin/true")
    world.scanners = Scanners(find=only("syft", program).find, pinned={"syft": "0" * 64})
    tools, _ = await _listed(world)
    assert "pinned is 000" in tools["syft"]


async def test_a_tool_that_disappeared_is_named(world: World) -> None:
    world.scanners = only("syft", world.folder / "gone")
    tools, _ = await _listed(world)
    assert tools["syft"].startswith("not run: it failed")
