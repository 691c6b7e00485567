"""CycloneDX 1.6 and SPDX 2.3: valid, deterministic, and read back to what was written."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator  # type: ignore[import-untyped] # its stubs are not installed

from controlplane.packaging.records import ArtefactFacts, ArtefactType, Component, Inventory, Scope
from controlplane.packaging.sbom.cyclonedx import cyclonedx
from controlplane.packaging.sbom.documents import components_of
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.serialisation import inventory_from_json, inventory_to_json
from controlplane.packaging.sbom.spdx import spdx
from tests.unit.packaging.sbom.inventories import inventories
from tests.unit.packaging.sbom.spdx_rules import broken_rules
from tests.unit.packaging.sbom.trees import SHA256, inventory, wheel

EPOCH = 1_700_000_000
some = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)


@some
@given(inventories())
def test_every_cyclonedx_document_is_valid_by_the_strict_schema(taken: Inventory) -> None:
    assert VALIDATOR.validate_str(cyclonedx(taken, EPOCH).decode()) is None


@some
@given(inventories())
def test_every_spdx_document_keeps_the_rules_of_the_specification(taken: Inventory) -> None:
    assert broken_rules(json.loads(spdx(taken, EPOCH))) == []


@some
@given(taken=inventories())
def test_every_spdx_document_is_valid_by_the_official_schema(
    spdx_schema: Draft7Validator, taken: Inventory
) -> None:
    spdx_schema.validate(json.loads(spdx(taken, EPOCH)))


@pytest.fixture(scope="module")
def spdx_schema() -> Draft7Validator:
    """The schema from where FLEETWRIGHT_TEST_SPDX_SCHEMA says; nothing that tests install has it."""
    path = os.environ.get("FLEETWRIGHT_TEST_SPDX_SCHEMA")
    if not path:
        pytest.skip("FLEETWRIGHT_TEST_SPDX_SCHEMA does not name the JSON schema of SPDX 2.3")
    return Draft7Validator(json.loads(Path(path).read_bytes()))


@some
@given(inventories())
def test_the_same_inventory_gives_the_same_bytes(taken: Inventory) -> None:
    again = inventory_from_json(inventory_to_json(taken))
    assert again == taken
    assert cyclonedx(again, EPOCH) == cyclonedx(taken, EPOCH)
    assert spdx(again, EPOCH) == spdx(taken, EPOCH)


@some
@given(inventories())
def test_a_cyclonedx_document_is_read_back_to_the_components_that_it_was_written_from(
    taken: Inventory,
) -> None:
    assert components_of(cyclonedx(taken, EPOCH)) == [canonical(one) for one in taken.components]


@some
@given(inventories())
def test_an_spdx_document_is_read_back_to_the_components_that_it_was_written_from(taken: Inventory) -> None:
    links = {entry.path for entry in taken.files if entry.link_target}
    expected = [
        replace(
            one,
            requires=[],
            licences=[],
            files=[path for path in one.files if path not in links] if one.scope is Scope.CONTAINED else [],
        )
        for one in taken.components
    ]
    assert [replace(one, licences=[]) for one in components_of(spdx(taken, EPOCH))] == expected


def canonical(component: Component) -> Component:
    return replace(component, found_by=sorted(component.found_by), files=sorted(component.files))


@given(st.integers(0, 3))
def test_documents_of_other_content_have_other_identifiers(number: int) -> None:
    facts = ArtefactFacts(ArtefactType.ARCHIVE, "demo", "1")
    one = Inventory(facts, SHA256, [], [])
    other = replace(one, problems=[f"x{number}"])
    assert (
        json.loads(cyclonedx(one, EPOCH))["serialNumber"]
        != json.loads(cyclonedx(other, EPOCH))["serialNumber"]
    )
    assert spdx(one, EPOCH) != spdx(replace(one, sha256="cd" * 32), EPOCH)


def test_documents_name_their_subject_by_its_digest_and_what_looked(tmp_path: Path) -> None:
    taken = inventory(tmp_path, ArtefactType.WHEEL, wheel("x==1"))
    document = json.loads(cyclonedx(taken, EPOCH))
    assert document["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": SHA256}]
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    assert [tool["name"] for tool in document["metadata"]["tools"]["components"]] == ["fleetwright"]
    assert {"ref": "pkg:pypi/demo@1.0", "dependsOn": ["pkg:pypi/x@1"]} in document["dependencies"]
    other = json.loads(spdx(taken, EPOCH))
    assert other["packages"][0]["checksums"] == [{"algorithm": "SHA256", "checksumValue": SHA256}]
    assert other["creationInfo"]["created"] == "2023-11-14T22:13:20Z"


def test_a_declared_dependency_without_a_version_is_in_both_documents(tmp_path: Path) -> None:
    taken = inventory(tmp_path, ArtefactType.WHEEL, wheel("x>=1"))
    assert "x" in cyclonedx(taken, EPOCH).decode()
    comments = [one.get("comment") for one in json.loads(spdx(taken, EPOCH))["relationships"]]
    assert "required: x >=1" in comments
    assert components_of(cyclonedx(taken, EPOCH))[0].requires == taken.components[0].requires


def test_a_thousand_components_are_written_and_read() -> None:
    facts = ArtefactFacts(ArtefactType.ARCHIVE, "demo", "1")
    many = [
        Component("PyPI", f"p{n:04}", "1.0", f"pkg:pypi/p{n:04}@1.0", found_by=["fleetwright"], licences=[])
        for n in range(1_000)
    ]
    taken = Inventory(facts, SHA256, many, [])
    assert len(components_of(cyclonedx(taken, EPOCH))) == 1_000
    assert len(components_of(spdx(taken, EPOCH))) == 1_000


def bom(*components: Any, **fields: Any) -> bytes:
    return json.dumps(
        {"bomFormat": "CycloneDX", "specVersion": "1.5", "components": components, **fields}
    ).encode()


def test_components_within_components_and_the_subject_are_read() -> None:
    inner = {"type": "library", "name": "b", "purl": "pkg:npm/b@2"}
    outer = {"type": "library", "name": "a", "purl": "pkg:npm/a@1", "components": [inner]}
    subject = {"component": {"type": "application", "name": "s", "purl": "pkg:npm/s@3"}}
    assert [one.purl for one in components_of(bom(outer, metadata=subject))] == [
        "pkg:npm/a@1",
        "pkg:npm/b@2",
        "pkg:npm/s@3",
    ]


def test_files_and_operating_systems_are_no_software_and_what_has_no_url_says_so() -> None:
    found = components_of(
        bom(
            {"type": "file", "name": "x", "version": "1"},
            {"type": "operating-system", "name": "debian", "version": "12"},
            {"type": "application", "name": "package-lock.json"},
            {"type": "library", "name": "openssl", "version": "1.0.2"},
        )
    )
    assert [(one.purl, one.ecosystem) for one in found] == [("pkg:generic/openssl@1.0.2", "")]
    assert "no package URL" in found[0].notes[0]


def test_source_packages_are_read_from_the_qualifier_that_tools_use() -> None:
    purl = "pkg:deb/debian/libssl3@3.0.11-1?arch=amd64&distro=debian-12&upstream=openssl"
    (found,) = components_of(bom({"type": "library", "name": "libssl3", "purl": purl}))
    assert (found.source_name, found.source_version, found.ecosystem) == ("openssl", "3.0.11-1", "Debian:12")


def test_an_spdx_document_of_another_tool_is_read() -> None:
    reference = {
        "referenceCategory": "PACKAGE_MANAGER",
        "referenceType": "purl",
        "referenceLocator": "pkg:pypi/a@1",
    }
    document = {
        "spdxVersion": "SPDX-2.2",
        "documentDescribes": ["SPDXRef-root"],
        "packages": [
            {"SPDXID": "SPDXRef-root", "name": "root", "versionInfo": "1"},
            {"SPDXID": "SPDXRef-a", "name": "a", "externalRefs": [reference], "licenseDeclared": "MIT"},
            {"SPDXID": "SPDXRef-b", "name": "b", "versionInfo": "2", "licenseDeclared": "NOASSERTION"},
        ],
        "relationships": [
            {
                "spdxElementId": "SPDXRef-b",
                "relationshipType": "DEV_DEPENDENCY_OF",
                "relatedSpdxElement": "SPDXRef-a",
            }
        ],
    }
    found = components_of(json.dumps(document).encode())
    assert [(one.purl, one.scope, one.licences) for one in found] == [
        ("pkg:generic/b@2", Scope.DEVELOPMENT, []),
        ("pkg:pypi/a@1", Scope.CONTAINED, ["MIT"]),
    ]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "it is no JSON"),
        (b"[]", "an object is expected"),
        (b"{}", "neither CycloneDX nor SPDX"),
        (b'{"bomFormat": "CycloneDX", "specVersion": "9"}', "'9' is not one that is read"),
        (b'{"bomFormat": "CycloneDX", "specVersion": ["1.6"]}', "is not one that is read"),
        (b'{"spdxVersion": "SPDX-3.0"}', "'SPDX-3.0' is not one that is read"),
        (bom("x"), "holds a str where objects"),
        (bom({"name": "x", "purl": "pkg:"}), r"components\[0\]"),
        (bom({"name": "x", "purl": 7}), "purl must be text"),
        (bom({"name": 7, "version": "1"}), "name must be text"),
        (bom({"version": "1", "type": "library"}), "name is missing"),
        (bom({"name": "a", "purl": "pkg:npm/a@1", "scope": "sometimes"}), "scope 'sometimes' is none of"),
        (bom({"name": "a", "purl": "pkg:npm/a@1", "evidence": []}), "evidence must be an object"),
        (bom(metadata=[]), "metadata must be an object"),
        (b'{"spdxVersion": "SPDX-2.3", "packages": {}}', "packages must be a list"),
        (b'{"spdxVersion": "SPDX-2.3", "packages": [{"name": ["a"]}]}', "name must be text"),
    ],
)
def test_a_bad_document_is_refused_with_its_reason(data: bytes, complaint: str) -> None:
    with pytest.raises(BadMetadata, match=complaint):
        components_of(data)


def test_components_that_are_nested_without_end_are_refused() -> None:
    nested: dict[str, Any] = {"name": "a", "purl": "pkg:npm/a@1"}
    for _ in range(100):
        nested = {"name": "a", "purl": "pkg:npm/a@1", "components": [nested]}
    with pytest.raises(BadMetadata, match="nested more than"):
        components_of(bom(nested))


def test_a_document_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(BadMetadata, match="more than 10"):
        components_of(b" " * 11, limit=10)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "type",
    "name",
    "version",
    "purl",
    "group",
    "scope",
    "licenses",
    "evidence",
    "properties",
    "components",
    "SPDXID",
    "externalRefs",
    "annotations",
    "licenseDeclared",
    "versionInfo",
    "spdxElementId",
    "relationshipType",
    "relatedSpdxElement",
    "occurrences",
    "location",
    "fileName",
]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=6) | json_values, max_size=4),
    st.lists(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4), max_size=3),
    st.booleans(),
)
def test_any_fields_end_in_components_or_a_refusal(first: list[Any], second: list[Any], cdx: bool) -> None:
    document = (
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "components": first,
            "metadata": {"component": (second or [{}])[0]},
        }
        if cdx
        else {"spdxVersion": "SPDX-2.3", "packages": first, "relationships": second, "files": second}
    )
    try:
        found = components_of(json.dumps(document).encode())
    except BadMetadata:
        return
    assert all(component.purl.startswith("pkg:") for component in found)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_inventory_or_refused(data: bytes) -> None:
    with pytest.raises(BadMetadata):
        inventory_from_json(data)
