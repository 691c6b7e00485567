"""Python packages: wheels, source distributions, and copies within others."""

from __future__ import annotations

import json
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from controlplane.packaging.records import ArtefactType, Requirement, Scope
from controlplane.packaging.sbom.coverage import coverage_of
from controlplane.packaging.sbom.errors import BadMetadata, NoComponents
from tests.unit.packaging.sbom.trees import by_purl, inventory, metadata, record, wheel, zipped

OWN = "pkg:pypi/demo@1.0"


def test_a_wheel_is_a_component_that_claims_what_its_record_lists(tmp_path: Path) -> None:
    taken = inventory(tmp_path, ArtefactType.WHEEL, wheel())
    own = by_purl(taken)[OWN]
    assert (own.ecosystem, own.name, own.version) == ("PyPI", "demo", "1.0")
    assert (own.licences, own.found_by, own.scope) == (["MIT"], ["fleetwright"], Scope.CONTAINED)
    assert coverage_of(taken).share == 1.0


def test_a_dependency_on_one_version_exactly_is_a_component_that_a_scan_sees(tmp_path: Path) -> None:
    found = by_purl(inventory(tmp_path, ArtefactType.WHEEL, wheel("Vulnerable_Lib==1.2")))
    needed = found["pkg:pypi/vulnerable-lib@1.2"]
    assert (needed.scope, needed.name, needed.ecosystem, needed.files) == (
        Scope.REQUIRED,
        "vulnerable-lib",
        "PyPI",
        [],
    )
    assert found[OWN].requires == [Requirement("vulnerable-lib", "==1.2", Scope.REQUIRED, needed.purl)]


def test_a_dependency_that_leaves_a_choice_is_a_relationship_and_no_component(tmp_path: Path) -> None:
    needed = wheel("requests (>=2,<3)", "six==1.*", "a @ https://b/c")
    found = by_purl(inventory(tmp_path, ArtefactType.WHEEL, needed))
    assert list(found) == [OWN]
    assert found[OWN].requires == [
        Requirement("a", "@ https://b/c", Scope.REQUIRED),
        Requirement("requests", "<3,>=2", Scope.REQUIRED),
        Requirement("six", "==1.*", Scope.REQUIRED),
    ]


def test_what_an_extra_needs_is_optional(tmp_path: Path) -> None:
    found = by_purl(inventory(tmp_path, ArtefactType.WHEEL, wheel("x==3; extra == 'fast'")))
    assert found["pkg:pypi/x@3"].scope is Scope.OPTIONAL
    assert found[OWN].requires[0].constraint == '==3; extra == "fast"'


def test_a_condition_is_kept_beside_the_version_that_it_guards(tmp_path: Path) -> None:
    found = by_purl(inventory(tmp_path, ArtefactType.WHEEL, wheel("x==3; python_version < '3.12'")))
    assert found["pkg:pypi/x@3"].scope is Scope.REQUIRED
    assert "python_version" in found[OWN].requires[0].constraint


def test_a_file_that_differs_from_the_record_is_not_claimed(tmp_path: Path) -> None:
    taken = inventory(tmp_path, ArtefactType.WHEEL, {**wheel(), "demo/__init__.py": "EVIL = 1\n"})
    assert coverage_of(taken).unclaimed == ["demo/__init__.py"]
    assert "differ from its RECORD" in by_purl(taken)[OWN].notes[0]


def test_a_file_that_no_record_lists_is_not_claimed(tmp_path: Path) -> None:
    taken = inventory(tmp_path, ArtefactType.WHEEL, {**wheel(), "demo/_libfoo.so": b"\x7fELF"})
    assert coverage_of(taken).unclaimed == ["demo/_libfoo.so"]


def test_a_copy_of_another_distribution_is_a_component_of_its_own(tmp_path: Path) -> None:
    inner = {
        "demo/_vendor/six.py": "",
        "demo/_vendor/six-1.16.dist-info/METADATA": metadata("six", "1.16", "License-Expression: MIT"),
    }
    inner["demo/_vendor/six-1.16.dist-info/RECORD"] = record({"six.py": ""})
    found = by_purl(inventory(tmp_path, ArtefactType.WHEEL, {**wheel(), **inner}))
    six = found["pkg:pypi/six@1.16"]
    assert "demo/_vendor/six.py" in six.files
    assert six.scope is Scope.CONTAINED


def test_a_list_of_vendored_projects_names_what_lies_beside_it(tmp_path: Path) -> None:
    files = {
        "demo/_vendor/vendor.txt": "# copied\nmsgpack==1.0.5\n  # x\npyproject-hooks==1.0.0 # y\ngone==2\n",
        "demo/_vendor/msgpack/__init__.py": "",
        "demo/_vendor/pyproject_hooks.py": "",
    }
    found = by_purl(inventory(tmp_path, ArtefactType.WHEEL, {**wheel(), **files}))
    assert found["pkg:pypi/msgpack@1.0.5"].files == ["demo/_vendor/msgpack/__init__.py"]
    assert found["pkg:pypi/pyproject-hooks@1.0.0"].files == ["demo/_vendor/pyproject_hooks.py"]
    assert "no folder or file there has its name" in found["pkg:pypi/gone@2"].notes[0]


def test_a_requirements_file_elsewhere_says_nothing_of_the_package(tmp_path: Path) -> None:
    files = {"demo/vendor.txt": "x==1\n", "requirements.txt": "y==2\n", "docs/vendor/vendor.txt": "z==3\n"}
    assert list(by_purl(inventory(tmp_path, ArtefactType.WHEEL, {**wheel(), **files}))) == [OWN]


