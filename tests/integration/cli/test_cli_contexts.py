"""``fleetwright contexts``, and which of all that names a server wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli.command import Command
from tests.support.in_process import LocalSite
from tests.support.site import HOST


@pytest.fixture
def server(site: LocalSite) -> list[str]:
    """The options of a context for the running server."""
    return [
        "--server",
        f"{HOST}:{site.ports.admin}",
        "--identity",
        str(site.folder / "identities" / "operator-admin"),
    ]


def config(home: Path) -> Path:
    return home / ".config" / "fleetwright" / "config.toml"


async def test_the_first_context_becomes_the_current_one_and_is_used(
    command: Command, server: list[str], home: Path
) -> None:
    added = await command("contexts", "add", "prod", *server)
    assert (added.status, added.errors) == (0, "")
    assert (await command("agents", "list")).status == 0
    assert config(home).stat().st_mode & 0o777 == 0o600


async def test_a_context_is_chosen_by_option_by_variable_or_for_good(
    command: Command, server: list[str]
) -> None:
    await command("contexts", "add", "away", "--server", "127.0.0.1:1", *server[2:])
    await command("contexts", "add", "prod", *server)
    assert (await command("agents", "list")).status == 5
    assert (await command("agents", "list", "--context", "prod")).status == 0
    assert (await command.having(FLEETWRIGHT_CONTEXT="prod")("agents", "list")).status == 0
    assert (await command("contexts", "use", "prod")).status == 0
    assert (await command("agents", "list")).status == 0
    listed = await command("contexts", "list", "-o", "json")
    assert [(one["name"], one["current"]) for one in listed.document["contexts"]] == [
        ("away", False),
        ("prod", True),
    ]


async def test_an_option_wins_over_its_context_and_a_context_over_the_environment(
    fleetwright: Command, server: list[str]
) -> None:
    await fleetwright("contexts", "add", "away", "--server", "127.0.0.1:1", *server[2:])
    assert (await fleetwright("agents", "list")).status == 0
    assert (await fleetwright("agents", "list", "--context", "away")).status == 5
    assert (await fleetwright("agents", "list", "--context", "away", *server[:2])).status == 0


async def test_a_data_folder_lends_its_first_administrator(
    command: Command, site: LocalSite, server: list[str]
) -> None:
    words = ("agents", "list", *server[:2])
    assert (await command(*words, "--data-dir", str(site.folder))).status == 0
    assert (await command.having(FLEETWRIGHT_DATA_DIR=str(site.folder))(*words)).status == 0


async def test_a_context_that_does_not_exist_names_one_that_is_near(
    command: Command, server: list[str]
) -> None:
    await command("contexts", "add", "prod", *server)
    ended = await command("agents", "list", "--context", "prd")
    assert (ended.status, ended.out) == (3, "")
    assert "context 'prd'" in ended.errors
    assert "did you mean prod?" in ended.errors


async def test_a_context_is_not_replaced_by_accident(command: Command, server: list[str], home: Path) -> None:
    await command("contexts", "add", "prod", *server)
    before = config(home).read_bytes()
    again = ("contexts", "add", "prod", "--server", "other.example.org:7444", *server[2:])
    assert (await command(*again)).status == 1
    assert config(home).read_bytes() == before
    assert (await command(*again, "--replace")).status == 0
    assert b"other.example.org:7444" in config(home).read_bytes()


async def test_a_context_without_a_usable_identity_is_not_added(command: Command, home: Path) -> None:
    ended = await command("contexts", "add", "prod", "--server", "x:7444", "--identity", "gone")
    assert ended.status == 4
    assert "key.pem" in ended.errors
    assert not config(home).exists()


async def test_the_current_context_is_gone_once_it_is_removed(command: Command, server: list[str]) -> None:
    await command("contexts", "add", "prod", *server)
    assert (await command("contexts", "show", "-o", "json")).document["name"] == "prod"
    assert (await command("contexts", "remove", "prod")).status == 0
    assert (await command("contexts", "show")).status == 3
    assert (await command("agents", "list")).status == 2


async def test_a_broken_file_is_named_with_the_place(command: Command, home: Path) -> None:
    config(home).parent.mkdir(parents=True)
    config(home).write_text("current = \n")
    ended = await command("agents", "list")
    assert ended.status == 2
    assert str(config(home)) in ended.errors
    assert "line 1" in ended.errors


async def test_a_file_that_cannot_be_written_is_named(
    command: Command, server: list[str], home: Path
) -> None:
    (home / ".config").write_text("in the way")
    ended = await command("contexts", "add", "prod", *server)
    assert ended.status == 1
    assert str(home / ".config") in ended.errors
