"""npm packages, what they bundle, and what their lock files fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.packaging.records import ArtefactType, Requirement, Scope
from controlplane.packaging.sbom.coverage import coverage_of
from controlplane.packaging.sbom.errors import BadMetadata
from tests.unit.packaging.sbom.trees import by_purl, inventory

OWN = "pkg:npm/demo@1.0.0"


def package(name: str = "demo", version: str = "1.0.0", **fields: Any) -> str:
    return json.dumps({"name": name, "version": version, **fields})


def test_a_package_claims_its_files_and_not_those_of_what_it_bundles(tmp_path: Path) -> None:
    files = {
        "package/package.json": package(license="MIT"),
        "package/index.js": "",
        "package/node_modules/@a/b/package.json": package("@a/b", "2.0.0", licenses=[{"type": "ISC"}]),
        "package/node_modules/@a/b/index.js": "",
        "package/node_modules/stray.js": "",
    }
    taken = inventory(tmp_path, ArtefactType.NPM, files)
    found = by_purl(taken)
    assert found[OWN].files == ["package/index.js", "package/package.json"]
    bundled = found["pkg:npm/%40a/b@2.0.0"]
    assert (bundled.name, bundled.ecosystem, bundled.licences) == ("@a/b", "npm", ["ISC"])
    assert coverage_of(taken).unclaimed == ["package/node_modules/stray.js"]


def test_exact_dependencies_are_components_and_others_relationships(tmp_path: Path) -> None:
    described = package(
        dependencies={"exact": "1.2.3", "range": "^1.0.0", "alias": "npm:real@=4.0.0"},
        optionalDependencies={"maybe": "5.0.0"},
        peerDependencies={"host": ">=1"},
        peerDependenciesMeta={"host": {"optional": True}},
        devDependencies={"tool": "6.0.0"},
    )
    found = by_purl(inventory(tmp_path, ArtefactType.NPM, {"package/package.json": described}))
    assert {purl: one.scope for purl, one in found.items()} == {
        OWN: Scope.CONTAINED,
        "pkg:npm/exact@1.2.3": Scope.REQUIRED,
        "pkg:npm/maybe@5.0.0": Scope.OPTIONAL,
        "pkg:npm/real@4.0.0": Scope.REQUIRED,
    }
    requires = found[OWN].requires
    assert Requirement("tool", "6.0.0", Scope.DEVELOPMENT) in requires
    assert Requirement("host", ">=1", Scope.OPTIONAL) in requires
    assert Requirement("range", "^1.0.0", Scope.REQUIRED) in requires


def test_a_folder_option_is_no_package(tmp_path: Path) -> None:
    files = {"package/package.json": package(), "package/esm/package.json": '{"type": "module"}'}
    assert list(by_purl(inventory(tmp_path, ArtefactType.NPM, files))) == [OWN]


def test_the_real_spelling_of_an_old_name_is_kept_beside_the_folded_url(tmp_path: Path) -> None:
    found = by_purl(inventory(tmp_path, ArtefactType.NPM, {"package/package.json": package("JSONStream")}))
    assert found["pkg:npm/jsonstream@1.0.0"].name == "JSONStream"


def test_a_lock_file_fixes_components_of_its_scopes(tmp_path: Path) -> None:
    lock = {
        "lockfileVersion": 3,
        "packages": {
            "": {"name": "demo", "version": "1.0.0"},
            "node_modules/a": {"version": "1.0.0"},
            "node_modules/a/node_modules/b": {"version": "2.0.0", "dev": True},
            "node_modules/c": {"version": "3.0.0", "optional": True},
            "node_modules/@s/d": {"version": "4.0.0", "name": "@s/real"},
            "node_modules/w": {"resolved": "packages/w", "link": True},
            "packages/w": {"version": "1.0.0"},
        },
    }
    files = {"package/package.json": package(), "package/npm-shrinkwrap.json": json.dumps(lock)}
    found = by_purl(inventory(tmp_path, ArtefactType.NPM, files))
    assert {purl: one.scope for purl, one in found.items() if purl != OWN} == {
        "pkg:npm/%40s/real@4.0.0": Scope.REQUIRED,
        "pkg:npm/a@1.0.0": Scope.REQUIRED,
        "pkg:npm/b@2.0.0": Scope.DEVELOPMENT,
        "pkg:npm/c@3.0.0": Scope.OPTIONAL,
    }


def test_what_a_lock_file_fixes_and_the_package_brings_is_contained(tmp_path: Path) -> None:
    files = {
        "package.json": package(),
        "package-lock.json": json.dumps(
            {"lockfileVersion": 3, "packages": {"node_modules/a": {"version": "1.0.0"}}}
        ),
        "node_modules/a/package.json": package("a"),
        "node_modules/a/package-lock.json": "ignored by npm, and by us",
    }
    found = by_purl(inventory(tmp_path, ArtefactType.ARCHIVE, files))
    assert found["pkg:npm/a@1.0.0"].scope is Scope.CONTAINED


def test_a_lock_file_of_version_1_is_a_tree(tmp_path: Path) -> None:
    outer = {"version": "1.0.0", "dependencies": {"b": {"version": "2.0.0"}}}
    lock = {"dependencies": {"a": outer, "g": {"version": "git+ssh://h/r"}}}
    found = by_purl(inventory(tmp_path, ArtefactType.ARCHIVE, {"package-lock.json": json.dumps(lock)}))
    assert list(found) == ["pkg:npm/a@1.0.0", "pkg:npm/b@2.0.0", "pkg:npm/g"]
    assert "no version of the registry" in found["pkg:npm/g"].notes[0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "it is no JSON"),
        ("[]", "holds a list where an object is expected"),
        ("{}", "name or version is missing"),
        ('{"name": "demo"}', "name or version is missing"),
        ('{"name": ["x"], "version": "1"}', "name must be text"),
        ('{"name": "a/b", "version": "1"}', "has a '/' and no scope"),
        ('{"name": "a\\u0000b", "version": "1"}', "cannot be printed"),
        ('{"name": "a\\ud800b", "version": "1"}', "cannot be printed"),
        ('{"name": "a", "version": NaN}', "not a JSON number"),
        ('{"name": "a", "version": "1", "dependencies": ["x"]}', "dependencies must be an object"),
        ('{"name": "a", "version": "1", "dependencies": {"x": 7}}', "must be text, not int"),
        ("[" * 100_000, "nested too deeply"),
        ('{"name": ' + "9" * 5_000 + "}", "it is no JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
    ],
)
def test_a_bad_description_of_the_package_itself_is_refused_with_its_reason(
    tmp_path: Path, text: str | bytes, complaint: str
) -> None:
    with pytest.raises(BadMetadata, match=complaint) as refused:
        inventory(tmp_path, ArtefactType.NPM, {"package/package.json": text})
    assert refused.value.member == "package/package.json"


def test_a_broken_description_among_test_data_is_only_a_problem(tmp_path: Path) -> None:
    files = {"package/package.json": package(), "package/test/broken/package.json": "{"}
    assert len(inventory(tmp_path, ArtefactType.NPM, files).problems) == 1


@pytest.mark.parametrize(
    ("lock", "complaint"),
    [
        ({"packages": {"node_modules/a": 1}}, "must be an object"),
        ({"packages": {"node_modules/a": {"version": 1}}}, "must be text"),
        ({"dependencies": {"a": {"version": "1.0.0", "dependencies": []}}}, "must be an object"),
    ],
)
def test_a_broken_lock_file_is_a_problem_that_says_where(tmp_path: Path, lock: Any, complaint: str) -> None:
    files = {"package/package.json": package(), "package/npm-shrinkwrap.json": json.dumps(lock)}
    (problem,) = inventory(tmp_path, ArtefactType.NPM, files).problems
    assert problem.startswith("package/npm-shrinkwrap.json: ")
    assert complaint in problem


def test_a_lock_file_that_is_nested_without_end_is_a_problem(tmp_path: Path) -> None:
    tree: dict[str, Any] = {}
    for _ in range(200):
        tree = {"dependencies": {"a": {"version": "1.0.0", **tree}}}
    files = {"package/package.json": package(), "package/npm-shrinkwrap.json": json.dumps(tree)}
    assert "nested more than" in inventory(tmp_path, ArtefactType.NPM, files).problems[0]
