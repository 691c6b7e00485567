"""What the shell offers on TAB."""

from __future__ import annotations

import pytest

from tests.integration.cli.command import Command
from tests.support.in_process import LocalSite


async def offered(command: Command, line: str) -> list[str]:
    """Press TAB at the end of ``line`` in bash."""
    words = line.split(" ")
    asked = command.having(
        _FLEETWRIGHT_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1)
    )
    ended = await asked()
    assert (ended.status, ended.errors) == (0, "")
    return list(filter(None, ended.lines))


async def test_commands_are_offered(command: Command) -> None:
    assert await offered(command, "fleetwright ide") == ["identities"]
    assert await offered(command, "fleetwright agents l") == ["list", "label"]
    assert "--filter" in await offered(command, "fleetwright agents list --f")


async def test_agents_are_offered_by_what_is_typed(fleetwright: Command, agents: list[str]) -> None:
    assert await offered(fleetwright, "fleetwright agents show web") == ["web-1", "web-2"]
    assert await offered(fleetwright, "fleetwright agents show ") == agents


async def test_agents_are_asked_of_the_server_that_the_line_names(
    fleetwright: Command, agents: list[str], site: LocalSite
) -> None:
    line = f"fleetwright agents show --server 127.0.0.1:{site.ports.admin} db"
    assert await offered(fleetwright.having(FLEETWRIGHT_SERVER="127.0.0.1:1"), line) == ["db-1"]


async def test_contexts_are_offered(fleetwright: Command, site: LocalSite) -> None:
    identity = str(site.folder / "identities" / "operator-admin")
    for name in ("prod-1", "prod-2", "test"):
        await fleetwright("contexts", "add", name, "--server", "x:7444", "--identity", identity)
    assert await offered(fleetwright, "fleetwright contexts use prod") == ["prod-1", "prod-2"]
    assert await offered(fleetwright, "fleetwright agents list --context t") == ["test"]


@pytest.mark.parametrize("line", ["fleetwright agents show web", "fleetwright agents show 'we%"])
async def test_without_a_server_nothing_is_offered_and_nothing_said(command: Command, line: str) -> None:
    assert await offered(command, line) == []
    away = command.having(FLEETWRIGHT_SERVER="127.0.0.1:1", FLEETWRIGHT_IDENTITY="gone")
    assert await offered(away, line) == []
