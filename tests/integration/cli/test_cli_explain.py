"""``fleetwright explain`` and ``fleetwright tasks events``, against the real server."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.cli.command import Command
from tests.integration.cli.working_agents import working
from tests.support.admin import Admin
from tests.support.in_process import LocalSite


@pytest.fixture
async def hosts(site: LocalSite, admin: Admin, tmp_path: Path) -> AsyncIterator[None]:
    """web-9, at work."""
    async with working(site, admin, tmp_path, ["web-9"]):
        yield


async def test_a_task_that_waits_is_explained_with_what_can_be_done(
    fleetwright: Command, agents: list[str]
) -> None:
    created = await fleetwright("tasks", "create", "web-1", "--script", "id")
    name = created.lines[0]
    done = await fleetwright("explain", "task", name)
    assert done.status == 0
    assert done.lines[0].startswith(f"{name} is QUEUED since 20")
    assert done.lines[2] == "Because:"
    assert "has never connected." in done.lines[3]
    assert done.lines[5] == "Next:"
    assert "It is sent when agents/web-1 comes back." in done.out
    assert "You can:" in done.lines
    assert f"  - Cancel it at once: fleetwright tasks cancel {name}" in done.lines

    # What it says can be done can be typed as it is.
    command = done.lines[-1].rpartition("fleetwright ")[2].split()
    assert (await fleetwright(*command)).status == 0
    ended = await fleetwright("explain", "task", name.removeprefix("tasks/"))
    assert f"{name} is CANCELLED since" in ended.out
    assert "No result decided: cancelled by spiffe://" in ended.out
    assert f"  - Have it done anew: fleetwright tasks replay {name}" in ended.lines
    (anew,) = (await fleetwright("tasks", "replay", name, "-o", "name")).lines
    replayed = await fleetwright("explain", "task", name)
    assert f"  - See what became of it anew: fleetwright explain task {anew}" in replayed.lines


async def test_the_later_tasks_of_a_key_are_found_by_the_command_that_is_said(
    fleetwright: Command, agents: list[str]
) -> None:
    create = ("tasks", "create", "web-1", "--echo", "x", "--supersede-key", "the 'sshd' \"*\"", "-o", "name")
    first, second = [(await fleetwright(*create)).lines[0] for _ in range(2)]
    done = await fleetwright("explain", "task", first)
    (said,) = [line for line in done.lines if "which took its place" in line]
    found = await fleetwright(*shlex.split(said.rpartition("fleetwright ")[2]), "-o", "name")
    assert sorted(found.lines) == sorted([first, second])


async def test_programs_get_the_codes(fleetwright: Command, agents: list[str]) -> None:
    created = await fleetwright("tasks", "create", "web-1", "--script", "id")
    done = await fleetwright("explain", "task", created.lines[0], "-o", "json")
    document = json.loads(done.out)
    assert document["name"] == created.lines[0]
    assert document["state"] == "TASK_STATE_QUEUED"
    codes = [sentence["code"] for sentence in document["explanation"]["because"]]
    assert codes == ["EXPLANATION_CODE_AGENT_NEVER_CONNECTED"]
    assert "latestTime" in document["explanation"]["nextSteps"][-1]
    assert (await fleetwright("explain", "agent", "web-1", "-o", "name")).out == "agents/web-1\n"


async def test_an_agent_is_explained(fleetwright: Command, agents: list[str]) -> None:
    await fleetwright("tasks", "create", "web-1", "--script", "id")
    done = await fleetwright("explain", "agent", "agents/web-1")
    assert done.status == 0
    assert done.lines[0].startswith("agents/web-1 is OFFLINE since 20")
    assert "It has 1 task that is not final: 1 QUEUED; the oldest was created at 20" in done.out
    assert "  - See its work: fleetwright tasks list --agent web-1 --state QUEUED" in done.lines


async def test_the_ledger_of_a_task_is_a_table(fleetwright: Command, hosts: None) -> None:
    created = await fleetwright("tasks", "create", "web-9", "--script", "exit 3", "--wait", "-o", "name")
    name = created.lines[0]
    done = await fleetwright("tasks", "events", name)
    assert done.status == 0
    assert done.lines[0].split() == ["TIME", "EVENT", "ATTEMPT", "SESSION", "DETAIL"]
    told = [line.split()[2] for line in done.lines[1:]]
    # Observations are written a moment later.
    assert [event for event in told if event in {"CREATED", "LEASED", "JOURNALED", "COMMITTED"}] == [
        *("CREATED", "LEASED", "JOURNALED", "COMMITTED"),
    ]
    assert "FAILED: " in done.out
    of_agent = await fleetwright("tasks", "events", "--agent", "web-9", "--since", "1h", "-o", "json")
    document = json.loads(of_agent.out)
    assert {event["task"] for event in document["events"]} == {name}
    assert document["lostObservations"] == "0"
    chosen = await fleetwright("tasks", "events", "--agent", "web-9", "--filter", "event_type = COMMITTED")
    assert len(chosen.lines) == 2
    assert name in chosen.out
    explained = await fleetwright("explain", "task", name)
    assert "Attempt 1 reported FAILED at " in explained.out


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("explain", "task", "nothing"), 3, "there is no tasks/nothing; list them"),
        (("explain", "agent", "nobody"), 3, "there is no agents/nobody; list the agents"),
        (("explain", "task", "taskBatches/b1"), 2, "fleetwright tasks list --batch taskBatches/b1"),
        (("tasks", "events", "nothing"), 3, "task: there is no tasks/nothing"),
        (("tasks", "events", "taskBatches/b1"), 2, "a batch is many tasks"),
        (("tasks", "events", "-o", "name"), 2, "events have no names"),
        (("tasks", "events", "--filter", "event = SENT"), 2, "unknown field 'event'"),
    ],
)
async def test_what_cannot_be_answered_says_what_to_do(
    words: tuple[str, ...], status: int, text: str, fleetwright: Command
) -> None:
    done = await fleetwright(*words)
    assert done.status == status, done.errors
    assert text in done.errors
