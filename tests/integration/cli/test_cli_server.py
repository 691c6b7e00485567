"""``fleetwright server``: what the server is, and which processes it has."""

from __future__ import annotations

from controlplane import VERSION
from tests.integration.cli.command import Command
from tests.support.in_process import LocalSite


async def test_the_processes_of_a_server_are_listed(fleetwright: Command, site: LocalSite) -> None:
    assert site.server is not None
    own = site.server.engines.process
    ended = await fleetwright("server", "processes")
    assert (ended.status, ended.errors) == (0, "")
    head, line = ended.lines
    assert head.split()[:4] == ["PROCESS", "ROLES", "HOST", "PID"]
    assert line.split()[:4] == [own.process_id, "gateway,api,worker", own.host, str(own.pid)]


async def test_programs_get_the_processes_with_their_addresses(fleetwright: Command, site: LocalSite) -> None:
    (process,) = (await fleetwright("server", "processes", "-o", "json")).document["processes"]
    assert process["addresses"]["agents"] == f"127.0.0.1:{site.ports.agents}"
    assert process["roles"] == ["PROCESS_ROLE_GATEWAY", "PROCESS_ROLE_API", "PROCESS_ROLE_WORKER"]
    assert (await fleetwright("server", "processes", "-o", "name")).lines == [process["name"]]


async def test_what_a_server_is_is_shown_with_its_processes(fleetwright: Command, site: LocalSite) -> None:
    shown = await fleetwright("server", "info")
    assert shown.status == 0
    assert "1 gateway,api,worker" in shown.out
    document = (await fleetwright("server", "info", "-o", "json")).document
    assert document["server"]["version"] == VERSION
    assert len(document["processes"]) == 1
