"""Who breaks a pattern of the contract is told in words what to write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fleetwright.v1 import agent_registry_service_pb2, task_service_pb2, work_pb2

from controlplane.errors import InvalidArgument
from controlplane.transport.forms import FORMS, in_words
from controlplane.transport.validation import validate

CONTRACT = Path(__file__).parents[3] / "proto/fleetwright"
PATTERNS = sorted(
    {
        written.replace(r"\\", "\\")
        for file in CONTRACT.rglob("*.proto")
        for written in re.findall(r'pattern: "((?:[^"\\]|\\.)*)"', file.read_text())
    }
)


def test_the_contract_has_patterns() -> None:
    assert len(PATTERNS) > len(FORMS)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_of_the_contract_has_words(pattern: str) -> None:
    words = in_words("string.pattern", pattern, "x")
    assert words is not None
    assert "write" in words


def test_no_words_stand_for_a_pattern_that_is_gone() -> None:
    assert set(FORMS) <= set(PATTERNS)


def test_a_name_is_repeated_and_its_form_told() -> None:
    with pytest.raises(InvalidArgument) as refused:
        validate(agent_registry_service_pb2.GetAgentRequest(name="agents/First"))
    assert str(refused.value) == (
        "name: 'agents/First' is not of the form agents/ID: write an ID of 1 to 63 characters of [a-z0-9-]"
    )


def test_a_long_name_is_cut() -> None:
    with pytest.raises(InvalidArgument) as refused:
        validate(agent_registry_service_pb2.GetAgentRequest(name="x" * 1000))
    assert len(str(refused.value)) < 200


def test_a_value_that_is_no_name_is_not_repeated() -> None:
    spec = work_pb2.TaskSpec(
        script=work_pb2.ScriptSpec(body="true", interpreter="sh", environment={"1secret": "x"})
    )
    with pytest.raises(InvalidArgument) as refused:
        validate(task_service_pb2.CreateTaskRequest(agent="agents/a", spec=spec, request_id="r"))
    [violation] = refused.value.violations
    assert "write letters, digits and _" in violation.description
    assert not re.search(r"regex|\^", str(refused.value))


def test_what_is_empty_is_said_to_be() -> None:
    spec = work_pb2.TaskSpec(script=work_pb2.ScriptSpec(body="", interpreter="sh"))
    with pytest.raises(InvalidArgument, match=r"spec\.script\.body: must not be empty"):
        validate(task_service_pb2.CreateTaskRequest(agent="agents/a", spec=spec, request_id="r"))
