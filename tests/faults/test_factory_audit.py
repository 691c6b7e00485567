"""The count of pipelines: what it must not take for good."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fleetwright.v1 import packaging_service_pb2 as pb2

from controlplane.packaging.rules import Stage
from faults.factory import audit
from faults.factory.artefacts import Artefact, artefact_for, large_wheel
from faults.factory.audit import Expected
from faults.report import Row

PACKAGE = b"\x1f\x8b the bytes of a package"
REQUEST = "killed-in-build"


@pytest.fixture
def factory(tmp_path: Path) -> Any:
    (tmp_path / "store").mkdir()
    callers = SimpleNamespace(acknowledged={}, artefacts={REQUEST: Artefact("wheel", "x.whl", b"x")})
    world = SimpleNamespace(row=Row("a fault", "something breaks"))
    return SimpleNamespace(world=world, callers=callers, store=tmp_path / "store")


def put(factory: Any, content: bytes, name: str = "") -> str:
    digest = hashlib.sha256(content).hexdigest()
    (factory.store / (name or digest)).write_bytes(content)
    return digest


def pipeline(
    state: int = pb2.PIPELINE_STATE_PASSED,
    outputs: tuple[str, ...] = (),
    runs: Mapping[Stage, int] | None = None,
) -> pb2.Pipeline:
    reports = [
        pb2.StageReport(stage=int(stage), run_count=(runs or {}).get(stage, 1))  # type: ignore[arg-type]
        for stage in Stage
    ]
    reports[1].outputs.update({str(number): one for number, one in enumerate(outputs)})
    return pb2.Pipeline(name="pipelines/p", state=state, stages=reports)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("runs", "exactly", "good"),
    [
        ({Stage.BUILD: 2}, True, True),
        ({}, True, False),
        ({}, False, True),
        ({Stage.BUILD: 3}, False, False),
        ({Stage.BUILD: 2, Stage.SIGN: 2}, True, False),
    ],
)
def test_stages_have_to_run_as_often_as_the_kill_lets_them(
    factory: Any, runs: Mapping[Stage, int], exactly: bool, good: bool
) -> None:
    audit._check_pipeline(
        factory, REQUEST, pipeline(runs=runs), Expected({REQUEST: Stage.BUILD}, 1, exactly=exactly)
    )
    assert (not factory.world.row.problems) is good


def test_a_pipeline_that_did_not_pass_is_lost(factory: Any) -> None:
    failed = pipeline(pb2.PIPELINE_STATE_ERROR)
    audit._check_pipeline(factory, REQUEST, failed, Expected({}, 1))
    assert factory.world.row.lost == 1


def test_what_stages_reported_and_evidence_of_killed_ones_may_be_in_the_store(factory: Any) -> None:
    digest = put(factory, PACKAGE)
    put(factory, b'{"an": "envelope"}')
    put(factory, b'{"a": 1}\n{"b": 2}\n')
    audit._count_blobs(factory, [pipeline(outputs=(digest,))], {f"packages/{digest}": pb2.Package()})
    assert (factory.world.row.lost, factory.world.row.doubled, factory.world.row.problems) == (0, 0, [])


def test_a_package_that_no_stage_reported_is_doubled(factory: Any) -> None:
    put(factory, PACKAGE)
    audit._count_blobs(factory, [pipeline()], {})
    assert factory.world.row.doubled == 1


def test_what_was_reported_and_is_not_stored_is_lost(factory: Any) -> None:
    missing = hashlib.sha256(PACKAGE).hexdigest()
    audit._count_blobs(factory, [pipeline(outputs=(missing,))], {f"packages/{missing}": pb2.Package()})
    assert factory.world.row.lost == 2, "as an output, and as a package"


@pytest.mark.parametrize("name", ["f" * 64, "f" * 64 + "#1"])
def test_bytes_under_another_name_than_their_digest_are_a_problem(factory: Any, name: str) -> None:
    put(factory, b"{}", name)
    audit._count_blobs(factory, [pipeline()], {})
    assert len(factory.world.row.problems) == 1


def test_every_stage_has_an_artefact_of_another_type_and_name() -> None:
    made = [artefact_for(stage) for stage in Stage]
    assert len({one.name for one in made}) == len({one.sha256 for one in made}) == len(Stage)
    assert artefact_for(Stage.SIGN).name == "deb", "the only one whose bytes a signature changes"
    assert large_wheel(1).data == large_wheel(1).data != large_wheel(2).data
