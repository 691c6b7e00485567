"""Whatever the metadata of a package says, the stage ends in an inventory or in its own error."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.packaging.records import ArtefactType
from controlplane.packaging.sbom.cyclonedx import cyclonedx
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.inventory import take_inventory
from controlplane.packaging.sbom.serialisation import inventory_from_json, inventory_to_json
from controlplane.packaging.sbom.spdx import spdx
from tests.unit.packaging.sbom.trees import SHA256, facts, inventory, metadata, write

METADATA_FILES = (
    "demo-1.0.dist-info/METADATA",
    "demo-1.0.dist-info/RECORD",
    "demo-1.0/PKG-INFO",
    "x.egg-info",
    "package/package.json",
    "package/npm-shrinkwrap.json",
    "META-INF/MANIFEST.MF",
    "META-INF/maven/g/a/pom.properties",
    "control/control",
    "var/lib/dpkg/status",
    "etc/os-release",
    "_vendor/vendor.txt",
    "_vendor/a.py",
    "lib/a.jar",
    "bin/a",
)
TOKENS = (
    "Name: ", "Version: ", "Requires-Dist: ", "Package: ", "Depends: ", "License: ", "\n", "\r", " ", ":",
    "=", "==", "(", ")", "a", "1.0", "{", "}", '"name"', '"version"', '"dependencies"', ",", "[", "]", "'",
    "\\u", "\\", "#", "\x00", "\ufeff", "é", "..", "/", "sha256=", "%", "\x7fELF", "PK\x03\x04", "groupId=",
    "artifactId=",
)  # fmt: skip
contents = st.lists(st.sampled_from(TOKENS), max_size=40).map("".join).map(str.encode) | st.binary(
    max_size=200
)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(ArtefactType),
    files=st.dictionaries(st.sampled_from(METADATA_FILES), contents, min_size=1, max_size=6),
)
def test_any_metadata_ends_in_documents_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, kind: ArtefactType, files: Mapping[str, bytes]
) -> None:
    try:
        taken = inventory(tmp_path_factory.mktemp("hostile"), kind, dict(files))
    except BadMetadata as error:
        assert str(error).isprintable()  # noqa: PT017 # either end is right, and this is what one of them promises
        return
    assert inventory_from_json(inventory_to_json(taken)) == taken
    assert cyclonedx(taken, 0)
    assert spdx(taken, 0)


def test_metadata_of_a_huge_size_is_not_read(tmp_path: Path) -> None:
    path = "demo-1.0.dist-info/METADATA"
    entries = write(tmp_path, {path: metadata()})
    os.truncate(tmp_path / path, 2**34)
    with pytest.raises(BadMetadata, match="17179869184 bytes"):
        take_inventory(tmp_path, facts(ArtefactType.WHEEL), SHA256, entries)


def test_a_path_that_leads_out_of_the_folder_is_not_opened(tmp_path: Path) -> None:
    write(tmp_path, {"secret/package.json": '{"name": "a", "version": "1"}'})
    (tmp_path / "root").mkdir()
    (tmp_path / "root/package").symlink_to(tmp_path / "secret")
    entries = write(tmp_path / "elsewhere", {"package/package.json": "{}"})
    with pytest.raises(BadMetadata, match="leads to another file"):
        take_inventory(tmp_path / "root", facts(ArtefactType.NPM), SHA256, entries)


def test_a_device_in_the_place_of_a_file_is_not_read(tmp_path: Path) -> None:
    entries = write(tmp_path, {"package/package.json": "{}"})
    (tmp_path / "package/package.json").unlink()
    os.mkfifo(tmp_path / "package/package.json")
    with pytest.raises(BadMetadata, match="not a regular file"):
        take_inventory(tmp_path, facts(ArtefactType.NPM), SHA256, entries)


def test_names_that_cannot_be_utf8_are_written_out_in_documents(tmp_path: Path) -> None:
    name = b"data/\xff.txt".decode("utf-8", "surrogateescape")
    taken = inventory(tmp_path, ArtefactType.ARCHIVE, {"a": "x"})
    odd = replace(taken, files=[replace(taken.files[0], path=name)])
    assert b"\\\\udcff.txt" in cyclonedx(odd, 0)
    assert b"\\\\udcff.txt" in spdx(odd, 0)


def test_problems_are_bounded(tmp_path: Path) -> None:
    broken = {f"p{n}/package.json": "{" for n in range(500)}
    problems = inventory(tmp_path, ArtefactType.ARCHIVE, broken).problems
    assert len(problems) == 201
    assert problems[-1] == "and 300 problems more"


def test_an_error_crosses_a_process_boundary_whole() -> None:
    error = pickle.loads(pickle.dumps(BadMetadata("a", "b")))
    assert (error.member, error.message, str(error)) == ("a", "b", "a: b")
