"""Tables and documents."""

from __future__ import annotations

import json

import pytest
import yaml
from fleetwright.v1.agent_registry_service_pb2 import Agent, ListAgentsResponse
from rich.cells import cell_len

from controlplane.cli.output import Column, Format, Output, clean, table

COLUMNS: list[Column[Agent]] = [
    Column("NAME", lambda agent: agent.agent_id),
    Column("NOTES", lambda agent: agent.notes),
    Column("ETAG", lambda agent: agent.etag, wide=True),
]


def test_columns_are_as_wide_as_their_widest_value_also_in_wide_characters() -> None:
    lines = table(COLUMNS, [Agent(agent_id="a", notes="日本"), Agent(agent_id="longer-name", notes="x")])
    texts = [line.plain for line in lines]
    assert texts[0].startswith("NAME          NOTES   ")
    starts = [
        cell_len(text[: text.index(notes)]) for text, notes in zip(texts, ("NOTES", "日本", "x"), strict=True)
    ]
    assert starts == [14, 14, 14]


@pytest.mark.parametrize("value", ["\x1b[31mred", "line\nbreak", "tab\there", "\x9b0m", "back\x08space"])
def test_what_agents_choose_cannot_act_on_a_terminal(value: str) -> None:
    assert clean(value).isprintable()
    assert len(clean(value)) == len(value)


def test_a_note_cannot_act_on_a_terminal_either(capsys: pytest.CaptureFixture[str]) -> None:
    Output().note("tasks/a: SUCCEEDED: \x1b]0;title\x07")
    assert capsys.readouterr().err == "tasks/a: SUCCEEDED: \ufffd]0;title\ufffd\n"


def test_wide_columns_come_only_when_asked() -> None:
    assert [column.title for column in Output(Format.TABLE).chosen(COLUMNS)] == ["NAME", "NOTES"]
    assert [column.title for column in Output(Format.WIDE).chosen(COLUMNS)] == ["NAME", "NOTES", "ETAG"]


RESPONSE = ListAgentsResponse(agents=[Agent(name="agents/a", agent_id="a", notes="Zoë: 'yes'\n\x7f")])


def test_yaml_and_json_carry_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Format.JSON).items(RESPONSE, "agents", COLUMNS)
    as_json = json.loads(capsys.readouterr().out)
    Output(Format.YAML).items(RESPONSE, "agents", COLUMNS)
    assert yaml.safe_load(capsys.readouterr().out) == as_json
    assert as_json["agents"][0]["notes"] == "Zoë: 'yes'\n\x7f"


def test_names_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Format.NAME).items(RESPONSE, "agents", COLUMNS)
    assert capsys.readouterr().out == "agents/a\n"


def test_a_change_is_one_line_of_json_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Format.JSON).change(RESPONSE, RESPONSE.agents[0], list)
    assert capsys.readouterr().out.count("\n") == 1


def test_changes_in_yaml_are_documents_of_one_stream(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        Output(Format.YAML).change(RESPONSE, RESPONSE.agents[0], list)
    assert len(list(yaml.safe_load_all(capsys.readouterr().out))) == 2


def test_an_object_shows_only_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    Output().one(Agent(agent_id="a", etag="v1"), COLUMNS)
    assert capsys.readouterr().out == "NAME:  a\nETAG:  v1\n"


def test_fields_stand_in_the_order_of_the_contract_whether_they_are_set_or_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Output(Format.JSON).items(RESPONSE, "agents", COLUMNS)
    shown = list(json.loads(capsys.readouterr().out)["agents"][0])
    known = [field.json_name for field in Agent.DESCRIPTOR.fields]
    assert shown == [name for name in known if name in shown]
    assert {"notes", "suspectedClone", "labels"} < set(shown)
