"""What goes wrong between the command and a server: one message, the right status, nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.storage import migrate
from controlplane.trust import setup
from controlplane.trust.layout import DATABASE
from tests.integration.cli.command import Command, Ended
from tests.support.in_process import LocalSite, serving
from tests.support.process import running
from tests.support.site import HOST
from tests.support.streams import PATIENCE


def failed(ended: Ended, status: int, *words: str) -> None:
    """Check that a command ended with one message that has ``words``, and printed nothing."""
    assert (ended.status, ended.out) == (status, ""), ended
    assert ended.errors.startswith("error: ")
    assert ended.errors.count("\n") == 1, ended.errors
    for word in words:
        assert word in ended.errors


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The first operator of another installation."""
    return setup.init(tmp_path / "elsewhere", "fleetwright.local", [], datetime.now(UTC))


@dataclass
class Port:
    """A port that speaks something else; ``came`` is set once someone has connected."""

    address: str = ""
    came: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def answering(said: bytes) -> AsyncIterator[Port]:
    """Listen on a port and answer whoever connects with ``said``, or with silence."""
    port, done = Port(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port.came.set()
        writer.write(said)
        if not said:
            await done.wait()
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    port.address = f"{HOST}:{server.sockets[0].getsockname()[1]}"
    try:
        yield port
    finally:
        done.set()
        server.close()


async def test_a_server_that_does_not_run_is_unreachable(fleetwright: Command) -> None:
    with socket.socket() as free:
        free.bind((HOST, 0))
        address = f"{HOST}:{free.getsockname()[1]}"
        ended = await fleetwright("agents", "list", "--server", address)
    failed(ended, 5, f"server {address}", "Connection refused", "is it running")


async def test_a_proxy_of_the_environment_that_is_in_the_way_is_thought_of(fleetwright: Command) -> None:
    ended = await fleetwright.having(https_proxy="http://127.0.0.1:1", no_proxy="")("agents", "list")
    failed(ended, 5, "it can be reached without gRPC", "no_proxy")


async def test_a_host_that_nobody_knows_is_unreachable(fleetwright: Command) -> None:
    ended = await fleetwright("agents", "list", "--server", "nowhere.invalid:7444")
    failed(ended, 5, "server nowhere.invalid:7444", "the name of the host is not known")


async def test_a_port_that_speaks_no_tls_is_told_apart(fleetwright: Command) -> None:
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        ended = await fleetwright("agents", "list", "--server", port.address)
    failed(ended, 5, port.address, "no TLS is spoken there", "port for administrators")


async def test_a_port_that_says_nothing_is_given_up(fleetwright: Command) -> None:
    async with answering(b"") as port:
        ended = await fleetwright("agents", "list", "--server", port.address, "--timeout", "300ms")
    failed(ended, 5, port.address, "no answer in 0.3 s")


async def test_a_server_of_another_root_is_not_trusted(fleetwright: Command, elsewhere: Path) -> None:
    ended = await fleetwright("agents", "list", "--identity", str(elsewhere))
    failed(ended, 4, "its certificate does not descend from the root of identity", str(elsewhere))


async def test_the_port_for_agents_is_not_taken_for_the_one_for_administrators(
    fleetwright: Command, site: LocalSite
) -> None:
    ended = await fleetwright("agents", "list", "--server", f"{HOST}:{site.ports.agents}")
    failed(ended, 4, "not its port for administrators")


async def test_an_identity_of_another_installation_is_not_accepted(
    fleetwright: Command, site: LocalSite, elsewhere: Path
) -> None:
    own = site.folder / "identities" / "operator-admin" / "ca.pem"
    shutil.copy(own, elsewhere)  # so that it trusts the server, and the server alone refuses
    ended = await fleetwright("agents", "list", "--identity", str(elsewhere))
    failed(ended, 4, f"it does not accept identity {elsewhere}", "--identity")


async def test_an_identity_that_has_ended_says_when(command: Command, tmp_path: Path) -> None:
    now, folder = datetime.now(UTC), tmp_path / "old"
    identity = setup.init(folder, "fleetwright.local", [], now - timedelta(days=366))
    setup.reissue_server(folder, [], now)
    migrate.upgrade(folder / DATABASE)
    async with serving(folder) as site:
        ended = await command.calling(site)("agents", "list")
    failed(ended, 4, f"identity {identity}: its certificate ended at ", "fleetwright identities issue")


async def test_an_identity_that_has_not_begun_doubts_the_clock(fleetwright: Command, folder: Path) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    identity = setup.issue_identity(folder, "operator", "early", tomorrow)
    ended = await fleetwright("agents", "list", "--identity", str(identity))
    failed(ended, 4, f"identity {identity}: its certificate begins at ", "clock")


@pytest.mark.slow
async def test_a_name_that_is_not_in_the_servers_certificate_is_told(command: Command, folder: Path) -> None:
    async with running(folder, bind_host="0.0.0.0") as server:
        ended = await command.calling(server)("agents", "list", "--server", f"127.0.0.2:{server.ports.admin}")
    failed(ended, 4, "its certificate is not for 127.0.0.2", "fleetwright add-host")


async def test_an_integrator_may_not_change_an_agent(
    fleetwright: Command, folder: Path, agents: list[str]
) -> None:
    identity = setup.issue_identity(folder, "integrator", "ticketing", datetime.now(UTC))
    ended = await fleetwright("agents", "label", "web-1", "env=prod", "--identity", str(identity))
    failed(ended, 4, "UpdateAgent", "integrator")


async def test_a_folder_that_is_no_identity_names_the_file(fleetwright: Command, tmp_path: Path) -> None:
    ended = await fleetwright("agents", "list", "--identity", str(tmp_path))
    failed(ended, 4, f"identity {tmp_path}: key.pem: No such file or directory")


async def test_a_server_that_is_no_address_is_wrong_usage(fleetwright: Command) -> None:
    ended = await fleetwright("agents", "list", "--server", "https://fleet.example.org")
    failed(ended, 2, "HOST:PORT")


async def test_a_filter_with_a_typo_shows_where_it_is(fleetwright: Command) -> None:
    ended = await fleetwright("agents", "list", "--filter", "presence = ONLINE AND hostnam = x")
    assert (ended.status, ended.out) == (2, "")
    assert ended.errors.splitlines() == [
        "error: filter, character 22: unknown field 'hostnam': did you mean hostname or os_name?",
        "  presence = ONLINE AND hostnam = x",
        "                        ^",
    ]


async def test_a_watch_with_a_typo_ends_at_once(fleetwright: Command) -> None:
    ended = await fleetwright("agents", "watch", "--filter", "presence = OFLINE")
    assert ended.status == 2
    assert ended.errors.splitlines()[-1] == "             ^"


async def test_a_watch_of_a_server_that_does_not_run_does_not_wait_for_it(fleetwright: Command) -> None:
    ended = await fleetwright("agents", "watch", "--server", "127.0.0.1:1")
    failed(ended, 5, "Connection refused")


async def test_programs_get_a_failure_as_json(fleetwright: Command) -> None:
    ended = await fleetwright("agents", "list", "--filter", "hostnam = x", "-o", "json")
    assert (ended.status, ended.out) == (2, "")
    error = json.loads(ended.errors)["error"]
    assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", "FILTER_INVALID")
    assert error["metadata"] == {"position": "0"}
    assert error["violations"][0]["field"] == "filter"
    assert error["exitStatus"] == 2


async def test_programs_get_wrong_usage_as_json_too(command: Command) -> None:
    ended = await command("agents", "list", "--no-such-option", "--output=json")
    assert ended.status == 2
    assert json.loads(ended.errors)["error"]["code"] == "USAGE"


async def test_an_unknown_output_format_lists_those_there_are(command: Command) -> None:
    ended = await command("agents", "list", "-o", "xml")
    assert (ended.status, ended.out) == (2, "")
    assert "'xml'" in ended.errors
    assert "'yaml'" in ended.errors


async def test_an_unknown_command_names_one_that_is_near(command: Command) -> None:
    ended = await command("agent", "list")
    assert ended.status == 2
    assert "'agents'" in ended.errors


async def test_without_any_server_named_the_ways_to_name_one_are_told(command: Command) -> None:
    ended = await command("agents", "list")
    failed(ended, 2, "--identity", "--data-dir", "fleetwright contexts add")


@pytest.mark.parametrize("words", [("agents", "list"), ("doctor",)])
@pytest.mark.parametrize("timeout", ["0", "366d", "soon"])
async def test_a_timeout_that_no_call_can_have_is_refused(
    command: Command, words: tuple[str, ...], timeout: str
) -> None:
    ended = await command(*words, "--timeout", timeout)
    assert ended.status == 2
    assert f"--timeout: '{timeout}'" in ended.errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("agents", "show", "\udcff"), "agent: its bytes are not text in UTF-8"),
        (("agents", "list", "--filter", "\udcff"), "filter: its bytes are not text in UTF-8"),
        (("tasks", "create", "a", "--script", "x", "--env", "A=\udcff"), "env: its bytes are not text"),
        (("tasks", "create", "a", "--logs", "/x", "--max-bytes", str(2**64)), "--max-bytes"),
        (("tasks", "create", "a", "--logs", "/x", "--max-bytes", "-1"), "--max-bytes"),
        (("tokens", "create", "--max-uses", str(2**32)), "--max-uses"),
        (("telemetry", "query", "-o", "name"), "-o name: points have no names"),
        (("telemetry", "watch", "-o", "name"), "-o name: points have no names"),
        (("telemetry", "query", "--since", "0001-01-01T00:00:00+23:59"), "--since"),
        (("agents", "list", "--server", "a..b:7444", "--identity", "x"), "server 'a..b:7444'"),
    ],
)
async def test_what_the_contract_cannot_carry_is_wrong_usage_before_any_call(
    command: Command, words: tuple[str, ...], said: str
) -> None:
    ended = await command(*words)
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.errors


async def test_the_status_is_kept_where_nobody_reads_the_message(fleetwright: Command) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        running = await fleetwright.start("agents", "show", "nobody", stderr=writer)
    finally:
        os.close(writer)
    assert (await running.ended()).status == 3


async def test_ctrl_c_ends_a_call_that_waits(fleetwright: Command) -> None:
    async with answering(b"") as port:
        call = await fleetwright.start("agents", "list", "--server", port.address, "--timeout", "1h")
        async with asyncio.timeout(PATIENCE):
            await port.came.wait()
        ended = await call.interrupt()
    assert (ended.status, ended.out, ended.errors) == (130, "", "")


async def test_a_full_disk_under_the_output_is_told(fleetwright: Command, agents: list[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        ended = await (await fleetwright.start("agents", "list", stdout=full)).ended()
    finally:
        os.close(full)
    failed(ended, 1, "error: standard output: No space left on device")


async def test_a_closed_output_is_told(fleetwright: Command, agents: list[str]) -> None:
    failed(await fleetwright.without_output("agents", "list"), 1, "error: standard output: ")
