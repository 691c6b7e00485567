"""File names of packages: what a channel takes, and one for each package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fleetwright.manifest import ANY, Manifest, Platform, parse

from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.naming import LONGEST, archive_name, deb_name
from controlplane.packaging.building.platforms import fits, parse_platform, platform_text
from controlplane.trust.tuf.roles import target_path
from tests.unit.packaging.building.trees import built, request

LINUX = Platform("linux", "amd64")
ALL = Platform(ANY, ANY)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return parse(built(request(tmp_path), "archive")["manifest"].encode())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "tool-1.2.3-linux-amd64.tar.gz"),
        ({"type": "wheel", "platforms": (ALL,)}, "tool-1.2.3-wheel.tar.gz"),
        ({"type": "npm", "name": "@scope/tool"}, "scope-tool-1.2.3-npm-linux-amd64.tar.gz"),
        ({"type": "jar", "name": "org.x:tool", "platforms": (ALL,)}, "org.x-tool-1.2.3-jar.tar.gz"),
        ({"platforms": (LINUX, Platform("linux", "arm64"))}, "tool-1.2.3-multi.tar.gz"),
        ({"version": "1!2.0+local", "platforms": (ALL,)}, "tool-1-2.0+local.tar.gz"),
    ],
)
def test_an_archive_is_named_by_what_it_is(
    manifest: Manifest, changes: dict[str, object], expected: str
) -> None:
    changed = replace(manifest, **changes)  # type: ignore[arg-type]  # fields by name
    assert archive_name(changed) == expected
    assert target_path("stable", "tool", expected).endswith(expected)


def test_a_deb_is_named_as_debian_does(manifest: Manifest) -> None:
    assert deb_name(replace(manifest, version="1:2.0-1")) == "tool_2.0-1_amd64.deb"
    assert deb_name(replace(manifest, platforms=(ALL,))) == "tool_1.2.3_all.deb"


def test_long_names_are_cut_and_stay_apart(manifest: Manifest) -> None:
    one, other = (archive_name(replace(manifest, name="x" * 214, version=v)) for v in ("1", "2"))
    assert len(one) == len(other) == LONGEST
    assert one != other
    assert target_path("stable", "tool", one)


@pytest.mark.parametrize("text", ["linux/amd64", "linux/x86_64", "Linux/AMD64"])
def test_a_platform_is_read_in_any_of_its_names(text: str) -> None:
    assert parse_platform(text) == LINUX
    assert platform_text(parse_platform(text)) == "linux/amd64"


@pytest.mark.parametrize("text", ["", "linux", "/amd64", "linux/am d", "linux/a/b", "a" * 40 + "/amd64"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        parse_platform(text)
    assert caught.value.code == "PLATFORM"


def test_what_runs_on_any_fits_everything_and_nothing_else_does() -> None:
    assert fits(LINUX, ALL)
    assert fits(LINUX, LINUX)
    assert fits(LINUX, Platform("linux", ANY))
    assert not fits(LINUX, Platform("linux", "arm64"))
    assert not fits(ALL, LINUX)
