"""``fleetwright tokens``, ``identities`` and ``version``, against the real server."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controlplane import VERSION
from controlplane.trust import setup
from tests.integration.cli.command import Command
from tests.support.in_process import LocalSite


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_join_token_stands_alone_on_standard_output_and_lets_an_agent_in(
    fleetwright: Command, site: LocalSite
) -> None:
    ended = await fleetwright("tokens", "create", "--label", "env=test")
    assert (ended.status, ended.errors, len(ended.lines)) == (0, "", 1)
    await site.enroll("web-1", ended.out.strip())
    shown = await fleetwright("agents", "show", "web-1", "-o", "json")
    assert shown.document["labels"] == {"env": "test"}


async def test_programs_get_the_token_with_its_secret(fleetwright: Command, site: LocalSite) -> None:
    ended = await fleetwright(
        *("tokens", "create", "--ttl", "2h", "--max-uses", "3", "--description", "rack 12"), "-o", "json"
    )
    token = ended.document["token"]
    assert (token["maxUses"], token["description"]) == (3, "rack 12")
    await site.enroll("web-1", ended.document["joinToken"])
    [listed] = (await fleetwright("tokens", "list", "-o", "json")).document["tokens"]
    assert (listed["name"], listed["useCount"]) == (token["name"], 1)
    assert "joinToken" not in listed


@pytest.mark.parametrize("form", [(), ("-o", "json")])
async def test_a_token_that_could_not_be_shown_is_revoked(
    fleetwright: Command, form: tuple[str, ...]
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        ended = await (await fleetwright.start("tokens", "create", *form, stdout=full)).ended()
    finally:
        os.close(full)
    closed = await fleetwright.without_output("tokens", "create", *form)
    assert (ended.status, closed.status) == (1, 1)
    assert "No space left on device" in ended.errors
    assert "revoked again" in ended.errors
    assert "revoked again" in closed.errors
    tokens = (await fleetwright("tokens", "list", "-o", "json")).document["tokens"]
    assert [token["state"] for token in tokens] == ["ENROLLMENT_TOKEN_STATE_REVOKED"] * 2


async def test_a_revoked_token_is_listed_as_such(fleetwright: Command, site: LocalSite) -> None:
    await fleetwright("tokens", "create")
    [name] = (await fleetwright("tokens", "list", "-o", "name")).lines
    ended = await fleetwright("tokens", "revoke", name.removeprefix("enrollmentTokens/"))
    assert (ended.status, ended.out) == (0, f"{name} is revoked; it let 0 of 1 in\n")
    assert "REVOKED" in (await fleetwright("tokens", "list")).out


@pytest.mark.parametrize("ttl", ["soon", "-5", "1y"])
async def test_a_life_that_is_no_duration_is_refused_with_its_option(command: Command, ttl: str) -> None:
    ended = await command("tokens", "create", "--ttl", ttl)
    assert ended.status == 2
    assert "--ttl" in ended.errors
    assert repr(ttl) in ended.errors


async def test_a_life_that_the_contract_does_not_allow_is_refused(fleetwright: Command) -> None:
    ended = await fleetwright("tokens", "create", "--ttl", "400d")
    assert (ended.status, ended.out) == (2, "")
    assert "ttl" in ended.errors


async def test_an_issued_identity_is_a_private_folder_that_calls(
    fleetwright: Command, command: Command, site: LocalSite, home: Path
) -> None:
    ended = await fleetwright("identities", "issue", "operator", "night-shift")
    assert (ended.status, ended.errors) == (0, "")
    folder = home / "operator-night-shift"
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == {
        "key.pem": 0o600,
        "cert.pem": 0o600,
        "ca.pem": 0o600,
    }
    assert folder.stat().st_mode & 0o777 == 0o700
    shown = await command.calling(site, folder)("version", "-o", "json")
    assert shown.document["server"]["caller"] == "spiffe://fleetwright.local/operator/night-shift"


async def test_an_identity_never_takes_the_place_of_a_folder(fleetwright: Command, home: Path) -> None:
    (home / "mine").mkdir()
    (home / "mine" / "key.pem").write_text("precious")
    ended = await fleetwright("identities", "issue", "operator", "night-shift", "--out", "mine")
    assert ended.status == 1
    assert "mine: exists already" in ended.errors
    assert (home / "mine" / "key.pem").read_text() == "precious"
    assert (await fleetwright("identities", "list", "-o", "name")).lines != []
    assert "night-shift" not in (await fleetwright("identities", "list")).out


async def test_an_identity_that_the_server_refuses_leaves_nothing_behind(
    command: Command, site: LocalSite, home: Path
) -> None:
    integrator = setup.issue_identity(site.folder, "integrator", "ticketing", datetime.now(UTC))
    ended = await command.calling(site, integrator)("identities", "issue", "operator", "night-shift")
    assert ended.status == 4
    assert names(home) == []


async def test_a_name_that_no_identity_may_have_makes_no_folder(fleetwright: Command, home: Path) -> None:
    ended = await fleetwright("identities", "issue", "operator", "../ada")
    assert ended.status == 2
    assert "'../ada'" in ended.errors
    assert names(home) == []


async def test_a_revoked_identity_is_not_accepted(
    fleetwright: Command, command: Command, site: LocalSite, home: Path
) -> None:
    issued = await fleetwright("identities", "issue", "integrator", "ticketing", "-o", "json")
    serial = issued.document["name"].removeprefix("identities/").upper()
    colons = ":".join(re.findall("..?", f"0{serial}"))
    await fleetwright("identities", "revoke", colons)
    ended = await command.calling(site, home / "integrator-ticketing")("agents", "list")
    assert (ended.status, ended.out) == (4, "")
    assert "revoked" in ended.errors


async def test_an_identity_is_issued_without_a_server_on_its_machine(command: Command, folder: Path) -> None:
    ended = await command("identities", "issue", "operator", "rescue", "--offline", "--data-dir", str(folder))
    assert (ended.status, ended.errors) == (0, "")
    assert (folder / "identities" / "operator-rescue" / "key.pem").stat().st_mode & 0o777 == 0o600


async def test_without_a_server_nothing_is_silently_left_out(command: Command, folder: Path) -> None:
    offline = ("identities", "issue", "operator", "rescue", "--offline", "--data-dir", str(folder))
    refused = await command(*offline, "--ttl", "1h")
    assert refused.status == 2
    assert "--ttl" in refused.errors
    assert (await command(*offline, "-o", "json")).document == {
        "folder": str(folder / "identities" / "operator-rescue")
    }


async def test_versions_are_those_of_the_command_and_of_the_server(
    fleetwright: Command, site: LocalSite
) -> None:
    shown = (await fleetwright("version", "-o", "json")).document
    assert shown["client"] == {"version": VERSION}
    assert shown["server"]["version"] == VERSION
    assert shown["server"]["caller"] == "spiffe://fleetwright.local/operator/admin"


async def test_the_version_of_the_command_needs_no_server(command: Command) -> None:
    assert (await command("version", "--client")).lines == [f"Client:           {VERSION}"]
    assert json.loads((await command("version", "-o", "json")).out)["server"] is None
    assert (await command("--version")).out == f"{VERSION}\n"
