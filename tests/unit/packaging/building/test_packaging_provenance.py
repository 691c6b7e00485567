"""What provenance says, and what it refuses to say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from fleetwright.verify import predicates
from fleetwright.verify.statements import PROVENANCE, Subject, parse_statement

from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.provenance import BUILD_TYPE, Provenance, predicate
from controlplane.trust.statements import statement

BUILD = Provenance(
    artefact_name="tool.tar.gz",
    artefact_sha256="a" * 64,
    unsigned={"archive": "b" * 64},
    build_id="build-7",
    builder_id="https://fleet.example.org/builders/one",
    builder_version="0.1.0",
    invocation_id="run-1",
    started=1_700_000_000_000_000,
    ended=1_700_000_001_500_000,
    source_date_epoch=1_700_000_000,
    source_repository="https://git.example.org/tool",
    source_commit="c" * 40,
    manifest_overrides={"disk_bytes": 5},
    formats=("deb", "archive"),
    tools={"zlib": "1.2.13"},
    isolation={"network": "none"},
)


def test_provenance_names_artefact_unsigned_package_and_source() -> None:
    found = predicate(BUILD)["buildDefinition"]
    assert found["buildType"] == BUILD_TYPE
    assert [one["digest"] for one in found["resolvedDependencies"]] == [
        {"sha256": "a" * 64},
        {"sha256": "b" * 64},
        {"gitCommit": "c" * 40},
    ]
    assert found["externalParameters"]["source"] == {
        "repository": "https://git.example.org/tool",
        "commit": "c" * 40,
    }
    assert found["externalParameters"]["manifest"] == {"disk_bytes": 5}


def test_provenance_names_the_builder_and_the_run() -> None:
    found = predicate(BUILD)["runDetails"]
    assert found["builder"] == {"id": BUILD.builder_id, "version": {"fleetwright": "0.1.0"}}
    assert found["metadata"] == {
        "invocationId": "run-1",
        "startedOn": "2023-11-14T22:13:20Z",
        "finishedOn": "2023-11-14T22:13:21.500000Z",
    }


def test_provenance_is_plain_json_and_the_same_each_time() -> None:
    first = json.dumps(predicate(BUILD), sort_keys=True, allow_nan=False)
    again = replace(BUILD, formats=("archive", "deb"), tools=dict(BUILD.tools))
    assert json.dumps(predicate(again), sort_keys=True) == first


def test_what_a_build_says_is_what_verifiers_read() -> None:
    payload = statement([Subject("tool", "d" * 64)], PROVENANCE, predicate(BUILD))
    found = parse_statement(payload).read()
    assert isinstance(found, predicates.Provenance)
    assert (found.builder, found.invocation) == (BUILD.builder_id, "run-1")
    assert [one.sha256 for one in found.materials] == ["a" * 64, "b" * 64, ""]
    assert found.materials[2].git_commit == "c" * 40


def test_a_source_that_nobody_named_is_not_made_up() -> None:
    found = predicate(replace(BUILD, source_repository="", source_commit=""))["buildDefinition"]
    assert "source" not in found["externalParameters"]
    assert len(found["resolvedDependencies"]) == 2


@pytest.mark.parametrize(
    ("changes", "member"),
    [
        ({"artefact_sha256": "A" * 64}, "artefact_sha256"),
        ({"unsigned": {}}, "unsigned"),
        ({"unsigned": {"deb": "b"}}, "unsigned.deb"),
        ({"builder_id": ""}, "builder_id"),
        ({"build_id": ""}, "build_id"),
        ({"invocation_id": ""}, "invocation_id"),
        ({"ended": 1}, "ended"),
        ({"source_commit": "main"}, "source_commit"),
        ({"source_repository": ""}, "source_repository"),
        ({"started": -(10**18), "ended": 10**18}, "time"),
    ],
)
def test_facts_that_cannot_be_are_refused(changes: dict[str, Any], member: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        predicate(replace(BUILD, **changes))
    assert (caught.value.code, caught.value.member) == ("PROVENANCE", member)
