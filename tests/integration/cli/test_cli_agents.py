"""``fleetwright agents``, against the real server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from fleetwright.v1 import agent_registry_service_pb2
from google.protobuf import field_mask_pb2, json_format

from tests.integration.cli.command import Command, Running
from tests.support.admin import Admin
from tests.support.in_process import LocalSite, serving


async def relabel(admin: Admin, agent: str, **labels: str) -> None:
    """Replace an agent's labels behind the command's back."""
    await admin.agents.UpdateAgent(
        agent_registry_service_pb2.UpdateAgentRequest(
            agent=agent_registry_service_pb2.Agent(name=f"agents/{agent}", labels=labels),
            update_mask=field_mask_pb2.FieldMask(paths=["labels"]),
        )
    )


async def test_agents_are_listed_by_name_under_a_head(fleetwright: Command, agents: list[str]) -> None:
    ended = await fleetwright("agents", "list")
    head, *rows = (line.split() for line in ended.lines)
    assert head[:3] == ["NAME", "PRESENCE", "SINCE"]
    assert [row[:2] for row in rows] == [[name, "OFFLINE"] for name in agents]
    assert (ended.status, ended.errors) == (0, "")


async def test_a_filter_and_a_limit_choose_which(fleetwright: Command, agents: list[str]) -> None:
    ended = await fleetwright(
        "agents", "list", "--filter", 'agent_id = "web-*"', "--limit", "1", "-o", "name"
    )
    assert (ended.status, ended.out) == (0, "agents/web-1\n")


async def test_json_is_the_contracts_response(fleetwright: Command, agents: list[str]) -> None:
    ended = await fleetwright("agents", "list", "-o", "json")
    response = json_format.Parse(ended.out, agent_registry_service_pb2.ListAgentsResponse())
    assert [agent.agent_id for agent in response.agents] == agents
    assert response.total_size == 3
    assert not response.next_page_token


async def test_json_has_fields_also_where_they_are_empty(fleetwright: Command, site: LocalSite) -> None:
    ended = await fleetwright("agents", "list", "-o", "json")
    assert ended.document == {"agents": [], "nextPageToken": "", "totalSize": 0}


async def test_yaml_says_what_json_says(fleetwright: Command, agents: list[str]) -> None:
    as_json = await fleetwright("agents", "list", "-o", "json")
    as_yaml = await fleetwright("agents", "list", "-o", "yaml")
    assert yaml.safe_load(as_yaml.out) == as_json.document


async def test_wide_has_more_columns(fleetwright: Command, agents: list[str]) -> None:
    narrow = (await fleetwright("agents", "list")).lines[0].split()
    wide = (await fleetwright("agents", "list", "-o", "wide")).lines[0].split()
    assert wide[: len(narrow)] == narrow
    assert "REASON" in wide[len(narrow) :]


async def test_nothing_but_the_table_goes_to_a_file(fleetwright: Command, site: LocalSite) -> None:
    ended = await fleetwright("agents", "list")
    assert (ended.status, ended.out, ended.errors) == (0, "", "")


async def test_a_terminal_gets_colour_and_how_many_there_are(fleetwright: Command, agents: list[str]) -> None:
    status, screen = await fleetwright.on_a_terminal("agents", "list", "--limit", "2")
    assert status == 0
    assert "\x1b[31mOFFLINE" in screen
    assert "showing 2 of 3" in screen


async def test_no_color_is_honoured_on_a_terminal(fleetwright: Command, agents: list[str]) -> None:
    _, screen = await fleetwright.having(NO_COLOR="1").on_a_terminal("agents", "list")
    assert "OFFLINE" in screen
    assert "\x1b[31m" not in screen


@pytest.mark.parametrize("name", ["web-1", "agents/web-1"])
async def test_an_agent_is_shown_by_its_id_or_its_name(
    fleetwright: Command, agents: list[str], name: str
) -> None:
    ended = await fleetwright("agents", "show", name)
    assert ended.lines[0].split() == ["Name:", "agents/web-1"]
    assert (await fleetwright("agents", "show", name, "-o", "json")).document["labels"] == {"site": "north"}


async def test_an_agent_that_does_not_exist_is_named(fleetwright: Command, site: LocalSite) -> None:
    ended = await fleetwright("agents", "show", "nobody")
    assert (ended.status, ended.out) == (3, "")
    assert ended.errors.startswith("error: ")
    assert "agents/nobody" in ended.errors


async def test_labels_are_set_and_removed_together(
    fleetwright: Command, agents: list[str], admin: Admin
) -> None:
    ended = await fleetwright("agents", "label", "web-1", "env=prod", "rack=r/12", "site-")
    assert ended.status == 0
    assert dict((await admin.agent("web-1")).labels) == {"env": "prod", "rack": "r/12"}


async def test_another_value_of_a_label_needs_overwrite(
    fleetwright: Command, agents: list[str], admin: Admin
) -> None:
    refused = await fleetwright("agents", "label", "web-1", "site=south", "env=prod")
    assert refused.status == 1
    assert "site is 'north' already" in refused.errors
    assert dict((await admin.agent("web-1")).labels) == {"site": "north"}
    assert (await fleetwright("agents", "label", "web-1", "site=south", "--overwrite")).status == 0
    assert dict((await admin.agent("web-1")).labels) == {"site": "south"}


@pytest.mark.parametrize("change", ["env", "=prod", "-"])
async def test_what_is_no_change_of_a_label_is_refused_before_a_call(command: Command, change: str) -> None:
    ended = await command("agents", "label", "web-1", change)
    assert ended.status == 2
    assert "KEY=VALUE" in ended.errors


async def test_without_a_terminal_nothing_is_deleted_that_was_not_confirmed(
    fleetwright: Command, agents: list[str], admin: Admin
) -> None:
    ended = await fleetwright("agents", "delete", "web-1")
    assert ended.status == 2
    assert "--yes" in ended.errors
    assert await admin.agent("web-1")


async def test_yes_deletes(fleetwright: Command, agents: list[str]) -> None:
    ended = await fleetwright("agents", "delete", "web-1", "--yes")
    assert (ended.status, ended.out) == (0, "agents/web-1 deleted; 0 unfinished tasks cancelled\n")
    assert (await fleetwright("agents", "list", "-o", "name")).lines == ["agents/db-1", "agents/web-2"]


@pytest.mark.parametrize(
    ("answer", "status", "left"), [("y\n", 0, {"db-1", "web-2"}), ("\n", 1, {"db-1", "web-1", "web-2"})]
)
async def test_a_terminal_is_asked_before_an_agent_goes(
    fleetwright: Command, agents: list[str], answer: str, status: int, left: set[str]
) -> None:
    ended, screen = await fleetwright.on_a_terminal("agents", "delete", "web-1", typing=answer, after="[y/N]")
    assert ended == status, screen
    assert "Delete agents/web-1 (OFFLINE, site=north) for good?" in screen
    listed = await fleetwright("agents", "list", "-o", "name")
    assert {line.removeprefix("agents/") for line in listed.lines} == left


async def test_ctrl_c_at_the_question_keeps_the_agent(
    fleetwright: Command, agents: list[str], admin: Admin
) -> None:
    status, _ = await fleetwright.on_a_terminal("agents", "delete", "web-1", typing="\x03", after="[y/N]")
    assert status == 130
    assert await admin.agent("web-1")


async def synced(watch: Running) -> None:
    """Read a watch up to the end of what existed."""
    while (await watch.change())["changeType"] != "CHANGE_TYPE_SYNCED":
        pass


async def test_a_watch_is_an_object_a_line_until_ctrl_c(
    fleetwright: Command, agents: list[str], admin: Admin
) -> None:
    watch = await fleetwright.start("agents", "watch", "-o", "json")
    existing = [await watch.change() for _ in agents]
    assert [change["agent"]["agentId"] for change in existing] == agents
    assert {change["changeType"] for change in existing} == {"CHANGE_TYPE_EXISTING"}
    await synced(watch)
    await relabel(admin, "web-2", env="test")
    changed = await watch.change()
    assert changed["changeType"] == "CHANGE_TYPE_CHANGED"
    assert changed["agent"]["labels"] == {"env": "test"}
    ended = await watch.interrupt()
    assert (ended.status, ended.errors) == (130, "")


async def test_a_watch_outside_of_a_terminal_is_a_line_for_each_change(
    fleetwright: Command, agents: list[str], admin: Admin
) -> None:
    watch = await fleetwright.start("agents", "watch", "--filter", 'agent_id = "db-*"')
    assert (await watch.line()).split()[:3] == ["CHANGE", "NAME", "PRESENCE"]
    assert (await watch.line()).split()[:3] == ["EXISTING", "db-1", "OFFLINE"]
    await admin.delete("db-1")
    assert (await watch.line()).split() == ["REMOVED", "db-1"]
    assert (await watch.interrupt()).status == 130


async def test_a_watch_on_a_terminal_is_a_table_that_ends_with_ctrl_c(
    fleetwright: Command, agents: list[str]
) -> None:
    status, screen = await fleetwright.on_a_terminal("agents", "watch", typing="\x03", after="3 agents; ")
    assert status == 130
    assert "web-1" in screen
    assert screen.endswith("\x1b[?25h")  # the cursor is back


async def test_a_watch_goes_on_where_it_was_when_its_server_comes_back(
    command: Command, folder: Path
) -> None:
    async with serving(folder) as first:
        admin = first.admin()
        _, token = await admin.token(max_uses=2)
        await first.enroll("web-1", token)
        await first.enroll("web-2", token)
        watch = await command.calling(first).start("agents", "watch", "-o", "json")
        await synced(watch)
        await relabel(admin, "web-1", env="test")
        assert (await watch.change())["agent"]["agentId"] == "web-1"
    assert (await watch.note()).startswith("watch: connection lost (")
    async with serving(folder, admin_port=first.ports.admin) as second:
        await relabel(second.admin(), "web-2", env="prod")
        changed = await watch.change()
        assert changed["changeType"] == "CHANGE_TYPE_CHANGED"
        assert changed["agent"]["labels"] == {"env": "prod"}
        ended = await watch.interrupt()
    assert ended.status == 130
    assert "watch: connected again" in ended.errors


@pytest.mark.parametrize("words", [("agents", "list"), ("agents", "watch"), ("agents", "list", "-o", "json")])
async def test_a_reader_that_went_away_ends_the_command_quietly(
    fleetwright: Command, agents: list[str], words: tuple[str, ...]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        running = await fleetwright.start(*words, stdout=writer)
    finally:
        os.close(writer)
    ended = await running.ended()
    assert (ended.status, ended.errors) == (141, "")
