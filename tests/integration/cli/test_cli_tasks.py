"""``fleetwright tasks`` and ``telemetry``, against the real server and real agents of this host."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleetwright.v1 import task_service_pb2, telemetry_service_pb2
from google.protobuf import json_format

from tests.integration.cli.command import Command
from tests.integration.cli.working_agents import working
from tests.support.admin import Admin
from tests.support.in_process import LocalSite, serving


@pytest.fixture
async def site(folder: Path) -> AsyncIterator[LocalSite]:
    """The real server; its agents measure often, so that a watch that began late still sees points."""
    async with serving(folder, telemetry_interval="200ms") as running:
        yield running


@pytest.fixture
async def hosts(site: LocalSite, admin: Admin, tmp_path: Path) -> AsyncIterator[None]:
    """web-1 and web-2, at work."""
    async with working(site, admin, tmp_path, ["web-1", "web-2"]):
        yield


async def test_a_script_is_waited_for_and_what_it_wrote_is_printed(fleetwright: Command, hosts: None) -> None:
    done = await fleetwright("tasks", "create", "web-1", "--script", "echo out; echo err >&2", "--wait")
    assert (done.status, done.out) == (0, "out\n")
    assert done.errors.startswith("err\n")
    assert "SUCCEEDED: exit 0" in done.errors

    failed = await fleetwright("tasks", "create", "web-1", "--script", "echo so far; exit 3", "--wait")
    assert (failed.status, failed.out) == (1, "so far\n")
    assert failed.errors.endswith("error: not all succeeded: 1 FAILED\n")


async def test_a_script_file_gets_its_arguments_and_variables(
    fleetwright: Command, hosts: None, home: Path
) -> None:
    (home / "mend.sh").write_text('#!/bin/sh\necho "$1,$2,$COLOUR,$TOKEN"\n', encoding="utf-8")
    (home / "secrets.env").write_text("TOKEN='s3cret value'\n", encoding="utf-8")
    done = await fleetwright(
        *("tasks", "create", "web-1", "--script-file", "mend.sh", "--wait", "--env-file", "secrets.env"),
        *("--arg", "--force", "--arg", "a b", "--env", "COLOUR=red"),
    )
    assert (done.status, done.out) == (0, "--force,a b,red,s3cret value\n")
    listed = await fleetwright("tasks", "list", "-o", "json", "--limit", "0")
    assert "s3cret" not in listed.out


async def test_a_batch_is_waited_for_and_counted(fleetwright: Command, hosts: None) -> None:
    done = await fleetwright(
        "tasks", "create", "web-1", "agents/web-2", "--inventory", "--wait", "-o", "json"
    )
    batch = json_format.Parse(done.out, task_service_pb2.TaskBatch())
    assert (done.status, batch.task_count) == (0, 2)
    assert [(one.state, one.count) for one in batch.state_counts] == [
        (task_service_pb2.TASK_STATE_SUCCEEDED, 2)
    ]
    selected = await fleetwright("tasks", "create", "--selector", "*", "--script", "exit 1", "--wait")
    assert (selected.status, selected.errors.splitlines()[-1]) == (
        1,
        "error: not all succeeded: 2 FAILED",
    )
    name = selected.out.strip()
    listed = await fleetwright("tasks", "list", "--batch", name, "--state", "failed", "-o", "name")
    assert len(listed.lines) == 2
    shown = await fleetwright("tasks", "show", name)
    assert "2 FAILED" in shown.out
    late = await fleetwright("tasks", "cancel", listed.lines[0])
    assert late.status == 1
    assert "is FAILED and can no longer change" in late.errors


async def test_a_log_is_read_and_an_output_printed_again(
    fleetwright: Command, hosts: None, tmp_path: Path
) -> None:
    name = (await fleetwright("tasks", "create", "web-1", "--script", r"printf 'a\001b\377'")).out.strip()
    assert (await fleetwright("tasks", "wait", name)).out == "Ended: 1 SUCCEEDED\n"
    piped = await (await fleetwright.start("tasks", "output", name)).process.communicate()
    assert piped[0] == b"a\x01b\xff"
    status, screen = await fleetwright.on_a_terminal("tasks", "output", name, "--stream", "stdout")
    assert (status, screen) == (0, "a\ufffdb\ufffd")


async def test_a_terminal_sees_progress_while_it_waits(fleetwright: Command, hosts: None) -> None:
    status, screen = await fleetwright.on_a_terminal(
        "tasks", "create", "--selector", "*", "--echo", "hi", "--wait"
    )
    assert status == 0
    assert "2/2" in screen
    assert "2 tasks: 2 SUCCEEDED" in screen


async def test_points_are_queried_and_watched(fleetwright: Command, hosts: None) -> None:
    watch = await fleetwright.start("telemetry", "watch", "--agent", "web-1", "-o", "json")
    first = json_format.ParseDict(await watch.change(), telemetry_service_pb2.WatchTelemetryResponse())
    assert first.resume_token
    while not first.points:  # what the agent measures as it comes may be there already
        first = json_format.ParseDict(await watch.change(), telemetry_service_pb2.WatchTelemetryResponse())
    assert {point.agent for point in first.points} == {"agents/web-1"}
    assert (await watch.interrupt()).status == 130

    table = await fleetwright("telemetry", "query", "--agent", "web-1", "--metric", "memory.used_bytes")
    assert table.lines[0].split() == ["TIME", "AGENT", "METRIC", "VALUE", "ATTRIBUTES"]
    assert "iB" in table.lines[1]
    found = await fleetwright("telemetry", "query", "--since", "1h", "--limit", "3", "-o", "json")
    response = json_format.Parse(found.out, telemetry_service_pb2.QueryTelemetryResponse())
    assert len(response.points) == 3
    assert (await fleetwright("telemetry", "query", "--until", "1h")).out == ""


async def test_ctrl_c_ends_a_wait_and_leaves_the_task(fleetwright: Command, agents: list[str]) -> None:
    waiting = await fleetwright.start("tasks", "create", "db-1", "--echo", "hi", "--wait")
    watch = await fleetwright.start("tasks", "watch", "-o", "json")
    while (change := await watch.change())["changeType"] == "CHANGE_TYPE_SYNCED" or "task" not in change:
        pass  # until it is created
    name = change["task"]["name"]
    ended = await waiting.interrupt()
    assert (ended.status, ended.out) == (130, "")
    assert (await watch.interrupt()).status == 130
    listed = await fleetwright("tasks", "list", "--state", "QUEUED", "-o", "name")
    assert listed.lines == [name]


async def test_a_wait_that_is_interrupted_names_the_task_that_goes_on(
    fleetwright: Command, agents: list[str]
) -> None:
    words = ("tasks", "create", "db-1", "--echo", "hi", "--wait")
    status, screen = await fleetwright.on_a_terminal(*words, typing="\x03", after="0/1")
    [name] = (await fleetwright("tasks", "list", "-o", "name")).lines
    assert status == 130
    assert f"{name} goes on: `fleetwright tasks wait {name}` waits for it, `cancel` ends it" in screen


async def test_a_queued_task_is_cancelled_and_a_second_time_is_no_error(
    fleetwright: Command, agents: list[str]
) -> None:
    name = (await fleetwright("tasks", "create", "db-1", "--echo", "hi")).out.strip()
    cancelled = await fleetwright("tasks", "cancel", name)
    assert (cancelled.status, cancelled.lines[1].split()[3]) == (0, "CANCELLED")
    assert (await fleetwright("tasks", "cancel", name)).status == 0


async def test_what_is_open_of_a_batch_is_cancelled(fleetwright: Command, agents: list[str]) -> None:
    batch = (await fleetwright("tasks", "create", "--selector", "*", "--echo", "hi")).out.strip()
    first = (await fleetwright("tasks", "list", "--agent", "db-1", "-o", "name")).out.strip()
    await fleetwright("tasks", "cancel", first)
    cancelled = await fleetwright("tasks", "cancel", batch, "-o", "json")
    (ended,) = cancelled.document["batches"]
    assert (cancelled.status, ended["cancelledCount"], ended["askedCount"]) == (0, 2, 0)
    assert ended["batch"]["state"] == "TASK_BATCH_STATE_CANCELLED"
    assert (await fleetwright("tasks", "cancel", batch)).status == 0
    assert json.loads((await fleetwright("tasks", "wait", batch, "-o", "json")).out) == {
        "stateCounts": {"CANCELLED": 3}
    }


async def test_what_ended_without_success_is_replayed(fleetwright: Command, agents: list[str]) -> None:
    batch = (await fleetwright("tasks", "create", "--selector", "*", "--echo", "hi")).out.strip()
    await fleetwright("tasks", "cancel", "--batch", batch)
    first = (await fleetwright("tasks", "list", "--agent", "db-1", "-o", "name")).out.strip()
    replayed = await fleetwright("tasks", "replay", first, "-o", "json")
    (new,) = replayed.document["tasks"]
    assert (replayed.status, new["replayOf"], new["state"]) == (0, first, "TASK_STATE_QUEUED")
    rest = await fleetwright("tasks", "replay", "--state", "CANCELLED", "--batch", batch)
    assert (rest.status, rest.out) == (0, "Replayed: 2 tasks\n")
    again = await fleetwright("tasks", "replay", "--state", "CANCELLED", "-o", "json")
    assert again.document == {"replayedCount": 0, "more": False}
    refused = await fleetwright("tasks", "replay", new["name"])
    assert refused.status != 0
    assert "is QUEUED: it has not ended" in refused.errors


@pytest.mark.parametrize("words", [(), ("tasks/x", "--state", "DEAD"), ("taskBatches/x",)])
async def test_what_is_to_be_replayed_is_named_or_chosen(fleetwright: Command, words: tuple[str]) -> None:
    assert (await fleetwright("tasks", "replay", *words)).status == 2


async def test_work_for_agents_that_are_away_has_a_policy(fleetwright: Command, agents: list[str]) -> None:
    skipped = await fleetwright("tasks", "create", "db-1", "--echo", "a", "--if-offline", "skip", "--wait")
    assert (skipped.status, "SKIPPED" in skipped.errors) == (1, True)
    names = []
    for _ in range(2):
        made = await fleetwright("tasks", "create", "db-1", "--echo", "a", "--supersede-key", "motd")
        names.append(made.out.strip())
    states = [(await fleetwright("tasks", "show", name, "-o", "json")).document["state"] for name in names]
    assert states == ["TASK_STATE_SUPERSEDED", "TASK_STATE_QUEUED"]
    window = ("--window", "0 2 * * SAT", "--window-zone", "Europe/Berlin", "--window-duration", "2h")
    waiting = await fleetwright("tasks", "create", "db-1", "--echo", "a", "--queue-time", "30d", *window)
    shown = await fleetwright("tasks", "show", waiting.out.strip())
    assert "window 0 2 * * SAT Europe/Berlin for 2h" in shown.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--window", "0 2 * *"), "options.window.cron: '0 2 * *' is not five fields"),
        (("--window", "0 0 30 2 *"), "never comes"),
        (("--window", "* * * * *", "--window-zone", "Berlin"), "there is no time zone 'Berlin'"),
        (("--window", "* * * * *", "--window-duration", "5s"), "options.window.duration"),
        (("--window", "0 0 29 2 *"), "options.queue_time: the window opens at"),
        (("--if-offline", "latest"), "needs --supersede-key"),
        (("--percent", "10"), "--percent and --seed choose among those of a --selector"),
    ],
)
async def test_a_policy_without_a_meaning_is_refused_and_nothing_is_created(
    fleetwright: Command, agents: list[str], words: tuple[str, ...], said: str
) -> None:
    refused = await fleetwright("tasks", "create", "db-1", "--echo", "hi", *words)
    assert refused.status == 2
    assert said in refused.errors
    assert (await fleetwright("tasks", "list")).out == ""


async def test_a_percentage_of_a_group_gets_work(fleetwright: Command, agents: list[str]) -> None:
    assert (await fleetwright("agents", "group", "db-1", "canary", "db")).status == 0
    assert (await fleetwright("agents", "group", "web-1", "canary")).status == 0
    assert (await fleetwright("agents", "group", "web-1", "canary-", "web")).status == 0
    listed = await fleetwright("agents", "list", "--filter", "groups:canary", "-o", "name")
    assert listed.lines == ["agents/db-1"]
    words = ("tasks", "create", "--selector", "groups:(db OR web)", "--echo", "hi", "-o", "json")
    whole = (await fleetwright(*words)).document
    assert (whole["taskCount"], whole["targetCount"], whole["state"]) == (2, 2, "TASK_BATCH_STATE_EXPANDED")
    part = (await fleetwright(*words, "--percent", "99", "--seed", "4")).document
    assert (part["percentage"], part["seed"]) == (99, 4)


async def test_nothing_is_created_where_one_of_the_agents_is_unknown(
    fleetwright: Command, agents: list[str]
) -> None:
    refused = await fleetwright("tasks", "create", "db-1", "web-3", "--echo", "hi")
    assert (refused.status, refused.out) == (3, "")
    assert "agents/web-3: no such agent, so nothing was created" in refused.errors
    assert (await fleetwright("tasks", "list")).out == ""


async def test_the_same_request_id_creates_once(fleetwright: Command, agents: list[str]) -> None:
    names = {
        (await fleetwright("tasks", "create", "db-1", "--echo", "hi", "--request-id", "mine")).out
        for _ in range(2)
    }
    assert len(names) == 1


async def test_where_no_answer_came_the_request_id_is_told_for_another_try(fleetwright: Command) -> None:
    words = ("tasks", "create", "db-1", "--echo", "hi", "--server", "127.0.0.1:1")
    ended = await fleetwright(*words, "--request-id", "mine")
    assert ended.status == 5
    message, hint = ended.errors.splitlines()
    assert message.startswith("error: server 127.0.0.1:1: Connection refused")
    assert "a repetition with --request-id mine makes no second one" in hint
    error = json.loads((await fleetwright(*words, "-o", "json")).errors)["error"]
    assert error["metadata"]["request_id"]


async def test_a_task_that_is_named_twice_is_waited_for_once(fleetwright: Command, agents: list[str]) -> None:
    name = (await fleetwright("tasks", "create", "db-1", "--echo", "hi")).out.strip()
    await fleetwright("tasks", "cancel", name)
    waited = await fleetwright("tasks", "wait", name, name, "-o", "json")
    assert waited.document == {"stateCounts": {"CANCELLED": 1}}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("create",), 2, "say what to do with one of --script"),
        (("create", "--echo", "x"), 2, "name AGENTs, or choose them with --selector"),
        (("create", "db-1", "--selector", "*", "--echo", "x"), 2, "name AGENTs"),
        (("create", "db-1", "--script-file", "none.sh"), 1, "none.sh: No such file"),
        (("create", "db-1", "--echo", "x", "--queue-time", "soon"), 2, "'soon': write a number with a unit"),
        (("create", "nobody", "--echo", "x"), 3, "agents/nobody"),
        (("create", "--selector", "hostnam = x", "--echo", "x"), 2, "did you mean hostname"),
        (("create", "--selector", "labels.env = prod", "--echo", "x"), 2, "selector"),
        (("list", "--state", "DONE"), 2, "choose one of QUEUED"),
        (("list", "--filter", "stat = FAILED"), 2, "did you mean state?"),
        (("show", "tasks/none"), 3, "tasks/none"),
        (("show", "taskBatches/none"), 3, "taskBatches/none"),
        (("wait", "tasks/none"), 3, "tasks/none"),
        (("output", "tasks/none"), 3, "tasks/none"),
        (("output", "tasks/none", "--stream", "out"), 2, "choose stdout, stderr or log"),
        (("cancel", "tasks/none"), 3, "tasks/none"),
    ],
)
async def test_bad_input_is_one_message_with_a_remedy(
    words: tuple[str, ...], status: int, said: str, fleetwright: Command, agents: list[str]
) -> None:
    ended = await fleetwright("tasks", *words)
    assert (ended.status, ended.out) == (status, ""), ended.errors
    assert said in ended.errors
    assert ended.errors.count("error:") == 1