def test_a_source_distribution_claims_its_folder_without_the_code_of_others(tmp_path: Path) -> None:
    files = {
        "demo-1.0/PKG-INFO": metadata("demo", "1.0", "Requires-Dist: x==1"),
        "demo-1.0/setup.py": "",
        "demo-1.0/src/demo.egg-info/PKG-INFO": metadata("demo", "1.0"),
        "demo-1.0/src/demo/_vendor/unknown.py": "",
        "demo-1.0/requirements.txt": "dev-tool==9\n",
    }
    taken = inventory(tmp_path, ArtefactType.SDIST, files)
    assert list(by_purl(taken)) == [OWN, "pkg:pypi/x@1"]
    assert coverage_of(taken).unclaimed == ["demo-1.0/src/demo/_vendor/unknown.py"]


def test_licences_come_from_the_most_exact_field(tmp_path: Path) -> None:
    lines = ("License: some text\n        more text", "Classifier: License :: OSI Approved :: MIT License")
    files = {"demo-1.0.dist-info/METADATA": metadata("demo", "1.0", *lines)}
    assert by_purl(inventory(tmp_path, ArtefactType.WHEEL, files))[OWN].licences == ["MIT License"]


def test_native_libraries_come_from_the_document_that_a_wheel_brings(tmp_path: Path) -> None:
    path = "demo-1.0.dist-info/sboms/auditwheel.cdx.json"
    listed = {"type": "library", "name": "zlib", "purl": "pkg:rpm/almalinux/zlib@1.2.11-40.el9"}
    document = json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.4", "components": [listed]})
    taken = inventory(tmp_path, ArtefactType.WHEEL, {**wheel(), path: document})
    zlib = by_purl(taken)["pkg:rpm/almalinux/zlib@1.2.11-40.el9"]
    assert (zlib.ecosystem, zlib.files, zlib.notes) == ("AlmaLinux", [path], [f"listed by {path}"])


def test_without_a_record_the_top_level_is_claimed_and_that_is_said(tmp_path: Path) -> None:
    files = {
        "x-1.egg-info/PKG-INFO": metadata("x", "1"),
        "x-1.egg-info/top_level.txt": "x\n",
        "x/__init__.py": "",
        "xy/__init__.py": "",
    }
    taken = inventory(tmp_path, ArtefactType.ARCHIVE, files)
    assert coverage_of(taken).unclaimed == ["xy/__init__.py"]
    assert "guessed by its top level" in by_purl(taken)["pkg:pypi/x@1"].notes[0]


def test_a_wheel_within_an_archive_is_found_and_claims_its_file(tmp_path: Path) -> None:
    path = "wheels/demo-1.0-py3-none-any.whl"
    taken = inventory(tmp_path, ArtefactType.ARCHIVE, {path: zipped(wheel("x==1"))})
    assert by_purl(taken)[OWN].files == [path]
    assert by_purl(taken)["pkg:pypi/x@1"].scope is Scope.REQUIRED


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "it is empty"),
        ("Version: 1.0\n", "Name is missing"),
        ("Name: demo\n", "Version is missing"),
        ("Name: de\x07mo\nVersion: 1\n", "cannot be printed"),
        ("Name: demo\nVersion: 1\nRequires-Dist: ==broken==\n", "is no requirement"),
        (" continued\nName: demo\n", "continuation line"),
        ("Name: demo\nVersion 1.0\n", "is no header"),
        ("Name: demo\0\nVersion: 1\n", "NUL"),
        ("Name: " + "d" * 2_000 + "\nVersion: 1\n", "shorten it"),
    ],
)
def test_bad_metadata_of_the_package_itself_is_refused_with_its_reason(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(BadMetadata, match=complaint) as refused:
        inventory(tmp_path, ArtefactType.WHEEL, {"demo-1.0.dist-info/METADATA": text})
    assert refused.value.member == "demo-1.0.dist-info/METADATA"


def test_bad_metadata_deeper_inside_is_a_problem_and_leaves_its_files_unclaimed(tmp_path: Path) -> None:
    broken = {"demo/_vendor/bad-1.dist-info/METADATA": "nothing\n"}
    taken = inventory(tmp_path, ArtefactType.WHEEL, {**wheel(), **broken})
    assert len(taken.problems) == 1
    assert taken.problems[0].startswith("demo/_vendor/bad-1.dist-info/METADATA: ")
    assert coverage_of(taken).unclaimed == list(broken)


def test_a_wheel_in_which_nothing_is_found_is_an_error_and_not_clean(tmp_path: Path) -> None:
    with pytest.raises(NoComponents, match="no component was found in this wheel"):
        inventory(tmp_path, ArtefactType.WHEEL, {"demo/__init__.py": ""})


def test_an_archive_in_which_nothing_is_found_says_so_by_its_coverage(tmp_path: Path) -> None:
    coverage = coverage_of(inventory(tmp_path, ArtefactType.ARCHIVE, {"a": "x", "b": "y"}))
    assert (coverage.files, coverage.claimed, coverage.unclaimed) == (2, 0, ["a", "b"])


def test_the_distributions_of_this_environment_are_all_read(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {}
    expected = set()
    for one in distributions():
        text = one.read_text("METADATA")
        if text is not None:
            folder = f"{one.name}-{one.version}.dist-info"
            files[f"{folder}/METADATA"] = text
            files[f"{folder}/RECORD"] = one.read_text("RECORD") or ""
            expected.add(f"pkg:pypi/{canonicalize_name(one.name)}@{one.version.replace('+', '%2B')}")
    taken = inventory(tmp_path, ArtefactType.ARCHIVE, files)
    assert taken.problems == []
    assert expected <= {component.purl for component in taken.components}
