"""The agent's program installs what a server releases: over cuts, and killed at each step."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from fleetwright.v1 import work_pb2

from agent_sim.failpoints import PLACES, VARIABLE
from tests.integration.agent.small_server import SmallServer, small_server
from tests.integration.agent.test_agent_kills import killed, leave
from tests.integration.agent.test_agent_program import program
from tests.support.install_world import Package, archive, release
from tests.unit.verify import evidence_world as world

POLICY = """
task_kinds = ["echo", "install"]
[install]
channels = ["stable"]
prefix = "{prefix}"
commands_as = "@agent"
"""
DETECT = {
    "kind": "command", "arguments": ["bin/tool"], "exit_status": 0, "output": "tool *", "timeout_seconds": 9,
}  # fmt: skip

INSTALLED = work_pb2.DEPLOYMENT_STATUS_INSTALLED
# What the server hears in the end of an attempt that was killed there: the truth where something had begun.
INTERRUPTED_AT = {"agent.install_piece", "agent.install_downloaded", "agent.install_verified"}
GIVEN_UP_AT = {"agent.install_staging", "agent.install_staged"}
ONLY_WHERE_IT_FAILS = {"agent.install_restoring", "agent.install_restored"}


class InstallingSite:
    def __init__(self, server: SmallServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.state, self.prefix = folder / "state", folder / "opt"
        self.ports = (0, 0)

    async def enroll(self, *options: str, status: int = 0) -> str:
        """Run `enroll` and return what it says."""
        enrolment, agents = self.ports
        process = await program(
            "enroll",
            f"--server=127.0.0.1:{enrolment}",
            f"--agent-address=127.0.0.1:{agents}",
            "--agent-id=web-1",
            f"--state={self.state}",
            *options,
            FLEETWRIGHT_JOIN_TOKEN=self.server.token,
        )
        told, errors = await process.communicate()
        assert await process.wait() == status, errors.decode()
        return told.decode() + errors.decode()

    async def agent(self, failpoint: str = "") -> asyncio.subprocess.Process:
        return await program("run", f"--state={self.state}", **{VARIABLE: failpoint})

    def released(self, version: str, **parts: object) -> Package:
        package = archive(self.folder, version, detect=DETECT, **parts)  # type: ignore[arg-type]
        release(self.server.files.repository, package, datetime.now(UTC))
        return package

    async def install(self, package: Package) -> work_pb2.AttemptResult:
        result, _ = await self.server.give(install=package.assignment().spec.install)
        return result

    def said(self) -> str:
        program = self.prefix / "bin" / "tool"
        return subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip()


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[InstallingSite]:
    async with small_server() as (server, enrolment_port, agent_port):
        site = InstallingSite(server, tmp_path)
        server.trusted_root = world.ceremony().online.trusted_root
        site.ports = (enrolment_port, agent_port)
        await site.enroll()
        (site.state / "policy.toml").write_text(POLICY.format(prefix=site.prefix))
        yield site


async def test_the_root_comes_with_the_identity_and_stays_unless_the_owner_says_so(
    site: InstallingSite,
) -> None:
    kept = site.state / "trusted-root.json"
    first = world.ceremony().online.trusted_root
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (first, 0o600)
    (site.state / "identity.json").unlink()
    site.server.trusted_root = b'{"another": "root"}'
    assert "the server gave another one: compare them" in await site.enroll()
    assert kept.read_bytes() == first
    assert "packages are judged by it" in await site.enroll("--force")
    assert kept.read_bytes() == site.server.trusted_root
    site.server.trusted_root = b""
    assert "kept as it was" in await site.enroll("--force")
    kept.unlink()
    assert "no package can be installed" in await site.enroll("--force")
    assert not kept.exists()


async def test_a_root_that_is_too_large_is_refused_and_the_host_not_enrolled(site: InstallingSite) -> None:
    site.server.trusted_root = b"x" * (512 * 1024 + 1)
    before = (site.state / "identity.json").read_bytes()
    said = await site.enroll("--force", status=1)
    assert "a root of 524289 bytes" in said
    assert (site.state / "identity.json").read_bytes() == before


async def test_a_package_is_installed_over_a_connection_that_is_cut(site: InstallingSite) -> None:
    package = site.released("1.0")
    site.server.cut_after = [3, 2]
    agent = await site.agent()
    result = await site.install(package)
    assert result.outcome == work_pb2.OUTCOME_SUCCEEDED, result.reason
    assert result.install.status == INSTALLED
    offsets = [offset for sha256, offset in site.server.files.asked if sha256 == package.sha256]
    assert offsets == [0, 3_000, 5_000]
    assert site.said() == "tool 1.0"
    assert {report.deployment_status for report in site.server.progress} <= {2, 3, 4}
    assert site.server.progress
    assert site.server.hellos[0].task_kinds == ["echo", "install"]
    await leave(agent)


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        # Before the switch, in the midst of it, and before its last word; the others with all that is long.
        place
        if place.endswith(("_staged", "_switching", "_committing"))
        else pytest.param(place, marks=pytest.mark.long)
        for place in sorted(
            p for p in PLACES if p.startswith("agent.install_") and p not in ONLY_WHERE_IT_FAILS
        )
    ],
)
async def test_a_killed_agent_finishes_or_takes_back_what_it_had_begun_and_says_so(
    site: InstallingSite, place: str
) -> None:
    agent = await site.agent()
    assert (await site.install(site.released("1.0"))).install.status == INSTALLED
    await leave(agent)
    package = site.released("2.0")
    agent = await site.agent(f"{place}=kill@1")
    given = asyncio.create_task(site.install(package))
    await killed(agent)

    agent = await site.agent()
    result = await given
    if place in INTERRUPTED_AT:
        assert result.outcome == work_pb2.OUTCOME_INTERRUPTED
        assert site.said() == "tool 1.0"
    elif place in GIVEN_UP_AT:
        assert result.install.reason_code == "INTERRUPTED"
        assert site.said() == "tool 1.0"
    else:
        assert (result.install.status, result.install.previous_version) == (INSTALLED, "1.0"), result.reason
    again = await site.install(package)
    assert again.install.status == INSTALLED, again.reason
    assert site.said() == "tool 2.0"
    await leave(agent)


@pytest.mark.slow
@pytest.mark.parametrize("place", sorted(ONLY_WHERE_IT_FAILS))
async def test_a_killed_agent_brings_back_what_was_before(site: InstallingSite, place: str) -> None:
    agent = await site.agent()
    assert (await site.install(site.released("1.0"))).install.status == INSTALLED
    await leave(agent)
    bad = {"a/bin/tool": (b"#!/bin/sh\nexit 1\n", 0o755)}
    agent = await site.agent(f"{place}=kill@1")
    given = asyncio.create_task(site.install(site.released("2.0", files=bad)))
    await killed(agent)

    agent = await site.agent()
    result = await given
    assert result.install.status == work_pb2.DEPLOYMENT_STATUS_ROLLED_BACK
    assert site.said() == "tool 1.0"
    await leave(agent)
